// arch: sm_75
// Transposition by tiles of 32 x 32 in shared memory, whose rows are padded by a word or not. 32 x 8 threads a tile.

#define TILE 32
#define ROWS 8

template <int PITCH>
__device__ void transpose(const float *input, float *output, unsigned width, unsigned height)
{
    __shared__ float tile[TILE][PITCH];
    unsigned x = blockIdx.x * TILE + threadIdx.x, y = blockIdx.y * TILE + threadIdx.y;
    for (unsigned row = 0; row < TILE; row += ROWS)
        tile[threadIdx.y + row][threadIdx.x] = input[(y + row) * width + x];
    __syncthreads();
    x = blockIdx.y * TILE + threadIdx.x;
    y = blockIdx.x * TILE + threadIdx.y;
    for (unsigned row = 0; row < TILE; row += ROWS)
        output[(y + row) * height + x] = tile[threadIdx.x][threadIdx.y + row];
}

extern "C" __global__ void transpose_padded(const float *input, float *output, unsigned width, unsigned height)
{
    transpose<TILE + 1>(input, output, width, height);
}

extern "C" __global__ void transpose_unpadded(const float *input, float *output, unsigned width, unsigned height)
{
    transpose<TILE>(input, output, width, height);
}
