"""Tensors made of a shape and a rule, with torch's names and arguments, on the backend in force.

`dtype` is a format in any spelling of `mp.formats.get` (float32 if None), or an integer or boolean dtype.
`requires_grad` asks for a gradient, `backend` names another backend.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minimp import formats, rng
from minimp.errors import SettingError
from minimp.functional.common import tensor_of
from minimp.tensors import Tensor, tensor

__all__ = [
    "arange", "eye", "full", "full_like", "linspace", "ones", "ones_like", "rand", "rand_like", "randn",
    "randn_like", "zeros", "zeros_like",
]  # fmt: skip

Array = np.ndarray[Any, Any]


def full(
    size: Any,
    fill_value: float,
    *,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: str | None = None,
) -> Tensor:
    """`fill_value` everywhere, rounded once; whole numbers give int64, truth values booleans, unless said."""
    return _made(np.full(_shape((size,)), fill_value), dtype, requires_grad, backend)


def zeros(*size: Any, dtype: Any = None, requires_grad: bool = False, backend: str | None = None) -> Tensor:
    """0 everywhere."""
    return _made(np.zeros(_shape(size)), dtype, requires_grad, backend)


def ones(*size: Any, dtype: Any = None, requires_grad: bool = False, backend: str | None = None) -> Tensor:
    """1 everywhere."""
    return _made(np.ones(_shape(size)), dtype, requires_grad, backend)


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: Any = None,
    requires_grad: bool = False,
    backend: str | None = None,
) -> Tensor:
    """1 on the diagonal of an (n, m) matrix, m = n unless said, and 0 elsewhere."""
    return _made(np.eye(n, m), dtype, requires_grad, backend)


def arange(
    start: float, end: float | None = None, step: float = 1, *, dtype: Any = None,
    requires_grad: bool = False, backend: str | None = None,
) -> Tensor:  # fmt: skip
    """start, start + step, ... before end; with one number, from 0 to it. Whole numbers give int64.

    ceil((end - start) / step) elements, each start + i step, computed in float64 and rounded once.
    """
    start, end = (0, start) if end is None else (start, end)
    if step == 0 or (end - start) / step < 0:
        raise SettingError(f"arange: cannot go from {start} to {end} in steps of {step}")
    return _made(start + np.arange(math.ceil((end - start) / step)) * step, dtype, requires_grad, backend)


def linspace(
    start: float, end: float, steps: int, *, dtype: Any = None, requires_grad: bool = False,
    backend: str | None = None,
) -> Tensor:  # fmt: skip
    """`steps` numbers from start to end, equally far apart."""
    return _made(np.linspace(start, end, steps), dtype, requires_grad, backend)


def rand(*size: Any, dtype: Any = None, requires_grad: bool = False, backend: str | None = None) -> Tensor:
    """Uniform numbers from 0 to below 1: multiples of 2^-p, p the format's precision, all equally likely.

    A uniform float64 that is rounded to 16 bits would now and then be 1.
    """
    form = formats.get(formats.float32 if dtype is None else dtype)
    precision = form.mantissa_bits + 1
    drawn = rng.generator().integers(0, 1 << precision, _shape(size)) * 2.0**-precision
    return _made(np.asarray(drawn, np.float64), form, requires_grad, backend)


def randn(*size: Any, dtype: Any = None, requires_grad: bool = False, backend: str | None = None) -> Tensor:
    """Normal numbers of mean 0 and variance 1, drawn in float64 and rounded once."""
    return _made(np.asarray(rng.generator().standard_normal(_shape(size))), dtype, requires_grad, backend)


def zeros_like(input: Any, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """0 everywhere, in the shape and, unless said, the format of the input, on its backend."""
    return _like(input, 0, dtype, requires_grad)


def ones_like(input: Any, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """1 everywhere, in the shape and, unless said, the format of the input, on its backend."""
    return _like(input, 1, dtype, requires_grad)


def full_like(input: Any, fill_value: float, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """`fill_value` everywhere, in the shape and, unless said, the format of the input, on its backend."""
    return _like(input, fill_value, dtype, requires_grad)


def rand_like(input: Any, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """:func:`rand` in the shape and, unless said, the format of the input, on its backend."""
    x = tensor_of(input)
    form = x.format if dtype is None else dtype
    return rand(x.shape, dtype=form, requires_grad=requires_grad, backend=x.backend.name)


def randn_like(input: Any, *, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """:func:`randn` in the shape and, unless said, the format of the input, on its backend."""
    x = tensor_of(input)
    form = x.format if dtype is None else dtype
    return randn(x.shape, dtype=form, requires_grad=requires_grad, backend=x.backend.name)


def _like(input: Any, value: float, dtype: Any, requires_grad: bool) -> Tensor:
    x = tensor_of(input)
    kind = dtype if dtype is not None else x.format or x.dtype
    return _made(np.full(x.shape, value), kind, requires_grad, x.backend.name)


def _shape(size: tuple[Any, ...]) -> tuple[int, ...]:
    """Return a shape that was given as numbers or as one sequence."""
    flat = tuple(size[0]) if len(size) == 1 and isinstance(size[0], tuple | list) else size
    if not all(isinstance(n, int | np.integer) and n >= 0 for n in flat):
        raise SettingError(f"expected a shape of whole numbers from 0 up, got {flat}")
    return tuple(int(n) for n in flat)


def _made(values: Array, dtype: Any, requires_grad: bool, backend: str | None) -> Tensor:
    """Make a leaf; float64 values that nobody named a format for become float32."""
    kind = formats.float32 if dtype is None and values.dtype.kind == "f" else dtype
    return tensor(values, dtype=kind, requires_grad=requires_grad, backend=backend)
