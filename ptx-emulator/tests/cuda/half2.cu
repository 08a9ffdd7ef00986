// Arithmetic on pairs of f16: a * b + c with each rounding step written out, comparisons, minimum and maximum, conversions.

#include <cuda_fp16.h>

extern "C" __global__ void half2_arithmetic(const __half2 *a, const __half2 *b, const __half2 *c, __half2 *out, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    __half2 x = a[i], y = b[i], z = c[i];
    out[7 * i] = __hfma2(x, y, z);
    out[7 * i + 1] = __hadd2_rn(__hmul2_rn(x, y), z);
    out[7 * i + 2] = __hsub2_sat(x, y);
    out[7 * i + 3] = __hmax2_nan(__hmin2(x, y), z);
    out[7 * i + 4] = __hgt2(x, y);
    out[7 * i + 5] = __floats2half2_rn(__low2float(x) * 1.5f, __high2float(y) + 0.25f);
    out[7 * i + 6] = __hfma2_relu(__hneg2(x), y, __habs2(z));
}
