"""Every module as one row: how it is made, and what it is called with. The tests of modules run over them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minimp import nn

Make = Callable[[np.random.Generator], Any]


@dataclass(frozen=True)
class Row:
    """A module, written as one writes it with torch's names, and the inputs of its forward.

    Attributes:
        text: an expression over the names of `minimp.nn` or of `torch.nn`.
        inputs, options: what makes the positional and keyword arguments.
        mode: "train" or "eval".
        narrow: why torch's float64 gradients are no better than float32's, or "".
    """

    text: str
    inputs: tuple[Make, ...] = ()
    options: dict[str, Make] = field(default_factory=dict)
    mode: str = "train"
    narrow: str = ""


def floats(*shape: int) -> Make:
    """Return a maker of normal numbers."""
    return lambda rng: rng.standard_normal(shape)


def integers(high: int, *shape: int) -> Make:
    """Return a maker of whole numbers from 0 to high - 1."""
    return lambda rng: rng.integers(0, high, shape)


def walls(*shape: int) -> Make:
    """Return a maker of masks that leave the first place of each row open."""

    def make(rng: np.random.Generator) -> Any:
        mask = rng.random(shape) < 0.4
        mask[..., 0] = False
        return mask

    return make


def const(value: Any) -> Make:
    """Return a maker of one value."""
    return lambda _: value


def both(*makers: Make) -> Make:
    """Return a maker of a tuple."""
    return lambda rng: tuple(make(rng) for make in makers)


def build(text: str, space: Any) -> Any:
    """Return the module that `text` makes with the names of `space`."""
    known = {name: getattr(space, name) for name in nn.__all__ if hasattr(space, name)}
    return eval(text, {"OrderedDict": OrderedDict}, known)


SEED = 20180215


def arguments(row: Row, rng: np.random.Generator, make: Any) -> tuple[list[Any], dict[str, Any], list[Any]]:
    """Return positional and keyword arguments, and those among them that need a gradient."""
    leaves: list[Any] = []

    def convert(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(convert(each) for each in x)
        if not isinstance(x, np.ndarray):
            return x
        made = make(x)
        if x.dtype.kind == "f":
            leaves.append(made)
        return made

    args = [convert(maker(rng)) for maker in row.inputs]
    return args, {name: convert(maker(rng)) for name, maker in row.options.items()}, leaves


def flat(y: Any) -> list[Any]:
    """Return the tensors of an output in order."""
    if isinstance(y, tuple | list):
        return [x for each in y for x in flat(each)]
    return [] if y is None else [y]


def called(row: Row, module: Any, make: Any, dtype: str) -> tuple[list[Any], list[Any]]:
    """Return the outputs for inputs of one seed in one format, and the inputs that need a gradient."""

    def convert(x: Any) -> Any:
        real = x.dtype.kind == "f"
        return make(x.astype(dtype) if real else x, requires_grad=real)

    args, options, leaves = arguments(row, np.random.default_rng(SEED), convert)
    return flat(module(*args, **options)), leaves


VECTORS, SIGNALS, IMAGES = floats(5, 7), floats(2, 4, 9), floats(2, 4, 7, 6)


def _wide(rng: np.random.Generator) -> Any:
    """Make numbers on both sides of every kink, and the kinks themselves."""
    kinks = [-6.0, -3.0, -2.0, -1.0, -0.5, -0.25, 0.0, 0.1, 0.25, 0.5, 1.0, 3.0, 6.0, 25.0]
    return np.concatenate([kinks, 3 * rng.standard_normal(50)])


WIDE: Make = _wide

LINEAR = (
    Row("Linear(6, 3)", (floats(4, 6),)),
    Row("Linear(6, 3, bias=False)", (floats(2, 4, 6),)),
    Row("Bilinear(3, 4, 5)", (floats(6, 3), floats(6, 4))),
    Row("Bilinear(3, 4, 5, bias=False)", (floats(2, 6, 3), floats(2, 6, 4))),
    Row("Identity(3, unused=True)", (VECTORS,)),
    Row("CosineSimilarity()", (VECTORS, VECTORS)),
    Row("CosineSimilarity(dim=0, eps=1e-3)", (VECTORS, VECTORS)),
    Row("PairwiseDistance()", (VECTORS, VECTORS)),
    Row("PairwiseDistance(p=1.0, keepdim=True)", (VECTORS, VECTORS)),
    Row("Embedding(9, 4)", (integers(9, 3, 5),)),
    Row("Embedding(9, 4, padding_idx=-2, scale_grad_by_freq=True)", (integers(9, 3, 5),)),
)
RECURRENT = (
    Row("RNN(4, 5)", (floats(7, 3, 4),)),
    Row("RNN(4, 5, 2, 'relu', bias=False, bidirectional=True)", (floats(7, 3, 4), floats(4, 3, 5))),
    Row("LSTM(4, 5)", (floats(7, 3, 4),)),
    Row("LSTM(4, 5, 2, batch_first=True, bidirectional=True)", (floats(3, 7, 4),)),
    Row("LSTM(4, 5, 3, bias=False)", (floats(6, 4), both(floats(3, 5), floats(3, 5)))),
    Row("LSTM(4, 5, 2, proj_size=3)", (floats(7, 2, 4), both(floats(2, 2, 3), floats(2, 2, 5)))),
    Row("LSTM(4, 5, 2, dropout=0.25)", (floats(7, 3, 4),), mode="eval"),
    Row("GRU(4, 5)", (floats(1, 3, 4),)),
    Row("GRU(4, 5, 2, bidirectional=True)", (floats(7, 3, 4), floats(4, 3, 5))),
    Row("RNNCell(4, 5)", (floats(3, 4), floats(3, 5))),
    Row("RNNCell(4, 5, bias=False, nonlinearity='relu')", (floats(4),)),
    Row("LSTMCell(4, 5)", (floats(3, 4), both(floats(3, 5), floats(3, 5)))),
    Row("LSTMCell(4, 5, bias=False)", (floats(3, 4),)),
    Row("GRUCell(4, 5)", (floats(3, 4), floats(3, 5))),
)
ATTENTION = (
    Row("MultiheadAttention(6, 2)", (floats(5, 3, 6), floats(4, 3, 6), floats(4, 3, 6))),
    Row(
        "MultiheadAttention(6, 3, bias=False, kdim=4, vdim=5, batch_first=True)",
        (floats(2, 5, 6), floats(2, 4, 4), floats(2, 4, 5)),
        {"key_padding_mask": walls(2, 4), "attn_mask": walls(5, 4), "average_attn_weights": const(False)},
    ),
    Row(
        "MultiheadAttention(6, 2, add_bias_kv=True, add_zero_attn=True)",
        (floats(5, 3, 6), floats(4, 3, 6), floats(4, 3, 6)),
        {"key_padding_mask": walls(3, 4), "attn_mask": floats(6, 5, 4)},
    ),
    Row(
        "MultiheadAttention(6, 2, batch_first=True)",
        (floats(5, 6), floats(4, 6), floats(4, 6)),
        {"need_weights": const(False), "key_padding_mask": floats(4)},
    ),
    Row("TransformerEncoderLayer(6, 2, 8, dropout=0.0)", (floats(5, 3, 6),)),
    Row(
        "TransformerEncoderLayer(6, 3, 8, 0.0, 'gelu', batch_first=True, norm_first=True, bias=False)",
        (floats(2, 5, 6),),
        {"src_mask": walls(5, 5), "src_key_padding_mask": walls(2, 5)},
    ),
    Row(
        "TransformerDecoderLayer(6, 2, 8, dropout=0.0, activation=GELU())",
        (floats(5, 3, 6), floats(4, 3, 6)),
        {"tgt_mask": walls(5, 5), "memory_key_padding_mask": walls(3, 4)},
    ),
    Row("TransformerDecoderLayer(6, 2, 8, 0.0, norm_first=True)", (floats(5, 6), floats(4, 6))),
    Row(
        "TransformerEncoder(TransformerEncoderLayer(6, 2, 8, 0.0), 2, LayerNorm(6), False)",
        (floats(5, 3, 6),),
    ),
    Row("TransformerDecoder(TransformerDecoderLayer(6, 2, 8, 0.0), 2)", (floats(5, 3, 6), floats(4, 3, 6))),
    Row(
        "Transformer(6, 2, 1, 1, 8, 0.0, batch_first=True, norm_first=True)",
        (floats(3, 5, 6), floats(3, 4, 6)),
    ),
)
CONVOLUTION = (
    Row("Conv1d(4, 6, 3)", (SIGNALS,)),
    Row("Conv1d(4, 6, 4, 2, 3, 2, 2, False)", (SIGNALS,)),
    Row("Conv1d(4, 6, 3, padding=2, padding_mode='circular')", (SIGNALS,)),
    Row("Conv2d(4, 6, 3)", (IMAGES,)),
    Row("Conv2d(4, 6, (3, 2), stride=2, padding=(1, 0), dilation=(2, 1), groups=2, bias=False)", (IMAGES,)),
    Row("Conv2d(4, 6, 3, padding='same')", (IMAGES,)),
    Row("Conv2d(4, 6, (2, 4), padding='same')", (IMAGES,)),
    Row("Conv2d(4, 6, 3, 2, padding='valid')", (floats(4, 7, 6),)),
    Row("Conv2d(4, 4, 3, padding=(2, 1), padding_mode='reflect')", (IMAGES,)),
    Row("Conv2d(4, 4, (3, 2), padding='same', padding_mode='replicate')", (IMAGES,)),
    Row("Conv2d(4, 4, 3, padding=1, padding_mode='circular', bias=False)", (IMAGES,)),
    Row("ConvTranspose1d(4, 6, 3)", (SIGNALS,)),
    Row("ConvTranspose1d(4, 6, 3, 2, 1, 1, 2)", (floats(4, 9),)),
    Row("ConvTranspose2d(4, 6, 3)", (IMAGES,)),
    Row("ConvTranspose2d(4, 6, (3, 2), 2, (1, 0), 1, groups=2, bias=False, dilation=(2, 1))", (IMAGES,)),
    Row("ConvTranspose2d(4, 6, 3, stride=3)", (IMAGES,), {"output_size": const((22, 18))}),
)
POOLING = (
    Row("MaxPool1d(3, 2, 1)", (SIGNALS,)),
    Row("MaxPool2d(2)", (IMAGES,)),
    Row("MaxPool2d((3, 2), stride=(1, 2), padding=1, dilation=1, ceil_mode=True)", (floats(4, 7, 6),)),
    Row("MaxUnpool2d(2)", (floats(1, 2, 2, 2), const(np.array([[[[0, 3], [8, 10]], [[5, 2], [9, 15]]]])))),
    Row("AvgPool1d(3, 2, 1, count_include_pad=False)", (SIGNALS,)),
    Row("AvgPool2d(2)", (IMAGES,)),
    Row("AvgPool2d((2, 3), stride=2, padding=1, ceil_mode=True, count_include_pad=False)", (IMAGES,)),
    Row("AdaptiveAvgPool1d(4)", (SIGNALS,)),
    Row("AdaptiveAvgPool2d(1)", (IMAGES,)),
    Row("AdaptiveAvgPool2d((3, None))", (floats(4, 7, 6),)),
    Row("AdaptiveMaxPool1d(4)", (SIGNALS,)),
    Row("AdaptiveMaxPool2d((3, 5))", (IMAGES,)),
)
NORMALISATION = (
    Row("LayerNorm(7)", (VECTORS,)),
    Row("LayerNorm((5, 7), eps=1e-3, bias=False)", (VECTORS,)),
    Row("LayerNorm(7, elementwise_affine=False)", (VECTORS,)),
    Row("RMSNorm(7)", (VECTORS,)),
    Row("RMSNorm((5, 7), eps=1e-6)", (VECTORS,)),
    Row("RMSNorm(7, elementwise_affine=False)", (VECTORS,)),
    Row("BatchNorm1d(7)", (VECTORS,)),
    Row("BatchNorm1d(4, eps=1e-3, momentum=0.3, bias=False)", (SIGNALS,)),
    Row("BatchNorm1d(7)", (VECTORS,), mode="eval"),
    Row("BatchNorm2d(4)", (IMAGES,)),
    Row("BatchNorm2d(4, momentum=None)", (IMAGES,)),
    Row("BatchNorm2d(4, affine=False)", (IMAGES,), mode="eval"),
    Row("BatchNorm2d(4, track_running_stats=False)", (IMAGES,), mode="eval"),
    Row("BatchNorm3d(4)", (floats(2, 4, 3, 3, 2),)),
    Row("GroupNorm(2, 4)", (IMAGES,)),
    Row("GroupNorm(1, 4, eps=1e-3, bias=False)", (SIGNALS,)),
    Row("GroupNorm(4, 4, affine=False)", (floats(3, 4, 5),)),
    Row("InstanceNorm1d(4)", (SIGNALS,)),
    Row("InstanceNorm1d(4, affine=True)", (floats(4, 9),)),
    Row("InstanceNorm2d(4, affine=True, track_running_stats=True)", (IMAGES,)),
    Row("InstanceNorm2d(4, affine=True, track_running_stats=True)", (IMAGES,), mode="eval"),
    Row("LocalResponseNorm(2)", (IMAGES,)),
    Row("LocalResponseNorm(3, 0.1, 0.5, 2.0)", (SIGNALS,)),
    Row("InstanceNorm3d(4)", (floats(2, 4, 3, 3, 2),)),
)
ACTIVATIONS = (
    Row("ReLU()", (VECTORS,)),
    Row("Tanh()", (VECTORS,)),
    Row("Sigmoid()", (VECTORS,)),
    Row("GELU()", (VECTORS,)),
    Row("GELU('tanh')", (VECTORS,)),
    Row("Softmax(dim=1)", (VECTORS,)),
    Row("LogSoftmax(dim=0)", (VECTORS,)),
    Row("Softmin(dim=-1)", (VECTORS,)),
    Row("Softmax2d()", (IMAGES,)),
    Row("SiLU()", (WIDE,)),
    Row("Mish()", (WIDE,)),
    Row("Softplus()", (WIDE,)),
    Row("Softplus(beta=2.0, threshold=1.0)", (WIDE,)),
    Row("LeakyReLU()", (WIDE,)),
    Row("LeakyReLU(0.2)", (WIDE,)),
    Row("ELU()", (WIDE,)),
    Row("ELU(1.5)", (WIDE,)),
    Row("CELU(0.5)", (WIDE,)),
    Row("SELU()", (WIDE,)),
    Row("Hardswish()", (WIDE,)),
    Row("Hardsigmoid()", (WIDE,), narrow="its kernel takes 1/6 in float32"),
    Row("Hardtanh()", (WIDE,)),
    Row("Hardtanh(-2.0, 0.5)", (WIDE,)),
    Row("ReLU6()", (WIDE,)),
    Row("LogSigmoid()", (WIDE,)),
    Row("Softsign()", (WIDE,)),
    Row("Tanhshrink()", (WIDE,)),
    Row("Hardshrink()", (WIDE,)),
    Row("Softshrink(0.25)", (WIDE,)),
    Row("Threshold(0.1, 20.0)", (WIDE,)),
    Row("GLU()", (floats(3, 8),)),
    Row("GLU(0)", (floats(6, 3),)),
    Row("PReLU()", (WIDE,)),
    Row("PReLU(4, 0.1)", (IMAGES,)),
)
SHAPING = (
    Row("ConstantPad1d(2, 1.5)", (SIGNALS,)),
    Row("ConstantPad2d((1, 2, 0, -1), 1.5)", (IMAGES,)),
    Row("ZeroPad1d((1, 0))", (SIGNALS,)),
    Row("ZeroPad2d(2)", (IMAGES,)),
    Row("ReflectionPad1d(2)", (SIGNALS,)),
    Row("ReflectionPad2d((1, 2, 3, 0))", (floats(4, 7, 6),)),
    Row("ReplicationPad1d(2)", (SIGNALS,)),
    Row("ReplicationPad2d((1, 2, 3, 0))", (IMAGES,)),
    Row("CircularPad1d((1, 2))", (SIGNALS,)),
    Row("CircularPad2d(2)", (IMAGES,)),
    Row("Upsample(scale_factor=2)", (IMAGES,)),
    Row("Upsample((9, 5), mode='bilinear', align_corners=False)", (IMAGES,)),
    Row("Upsample(scale_factor=(1.5, 2), mode='bilinear')", (IMAGES,)),
    Row("Upsample(size=11, mode='linear')", (SIGNALS,)),
    Row("UpsamplingNearest2d(size=(9, 8))", (IMAGES,)),
    Row("UpsamplingBilinear2d(scale_factor=2)", (IMAGES,)),
    Row("PixelShuffle(2)", (floats(2, 8, 3, 4),)),
    Row("PixelUnshuffle(2)", (floats(3, 4, 6),)),
    Row("ChannelShuffle(2)", (IMAGES,)),
    Row("Unflatten(1, (2, -1))", (IMAGES,)),
    Row("Unflatten(-1, [3, 2])", (IMAGES,)),
    Row("Flatten()", (IMAGES,)),
    Row("Flatten(0, 1)", (IMAGES,)),
    Row("Dropout()", (VECTORS,), mode="eval"),
    Row("Dropout(0.1)", (VECTORS,), mode="eval"),
    Row("Dropout1d()", (VECTORS,), mode="eval"),
    Row("Dropout2d(0.2)", (IMAGES,), mode="eval"),
    Row("Dropout3d(0.2)", (IMAGES,), mode="eval"),
    Row("AlphaDropout(0.2)", (VECTORS,), mode="eval"),
)
CONTAINERS = (
    Row("Sequential()", (VECTORS,)),
    Row("Sequential(Conv2d(4, 3, 3, bias=False), BatchNorm2d(3), ReLU(), MaxPool2d(2))", (IMAGES,)),
    Row(
        "Sequential(Conv2d(1, 2, 3), ReLU(), Sequential(Flatten(), Linear(40, 2)), Dropout(0.0))",
        (floats(3, 1, 7, 6),),
    ),
    Row("Sequential(OrderedDict(first=Linear(2, 2), then=Tanh()))", (floats(3, 2),)),
    Row("ModuleList()"),
    Row("ModuleDict()"),
    Row("ModuleList([Linear(2, 2), Linear(2, 2), ReLU(), Linear(2, 2)])"),
    Row("ModuleList([Sequential(ReLU()), Sequential(ReLU())])"),
    Row("ModuleDict({'a': Linear(1, 2), 'b': ModuleList([ReLU()])})"),
)
ROWS = (
    *LINEAR, *RECURRENT, *ATTENTION, *CONVOLUTION, *POOLING, *NORMALISATION, *ACTIVATIONS, *SHAPING,
    *CONTAINERS,
)  # fmt: skip
