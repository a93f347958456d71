"""All 2^32 float32 patterns, against casts that share no code with ours."""

from __future__ import annotations

from collections.abc import Iterator

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from minimp.formats import casting
from minimp.formats.fast.lanes import lane
from minimp.formats.table import FORMATS

SLICE = 1 << 18  # what works on one stays in the cache
CAST = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float8_e4m3fn": ml_dtypes.float8_e4m3fn}
SLICES = (1 << 32) // SLICE
EVERY_NTH = 97
"""In the plain run: a prime, so that the slices lie in all binades of both signs."""


def _patterns(step: int) -> Iterator[npt.NDArray[np.float32]]:
    codes = np.arange(SLICE, dtype=np.uint32)
    for number in range(0, SLICES, step):
        yield (codes + np.uint32(number * SLICE)).view(np.float32)


def _their_cast(x: npt.NDArray[np.float32], name: str) -> npt.NDArray[np.generic]:
    """Cast; NumPy takes 0.1 us to raise a flag of float16, so small and large numbers are spared that."""
    if name == "float16":
        size = np.abs(x)
        most = np.fmax.reduce(size)
        sign = np.signbit(x[0]).astype(np.uint16) << 15  # of all of a slice
        if most <= 2.0**-25:  # a tie at most: IEEE 754-2019, 4.3.1
            return np.full(x.shape, sign).view(np.float16)
        if most < 2.0**-14:  # subnormals are whole multiples of 2^-24, and so are their codes
            return (np.rint(size * np.float32(2**24)).astype(np.uint16) | sign).view(np.float16)
        if size[0] >= 65536 and np.isfinite(most) and not np.isnan(size[-1]):  # IEEE 754-2019, 7.4
            return np.full(x.shape, sign | np.uint16(0x7C00)).view(np.float16)
    return x.astype(CAST[name])


def _compare(name: str, step: int) -> int:
    """Compare grid and storage, and return how many patterns were seen."""
    fmt, seen = FORMATS[name], 0
    grid, codes = np.empty(SLICE, np.float32), np.empty(SLICE, fmt.code_dtype)
    for x in _patterns(step):
        with np.errstate(over="ignore", invalid="ignore"):
            theirs = _their_cast(x, name)
            back = theirs.astype(np.float32)
        casting.round(x, fmt, out=grid)
        casting.encode(x, fmt, out=codes)
        number = ~np.isnan(back)
        assert (np.isnan(grid) == ~number).all()
        same = (grid.view(np.uint32) == back.view(np.uint32)) & (codes == theirs.view(fmt.code_dtype))
        assert (same | ~number).all()
        assert np.isnan(codes[~number].view(fmt.dtype).astype(np.float32)).all()
        seen += x.size
    return seen


@pytest.mark.parametrize("name", CAST)
def test_slices_of_all_patterns(name: str) -> None:
    """Oracle: NumPy's cast to float16, ml_dtypes' to bfloat16 and float8_e4m3fn; every 97th slice."""
    assert _compare(name, EVERY_NTH) == -(-SLICES // EVERY_NTH) * SLICE
    assert lane("magic", np.dtype("u4"), 1).size  # the kernels ran in this thread


@pytest.mark.slow
@pytest.mark.parametrize("name", CAST)
def test_all_patterns(name: str) -> None:
    """Oracle: the same casts, over all 2^32 float32."""
    assert _compare(name, 1) == 1 << 32
