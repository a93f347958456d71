"""Transformer layers (Vaswani et al. 2017), the normalisation behind each block or in front of it.

The original puts it behind, y = norm(x + f(x)); `norm_first` puts it in front, y = x + f(norm(x)) (Xiong et
al. 2020). PyTorch's inference kernels, which skip padded places and leave zeros there, have no counterpart:
what stands at padded places here is what the formulas give.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minimp import functional
from minimp.errors import SettingError, ShapeError, unknown_name
from minimp.nn import init
from minimp.nn.attention import MultiheadAttention
from minimp.nn.containers import ModuleList
from minimp.nn.dropout import Dropout
from minimp.nn.linear import Linear
from minimp.nn.making import whole
from minimp.nn.module import Module
from minimp.nn.normalization import LayerNorm
from minimp.tensors import Tensor, tensor

__all__ = [
    "Transformer", "TransformerDecoder", "TransformerDecoderLayer", "TransformerEncoder",
    "TransformerEncoderLayer",
]  # fmt: skip

Activation = str | Callable[[Any], Any]
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {"relu": functional.relu, "gelu": functional.gelu}


class _Layer(Module):
    """What an encoder's and a decoder's layer share; `blocks` is how many blocks there are."""

    blocks = 2

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: Activation = functional.relu, layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True, *, dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        where: dict[str, Any] = {"bias": bias, "dtype": dtype, "backend": backend}
        self.self_attn = MultiheadAttention(d_model, nhead, dropout, batch_first=batch_first, **where)
        if self.blocks == 3:
            self.multihead_attn = MultiheadAttention(
                d_model, nhead, dropout, batch_first=batch_first, **where
            )
        self.linear1 = Linear(d_model, dim_feedforward, **where)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, **where)
        self.norm_first = norm_first
        for i in range(1, self.blocks + 1):
            self.add_module(f"norm{i}", LayerNorm(d_model, eps=layer_norm_eps, **where))
        for i in range(1, self.blocks + 1):
            self.add_module(f"dropout{i}", Dropout(dropout))
        if isinstance(activation, str):
            if activation not in ACTIVATIONS:
                raise SettingError(unknown_name("activation", activation, ACTIVATIONS), op=self._name())
            activation = ACTIVATIONS[activation]
        self.activation = activation

    def _around(self, i: int, x: Any, block: Callable[[Any], Any]) -> Any:
        """Return x plus what block i makes of it, thinned, with its normalisation in its place."""
        norm, thin = getattr(self, f"norm{i}"), getattr(self, f"dropout{i}")
        return x + thin(block(norm(x))) if self.norm_first else norm(x + thin(block(x)))

    def _feed_forward(self, x: Any) -> Any:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))


class TransformerEncoderLayer(_Layer):
    """Self-attention, then two linear layers.  (L, N, d_model) -> (L, N, d_model).

    Args:
        d_model: the length of what goes in and comes out.
        nhead: the number of heads.
        dim_feedforward: the width of the two linear layers' middle.
        dropout: the probability of every dropout in the layer.
        activation: ``"relu"``, ``"gelu"``, a function or a module.
        layer_norm_eps: eps of the normalisations.
        batch_first: inputs are (N, L, d_model), not (L, N, d_model).
        norm_first: normalise in front of each block, not behind it.
        bias: whether linear layers and normalisations have a bias.
        dtype: the format of the parameters; None is float32.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: numbers out of range, or an unknown activation.
    """

    def forward(
        self, src: Any, src_mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool = False
    ) -> Tensor:
        """Return the sequence after this layer; masks as :class:`MultiheadAttention` takes them."""
        masks = {"attn_mask": src_mask, "key_padding_mask": src_key_padding_mask, "is_causal": is_causal}
        x = self._around(1, src, lambda y: self.self_attn(y, y, y, need_weights=False, **masks)[0])
        return self._around(2, x, self._feed_forward)  # type: ignore[no-any-return]  # a Tensor


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to an encoder's output (the memory), then two linear layers.

    (T, N, d_model), (S, N, d_model) -> (T, N, d_model). Arguments and errors as
    :class:`TransformerEncoderLayer`.
    """

    blocks = 3

    def forward(
        self, tgt: Any, memory: Any, tgt_mask: Any = None, memory_mask: Any = None,
        tgt_key_padding_mask: Any = None, memory_key_padding_mask: Any = None, tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """Return the sequence after this layer; masks as :class:`MultiheadAttention` takes them."""
        own = {"attn_mask": tgt_mask, "key_padding_mask": tgt_key_padding_mask, "is_causal": tgt_is_causal}
        cross = {
            "attn_mask": memory_mask, "key_padding_mask": memory_key_padding_mask,
            "is_causal": memory_is_causal,
        }  # fmt: skip
        x = self._around(1, tgt, lambda y: self.self_attn(y, y, y, need_weights=False, **own)[0])
        x = self._around(
            2, x, lambda y: self.multihead_attn(y, memory, memory, need_weights=False, **cross)[0]
        )
        return self._around(3, x, self._feed_forward)  # type: ignore[no-any-return]  # a Tensor


class _Stack(Module):
    """`num_layers` copies of a layer, and a normalisation behind them if there is one.

    The copies begin with equal weights, as in torch: draw them anew where that matters.
    """

    def __init__(self, layer: Module, num_layers: int, norm: Module | None) -> None:
        super().__init__()
        self.num_layers = whole("num_layers", num_layers, self._name())
        self.layers = ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = norm

    def _end(self, x: Any) -> Any:
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """A stack of encoder layers.

    Args:
        encoder_layer: what to copy.
        num_layers: how often.
        norm: a module behind the last layer, or None.
        enable_nested_tensor, mask_check: about a storage of torch's; they change nothing here.
    """

    def __init__(
        self, encoder_layer: Module, num_layers: int, norm: Module | None = None,
        enable_nested_tensor: bool = True, mask_check: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(encoder_layer, num_layers, norm)
        self.enable_nested_tensor, self.mask_check = enable_nested_tensor, mask_check

    def forward(
        self, src: Any, mask: Any = None, src_key_padding_mask: Any = None, is_causal: bool | None = None
    ) -> Tensor:
        """Return the sequence after all layers."""
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, bool(is_causal))
        return self._end(src)  # type: ignore[no-any-return]  # a Tensor


class TransformerDecoder(_Stack):
    """A stack of decoder layers.

    Args:
        decoder_layer: what to copy.
        num_layers: how often.
        norm: a module behind the last layer, or None.
    """

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__(decoder_layer, num_layers, norm)

    def forward(
        self, tgt: Any, memory: Any, tgt_mask: Any = None, memory_mask: Any = None,
        tgt_key_padding_mask: Any = None, memory_key_padding_mask: Any = None,
        tgt_is_causal: bool | None = None, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """Return the sequence after all layers."""
        for layer in self.layers:
            tgt = layer(
                tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask,
                bool(tgt_is_causal), memory_is_causal,
            )  # fmt: skip
        return self._end(tgt)  # type: ignore[no-any-return]  # a Tensor


class Transformer(Module):
    """An encoder and a decoder.  (S, N, d_model), (T, N, d_model) -> (T, N, d_model).

    All weights with two axes are drawn by :func:`minimp.nn.init.xavier_uniform_`.

    Args:
        d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias:
            as the layers take them.
        num_encoder_layers, num_decoder_layers: how many of each.
        custom_encoder, custom_decoder: modules in their places.
        dtype: the format of the parameters; None is float32.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: as the layers.
        ShapeError: on call, sequences that do not fit together.
    """

    def __init__(
        self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6, num_decoder_layers: int = 6,
        dim_feedforward: int = 2048, dropout: float = 0.1, activation: Activation = functional.relu,
        custom_encoder: Module | None = None, custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5, batch_first: bool = False, norm_first: bool = False,
        bias: bool = True, *, dtype: Any = None, backend: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        where: dict[str, Any] = {"bias": bias, "dtype": dtype, "backend": backend}
        settings = (dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first)

        def norm() -> LayerNorm:
            return LayerNorm(d_model, eps=layer_norm_eps, **where)

        if custom_encoder is None:
            layer = TransformerEncoderLayer(d_model, nhead, *settings, **where)
            custom_encoder = TransformerEncoder(layer, num_encoder_layers, norm())
        if custom_decoder is None:
            last = TransformerDecoderLayer(d_model, nhead, *settings, **where)
            custom_decoder = TransformerDecoder(last, num_decoder_layers, norm())
        self.encoder, self.decoder = custom_encoder, custom_decoder
        self._reset_parameters()
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first

    def _reset_parameters(self) -> None:
        """Draw all weights of two axes anew."""
        for param in self.parameters():
            if param.ndim > 1:
                init.xavier_uniform_(param)

    @staticmethod
    def generate_square_subsequent_mask(sz: int, dtype: Any = None) -> Tensor:
        """Return the (sz, sz) mask of a causal sequence: 0 where key <= query, else minus infinity."""
        return tensor(np.triu(np.full((sz, sz), -math.inf), 1), dtype="float32" if dtype is None else dtype)

    def forward(
        self, src: Any, tgt: Any, src_mask: Any = None, tgt_mask: Any = None, memory_mask: Any = None,
        src_key_padding_mask: Any = None, tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None, src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """Return the decoder's sequence; masks as :class:`MultiheadAttention` takes them."""
        axis = 0 if self.batch_first else 1
        fits = len(src.shape) == len(tgt.shape) and src.shape[-1] == tgt.shape[-1] == self.d_model
        if not fits or (len(src.shape) == 3 and src.shape[axis] != tgt.shape[axis]):
            raise ShapeError(
                f"expected one batch of sequences of length {self.d_model}, got {src.shape} and {tgt.shape}",
                op="Transformer", shapes=[src.shape, tgt.shape],
            )  # fmt: skip
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        return self.decoder(  # type: ignore[no-any-return]  # a Tensor
            tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask,
            tgt_is_causal, memory_is_causal,
        )  # fmt: skip
