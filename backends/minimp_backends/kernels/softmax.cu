// softmax and log_softmax of rows, and their gradients: float32 inside, one rounding at the end.
#include "rows.cuh"

// y = e^(x - max) / sum e^(x - max), or with `logs` x - max - ln sum e^(x - max). A row with a NaN, with +inf or
// of -inf alone becomes NaN.
template <class Element>
__device__ __forceinline__ void softmax(const Element* x, Element* y, bool logs, long long rows,
                                        long long length) {
    const Team team(length);
    if (team.row >= rows) {
        return;
    }
    x += team.row * length;
    y += team.row * length;
    const bool whole = in_groups(length, x, y);
    const long long stretches = team.stretches(length);
    float held[HELD];
    float top = Largest::nothing();
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        read_stretch(held, x, team, stretch, length, whole, -infinity());
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            top = Largest::of(top, held[i]);
        }
    }
    top = over_team<Largest>(team, top);
    float sum = 0.0f;
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        if (stretches > 1) {
            read_stretch(held, x, team, stretch, length, whole, -infinity());
        }
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            const float shifted = __fsub_rn(held[i], top);
            const float power = exp_fixed(shifted);  // of what lies behind the end: 0
            sum = __fadd_rn(sum, power);
            held[i] = logs ? shifted : power;
        }
    }
    sum = over_team<Sum>(team, sum);
    const float share = __fdiv_rn(1.0f, sum), log_sum = logs ? log_fixed(sum) : 0.0f;
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        if (stretches > 1) {
            read_stretch(held, x, team, stretch, length, whole, -infinity());
        }
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            if (stretches > 1) {
                const float shifted = __fsub_rn(held[i], top);
                held[i] = logs ? shifted : exp_fixed(shifted);
            }
            held[i] = logs ? __fsub_rn(held[i], log_sum) : __fmul_rn(held[i], share);
        }
        write_stretch(y, held, team, stretch, length, whole);
    }
}

// dx = y (g - sum g y), or with `logs` g - e^y sum g.
template <class Element>
__device__ __forceinline__ void softmax_gradient(const Element* grad, const Element* y, Element* dx, bool logs,
                                                 long long rows, long long length) {
    const Team team(length);
    if (team.row >= rows) {
        return;
    }
    grad += team.row * length;
    y += team.row * length;
    dx += team.row * length;
    const bool whole = in_groups(length, grad, y, dx);
    const long long stretches = team.stretches(length);
    float g[HELD], p[HELD];
    float sum = 0.0f;
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        read_stretch(g, grad, team, stretch, length, whole, 0.0f);
        read_stretch(p, y, team, stretch, length, whole, 0.0f);
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            sum = __fadd_rn(sum, logs ? g[i] : __fmul_rn(g[i], p[i]));
        }
    }
    sum = over_team<Sum>(team, sum);
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        if (stretches > 1) {
            read_stretch(g, grad, team, stretch, length, whole, 0.0f);
            read_stretch(p, y, team, stretch, length, whole, 0.0f);
        }
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            p[i] = logs ? __fsub_rn(g[i], __fmul_rn(exp_fixed(p[i]), sum)) : __fmul_rn(p[i], __fsub_rn(g[i], sum));
        }
        write_stretch(dx, p, team, stretch, length, whole);
    }
}

#define SOFTMAX(name, Element)                                                                               \
    extern "C" __global__ void softmax_##name(const Element* x, Element* y, int logs, long long rows,        \
                                              long long length) {                                            \
        softmax(x, y, logs != 0, rows, length);                                                              \
    }                                                                                                        \
    extern "C" __global__ void softmax_gradient_##name(const Element* grad, const Element* y, Element* dx,   \
                                                       int logs, long long rows, long long length) {         \
        softmax_gradient(grad, y, dx, logs != 0, rows, length);                                              \
    }

SOFTMAX(float, float)
SOFTMAX(half, __half)
SOFTMAX(bfloat16, __nv_bfloat16)
