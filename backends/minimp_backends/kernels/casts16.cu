// The casts that a mixed-precision step makes most: float32 to and from float16 and bfloat16, and bfloat16
// rounded at random. They wait for memory alone, so each thread takes eight neighbours: 16 bytes of the
// narrow array.
#include "lanes.cuh"
#include "rounding16.cuh"

template <int N, class From, class To>
__device__ __forceinline__ void cast_lanes(const From* source, To* target, long long lane) {
    const Lanes<From, N> from = load<N>(source, lane);
    Lanes<To, N> to;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        to.at[k] = narrow(widen(from.at[k]), To());
    }
    store(target, lane, to);
}

template <class From, class To>
__device__ __forceinline__ void cast_all(const From* source, To* target, long long count) {
    const long long lanes = aligned(source, target) ? count / 8 : 0;
#pragma unroll 1
    for (long long lane = first_element(); lane < lanes; lane += element_stride()) {
        cast_lanes<8>(source, target, lane);
    }
#pragma unroll 1
    for (long long i = 8 * lanes + first_element(); i < count; i += element_stride()) {
        cast_lanes<1>(source, target, i);
    }
}

#define CAST(from, to, From, To)                                                                             \
    extern "C" __global__ void cast_##from##_##to(const From* source, To* target, long long count) {         \
        cast_all(source, target, count);                                                                     \
    }

CAST(float, half, float, __half)
CAST(float, bfloat16, float, __nv_bfloat16)
CAST(half, float, __half, float)
CAST(bfloat16, float, __nv_bfloat16, float)

// Up in magnitude with probability (what is cut off) / ulp: a uniform 16-bit number added to the bits carries
// into the upper half exactly that often. What rounds past the largest value becomes infinite.
__device__ __forceinline__ __nv_bfloat16 round_at_random(float x, unsigned short dice) {
    const unsigned int bits = __float_as_uint(x);
    const unsigned int moved = is_nan(x) ? (bits >> 16) | 0x40u : (bits + dice) >> 16;
    return __ushort_as_bfloat16(static_cast<unsigned short>(moved));
}

template <int N>
__device__ __forceinline__ void round_lanes(const float* wide, const unsigned short* dice, __nv_bfloat16* low,
                                            long long lane) {
    const Lanes<float, N> from = load<N>(wide, lane);
    const Lanes<unsigned short, N> thrown = load<N>(dice, lane);
    Lanes<__nv_bfloat16, N> to;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        to.at[k] = round_at_random(from.at[k], thrown.at[k]);
    }
    store(low, lane, to);
}

extern "C" __global__ void round_stochastic_bfloat16(const float* wide, const unsigned short* dice,
                                                     __nv_bfloat16* low, long long count) {
    const long long lanes = aligned(wide, dice, low) ? count / 8 : 0;
#pragma unroll 1
    for (long long lane = first_element(); lane < lanes; lane += element_stride()) {
        round_lanes<8>(wide, dice, low, lane);
    }
#pragma unroll 1
    for (long long i = 8 * lanes + first_element(); i < count; i += element_stride()) {
        round_lanes<1>(wide, dice, low, i);
    }
}
