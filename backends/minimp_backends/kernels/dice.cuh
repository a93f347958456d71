// Random bits that belong to an element: SplitMix64 of (seed, place), the words of minimp.formats.Counter.
//
// Word j of key k is mix(k + (j + 1) · GOLDEN mod 2^64). The element at an even place takes its low half, the
// next one its high half. (Steele, Lea and Flood 2014, OOPSLA, figure 15.)
#pragma once

#include "lanes.cuh"

__device__ __forceinline__ unsigned long long mix64(unsigned long long z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

struct Dice {
    unsigned long long key, further_key;  // of the first 32 bits of an element, and of 32 more
    unsigned long long first;             // the word of element 0
    unsigned int odd;                     // 1 where element 0 has the upper half of it

    __device__ __forceinline__ Dice(unsigned long long seed, unsigned long long start) {
        key = mix64(seed);
        further_key = mix64(key ^ 0xD6E8FEB86659FD93ull);
        first = start >> 1;
        odd = static_cast<unsigned int>(start & 1);
    }

    __device__ __forceinline__ unsigned int word_of(unsigned long long from, long long element) const {
        const unsigned long long place = static_cast<unsigned long long>(element) + odd;
        const unsigned long long hash = mix64(from + ((place >> 1) + first + 1) * 0x9E3779B97F4A7C15ull);
        return static_cast<unsigned int>(place & 1 ? hash >> 32 : hash);
    }

    // The first words of N neighbours; two of them share a hash.
    template <int N>
    __device__ __forceinline__ Lanes<unsigned int, N> words(long long element) const {
        const unsigned long long place = static_cast<unsigned long long>(element) + odd;
        const bool shifted = (place & 1) != 0;  // the first of them has the upper half of its hash
        unsigned long long hashes[N / 2 + 1];
#pragma unroll
        for (int j = 0; j <= N / 2; ++j) {
            hashes[j] = mix64(key + ((place >> 1) + j + first + 1) * 0x9E3779B97F4A7C15ull);
        }
        Lanes<unsigned int, N> thrown;
#pragma unroll
        for (int k = 0; k < N; ++k) {
            const unsigned long long hash = k % 2 == 1 && shifted ? hashes[(k + 1) / 2] : hashes[k / 2];
            thrown.at[k] = static_cast<unsigned int>(shifted != (k % 2 == 1) ? hash >> 32 : hash);
        }
        return thrown;
    }

    // Whether a residue of residue / 2^shift, in (0, 1), goes up: round(part · 2^53) + throw >= 2^53, with 53
    // random bits thrown: all of the element's first word and the upper 21 of its further one.
    template <class Word>
    __device__ __forceinline__ bool lifts(Word residue, int shift, unsigned int word,
                                          long long element) const {
        unsigned long long part = residue;
        if (shift <= 53) {
            part <<= 53 - shift;
        } else {
            const int cut = shift - 53 < 63 ? shift - 53 : 63;
            const unsigned long long below = part & ((1ull << cut) - 1), half = 1ull << (cut - 1);
            part >>= cut;
            part += below > half || (below == half && (part & 1));
        }
        const unsigned long long thrown = word;
        const unsigned long long last = part & 0x1FFFFFull;  // mostly 0: the further word decides nothing
        if (last == 0) {
            return (part >> 21) + thrown >= 0x100000000ull;
        }
        return part + (thrown << 21 | word_of(further_key, element) >> 11) >= 0x20000000000000ull;
    }
};
