"""What the kernels work on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import SettingError

__all__ = ["DATA", "FEWEST", "MOST", "factors", "values", "whole_size"]

FEWEST, MOST = 1 << 12, 1 << 30
"""How many values a run may have: enough for a sample to be taken, and no more than a machine may hold."""

DATA = (
    "15 of 16 values are standard normal, every 16th is one times 2^k, k uniform in -24 .. 5: normal and"
    " subnormal in each format, and far from its end, so that no block overflows"
)
_LOWEST, _HIGHEST, _EVERY = -24, 5, 16


def values(size: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Return the float32 values that ``DATA`` describes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(size, dtype=np.float32)
    spread = x[::_EVERY]
    spread *= np.exp2(rng.integers(_LOWEST, _HIGHEST, spread.size, endpoint=True)).astype(np.float32)
    return x


def factors(n: int, dtype: Any, seed: int = 1) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return two standard normal matrices (n, n), rounded to `dtype`."""
    rng = np.random.default_rng(seed)
    a, b = (rng.standard_normal((n, n), dtype=np.float32).astype(dtype) for _ in range(2))
    return a, b


def whole_size(text: str) -> int:
    """Read a size: a whole number, or a power as ``2^24``.

    Raises:
        SettingError: it is neither, or outside ``FEWEST`` .. ``MOST``.
    """
    base, caret, power = text.partition("^")
    written = all(each.isascii() and each.isdigit() for each in ([base, power] if caret else [base]))
    short = len(base) <= 10 and len(power) <= 2  # what is longer is refused, and not worked out before
    size = int(base) ** int(power or 1) if written and short else 0
    if not FEWEST <= size <= MOST:
        raise SettingError(
            f"--size must be a whole number from {FEWEST} (2^12) to {MOST} (2^30), got {text!r}",
            help="for example --size 2^22",
        )
    return size
