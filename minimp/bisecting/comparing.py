"""When two runs agree: what they returned, as named arrays, and how far these lie apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimp.errors import SettingError
from minimp.formats import Format
from minimp.policy import format_of
from minimp.tape import Value

__all__ = ["Agreement", "IncomparableError", "Judge", "Numbers", "judge_of", "numbers_of"]

Numbers = dict[tuple[str, str], np.ndarray[Any, Any]]
"""(what is measured together, name) -> array in float64. An inner dict or list is measured together."""
ROUNDINGS = 32.0
"""Runs agree by default if they differ by no more than so many roundings of the low format, all one way."""


class IncomparableError(SettingError):
    """What was returned cannot be compared."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How a run compares with the one in FP32.

    Attributes:
        agreed: whether they agree.
        error: max |y - r| / max |r|, the largest over what was returned (over its entries, if it is a dict or
            list; an inner one counts as one array, so that a gradient that is zero but for rounding is seen
            beside the others); inf where y is not finite and r is, where shapes differ, where the run raised.
        where: in which of what was returned that is.
        words: what is wrong there, if it is no matter of size.
    """

    agreed: bool
    error: float
    where: str = ""
    words: str = ""

    def __bool__(self) -> bool:
        return self.agreed

    def __str__(self) -> str:
        if self.words:
            return self.words
        if self.error == 0.0:
            return "no difference"
        return f"{self.where} differs by {self.error:.2g} of the largest element"


Judge = Callable[[Any, Numbers, Any, Numbers], Agreement]
"""From (what the FP32 run returned, its numbers, what the other returned, its numbers)."""


def numbers_of(result: Any, *, op: str = "bisect") -> tuple[Any, Numbers]:
    """Return what a run returned, each tensor as an array of its own; and its numbers in float64, by name.

    Raises:
        IncomparableError: there is something among it that is no number, or nothing.
    """
    found: Numbers = {}
    held = _collect(result, (), found, op)
    if not found:
        raise _nothing(result, op)
    return held, found


def _collect(part: Any, path: tuple[str, ...], found: Numbers, op: str) -> Any:
    name = ".".join(path) or "the result"
    if part is None:
        return None
    if isinstance(part, Mapping):
        return {key: _collect(each, (*path, f"{key}"), found, op) for key, each in part.items()}
    if isinstance(part, list | tuple):
        made = [_collect(each, (*path, f"{i}"), found, op) for i, each in enumerate(part)]
        return type(part)(*made) if hasattr(part, "_fields") else type(part)(made)
    if isinstance(part, Value):
        array = np.array(part.backend.to_host(part.array))
    elif isinstance(part, np.ndarray | np.generic | float | int):
        array = np.array(part)
    else:
        raise _nothing(part, op, name)
    if format_of(array.dtype) is None and array.dtype.kind not in "fiub":
        raise _nothing(array.dtype, op, name)
    found[path[0] if path else name, name] = array.astype(np.float64)
    return array if isinstance(part, Value | np.ndarray) else part


def _nothing(part: Any, op: str, name: str = "") -> IncomparableError:
    what = str(part) if isinstance(part, np.dtype) else "nothing" if part is None else type(part).__name__
    return IncomparableError(
        f"expected numbers from run(), got {what}{f' in {name}' if name else ''}", op=op,
        help="return a tensor, an array or a number, or a dict, list or tuple of them: the loss, gradients",
    )  # fmt: skip


def judge_of(agree: Any, low: Callable[[], Format]) -> Judge:
    """Return the judge that `agree` asks for; see :func:`minimp.bisecting.bisect`.

    Args:
        agree: a bound on the relative error; "finite"; ``agree(reference, candidate)``; or None.
        low: gives the low format, on which the bound depends where none is given.

    Raises:
        SettingError: none of these.
    """
    if agree == "finite":
        return _by_finiteness
    if callable(agree):
        return _by_predicate(agree)
    if agree is None:
        return _by_size(lambda: ROUNDINGS * 2.0 ** -(low().mantissa_bits + 1))
    if isinstance(agree, bool) or not isinstance(agree, float | int) or not 0 <= agree < math.inf:
        raise SettingError(
            f"agree: expected a relative error of at least 0, 'finite' or a function, got {agree!r}",
            op="bisect", help="agree=0.01 takes what lies within 1 % of the largest element",
        )  # fmt: skip
    return _by_size(lambda: float(agree))


def _by_size(bound: Callable[[], float]) -> Judge:
    def judge(_: Any, reference: Numbers, __: Any, found: Numbers) -> Agreement:
        error, where, words = distance(reference, found)
        return Agreement(error <= bound(), error, where, words)

    return judge


def _by_finiteness(_: Any, reference: Numbers, __: Any, found: Numbers) -> Agreement:
    error, where, _words = distance(reference, found)
    for (_, name), array in found.items():
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad:
            return Agreement(False, math.inf, name, _not_finite(name, bad, array.size))
    return Agreement(True, error, where)


def _by_predicate(agree: Callable[[Any, Any], Any]) -> Judge:
    def judge(held: Any, reference: Numbers, other: Any, found: Numbers) -> Agreement:
        error, where, words = distance(reference, found)
        return Agreement(bool(agree(held, other)), error, where, words)

    return judge


def distance(reference: Numbers, found: Numbers) -> tuple[float, str, str]:
    """Return the largest relative error, in which array it is, and words where it is no matter of size."""
    if list(reference) != list(found):
        other = [name for _, name in sorted({*reference} ^ {*found}) or list(found)]
        return math.inf, other[0], f"other things were returned: {', '.join(other[:4])}"
    worst, where = 0.0, next(name for _, name in reference)
    scales: dict[str, float] = {}
    for (group, _), r in reference.items():
        largest = float(np.max(np.abs(r[np.isfinite(r)]), initial=0.0))
        scales[group] = max(largest, scales.get(group, 0.0))
    for (group, name), r in reference.items():
        y = found[group, name]
        if y.shape != r.shape:
            return math.inf, name, f"{name} has shape {y.shape}, in FP32 {r.shape}"
        differs = ~((y == r) | (np.isnan(y) & np.isnan(r)))
        lost = int(np.count_nonzero(differs & np.isfinite(r) & ~np.isfinite(y)))
        if lost:
            return math.inf, name, _not_finite(name, lost, y.size)
        if np.any(differs & ~np.isfinite(r)):
            return math.inf, name, f"{name} is not finite in FP32, and something else here"
        if np.any(differs):
            error = float(np.max(np.abs(y[differs] - r[differs])))
            error = error / scales[group] if scales[group] else math.inf
            worst, where = max((worst, where), (error, name), key=lambda pair: pair[0])
    return worst, where, ""


def _not_finite(name: str, count: int, size: int) -> str:
    return f"{name} is not finite" + (f" in {count:,} of {size:,} elements" if size > 1 else "")
