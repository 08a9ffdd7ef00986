// arch: sm_75
// Jacobi steps on a ring, by all blocks together: a grid-wide barrier between one step and the next.

#include <cooperative_groups.h>

namespace cg = cooperative_groups;

// `values` and `scratch` hold gridDim.x * blockDim.x integers. After an even number of steps the result is in `values`.
extern "C" __global__ void ring_steps(unsigned *values, unsigned *scratch, unsigned steps)
{
    cg::grid_group grid = cg::this_grid();
    unsigned count = gridDim.x * blockDim.x, at = blockIdx.x * blockDim.x + threadIdx.x;
    for (unsigned step = 0; step < steps; ++step) {
        unsigned left = values[(at + count - 1) % count], right = values[(at + 1) % count];
        scratch[at] = left + 2 * values[at] + right;
        grid.sync();
        unsigned *other = values;
        values = scratch;
        scratch = other;
    }
}
