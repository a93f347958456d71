"""Where values and numbers lie; oracles: all codes decoded, NumPy's own codes, counting in Python."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minimp.errors import DataError, FormatError
from minimp.formats import FORMATS, Format, decode, make
from minimp.formats.pictures.ranges import binades, exponent_of, extent, values_in_binade, weighed_blocks

OWN = (
    make(3, 2, subnormals=False),
    make(4, 0, nan=False),
    make(5, 7, signed=False),
    make(2, 6, bias=9, inf=False, nan=False),
    make(6, 3, flavour="fnuz"),
)
SMALL = (*(each for each in FORMATS.values() if each.bits <= 16), *OWN)


def positive_values(fmt: Format) -> npt.NDArray[np.float64]:
    """Return all positive finite values of a small format, from its codes."""
    values = np.unique(decode(np.arange(1 << fmt.bits), fmt))
    return values[np.isfinite(values) & (values > 0)]


# ---- formats -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", SMALL, ids=repr)
def test_values_in_each_binade(fmt: Format) -> None:
    """Oracle: every code decoded, its exponent from frexp; and none in the binades around."""
    counts = Counter((np.frexp(positive_values(fmt))[1] - 1).tolist())
    around = range(min(counts) - 3, max(counts) + 4)
    assert {each: values_in_binade(fmt, each) for each in around} == {each: counts[each] for each in around}
    assert (binades(fmt)[0], binades(fmt)[-1]) == (min(counts), max(counts))


@pytest.mark.parametrize(("fmt", "kind"), [("float32", np.float32), ("float64", np.float64)])
def test_values_in_the_binades_of_wide_formats(fmt: str, kind: type) -> None:
    """Oracle: the codes of 2^e and of the next power of two, which differ by the values between."""
    info = np.finfo(kind)
    first = int(info.minexp) - int(info.nmant)
    assert binades(fmt) == range(first, int(info.maxexp))
    for each in range(first, int(info.maxexp) - 1):
        ends = np.ldexp(kind(1), np.array([each, each + 1])).astype(kind).view(f"i{info.bits // 8}")
        assert values_in_binade(fmt, each) == ends[1] - ends[0]
    assert values_in_binade(fmt, int(info.maxexp) - 1) == 1 << int(info.nmant)


@given(st.floats(allow_nan=False, allow_infinity=False).filter(bool))
@example(5e-324)
@example(-math.nextafter(1, 0))
def test_exponent_of(x: float) -> None:
    """Oracle: the definition, 2^e <= |x| < 2^(e+1); the upper end may be beyond float64."""
    exponent = exponent_of(x)
    assert math.ldexp(1, exponent) <= abs(x) <= math.ldexp(math.nextafter(2, 0), exponent)


def test_unknown_formats_are_refused() -> None:
    """Oracle: the error of get."""
    for ask in (binades, lambda fmt: values_in_binade(fmt, 0)):
        with pytest.raises(FormatError, match="unknown number format 'fp17'"):
            ask("fp17")


# ---- tensors -----------------------------------------------------------------------------------------------


def counted(x: Any) -> dict[str, Any]:
    """Count in Python, number by number, what an Extent holds."""
    numbers = [float(each) for each in np.asarray(x).ravel()]
    sizes = [abs(each) for each in numbers if math.isfinite(each) and each]
    return {
        "count": len(numbers),
        "zeros": numbers.count(0.0),
        "infinite": sum(map(math.isinf, numbers)),
        "nan": sum(map(math.isnan, numbers)),
        "smallest": min(sizes, default=None),
        "largest": max(sizes, default=None),
        "binades": Counter(math.frexp(each)[1] - 1 for each in sizes),
    }


@given(st.lists(st.floats(), min_size=1, max_size=40))
@example([math.nan])
@example([0.0, -0.0, math.inf, -math.inf])
@example([5e-324, -1.7976931348623157e308])
def test_extent(numbers: list[float]) -> None:
    """Oracle: counting in Python, number by number."""
    found = extent(np.array(numbers))
    assert {name: getattr(found, name) for name in counted([1.0])} == counted(numbers)


@pytest.mark.parametrize(
    "kind", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, np.int8, np.uint16]
)
def test_counting_distinct_numbers_first_changes_nothing(kind: Any) -> None:
    """Oracle: counting in Python; the array is just longer than what is counted number by number."""
    patterns = np.arange((1 << 16) + 1, dtype=np.uint32)
    x = (patterns * 40503 % 65536).astype(f"u{np.dtype(kind).itemsize}").view(kind)
    assert sum(len(values) for values, _ in weighed_blocks(x)) < x.size
    with np.errstate(invalid="ignore"):  # signalling NaNs
        found, expected = extent(x), counted(x.astype(np.float64))
    assert {name: getattr(found, name) for name in expected} == expected


def test_shapes_and_strides_do_not_matter() -> None:
    """Oracle: the same numbers in one row."""
    x = np.arange(-24.0, 24.0).reshape(2, 4, 6)
    views = (x, x.T, x[:, ::-1], np.asfortranarray(x), x[0, 0, :1], x[1, ::2])
    for each in views:
        assert extent(each) == extent(each.ravel())
    assert extent([1, 2]) == extent(np.array([1.0, 2.0]))


def test_memory_does_not_grow_with_the_tensor() -> None:
    """Oracle: the peak of traced memory, 4 MiB for blocks of 2^16 elements, beside 16 MiB of numbers."""
    x = np.linspace(-1, 1, 1 << 22, dtype=np.float32)
    for each in (x, x.astype(np.float16)):
        tracemalloc.start()
        try:
            extent(each)
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("x", "said"),
    [
        ([], "expected at least one number, got an empty array"),
        (np.zeros((3, 0)), "got an empty array"),
        ([1j], "expected real numbers"),
        (["1"], "expected real numbers"),
        (np.array([None]), "expected real numbers"),
        (np.array([], complex), "expected real numbers"),
        ([2**60 + 1], "need more than float64's 53 bits"),
    ],
)
def test_what_is_no_tensor_of_numbers_is_refused(x: Any, said: str) -> None:
    """Oracle: the list of such things."""
    with pytest.raises(DataError, match=said):
        extent(x)
