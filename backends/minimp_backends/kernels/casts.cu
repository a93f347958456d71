// Any format to any other, in any rounding mode: codes in, codes out.
//
// An array is its bytes here, and a format a number that says what the codes mean (formats.cuh): one kernel
// serves them all. The branches on format and rounding go the same way in every thread.
#include "elements.cuh"
#include "formats.cuh"

template <class Word>
__device__ __forceinline__ Word load_code(const unsigned char* codes, int bytes, long long i) {
    switch (bytes) {
        case 1: return codes[i];
        case 2: return reinterpret_cast<const unsigned short*>(codes)[i];
        case 4: return reinterpret_cast<const unsigned int*>(codes)[i];
        default: return static_cast<Word>(reinterpret_cast<const unsigned long long*>(codes)[i]);
    }
}

template <class Word>
__device__ __forceinline__ void store_code(unsigned char* codes, int bytes, long long i, Word code) {
    switch (bytes) {
        case 1: codes[i] = static_cast<unsigned char>(code); break;
        case 2: reinterpret_cast<unsigned short*>(codes)[i] = static_cast<unsigned short>(code); break;
        case 4: reinterpret_cast<unsigned int*>(codes)[i] = static_cast<unsigned int>(code); break;
        default: reinterpret_cast<unsigned long long*>(codes)[i] = code;
    }
}

// `met_nan` is set to 1 where a NaN comes to a format that has none; it is never cleared.
template <class Word>
__device__ __forceinline__ void cast_all(const unsigned char* source, unsigned char* target,
                                         unsigned long long source_format, unsigned long long target_format,
                                         int rounding, int rule, unsigned long long seed,
                                         unsigned long long start, int* met_nan, long long count) {
    const Format<Word> from(source_format), to(target_format);
    const Dice dice(seed, start);
    bool refused = false;
#pragma unroll 1
    for (long long i = first_element(); i < count; i += element_stride()) {
        const Number<Word> x = decode(load_code<Word>(source, from.bytes, i), from);
        store_code(target, to.bytes, i, encode(x, to, rounding, rule, dice, i, refused));
    }
    if (__syncthreads_or(refused) && threadIdx.x == 0) {
        atomicOr(met_nan, 1);
    }
}

#define CAST_CODES(name, Word)                                                                               \
    extern "C" __global__ void cast_codes_##name(                                                            \
        const unsigned char* source, unsigned char* target, unsigned long long source_format,                \
        unsigned long long target_format, int rounding, int rule, unsigned long long seed,                   \
        unsigned long long start, int* met_nan, long long count) {                                           \
        cast_all<Word>(source, target, source_format, target_format, rounding, rule, seed, start, met_nan,   \
                       count);                                                                               \
    }

CAST_CODES(32, unsigned int)
CAST_CODES(64, unsigned long long)
