// The device functions of CUDA that kernels use, for g++ with -ffp-contract=off, where every float operation
// rounds once, to nearest, ties to even. Atomics exist for integers alone: a sum of floats in the order in which
// threads come differs from run to run.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "host_shim.h"

using std::isfinite;
using std::isinf;
using std::isnan;
using std::max;
using std::min;
using std::signbit;

#define BOTH(name, operation)                                                                                \
    static inline float __f##name(float a, float b) { return operation; }                                    \
    static inline double __d##name(double a, double b) { return operation; }
BOTH(add_rn, a + b)
BOTH(mul_rn, a * b)
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
#undef BOTH
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return std::sqrt(a); }
static inline double __dsqrt_rn(double a) { return std::sqrt(a); }
static inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
static inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }

// ---- bits

static inline unsigned __float_as_uint(float a) { return shim::from_bits<unsigned>(shim::bits_of(a)); }
static inline int __float_as_int(float a) { return shim::from_bits<int>(shim::bits_of(a)); }
static inline float __uint_as_float(unsigned a) { return shim::from_bits<float>(shim::bits_of(a)); }
static inline float __int_as_float(int a) { return shim::from_bits<float>(shim::bits_of(a)); }
static inline long long __double_as_longlong(double a) { return shim::from_bits<long long>(shim::bits_of(a)); }
static inline double __longlong_as_double(long long a) { return shim::from_bits<double>(shim::bits_of(a)); }

static inline int __clz(int a) { return a ? __builtin_clz(static_cast<unsigned>(a)) : 32; }
static inline int __clzll(long long a) { return a ? __builtin_clzll(static_cast<unsigned long long>(a)) : 64; }
static inline int __ffs(int a) { return __builtin_ffs(a); }
static inline int __ffsll(long long a) { return __builtin_ffsll(a); }
static inline int __popc(unsigned a) { return __builtin_popcount(a); }
static inline int __popcll(unsigned long long a) { return __builtin_popcountll(a); }

static inline unsigned __brev(unsigned a) {
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; ++bit) {
        reversed |= (a >> bit & 1u) << (31 - bit);
    }
    return reversed;
}

static inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32);
}

static inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<int64_t>(a) * b >> 32); }

static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}

static inline int __dp4a(int a, int b, int c) {
    for (int k = 0; k < 4; ++k) {
        c += static_cast<int8_t>(a >> 8 * k) * static_cast<int8_t>(b >> 8 * k);
    }
    return c;
}

static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
    unsigned chosen = 0;
    for (int k = 0; k < 4; ++k) {
        chosen |= static_cast<unsigned>(bytes >> 8 * (selector >> 4 * k & 7) & 0xFF) << 8 * k;
    }
    return chosen;
}

// ---- conversions: a GPU saturates, and turns NaN into 0 (32 bits) or the smallest integer (64 bits)

template <class Integer, class Float>
static inline Integer saturated(Float a, Integer for_nan) {
    using Limits = std::numeric_limits<Integer>;
    const Float beyond = std::ldexp(Float(1), Limits::digits); // the first value above the range
    if (std::isnan(a)) {
        return for_nan;
    }
    if (a >= beyond) {
        return Limits::max();
    }
    const Float below = Limits::is_signed ? -beyond : Float(0);
    return a < below ? Limits::min() : static_cast<Integer>(a);
}

#define TO_INTEGER(from, Float, to, Integer, nan)                                                            \
    static inline Integer __##from##2##to##_rn(Float a) { return saturated<Integer>(std::nearbyint(a), nan); } \
    static inline Integer __##from##2##to##_rz(Float a) { return saturated<Integer>(std::trunc(a), nan); }   \
    static inline Integer __##from##2##to##_rd(Float a) { return saturated<Integer>(std::floor(a), nan); }   \
    static inline Integer __##from##2##to##_ru(Float a) { return saturated<Integer>(std::ceil(a), nan); }
TO_INTEGER(float, float, int, int, 0)
TO_INTEGER(float, float, uint, unsigned, 0u)
TO_INTEGER(float, float, ll, long long, std::numeric_limits<long long>::min())
TO_INTEGER(float, float, ull, unsigned long long, 1ull << 63)
TO_INTEGER(double, double, int, int, std::numeric_limits<int>::min())
TO_INTEGER(double, double, ll, long long, std::numeric_limits<long long>::min())
#undef TO_INTEGER

static inline float __int2float_rn(int a) { return static_cast<float>(a); }
static inline float __uint2float_rn(unsigned a) { return static_cast<float>(a); }
static inline float __ll2float_rn(long long a) { return static_cast<float>(a); }
static inline float __ull2float_rn(unsigned long long a) { return static_cast<float>(a); }
static inline double __int2double_rn(int a) { return a; }
static inline double __ll2double_rn(long long a) { return static_cast<double>(a); }
static inline float __double2float_rn(double a) { return static_cast<float>(a); }

static inline float rsqrtf(float a) { return 1.0f / std::sqrt(a); }

template <class T>
static inline T __ldg(const T* at) { return *at; }

static inline void __threadfence() {}

// ---- atomics; each returns what was there before

template <class T, class Change>
static inline T changed(T* at, Change change) {
    static_assert(std::numeric_limits<T>::is_integer, "atomics on floats are not for these kernels");
    const T before = *at;
    *at = static_cast<T>(change(before));
    return before;
}

template <class T>
using Same = typename std::common_type<T>::type; // the second argument follows the first, as in CUDA's overloads

template <class T>
static inline T atomicOr(T* at, Same<T> value) { return changed(at, [=](T old) { return old | value; }); }

template <class T>
static inline T atomicAnd(T* at, Same<T> value) { return changed(at, [=](T old) { return old & value; }); }

template <class T>
static inline T atomicMax(T* at, Same<T> value) { return changed(at, [=](T old) { return max(old, value); }); }

template <class T>
static inline T atomicMin(T* at, Same<T> value) { return changed(at, [=](T old) { return min(old, value); }); }

template <class T>
static inline T atomicExch(T* at, Same<T> value) { return changed(at, [=](T) { return value; }); }

template <class T>
static inline T atomicAdd(T* at, Same<T> value) {
    using Wrapping = typename std::make_unsigned<T>::type;
    return changed(at, [=](T old) { return static_cast<Wrapping>(old) + static_cast<Wrapping>(value); });
}

template <class T>
static inline T atomicCAS(T* at, Same<T> expected, Same<T> value) {
    return changed(at, [=](T old) { return old == expected ? value : old; });
}
