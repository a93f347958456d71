// The count of steps where the verdict is: a step that found an infinity or NaN does not count, and the host
// need not know. Adam's bias corrections follow from the count; one thread computes them.

#include "many.cuh"

// h + l, where l is less than half of the last place of h: about 104 significant bits.
struct Pair {
    double h, l;
};

// x = upper + lower, each of at most 26 significant bits (Veltkamp; Dekker 1971).
__device__ __forceinline__ Pair halves(double x) {
    const double raised = __dmul_rn(x, 134217729.0);  // 2^27 + 1
    const double upper = __dsub_rn(raised, __dsub_rn(raised, x));
    return {upper, __dsub_rn(x, upper)};
}

// a b with a relative error of some 2^-102: the product of the leading parts with its error, exactly
// (Dekker), and the cross terms.
__device__ __forceinline__ Pair times(Pair a, Pair b) {
    const double product = __dmul_rn(a.h, b.h);
    const Pair x = halves(a.h), y = halves(b.h);
    double error = __dsub_rn(__dmul_rn(x.h, y.h), product);
    error = __dadd_rn(error, __dmul_rn(x.h, y.l));
    error = __dadd_rn(error, __dmul_rn(x.l, y.h));
    error = __dadd_rn(error, __dmul_rn(x.l, y.l));
    error = __dadd_rn(error, __dadd_rn(__dmul_rn(a.h, b.l), __dmul_rn(a.l, b.h)));
    const double sum = __dadd_rn(product, error);
    return {sum, __dsub_rn(error, __dsub_rn(sum, product))};
}

// base^exponent for 0 <= base <= 1 by squaring, rounded to float64 at the end.
__device__ __forceinline__ double power(double base, long long exponent) {
    Pair result = {1.0, 0.0}, square = {base, 0.0};
#pragma unroll 1
    for (; exponent > 0; exponent >>= 1) {
        if (exponent & 1) {
            result = times(result, square);
        }
        square = times(square, square);
    }
    return result.h;
}

// `by` steps more, unless the step is to be skipped: then nothing changes. `numbers` become -lr / (1 -
// beta1^t) and sqrt(1 - beta2^t), computed in float64 and rounded to float32 once. `by` is 0 where the count
// is kept elsewhere.
extern "C" __global__ void adam_advance(long long* step, float* numbers, Many<const unsigned char*, 1> found,
                                        long long by, double lr, double beta1, double beta2) {
    if (blockIdx.x != 0 || threadIdx.x != 0 || (found.at[0] && *found.at[0])) {
        return;
    }
    const long long t = *step + by;
    *step = t;
    numbers[0] = __double2float_rn(__ddiv_rn(-lr, __dsub_rn(1.0, power(beta1, t))));
    numbers[1] = __double2float_rn(__dsqrt_rn(__dsub_rn(1.0, power(beta2, t))));
}
