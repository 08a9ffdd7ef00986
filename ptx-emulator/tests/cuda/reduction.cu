// arch: sm_75
// Sums: within warps by shuffles, within blocks through shared memory, and over blocks by whichever block is the last to finish.

__device__ unsigned finished = 0;

__device__ unsigned warp_sum(unsigned value)
{
    for (int distance = 16; distance > 0; distance /= 2)
        value += __shfl_down_sync(0xffffffff, value, distance);
    return value;
}

// The sum of `value` over the block, in its first thread.
__device__ unsigned block_sum(unsigned value)
{
    __shared__ unsigned partial[32];
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    value = warp_sum(value);
    if (lane == 0)
        partial[warp] = value;
    __syncthreads();
    value = threadIdx.x < blockDim.x / 32 ? partial[lane] : 0;
    if (warp == 0)
        value = warp_sum(value);
    return value;
}

// partial[b] = the sum of block b's elements.
extern "C" __global__ void block_sums(const unsigned *input, unsigned *partial, unsigned count)
{
    unsigned sum = 0;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        sum += input[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

// *total = the sum of all elements. `partial` has room for one value a block.
extern "C" __global__ void last_block_sum(const unsigned *input, unsigned *partial, unsigned *total, unsigned count)
{
    __shared__ bool is_last;
    unsigned sum = 0;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        sum += input[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = sum;
        __threadfence();
        is_last = atomicAdd(&finished, 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (!is_last)
        return;
    // What the other blocks wrote is visible to the thread that counted, and through the barrier to all of its block.
    __threadfence();
    sum = threadIdx.x < gridDim.x ? partial[threadIdx.x] : 0;
    __syncthreads();
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        *total = sum;
        finished = 0;
    }
}
