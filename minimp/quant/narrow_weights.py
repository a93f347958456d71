"""Weights stored in 8 bits or fewer and read back for each product; all computing stays in floating point.

A weight is seen as a matrix of one row for each output, (rows, what is summed over), in which each block of a
row has a scale (:mod:`minimp.formats.blocks`)::

    w ~ t s e,   e = w / (t s), rounded once
                 s = float32(amax / largest e)              "int8", "float8_e4m3fn", and other plain formats
                 s by the rule of a block format            "mxfp8", "mxint8", "nvfp4", ...

t is 1 but for nvfp4. The product sees t s e, rounded once to the format that the weight had. Gradients of
inputs pass, as through any constant weight; the codes themselves have none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp import formats, nn
from minimp.errors import FormatError, SettingError, unknown_name
from minimp.formats import Format
from minimp.formats.blocks.arrays import quantize as to_blocks
from minimp.formats.blocks.table import BLOCK_FORMATS, BlockFormat, block_format
from minimp.formats.packing import pack, unpack
from minimp.nn.attention import NonDynamicallyQuantizableLinear
from minimp.nn.making import whole
from minimp.nn.module import Module
from minimp.quant.exchanging import Exchange, Narrowed, blank, exchange, weights_of
from minimp.quant.layer_reports import LayerReport
from minimp.tensors import Tensor

__all__ = ["NarrowWeights", "weight_only"]

Floats = npt.NDArray[np.float32]
KINDS: tuple[type[Module], ...] = (
    nn.Linear, nn.Bilinear, nn.Conv1d, nn.Conv2d, nn.Embedding, nn.RNN, nn.LSTM, nn.GRU,
    nn.MultiheadAttention,
)  # fmt: skip
"""Layers whose weights have their outputs along the first axis."""
GRANULARITIES = ("per-channel", "per-group")
VECTORS = "its weights are vectors"
NORMS: tuple[type[Module], ...] = (
    nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d,
)  # fmt: skip
TURNED = "its weights have their outputs along the second axis, and stay in floating point"
MOST_BITS = 8


@dataclass(frozen=True)
class Stored:
    """How one weight is stored.

    Attributes:
        shape: of the weight.
        format: of the weight, and of what is read back.
        blocks: the block format of the matrix (rows, the other axes).
    """

    shape: tuple[int, ...]
    format: Format
    blocks: BlockFormat

    @property
    def columns(self) -> int:
        """Numbers in a row of the matrix."""
        return int(np.prod(self.shape[1:]))


class NarrowWeights(Narrowed):
    """The first base of every weight-only layer; the second is the layer's own class, whose forward runs.

    Buffers of a weight W: `W_codes`, int8 or packed uint8 (rows, bytes a row); `W_scales`, float32, or uint8
    codes of a narrower format, one a block; `W_tensor_scale`, float32 (), where the format has one. `W`
    itself is made from them whenever it is read.

    Attributes:
        narrow: name -> how a weight is stored.
        words: what `repr` says of that.
    """

    narrow: dict[str, Stored]
    words: str

    def __getattr__(self, name: str) -> Any:
        narrow = self.__dict__.get("narrow", {})
        if name not in narrow:
            return super().__getattr__(name)
        codes, how = getattr(self, f"{name}_codes"), narrow[name]
        values = codes.backend.from_host(self._read(name))
        same = how.format is formats.float32
        return Tensor(values if same else codes.backend.cast(values, how.format), codes.backend)

    def stored(self) -> str:
        """Say how weights are stored."""
        return self.words

    def read_weights(self) -> dict[str, Floats]:
        """Return name -> t s e, rounded once to float32."""
        found = {name: self._read(name) for name in self.narrow}
        for path, child in self.named_children():
            if isinstance(child, NarrowWeights):
                found |= {f"{path}.{name}": values for name, values in child.read_weights().items()}
        return found

    def _read(self, name: str) -> Floats:
        how, form = self.narrow[name], self.narrow[name].blocks
        codes, scales = (np.asarray(getattr(self, f"{name}_{part}")) for part in ("codes", "scales"))
        wanted = np.dtype(np.int8 if _is_int8(form.element) else np.uint8), _scale_dtype(form)
        if (codes.dtype, scales.dtype) != wanted:
            raise FormatError(
                f"expected {name}_codes in {wanted[0]} and {name}_scales in {wanted[1]}, got "
                f"{codes.dtype} and {scales.dtype}",
                op=self._name(), formats=[str(codes.dtype), str(scales.dtype)],
                help="a model is moved to another format before its weights are narrowed, not after",
            )  # fmt: skip
        elements = _values_of(codes, form, how.columns)
        spread = _spread(self._factors(name), elements.shape, form)
        with np.errstate(over="ignore", under="ignore"):
            made: Floats = (elements * spread).astype(np.float32, copy=False)
        return made.reshape(how.shape)

    def _factors(self, name: str) -> npt.NDArray[Any]:
        """Return t s of each block."""
        form, scales = self.narrow[name].blocks, np.asarray(getattr(self, f"{name}_scales"))
        factors = scales if scales.dtype == np.float32 else formats.decode(scales, form.scale)
        if form.tensor_scale:
            factors = factors.astype(np.float64) * float(np.asarray(getattr(self, f"{name}_tensor_scale")))
        return factors

    def largest_scale(self) -> float:
        """Return the largest t s: what an element of 1 stands for in that block."""
        layers = [each for each in self.modules() if isinstance(each, NarrowWeights)]
        return max(float(made._factors(name).max()) for made in layers for name in made.narrow)

    def extra_repr(self) -> str:
        """Show what the layer shows, and how its weights are stored."""
        return ", ".join(filter(None, (super().extra_repr(), f"weights {self.words}")))


@dataclass(frozen=True)
class _Way:
    """What :func:`weight_only` was asked for."""

    dtype: Any
    granularity: str | None
    group_size: int
    made: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    """By the id of a parameter: the buffers made of it, so that tied weights become tied codes."""

    def blocks_for(self, columns: int) -> BlockFormat:
        """Return the block format of a matrix with rows of this length."""
        if self.granularity is None:
            return block_format(self.dtype)
        form = formats.get(self.dtype)
        length = columns if self.granularity == "per-channel" else self.group_size
        return BlockFormat(form.name, form, formats.float32, (length,), "amax")

    @property
    def words(self) -> str:
        """Say it in at most 20 columns."""
        if self.granularity is None:
            return block_format(self.dtype).name
        name = formats.get(self.dtype).name.replace("float8_", "fp8_")
        return f"{name} / {'row' if self.granularity == 'per-channel' else self.group_size}"


def weight_only(
    model: Module, dtype: Any = "int8", modules: Iterable[Any] | None = None, *,
    granularity: str | None = None, group_size: int = 128, inplace: bool = False,
) -> tuple[Module, LayerReport]:  # fmt: skip
    """Store the weights of layers narrow, and read them back for each product; for inference.

    Biases, norms and transposed convolutions stay as they are. A product costs what it did, and the reading.

    Args:
        model: a model in floating point.
        dtype: a signed format of at most 8 bits, ``"int8"`` (codes -127..127), ``"float8_e4m3fn"``,
            ``"float4_e2m1fn"``, ..., with float32 scales; or a block format by name, ``"mxfp8"``,
            ``"mxint8"``, ``"mxfp4"``, ``"nvfp4"``, ... (:mod:`minimp.formats.blocks.table`).
        modules: classes and paths, a path standing for all layers below it. None is all of nn.Linear,
            Bilinear, Conv1d, Conv2d, Embedding, RNN, LSTM, GRU and MultiheadAttention.
        granularity: of the scales of a plain format: ``"per-channel"`` (the default), one for each output;
            ``"per-group"``, one for each `group_size` neighbours of an output's weights. A block format has
            its own.
        group_size: numbers that share a scale in ``"per-group"``.
        inplace: change `model` itself. By default it stays as it is, and a copy is changed.

    Returns:
        (the model that was changed, the report): the report shows a table of what was converted, with bytes
        before and after and the noise, and why the other layers were left.

    Raises:
        SettingError: codes in the model already; a class or path that cannot be converted; nothing to
            convert; unknown settings, or granularity with a block format.
        FormatError: an unknown format, or one that is unsigned or of more than 8 bits.
        DataError: an infinity or NaN in a weight; the message names the layer. Nothing has changed then.
    """
    way = _checked(dtype, granularity, group_size)
    table = {kind: (lambda layer: _narrowed(layer, way)) for kind in KINDS}
    hints = dict.fromkeys(NORMS, VECTORS) | {nn.ConvTranspose1d: TURNED, nn.ConvTranspose2d: TURNED}
    return exchange(model, modules, Exchange("weight_only", table, {}, hints), inplace=inplace)


def _checked(dtype: Any, granularity: str | None, group_size: int) -> _Way:
    """Return the way, or say what is wrong with it."""
    if isinstance(dtype, BlockFormat) or (isinstance(dtype, str) and _is_block(dtype)):
        if granularity is not None:
            raise SettingError(
                f"granularity={granularity!r} cannot act: {block_format(dtype).name} has blocks of its own",
                op="weight_only", help="leave it out, or take a plain format such as float8_e4m3fn",
            )  # fmt: skip
        return _Way(dtype, None, 0)
    try:
        form = formats.get(dtype)
    except FormatError as fault:
        known = [each.name for each in formats.FORMATS.values() if _is_narrow(each)]
        raise FormatError(
            unknown_name("format of weights", str(dtype), (*known, *BLOCK_FORMATS)), op="weight_only"
        ) from fault
    if not _is_narrow(form):
        raise FormatError(
            f"expected a signed format of at most {MOST_BITS} bits, got {form.name}",
            op="weight_only", formats=[form.name],
            help=f"mp.export writes 16-bit weights; block formats: {', '.join(BLOCK_FORMATS)}",
        )  # fmt: skip
    chosen = granularity or "per-channel"
    if chosen not in GRANULARITIES:
        raise SettingError(unknown_name("granularity", chosen, GRANULARITIES), op="weight_only")
    return _Way(dtype, chosen, whole("group_size", group_size, "weight_only"))


def _is_narrow(form: Format) -> bool:
    return form.bits <= MOST_BITS and form.has_zero and form.signed


def _is_block(name: str) -> bool:
    try:
        block_format(name)
    except FormatError:
        return False
    return True


def _class_of(kind: type[Module]) -> type[NarrowWeights]:
    """Make the weight-only class of a layer's class."""
    note = f"{kind.__name__} with weights that are stored narrow; see :class:`NarrowWeights`."
    made: type[NarrowWeights] = type(f"WeightOnly{kind.__name__}", (NarrowWeights, kind), {"__doc__": note})
    return made


CLASSES = {kind: _class_of(kind) for kind in KINDS}
CLASSES[NonDynamicallyQuantizableLinear] = CLASSES[nn.Linear]
"""By the class of a layer, that of the layer with narrow weights."""


def _narrowed(layer: Module, way: _Way) -> NarrowWeights:
    """Return the weight-only form of a layer: matrices become codes, vectors stay."""
    made: NarrowWeights = blank(CLASSES[type(layer)], layer)
    made.narrow, made.words = {}, way.words
    parameters: Any = layer._parameters
    for name, leaf in parameters.items():
        if leaf is not None and "weight" in name and leaf.ndim > 1:
            _store(made, layer, name, way)
        else:
            made.register_parameter(name, leaf)
    for name, child in layer.named_children():
        made.add_module(name, _narrowed(child, way))
    return made


def _store(made: NarrowWeights, layer: Module, name: str, way: _Way) -> None:
    """Give a module the codes and scales of a weight."""
    leaf = getattr(layer, name)
    form = way.blocks_for(leaf.size // len(leaf))
    made.narrow[name] = Stored(leaf.shape, leaf.format, form)
    if id(leaf) not in way.made:
        values = weights_of(layer, name, "weight_only")
        q = to_blocks(values.reshape(len(values), -1), form)
        codes = q.codes.view(np.int8) if _is_int8(form.element) else pack(q.codes, form.element)
        parts = {"codes": codes, "scales": q.scale_codes.view(_scale_dtype(form))}
        if form.tensor_scale:
            parts["tensor_scale"] = np.asarray(q.tensor_scale, np.float32)
        where = leaf.backend
        way.made[id(leaf)] = {part: Tensor(where.from_host(each), where) for part, each in parts.items()}
    for part, buffer in way.made[id(leaf)].items():
        made.register_buffer(f"{name}_{part}", buffer)


def _is_int8(form: Format) -> bool:
    return form is formats.get("int8")


def _scale_dtype(form: BlockFormat) -> np.dtype[Any]:
    """The dtype of the stored scales."""
    return np.dtype(np.float32 if form.scale is formats.float32 else form.scale.code_dtype)


@cache
def _table_of(form: BlockFormat) -> Floats:
    """Return the value of each element code in float32, exactly."""
    codes = np.arange(1 << form.element.bits).astype(form.element.code_dtype)
    values: Floats = np.ldexp(formats.decode(codes, form.element), form.element_exponent).astype(np.float32)
    return values


def _values_of(codes: npt.NDArray[Any], form: BlockFormat, columns: int) -> Floats:
    """Return the elements of stored codes, (rows, columns)."""
    if _is_int8(form.element):
        whole_numbers: Floats = codes.astype(np.float32)
        return np.ldexp(whole_numbers, form.element_exponent) if form.element_exponent else whole_numbers
    values: Floats = _table_of(form)[unpack(codes, form.element, columns)]
    return values


def _spread(scales: npt.NDArray[Any], shape: tuple[int, ...], form: BlockFormat) -> npt.NDArray[Any]:
    """Return the scale of each number of the matrix, or a column of them where rows have one each."""
    down, along = form.block if len(form.block) == 2 else (1, form.block[0])
    if scales.shape[1] > 1:
        scales = np.repeat(scales, along, axis=1)[:, : shape[1]]
    return scales if down == 1 else np.repeat(scales, down, axis=0)[: shape[0]]
