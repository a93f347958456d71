"""A backend's kernels as ops: what a gradient rule calls when it is itself differentiated.

A gradient rule names kernels, ``ctx.backend.conv2d_input(grad, weight, shape, geometry, accumulate=...)``. On
arrays that is the backend's; on tensors it is the function of that name here, which takes the same arguments
and runs the op.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from minimp.ops.convolution import conv2d_input, conv2d_weight
from minimp.ops.pooling import avg_pool2d, avg_pool2d_input, max_pool2d_input
from minimp.ops.products import conv2d

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["KERNELS"]

Geometry = dict[str, Any]


def _conv2d(x: Any, weight: Any, bias: Any, geometry: Geometry, *, accumulate: str) -> Tensor:
    arrays = (x, weight) if bias is None else (x, weight, bias)
    return conv2d(*arrays, **geometry)


def _of_two(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A kernel of two arrays with a shape to fill and a geometry."""

    def call(a: Any, b: Any, shape: tuple[int, ...], geometry: Geometry, *, accumulate: str) -> Tensor:
        return op(a, b, shape=tuple(shape), **geometry)

    return call


def _avg_pool2d(x: Any, geometry: Geometry, *, accumulate: str) -> Tensor:
    return avg_pool2d(x, **geometry)


def _avg_pool2d_input(
    grad: Any, shape: tuple[int, ...], geometry: Geometry, *, accumulate: str
) -> Tensor:  # fmt: skip
    return avg_pool2d_input(grad, shape=tuple(shape), **geometry)


KERNELS: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "avg_pool2d": _avg_pool2d,
        "avg_pool2d_input": _avg_pool2d_input,
        "conv2d": _conv2d,
        "conv2d_input": _of_two(conv2d_input),
        "conv2d_weight": _of_two(conv2d_weight),
        "max_pool2d_input": _of_two(max_pool2d_input),
    }
)
"""Name of a kernel -> the same on tensors; sums go by the accumulation in force, which is the op's."""
