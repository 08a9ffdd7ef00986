// arch: sm_75
// Inclusive prefix sums of a block's elements: within warps by shuffles, then over the warps' totals.

extern "C" __global__ void inclusive_scan(const int *input, int *output)
{
    __shared__ int totals[32];
    unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned at = blockIdx.x * blockDim.x + threadIdx.x;
    int sum = input[at];
    for (int distance = 1; distance < 32; distance *= 2) {
        int before = __shfl_up_sync(0xffffffff, sum, distance);
        if (lane >= distance)
            sum += before;
    }
    if (lane == 31)
        totals[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        int total = lane < blockDim.x / 32 ? totals[lane] : 0;
        for (int distance = 1; distance < 32; distance *= 2) {
            int before = __shfl_up_sync(0xffffffff, total, distance);
            if (lane >= distance)
                total += before;
        }
        totals[lane] = total;
    }
    __syncthreads();
    output[at] = sum + (warp > 0 ? totals[warp - 1] : 0);
}
