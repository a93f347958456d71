// layer_norm and rms_norm of rows: float32 inside, one rounding at the end.
//
// rms_norm is a layer_norm whose mean is taken to be 0: where there is no room for means.
#include "rows.cuh"

// y = z w + b with z = (x - m) s, s = 1 / sqrt(mean (x - m)^2 + eps) and m the mean.
template <class Element>
__device__ __forceinline__ void norm(const Element* x, const float* weight, const float* bias, Element* y,
                                     float* means, float* scales, float eps, long long rows,
                                     long long length) {
    const Team team(length);
    if (team.row >= rows) {
        return;
    }
    x += team.row * length;
    y += team.row * length;
    const bool whole = in_groups(length, x, y, weight, bias);
    const long long stretches = team.stretches(length);
    const float count = static_cast<float>(length);
    float held[HELD], beside[HELD];
    float mean = 0.0f;
    if (means != nullptr) {
        float sum = 0.0f;
#pragma unroll 1
        for (long long stretch = 0; stretch < stretches; ++stretch) {
            read_stretch(held, x, team, stretch, length, whole, 0.0f);
#pragma unroll
            for (int i = 0; i < HELD; ++i) {
                sum = __fadd_rn(sum, held[i]);
            }
        }
        mean = __fdiv_rn(over_team<Sum>(team, sum), count);
    }
    float square = 0.0f;
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        if (stretches > 1 || means == nullptr) {
            read_stretch(held, x, team, stretch, length, whole, 0.0f);
        }
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            held[i] = __fsub_rn(held[i], mean);
            const bool there = team.place(stretch) + i < length;
            square = __fadd_rn(square, there ? __fmul_rn(held[i], held[i]) : 0.0f);
        }
    }
    square = __fdiv_rn(over_team<Sum>(team, square), count);
    const float scale = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(square, eps)));
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        if (stretches > 1) {
            read_stretch(held, x, team, stretch, length, whole, 0.0f);
        }
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            held[i] = __fmul_rn(stretches > 1 ? __fsub_rn(held[i], mean) : held[i], scale);
        }
        if (weight != nullptr) {
            read_stretch(beside, weight, team, stretch, length, whole, 0.0f);
#pragma unroll
            for (int i = 0; i < HELD; ++i) {
                held[i] = __fmul_rn(held[i], beside[i]);
            }
        }
        if (bias != nullptr) {
            read_stretch(beside, bias, team, stretch, length, whole, 0.0f);
#pragma unroll
            for (int i = 0; i < HELD; ++i) {
                held[i] = __fadd_rn(held[i], beside[i]);
            }
        }
        write_stretch(y, held, team, stretch, length, whole);
    }
    if (team.thread == 0) {
        scales[team.row] = scale;
        if (means != nullptr) {
            means[team.row] = mean;
        }
    }
}

#define NORM(name, Element)                                                                                  \
    extern "C" __global__ void norm_##name(const Element* x, Maybe<const float*> weight,                     \
                                           Maybe<const float*> bias, Element* y, Maybe<float*> means,        \
                                           float* scales, float eps, long long rows, long long length) {     \
        norm(x, weight.at[0], bias.at[0], y, means.at[0], scales, eps, rows, length);                        \
    }

NORM(float, float)
NORM(half, __half)
NORM(bfloat16, __nv_bfloat16)
