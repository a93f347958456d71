// Gradients times a factor, 1/S as a rule, and the question whether all of them are finite, in one pass over
// many tensors. Flags are set to 1 and never cleared: one set of flags serves several launches.
#include "lanes.cuh"
#include "rounding16.cuh"
#include "tensors.cuh"

__device__ __forceinline__ void multiply(float x, float factor, float& product) {
    product = __fmul_rn(x, factor);
}

__device__ __forceinline__ void multiply(double x, float factor, double& product) {
    product = __dmul_rn(x, static_cast<double>(factor));
}

__device__ __forceinline__ double widen(double x) {
    return x;
}

// Finiteness is asked of the gradient, or of the product: they differ where the factor raises or is not
// finite.
template <int N, class Grad, class Wide>
__device__ __forceinline__ bool unscale_lanes(const Grad* grad, Wide* out, float factor, bool of_products,
                                              long long lane) {
    const Lanes<Grad, N> given = load<N>(grad, lane);
    Lanes<Wide, N> unscaled;
    bool bad = false;
#pragma unroll
    for (int k = 0; k < N; ++k) {
        multiply(widen(given.at[k]), factor, unscaled.at[k]);
        bad |= of_products ? !is_finite(unscaled.at[k]) : !is_finite(given.at[k]);
    }
    store(out, lane, unscaled);
    return bad;
}

template <class Grad, class Wide>
__device__ __forceinline__ void unscale_all(const Many<const Grad*, TENSORS>& grads,
                                            const Many<Wide*, TENSORS>& outs,
                                            const Many<long long, TENSORS>& counts, const double* factor,
                                            bool of_products, int* found, int* found_any) {
    const float times = __double2float_rn(*factor);
    for (long long next = blockIdx.x;; next += gridDim.x) {
        const Chunk chunk = find_chunk(counts, next);
        if (chunk.tensor == TENSORS) {
            return;
        }
        const Grad* grad = grads.at[chunk.tensor];
        Wide* out = outs.at[chunk.tensor];
        const long long lanes = aligned(grad, out) ? chunk.end / 8 : 0;
        const long long rest = lanes ? 8 * lanes : chunk.begin;
        bool bad = false;
#pragma unroll 1
        for (long long lane = chunk.begin / 8 + threadIdx.x; lane < lanes; lane += blockDim.x) {
            bad |= unscale_lanes<8>(grad, out, times, of_products, lane);
        }
#pragma unroll 1
        for (long long i = rest + threadIdx.x; i < chunk.end; i += blockDim.x) {
            bad |= unscale_lanes<1>(grad, out, times, of_products, i);
        }
        // All threads of the block are here: they share the chunk.
        if (__syncthreads_or(bad) && threadIdx.x == 0) {
            atomicOr(found + chunk.tensor, 1);
            atomicOr(found_any, 1);
        }
    }
}

#define UNSCALE(name, Grad, Wide)                                                                            \
    extern "C" __global__ void unscale_##name(Many<const Grad*, TENSORS> grads, Many<Wide*, TENSORS> outs,   \
                                              Many<long long, TENSORS> counts, const double* factor,         \
                                              int of_products, int* found, int* found_any) {                 \
        unscale_all(grads, outs, counts, factor, of_products != 0, found, found_any);                        \
    }

UNSCALE(float, float, float)
UNSCALE(half, __half, float)
UNSCALE(bfloat16, __nv_bfloat16, float)
UNSCALE(double, double, double)
