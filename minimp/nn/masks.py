"""The masks of attention: what a query may not look at, and what is added to its scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from minimp import functional
from minimp.errors import DataError, ShapeError
from minimp.tape import Array, Value
from minimp.tensors import Tensor

__all__ = ["Masks"]


class Masks:
    """Both masks of one call, brought to (N, heads, L, S), axes of length 1 standing for all.

    Args:
        attn_mask: (L, S) or (N heads, L, S), booleans (True: not allowed) or numbers to add, or None.
        key_padding_mask: (N, S), or (S,) for one sequence, of either kind, or None.
        heads: the number of heads.
        queries: (N, L, E).
        keys: S.

    Attributes:
        forbidden: the booleans of both, joined, an array of the backend; or None.
        added: the numbers of both, summed; or None.
    """

    forbidden: Array | None
    added: Tensor | None

    def __init__(self, attn_mask: Any, key_padding_mask: Any, heads: int, queries: Tensor, keys: int) -> None:
        self.backend = queries.backend
        self.forbidden, self.added = None, None
        n, length, _ = queries.shape
        self.square = (length, keys)
        if attn_mask is not None:
            shapes = {
                (length, keys): (1, 1, length, keys),
                (n * heads, length, keys): (n, heads, length, keys),
            }
            self._take("attn_mask", attn_mask, shapes)
        if key_padding_mask is not None:
            shapes = {(n, keys): (n, 1, 1, keys), **({(keys,): (1, 1, 1, keys)} if n == 1 else {})}
            self._take("key_padding_mask", key_padding_mask, shapes)

    def _take(self, name: str, given: Any, shapes: Mapping[tuple[int, ...], tuple[int, ...]]) -> None:
        """Check a mask, and join it to those of its kind."""
        found: Any = given if isinstance(given, Value) else Value.lift(given, self.backend)
        if found.shape not in shapes:
            raise ShapeError(
                f"expected {name} of shape {' or '.join(map(str, shapes))}, got {found.shape}",
                op="MultiheadAttention", shapes=[found.shape],
            )  # fmt: skip
        mask: Tensor = found.reshape(*shapes[found.shape])
        if mask.dtype.kind == "b":
            self._forbid(mask.array)
        elif mask.format is not None:
            self.added = mask if self.added is None else self.added + mask
        else:
            raise DataError(
                f"expected {name} of booleans or of floats, got {mask.dtype}",
                op="MultiheadAttention", help="write mask.astype(bool): True is where nobody attends",
            )  # fmt: skip

    def forbid_later(self) -> None:
        """Let query i see keys 0..i."""
        self._forbid(self.backend.from_host(~np.tri(*self.square, dtype=bool)[None, None]))

    def _forbid(self, places: Array) -> None:
        known = self.forbidden
        self.forbidden = places if known is None else self.backend.xp.logical_or(known, places)

    def extend(self) -> None:
        """Add one key that everybody may attend to."""
        xp = self.backend.xp
        if self.forbidden is not None:
            open_place = xp.zeros((*self.forbidden.shape[:-1], 1), bool)
            self.forbidden = xp.concatenate([self.forbidden, open_place], axis=-1)
        if self.added is not None:
            zero = xp.zeros((*self.added.shape[:-1], 1), self.added.dtype)
            self.added = functional.cat([self.added, Tensor(zero, self.backend)], dim=-1)

    def to_add(self, like: Tensor) -> Tensor | None:
        """Return what is added to scores in the format of `like`: minus infinity where forbidden."""
        if self.forbidden is None:
            return None if self.added is None else self.added.to(like.format)
        xp = self.backend.xp
        wall, nothing = xp.asarray(-math.inf, like.dtype), xp.asarray(0, like.dtype)
        walls = self.backend.choose(self.forbidden, wall, nothing)
        made = Tensor(walls, self.backend)
        return made if self.added is None else self.added.to(like.format) + made

    def allowed_or_added(self, like: Tensor) -> Tensor | None:
        """Return what scaled_dot_product_attention takes: True where a query attends, or numbers to add."""
        if self.forbidden is None or self.added is not None:
            return self.to_add(like)
        return Tensor(self.backend.xp.logical_not(self.forbidden), self.backend)
