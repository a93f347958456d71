// Between float32 and the two 16-bit formats: rounded to nearest, ties to even, overflow to infinity; widened
// exactly.
//
// A NaN stays one with its sign and becomes the quiet NaN of the format: chips, compilers and NumPy each do
// something else with the rest of its bits.
#pragma once

#include "elements.cuh"

__device__ __forceinline__ bool is_nan(float x) {
    return (__float_as_uint(x) & 0x7FFFFFFFu) > 0x7F800000u;
}

__device__ __forceinline__ float quiet_nan(unsigned int sign) {
    return __uint_as_float(sign | 0x7FC00000u);
}

__device__ __forceinline__ float widen(float x) {
    return x;
}

__device__ __forceinline__ float widen(__half x) {
    const unsigned int bits = __half_as_ushort(x);
    return (bits & 0x7FFFu) > 0x7C00u ? quiet_nan((bits & 0x8000u) << 16) : __half2float(x);
}

__device__ __forceinline__ float widen(__nv_bfloat16 x) {
    const unsigned int bits = __bfloat16_as_ushort(x);
    return (bits & 0x7FFFu) > 0x7F80u ? quiet_nan((bits & 0x8000u) << 16) : __uint_as_float(bits << 16);
}

// The second argument only says what to round to.
__device__ __forceinline__ float narrow(float x, float) {
    return x;
}

__device__ __forceinline__ __half narrow(float x, __half) {
    const unsigned short sign = static_cast<unsigned short>(__float_as_uint(x) >> 16 & 0x8000u);
    return is_nan(x) ? __ushort_as_half(static_cast<unsigned short>(sign | 0x7E00u)) : __float2half_rn(x);
}

// bfloat16 is the upper half of a float32. Half of its last place, less one, plus its last bit, carries into
// it where the lower half is more than a half, or a half and the last bit is odd.
__device__ __forceinline__ __nv_bfloat16 narrow(float x, __nv_bfloat16) {
    const unsigned int bits = __float_as_uint(x);
    const unsigned int rounded = (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
    const unsigned int quiet = (bits >> 16 & 0x8000u) | 0x7FC0u;
    return __ushort_as_bfloat16(static_cast<unsigned short>(is_nan(x) ? quiet : rounded));
}
