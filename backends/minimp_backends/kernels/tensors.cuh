// Several tensors in one launch: they are cut into chunks, and a block takes one chunk after another.
#pragma once

#include "many.cuh"

constexpr int TENSORS = 32;  // of one launch at most: the pointers have to fit the 4 KiB of kernel parameters
constexpr int CHUNK = 2048;  // elements; whole runs of 16 bytes, so that a chunk is as aligned as its tensor

struct Chunk {
    int tensor;  // TENSORS where there are no more
    long long begin, end;
};

// Chunks are counted through all tensors. The answer is the same in every thread of a block.
__device__ __forceinline__ Chunk find_chunk(const Many<long long, TENSORS>& counts, long long chunk) {
#pragma unroll 1
    for (int tensor = 0; tensor < TENSORS; ++tensor) {
        const long long count = counts.at[tensor], begin = chunk * CHUNK;
        if (begin < count) {
            return {tensor, begin, begin + CHUNK < count ? begin + CHUNK : count};
        }
        chunk -= (count + CHUNK - 1) / CHUNK;
    }
    return {TENSORS, 0, 0};
}
