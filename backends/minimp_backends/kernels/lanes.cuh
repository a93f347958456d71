// Several neighbouring elements of an array as one access to memory of up to 16 bytes.
#pragma once

template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Lanes {
    T at[N];
};

// Whether arrays may be read as Lanes: all begin at a multiple of 16 bytes. (An array that is not there
// does.)
__device__ __forceinline__ bool aligned(const void* a, const void* b = nullptr, const void* c = nullptr,
                                        const void* d = nullptr) {
    const unsigned long long together = reinterpret_cast<unsigned long long>(a) |
                                        reinterpret_cast<unsigned long long>(b) |
                                        reinterpret_cast<unsigned long long>(c) |
                                        reinterpret_cast<unsigned long long>(d);
    return (together & 15) == 0;
}

template <int N, class T>
__device__ __forceinline__ Lanes<T, N> load(const T* from, long long lane) {
    return reinterpret_cast<const Lanes<T, N>*>(from)[lane];
}

template <int N, class T>
__device__ __forceinline__ void store(T* to, long long lane, const Lanes<T, N>& values) {
    reinterpret_cast<Lanes<T, N>*>(to)[lane] = values;
}
