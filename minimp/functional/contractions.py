"""Products of matrices and vectors by their strict names: each takes the shapes that its name says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minimp import ops
from minimp.errors import ShapeError
from minimp.functional.einsum import Part, contract
from minimp.functional.lifting import ruled, tensors_of
from minimp.policy import Mixed, common_format
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = [
    "addmm", "baddbmm", "bilinear", "bmm", "dot", "inner", "mm", "mv", "outer", "tensordot", "vecdot",
]  # fmt: skip


def mm(input: Any, mat2: Any) -> Tensor:
    """A B of two matrices, (M, K), (K, N) -> (M, N); no broadcasting.

    Raises:
        ShapeError: other shapes. FormatError: two formats outside autocast.
    """
    return _strict("mm", input, mat2, "(M, K) and (K, N)", (2, 2))


def bmm(input: Any, mat2: Any) -> Tensor:
    """A B of N pairs of matrices, (N, M, K), (N, K, P) -> (N, M, P); no broadcasting.

    Raises:
        ShapeError: other shapes. FormatError: two formats outside autocast.
    """
    return _strict("bmm", input, mat2, "(N, M, K) and (N, K, P)", (3, 3))


def mv(input: Any, vec: Any) -> Tensor:
    """A x of a matrix and a vector, (M, K), (K,) -> (M,)."""
    return _strict("mv", input, vec, "(M, K) and (K,)", (2, 1))


def dot(input: Any, tensor: Any) -> Tensor:
    """x . y of two vectors, (K,), (K,) -> (); see :func:`inner` for more axes."""
    return _strict("dot", input, tensor, "(K,) and (K,)", (1, 1))


def _strict(name: str, a: Any, b: Any, wanted: str, axes: tuple[int, int]) -> Tensor:
    """Multiply what has exactly so many axes."""
    x, y = tensors_of(a, b)
    fits = (len(x.shape), len(y.shape)) == axes and x.shape[-1] == y.shape[-2 if axes[1] > 1 else 0]
    if not fits or (axes == (3, 3) and x.shape[0] != y.shape[0]):
        raise ShapeError(
            f"expected {wanted}, got {x.shape} and {y.shape}", op=name, shapes=[x.shape, y.shape],
            help="matmul broadcasts and takes other numbers of axes",
        )  # fmt: skip
    (x, y), block = ruled(name, (x, y))
    with block:
        return ops.matmul(x, y)


def addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta C + alpha A B, rounded once; C broadcast to (M, N), (M, K), (K, N) -> (M, N).

    With beta = 0, C is not read. Raises ShapeError for other shapes.
    """
    return ops.addmm(input, mat1, mat2, beta=beta, alpha=alpha)


def baddbmm(input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """As :func:`addmm`, for N matrices: C broadcast to (N, M, P), (N, M, K), (N, K, P) -> (N, M, P)."""
    return ops.baddbmm(input, batch1, batch2, beta=beta, alpha=alpha)


def outer(input: Any, vec2: Any) -> Tensor:
    """x y^T of two vectors, (M,), (N,) -> (M, N): each product rounded once."""
    x, y = tensors_of(input, vec2)
    if len(x.shape) != 1 or len(y.shape) != 1:
        raise ShapeError(
            f"expected two vectors, got {x.shape} and {y.shape}", op="outer", shapes=[x.shape, y.shape]
        )
    return ops.mul(ops.reshape(x, shape=(-1, 1)), y)


def inner(input: Any, other: Any) -> Tensor:
    """Sum over the last axes, (..., K), (***, K) -> (..., ***); with a scalar the elementwise product."""
    x, y = tensors_of(input, other)
    if not x.shape or not y.shape:
        return ops.mul(x, y)
    if len(x.shape) == len(y.shape) == 1:
        return dot(x, y)
    if x.shape[-1] != y.shape[-1]:
        raise ShapeError(
            f"expected last axes of one length, got {x.shape} and {y.shape}",
            op="inner", shapes=[x.shape, y.shape],
        )  # fmt: skip
    return tensordot(x, y, ([-1], [-1]))


def vecdot(x: Any, y: Any, dim: int = -1) -> Tensor:
    """Sum over k of x[..., k] y[..., k] along `dim` (torch.linalg.vecdot); the other axes broadcast."""
    a, b = tensors_of(x, y)
    axes = max(len(a.shape), len(b.shape))
    if (
        not a.shape
        or not b.shape
        or not -axes <= dim < axes
        or _length(a, dim, axes) != _length(b, dim, axes)
    ):
        raise ShapeError(
            f"expected axes of one length at dim {dim}, got {a.shape} and {b.shape}",
            op="vecdot", shapes=[a.shape, b.shape],
        )  # fmt: skip
    (a, b), block = ruled("linalg_vecdot", (a, b))
    labels = list(range(axes))
    kept = [i for i in labels if i != dim % axes]
    with block:
        return contract(
            [Part(a, labels[axes - len(a.shape) :]), Part(b, labels[axes - len(b.shape) :])], kept
        )


def _length(x: Value, dim: int, axes: int) -> int:
    at = dim % axes - (axes - len(x.shape))
    return x.shape[at] if at >= 0 else 1


def tensordot(a: Any, b: Any, dims: int | Sequence[Sequence[int]] = 2) -> Tensor:
    """Sum over pairs of axes; the axes left of a, then those left of b, stay.

    Args:
        a, b: tensors of one format, outside autocast.
        dims: n takes the last n axes of a and the first n of b; or two lists of axes, one for each side.
            A length of 1 broadcasts to its partner's.

    Raises:
        ShapeError: lists of two lengths, an axis that is none, or lengths that differ. FormatError: two
            formats, where autocast does not promote them.
    """
    (x, y), block = ruled("tensordot", tensors_of(a, b), composite=True)
    common_format("tensordot", Mixed.SAME, [(v.format, True) for v in (x, y)])
    left, right = _paired_axes(x, y, dims)
    names = [None] * len(x.shape)
    others: list[Any] = [None] * len(y.shape)
    for pair, (i, j) in enumerate(zip(left, right, strict=True)):
        names[i] = others[j] = -1 - pair  # type: ignore[call-overload]  # None until named
    fresh = iter(range(len(names) + len(others)))
    named = [[next(fresh) if name is None else name for name in side] for side in (names, others)]
    kept = [name for side in named for name in side if name >= 0]
    with block:
        return contract([Part(x, named[0]), Part(y, named[1])], kept)


def _paired_axes(x: Value, y: Value, dims: Any) -> tuple[list[int], list[int]]:
    """Return the axes of both sides that are summed over, counted from 0."""
    shapes = [x.shape, y.shape]
    if isinstance(dims, int):
        if not 0 <= dims <= min(len(x.shape), len(y.shape)):
            raise ShapeError(
                f"expected at most {min(map(len, shapes))} axes to sum over, got {dims}",
                op="tensordot", shapes=shapes,
            )  # fmt: skip
        pairs = [list(range(len(x.shape) - dims, len(x.shape))), list(range(dims))]
    else:
        pairs = [[d] if isinstance(d, int) else list(d) for d in dims]
    if len(pairs) != 2 or len(pairs[0]) != len(pairs[1]):
        raise ShapeError(f"expected two lists of axes of one length, got {dims}", op="tensordot")
    for axes, shape in zip(pairs, shapes, strict=True):
        if any(not -len(shape) <= d < len(shape) for d in axes):
            raise ShapeError(f"an axis of {axes} is none of shape {shape}", op="tensordot", shapes=shapes)
    left, right = ([d % len(shape) for d in axes] for axes, shape in zip(pairs, shapes, strict=True))
    if len(set(left)) != len(left) or len(set(right)) != len(right):
        raise ShapeError(f"an axis stands twice in {dims}", op="tensordot", shapes=shapes)
    if any(
        x.shape[i] != y.shape[j] and 1 not in (x.shape[i], y.shape[j])
        for i, j in zip(left, right, strict=True)
    ):
        raise ShapeError(
            f"the axes {left} of {x.shape} and {right} of {y.shape} differ in length",
            op="tensordot",
            shapes=shapes,
        )
    return left, right


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Tensor:
    """y[..., o] = sum over i, j of x1[..., i] w[o, i, j] x2[..., j] + b[o]: x1^T W x2, for each output.

    Args:
        input1, input2: (..., in1), (..., in2).
        weight: (out, in1, in2).
        bias: (out,).

    x1 W is rounded before it is multiplied with x2. All are of one format outside autocast, and promoted
    under torch-cuda's.
    """
    given = tensors_of(input1, input2, weight, *(() if bias is None else (bias,)))
    found, block = ruled("bilinear", given)
    x, y, w = found[:3]
    fits = len(w.shape) == 3 and x.shape and y.shape and x.shape[:-1] == y.shape[:-1]
    if not fits or (x.shape[-1], y.shape[-1]) != w.shape[1:]:
        raise ShapeError(
            f"expected (..., in1), (..., in2) and (out, in1, in2), got {x.shape}, {y.shape} and {w.shape}",
            op="bilinear", shapes=[x.shape, y.shape, w.shape],
        )  # fmt: skip
    lead, out = x.shape[:-1], w.shape[0]
    rows = math.prod(lead)
    with block:
        left = ops.reshape(x, shape=(rows, x.shape[-1]))
        columns = ops.reshape(ops.permute(w, dims=(1, 0, 2)), shape=(w.shape[1], out * w.shape[2]))
        half = ops.reshape(ops.matmul(left, columns), shape=(rows, out, w.shape[2]))
        right = ops.reshape(y, shape=(rows, y.shape[-1], 1))
        result = ops.reshape(ops.matmul(half, right), shape=(*lead, out))
        return result if bias is None else ops.add(result, found[3])
