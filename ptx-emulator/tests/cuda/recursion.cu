// Functions that call themselves and each other, through pointers as well: Ackermann's function and the parity of a number.

__device__ __noinline__ unsigned ackermann(unsigned m, unsigned n) {
    if (m == 0) return n + 1;
    if (n == 0) return ackermann(m - 1, 1);
    return ackermann(m - 1, ackermann(m, n - 1));
}

__device__ unsigned is_odd(unsigned n);

__device__ __noinline__ unsigned is_even(unsigned n) {
    return n == 0 ? 1 : is_odd(n - 1);
}

__device__ __noinline__ unsigned is_odd(unsigned n) {
    return n == 0 ? 0 : is_even(n - 1);
}

typedef unsigned (*Predicate)(unsigned);
__device__ Predicate predicates[2] = {is_even, is_odd};

extern "C" __global__ void recursion(unsigned *out, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    out[2 * i] = ackermann(i % 3, i % 5);
    out[2 * i + 1] = predicates[i % 2](i % 20);
}
