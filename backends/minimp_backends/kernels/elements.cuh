// Elements of every kind: their bits, and the range of a grid-stride loop.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

// A thread's first element and its stride, over the whole grid. 64 bits: an array may have more than 2^31.
__device__ __forceinline__ long long first_element() {
    return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ long long element_stride() {
    return static_cast<long long>(gridDim.x) * blockDim.x;
}

// Finite is what has an exponent field that is not all ones. Read from the bits, no compiler option can turn the
// question into "true", as -ffast-math does with isfinite.
__device__ __forceinline__ bool is_finite(float x) {
    return (__float_as_uint(x) & 0x7F800000u) != 0x7F800000u;
}

__device__ __forceinline__ bool is_finite(double x) {
    const unsigned long long exponent = 0x7FF0000000000000ull;
    return (static_cast<unsigned long long>(__double_as_longlong(x)) & exponent) != exponent;
}

__device__ __forceinline__ bool is_finite(__half x) {
    return (__half_as_ushort(x) & 0x7C00u) != 0x7C00u;
}

__device__ __forceinline__ bool is_finite(__nv_bfloat16 x) {
    return (__bfloat16_as_ushort(x) & 0x7F80u) != 0x7F80u;
}
