// Sums of neighbours, tile by tile, through two buffers that cp.async fills in turn: out[i] = in[i] + in[i ^ 1] within a block's
// run of tiles of 128 floats. The last tile of the input may be partial.

#include <cuda_pipeline.h>

extern "C" __global__ void pipeline(const float *in, float *out, unsigned n, unsigned tiles) {
    __shared__ __align__(16) float buffer[2][128];
    unsigned thread = threadIdx.x;
    unsigned first = blockIdx.x * tiles * 128;
    auto fetch = [&](unsigned tile) {
        if (thread < 32) {
            unsigned at = first + tile * 128 + thread * 4;
            unsigned have = at >= n ? 0 : (n - at < 4 ? n - at : 4);
            __pipeline_memcpy_async(&buffer[tile % 2][thread * 4], in + (have ? at : 0), 16, 16 - have * 4);
        }
        __pipeline_commit();
    };
    fetch(0);
    for (unsigned tile = 0; tile < tiles; tile++) {
        if (tile + 1 < tiles) {
            fetch(tile + 1);
            __pipeline_wait_prior(1);
        } else {
            __pipeline_wait_prior(0);
        }
        __syncthreads();
        unsigned at = first + tile * 128 + thread;
        float sum = buffer[tile % 2][thread] + buffer[tile % 2][thread ^ 1];
        if (at < n) out[at] = sum;
        __syncthreads();
    }
}
