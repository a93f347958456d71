"""What a case is: one call of an op, written once, and two libraries that it can be made in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp import formats, functional, ops

__all__ = [
    "IMAGE",
    "NORMED",
    "ONE",
    "TWO",
    "Case",
    "Library",
    "Shapes",
    "method",
    "minimp_library",
    "named",
    "torch_library",
]

Shapes = tuple[tuple[int, ...], ...]


class Library:
    """One of the two, with the same names for the same things: functions, and number formats."""

    def __init__(self, *modules: Any) -> None:
        self.modules = modules

    def __getattr__(self, name: str) -> Any:
        """Return the first thing of that name.

        Raises:
            AttributeError: no module has it.
        """
        for module in self.modules:
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"{' and '.join(m.__name__ for m in self.modules)} have no {name!r}")


class _Minimp(Library):
    def labels(self, like: Any) -> Any:
        """Return a class index for each row."""
        return np.arange(like.shape[0])

    def first(self, a: Any) -> Any:
        """Return the first row."""
        return a[0]


class _Torch(Library):
    def labels(self, like: Any) -> Any:
        """Return a class index for each row, where the tensor is."""
        return self.arange(like.shape[0], device=like.device)

    def first(self, a: Any) -> Any:
        """Return the first row: on fake CUDA tensors, indexing with [] would look for a GPU."""
        return a.select(0, 0)


def minimp_library() -> Library:
    """Return minimp as the cases speak to it."""
    return _Minimp(functional, ops, formats)


@cache
def torch_library() -> Library:
    """Return PyTorch as the cases speak to it; it is imported here."""
    import torch

    return _Torch(torch.nn.functional, torch, torch.linalg)


@dataclass(frozen=True)
class Case:
    """One call, the same in both libraries.

    Attributes:
        op: the name of minimp's op that is meant.
        call: the call, given the library and the tensors.
        shapes: of its floating inputs.
        what: what sets it apart from other calls of the op.
        larger: shapes by which values are compared; (): the usual larger ones for `shapes` (:data:`LARGER`).
        domain: from random inputs to inputs that the op is defined for; None: it takes all numbers.
        targets: which inputs have no gradient.
    """

    op: str
    call: Callable[..., Any]
    shapes: Shapes
    what: str = ""
    larger: Shapes = ()
    domain: Callable[..., Sequence[Any]] | None = None
    targets: tuple[int, ...] = ()

    @property
    def pointwise(self) -> bool:
        """Whether the call takes tensors of any one shape, element by element."""
        return self.op in POINTWISE and self.shapes in (ONE, TWO, THREE)

    @property
    def shapes_for_values(self) -> Shapes:
        """The shapes by which values are compared."""
        return self.larger or tuple(LARGER.get(shape, shape) for shape in self.shapes)

    def __str__(self) -> str:
        """Name it."""
        return f"{self.op}-{self.what}" if self.what else self.op


def named(name: str, *rest: Any, **options: Any) -> Callable[..., Any]:
    """Return a call of the function of that name, with some arguments after the tensors."""
    return lambda lib, *inputs: getattr(lib, name)(*inputs, *rest, **options)


def method(name: str, *rest: Any, **options: Any) -> Callable[..., Any]:
    """Return a call of the first tensor's method of that name."""
    return lambda _, a, *inputs: getattr(a, name)(*inputs, *rest, **options)


ONE: Shapes = ((2, 3),)
TWO: Shapes = ((2, 3), (2, 3))
THREE: Shapes = ((2, 3), (2, 3), (2, 3))
NORMED: Shapes = ((2, 3), (3,), (3,))
IMAGE: Shapes = ((1, 2, 4, 4),)
LARGER: Mapping[tuple[int, ...], tuple[int, ...]] = MappingProxyType(
    {
        (2, 3): (6, 48),
        (3, 2): (48, 6),
        (3, 4): (48, 10),
        (5, 3, 4): (5, 48, 10),
        (3,): (48,),
        (2,): (6,),
        (2, 4): (6, 10),
        (4, 3): (10, 48),
        (4,): (10,),
        (2, 2, 3): (2, 6, 48),
        (2, 3, 4): (2, 6, 48),
        (2, 4, 5): (2, 48, 10),
        (2, 3, 5): (2, 6, 10),
        (1, 2, 4): (2, 4, 24),
        (1, 2, 4, 4): (2, 4, 8, 8),
        (1, 2, 3, 3, 3): (2, 2, 4, 5, 6),
        (1, 2, 4, 8): (2, 3, 12, 16),
    }
)
"""The shapes that values are compared by: sums of enough terms to tell how they are accumulated."""
ELEMENTWISE = """
    abs acos add addcdiv addcmul asin atan atan2 bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp
    clone cos cosh div elu eq erf exp expm1 floor ge gelu gt hardsigmoid hardswish hardtanh isfinite isinf
    isnan le leaky_relu lerp log log10 log1p log2 log_sigmoid logical_and logical_not logical_or logical_xor
    lt masked_fill maximum minimum mish mul ne neg pow reciprocal relu remainder round rsqrt sigmoid sign
    silu sin sinh softplus sqrt sub tan tanh trunc where
"""
POINTWISE = frozenset(ELEMENTWISE.split())
"""Ops that make each element of the result from one element of each input."""
