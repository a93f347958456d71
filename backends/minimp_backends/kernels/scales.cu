// The loss scale S where the gradients are. One thread moves it by the verdict of the step, so that the host
// need not ask what was found: the rule is minimp.scaler.machine.next_state, with its order of operations.

enum ScaleOption { REFILLS = 1, STAYS_FINITE = 2, GROWS_SMOOTHLY = 4, GROWS_EARLY = 8, IN_FLOAT32 = 16 };

__device__ __forceinline__ double rounded(double scale, int options) {
    return options & IN_FLOAT32 ? static_cast<double>(__double2float_rn(scale)) : scale;
}

__device__ __forceinline__ double grown(double scale, double factor, double ceiling, int options) {
    double higher = rounded(__dmul_rn(scale, factor), options);
    higher = ceiling < higher ? ceiling : higher;
    const bool finite = (static_cast<unsigned long long>(__double_as_longlong(higher)) >> 52 & 2047) != 2047;
    return (options & STAYS_FINITE) && !finite ? scale : higher;
}

// `lowest` is -inf and `highest` inf where the rule has none; `early` acts with GROWS_EARLY. `interval` good
// steps in a row, counted by `growth_tracker`, let S grow; bad ones in a row are counted by `skips`. The new
// state goes to arrays of its own: somebody may still want to read the old one.
extern "C" __global__ void update_scale(const double* scale, const long long* growth_tracker,
                                        const long long* skips, const unsigned char* met_bad,
                                        double* new_scale, long long* new_growth_tracker,
                                        long long* new_skips, unsigned char* new_met_bad,
                                        const unsigned char* found, double growth, double backoff,
                                        double early, double lowest, double highest, long long interval,
                                        long long hysteresis, int options) {
    if (blockIdx.x != 0 || threadIdx.x != 0) {
        return;
    }
    double moved = *scale;
    long long tracker = 0, bad_steps = 0;
    if (*found) {
        bad_steps = *skips + 1;
        const bool due = options & REFILLS ? bad_steps % hysteresis == 0 : bad_steps >= hysteresis;
        const double lower = rounded(__dmul_rn(moved, backoff), options);
        moved = !due ? moved : lowest > lower ? lowest : lower;
    } else if ((options & GROWS_EARLY) && !*met_bad) {
        moved = grown(moved, early, highest, options);
    } else if (options & GROWS_SMOOTHLY) {
        moved = grown(moved, growth, highest, options);
    } else {
        tracker = *growth_tracker + 1;
        if (tracker == interval) {
            moved = grown(moved, growth, highest, options);
            tracker = 0;
        }
    }
    *new_scale = moved;
    *new_growth_tracker = tracker;
    *new_skips = bad_steps;
    *new_met_bad = *found || *met_bad;
}
