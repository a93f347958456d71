// Number formats as data: a code becomes an exact number, and a number is rounded once to a code.
//
// This is minimp.formats in integer arithmetic; nothing here rounds but round_magnitude. Word is unsigned int
// where both formats lie within float32 (fewer than 25 significant bits, 32-bit codes), else unsigned long
// long.
#pragma once

#include "dice.cuh"

// The order of minimp.formats.ROUNDINGS.
enum Rounding { NEAREST_EVEN, NEAREST_AWAY, TOWARD_ZERO, UP, DOWN, TO_ODD, STOCHASTIC };

// What becomes of numbers that a format has no place for (minimp.formats.OVERFLOWS), and of subnormal
// results.
enum Rule { SATURATES = 1, KEEPS_ZERO = 2, DROPS_SIGN = 4, LIFTS_LOWEST = 8, FLUSHES = 16 };

enum NanPlace { NO_NAN, NAN_ON_TOP, NAN_OF_ONES, NAN_OF_SIGN };

enum Class { FINITE, INFINITE, NOT_A_NUMBER };

__device__ __forceinline__ int leading_zeros(unsigned int x) {
    return __clz(static_cast<int>(x));
}

__device__ __forceinline__ int leading_zeros(unsigned long long x) {
    return __clzll(static_cast<long long>(x));
}

// A format travels as one 64-bit number; references/formats.py packs it and says what the fields are.
template <class Word>
struct Format {
    int mantissa_bits, magnitude_bits, emin, padding, bytes, nan_place;
    bool is_signed, has_inf, has_zero, has_negative_zero, is_gradual, is_integer;
    Word hidden;    // 2^m, the bit in front of the stored ones
    Word max_code;  // of the largest finite value
    Word nan_code;

    __device__ __forceinline__ explicit Format(unsigned long long packed) {
        mantissa_bits = static_cast<int>(packed & 63);
        magnitude_bits = static_cast<int>(packed >> 6 & 15) + mantissa_bits;
        emin = static_cast<int>(packed >> 10 & 8191) - 4096;
        padding = static_cast<int>(packed >> 23 & 63);
        bytes = static_cast<int>(packed >> 29 & 15);
        nan_place = static_cast<int>(packed >> 33 & 3);
        is_signed = packed >> 35 & 1;
        has_inf = packed >> 36 & 1;
        has_zero = packed >> 37 & 1;
        has_negative_zero = packed >> 38 & 1;
        is_gradual = packed >> 39 & 1;
        is_integer = packed >> 40 & 1;
        hidden = static_cast<Word>(1) << mantissa_bits;
        const Word ones = (static_cast<Word>(1) << magnitude_bits) - 1;
        const Word one_reserved = has_inf || nan_place == NAN_OF_ONES;
        max_code = ones - (nan_place == NAN_ON_TOP ? hidden : one_reserved);
        nan_code = nan_place == NAN_ON_TOP    ? ones - (hidden >> 1) + 1
                   : nan_place == NAN_OF_SIGN ? ones + 1
                                              : ones;
    }
};

// (-1)^negative · significand · 2^exponent, or what is no such number.
template <class Word>
struct Number {
    Class kind;
    bool negative;
    Word significand;
    int exponent;
};

template <class Word>
__device__ __forceinline__ Number<Word> decode(Word code, const Format<Word>& format) {
    const Word one = 1, bits = code >> format.padding, sign = one << format.magnitude_bits;
    const bool minus = format.is_signed && (bits & sign) != 0;
    const Word fields = bits & (sign - 1);
    if (format.is_integer) {  // two's complement
        return {FINITE, minus, minus ? sign - fields : fields, 0};
    }
    const int field = static_cast<int>(fields >> format.mantissa_bits);
    const bool normal = field >= format.has_zero;
    Word significand = normal || format.is_gradual ? fields & (format.hidden - 1) : 0;
    significand += normal ? format.hidden : 0;
    const int above = normal ? field - format.has_zero : 0;
    Class kind = FINITE;
    if (fields > format.max_code) {
        kind = format.has_inf && fields == format.max_code + 1 ? INFINITE : NOT_A_NUMBER;
    }
    if (format.nan_place == NAN_OF_SIGN && (bits & (2 * sign - 1)) == sign) {
        kind = NOT_A_NUMBER;
    }
    const bool negative = minus && (kind != FINITE || significand != 0 || format.has_negative_zero);
    return {kind, negative, significand, above + format.emin - format.mantissa_bits};
}

// Whether low + 1 is taken in the place of low, by where the residue stands in the step from one to the
// other.
template <class Word>
__device__ __forceinline__ bool goes_up(int rounding, Word low, Word residue, Word half, bool negative) {
    const bool odd = (low & 1) != 0;
    switch (rounding) {
        case NEAREST_EVEN: return residue > half || (residue == half && odd);
        case NEAREST_AWAY: return residue >= half;
        case UP: return residue != 0 && !negative;
        case DOWN: return residue != 0 && negative;
        case TO_ODD: return residue != 0 && !odd;
        default: return false;  // toward zero
    }
}

// Whether a finite number beyond the largest value becomes it, or else overflows (IEEE 754-2019, 7.4).
template <class Word>
__device__ __forceinline__ bool keeps_max(int rounding, bool negative, const Format<Word>& format) {
    switch (rounding) {
        case TOWARD_ZERO: return true;
        case UP: return negative;
        case DOWN: return !negative;
        case TO_ODD: return (format.max_code & 1) != 0 || format.mantissa_bits == 0;
        default: return false;
    }
}

// |x| > 0 rounded to the precision of the format as if its exponent had no end, as the code that it would
// have: codes count through the values in order, so the next value up is the next code. (In a format without
// zero the codes are shifted by one binade; `encode` shifts them back.)
template <class Word>
__device__ __forceinline__ Word round_magnitude(const Number<Word>& x, const Format<Word>& format,
                                                int rounding, const Dice& dice, long long element) {
    const int width = 8 * static_cast<int>(sizeof(Word));
    const int top = x.exponent + width - 1 - leading_zeros(x.significand);  // floor(log2 |x|)
    const bool between = top < format.emin && !format.is_gradual;           // 0 and 2^emin
    const int binade = top > format.emin ? top : format.emin;
    const int shift = (between ? format.emin : binade - format.mantissa_bits) - x.exponent;
    Word low, residue = 0, half = 1;  // no residue is less than half
    if (shift <= 0) {
        low = x.significand << -shift;
    } else {
        // From width - 2 on, all of x is residue, and less than half: a significand has fewer bits.
        const int cut = shift < width - 2 ? shift : width - 2;
        low = x.significand >> cut;
        residue = x.significand - (low << cut);
        half = static_cast<Word>(1) << (cut - 1);
    }
    bool up = goes_up(rounding, low, residue, half, x.negative);
    if (rounding == STOCHASTIC && residue != 0) {
        up = dice.lifts(residue, shift, dice.word_of(dice.key, element), element);
    }
    if (between) {
        return up ? format.hidden : 0;
    }
    return (static_cast<Word>(binade - format.emin) << format.mantissa_bits) + low + up;
}

// Whether |x| > 2^emin, x not 0.
template <class Word>
__device__ __forceinline__ bool above_lowest(const Number<Word>& x, const Format<Word>& format) {
    const int top = x.exponent + 8 * static_cast<int>(sizeof(Word)) - 1 - leading_zeros(x.significand);
    const bool power_of_two = (x.significand & (x.significand - 1)) == 0;
    return top > format.emin || (top == format.emin && !power_of_two);
}

// The code of x, rounded once. A NaN is the format's quiet NaN with the sign of x; where the format has none,
// a zero of the other sign (what ml_dtypes gives), and the caller is told by `refused`.
template <class Word>
__device__ __forceinline__ Word encode(Number<Word> x, const Format<Word>& format, int rounding, int rule,
                                       const Dice& dice, long long element, bool& refused) {
    const bool unsigned_minus = x.negative && !format.is_signed;
    if (unsigned_minus && (rule & DROPS_SIGN)) {
        x.negative = false;
    }
    const Word lowest = format.has_zero ? 0 : format.hidden;
    const Word highest = format.max_code + lowest;
    const Word limit = !x.negative          ? highest
                       : !format.is_signed  ? lowest
                       : format.is_integer  ? highest + 1  // two's complement goes one further down
                                            : highest;
    Word code = 0;
    bool past = x.kind == INFINITE, becomes_nan = x.kind == NOT_A_NUMBER, kept = (rule & SATURATES) != 0;
    if (x.kind == FINITE && x.significand != 0) {
        code = round_magnitude(x, format, rounding, dice, element);
        past = code > limit || (x.negative && !format.is_signed && (code != 0 || !format.has_zero));
        kept = kept || keeps_max(rounding, x.negative, format);
    } else if (x.kind == FINITE && !format.has_zero) {
        becomes_nan = !(rule & KEEPS_ZERO);
    }
    if (becomes_nan && format.nan_place == NO_NAN) {
        refused = true;
        const bool minus = !x.negative && format.has_negative_zero;
        return static_cast<Word>(minus) << format.magnitude_bits << format.padding;
    }
    if (past) {
        const bool to_inf = format.has_inf && (format.is_signed || !x.negative);
        becomes_nan = !kept && !to_inf && format.nan_place != NO_NAN;
        code = !kept && to_inf ? highest + 1 : limit;
    }
    if (code < lowest) {
        code = lowest;
    } else if ((rule & LIFTS_LOWEST) && !format.has_zero && code == lowest && above_lowest(x, format)) {
        code += format.hidden;
    }
    if ((rule & FLUSHES) && code < format.hidden && !format.is_integer) {
        code = 0;
    }
    code = becomes_nan ? format.nan_code : code - lowest;
    const Word sign = static_cast<Word>(format.is_signed) << format.magnitude_bits;
    if (!x.negative || (code == 0 && !format.has_negative_zero)) {
        return code << format.padding;
    }
    return (format.is_integer ? (2 * sign - code) & (2 * sign - 1) : code | sign) << format.padding;
}
