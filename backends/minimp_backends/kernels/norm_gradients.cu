// The gradients of layer_norm and rms_norm: float32 inside, one rounding at the end.
//
// rms_norm is a layer_norm whose mean is taken to be 0: where no means are given.
#include "rows.cuh"

// Makes h = g w of g, and z of x.
template <class Element>
__device__ __forceinline__ void read_pair(float (&h)[HELD], float (&z)[HELD], const Element* grad,
                                          const Element* x, const float* weight, float mean, float scale,
                                          const Team& team, long long stretch, long long length, bool whole) {
    read_stretch(h, grad, team, stretch, length, whole, 0.0f);
    if (weight != nullptr) {
        read_stretch(z, weight, team, stretch, length, whole, 0.0f);
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            h[i] = __fmul_rn(h[i], z[i]);
        }
    }
    read_stretch(z, x, team, stretch, length, whole, 0.0f);
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        z[i] = __fmul_rn(__fsub_rn(z[i], mean), scale);
    }
}

// dx = (h - mean h - z mean (h z)) s with h = g w; without means, (h - z mean (h z)) s.
template <class Element>
__device__ __forceinline__ void norm_gradient(const Element* grad, const Element* x, const float* weight,
                                              const float* means, const float* scales, Element* dx,
                                              long long rows, long long length) {
    const Team team(length);
    if (team.row >= rows) {
        return;
    }
    grad += team.row * length;
    x += team.row * length;
    dx += team.row * length;
    const bool whole = in_groups(length, grad, x, dx, weight);
    const long long stretches = team.stretches(length);
    const float mean = means == nullptr ? 0.0f : means[team.row], scale = scales[team.row];
    float h[HELD], z[HELD];
    float sum = 0.0f, inner = 0.0f;
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        read_pair(h, z, grad, x, weight, mean, scale, team, stretch, length, whole);
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            const bool there = team.place(stretch) + i < length;
            sum = __fadd_rn(sum, h[i]);
            inner = __fadd_rn(inner, there ? __fmul_rn(h[i], z[i]) : 0.0f);
        }
    }
    const float count = static_cast<float>(length);
    inner = __fdiv_rn(over_team<Sum>(team, inner), count);
    const float middle = means == nullptr ? 0.0f : __fdiv_rn(over_team<Sum>(team, sum), count);
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        if (stretches > 1) {
            read_pair(h, z, grad, x, weight, mean, scale, team, stretch, length, whole);
        }
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            h[i] = __fmul_rn(__fsub_rn(__fsub_rn(h[i], middle), __fmul_rn(z[i], inner)), scale);
        }
        write_stretch(dx, h, team, stretch, length, whole);
    }
}

// The gradients of w and b, sums over rows of g z and of g, in parts: a block takes 32 columns of some rows that
// follow each other, each of its 8 warps every eighth row; then the warps' sums are added in their order.
template <class Element>
__device__ __forceinline__ void norm_columns(const Element* grad, const Element* x, const float* means,
                                             const float* scales, float* parts, bool with_bias,
                                             long long rows, long long length, long long rows_each) {
    constexpr int WARPS = 8;
    __shared__ float sums[2][WARPS][WARP];
    const long long tiles = (length + WARP - 1) / WARP;
    const long long chunk = blockIdx.x / tiles;
    const int lane = static_cast<int>(threadIdx.x) % WARP, warp = static_cast<int>(threadIdx.x) / WARP;
    const long long column = (blockIdx.x - chunk * tiles) * WARP + lane;
    const long long end = (chunk + 1) * rows_each < rows ? (chunk + 1) * rows_each : rows;
    float by_weight = 0.0f, by_bias = 0.0f;
    for (long long row = chunk * rows_each + warp; row < end && column < length; row += WARPS) {
        const float g = widen(grad[row * length + column]);
        const float mean = means == nullptr ? 0.0f : means[row];
        const float z = __fmul_rn(__fsub_rn(widen(x[row * length + column]), mean), scales[row]);
        by_weight = __fadd_rn(by_weight, __fmul_rn(g, z));
        by_bias = __fadd_rn(by_bias, g);
    }
    sums[0][warp][lane] = by_weight;
    sums[1][warp][lane] = by_bias;
    __syncthreads();
    const int kinds = with_bias ? 2 : 1;
    if (warp < kinds && column < length) {
        float sum = sums[warp][0][lane];
        for (int other = 1; other < WARPS; ++other) {
            sum = __fadd_rn(sum, sums[warp][other][lane]);
        }
        parts[(chunk * kinds + warp) * length + column] = sum;
    }
}

#define NORM_GRADIENTS(name, Element)                                                                        \
    extern "C" __global__ void norm_gradient_##name(                                                         \
        const Element* grad, const Element* x, Maybe<const float*> weight, Maybe<const float*> means,        \
        const float* scales, Element* dx, long long rows, long long length) {                                \
        norm_gradient(grad, x, weight.at[0], means.at[0], scales, dx, rows, length);                         \
    }                                                                                                        \
    extern "C" __global__ void norm_columns_##name(                                                          \
        const Element* grad, const Element* x, Maybe<const float*> means, const float* scales, float* parts, \
        int with_bias, long long rows, long long length, long long rows_each) {                              \
        norm_columns(grad, x, means.at[0], scales, parts, with_bias != 0, rows, length, rows_each);          \
    }

NORM_GRADIENTS(float, float)
NORM_GRADIENTS(half, __half)
NORM_GRADIENTS(bfloat16, __nv_bfloat16)

// The sum of each column over `count` rows of parts, one after the other.
extern "C" __global__ void sum_parts(const float* parts, float* totals, long long count, long long width) {
    for (long long i = first_element(); i < width; i += element_stride()) {
        float sum = 0.0f;
        for (long long part = 0; part < count; ++part) {
            sum = __fadd_rn(sum, parts[part * width + i]);
        }
        totals[i] = sum;
    }
}
