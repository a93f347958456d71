"""What layers share when they are made: empty parameters, torch's usual draw, and checks of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minimp import formats
from minimp.backend import default_backend, get_backend
from minimp.errors import SettingError
from minimp.nn import init
from minimp.nn.parameter import Parameter
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = [
    "Numbers", "draw", "empty", "lifted", "numbers", "optional", "probability", "whole", "window", "zeros",
    "zeros_beside",
]  # fmt: skip

Numbers = int | Sequence[int]


def zeros(shape: tuple[int, ...], dtype: Any, backend: str | None) -> Tensor:
    """Return a tensor of zeros in a format (None is float32) on a backend (None is the one in force)."""
    where = default_backend() if backend is None else get_backend(backend)
    form = formats.float32 if dtype is None else formats.get(dtype)
    where.require(form)
    return Tensor(where.xp.zeros(shape, form.dtype), where)


def lifted(x: Any) -> Tensor:
    """Return a tensor as it is, anything else as a tensor."""
    made: Any = x if isinstance(x, Value) else Value.lift(x, None)
    return made  # type: ignore[no-any-return]  # what is lifted is a Tensor


def zeros_beside(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return zeros in the format and on the backend of a tensor."""
    return Tensor(like.backend.xp.zeros(shape, like.dtype), like.backend)


def empty(shape: tuple[int, ...], dtype: Any, backend: str | None) -> Parameter:
    """Return a parameter of zeros, to be drawn."""
    return Parameter(zeros(shape, dtype, backend))


def optional(there: bool, shape: tuple[int, ...], dtype: Any, backend: str | None) -> Parameter | None:
    """Return a parameter of zeros, or None where there is none."""
    return empty(shape, dtype, backend) if there else None


def draw(weight: Parameter, bias: Parameter | None) -> None:
    """Draw as torch's layers do: weight and bias uniform in +-1/sqrt(fan_in)."""
    init.kaiming_uniform_(weight, a=math.sqrt(5))
    if bias is not None:
        bound = 1 / math.sqrt(math.prod(weight.shape[1:]))
        init.uniform_(bias, -bound, bound)


def whole(name: str, value: Any, owner: str, least: int = 1) -> int:
    """Return a whole number of at least `least`, or say what it must be."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise SettingError(
            f"expected {name} to be a whole number of at least {least}, got {value!r}", op=owner
        )
    return int(value)


def numbers(name: str, value: Any, count: int, owner: str, least: int = 1) -> tuple[int, ...]:
    """Return `count` whole numbers, of one given for all or of a sequence."""
    given = tuple(value) if isinstance(value, Sequence) else (value,) * count
    if len(given) != count:
        words = {1: "one whole number", 2: "one or two whole numbers"}
        wanted = words.get(count, f"one or {count} whole numbers")
        raise SettingError(f"expected {name} to be {wanted}, got {value!r}", op=owner)
    return tuple(whole(name, each, owner, least) for each in given)


def window(name: str, value: Any, count: int, owner: str, least: int = 1) -> int | tuple[int, ...]:
    """Check a number, or one for each axis, and leave it as it was given, as torch shows it."""
    each = numbers(name, value, count, owner, least)
    return each if isinstance(value, Sequence) else each[0]


def probability(value: Any, owner: str, name: str = "a probability") -> float:
    """Return a number from 0 to 1, or say that it must be one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise SettingError(f"expected {name} from 0 to 1, got {value!r}", op=owner)
    return value
