// Sums of rows: 16-bit and float32 numbers, added up in float32 in the one order of rows.cuh.
#include "rows.cuh"

// y = sum x of each row.
template <class Element>
__device__ __forceinline__ void row_sum(const Element* x, float* y, long long rows, long long length) {
    const Team team(length);
    if (team.row >= rows) {
        return;
    }
    x += team.row * length;
    const bool whole = in_groups(length, x, x);
    const long long stretches = team.stretches(length);
    float held[HELD];
    float sum = 0.0f;
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        read_stretch(held, x, team, stretch, length, whole, 0.0f);
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            sum = __fadd_rn(sum, held[i]);
        }
    }
    sum = over_team<Sum>(team, sum);
    if (team.thread == 0) {
        y[team.row] = sum;
    }
}

#define ROW_SUM(name, Element)                                                                               \
    extern "C" __global__ void row_sum_##name(const Element* x, float* y, long long rows,                    \
                                              long long length) {                                            \
        row_sum(x, y, rows, length);                                                                         \
    }

ROW_SUM(float, float)
ROW_SUM(half, __half)
ROW_SUM(bfloat16, __nv_bfloat16)
