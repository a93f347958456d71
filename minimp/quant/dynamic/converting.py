"""The layers of a model made dynamic."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from minimp import nn
from minimp.nn.attention import NonDynamicallyQuantizableLinear
from minimp.nn.module import Module
from minimp.quant.dynamic.layers import (
    Dynamic,
    DynamicQuantizedEmbedding,
    DynamicQuantizedLinear,
    DynamicQuantizedMultiheadAttention,
    Packing,
)
from minimp.quant.dynamic.products import Arithmetic
from minimp.quant.dynamic.recurrent import DynamicQuantizedGRU, DynamicQuantizedLSTM, DynamicQuantizedRNN
from minimp.quant.exchanging import Exchange, exchange
from minimp.quant.fusion.flow import hooked
from minimp.quant.layer_reports import LayerReport

__all__ = ["quantize_dynamic"]

FORMS: tuple[type[Dynamic], ...] = (
    DynamicQuantizedLinear, DynamicQuantizedLSTM, DynamicQuantizedGRU, DynamicQuantizedRNN,
    DynamicQuantizedEmbedding, DynamicQuantizedMultiheadAttention,
)  # fmt: skip
IMAGES = "convolutions have no dynamic form; static quantisation takes them"
CELLS = "cells have no dynamic form; the layers nn.LSTM, nn.GRU and nn.RNN have"
NORMS = "its parameters are few, and its sums stay in floating point"
HINTS: dict[type[Module], str] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d), IMAGES),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d), IMAGES),
    **dict.fromkeys((nn.LSTMCell, nn.GRUCell, nn.RNNCell), CELLS),
    **dict.fromkeys((nn.LayerNorm, nn.RMSNorm, nn.GroupNorm), NORMS),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), NORMS),
    NonDynamicallyQuantizableLinear: "it is a part of attention: convert nn.MultiheadAttention",
}


def quantize_dynamic(
    model: Module, modules: Iterable[Any] | None = None, *, granularity: str = "per-tensor",
    reduce_range: bool = False, accumulate: str = "int32", inplace: bool = False,
) -> tuple[Module, LayerReport]:  # fmt: skip
    """Give layers int8 weights, and activations that are quantised in each call; for inference.

    The place of torch.ao.quantization.quantize_dynamic (2.13), which returns the model alone, and by default
    takes linear and recurrent layers and cells. Nothing is calibrated: the ranges of activations are those of
    each call (rule ``torch-dynamic``, codes 0..255); see :mod:`minimp.quant.dynamic.products`.

    Args:
        model: a model in floating point.
        modules: which layers: classes and paths, ``{nn.Linear, "decoder"}``, a path standing for all layers
            below it. None is all of nn.Linear, LSTM, GRU, RNN, Embedding and MultiheadAttention.
        granularity: of weights: ``"per-tensor"``, torch's default, or ``"per-channel"``, a scale for each
            output. Embeddings have one a row in any case.
        reduce_range, accumulate: see :class:`Arithmetic`.
        inplace: change `model` itself. By default it stays as it is, and a copy is changed.

    Returns:
        (the model that was changed, the report): the report shows a table of what was converted, with bytes
        before and after, and why the other layers were left.

    Raises:
        SettingError: codes in the model already (double quantisation); a class or path that has no dynamic
            form; nothing to convert; unknown settings.
        DataError: an infinity or NaN in a weight; the message names the layer. Nothing has changed then.
    """
    packing = Packing(Arithmetic(granularity, reduce_range, accumulate))
    table: dict[type[Module], Callable[[Any], Dynamic]] = {
        form.source: partial(_pack, form, packing) for form in FORMS
    }
    faults = {nn.LSTM: _projected, nn.MultiheadAttention: _inner_hooks}
    return exchange(model, modules, Exchange("quantize_dynamic", table, faults, HINTS), inplace=inplace)


def _pack(form: type[Dynamic], packing: Packing, layer: Any) -> Dynamic:
    return form.packed(layer, packing)


def _projected(layer: Any) -> str:
    return "an LSTM with proj_size has no dynamic form" if layer.proj_size else ""


def _inner_hooks(layer: Any) -> str:
    return hooked(layer.out_proj)
