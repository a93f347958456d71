// What the numbers of an array are like, in one pass: how many are zero, NaN and infinite, how many lie in each
// binade, how many of those close below the next power of two, the ends, and the sum. An array of gigabytes
// becomes a table of a few kilobytes.
//
// Counts are integers, whose atomic sums come out alike in any order. The sum is of floats and so has one order:
// a thread adds its own, a tree the threads of a block, and each block writes its part down.
#include "lanes.cuh"
#include "rounding16.cuh"

constexpr int GROUP = 8;      // neighbours that a thread takes
constexpr int THREADS = 256;  // of a block
constexpr int COPIES = 8;     // of each count in a block: neighbours are often in one binade and would queue
constexpr int CUTS = 5;       // kinds of numbers that are a power of two, or close below one

// The exponents of what is not 0, subnormal numbers among it.
template <class Element>
struct Range;
template <>
struct Range<__half> {
    static constexpr int LOWEST = -24, BINADES = 40;
};
template <>
struct Range<__nv_bfloat16> {
    static constexpr int LOWEST = -133, BINADES = 261;
};
template <>
struct Range<float> {
    static constexpr int LOWEST = -149, BINADES = 277;
};

// The table: three counts, then a binade each, then the ends, then the binades again for each cut.
enum Slot { ZEROS, NANS, INFINITE, BINADE };

// What one thread has seen of the finite numbers. The ends are 0 where there are none.
struct Seen {
    unsigned int least, most;
    double sum;
};

// Floats in order as unsigned integers in order, -0 before 0. Those of finite numbers lie strictly between 0 and
// the largest integer, so that the complement puts the least on top and 0 means none.
__device__ __forceinline__ unsigned int ordered(unsigned int bits) {
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Which cut the 23 bits behind the leading one make: 0 for a power of two, then 7, 8 or 9, 10, and 11 or more
// ones at the front, which is at or above 2 - 2^-7, 2 - 2^-8, 2 - 2^-10, 2 - 2^-11; -1 for none.
__device__ __forceinline__ int cut_of(unsigned int fraction) {
    const int ones = __clz(static_cast<int>(~(fraction << 9)));
    if (fraction == 0u) {
        return 0;
    }
    return ones < 7 ? -1 : ones < 8 ? 1 : ones < 10 ? 2 : ones < 11 ? 3 : 4;
}

// Counts a number that is neither 0 nor infinite nor NaN.
template <class Element>
__device__ __forceinline__ int count_binade(unsigned int magnitude, unsigned int* cuts) {
    int exponent = static_cast<int>(magnitude >> 23) - 127;
    if (exponent == -127) {  // no leading one is stored: it is moved to where it would be
        const int places = __clz(static_cast<int>(magnitude)) - 8;
        magnitude <<= places;
        exponent = -126 - places;
    }
    const int binade = exponent - Range<Element>::LOWEST;
    if (cuts != nullptr) {
        const int cut = cut_of(magnitude & 0x7FFFFFu);
        if (cut >= 0) {
            atomicAdd(cuts + cut * Range<Element>::BINADES + binade, 1u);
        }
    }
    return BINADE + binade;
}

template <class Element>
__device__ __forceinline__ void count_one(float x, unsigned int* counts, unsigned int* cuts, Seen& seen) {
    const unsigned int bits = __float_as_uint(x), magnitude = bits & 0x7FFFFFFFu;
    int slot = magnitude > 0x7F800000u ? NANS : INFINITE;
    if (magnitude < 0x7F800000u) {
        slot = magnitude == 0u ? ZEROS : count_binade<Element>(magnitude, cuts);
        const unsigned int place = ordered(bits);
        seen.most = place > seen.most ? place : seen.most;
        seen.least = ~place > seen.least ? ~place : seen.least;
        seen.sum = __dadd_rn(seen.sum, static_cast<double>(x));
    }
    atomicAdd(counts + slot * COPIES, 1u);
}

// Eight neighbours, or those that are left; by one access or two where the array begins at 16 bytes.
template <class Element>
__device__ __forceinline__ void count_group(const Element* values, bool whole, long long group, long long count,
                                            unsigned int* counts, unsigned int* cuts, Seen& seen) {
    const long long begin = GROUP * group;
    const bool full = begin + GROUP <= count;
    Lanes<Element, GROUP> given;
    if (full && whole) {
        given = load<GROUP>(values, group);
    } else {
#pragma unroll
        for (int k = 0; k < GROUP; ++k) {
            given.at[k] = values[begin + k < count ? begin + k : begin];
        }
    }
#pragma unroll
    for (int k = 0; k < GROUP; ++k) {
        if (full || begin + k < count) {
            count_one<Element>(widen(given.at[k]), counts, cuts, seen);
        }
    }
}

// Adds what a block has counted to the table.
template <class Element>
__device__ __forceinline__ void hand_in(unsigned int* table, const unsigned int* counts,
                                        const unsigned int* cuts, const unsigned int* ends, bool with_cuts) {
    constexpr int SLOTS = BINADE + Range<Element>::BINADES;
    for (int slot = threadIdx.x; slot < SLOTS; slot += THREADS) {
        unsigned int met = 0u;
        for (int copy = 0; copy < COPIES; ++copy) {
            met += counts[slot * COPIES + copy];
        }
        if (met != 0u) {
            atomicAdd(table + slot, met);
        }
    }
    if (threadIdx.x < 2) {
        atomicMax(table + SLOTS + threadIdx.x, ends[threadIdx.x]);
    }
    for (int at = threadIdx.x; with_cuts && at < CUTS * Range<Element>::BINADES; at += THREADS) {
        if (cuts[at] != 0u) {
            atomicAdd(table + SLOTS + 2 + at, cuts[at]);
        }
    }
}

// The sum over a block: half of the threads take up the other half, again and again. Every thread comes here.
__device__ __forceinline__ void sum_block(double* sums, double sum) {
    __shared__ double parts[THREADS];
    const unsigned int thread = threadIdx.x;
    parts[thread] = sum;
    for (unsigned int width = THREADS / 2; width > 0; width /= 2) {
        __syncthreads();
        if (thread < width) {
            parts[thread] = __dadd_rn(parts[thread], parts[thread + width]);
        }
    }
    if (thread == 0) {
        sums[blockIdx.x] = parts[0];
    }
}

template <class Element>
__device__ __forceinline__ void tally(const Element* values, unsigned int* table, double* sums, bool with_cuts,
                                      long long count) {
    constexpr int SLOTS = BINADE + Range<Element>::BINADES;
    __shared__ unsigned int counts[SLOTS * COPIES];
    __shared__ unsigned int cuts[CUTS * Range<Element>::BINADES];
    __shared__ unsigned int ends[2];
    for (int at = threadIdx.x; at < SLOTS * COPIES; at += THREADS) {
        counts[at] = 0u;
    }
    for (int at = threadIdx.x; at < CUTS * Range<Element>::BINADES; at += THREADS) {
        cuts[at] = 0u;
    }
    if (threadIdx.x < 2) {
        ends[threadIdx.x] = 0u;
    }
    __syncthreads();
    Seen seen = {0u, 0u, 0.0};
    const bool whole = aligned(values);
#pragma unroll 1
    for (long long group = first_element(); GROUP * group < count; group += element_stride()) {
        count_group(values, whole, group, count, counts + threadIdx.x % COPIES, with_cuts ? cuts : nullptr,
                    seen);
    }
    atomicMax(ends, seen.least);
    atomicMax(ends + 1, seen.most);
    sum_block(sums, seen.sum);  // behind its barriers all have counted
    hand_in<Element>(table, counts, cuts, ends, with_cuts);
}

#define TALLY(name, Element)                                                                                 \
    extern "C" __global__ void tally_##name(const Element* values, unsigned int* table, double* sums,        \
                                            int with_cuts, long long count) {                                \
        tally(values, table, sums, with_cuts != 0, count);                                                   \
    }

TALLY(half, __half)
TALLY(bfloat16, __nv_bfloat16)
TALLY(float, float)
