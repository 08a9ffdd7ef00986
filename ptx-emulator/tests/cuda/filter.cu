// arch: sm_75
// Keeps the even elements, in any order: the lanes of a warp that keep one take their places with one atomic.

extern "C" __global__ void filter_even(const unsigned *input, unsigned *output, unsigned *kept, unsigned count)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count || input[i] % 2 != 0)
        return;
    unsigned active = __activemask();
    unsigned lane = threadIdx.x % 32, leader = __ffs(active) - 1;
    unsigned base = 0;
    if (lane == leader)
        base = atomicAdd(kept, __popc(active));
    base = __shfl_sync(active, base, leader);
    output[base + __popc(active & ((1u << lane) - 1))] = input[i];
}
