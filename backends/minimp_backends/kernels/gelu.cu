// gelu and its approximation by tanh, with their gradients. The formulas are those of the engine's op, operation
// for operation; exp, tanh and erf are ours.
#include "activations.cuh"
#include "exponentials.cuh"

constexpr float ROOT_HALF = 0x1.6a09e6p-1f;
constexpr float DENSITY_AT_0 = 0x1.988454p-2f;  // of the normal distribution: 1 / sqrt(2 pi)
constexpr float STEEPNESS = 0x1.988454p-1f;     // sqrt(2 / pi)
constexpr float CUBIC = 0x1.6e4e26p-5f;         // 0.044715
constexpr float CUBIC_SLOPE = 0x1.12ba9ep-3f;   // 3 x 0.044715

// x P, P = (1 + erf(x / sqrt 2)) / 2
struct Gelu {
    __device__ __forceinline__ float below(float x) const {
        return __fmul_rn(0.5f, __fadd_rn(1.0f, erf_fixed(__fmul_rn(x, ROOT_HALF))));
    }
    __device__ __forceinline__ float value(float x) const {
        return __fmul_rn(x, below(x));
    }
    // g (P + x e^(-x^2 / 2) / sqrt(2 pi))
    __device__ __forceinline__ float gradient(float g, float x) const {
        const float density = __fmul_rn(exp_fixed(__fmul_rn(__fmul_rn(-0.5f, x), x)), DENSITY_AT_0);
        return __fmul_rn(g, __fadd_rn(below(x), __fmul_rn(x, density)));
    }
};

// x P, P = (1 + t) / 2, t = tanh(sqrt(2 / pi) (x + 0.044715 x^3))
struct GeluTanh {
    __device__ __forceinline__ float bent(float x) const {
        const float cube = __fmul_rn(__fmul_rn(__fmul_rn(CUBIC, x), x), x);
        return tanh_fixed(__fmul_rn(STEEPNESS, __fadd_rn(x, cube)));
    }
    __device__ __forceinline__ float value(float x) const {
        return __fmul_rn(x, __fmul_rn(0.5f, __fadd_rn(1.0f, bent(x))));
    }
    // g (P + x (1 - t^2) / 2 sqrt(2 / pi) (1 + 3 x 0.044715 x^2))
    __device__ __forceinline__ float gradient(float g, float x) const {
        const float t = bent(x);
        const float below = __fmul_rn(0.5f, __fadd_rn(1.0f, t));
        const float rising = __fmul_rn(__fmul_rn(0.5f, __fsub_rn(1.0f, __fmul_rn(t, t))), STEEPNESS);
        const float inner = __fadd_rn(1.0f, __fmul_rn(__fmul_rn(CUBIC_SLOPE, x), x));
        return __fmul_rn(g, __fadd_rn(below, __fmul_rn(x, __fmul_rn(rising, inner))));
    }
};

ACTIVATION(gelu, Gelu)
ACTIVATION(gelu_tanh, GeluTanh)
