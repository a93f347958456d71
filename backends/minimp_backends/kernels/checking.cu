// Is every element finite? `found` is set to 1 and never cleared: one flag serves many launches.
#include "elements.cuh"

template <class Element>
__device__ __forceinline__ void find_nonfinite(const Element* values, int* found, long long count) {
    int bad = 0;
    for (long long i = first_element(); i < count; i += element_stride()) {
        bad |= !is_finite(values[i]);
    }
    // One write per block, not per thread. Every thread comes here: the loop above has no early return.
    if (__syncthreads_or(bad) && threadIdx.x == 0) {
        atomicOr(found, 1);
    }
}

#define FIND_NONFINITE(name, Element)                                                                        \
    extern "C" __global__ void find_nonfinite_##name(const Element* values, int* found, long long count) {   \
        find_nonfinite(values, found, count);                                                                \
    }

FIND_NONFINITE(float, float)
FIND_NONFINITE(double, double)
FIND_NONFINITE(half, __half)
FIND_NONFINITE(bfloat16, __nv_bfloat16)
