"""A table of vectors, looked up by number."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from minimp import functional
from minimp.errors import SettingError
from minimp.nn import init
from minimp.nn.making import empty, lifted, whole
from minimp.nn.module import Module
from minimp.nn.parameter import Parameter
from minimp.tensors import Tensor

__all__ = ["Embedding"]


class Embedding(Module):
    """Row i of a table for each number i.  (...) of integers -> (..., embedding_dim).

    `weight` is (num_embeddings, embedding_dim), drawn from N(0, 1).

    Args:
        num_embeddings, embedding_dim: rows and columns of the table.
        padding_idx: a row that begins as zeros and takes no gradient; it may count from the end.
        max_norm, sparse: must stay None and False: tables are not changed in place, gradients are dense.
        norm_type: the norm of max_norm.
        scale_grad_by_freq: divide the gradient of a row by how often it was taken.
        dtype: the format of the table; None is float32.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: numbers out of range, or what is not offered.
        DataError: on call, indices that are no integers or no rows.
    """

    weight: Parameter

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
        sparse: bool = False, *, dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_embeddings = whole("num_embeddings", num_embeddings, "Embedding")
        self.embedding_dim = whole("embedding_dim", embedding_dim, "Embedding")
        if max_norm is not None or sparse:
            what = "sparse=True" if sparse else f"max_norm={max_norm}"
            raise SettingError(
                f"{what} is not offered: gradients are dense, and a table is not changed in place",
                op="Embedding", help="renormalise the weight after optimizer.step()",
            )  # fmt: skip
        if padding_idx is not None and not -num_embeddings <= padding_idx < num_embeddings:
            raise SettingError(
                f"expected padding_idx from {-num_embeddings} to {num_embeddings - 1}, got {padding_idx}",
                op="Embedding",
            )
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        self.max_norm, self.norm_type, self.sparse = max_norm, norm_type, sparse
        self.scale_grad_by_freq = scale_grad_by_freq
        self.weight = empty((num_embeddings, embedding_dim), dtype, backend)
        self.reset_parameters()

    @classmethod
    def from_pretrained(
        cls, embeddings: Any, freeze: bool = True, padding_idx: int | None = None,
        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Self:  # fmt: skip
        """Return a table of given values, (num_embeddings, embedding_dim), not trained if `freeze`."""
        table = lifted(embeddings)
        if table.ndim != 2:
            raise SettingError(
                f"expected a table of rows and columns, got shape {table.shape}", op="Embedding"
            )
        rows, columns = table.shape
        made = cls(rows, columns, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
        made.weight = Parameter(table.detach(), requires_grad=not freeze)
        return made

    def reset_parameters(self) -> None:
        """Draw the table anew; the row of the padding is zeros."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            table, where = self.weight.array, self.weight.backend
            kept = where.from_host((np.arange(self.num_embeddings) != self.padding_idx)[:, None])
            self.weight.array = where.keep_where(table, kept)

    def forward(self, input: Any) -> Tensor:
        """Return the rows."""
        return functional.embedding(
            input, self.weight, self.padding_idx, scale_grad_by_freq=self.scale_grad_by_freq
        )

    def extra_repr(self) -> str:
        """Show the lengths, and what differs from the defaults."""
        plain = {"padding_idx": None, "norm_type": 2.0, "scale_grad_by_freq": False}
        changed = [f"{k}={getattr(self, k)}" for k, default in plain.items() if getattr(self, k) != default]
        return ", ".join([f"{self.num_embeddings}, {self.embedding_dim}", *changed])
