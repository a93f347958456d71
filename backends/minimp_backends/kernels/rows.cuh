// Rows of a matrix, each worked on by a team of threads: a warp where it is short, else a block.
//
// A thread takes groups of eight neighbours: groups t, t + T, t + 2T... of a team of T threads. T groups are a
// stretch, of which each thread holds its eight numbers; a row of one stretch is read once, a longer one in every
// pass.
//
// The order of a sum is that of references/rows.py: each thread its own numbers as they come, beginning at 0, then
// the threads of each warp by halves, then the warps by halves.
#pragma once

#include "exponentials.cuh"
#include "lanes.cuh"
#include "many.cuh"

constexpr int WARP = 32;
constexpr int HELD = 8;             // numbers of an array that a thread holds, neighbours
constexpr int SHORT = WARP * HELD;  // the longest row that a warp takes

template <class T>
using Maybe = Many<T, 1>;  // a pointer, null where there is no such array

struct Team {
    long long row;
    int thread, size;

    __device__ __forceinline__ explicit Team(long long length) {
        const bool is_warp = length <= SHORT;
        size = is_warp ? WARP : static_cast<int>(blockDim.x);
        thread = static_cast<int>(threadIdx.x) % size;
        row = is_warp ? first_element() / WARP : static_cast<long long>(blockIdx.x);
    }

    // How many stretches a row has.
    __device__ __forceinline__ long long stretches(long long length) const {
        return (length + size * HELD - 1) / (size * HELD);
    }

    // Where the first number that a thread holds of a stretch lies in the row.
    __device__ __forceinline__ long long place(long long stretch) const {
        return (stretch * size + thread) * HELD;
    }
};

// ---- what a team knows together ---------------------------------------------------------------------------

struct Sum {
    static __device__ __forceinline__ float nothing() { return 0.0f; }
    static __device__ __forceinline__ float of(float a, float b) { return __fadd_rn(a, b); }
};

// NaN is passed over: whoever looks for the largest adds up all numbers afterwards, which tells of it.
struct Largest {
    static __device__ __forceinline__ float nothing() { return -infinity(); }
    static __device__ __forceinline__ float of(float a, float b) { return b > a ? b : a; }
};

template <class Rule>
__device__ __forceinline__ float over_warp(float mine) {
#pragma unroll
    for (int other = WARP / 2; other > 0; other /= 2) {
        mine = Rule::of(mine, __shfl_xor_sync(~0u, mine, other));
    }
    return mine;
}

// Every thread of the team comes here, and each gets the same.
template <class Rule>
__device__ __forceinline__ float over_team(const Team& team, float mine) {
    __shared__ float parts[WARP];
    mine = over_warp<Rule>(mine);
    if (team.size == WARP) {
        return mine;
    }
    __syncthreads();  // what was here before has been read
    if (team.thread % WARP == 0) {
        parts[team.thread / WARP] = mine;
    }
    __syncthreads();
    const int lane = team.thread % WARP;
    return over_warp<Rule>(lane < team.size / WARP ? parts[lane] : Rule::nothing());
}

// ---- a thread's share of a row ----------------------------------------------------------------------------

// Whether eight neighbours may be read and written together: rows begin at 16 bytes, and end with a group.
__device__ __forceinline__ bool in_groups(long long length, const void* a, const void* b,
                                          const void* c = nullptr, const void* d = nullptr) {
    return length % HELD == 0 && aligned(a, b, c, d);
}

// Reads a stretch; behind the end of the row there is `nothing`.
template <class Element>
__device__ __forceinline__ void read_stretch(float (&held)[HELD], const Element* row, const Team& team,
                                             long long stretch, long long length, bool whole, float nothing) {
    const long long place = team.place(stretch);
    if (whole && place < length) {
        const Lanes<Element, HELD> given = load<HELD>(row, place / HELD);
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            held[i] = widen(given.at[i]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            held[i] = place + i < length ? widen(row[place + i]) : nothing;
        }
    }
}

// Rounds a stretch once and writes it.
template <class Element>
__device__ __forceinline__ void write_stretch(Element* row, const float (&held)[HELD], const Team& team,
                                              long long stretch, long long length, bool whole) {
    const long long place = team.place(stretch);
    if (whole && place < length) {
        Lanes<Element, HELD> made;
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            made.at[i] = narrow(held[i], Element());
        }
        store(row, place / HELD, made);
    } else {
#pragma unroll
        for (int i = 0; i < HELD; ++i) {
            if (place + i < length) {
                row[place + i] = narrow(held[i], Element());
            }
        }
    }
}
