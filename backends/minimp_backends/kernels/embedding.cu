// The gradient of an embedding's table: each of its rows is the sum of the rows of the gradient that looked it
// up. The places are sorted beforehand, stably, so that each sum has one owner: no atomics, and the order of the
// additions is that of the places.
#include "rounding16.cuh"

// One thread sums one element of the table, so neighbouring threads read neighbouring elements of a row. The sum
// is float32 and is rounded once; a row that nobody looked up becomes zeros.
template <class Element>
__device__ __forceinline__ void sum_segments(const Element* rows, const long long* order,
                                             const long long* starts, Element* table, long long vocabulary,
                                             long long width) {
    for (long long i = first_element(); i < vocabulary * width; i += element_stride()) {
        const long long place = i / width;
        const long long column = i - place * width;
        float sum = 0.0f;
        for (long long k = starts[place]; k < starts[place + 1]; ++k) {
            sum = __fadd_rn(sum, widen(rows[order[k] * width + column]));
        }
        table[i] = narrow(sum, Element());
    }
}

#define SUM_SEGMENTS(name, Element)                                                                          \
    extern "C" __global__ void sum_segments_##name(const Element* rows, const long long* order,              \
                                                   const long long* starts, Element* table,                  \
                                                   long long vocabulary, long long width) {                  \
        sum_segments(rows, order, starts, table, vocabulary, width);                                         \
    }

SUM_SEGMENTS(float, float)
SUM_SEGMENTS(half, __half)
SUM_SEGMENTS(bfloat16, __nv_bfloat16)
