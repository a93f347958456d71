// Activations with their gradients, those of gelu apart (gelu.cu). The formulas are those of the engine's ops,
// operation for operation; exp and tanh are ours.
#include "activations.cuh"
#include "exponentials.cuh"

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

// 1 / (1 + e^-x) from 0 on, e^x / (1 + e^x) below: no exponential overflows.
__device__ __forceinline__ float logistic(float x) {
    const float e = exp_fixed(-fabsf(x));
    return __fdiv_rn(x >= 0.0f ? 1.0f : e, __fadd_rn(1.0f, e));
}

struct Sigmoid {
    __device__ __forceinline__ float value(float x) const {
        return logistic(x);
    }
    __device__ __forceinline__ float gradient(float g, float y) const {
        return __fmul_rn(__fmul_rn(g, y), __fsub_rn(1.0f, y));
    }
};

struct Tanh {
    __device__ __forceinline__ float value(float x) const {
        return tanh_fixed(x);
    }
    __device__ __forceinline__ float gradient(float g, float y) const {
        return __fmul_rn(g, __fsub_rn(1.0f, __fmul_rn(y, y)));
    }
};

// x s
struct Silu {
    __device__ __forceinline__ float value(float x) const {
        return __fmul_rn(x, logistic(x));
    }
    // g s (1 + x (1 - s))
    __device__ __forceinline__ float gradient(float g, float x) const {
        const float s = logistic(x);
        return __fmul_rn(g, __fmul_rn(s, __fadd_rn(1.0f, __fmul_rn(x, __fsub_rn(1.0f, s)))));
    }
};

ACTIVATION(relu, Relu)
ACTIVATION(sigmoid, Sigmoid)
ACTIVATION(tanh, Tanh)
ACTIVATION(silu, Silu)

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
