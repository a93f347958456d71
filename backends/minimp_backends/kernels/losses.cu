// Cross-entropy of rows of scores, and its gradient, without the matrix of log-probabilities between them.
//
// The bits are those of log_softmax and nll_loss one after the other: what these would store, the logarithms of
// probabilities and their gradients, is rounded to the format here too. The gradient takes the logarithms again,
// from the scores and two numbers of each row.
#include "rows.cuh"

// How much of a row's loss each class is: `peak` of its label and `spread` of any other, times the class's weight;
// nothing where the row has no label, which is told by a negative one.
struct Shares {
    const float* weight;
    long long label;
    float peak, spread, kept;

    __device__ __forceinline__ Shares(const float* weights, long long given, float of_label, float of_others)
        : weight(weights),
          label(given < 0 ? 0 : given),
          peak(of_label),
          spread(of_others),
          kept(given < 0 ? 0.0f : 1.0f) {}

    __device__ __forceinline__ float at(long long place) const {
        const float share = place == label ? peak : spread;
        return __fmul_rn(weight == nullptr ? share : __fmul_rn(share, weight[place]), kept);
    }

    // 0 wherever the share is, whatever x is there.
    __device__ __forceinline__ float times(long long place, float x) const {
        const float share = at(place);
        return share == 0.0f ? 0.0f : __fmul_rn(share, x);
    }
};

template <class Element>
__device__ __forceinline__ float stored(float x) {
    return widen(narrow(x, Element()));
}

// loss = -sum share (x - max - ln sum e^(x - max)). Where only labels have shares, one number is looked at.
template <class Element>
__device__ __forceinline__ void cross_entropy(const Element* x, const long long* labels, const float* weight,
                                              float* losses, float* tops, float* log_sums, float peak,
                                              float spread, long long rows, long long length) {
    const Team team(length);
    if (team.row >= rows) {
        return;
    }
    x += team.row * length;
    const Shares shares(weight, labels[team.row], peak, spread);
    const bool whole = in_groups(length, x, x);
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
            sum = __fadd_rn(sum, exp_fixed(__fsub_rn(held[i], top)));  // of what lies behind the end: 0
        }
    }
    const float log_sum = log_fixed(over_team<Sum>(team, sum));
    float loss = 0.0f;
    if (spread == 0.0f) {
        const float mine = __fsub_rn(__fsub_rn(widen(x[shares.label]), top), log_sum);
        loss = -shares.times(shares.label, stored<Element>(mine));
    } else {
#pragma unroll 1
        for (long long stretch = 0; stretch < stretches; ++stretch) {
            if (stretches > 1) {
                read_stretch(held, x, team, stretch, length, whole, -infinity());
            }
            const long long place = team.place(stretch);
#pragma unroll
            for (int i = 0; i < HELD; ++i) {
                const float mine = stored<Element>(__fsub_rn(__fsub_rn(held[i], top), log_sum));
                loss = __fadd_rn(loss, place + i < length ? shares.times(place + i, mine) : 0.0f);
            }
        }
        loss = -over_team<Sum>(team, loss);
    }
    if (team.thread == 0) {
        losses[team.row] = loss;
        tops[team.row] = __fadd_rn(top, 0.0f);  // which of two zeros is the larger depends on who asks
        log_sums[team.row] = log_sum;
    }
}

// dx = s - e^y sum s with s = -share g and y the logarithm of the probability.
template <class Element>
__device__ __forceinline__ void cross_entropy_gradient(const Element* x, const long long* labels,
                                                       const float* weight, const float* tops,
                                                       const float* log_sums, const float* grads, Element* dx,
                                                       float peak, float spread, long long each, long long rows,
                                                       long long length) {
    const Team team(length);
    if (team.row >= rows) {
        return;
    }
    x += team.row * length;
    dx += team.row * length;
    const Shares shares(weight, labels[team.row], peak, spread);
    const float top = tops[team.row], log_sum = log_sums[team.row], grad = grads[team.row * each];
    const bool whole = in_groups(length, x, dx);
    const long long stretches = team.stretches(length);
    float sum = 0.0f;
    if (spread == 0.0f) {
        sum = stored<Element>(-shares.times(shares.label, grad));
    } else {
#pragma unroll 1
        for (long long stretch = 0; stretch < stretches; ++stretch) {
            const long long place = team.place(stretch);
#pragma unroll
            for (int i = 0; i < HELD; ++i) {
                const float slope = place + i < length ? -shares.times(place + i, grad) : 0.0f;
                sum = __fadd_rn(sum, stored<Element>(slope));
            }
        }
        sum = over_team<Sum>(team, sum);
    }
    float held[HELD];
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        read_stretch(held, x, team, stretch, length, whole, -infinity());
        const long long place = team.place(stretch);
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            const bool counts = place + i < length && (spread != 0.0f || place + i == shares.label);
            const float slope = counts ? stored<Element>(-shares.times(place + i, grad)) : 0.0f;
            const float y = stored<Element>(__fsub_rn(__fsub_rn(held[i], top), log_sum));
            held[i] = __fsub_rn(slope, __fmul_rn(exp_fixed(y), sum));
        }
        write_stretch(dx, held, team, stretch, length, whole);
    }
}

// A block may have 1024 threads. The gradient's take more registers on some chips than there are for so many, and
// its launch would be refused there, unless the assembler is told.
#define CROSS_ENTROPY(name, Element)                                                                         \
    extern "C" __global__ void cross_entropy_##name(                                                         \
        const Element* x, const long long* labels, Maybe<const float*> weight, float* losses, float* tops,   \
        float* log_sums, float peak, float spread, long long rows, long long length) {                       \
        cross_entropy(x, labels, weight.at[0], losses, tops, log_sums, peak, spread, rows, length);          \
    }                                                                                                        \
    extern "C" __global__ void __launch_bounds__(1024) cross_entropy_gradient_##name(                        \
        const Element* x, const long long* labels, Maybe<const float*> weight, const float* tops,            \
        const float* log_sums, const float* grads, Element* dx, float peak, float spread, long long each,    \
        long long rows, long long length) {                                                                  \
        cross_entropy_gradient(x, labels, weight.at[0], tops, log_sums, grads, dx, peak, spread, each, rows, \
                               length);                                                                      \
    }

CROSS_ENTROPY(float, float)
CROSS_ENTROPY(half, __half)
CROSS_ENTROPY(bfloat16, __nv_bfloat16)
