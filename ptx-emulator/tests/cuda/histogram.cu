// arch: sm_75
// Counts of byte values: by atomics in shared memory, then one atomic a bin in global memory.

extern "C" __global__ void histogram(const unsigned char *input, unsigned *bins, unsigned count)
{
    __shared__ unsigned local[256];
    for (unsigned bin = threadIdx.x; bin < 256; bin += blockDim.x)
        local[bin] = 0;
    __syncthreads();
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x)
        atomicAdd(&local[input[i]], 1);
    __syncthreads();
    for (unsigned bin = threadIdx.x; bin < 256; bin += blockDim.x)
        if (local[bin] != 0)
            atomicAdd(&bins[bin], local[bin]);
}
