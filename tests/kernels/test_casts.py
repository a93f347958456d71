"""Casts beyond the samples: what becomes of a NaN's bits, and every format to every other."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from minimp import formats
from minimp.formats import FORMATS, Format
from minimp_backends.kernels import sources
from minimp_backends.kernels.declaring import KINDS
from minimp_backends.kernels.families.casts import FLOAT8, fixed
from minimp_backends.kernels.references.formats import (
    MODES,
    format_of,
    needs_64_bits,
    overflow_of,
    pack,
    rule_of,
)
from minimp_backends.kernels.registry import KERNELS
from tests.kernels.agreement import expected, launched
from tests.kernels.families import kernels_of
from tests.kernels.samples import Arguments
from tests.kernels.samples.casts import OWN, cast, codes_of, turning_points
from tests.kernels.shim.building import build

EVERY = (*FORMATS.values(), *OWN)
FIXED = [
    (source, target, rounding)
    for source, target in product(FORMATS.values(), FORMATS.values())
    for rounding in ("nearest_even", "stochastic")
    if fixed(source, target, rounding)
]


def run(name: str, arguments: Arguments) -> Arguments:
    """Return the arguments after a kernel that g++ built has run on copies of them."""
    kernel = KERNELS[name]
    launch = launched(kernel, arguments)
    built = build(sources.read(kernel.source), kernels_of(kernel.source))
    assert built.launch(kernel, launch.shape, launch.addresses, backwards=False) == ""
    return launch.copies


@pytest.mark.parametrize(("source", "target", "rounding"), FIXED, ids=str)
def test_a_nan_is_the_quiet_one_of_its_sign(
    host_compiler: str, source: Format, target: Format, rounding: str
) -> None:
    """Oracle: `nan_code` and the sign bit; the samples' floats are compared as numbers, where NaN is NaN."""
    name = fixed(source, target, rounding)
    assert name
    width = source.code_dtype.type
    above_inf = np.arange(source.max_code + 2, 1 << source.magnitude_bits, dtype=np.uint64)
    payloads = above_inf[:: max(1, above_inf.size // 50)] if source.has_inf else np.array([source.nan_code])
    codes = np.concatenate([payloads, payloads | 1 << source.magnitude_bits]).astype(width)
    kinds = {each.name: KINDS[each.kind].dtype for each in KERNELS[name].parameters}
    given = {
        "source": codes.view(kinds["source"]), "target": np.zeros(codes.size, kinds["target"]),
        "count": codes.size, "saturates": 1, "seed": 3, "start": 0,
    }  # fmt: skip
    got = run(name, {name: value for name, value in given.items() if name in kinds})["target"]
    assert target.nan_code is not None
    signed = target.nan_code | 1 << target.magnitude_bits
    wanted = np.repeat([target.nan_code, signed], payloads.size)
    np.testing.assert_array_equal(got.view(target.code_dtype), wanted)


def test_which_casts_are_fixed() -> None:
    """Oracle: the list by hand; other modes and formats are for `cast_codes`."""
    named = {(source.name, target.name, rounding) for source, target, rounding in FIXED}
    low = [("float32", each) for each in ("float16", "bfloat16")]
    nearest = [*low, *((target, source) for source, target in low)]
    nearest += [pair for each in FLOAT8 for pair in (("float32", each), (each, "float32"))]
    at_random = {(*pair, "stochastic") for pair in low}
    assert named == {(*pair, "nearest_even") for pair in nearest} | at_random
    assert fixed(FORMATS["float32"], FORMATS["float16"], "up") is None
    assert {fixed(*each) for each in FIXED} <= set(KERNELS)


def test_formats_and_rules_travel_as_numbers() -> None:
    """Oracle: the way back, to a format of the same codes, and to the rule; no two have the same number."""
    for format in EVERY:
        other = format_of(pack(format))
        numbers = turning_points(format) if format.has_nan else np.linspace(-99, 99, 500)
        np.testing.assert_array_equal(formats.encode(numbers, format), formats.encode(numbers, other))
        for overflow in ("ieee", "saturate"):
            assert overflow_of(rule_of(overflow, format, "flush"), format)[1] == "flush"
            back, _ = overflow_of(rule_of(overflow, format), format)
            assert rule_of(back, format) == rule_of(overflow, format)
    assert len({pack(each) for each in EVERY}) == len(EVERY)


@pytest.mark.slow
@pytest.mark.parametrize("target", EVERY, ids=str)
def test_every_format_in_every_mode(host_compiler: str, target: Format) -> None:
    """Oracle: `minimp.formats.encode`, code for code, from every format, in both widths where both serve."""
    for place, source in enumerate(EVERY):
        codes = codes_of(source, turning_points(target))
        for mode, overflow in product(range(len(MODES)), ("ieee", "saturate")):
            arguments = cast(source, target, codes, mode, overflow, start=place)
            wanted = expected(KERNELS["cast_codes_64"], arguments)
            for width in (64,) if needs_64_bits(source, target) else (32, 64):
                got = run(f"cast_codes_{width}", arguments)
                np.testing.assert_array_equal(got["target"], wanted["target"], f"{source} {MODES[mode]}")
                assert got["met_nan"] == wanted["met_nan"]
