// New weights from gradients, in one pass over all that the rule keeps: FP32 weights, their low copies
// included.
//
// `found`, where it is given, is the verdict of the step: not 0 means that nothing changes, not one bit.
// `factor`, where it is given, is 1/S of gradients that are still scaled. A Many that has nothing at a
// tensor holds null there. Numbers come in float64, as the host has them; each thread rounds them once.
#include "updates.cuh"

template <class Grad, class Low>
struct Sgd {
    const Many<const float*, TENSORS>& weights;
    const Many<const Grad*, TENSORS>& grads;
    const Many<float*, TENSORS>&buffers, &news, &changes;
    const Many<Low*, TENSORS>&lows, &compensations;
    Common step;
    float size, momentum, take;  // size = -lr, take = 1 - dampening
    bool has_momentum, first;

    // those of the chosen tensor
    const float* weight = nullptr;
    const Grad* grad = nullptr;
    float* buffer = nullptr;
    Results<Low> to{};

    __device__ __forceinline__ void choose(int t) {
        weight = weights.at[t];
        grad = grads.at[t];
        buffer = buffers.at[t];
        to = {news.at[t], changes.at[t], lows.at[t], compensations.at[t]};
    }

    __device__ __forceinline__ bool is_aligned() const {
        return aligned(weight, grad, buffer) && aligned(to.fresh, to.change, to.low, to.compensation);
    }

    template <int N>
    __device__ __forceinline__ void run(long long lane) const {
        if (step.skips) {
            leave<N>(to, lane, weight);
            return;
        }
        const Lanes<float, N> w = load<N>(weight, lane);
        const Lanes<Grad, N> given = load<N>(grad, lane);
        Lanes<float, N> b{}, change;
        if (has_momentum && !first) {
            b = load<N>(buffer, lane);
        }
#pragma unroll
        for (int k = 0; k < N; ++k) {
            float g = step.gradient(w.at[k], widen(given.at[k]));
            if (has_momentum) {
                b.at[k] = first ? g : __fadd_rn(__fmul_rn(b.at[k], momentum), __fmul_rn(g, take));
                g = step.options & NESTEROV ? __fadd_rn(g, __fmul_rn(b.at[k], momentum)) : b.at[k];
            }
            change.at[k] = __fmul_rn(g, size);
        }
        if (has_momentum) {
            store(buffer, lane, b);
        }
        finish(to, lane, w, change, step);
    }
};

// `first`, where it is given, says whether the buffers have not been filled yet; or else FIRST does.
#define SGD(name, Grad, Low)                                                                                 \
    extern "C" __global__ void sgd_##name(                                                                   \
        Many<const float*, TENSORS> weights, Many<const Grad*, TENSORS> grads, Many<float*, TENSORS> buffers,\
        Many<float*, TENSORS> news, Many<float*, TENSORS> changes, Many<Low*, TENSORS> lows,                 \
        Many<Low*, TENSORS> compensations, Many<long long, TENSORS> counts, Many<const double*, 1> factor,   \
        Many<const unsigned char*, 1> found, Many<const unsigned char*, 1> first, double lr,                 \
        double momentum, double dampening, double weight_decay, int options) {                               \
        const Common step(factor.at[0], found.at[0], weight_decay, 0.0, options);                            \
        const bool begins = (options & FIRST) || (first.at[0] && *first.at[0]);                              \
        for_each_chunk(counts, Sgd<Grad, Low>{weights, grads, buffers, news, changes, lows, compensations,   \
                                              step, single(-lr), single(momentum),                           \
                                              single(__dsub_rn(1.0, dampening)), momentum != 0.0, begins});  \
    }

SGD(float_half, float, __half)
SGD(float_bfloat16, float, __nv_bfloat16)
SGD(half_half, __half, __half)
SGD(bfloat16_bfloat16, __nv_bfloat16, __nv_bfloat16)

template <class Grad, class Low>
struct Adam {
    const Many<const float*, TENSORS>& weights;
    const Many<const Grad*, TENSORS>& grads;
    const Many<float*, TENSORS>&means, &squares, &peaks, &news, &changes;
    const Many<Low*, TENSORS>&lows, &compensations;
    Common step;
    float size, correction;  // -lr / (1 - beta1^t), sqrt(1 - beta2^t)
    float beta1, rest1, beta2, rest2, eps;
    bool from_mean;  // beta1 > 1/2: the running mean moves from the old one on, as in torch.lerp

    // those of the chosen tensor
    const float* weight = nullptr;
    const Grad* grad = nullptr;
    float *mean = nullptr, *square = nullptr, *peak = nullptr;
    Results<Low> to{};

    __device__ __forceinline__ void choose(int t) {
        weight = weights.at[t];
        grad = grads.at[t];
        mean = means.at[t];
        square = squares.at[t];
        peak = peaks.at[t];
        to = {news.at[t], changes.at[t], lows.at[t], compensations.at[t]};
    }

    __device__ __forceinline__ bool is_aligned() const {
        return aligned(weight, grad, mean, square) && aligned(peak, to.fresh, to.change, to.low) &&
               aligned(to.compensation);
    }

    __device__ __forceinline__ float running_mean(float m, float g) const {
        const float gap = __fsub_rn(g, m);
        return from_mean ? __fadd_rn(m, __fmul_rn(gap, rest1)) : __fsub_rn(g, __fmul_rn(gap, beta1));
    }

    __device__ __forceinline__ float running_square(float v, float g) const {
        return __fadd_rn(__fmul_rn(v, beta2), __fmul_rn(__fmul_rn(g, rest2), g));
    }

    template <int N>
    __device__ __forceinline__ void run(long long lane) const {
        if (step.skips) {
            leave<N>(to, lane, weight);
            return;
        }
        const Lanes<float, N> w = load<N>(weight, lane);
        const Lanes<Grad, N> given = load<N>(grad, lane);
        Lanes<float, N> m = load<N>(mean, lane), v = load<N>(square, lane), p{}, change;
        if (peak) {
            p = load<N>(peak, lane);
        }
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const float g = step.gradient(w.at[k], widen(given.at[k]));
            m.at[k] = running_mean(m.at[k], g);
            v.at[k] = running_square(v.at[k], g);
            float root = v.at[k];
            if (peak) {  // a NaN in either of them stays
                p.at[k] = p.at[k] >= v.at[k] || is_nan(p.at[k]) ? p.at[k] : v.at[k];
                root = p.at[k];
            }
            const float divisor = __fadd_rn(__fdiv_rn(__fsqrt_rn(root), correction), eps);
            change.at[k] = __fdiv_rn(__fmul_rn(m.at[k], size), divisor);
        }
        store(mean, lane, m);
        store(square, lane, v);
        if (peak) {
            store(peak, lane, p);
        }
        finish(to, lane, w, change, step);
    }
};

// `numbers`, where they are given, are size and correction (advancing.cu); those of the launch are not read
// then.
#define ADAM(name, Grad, Low)                                                                                \
    extern "C" __global__ void adam_##name(                                                                  \
        Many<const float*, TENSORS> weights, Many<const Grad*, TENSORS> grads, Many<float*, TENSORS> means,  \
        Many<float*, TENSORS> squares, Many<float*, TENSORS> peaks, Many<float*, TENSORS> news,              \
        Many<float*, TENSORS> changes, Many<Low*, TENSORS> lows, Many<Low*, TENSORS> compensations,          \
        Many<long long, TENSORS> counts, Many<const double*, 1> factor, Many<const unsigned char*, 1> found, \
        Many<const float*, 1> numbers, double size, double correction, double beta1, double beta2,           \
        double eps, double weight_decay, double shrink, int options) {                                       \
        const Common step(factor.at[0], found.at[0], weight_decay, shrink, options);                         \
        const float* given = numbers.at[0];                                                                  \
        for_each_chunk(                                                                                      \
            counts,                                                                                          \
            Adam<Grad, Low>{weights, grads, means, squares, peaks, news, changes, lows, compensations, step, \
                            given ? given[0] : single(size), given ? given[1] : single(correction),          \
                            single(beta1), single(__dsub_rn(1.0, beta1)), single(beta2),                     \
                            single(__dsub_rn(1.0, beta2)), single(eps), beta1 > 0.5});                       \
    }

ADAM(float_half, float, __half)
ADAM(float_bfloat16, float, __nv_bfloat16)
ADAM(half_half, __half, __half)
ADAM(bfloat16_bfloat16, __nv_bfloat16, __nv_bfloat16)
