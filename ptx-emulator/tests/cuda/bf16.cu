// Arithmetic on bf16: dot products of rows of eight, accumulated in bf16 and in f32, and conversions.

#include <cuda_bf16.h>

extern "C" __global__ void bf16_dot(const __nv_bfloat16 *a, const __nv_bfloat16 *b, __nv_bfloat16 *rough, float *fine, unsigned n) {
    unsigned row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= n) return;
    __nv_bfloat16 sum = __float2bfloat16(0.0f);
    float exact = 0.0f;
    for (unsigned k = 0; k < 8; k++) {
        __nv_bfloat16 x = a[8 * row + k], y = b[8 * row + k];
        sum = __hfma(x, y, sum);
        exact = fmaf(__bfloat162float(x), __bfloat162float(y), exact);
    }
    rough[row] = __hmul(sum, __float2bfloat16(0.5f));
    fine[row] = exact;
}

extern "C" __global__ void bf16_pairs(const __nv_bfloat162 *a, const __nv_bfloat162 *b, __nv_bfloat162 *out, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    __nv_bfloat162 x = a[i], y = b[i];
    out[3 * i] = __hadd2(__hmul2(x, y), x);
    out[3 * i + 1] = __hmin2(x, __habs2(y));
    out[3 * i + 2] = __float22bfloat162_rn(make_float2(__low2float(x) / 3.0f, __high2float(y) / 3.0f));
}
