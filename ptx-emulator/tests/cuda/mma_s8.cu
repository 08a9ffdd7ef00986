// One warp multiplies tiles of s8 on tensor cores: c (16 x 8) = a (16 x k) * b (8 x k) transposed, k a multiple of 32.
// A row of 32 bytes is two rows of an 8x8 matrix of 16-bit elements, which is how ldmatrix sees bytes.

extern "C" __global__ void mma_s8(const signed char *a, const signed char *b, int *c, unsigned k) {
    __shared__ __align__(16) signed char tile_a[16 * 32];
    __shared__ __align__(16) signed char tile_b[8 * 32];
    unsigned lane = threadIdx.x;
    int sum[4] = {0, 0, 0, 0};
    for (unsigned base = 0; base < k; base += 32) {
        reinterpret_cast<int4 *>(tile_a)[lane] = *reinterpret_cast<const int4 *>(a + lane / 2 * k + base + lane % 2 * 16);
        if (lane < 16) reinterpret_cast<int4 *>(tile_b)[lane] = *reinterpret_cast<const int4 *>(b + lane / 2 * k + base + lane % 2 * 16);
        __syncwarp();
        unsigned ra[4], rb[2];
        unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(&tile_a[lane % 16 * 32 + lane / 16 * 16]));
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(ra[0]), "=r"(ra[1]), "=r"(ra[2]), "=r"(ra[3]) : "r"(at));
        unsigned bt = static_cast<unsigned>(__cvta_generic_to_shared(&tile_b[lane % 8 * 32 + lane / 8 % 2 * 16]));
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(rb[0]), "=r"(rb[1]) : "r"(bt));
        asm volatile("mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
                     : "r"(ra[0]), "r"(ra[1]), "r"(ra[2]), "r"(ra[3]), "r"(rb[0]), "r"(rb[1]));
        __syncwarp();
    }
    for (unsigned i = 0; i < 4; i++) c[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = sum[i];
}
