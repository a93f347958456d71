"""Products by BLAS in a stated order: where a probe has shown that it adds with k ascending.

The inner loop of many BLAS kernels walks over k and fuses each product with the addition. Where products are
exact in float32, that is the float32 running sum from +0, bit for bit. But no BLAS promises it: kernels for
some rows, for rests of rows and columns, or for long sums may keep several partial sums. So a shape is tried
first, on factors whose sum tells its order, and a tried shape is tried again each time that it is asked for,
in case the number of threads, which cut the rows in another way, has changed. Where only some rows of every
few are in order, the factor's rows are put there, zeros elsewhere; where the outermost columns are not, zeros
go there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from minimp.formats.accumulation.workspace import space

__all__ = ["Ordered", "ordered_product"]

Float32s = npt.NDArray[np.float32]
_SIDE = 16  # rows and columns; narrower products go other ways inside BLAS, and gain little
_FEWEST = 4096  # elements of a result, so that a kernel's every lane is tried often
_ROOM = 1 << 17  # numbers kept for a shape: half a MiB
_SHAPES = 8
_TRIALS = 16  # with factors of their own, before a shape is trusted
_BINADES = 6
_SMALL = (-74, -74)  # exponents of factors whose products are whole multiples of 2^-148
_ROWS = 48  # where a pattern of rows is looked for
_PERIODS = (2, 4, 6, 8, 12, 16, 24)
_FRAMES = ((1, 0), (12, 8))  # rows to a multiple of, and columns on either side; the second for Haswell
_multiply = np.matmul


@dataclass(frozen=True)
class Ordered:
    """A shape that BLAS has been seen to sum in order, and the trial that shows it again.

    Attributes:
        places: the row of BLAS's left factor that each row of a takes; None: its own.
        rows: of BLAS's left factor.
        margin: columns of zeros on either side of BLAS's right factor.
        a, b: factors of a trial, (M, K) and (K, N).
        sums: their running sums, (M, N).
    """

    places: npt.NDArray[np.intp] | None
    rows: int
    margin: int
    a: Float32s
    b: Float32s
    sums: Float32s

    def holds(self) -> bool:
        """Whether BLAS sums this shape in order now."""
        return bool(np.array_equal(self.product(self.a, self.b), self.sums))

    def product(self, a: Float32s, b: Float32s) -> Float32s:
        """Return the running sums over k of a (M, K) times b (K, N), in work space of this thread.

        Products must be exact in float32, and no sum may overflow. A sum that is zero may be -0, from a
        kernel that starts from its first product.
        """
        (height, length), width, margin = a.shape, b.shape[1], self.margin
        left = space("ordered a", (self.rows, length), np.float32)
        right = space("ordered b", (length, width + 2 * margin), np.float32)
        for each, padded in ((left, self.rows > height), (right, margin)):
            if padded:
                each.fill(0)
        left[slice(height) if self.places is None else self.places] = a
        right[:, margin : margin + width] = b
        sums = _multiply(left, right, out=space("ordered sums", (self.rows, right.shape[1]), np.float32))
        if self.places is not None:
            sums = sums[self.places]
        return sums[:height, margin : margin + width]


def ordered_product(height: int, length: int, width: int) -> Ordered | None:
    """BLAS for (M, K) times (K, N), tried just now; None where it sums in another order, or may.

    The trial costs one product of that shape; the first one of a shape, some dozen and their running sums.
    """
    if min(height, width) < _SIDE or height * width < _FEWEST:
        return None
    if height * length * 3 + length * width + height * width > _ROOM:
        return None
    found = _find(height, length, width)
    if found is None or found.holds():
        return found
    _find.cache_clear()  # what was seen then is not so now
    return None


@lru_cache(maxsize=_SHAPES)
def _find(height: int, length: int, width: int) -> Ordered | None:
    for multiple, margin in _FRAMES:
        framed = _tried(height, length, width, None, -(-height // multiple) * multiple, margin)
        if framed is not None:
            return framed
    pattern = _pattern(length, width)
    if pattern is None:
        return None
    period, good = pattern
    groups = -(-height // len(good))
    places = (np.arange(groups)[:, None] * period + good).reshape(-1)[:height]
    return _tried(height, length, width, places, groups * period, 0)


def _tried(
    height: int, length: int, width: int, places: npt.NDArray[np.intp] | None, rows: int, margin: int
) -> Ordered | None:
    """The shape if it passes all trials; the last of them is kept."""
    shape = None
    for seed in range(_TRIALS):
        a, b = _factors(height, length, width, seed)
        shape = Ordered(places, rows, margin, a, b, _running(a, b))
        if not shape.holds():
            return None
    return shape


def _pattern(length: int, width: int) -> tuple[int, npt.NDArray[np.intp]] | None:
    """A period of rows, and those in order in each: at least a third; the largest share there is."""
    in_order = np.ones(_ROWS, bool)
    for seed in range(_TRIALS):
        a, b = _factors(_ROWS, length, width, seed)
        in_order &= (_multiply(a, b) == _running(a, b)).all(1)
    shares = {period: in_order.reshape(-1, period).all(0) for period in _PERIODS}
    period = max(shares, key=lambda each: shares[each].mean())
    return (period, np.flatnonzero(shares[period])) if shares[period].mean() >= 1 / 3 else None


def _factors(height: int, length: int, width: int, seed: int) -> tuple[Float32s, Float32s]:
    """Factors of 12 bits over some binades, so that about every second sum of many terms tells its order.

    Those of seed 0 have small sums, to tell whether subnormal numbers are kept.
    """
    random = np.random.default_rng((height, length, width, seed))
    lowest, highest = (-_BINADES, _BINADES) if seed else _SMALL

    def draw(*shape: int) -> Float32s:
        codes = random.integers(-4095, 4096, shape).astype(np.float32)
        drawn: Float32s = np.ldexp(codes, random.integers(lowest, highest + 1, shape, np.int32))
        return drawn

    return draw(height, length), draw(length, width)


def _running(a: Float32s, b: Float32s) -> Float32s:
    total = np.zeros((len(a), b.shape[1]), np.float32)
    for k in range(len(b)):
        total += a[:, k, None] * b[k]
    return total
