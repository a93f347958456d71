"""Moving, joining and cutting, as methods with torch's names; nothing is rounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minimp import ops
from minimp.errors import SettingError, ShapeError
from minimp.operators.common import axis_of, shape_of
from minimp.operators.naming import methods_naming_themselves
from minimp.tape import Value

if TYPE_CHECKING:
    from minimp.tensors import Tensor

__all__ = ["Shaping"]


@methods_naming_themselves
class Shaping(Value):
    """The same elements in other places."""

    __slots__ = ()

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return int(self.array.ndim)

    @property
    def T(self) -> Tensor:  # noqa: N802 - NumPy's and torch's name
        """The tensor with its axes reversed."""
        return ops.permute(self, dims=tuple(range(self.ndim))[::-1])

    @property
    def mT(self) -> Tensor:  # noqa: N802 - torch's name
        """The tensor with its last two axes exchanged."""
        return self.transpose(-2, -1)

    # ---- another shape ----------------------------------------------------------------------------------

    def reshape(self, *shape: Any) -> Tensor:
        """Return the elements in another shape; one length may be -1."""
        return ops.reshape(self, shape=shape_of(shape))

    def view(self, *shape: Any) -> Tensor:
        """Return the elements in another shape (torch's view; no promise that memory is shared)."""
        return ops.reshape(self, shape=shape_of(shape))

    def reshape_as(self, other: Value) -> Tensor:
        """Return the elements in the shape of `other`."""
        return ops.reshape(self, shape=other.shape)

    view_as = reshape_as

    def contiguous(self) -> Tensor:
        """Return the tensor itself: how its memory lies is no concern of any op here."""
        return self  # type: ignore[return-value]  # every tensor is a Tensor

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Join the axes from `start_dim` to `end_dim`."""
        first, last = (axis_of("flatten", self.shape, dim) for dim in (start_dim, end_dim))
        if first > last:
            raise ShapeError(
                f"axis {start_dim} lies behind axis {end_dim}", op="flatten", shapes=[self.shape]
            )
        joined = math.prod(self.shape[first : last + 1])
        return ops.reshape(self, shape=(*self.shape[:first], joined, *self.shape[last + 1 :]))

    def unflatten(self, dim: int, sizes: Sequence[int]) -> Tensor:
        """Split the axis `dim` into axes of lengths `sizes`, of which one may be -1."""
        at = axis_of("unflatten", self.shape, dim)
        return ops.reshape(self, shape=(*self.shape[:at], *sizes, *self.shape[at + 1 :]))

    def squeeze(self, dim: int | tuple[int, ...] | None = None) -> Tensor:
        """Drop the axes of length 1, or those of the axes given."""
        dims = range(self.ndim) if dim is None else dim if isinstance(dim, tuple) else (dim,)
        gone = {axis_of("squeeze", self.shape, d) for d in dims}
        return ops.reshape(self, shape=tuple(n for i, n in enumerate(self.shape) if i not in gone or n != 1))

    def unsqueeze(self, dim: int) -> Tensor:
        """Insert an axis of length 1 at `dim`."""
        at = axis_of("unsqueeze", self.shape, dim, more=1)
        return ops.reshape(self, shape=(*self.shape[:at], 1, *self.shape[at:]))

    # ---- another order ----------------------------------------------------------------------------------

    def permute(self, *dims: Any) -> Tensor:
        """Reorder the axes."""
        return ops.permute(self, dims=shape_of(dims))

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Exchange two axes."""
        a, b = (axis_of("transpose", self.shape, dim) for dim in (dim0, dim1))
        dims = list(range(self.ndim))
        if dims:
            dims[a], dims[b] = dims[b], dims[a]
        return ops.permute(self, dims=tuple(dims))

    swapdims = transpose

    def swapaxes(self, axis0: int, axis1: int) -> Tensor:
        """Exchange two axes."""
        return self.transpose(axis0, axis1)

    def movedim(self, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
        """Move axes to other places; the rest keep their order."""
        sources, places = (
            [axis_of("movedim", self.shape, d) for d in ([dims] if isinstance(dims, int) else dims)]
            for dims in (source, destination)
        )
        if len(set(sources)) != len(sources) or len(set(places)) != len(sources) != len(places):
            raise ShapeError(f"cannot move axes {source} to {destination}", op="movedim", shapes=[self.shape])
        dims = [d for d in range(self.ndim) if d not in sources]
        for place, origin in sorted(zip(places, sources, strict=True)):
            dims.insert(place, origin)
        return ops.permute(self, dims=tuple(dims))

    moveaxis = movedim

    def flip(self, *dims: Any) -> Tensor:
        """Return the elements in the opposite order along each of the axes."""
        turned = {axis_of("flip", self.shape, d) for d in shape_of(dims)}
        steps = (slice(None, None, -1 if i in turned else None) for i in range(self.ndim))
        return ops.getitem(self, index=tuple(steps))

    def roll(self, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
        """Move elements along axes, those pushed over the end to the front; without axes, as if flat."""
        if dims is None:
            return self.reshape(-1).roll(shifts, 0).reshape(self.shape)
        moves = (shifts,) if isinstance(shifts, int) else tuple(shifts)
        axes = (dims,) if isinstance(dims, int) else tuple(dims)
        result: Any = self
        for shift, dim in zip(moves, axes, strict=True):
            at = axis_of("roll", self.shape, dim)
            cut = -shift % max(self.shape[at], 1)
            rest = self.shape[at] - cut
            result = ops.cat(result.narrow(at, cut, rest), result.narrow(at, 0, cut), dim=at)
        return result  # type: ignore[no-any-return]  # a tensor

    def tril(self, diagonal: int = 0) -> Tensor:
        """Return the lower triangle of each matrix, 0 elsewhere."""
        return ops.tril(self, diagonal=diagonal)

    def triu(self, diagonal: int = 0) -> Tensor:
        """Return the upper triangle of each matrix, 0 elsewhere."""
        return ops.triu(self, diagonal=diagonal)

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
        """Return the diagonals of the matrices that two axes make, as the last axis."""
        moved = self.movedim((dim1, dim2), (-2, -1))
        rows, columns = moved.shape[-2:]
        count = max(min(rows + min(offset, 0), columns - max(offset, 0)), 0)
        places = self.backend.xp.arange(count)
        return ops.getitem(moved, index=(..., places + max(-offset, 0), places + max(offset, 0)))

    def diag(self, diagonal: int = 0) -> Tensor:
        """Return the diagonal of a matrix, or the matrix that has this vector as its diagonal."""
        if self.ndim == 2:
            return self.diagonal(diagonal)
        if self.ndim != 1:
            raise ShapeError("expected a vector or a matrix", op="diag", shapes=[self.shape])
        places = self.backend.xp.arange(self.shape[0])
        length = self.shape[0] + abs(diagonal)
        index = (places + max(-diagonal, 0), places + max(diagonal, 0))
        return ops.unindex(self, shape=(length, length), index=index)

    # ---- repeated ---------------------------------------------------------------------------------------

    def expand(self, *shape: Any) -> Tensor:
        """Repeat axes of length 1."""
        return ops.expand(self, shape=shape_of(shape))

    def expand_as(self, other: Value) -> Tensor:
        """Repeat axes of length 1 to the shape of `other`."""
        return ops.expand(self, shape=other.shape)

    def broadcast_to(self, size: Sequence[int]) -> Tensor:
        """Repeat axes of length 1, and add axes in front."""
        return ops.expand(self, shape=tuple(size))

    def repeat(self, *repeats: Any) -> Tensor:
        """Repeat the whole tensor along each axis, as often as said; at least one number an axis."""
        times = shape_of(repeats)
        if len(times) < self.ndim:
            raise ShapeError(
                f"expected at least {self.ndim} numbers of repeats, got {times}", op="repeat",
                shapes=[self.shape],
            )  # fmt: skip
        shape = (1,) * (len(times) - self.ndim) + self.shape
        pairs = [part for n in shape for part in (1, n)]
        spread = [part for t, n in zip(times, shape, strict=True) for part in (t, n)]
        apart = ops.expand(ops.reshape(self, shape=tuple(pairs)), shape=tuple(spread))
        return ops.reshape(apart, shape=tuple(t * n for t, n in zip(times, shape, strict=True)))

    def tile(self, *dims: Any) -> Tensor:
        """Repeat the whole tensor; missing numbers of repeats in front are 1."""
        times = shape_of(dims)
        return self.repeat((1,) * (self.ndim - len(times)) + times)

    def repeat_interleave(self, repeats: Any, dim: int | None = None) -> Tensor:
        """Repeat each element, or each slice along `dim`, in its place: a number of times, or one a slice."""
        flat = self if dim is not None else ops.reshape(self, shape=(-1,))
        at = axis_of("repeat_interleave", flat.shape, 0 if dim is None else dim)
        xp = self.backend.xp
        counts = repeats.array if isinstance(repeats, Value) else repeats
        places = xp.repeat(xp.arange(flat.shape[at]), counts)
        return ops.getitem(flat, index=(*[slice(None)] * at, places))

    # ---- in parts ---------------------------------------------------------------------------------------

    def narrow(self, dim: int, start: int, length: int) -> Tensor:
        """Return `length` slices along `dim`, from `start` on."""
        at = axis_of("narrow", self.shape, dim)
        if not (min(start, length) >= 0 and start + length <= self.shape[at]):
            raise SettingError(
                f"narrow: expected a part of {self.shape[at]} slices, got {length} from {start} on"
            )
        return ops.getitem(self, index=(*[slice(None)] * at, slice(start, start + length)))

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Cut along `dim` into parts of `split_size`, the last one shorter, or of the sizes given."""
        if not self.shape:
            raise ShapeError("a tensor with no axes cannot be split", op="split")
        at = axis_of("split", self.shape, dim)
        length = self.shape[at]
        if isinstance(split_size, int):
            if split_size < 1:
                raise SettingError(f"split: expected parts of at least one slice, got {split_size}")
            starts = range(0, max(length, 1), split_size)
            sizes: list[int] = [min(split_size, length - start) for start in starts]
        else:
            sizes = list(split_size)
        if sum(sizes) != length or min(sizes, default=0) < 0:
            raise ShapeError(
                f"expected sizes that add up to {length}, got {sizes}", op="split", shapes=[self.shape]
            )
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
        return tuple(self.narrow(at, end - size, size) for end, size in zip(ends, sizes, strict=True))

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """Cut along `dim` into at most `chunks` parts of one size, the last one shorter."""
        if chunks < 1:
            raise SettingError(f"chunk: expected at least one chunk, got {chunks}")
        length = self.shape[axis_of("chunk", self.shape, dim)] if self.shape else 1
        return self.split(max(-(-length // chunks), 1), dim) if length else (self,) * chunks  # type: ignore[return-value]  # every tensor is a Tensor

    def unbind(self, dim: int = 0) -> tuple[Tensor, ...]:
        """Return each slice along `dim`, without that axis."""
        at = axis_of("unbind", self.shape, dim)
        lead = (slice(None),) * at
        return tuple(ops.getitem(self, index=(*lead, i)) for i in range(self.shape[at]))
