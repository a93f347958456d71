// Activations as kernels: values and gradients of a function of single numbers, each in one pass. Numbers are
// widened to float32, the function computes there, and the result is rounded once to where it is stored.
//
// A Function has value(x) and gradient(g, kept), where kept is what backward needs: the result, the argument, or
// a byte that says whether the argument was above 0. A thread takes four neighbours: the memory is kept busy,
// and the functions, written out four times, stay small.
#pragma once

#include "lanes.cuh"
#include "rounding16.cuh"

constexpr int NEIGHBOURS = 4;

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
    const long long lanes = aligned(source, target) ? count / NEIGHBOURS : 0;
#pragma unroll 1
    for (long long lane = first_element(); lane < lanes; lane += element_stride()) {
        value_lanes<NEIGHBOURS>(function, source, target, lane);
    }
#pragma unroll 1
    for (long long i = NEIGHBOURS * lanes + first_element(); i < count; i += element_stride()) {
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
    const long long lanes = aligned(grad, kept, target) ? count / NEIGHBOURS : 0;
#pragma unroll 1
    for (long long lane = first_element(); lane < lanes; lane += element_stride()) {
        gradient_lanes<NEIGHBOURS>(function, grad, kept, target, lane);
    }
#pragma unroll 1
    for (long long i = NEIGHBOURS * lanes + first_element(); i < count; i += element_stride()) {
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
