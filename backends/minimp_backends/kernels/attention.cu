// The probabilities of attention from products Q K^T, and the gradient of the scores: each one pass over a matrix
// of which array functions make a copy at every step. All is float32.
#include "rows.cuh"

// Scores of a stretch: products times scale. What query i does not see, keys behind key i where `causal`, is -inf,
// and so is what lies behind the end of the row.
__device__ __forceinline__ void read_scores(float (&held)[HELD], const float* row, const Team& team,
                                            long long stretch, long long length, bool whole, float scale,
                                            long long last) {
    read_stretch(held, row, team, stretch, length, whole, 0.0f);
#pragma unroll
    for (int i = 0; i < HELD; ++i) {
        held[i] = team.place(stretch) + i <= last ? __fmul_rn(held[i], scale) : -infinity();
    }
}

// The last key that the query of a row sees.
__device__ __forceinline__ long long last_key(const Team& team, bool causal, long long queries, long long length) {
    const long long query = causal ? team.row % queries : length;
    return query < length ? query : length - 1;
}

// p = e^(s - m) / sum e^(s - m) and ln sum e^s, m the largest score of a row. A row without a key to attend to has
// p = 0 and 0.
extern "C" __global__ void attention_weights(const float* products, float* p, float* log_sums, float scale,
                                             int causal, long long queries, long long rows, long long length) {
    const Team team(length);
    if (team.row >= rows) {
        return;
    }
    products += team.row * length;
    p += team.row * length;
    const bool whole = in_groups(length, products, p);
    const long long stretches = team.stretches(length), last = last_key(team, causal != 0, queries, length);
    float held[HELD];
    float top = Largest::nothing();
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        read_scores(held, products, team, stretch, length, whole, scale, last);
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            top = Largest::of(top, held[i]);
        }
    }
    top = over_team<Largest>(team, top);
    top = top == -infinity() ? 0.0f : top;
    float sum = 0.0f;
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        if (stretches > 1) {
            read_scores(held, products, team, stretch, length, whole, scale, last);
        }
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            held[i] = exp_fixed(__fsub_rn(held[i], top));
            sum = __fadd_rn(sum, held[i]);
        }
    }
    sum = over_team<Sum>(team, sum);
    sum = sum == 0.0f ? 1.0f : sum;
    const float share = __fdiv_rn(1.0f, sum);
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        if (stretches > 1) {
            read_scores(held, products, team, stretch, length, whole, scale, last);
        }
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            held[i] = __fmul_rn(stretches > 1 ? exp_fixed(__fsub_rn(held[i], top)) : held[i], share);
        }
        write_stretch(p, held, team, stretch, length, whole);
    }
    if (team.thread == 0) {
        log_sums[team.row] = __fadd_rn(top, log_fixed(sum));
    }
}

// p = e^(s - ln sum e^s) once more, and the gradient of the scores, p (r - sum p r).
extern "C" __global__ void attention_slopes(const float* products, const float* log_sums, const float* r, float* p,
                                            float* slopes, float scale, int causal, long long queries,
                                            long long rows, long long length) {
    const Team team(length);
    if (team.row >= rows) {
        return;
    }
    products += team.row * length;
    r += team.row * length;
    p += team.row * length;
    slopes += team.row * length;
    const bool whole = in_groups(length, products, r, p, slopes);
    const long long stretches = team.stretches(length), last = last_key(team, causal != 0, queries, length);
    const float log_sum = log_sums[team.row];
    float held[HELD], given[HELD];
    float sum = 0.0f;
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        read_scores(held, products, team, stretch, length, whole, scale, last);
        read_stretch(given, r, team, stretch, length, whole, 0.0f);
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            held[i] = exp_fixed(__fsub_rn(held[i], log_sum));
            sum = __fadd_rn(sum, __fmul_rn(held[i], given[i]));
        }
        write_stretch(p, held, team, stretch, length, whole);
    }
    sum = over_team<Sum>(team, sum);
#pragma unroll 1
    for (long long stretch = 0; stretch < stretches; ++stretch) {
        if (stretches > 1) {
            read_stretch(held, p, team, stretch, length, whole, 0.0f);  // what this very thread has written
            read_stretch(given, r, team, stretch, length, whole, 0.0f);
        }
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            held[i] = __fmul_rn(held[i], __fsub_rn(given[i], sum));
        }
        write_stretch(slopes, held, team, stretch, length, whole);
    }
}
