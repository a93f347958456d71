// The end of a linear layer and of a convolution: the bias added to the float32 sums of a product, the result
// rounded once to where it is stored, in one pass. It waits for memory, so a thread takes as many neighbours as
// 16 bytes of the result hold.
#include "lanes.cuh"
#include "rounding16.cuh"

// Sums lie as (outer, channels, inner) in memory: inner is 1 behind a linear layer, the positions of an image
// behind a convolution. A thread finds its first channel by division and counts on from there. There are fewer
// than 2^32 of them: divisions of 64 bits would take several times as long.
template <int N, class Element>
__device__ __forceinline__ void bias_lanes(const float* sums, const Element* bias, Element* target,
                                           unsigned int inner, unsigned int channels, unsigned int lane) {
    const Lanes<float, N> from = load<N>(sums, lane);
    Lanes<Element, N> to;
    const unsigned int row = lane * N / inner;
    unsigned int left = inner - (lane * N - row * inner);  // of this channel
    unsigned int channel = row % channels;
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

template <class Element>
__device__ __forceinline__ void add_bias(const float* sums, const Element* bias, Element* target,
                                         unsigned int inner, unsigned int channels, unsigned int count) {
    constexpr int N = 16 / sizeof(Element);
    const unsigned int lanes = aligned(sums, target) ? count / N : 0;
#pragma unroll 1
    for (long long lane = first_element(); lane < lanes; lane += element_stride()) {
        bias_lanes<N>(sums, bias, target, inner, channels, static_cast<unsigned int>(lane));
    }
#pragma unroll 1
    for (long long i = N * lanes + first_element(); i < count; i += element_stride()) {
        bias_lanes<1>(sums, bias, target, inner, channels, static_cast<unsigned int>(i));
    }
}

#define ADD_BIAS(name, Element)                                                                              \
    extern "C" __global__ void add_bias_##name(const float* sums, const Element* bias, Element* target,      \
                                               unsigned int inner, unsigned int channels,                    \
                                               unsigned int count) {                                         \
        add_bias(sums, bias, target, inner, channels, count);                                                \
    }

ADD_BIAS(float, float)
ADD_BIAS(half, __half)
ADD_BIAS(bfloat16, __nv_bfloat16)
