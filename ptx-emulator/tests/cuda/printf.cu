// What device code prints, and an assertion.

#include <cassert>
#include <cstdio>

extern "C" __global__ void report(const int *values, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int value = values[i];
    printf("block %u thread %2u: %d, %+.3f, %#x, %c%%\n", blockIdx.x, threadIdx.x, value, value / 8.0, value, 'a' + (int)i % 26);
    if (i == 1) printf("%s|%-6s|%5.2s|%lld|%zu|%e\n", "text", "left", "cut off", -1234567890123ll, sizeof(value), 1e-10 * value);
}

extern "C" __global__ void check(const int *values, int limit) {
    int value = values[threadIdx.x];
    assert(value < limit);
}
