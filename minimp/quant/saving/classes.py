"""The classes that a file can name, each with the names of its settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp import nn
from minimp.errors import FormatError, SettingError, ShapeError
from minimp.models.gpt import GPT, MLP, Block, CausalAttention
from minimp.models.resnet import BasicBlock, Mean, ResNet, Sum
from minimp.nn.attention import NonDynamicallyQuantizableLinear
from minimp.nn.module import Module
from minimp.quant import dynamic, fusion, modules, narrow_weights, static
from minimp.quant.modules import QuantizedModule
from minimp.quant.modules.stubs import COMPUTES
from minimp.quant.qtensor import QTensor

__all__ = ["ROWS", "Row", "rows_for"]


def _nothing(module: Any) -> None:
    del module


@dataclass(frozen=True)
class Row:
    """One class.

    Attributes:
        kind: the class.
        settings: the attributes that its instances have beside parameters, buffers and children; None is any
            number of them, of a class that its user has named.
        optional: attributes that an instance may lack.
        check: looks whether a rebuilt module holds together; it raises what the module itself would.
    """

    kind: type[Module]
    settings: frozenset[str] | None
    optional: frozenset[str] = frozenset()
    check: Callable[[Any], None] = _nothing


# ---- modules on floats ----------------------------------------------------------------------------------

_NORM = "num_features eps momentum track_running_stats affine"
_CONV = "in_channels out_channels kernel_size stride padding dilation groups padding_mode"
_POOL = "kernel_size stride padding ceil_mode"
_RNN = "mode input_size hidden_size num_layers proj_size bias batch_first bidirectional dropout"
_CELL = "_kind input_size hidden_size bias"
_RESIZE = "size mode align_corners scale_factor recompute_scale_factor"
_MHA = "embed_dim num_heads kdim vdim dropout batch_first head_dim add_zero_attn"
_EMBEDDING = "num_embeddings embedding_dim padding_idx max_norm norm_type sparse scale_grad_by_freq"
_SHOWN = "_shown inplace"

FLOATS: Mapping[type[Module], str] = MappingProxyType(
    {
        nn.Linear: "in_features out_features", NonDynamicallyQuantizableLinear: "in_features out_features",
        nn.Bilinear: "in1_features in2_features out_features", nn.Embedding: _EMBEDDING,
        nn.Conv1d: _CONV, nn.Conv2d: _CONV, nn.ConvTranspose1d: f"{_CONV} output_padding",
        nn.ConvTranspose2d: f"{_CONV} output_padding",
        nn.BatchNorm1d: _NORM, nn.BatchNorm2d: _NORM, nn.BatchNorm3d: _NORM,
        nn.InstanceNorm1d: _NORM, nn.InstanceNorm2d: _NORM, nn.InstanceNorm3d: _NORM,
        nn.LayerNorm: "normalized_shape eps elementwise_affine",
        nn.RMSNorm: "normalized_shape eps elementwise_affine",
        nn.GroupNorm: "num_groups num_channels eps affine", nn.LocalResponseNorm: "size alpha beta k",
        nn.LSTM: _RNN, nn.GRU: _RNN, nn.RNN: f"{_RNN} nonlinearity",
        nn.LSTMCell: _CELL, nn.GRUCell: _CELL, nn.RNNCell: f"{_CELL} nonlinearity",
        nn.MultiheadAttention: _MHA, nn.Transformer: "d_model nhead batch_first",
        nn.TransformerEncoder: "num_layers enable_nested_tensor mask_check norm?",
        nn.TransformerDecoder: "num_layers norm?",
        nn.TransformerEncoderLayer: "norm_first activation",
        nn.TransformerDecoderLayer: "norm_first activation",
        nn.CELU: f"{_SHOWN} alpha", nn.ELU: f"{_SHOWN} alpha", nn.GELU: f"{_SHOWN} approximate",
        nn.GLU: "dim", nn.SELU: _SHOWN, nn.Hardshrink: f"{_SHOWN} lambd", nn.Hardsigmoid: _SHOWN,
        nn.Hardswish: _SHOWN, nn.Hardtanh: f"{_SHOWN} min_val max_val",
        nn.LeakyReLU: f"{_SHOWN} negative_slope", nn.LogSigmoid: "", nn.LogSoftmax: "dim", nn.Mish: _SHOWN,
        nn.PReLU: "num_parameters init", nn.ReLU: _SHOWN, nn.ReLU6: f"{_SHOWN} min_val max_val",
        nn.SiLU: _SHOWN, nn.Sigmoid: "", nn.Softmax: "dim", nn.Softmax2d: "", nn.Softmin: "dim",
        nn.Softplus: f"{_SHOWN} beta threshold", nn.Softshrink: f"{_SHOWN} lambd", nn.Softsign: "",
        nn.Tanh: "", nn.Tanhshrink: "", nn.Threshold: f"{_SHOWN} threshold value",
        nn.AdaptiveAvgPool1d: "output_size", nn.AdaptiveAvgPool2d: "output_size",
        nn.AdaptiveMaxPool1d: "output_size return_indices",
        nn.AdaptiveMaxPool2d: "output_size return_indices", nn.AvgPool1d: f"{_POOL} count_include_pad",
        nn.AvgPool2d: f"{_POOL} count_include_pad divisor_override",
        nn.MaxPool1d: f"{_POOL} dilation return_indices", nn.MaxPool2d: f"{_POOL} dilation return_indices",
        nn.MaxUnpool2d: "kernel_size stride padding",
        nn.AlphaDropout: "p inplace", nn.Dropout: "p inplace", nn.Dropout1d: "p inplace",
        nn.Dropout2d: "p inplace", nn.Dropout3d: "p inplace",
        nn.CircularPad1d: "padding", nn.CircularPad2d: "padding", nn.ConstantPad1d: "padding value",
        nn.ConstantPad2d: "padding value", nn.ReflectionPad1d: "padding", nn.ReflectionPad2d: "padding",
        nn.ReplicationPad1d: "padding", nn.ReplicationPad2d: "padding", nn.ZeroPad1d: "padding value",
        nn.ZeroPad2d: "padding value",
        nn.ChannelShuffle: "groups", nn.CosineSimilarity: "dim eps", nn.Flatten: "start_dim end_dim",
        nn.Identity: "", nn.PairwiseDistance: "norm eps keepdim", nn.PixelShuffle: "upscale_factor",
        nn.PixelUnshuffle: "downscale_factor", nn.Unflatten: "dim unflattened_size",
        nn.Upsample: _RESIZE, nn.UpsamplingBilinear2d: _RESIZE, nn.UpsamplingNearest2d: _RESIZE,
        nn.Sequential: "", nn.ModuleList: "", nn.ModuleDict: "", nn.ParameterList: "", nn.ParameterDict: "",
        **dict.fromkeys(
            (fusion.ConvReLU1d, fusion.ConvReLU2d, fusion.LinearReLU, fusion.BNReLU1d, fusion.BNReLU2d,
             fusion.BNReLU3d), ""),
        modules.QuantStub: "", modules.DeQuantStub: "", modules.Add: "relu", modules.Sub: "relu",
        modules.Mul: "relu", modules.Cat: "dim",
        GPT: "context", Block: "", CausalAttention: "heads p", MLP: "", ResNet: "", BasicBlock: "",
        Sum: "", Mean: "",
    }
)  # fmt: skip
"""Class -> its settings; "?" behind a name: an instance may lack it."""

# ---- modules on codes -----------------------------------------------------------------------------------

_LAYER = "relu mode weight_codes input_codes codes"
_CONVOLUTION = f"{_LAYER} stride padding dilation groups"
_OF_TWO = "relu mode a_codes b_codes codes"

CODES: Mapping[type[Module], str] = MappingProxyType(
    {
        static.StaticModel: "", modules.FloatIsland: "compute floats", modules.Quantize: "codes",
        modules.DeQuantize: "", modules.QuantizedLinear: _LAYER,
        modules.QuantizedConv1d: _CONVOLUTION, modules.QuantizedConv2d: _CONVOLUTION,
        modules.QuantizedConvTranspose1d: f"{_CONVOLUTION} output_padding",
        modules.QuantizedConvTranspose2d: f"{_CONVOLUTION} output_padding",
        modules.QuantizedAdd: _OF_TWO, modules.QuantizedSub: _OF_TWO, modules.QuantizedMul: _OF_TWO,
        modules.QuantizedCat: "mode count dim codes input_*_codes",
        modules.QuantizedTable: "name input_codes codes", modules.QuantizedSoftmax: "dim input_codes codes",
        modules.QuantizedReLU: "", modules.QuantizedFlatten: "start_dim end_dim", modules.QuantizedMove: "",
        modules.QuantizedZeroPad: "padding", modules.QuantizedConstantPad: "padding value",
        modules.QuantizedMaxPool1d: "window", modules.QuantizedMaxPool2d: "window",
        modules.QuantizedAvgPool1d: "window mode", modules.QuantizedAvgPool2d: "window mode",
        modules.QuantizedAdaptiveAvgPool1d: "output_size mode",
        modules.QuantizedAdaptiveAvgPool2d: "output_size mode",
        modules.QuantizedAdaptiveMaxPool1d: "output_size", modules.QuantizedAdaptiveMaxPool2d: "output_size",
    }
)  # fmt: skip
"""Class -> its settings; "*" stands for a number. Each may have a `path` too."""


def _check_codes(module: Any) -> None:
    """Look at the scales and zero points of a module, at the codes of its weight, at what an island takes."""
    if isinstance(module, modules.FloatIsland):
        _check_island(module)
    for name in vars(module):
        if name.endswith("codes"):
            affine = module.kept(name.removesuffix("codes"))
            if name == "weight_codes":
                QTensor(np.asarray(module.weight), affine)
                _check_bias(module)
            if name == "codes" and isinstance(module, modules.QuantizedTable):
                QTensor(np.asarray(module.table), affine)


def _check_island(module: Any) -> None:
    places = isinstance(module.floats, tuple) and all(isinstance(each, int) for each in module.floats)
    if module.compute not in COMPUTES or not places:
        raise SettingError(
            f"expected compute of {' or '.join(COMPUTES)} and places of inputs, got {module.compute!r} and "
            f"{module.floats!r}"
        )


def _check_bias(module: Any) -> None:
    if module.bias is None:
        return
    if module.bias.dtype != np.int32:
        raise FormatError(f"expected a bias in int32, got {module.bias.dtype}")
    if module.bias.shape != module.weight.shape[:1]:
        raise ShapeError(f"expected a bias of {module.weight.shape[0]}, got {module.bias.shape}")


def _check_dynamic(module: Any) -> None:
    for name in module._buffers:
        if name.endswith("_codes"):
            QTensor(np.asarray(getattr(module, name)), module.affine(name.removesuffix("_codes")))


def _check_narrow(module: Any) -> None:
    module.read_weights()


DYNAMIC = (
    dynamic.DynamicQuantizedLinear, dynamic.DynamicQuantizedEmbedding, dynamic.DynamicQuantizedLSTM,
    dynamic.DynamicQuantizedGRU, dynamic.DynamicQuantizedRNN, dynamic.DynamicQuantizedMultiheadAttention,
)  # fmt: skip
NARROW = {made: kind for kind, made in narrow_weights.CLASSES.items() if kind in narrow_weights.KINDS}


def _table() -> dict[str, Row]:
    """Return the name of each class -> its row."""
    found: dict[str, Row] = {}
    path = frozenset({"path"})
    for kind, words in {**FLOATS, **CODES}.items():
        check = _check_codes if issubclass(kind, QuantizedModule) else _nothing
        names = words.split()
        optional = frozenset(each.rstrip("?") for each in names if each.endswith("?"))
        own = path if issubclass(kind, QuantizedModule) else frozenset()
        needed = frozenset(each for each in names if not each.endswith("?"))
        found[kind.__name__] = Row(kind, needed, optional | own, check)
    for each in DYNAMIC:
        found[each.__name__] = _derived(each, each.source, "how", _check_dynamic)
    for narrow, kind in NARROW.items():
        found[narrow.__name__] = _derived(narrow, kind, "narrow words", _check_narrow)
    return found


def _derived(made: type[Module], kind: type[Module], more: str, check: Callable[[Any], None]) -> Row:
    """Return the row of a class that has the settings of another, and more."""
    return Row(made, frozenset(f"{FLOATS[kind]} {more}".split()), check=check)


ROWS: Mapping[str, Row] = MappingProxyType(_table())
"""Name of a class -> its row."""


def rows_for(classes: Iterable[type[Module]], op: str) -> Mapping[str, Row]:
    """Return the table with classes of the user's own.

    Raises:
        SettingError: one of them is no class of modules, or has the name of another in the table.
    """
    own: dict[str, Row] = {}
    for kind in classes:
        if not _is_module_class(kind):
            raise SettingError(f"expected classes of modules, got {kind!r}", op=op)
        taken = {**ROWS, **own}.get(kind.__name__, Row(kind, None))
        if taken.kind is not kind:
            raise SettingError(
                f"two classes are called {kind.__name__!r}", op=op, help="files tell classes apart by name"
            )
        own[kind.__name__] = taken
    return {**ROWS, **own}


def _is_module_class(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Module)
