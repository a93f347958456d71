// What the update rules have in common: the gradient they take, and what follows from the new weight.
//
// The order of operations is that of minimp_backends/updates.py, each of them rounded once in float32.
#pragma once

#include "lanes.cuh"
#include "rounding16.cuh"
#include "tensors.cuh"

enum Option {
    MAXIMIZES = 1,
    NESTEROV = 2,
    FIRST = 4,   // the momentum buffer has not been filled yet
    ON_GRID = 8  // the new wide weight holds the values of the low copy
};

// A number of the whole step, which the host has in float64; NumPy rounds it so where it meets a float32
// array. What follows from it is computed in float64 first.
__device__ __forceinline__ float single(double number) {
    return __double2float_rn(number);
}

// Where one tensor's results go. What nobody asks for is null.
template <class Low>
struct Results {
    float* fresh;       // the new weight
    float* change;      // what was added to the old one
    Low* low;           // the new weight in 16 bits
    Low* compensation;  // Kahan's: what rounding to 16 bits cut off, given back in the next step
};

// What every rule needs of a step.
struct Common {
    float factor;  // of the gradients: 1/S, or 1
    float decay;    // joins the gradient, times the weight
    float shrink;   // lr weight_decay, by which the weight shrinks (decoupled)
    float kept;     // 1 - shrink
    bool decays, shrinks, skips;
    int options;

    __device__ __forceinline__ Common(const double* factor, const unsigned char* found, double weight_decay,
                                      double shrink, int options)
        : factor(factor ? single(*factor) : 1.0f),
          decay(single(weight_decay)),
          shrink(single(shrink)),
          kept(single(__dsub_rn(1.0, shrink))),
          decays(weight_decay != 0.0),
          shrinks(shrink != 0.0),
          skips(found && *found),
          options(options) {}

    __device__ __forceinline__ float gradient(float weight, float grad) const {
        float g = __fmul_rn(grad, factor);
        g = options & MAXIMIZES ? -g : g;
        return decays ? __fadd_rn(g, __fmul_rn(weight, decay)) : g;
    }
};

// The results of one run of N weights, `change` to be added to each.
template <int N, class Low>
__device__ __forceinline__ void finish(const Results<Low>& to, long long lane, const Lanes<float, N>& weight,
                                       Lanes<float, N> change, const Common& step) {
    Lanes<float, N> fresh;
    Lanes<Low, N> low, compensation{};
    if (to.compensation) {
        compensation = load<N>(to.compensation, lane);
    }
#pragma unroll
    for (int k = 0; k < N; ++k) {
        const float w = weight.at[k], s = change.at[k];
        fresh.at[k] = __fadd_rn(step.shrinks ? __fmul_rn(w, step.kept) : w, s);
        change.at[k] = step.shrinks ? __fsub_rn(s, __fmul_rn(w, step.shrink)) : s;
        if (to.compensation) {
            const float due = __fsub_rn(change.at[k], widen(compensation.at[k]));
            fresh.at[k] = __fadd_rn(w, due);
            const float grid = widen(narrow(fresh.at[k], Low()));
            compensation.at[k] = narrow(__fsub_rn(__fsub_rn(grid, w), due), Low());
        }
        low.at[k] = narrow(fresh.at[k], Low());
        fresh.at[k] = step.options & ON_GRID ? widen(low.at[k]) : fresh.at[k];
    }
    store(to.fresh, lane, fresh);
    if (to.change) {
        store(to.change, lane, change);
    }
    if (to.low) {
        store(to.low, lane, low);
    }
    if (to.compensation) {
        store(to.compensation, lane, compensation);
    }
}

// A skipped step: the new weight is the old one, to the bit.
template <int N, class Low>
__device__ __forceinline__ void leave(const Results<Low>& to, long long lane, const float* from) {
    const Lanes<float, N> weight = load<N>(from, lane);
    Lanes<float, N> none;
    Lanes<Low, N> low;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        low.at[k] = narrow(weight.at[k], Low());
        none.at[k] = 0.0f;
    }
    store(to.fresh, lane, weight);
    if (to.change) {
        store(to.change, lane, none);
    }
    if (to.low) {
        store(to.low, lane, low);
    }
}

// Takes every chunk that is this block's through `work`, which has choose(tensor), is_aligned() and
// run<N>(lane).
template <class Work>
__device__ __forceinline__ void for_each_chunk(const Many<long long, TENSORS>& counts, Work work) {
    for (long long next = blockIdx.x;; next += gridDim.x) {
        const Chunk chunk = find_chunk(counts, next);
        if (chunk.tensor == TENSORS) {
            return;
        }
        work.choose(chunk.tensor);
        const long long lanes = work.is_aligned() ? chunk.end / 4 : 0;
#pragma unroll 1
        for (long long lane = chunk.begin / 4 + threadIdx.x; lane < lanes; lane += blockDim.x) {
            work.template run<4>(lane);
        }
#pragma unroll 1
        for (long long i = (lanes ? 4 * lanes : chunk.begin) + threadIdx.x; i < chunk.end; i += blockDim.x) {
            work.template run<1>(i);
        }
    }
}
