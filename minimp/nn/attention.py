"""Attention with several heads; that of one is :func:`minimp.functional.scaled_dot_product_attention`."""

from __future__ import annotations

import math
from typing import Any

from minimp import functional
from minimp.errors import SettingError, ShapeError
from minimp.nn import init
from minimp.nn.linear import Linear
from minimp.nn.making import empty, lifted, optional, probability, whole, zeros_beside
from minimp.nn.masks import Masks
from minimp.nn.module import Module
from minimp.nn.parameter import Parameter
from minimp.tensors import Tensor

__all__ = ["MultiheadAttention"]


class NonDynamicallyQuantizableLinear(Linear):
    """A linear layer under the name that torch shows for it."""


class MultiheadAttention(Module):
    """Concat(head_1, ..., head_h) W_O, head_i = attention(Q W_i^Q, K W_i^K, V W_i^V) (Vaswani et al. 2017).

    (L, N, embed_dim), (S, N, kdim), (S, N, vdim) -> (L, N, embed_dim). `in_proj_weight` is W^Q, W^K and W^V
    of all heads in one, (3 embed_dim, embed_dim); with a kdim or vdim of their own they are `q_proj_weight`,
    `k_proj_weight` and `v_proj_weight`. They are drawn by :func:`minimp.nn.init.xavier_uniform_`, biases
    begin at 0, and `out_proj.weight` as a linear layer's.

    Args:
        embed_dim: the length of queries and outputs.
        num_heads: the number of heads, a divisor of embed_dim.
        dropout: the probability with which a weight of attention is zeroed in training.
        bias: whether there are `in_proj_bias` and `out_proj.bias`.
        add_bias_kv: append a learned key and value, `bias_k` and `bias_v`, to each sequence.
        add_zero_attn: append a key and a value of zeros to each sequence.
        kdim, vdim: the lengths of keys and values; None is embed_dim.
        batch_first: inputs and output are (N, L, ...).
        dtype: the format of the parameters; None is float32.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: numbers out of range, or heads that do not divide embed_dim.
        ShapeError, DataError: on call, inputs or masks that do not fit.
    """

    in_proj_weight: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True,
        add_bias_kv: bool = False, add_zero_attn: bool = False, kdim: int | None = None,
        vdim: int | None = None, batch_first: bool = False, *, dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        name = self._name()
        self.embed_dim = whole("embed_dim", embed_dim, name)
        self.num_heads = whole("num_heads", num_heads, name)
        self.kdim = embed_dim if kdim is None else whole("kdim", kdim, name)
        self.vdim = embed_dim if vdim is None else whole("vdim", vdim, name)
        if embed_dim % num_heads:
            raise SettingError(
                f"expected embed_dim to be a multiple of {num_heads}, got {embed_dim}", op=name
            )
        self.dropout, self.batch_first = probability(dropout, name, "dropout"), batch_first
        self.head_dim, self.add_zero_attn = embed_dim // num_heads, add_zero_attn
        packed = self.kdim == embed_dim == self.vdim
        weights = {"q": embed_dim, "k": self.kdim, "v": self.vdim}
        for letter, length in weights.items():
            made = optional(not packed, (embed_dim, length), dtype, backend)
            self.register_parameter(f"{letter}_proj_weight", made)
        self.register_parameter(
            "in_proj_weight", optional(packed, (3 * embed_dim, embed_dim), dtype, backend)
        )
        self.register_parameter("in_proj_bias", optional(bias, (3 * embed_dim,), dtype, backend))
        self.out_proj = NonDynamicallyQuantizableLinear(
            embed_dim, embed_dim, bias=bias, dtype=dtype, backend=backend
        )
        for letter in "kv":
            made = empty((1, 1, embed_dim), dtype, backend) if add_bias_kv else None
            self.register_parameter(f"bias_{letter}", made)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Draw the parameters anew, but for `out_proj.weight`."""
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if getattr(self, name) is not None:
                init.xavier_uniform_(getattr(self, name))
        for bias in (self.in_proj_bias, self.out_proj.bias):
            if bias is not None:
                init.zeros_(bias)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                init.xavier_normal_(extra)

    def forward(
        self, query: Any, key: Any, value: Any, key_padding_mask: Any = None, need_weights: bool = True,
        attn_mask: Any = None, average_attn_weights: bool = True, is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Attend.

        Args:
            query, key, value: as above; without N, all three.
            key_padding_mask: (N, S): True, or -inf, for keys that nobody attends to.
            need_weights: return the weights of attention too, which costs their memory.
            attn_mask: (L, S) or (N num_heads, L, S): True where a query does not attend, or what is added
                to the scores.
            average_attn_weights: return the mean over the heads, (N, L, S), not (N, num_heads, L, S).
            is_causal: query i attends to keys 0..i. The mask may be left out then (torch asks for it).

        Returns:
            The output, and the weights or None.
        """
        same = query is key and key is value
        q, k, v = (lifted(x) for x in (query, key, value))
        batched = q.ndim == 3
        self._check(q, k, v)
        if not batched:
            q, k, v = q.unsqueeze(0), k.unsqueeze(0), v.unsqueeze(0)
        elif not self.batch_first:
            q, k, v = q.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1)  # (N, L, E)
        masks = Masks(attn_mask, key_padding_mask, self.num_heads, q, k.shape[1])
        by_order = is_causal and key_padding_mask is None and not need_weights and not self._has_extras()
        if by_order:
            masks.forbidden = masks.added = None  # the mask only says the same
        elif is_causal and attn_mask is None:
            masks.forbid_later()
        q, k, v = self._projected(q, k, v, same=same)
        k, v = self._extended(k, v, masks)
        q, k, v = (self._heads(x) for x in (q, k, v))  # (N, H, L, E / H)
        y, weights = self._attend(q, k, v, masks, need_weights, by_order=by_order)
        out = self.out_proj(y.transpose(1, 2).flatten(2))  # (N, L, E)
        out = out.squeeze(0) if not batched else out if self.batch_first else out.transpose(0, 1)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        return out, weights if weights is None or batched else weights.squeeze(0)

    def _has_extras(self) -> bool:
        return self.bias_k is not None or self.add_zero_attn

    def _heads(self, x: Tensor) -> Tensor:
        """Give each head its part: (N, L, E) -> (N, H, L, E / H)."""
        n, length, _ = x.shape
        return x.reshape(n, length, self.num_heads, self.head_dim).transpose(1, 2)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, masks: Masks, need_weights: bool, *, by_order: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the outputs of all heads, and the weights if they are needed."""
        p = self.dropout if self.training else 0.0
        if not need_weights:
            mask = masks.allowed_or_added(q)
            return functional.scaled_dot_product_attention(q, k, v, mask, p, by_order), None
        scores = (q * math.sqrt(1 / self.head_dim)) @ k.transpose(-2, -1)  # (N, H, L, S)
        walls = masks.to_add(scores)
        weights = (scores if walls is None else scores + walls).softmax(-1)
        weights = functional.dropout(weights, p, self.training)
        return weights @ v, weights

    def _check(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        shapes = [x.shape for x in (q, k, v)]
        lengths = (self.embed_dim, self.kdim, self.vdim)
        fits = q.ndim in (2, 3) and q.ndim == k.ndim == v.ndim and k.shape[:-1] == v.shape[:-1]
        if not fits or any(s[-1] != n for s, n in zip(shapes, lengths, strict=True)):
            raise ShapeError(
                f"expected queries, keys and values of lengths {lengths}, got {', '.join(map(str, shapes))}",
                op=self._name(), shapes=shapes,
                help="all (L, N, E), (N, L, E) with batch_first=True, or (L, E)",
            )  # fmt: skip

    def _projected(self, q: Tensor, k: Tensor, v: Tensor, *, same: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return Q W^Q, K W^K and V W^V, (N, L, embed_dim) each; one product where all three are one."""
        size, packed = self.embed_dim, self.embed_dim == self.kdim == self.vdim
        places = [slice(i * size, (i + 1) * size) for i in range(3)]
        if same and packed:
            all_three = self._product(q, "in_proj_weight", None, None)
            q, k, v = (all_three[..., place] for place in places)
            return q, k, v
        names = ["in_proj_weight"] * 3 if packed else [f"{letter}_proj_weight" for letter in "qkv"]
        parts = zip((q, k, v), names, places, strict=True)
        q, k, v = (self._product(x, name, place if packed else None, place) for x, name, place in parts)
        return q, k, v

    def _product(self, x: Tensor, name: str, rows: slice | None, places: slice | None) -> Tensor:
        """Return x W^T + b, W some rows of a weight and b some places of `in_proj_bias`; None is all."""
        weight, bias = getattr(self, name), self.in_proj_bias
        if bias is not None and places is not None:
            bias = bias[places]  # type: ignore[assignment]  # a plain tensor
        return functional.linear(x, weight if rows is None else weight[rows], bias)

    def _extended(self, k: Tensor, v: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        """Append what every sequence has besides, and open the masks for it."""
        lead = k.shape[0]
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (
                functional.cat([x, extra.to(x.format).expand(lead, 1, self.embed_dim)], dim=1)
                for x, extra in ((k, self.bias_k), (v, self.bias_v))
            )
            masks.extend()
        if self.add_zero_attn:
            k, v = (functional.cat([x, zeros_beside(x, (lead, 1, self.embed_dim))], dim=1) for x in (k, v))
            masks.extend()
        return k, v
