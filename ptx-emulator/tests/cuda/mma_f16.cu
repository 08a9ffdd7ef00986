// One warp multiplies tiles of f16 on tensor cores: c (16 x 8) += a (16 x k) * b (k x 8), k a multiple of 16.
// Tiles pass through shared memory and are loaded with ldmatrix; b is loaded transposed.

#include <cuda_fp16.h>

extern "C" __global__ void mma_f16(const __half *a, const __half *b, float *c, unsigned k) {
    __shared__ __align__(16) __half tile_a[16 * 16];
    __shared__ __align__(16) __half tile_b[16 * 8];
    unsigned lane = threadIdx.x;
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (unsigned base = 0; base < k; base += 16) {
        for (unsigned i = lane; i < 16 * 16; i += 32) tile_a[i] = a[i / 16 * k + base + i % 16];
        for (unsigned i = lane; i < 16 * 8; i += 32) tile_b[i] = b[(base + i / 8) * 8 + i % 8];
        __syncwarp();
        unsigned ra[4], rb[2];
        // Lanes 0 to 15 have the rows of the left half of a, the others those of the right half.
        unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(&tile_a[lane % 16 * 16 + lane / 16 * 8]));
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(ra[0]), "=r"(ra[1]), "=r"(ra[2]), "=r"(ra[3]) : "r"(at));
        unsigned bt = static_cast<unsigned>(__cvta_generic_to_shared(&tile_b[lane % 16 * 8]));
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                     : "=r"(rb[0]), "=r"(rb[1]) : "r"(bt));
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                     : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
        __syncwarp();
    }
    for (unsigned i = 0; i < 4; i++) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] += sum[i];
}
