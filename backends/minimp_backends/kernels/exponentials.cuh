// exp, log and their like on float32, the same bits on every chip and in NumPy: each step below is one IEEE 754
// operation, none is contracted, and references/exponentials.py takes the very same steps. Nothing is flushed to
// zero. The bounds in ULPs stand there too.
//
// Polynomials are minimax fits, in Horner's form, with coefficients that were rounded to float32 one after the
// other and the later ones fitted again each time.
#pragma once

#include "rounding16.cuh"

constexpr float LN2_HIGH = 0x1.62e4p-1f;         // 15 bits: its product with an exponent is exact
constexpr float LN2_LOW = 0x1.7f7d1cp-20f;       // ln 2 less LN2_HIGH
constexpr float LOG2_E = 0x1.715476p+0f;
constexpr float TO_INTEGER = 0x1.8p+23f;         // added, it leaves no place for a fraction: the sum is rounded
constexpr unsigned int TO_INTEGER_BITS = 0x4B400000u;

__device__ __forceinline__ float infinity() {
    return __uint_as_float(0x7F800000u);
}

__device__ __forceinline__ float power_of_two(int exponent) {
    return __uint_as_float(static_cast<unsigned int>(exponent + 127) << 23);
}

// x = n ln 2 + r, |r| <= 0.347; `rest` is what r lost in rounding, and growth = e^r - 1 - r.
struct Reduced {
    float r, rest, growth;
    int n;
};

// x is clamped to where e^x is 0 and where it is infinite, rounded. A NaN stays one; its n is as large as any.
__device__ __forceinline__ Reduced reduced(float x) {
    x = x > 89.0f ? 89.0f : x < -104.0f ? -104.0f : x;
    const float shifted = __fadd_rn(__fmul_rn(x, LOG2_E), TO_INTEGER);
    const float whole = __fsub_rn(shifted, TO_INTEGER);
    const float high = __fsub_rn(x, __fmul_rn(whole, LN2_HIGH));  // exact
    const float low = __fmul_rn(whole, LN2_LOW);
    Reduced it;
    it.n = is_nan(x) ? 0 : static_cast<int>(__float_as_uint(shifted) - TO_INTEGER_BITS);
    it.r = __fsub_rn(high, low);
    it.rest = __fsub_rn(__fsub_rn(high, it.r), low);
    float p = 0x1.6d7c9ep-10f;
    p = __fadd_rn(__fmul_rn(p, it.r), 0x1.123afep-7f);
    p = __fadd_rn(__fmul_rn(p, it.r), 0x1.5554bep-5f);
    p = __fadd_rn(__fmul_rn(p, it.r), 0x1.55549p-3f);
    p = __fadd_rn(__fmul_rn(p, it.r), 0.5f);
    it.growth = __fadd_rn(__fmul_rn(__fmul_rn(it.r, it.r), p), it.rest);
    return it;
}

// 2^n in two factors, neither of which overflows or is subnormal: only the last product rounds.
__device__ __forceinline__ float exp_fixed(float x) {
    const Reduced it = reduced(x);
    const float near_one = __fadd_rn(1.0f, __fadd_rn(it.r, it.growth));
    const int half = it.n >> 1;
    return __fmul_rn(__fmul_rn(near_one, power_of_two(half)), power_of_two(it.n - half));
}

// e^x - 1 = 2^n ((r + growth) + (1 - 2^-n)).
__device__ __forceinline__ float expm1_fixed(float x) {
    const Reduced it = reduced(x);
    const int half = it.n >> 1;
    const float scale = power_of_two(half);
    const float ones = __fsub_rn(scale, power_of_two(half - it.n));
    const float part = __fadd_rn(__fmul_rn(__fadd_rn(it.r, it.growth), scale), ones);
    return x == 0.0f ? x : __fmul_rn(part, power_of_two(it.n - half));  // -0 stays -0
}

// ln(1 + f) + k ln 2 + rest for f from 0.7 - 1 to 1.42 - 1.
__device__ __forceinline__ float log_from_parts(float f, int k, float rest) {
    const float exponent = static_cast<float>(k);
    float p = 0x1.1b4864p-4f;
    p = __fadd_rn(__fmul_rn(p, f), -0x1.e2ef3cp-4f);
    p = __fadd_rn(__fmul_rn(p, f), 0x1.e650e6p-4f);
    p = __fadd_rn(__fmul_rn(p, f), -0x1.fb42a8p-4f);
    p = __fadd_rn(__fmul_rn(p, f), 0x1.2332c6p-3f);
    p = __fadd_rn(__fmul_rn(p, f), -0x1.5562e4p-3f);
    p = __fadd_rn(__fmul_rn(p, f), 0x1.99a544p-3f);
    p = __fadd_rn(__fmul_rn(p, f), -0x1.ffffeep-3f);
    p = __fadd_rn(__fmul_rn(p, f), 0x1.555546p-2f);
    const float square = __fmul_rn(f, f);
    const float cube = __fmul_rn(__fmul_rn(square, f), p);
    const float small = __fadd_rn(cube, __fadd_rn(__fmul_rn(exponent, LN2_LOW), rest));
    const float inner = __fsub_rn(__fmul_rn(0.5f, square), small);
    return __fadd_rn(__fmul_rn(exponent, LN2_HIGH), __fsub_rn(f, inner));
}

// A positive number as 2^k (1 + f), 1 + f from sqrt(1/2) to sqrt 2.
__device__ __forceinline__ float fraction_of(unsigned int bits, int& k) {
    const unsigned int moved = bits + (0x3F800000u - 0x3F3504F3u);
    k += static_cast<int>(moved >> 23) - 127;
    return __fsub_rn(__uint_as_float((moved & 0x7FFFFFu) + 0x3F3504F3u), 1.0f);
}

__device__ __forceinline__ float log_fixed(float x) {
    if (!(x > 0.0f)) {
        return x == 0.0f ? -infinity() : quiet_nan(0u);
    }
    if (x == infinity()) {
        return x;
    }
    const bool subnormal = x < 0x1p-126f;
    int k = subnormal ? -24 : 0;
    const float f = fraction_of(__float_as_uint(subnormal ? __fmul_rn(x, 0x1p+24f) : x), k);
    return log_from_parts(f, k, 0.0f);
}

// Far from 0, ln of 1 + x as rounded, and what the rounding lost over it.
__device__ __forceinline__ float log1p_fixed(float x) {
    if (!(x > -1.0f)) {
        return x == -1.0f ? -infinity() : quiet_nan(0u);
    }
    if (x == 0.0f || x == infinity()) {
        return x;
    }
    if (x > -0.25f && x < 0.375f) {
        return log_from_parts(x, 0, 0.0f);
    }
    const float sum = __fadd_rn(1.0f, x);
    const float lost = x < 1.0f ? __fsub_rn(x, __fsub_rn(sum, 1.0f)) : __fsub_rn(1.0f, __fsub_rn(sum, x));
    int k = 0;
    const float f = fraction_of(__float_as_uint(sum), k);
    return log_from_parts(f, k, __fdiv_rn(lost, sum));
}

// tanh |x| = -t / (2 + t) with t = e^(-2|x|) - 1.
__device__ __forceinline__ float tanh_fixed(float x) {
    const float t = expm1_fixed(__fmul_rn(-2.0f, fabsf(x)));
    return copysignf(__fdiv_rn(-t, __fadd_rn(2.0f, t)), x);
}

// Up to 1, x + x p(x^2); beyond, 1 - e^-q(|x|), which is 1 from 4 on.
__device__ __forceinline__ float erf_fixed(float x) {
    const float size = fabsf(x);
    if (size < 1.0f) {
        const float square = __fmul_rn(x, x);
        float p = 0x1.4c344ep-14f;
        p = __fadd_rn(__fmul_rn(p, square), -0x1.a50b0ep-11f);
        p = __fadd_rn(__fmul_rn(p, square), 0x1.542e1p-8f);
        p = __fadd_rn(__fmul_rn(p, square), -0x1.b7fe9p-6f);
        p = __fadd_rn(__fmul_rn(p, square), 0x1.ce2d5p-4f);
        p = __fadd_rn(__fmul_rn(p, square), -0x1.81274p-2f);
        p = __fadd_rn(__fmul_rn(p, square), 0x1.06eba8p-3f);
        return __fadd_rn(x, __fmul_rn(x, p));
    }
    const float far = size > 4.0f ? 4.0f : size;
    float q = 0x1.5d6c04p-16f;
    q = __fadd_rn(__fmul_rn(q, far), -0x1.c4561p-12f);
    q = __fadd_rn(__fmul_rn(q, far), 0x1.1061bep-8f);
    q = __fadd_rn(__fmul_rn(q, far), -0x1.9aeb7ep-6f);
    q = __fadd_rn(__fmul_rn(q, far), 0x1.bb4542p-4f);
    q = __fadd_rn(__fmul_rn(q, far), 0x1.444d1ep-1f);
    q = __fadd_rn(__fmul_rn(q, far), 0x1.093138p-3f);
    q = __fadd_rn(__fmul_rn(q, far), -0x1.62d95p-13f);
    q = __fadd_rn(q, far);
    return copysignf(__fsub_rn(1.0f, exp_fixed(-q)), x);
}
