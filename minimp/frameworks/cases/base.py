"""What a case is: one call of an op, written once, and two libraries that it can be made in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
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
    """

    op: str
    call: Callable[..., Any]
    shapes: Shapes
    what: str = ""

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
NORMED: Shapes = ((2, 3), (3,), (3,))
IMAGE: Shapes = ((1, 2, 4, 4),)
