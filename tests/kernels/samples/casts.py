"""Samples of casts.cu and casts16.cu: numbers at which a format's rules change, in every rounding mode."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from minimp import formats
from minimp.formats import FORMATS, Format
from minimp_backends.kernels.declaring import KINDS
from minimp_backends.kernels.families.casts import FLOAT8, PAIRS
from minimp_backends.kernels.references.formats import MODES, needs_64_bits, pack, rule_of
from tests.kernels.samples.base import Arguments, Bug

FLOAT32, FLOAT64 = FORMATS["float32"], FORMATS["float64"]
OWN = (
    formats.make(4, 3, subnormals=False),
    formats.make(5, 4, signed=False),
    formats.make(4, 11),
    formats.make(3, 2, flavour="p3109"),
    formats.make(4, 3, nan=False),
)
"""Formats that a user makes: no subnormals, no sign, 16 bits, an inf beside one NaN, an inf without a NaN."""
SHORT = tuple(FORMATS[name] for name in ("float16", "float8_e4m3fn", "float8_e5m2fnuz", "float4_e2m1fn"))
"""What the interpreter of PTX rounds to."""
FAR = 2**64 - 3
"""A counter's start near its end: places go on from 0."""


def turning_points(format: Format) -> np.ndarray:
    """Return the numbers where a format's rules change, between them and beyond, of both signs."""
    parts = np.array([0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3.5])
    with np.errstate(over="ignore"):
        near_max = format.max * (1 + format.eps * np.array([-0.5, 0, 0.25, 0.5, 0.75, 1, 3]))
        sizes = [
            np.array([0, np.inf]), near_max, format.smallest_subnormal * parts,
            format.smallest_normal * (1 + format.eps * (parts - 1)), 1 + format.eps * parts,
            np.linspace(0.1, 37, 9), np.array([1e-300, 2.0**-140, 2.0**-70, 1e30, 1e300]),
        ]  # fmt: skip
    magnitudes = np.concatenate(sizes)
    return np.concatenate([magnitudes, -magnitudes, [np.nan, -np.nan]])


def codes_of(source: Format, numbers: np.ndarray) -> np.ndarray:
    """Return numbers as codes of the source, beside a few codes of all kinds."""
    given = numbers if source.has_nan else numbers[~np.isnan(numbers)]
    given = given if source.signed else np.abs(given)
    step = max(1, (1 << min(source.bits, 62)) // 61)
    some = np.arange(0, 1 << min(source.bits, 62), step, dtype=np.uint64) << np.uint64(source.padding)
    with np.errstate(all="ignore"):
        return np.concatenate([formats.encode(given, source), some.astype(source.code_dtype)])


def cast(
    source: Format,
    target: Format,
    codes: np.ndarray,
    mode: int,
    overflow: str,
    *,
    start: int = 0,
    **more: Any,
) -> Arguments:
    """Return the arguments of one cast."""
    size = codes.size * target.dtype.itemsize
    return {
        "source": codes.view(np.uint8), "target": np.zeros(size, np.uint8), "source_format": pack(source),
        "target_format": pack(target), "rounding": mode, "rule": rule_of(overflow, target, **more),
        "seed": 0x1234_5678_9ABC_DEF0, "start": start, "met_nan": np.zeros(1, np.int32), "count": codes.size,
    }  # fmt: skip


def wide_casts(width: int) -> Iterator[tuple[Format, Format]]:
    """Yield (source, target): every format is each of them once, and rounded to from the widest source."""
    everything = [*FORMATS.values(), *OWN]
    widest = FLOAT32 if width == 32 else FLOAT64
    for format in everything:
        yield widest, format
        yield format, widest
        yield format, FORMATS["float8_e5m2"]


def code_samples(width: int) -> Iterator[Arguments]:
    """Yield every pair in every mode; few numbers for the interpreter; counters and counts."""
    pairs = [pair for pair in wide_casts(width) if needs_64_bits(*pair) == (width == 64)]
    for place, (source, target) in enumerate(pairs):
        codes = codes_of(source, turning_points(target))
        for mode in range(len(MODES)):
            overflow = ("ieee", "saturate")[(mode + place // 3) % 2]
            yield cast(source, target, codes, mode, overflow, start=place)
    source = FLOAT32 if width == 32 else FORMATS["float64"]
    for target in SHORT:
        for mode in range(len(MODES)):
            yield cast(
                source, target, small_codes(source, target)[mode % 2 :: 2].copy(), mode, "ieee", start=mode
            )
    for overflow in ("ieee", "saturate", "torch", "ml_dtypes"):
        target = FORMATS["float8_e8m0fnu"]
        yield cast(source, target, small_codes(source, target), 0, overflow)
    halves = codes_of(source, np.linspace(-2, 2, 300))
    for start in (0, 1, 2, 2**63 - 1, FAR):
        yield cast(source, FORMATS["bfloat16"], halves, MODES.index("stochastic"), "ieee", start=start)
    if width == 64:
        yield exact_sums()
    yield cast(source, FORMATS["float16"], halves, 0, "ieee", subnormals="flush")
    part = cast(source, FORMATS["float16"], halves, 0, "ieee")
    yield {**part, "count": 277}
    yield {**part, "count": 0}


def exact_sums() -> Arguments:
    """Return float64 whose residue and dice come to 1 exactly, which goes up, or to less by the last bit."""
    counter = formats.Counter(0x1234_5678_9ABC_DEF0)
    first, further = (counter.words(4000, further=each).astype(np.uint64) for each in (False, True))
    throw = first << np.uint64(21) | further >> np.uint64(11)
    last = np.uint64(0xFF)  # of 53 bits, eight are beyond float64 beside the seven of bfloat16
    due = (np.uint64(1 << 53) - throw) & ~last
    due[::3] = (np.uint64(1 << 32) - first[::3]) << np.uint64(21)
    numbers = 1 + due / 2.0**60
    bfloat16 = FORMATS["bfloat16"]
    return cast(FLOAT64, bfloat16, formats.encode(numbers, FLOAT64), MODES.index("stochastic"), "ieee")


def small_codes(source: Format, target: Format) -> np.ndarray:
    """Return so few codes that the PTX interpreter takes them: sizes near the ends and near 1."""
    numbers = np.array([target.max, 1 + target.eps / 2, target.smallest_subnormal])
    parts = (1 + np.array([0, 0.25, 0.5, 0.75]) * target.eps)[:, None]
    given = np.concatenate([(numbers * parts).ravel(), (-numbers * parts).ravel(), [0, np.inf, -np.inf]])
    return formats.encode(given, source)


def pair_samples(source: str, target: str) -> Iterator[Arguments]:
    """Yield few elements, all 16-bit patterns, random float32 and the turning points; whole and in part."""
    given, wanted = KINDS[source].dtype, KINDS[target].dtype
    points = turning_points(formats.get(wanted if given == np.float32 else given))
    with np.errstate(all="ignore"):
        points = points.astype(given)
    low = np.append(np.arange(1 << 16, dtype=np.uint16)[::13], np.array([0x7FFF, 0xFFFF], np.uint16))
    if given.itemsize == 4:
        patterns = np.random.default_rng(3).integers(0, 1 << 32, 3000, np.uint32)
        near = low.astype(np.uint32) << 16
        bits = np.concatenate([patterns, near, near + 0x8000, near + 0x7FFF, near + 0x8001])
    else:
        bits = np.concatenate([low, [0x7C00, 0xFC00, 0x7C01, 0x7F80, 0xFF80, 0x7F81, 0x7FFF]]).astype(
            np.uint16
        )
    values = bits.view(given)
    for some in (points[:21], points[-29:], points, values):
        yield {"source": some, "target": np.zeros(some.size, wanted), "count": some.size}
    for count in (0, 1, 7, 8, 9, 64, 77):
        yield {"source": points, "target": np.zeros(points.size, wanted), "count": min(count, points.size)}


def patterns(points: np.ndarray) -> np.ndarray:
    """Return float32: the turning points of a format, and patterns of all binades and of many ties."""
    bits = np.random.default_rng(8).integers(0, 1 << 32, 3000, np.uint32)
    ties = (np.arange(1 << 12, dtype=np.uint32) << 20)[::3]
    with np.errstate(all="ignore"):
        given = points.astype(np.float32)
    return np.concatenate([given, *(each.view(np.float32) for each in (bits, ties, ties + 1, ties - 1))])


def eight_bits_samples(format: str, encodes: bool) -> Iterator[Arguments]:
    """Yield few numbers, then every code or pattern; whole and in part."""
    codes = np.arange(256, dtype=np.uint8)
    given = patterns(turning_points(FORMATS[format])) if encodes else codes
    for size, count in ((29, 29), (given.size, given.size), (125, 67), (13, 0)):
        some = given[:size].copy()
        target = np.zeros(size, np.uint8 if encodes else np.float32)
        for more in ({"saturates": 0}, {"saturates": 1}) if encodes else ({},):
            yield {"source": some, "target": target, **more, "count": count}


def counted_samples(target: str) -> Iterator[Arguments]:
    """Yield places that begin even, odd and near the end of the counter; the turning points among them."""
    dtype = KINDS[target].dtype
    given = patterns(turning_points(formats.get(dtype)))
    for size, start in ((29, 0), (29, 1), (given.size, 2), (given.size, 2**63 + 5), (200, FAR)):
        for saturates in (0, 1):
            yield {
                "source": given[:size].copy(), "target": np.zeros(size, dtype), "saturates": saturates,
                "seed": 99 + start % 7, "start": start, "count": size,
            }  # fmt: skip
    subnormal = np.full(3000, 2.0**-24 * 5 / 16 if target == "half" else 2.0**-130, np.float32)
    low = np.zeros(subnormal.size, dtype)
    yield {"source": subnormal, "target": low, "saturates": 0, "seed": 5, "start": 1, "count": 2997}


def random_samples() -> Iterator[Arguments]:
    """Yield float32 with dice that just carry and just do not, NaN and the largest value among them."""
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 1 << 32, 2000, np.uint32)
    bits[:9] = [0, 1 << 31, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0x7F800001, 0xFFFFFFFF, 0x3F80FFFF, 1]
    dice = rng.integers(0, 1 << 16, bits.size, np.uint16)
    dice[100:200] = (0x10000 - (bits[100:200] & 0xFFFF)).astype(np.uint16)
    dice[200:300] = (0xFFFF - (bits[200:300] & 0xFFFF)).astype(np.uint16)
    for size, count in ((61, 61), (2000, 2000), (2000, 1003), (64, 64), (20, 0)):
        low = np.zeros(size, KINDS["bfloat16"].dtype)
        wide = bits[:size].view(np.float32)
        yield {"wide": wide, "dice": dice[:size].copy(), "low": low, "count": count}


SAMPLES = {
    **{f"cast_{source}_{target}": partial(pair_samples, source, target) for source, target in PAIRS},
    **{
        f"cast_{name}": partial(eight_bits_samples, format, name.startswith("float_"))
        for format in FLOAT8
        for name in (f"float_{format}", f"{format}_float")
    },
    **{
        f"cast_float_{target}_stochastic": partial(counted_samples, target) for target in ("half", "bfloat16")
    },
    "cast_codes_32": partial(code_samples, 32),
    "cast_codes_64": partial(code_samples, 64),
    "round_stochastic_bfloat16": random_samples,
}

BUGS = (
    Bug("cut off for nearest", "cast_float_half", "__float2half_rn(x)", "__float2half_rz(x)"),
    Bug("ties not to even", "cast_float_bfloat16", "0x7FFFu + (bits >> 16 & 1u)", "0x8000u"),
    Bug(
        "a NaN rounds up to a zero",
        "cast_float_bfloat16",
        "is_nan(x) ? quiet",
        "is_nan(x) && quiet == 0u ? quiet",
    ),
    Bug("an infinity of half is widened as a NaN", "cast_half_float", "> 0x7C00u ?", ">= 0x7C00u ?"),
    Bug(
        "the tail begins one too late",
        "cast_half_float",
        "8 * lanes + first_element()",
        "8 * lanes + 1 + first_element()",
    ),
    Bug("runs at every eighth byte", "cast_half_float", "(together & 15) == 0", "(together & 7) == 0"),
    Bug(
        "runs wherever the result begins",
        "cast_float_bfloat16",
        "aligned(source, target) ? count / 8",
        "aligned(source) ? count / 8",
    ),
    Bug(
        "runs wherever the codes begin",
        "cast_float8_e5m2_float",
        "aligned(source, target) ? count / 8",
        "aligned(target) ? count / 8",
    ),
    Bug(
        "runs wherever the dice begin",
        "round_stochastic_bfloat16",
        "aligned(wide, dice, low)",
        "aligned(wide, low)",
    ),
    Bug(
        "runs counted in 32 bits",
        "cast_float_half",
        "reinterpret_cast<const Lanes<T, N>*>(from)[lane]",
        "reinterpret_cast<const Lanes<T, N>*>(from)[static_cast<int>(lane)]",
    ),
    Bug(
        "codes counted in 32 bits",
        "cast_codes_32",
        "case 1: codes[i] = static_cast<unsigned char>(code);",
        "case 1: codes[static_cast<int>(i)] = static_cast<unsigned char>(code);",
    ),
    Bug(
        "dice of an element in 32 bits",
        "cast_float_half_stochastic",
        "dice.template words<N>(N * lane)",
        "dice.template words<N>(static_cast<int>(N * lane))",
    ),
    Bug("one run too many", "cast_bfloat16_float", "count / 8 : 0", "(count + 7) / 8 : 0"),
    Bug("a tie goes to odd", "cast_codes_32", "residue == half && odd", "residue == half && !odd"),
    Bug(
        "a tie goes to zero",
        "cast_codes_64",
        "case NEAREST_AWAY: return residue >= half;",
        "case NEAREST_AWAY: return residue > half;",
    ),
    Bug(
        "up and down for the wrong sign",
        "cast_codes_32",
        "case UP: return residue != 0 && !negative;",
        "case UP: return residue != 0 && negative;",
    ),
    Bug("to odd makes even", "cast_codes_32", "residue != 0 && !odd;", "residue != 0 && odd;"),
    Bug("FP8 without saturation", "cast_codes_32", "kept = (rule & SATURATES) != 0", "kept = false"),
    Bug(
        "toward zero overflows",
        "cast_codes_64",
        "case TOWARD_ZERO: return true;",
        "case TOWARD_ZERO: return false;",
    ),
    Bug(
        "-inf counts as a number",
        "cast_codes_32",
        "fields == format.max_code + 1 ? INFINITE",
        "bits == format.max_code + 1 ? INFINITE",
    ),
    Bug(
        "the NaN of fnuz is a zero",
        "cast_codes_32",
        "format.nan_place == NAN_OF_SIGN && (bits",
        "false && (bits",
    ),
    Bug("met_nan is lost", "cast_codes_32", "atomicOr(met_nan, 1);", "*met_nan = *met_nan;"),
    Bug(
        "subnormals without gradual underflow",
        "cast_codes_32",
        "top > format.emin ? top : format.emin",
        "top",
    ),
    Bug("odd elements take the even half", "cast_codes_32", "place & 1 ? hash >> 32 : hash", "hash"),
    Bug("places count from the element", "cast_codes_64", "+ first + 1)", "+ 1)"),
    Bug("an odd start is even", "cast_codes_32", "static_cast<unsigned int>(start & 1)", "0"),
    Bug("a sum of 1 does not go up", "cast_codes_64", ">= 0x100000000ull", "> 0x100000000ull"),
    Bug("a long sum of 1 does not go up", "cast_codes_64", ">= 0x20000000000000ull", "> 0x20000000000000ull"),
    Bug(
        "dice are added to a NaN",
        "round_stochastic_bfloat16",
        "is_nan(x) ? (bits >> 16) | 0x40u :",
        "false ? 0u :",
    ),
    Bug("FP8 is cut off", "cast_float_float8_e4m3fn", "(1u << (DROPPED - 1)) - 1u + odd", "0u * odd"),
    Bug(
        "subnormals of FP8 as normal numbers",
        "cast_float_float8_e5m2",
        "magnitude < SMALLEST_NORMAL",
        "magnitude == 0u",
    ),
    Bug("FP8 never saturates", "cast_float_float8_e5m2", "saturates ? MAX : BEYOND", "BEYOND"),
    Bug("FP8 always saturates", "cast_float_float8_e4m3fn", "saturates ? MAX : BEYOND", "MAX"),
    Bug("an infinity of FP8 is a NaN", "cast_float8_e5m2_float", "magnitude > BEYOND", "magnitude >= BEYOND"),
    Bug("FP8 of another bias", "cast_float8_e4m3fn_float", "(254u - BIAS) << 23", "(253u - BIAS) << 23"),
    Bug("the sign of FP8 is lost", "cast_float8_e4m3fn_float", "code >> sign_bit << 31", "0u"),
    Bug(
        "neighbours take each other's dice",
        "cast_float_bfloat16_stochastic",
        "shifted != (k % 2 == 1)",
        "shifted == (k % 2 == 1)",
    ),
    Bug(
        "the last of a run has the dice of the first",
        "cast_float_half_stochastic",
        "? hashes[(k + 1) / 2] :",
        "? hashes[0] :",
    ),
    Bug(
        "the last bits of the dice",
        "cast_float_half_stochastic",
        "thrown >> (32 - DROPPED)",
        "thrown & ((1u << DROPPED) - 1u)",
    ),
    Bug(
        "a subnormal goes up half as often",
        "cast_float_half_stochastic",
        "dice.lifts(residue, shift, thrown",
        "dice.lifts(residue, shift + 1, thrown",
    ),
)
