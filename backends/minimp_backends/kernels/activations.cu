// What follows a product: the bias added and the sum rounded, and activations with their gradients. Each is one
// pass over the numbers: widened to float32, computed there, rounded once to where they are stored. They wait
// for memory, so a thread takes as many neighbours as 16 bytes hold.
#include "lanes.cuh"
#include "rounding16.cuh"

// ---- the bias ---------------------------------------------------------------------------------------------

// Sums lie as (outer, channels, inner) in memory: inner is 1 behind a linear layer, the positions of an image
// behind a convolution. A thread finds its first channel by division and counts on from there.
template <int N, class Index, class Element>
__device__ __forceinline__ void bias_lanes(const float* sums, const Element* bias, Element* target, Index inner,
                                           Index channels, Index lane) {
    const Lanes<float, N> from = load<N>(sums, lane);
    Lanes<Element, N> to;
    const Index row = lane * N / inner;
    Index left = inner - (lane * N - row * inner);  // of this channel
    Index channel = row % channels;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        to.at[k] = narrow(__fadd_rn(from.at[k], widen(bias[channel])), Element());
        if (--left == 0) {
            left = inner;
            channel = channel + 1 == channels ? 0 : channel + 1;
        }
    }
    store(target, lane, to);
}

template <class Index, class Element>
__device__ __forceinline__ void bias_all(const float* sums, const Element* bias, Element* target, Index inner,
                                         Index channels, long long count) {
    constexpr int N = 16 / sizeof(Element);
    const long long lanes = aligned(sums, target) ? count / N : 0;
#pragma unroll 1
    for (long long lane = first_element(); lane < lanes; lane += element_stride()) {
        bias_lanes<N>(sums, bias, target, inner, channels, static_cast<Index>(lane));
    }
#pragma unroll 1
    for (long long i = N * lanes + first_element(); i < count; i += element_stride()) {
        bias_lanes<1>(sums, bias, target, inner, channels, static_cast<Index>(i));
    }
}

// Divisions of 32 bits where they reach: those of 64 take several times as long.
template <class Element>
__device__ __forceinline__ void add_bias(const float* sums, const Element* bias, Element* target, long long inner,
                                         long long channels, long long count) {
    if (count >> 32 == 0) {
        bias_all(sums, bias, target, static_cast<unsigned int>(inner), static_cast<unsigned int>(channels),
                 count);
    } else {
        bias_all(sums, bias, target, inner, channels, count);
    }
}

#define ADD_BIAS(name, Element)                                                                              \
    extern "C" __global__ void add_bias_##name(const float* sums, const Element* bias, Element* target,      \
                                               long long inner, long long channels, long long count) {       \
        add_bias(sums, bias, target, inner, channels, count);                                                \
    }

ADD_BIAS(float, float)
ADD_BIAS(half, __half)
ADD_BIAS(bfloat16, __nv_bfloat16)

// ---- activations ------------------------------------------------------------------------------------------

// Each has value(x) and gradient(g, kept), where kept is what backward needs: the result, the argument, or a
// byte that says whether the argument was above 0.

struct Relu {
    __device__ __forceinline__ float value(float x) const {
        return x <= 0.0f ? 0.0f : x;  // NaN stays
    }
    __device__ __forceinline__ float gradient(float g, float y) const {
        return y <= 0.0f ? 0.0f : g;
    }
};

struct LeakyRelu {
    float slope;
    __device__ __forceinline__ float value(float x) const {
        return x > 0.0f ? x : __fmul_rn(x, slope);
    }
    __device__ __forceinline__ float gradient(float g, unsigned char positive) const {
        return positive ? g : __fmul_rn(g, slope);
    }
};

__device__ __forceinline__ unsigned char widen(unsigned char flag) {
    return flag;
}

template <int N, class Function, class Element>
__device__ __forceinline__ void value_lanes(const Function& function, const Element* source, Element* target,
                                            long long lane) {
    const Lanes<Element, N> from = load<N>(source, lane);
    Lanes<Element, N> to;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        to.at[k] = narrow(function.value(widen(from.at[k])), Element());
    }
    store(target, lane, to);
}

template <class Function, class Element>
__device__ __forceinline__ void values(const Function& function, const Element* source, Element* target,
                                       long long count) {
    constexpr int N = 16 / sizeof(Element);
    const long long lanes = aligned(source, target) ? count / N : 0;
#pragma unroll 1
    for (long long lane = first_element(); lane < lanes; lane += element_stride()) {
        value_lanes<N>(function, source, target, lane);
    }
#pragma unroll 1
    for (long long i = N * lanes + first_element(); i < count; i += element_stride()) {
        value_lanes<1>(function, source, target, i);
    }
}

template <int N, class Function, class Element, class Kept>
__device__ __forceinline__ void gradient_lanes(const Function& function, const Element* grad, const Kept* kept,
                                               Element* target, long long lane) {
    const Lanes<Element, N> from = load<N>(grad, lane);
    const Lanes<Kept, N> beside = load<N>(kept, lane);
    Lanes<Element, N> to;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        to.at[k] = narrow(function.gradient(widen(from.at[k]), widen(beside.at[k])), Element());
    }
    store(target, lane, to);
}

template <class Function, class Element, class Kept>
__device__ __forceinline__ void gradients(const Function& function, const Element* grad, const Kept* kept,
                                          Element* target, long long count) {
    constexpr int N = 16 / sizeof(Element);
    const long long lanes = aligned(grad, kept, target) ? count / N : 0;
#pragma unroll 1
    for (long long lane = first_element(); lane < lanes; lane += element_stride()) {
        gradient_lanes<N>(function, grad, kept, target, lane);
    }
#pragma unroll 1
    for (long long i = N * lanes + first_element(); i < count; i += element_stride()) {
        gradient_lanes<1>(function, grad, kept, target, i);
    }
}

#define ACTIVATION_OF(name, Function, kind, Element)                                                         \
    extern "C" __global__ void name##_##kind(const Element* source, Element* target, long long count) {      \
        values(Function(), source, target, count);                                                           \
    }                                                                                                        \
    extern "C" __global__ void name##_gradient_##kind(const Element* grad, const Element* kept,              \
                                                      Element* target, long long count) {                    \
        gradients(Function(), grad, kept, target, count);                                                    \
    }

#define ACTIVATION(name, Function)                                                                           \
    ACTIVATION_OF(name, Function, float, float)                                                              \
    ACTIVATION_OF(name, Function, half, __half)                                                              \
    ACTIVATION_OF(name, Function, bfloat16, __nv_bfloat16)

ACTIVATION(relu, Relu)

#define LEAKY_RELU(kind, Element)                                                                            \
    extern "C" __global__ void leaky_relu_##kind(const Element* source, Element* target, float slope,        \
                                                 long long count) {                                          \
        values(LeakyRelu{slope}, source, target, count);                                                     \
    }                                                                                                        \
    extern "C" __global__ void leaky_relu_gradient_##kind(const Element* grad, const unsigned char* kept,    \
                                                          Element* target, float slope, long long count) {   \
        gradients(LeakyRelu{slope}, grad, kept, target, count);                                              \
    }

LEAKY_RELU(float, float)
LEAKY_RELU(half, __half)
LEAKY_RELU(bfloat16, __nv_bfloat16)
