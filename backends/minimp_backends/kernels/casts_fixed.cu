// Casts of casts.cu once more, for pairs of formats in which arithmetic on the bits of a float32 is enough:
// float32 to and from FP8, to nearest, and float32 to 16 bits at random, as optimizers round.
#include "dice.cuh"
#include "lanes.cuh"
#include "rounding16.cuh"

// A format of one sign bit that has subnormals and no more exponents than float32. BEYOND is the code after
// MAX, of what is too large: infinity, or NaN where there is none.
template <int MANTISSA_BITS, int BIAS, unsigned int MAX, unsigned int BEYOND, unsigned int NAN_CODE>
struct Narrow {
    static constexpr int DROPPED = 23 - MANTISSA_BITS;
    static constexpr unsigned int REBIAS = (127u - BIAS) << MANTISSA_BITS;
    static constexpr unsigned int SMALLEST_NORMAL = (128u - BIAS) << 23;  // 2^(1 - BIAS) as a float32
    static constexpr int ULP = 1 - BIAS - MANTISSA_BITS;  // 2^ULP is the ulp of the subnormals

    // A magnitude's code once it is rounded, made that of x: what is too large, NaN, the sign.
    static __device__ __forceinline__ unsigned int settle(unsigned int code, float x, int sign_bit,
                                                          bool saturates) {
        const unsigned int sign = __float_as_uint(x) >> 31 << sign_bit;
        code = code <= MAX ? code : saturates ? MAX : BEYOND;
        return (is_nan(x) ? NAN_CODE : code) | sign;
    }

    static __device__ __forceinline__ unsigned int nearest(float x) {
        const unsigned int magnitude = __float_as_uint(x) & 0x7FFFFFFFu;
        if (magnitude < SMALLEST_NORMAL) {
            // A number whose last place is the ulp of the subnormals: adding it rounds.
            const unsigned int large = static_cast<unsigned int>(127 + 23 + ULP) << 23;
            return __float_as_uint(__fadd_rn(__uint_as_float(magnitude), __uint_as_float(large))) - large;
        }
        const unsigned int odd = magnitude >> DROPPED & 1u;
        return ((magnitude + (1u << (DROPPED - 1)) - 1u + odd) >> DROPPED) - REBIAS;
    }

    // `thrown` is the element's first random word. Below the smallest normal number the residue is longer.
    static __device__ __forceinline__ unsigned int at_random(float x, unsigned int thrown, const Dice& dice,
                                                             long long element) {
        const unsigned int magnitude = __float_as_uint(x) & 0x7FFFFFFFu;
        if (magnitude >= SMALLEST_NORMAL || BIAS == 127) {  // float32's own subnormals are as evenly spaced
            return ((magnitude + (thrown >> (32 - DROPPED))) >> DROPPED) - REBIAS;
        }
        const unsigned int field = magnitude >> 23, hidden = field ? 0x800000u : 0u;
        const unsigned int significand = (magnitude & 0x7FFFFFu) | hidden;
        const int shift = ULP + 149 - static_cast<int>(field ? field - 1 : 0);
        const unsigned int low = shift < 32 ? significand >> shift : 0u;
        const unsigned int residue = significand - (shift < 32 ? low << shift : 0u);
        return low + (residue != 0 && dice.lifts(residue, shift, thrown, element));
    }

    static __device__ __forceinline__ float widen(unsigned int code, int sign_bit) {
        const unsigned int magnitude = code & ((1u << sign_bit) - 1u), sign = code >> sign_bit << 31;
        // The bits of a float32 of another bias: an exact product away.
        const float other = __uint_as_float(magnitude << DROPPED);
        const float scaled = __fmul_rn(other, __uint_as_float((254u - BIAS) << 23));
        const unsigned int special = MAX + 1u == NAN_CODE || magnitude > BEYOND ? 0x7FC00000u : 0x7F800000u;
        return __uint_as_float((magnitude > MAX ? special : __float_as_uint(scaled)) | sign);
    }
};

using E4m3fn = Narrow<3, 7, 0x7E, 0x7F, 0x7F>;
using E5m2 = Narrow<2, 15, 0x7B, 0x7C, 0x7E>;
using Half = Narrow<10, 15, 0x7BFF, 0x7C00, 0x7E00>;
using Bfloat16 = Narrow<7, 127, 0x7F7F, 0x7F80, 0x7FC0>;

// Takes `count` elements through work.run<N>(lane), eight neighbours at a time where the arrays are aligned.
template <class Work>
__device__ __forceinline__ void for_each_lane(const void* source, const void* target, long long count,
                                              const Work& work) {
    const long long lanes = aligned(source, target) ? count / 8 : 0;
#pragma unroll 1
    for (long long lane = first_element(); lane < lanes; lane += element_stride()) {
        work.template run<8>(lane);
    }
#pragma unroll 1
    for (long long i = 8 * lanes + first_element(); i < count; i += element_stride()) {
        work.template run<1>(i);
    }
}

template <class To>
struct Encode {
    const float* source;
    unsigned char* target;
    bool saturates;

    template <int N>
    __device__ __forceinline__ void run(long long lane) const {
        const Lanes<float, N> from = load<N>(source, lane);
        Lanes<unsigned char, N> to;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const unsigned int code = To::settle(To::nearest(from.at[k]), from.at[k], 7, saturates);
            to.at[k] = static_cast<unsigned char>(code);
        }
        store(target, lane, to);
    }
};

template <class From>
struct Decode {
    const unsigned char* source;
    float* target;

    template <int N>
    __device__ __forceinline__ void run(long long lane) const {
        const Lanes<unsigned char, N> from = load<N>(source, lane);
        Lanes<float, N> to;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            to.at[k] = From::widen(from.at[k], 7);
        }
        store(target, lane, to);
    }
};

template <class To>
struct AtRandom {
    const float* source;
    unsigned short* target;
    bool saturates;
    Dice dice;

    template <int N>
    __device__ __forceinline__ void run(long long lane) const {
        const Lanes<float, N> from = load<N>(source, lane);
        const Lanes<unsigned int, N> thrown = dice.template words<N>(N * lane);
        Lanes<unsigned short, N> to;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const unsigned int code = To::at_random(from.at[k], thrown.at[k], dice, N * lane + k);
            to.at[k] = static_cast<unsigned short>(To::settle(code, from.at[k], 15, saturates));
        }
        store(target, lane, to);
    }
};

#define EIGHT_BITS(name, Format)                                                                             \
    extern "C" __global__ void cast_float_##name(const float* source, unsigned char* target, int saturates,  \
                                                 long long count) {                                          \
        for_each_lane(source, target, count, Encode<Format>{source, target, saturates != 0});                \
    }                                                                                                        \
    extern "C" __global__ void cast_##name##_float(const unsigned char* source, float* target,               \
                                                   long long count) {                                        \
        for_each_lane(source, target, count, Decode<Format>{source, target});                                \
    }

EIGHT_BITS(float8_e4m3fn, E4m3fn)
EIGHT_BITS(float8_e5m2, E5m2)

#define AT_RANDOM(name, Element, Format)                                                                     \
    extern "C" __global__ void cast_float_##name##_stochastic(                                               \
        const float* source, Element* target, int saturates, unsigned long long seed,                        \
        unsigned long long start, long long count) {                                                         \
        unsigned short* codes = reinterpret_cast<unsigned short*>(target);                                   \
        for_each_lane(source, target, count,                                                                 \
                      AtRandom<Format>{source, codes, saturates != 0, Dice(seed, start)});                   \
    }

AT_RANDOM(half, __half, Half)
AT_RANDOM(bfloat16, __nv_bfloat16, Bfloat16)
