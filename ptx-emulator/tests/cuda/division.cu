// Quotient and remainder of numbers of 128 bits, which nvcc computes by long division with 32-bit digits: differences whose borrow is
// then added.
// arch: sm_80
extern "C" __global__ void divide(const unsigned __int128* a, const unsigned __int128* b, unsigned __int128* quotient,
                                  unsigned __int128* remainder, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    quotient[i] = a[i] / b[i];
    remainder[i] = a[i] % b[i];
}
