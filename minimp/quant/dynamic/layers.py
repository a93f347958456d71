"""Layers with int8 weights and dynamic activations: linear, embedding, attention."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from minimp import functional
from minimp.errors import FormatError, SettingError
from minimp.nn import Embedding, Linear, MultiheadAttention
from minimp.nn.module import Module
from minimp.quant.affine import Affine, dequantize
from minimp.quant.dynamic.products import Arithmetic, dynamic_linear, quantize_weight
from minimp.quant.exchanging import Narrowed, blank, weights_of
from minimp.tensors import Tensor

__all__ = [
    "Dynamic", "DynamicQuantizedEmbedding", "DynamicQuantizedLinear", "DynamicQuantizedMultiheadAttention",
    "Packing",
]  # fmt: skip

Floats = npt.NDArray[np.float32]


class Packing:
    """Turns weights into buffers of codes; a tied weight becomes tied codes where their scales are alike.

    Args:
        how: the arithmetic of the layers.
    """

    def __init__(self, how: Arithmetic) -> None:
        self.how = how
        self._made: dict[tuple[int, str], tuple[Tensor, Tensor, Tensor]] = {}

    def weight(self, made: Module, layer: Module, name: str, granularity: str | None = None) -> None:
        """Give `made` the buffers NAME_codes, NAME_scale and NAME_zero_point of a weight of `layer`."""
        granularity = granularity or self.how.granularity
        leaf = getattr(layer, name)
        key = id(leaf), granularity
        if key not in self._made:
            q = quantize_weight(weights_of(layer, name, "quantize_dynamic"), granularity)
            parts = (q.codes.copy(), q.affine.scale.copy(), q.affine.zero_point.copy())
            codes, scale, zero = (Tensor(leaf.backend.from_host(each), leaf.backend) for each in parts)
            self._made[key] = codes, scale, zero
        for part, tensor in zip(("codes", "scale", "zero_point"), self._made[key], strict=True):
            made.register_buffer(f"{name}_{part}", tensor)

    def bias(self, made: Module, layer: Module, name: str) -> None:
        """Give `made` the bias of `layer` as a float32 buffer, or None where there is none."""
        leaf = getattr(layer, name)
        buffer = None
        if leaf is not None:
            buffer = Tensor(leaf.backend.from_host(weights_of(layer, name, "quantize_dynamic").copy()),
                            leaf.backend)  # fmt: skip
        made.register_buffer(name, buffer)


class Dynamic(Narrowed):
    """What the dynamic layers share; each is made by :meth:`from_float`, for inference.

    Buffers of a weight W: `W_codes` (int8), `W_scale` (float32) and `W_zero_point` (int32, always 0),
    of shape () or (rows,).

    Attributes:
        how: the arithmetic.
    """

    how: Arithmetic
    source: ClassVar[type[Module]]
    """The class that it is made from."""

    @classmethod
    def from_float(cls, mod: Any, *, granularity: str = "per-tensor", reduce_range: bool = False,
                   accumulate: str = "int32") -> Self:  # fmt: skip
        """Return the quantised form of a layer (torch's name); see :class:`Arithmetic`.

        Raises:
            SettingError: another class of layer, granularity or accumulation.
            DataError: an infinity or NaN in a weight.
        """
        if type(mod) is not cls.source:
            raise SettingError(
                f"expected a {cls.source.__name__}, got a {type(mod).__name__}", op=cls.__name__,
                help="quantize_dynamic(model) finds the layers that it can convert",
            )  # fmt: skip
        return cls.packed(mod, Packing(Arithmetic(granularity, reduce_range, accumulate)))

    @classmethod
    def packed(cls, mod: Any, packing: Packing) -> Self:
        """Return the quantised form of a layer; tied weights share what one packing makes."""
        made: Self = blank(cls, mod)
        made.how = packing.how
        made._pack(mod, packing)
        return made

    def _pack(self, mod: Any, packing: Packing) -> None:
        """Take over the weights of a layer."""
        raise NotImplementedError

    def affine(self, name: str) -> Affine:
        """Return what the codes of a weight mean.

        Raises:
            FormatError: scales that are not float32 any more.
            SettingError: scales that cannot be.
        """
        scale, zero = (getattr(self, f"{name}_{part}") for part in ("scale", "zero_point"))
        if scale.dtype != np.float32:
            raise FormatError(
                f"expected {name}_scale in float32, got {scale.dtype}", op=self._name(),
                formats=[str(scale.dtype)],
                help="a model is moved to another format before it is quantised, not after",
            )  # fmt: skip
        scales, zeros = (each.backend.to_host(each.array) for each in (scale, zero))
        return Affine(scales, zeros, axis=0 if scale.ndim else None)

    def _times(self, x: Any, name: str, bias: Tensor | None, rows: slice | None = None) -> Tensor:
        """Return x W^T + b, W a weight or some rows of it."""
        codes, affine = getattr(self, f"{name}_codes"), self.affine(name)
        if rows is not None:
            codes = codes[rows]
            if affine.per_channel:
                affine = Affine(affine.scale[rows], affine.zero_point[rows], axis=0)
        return dynamic_linear(x, codes, affine, bias, how=self.how)

    def stored(self) -> str:
        """Say how weights are stored."""
        return f"int8 {self.how.granularity}"

    def read_weights(self) -> dict[str, Floats]:
        """Return name -> s (q - z) of each weight."""
        names = [name.removesuffix("_codes") for name in self._buffers if name.endswith("_codes")]
        return {
            name: dequantize(np.asarray(getattr(self, f"{name}_codes")), self.affine(name)) for name in names
        }

    def largest_scale(self) -> float:
        """Return the largest distance between neighbouring codes of a weight."""
        weights = [each for each in self.modules() if isinstance(each, Dynamic)]
        scales = [np.asarray(leaf) for made in weights for name, leaf in made._buffers.items()
                  if name.endswith("_scale") and leaf is not None]  # fmt: skip
        return max(float(each.max()) for each in scales)


class DynamicQuantizedLinear(Dynamic):
    """y = x W^T + b by exact int32 sums: :func:`~minimp.quant.dynamic.products.dynamic_linear`.

    (..., in_features) -> (..., out_features); torch.ao.nn.quantized.dynamic.Linear, engine qnnpack, to the
    bit. Buffers: those of `weight`, (out_features, in_features), and `bias`, (out_features,) float32 or None.
    """

    source = Linear

    def _pack(self, mod: Any, packing: Packing) -> None:
        packing.weight(self, mod, "weight")
        packing.bias(self, mod, "bias")

    def forward(self, input: Any) -> Tensor:
        """Return x W^T + b."""
        return self._times(input, "weight", self.bias)

    def extra_repr(self) -> str:
        """Show the lengths and the scales."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, {self.stored()}"
        )


class DynamicQuantizedEmbedding(Dynamic):
    """Row i of a table of int8 codes with a scale for each row, read back in float32.

    (...) of integers -> (..., embedding_dim): s_i q_i, rounded once. (torch's quantised embedding has uint8
    codes with a zero point in floating point for each row; its quantize_dynamic leaves tables alone.)
    """

    source = Embedding

    def _pack(self, mod: Any, packing: Packing) -> None:
        packing.weight(self, mod, "weight", "per-channel")

    def stored(self) -> str:
        """Say how the table is stored."""
        return "int8 per-row"

    def forward(self, input: Any) -> Tensor:
        """Return the rows."""
        self.affine("weight")  # looks at the scales
        columns = (each.reshape(-1, 1) for each in (self.weight_zero_point, self.weight_scale))
        found = (functional.embedding(input, each) for each in (self.weight_codes, *columns))
        codes, zeros, scales = (np.asarray(each) for each in found)
        values = (codes.astype(np.int32) - zeros).astype(np.float32) * scales
        where = self.weight_codes.backend
        return Tensor(where.from_host(values), where)

    def extra_repr(self) -> str:
        """Show the lengths."""
        return f"{self.num_embeddings}, {self.embedding_dim}, {self.stored()}"


class DynamicQuantizedMultiheadAttention(Dynamic, MultiheadAttention):
    """Attention whose four projections are dynamic products; scores and softmax stay in floating point.

    The weights of :class:`minimp.nn.MultiheadAttention` become codes; `bias_k` and `bias_v` are as they were.
    (torch's quantize_dynamic leaves attention alone.)
    """

    source = MultiheadAttention

    def _pack(self, mod: Any, packing: Packing) -> None:
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if getattr(mod, name) is not None:
                packing.weight(self, mod, name)
        packing.bias(self, mod, "in_proj_bias")
        self.add_module("out_proj", DynamicQuantizedLinear.packed(mod.out_proj, packing))
        for name in ("bias_k", "bias_v"):
            self.register_parameter(name, getattr(mod, name))

    def _product(self, x: Tensor, name: str, rows: slice | None, places: slice | None) -> Tensor:
        """Return x W^T + b, W some rows of a weight and b some places of the bias."""
        bias = self.in_proj_bias
        return self._times(x, name, bias if bias is None or places is None else bias[places], rows)

    def read_weights(self) -> dict[str, Floats]:
        """Return name -> s (q - z) of each weight, that of the output too."""
        out: Any = self.out_proj
        return {**super().read_weights(), "out_proj.weight": out.read_weights()["weight"]}

    def extra_repr(self) -> str:
        """Show the lengths and the scales."""
        return f"{self.embed_dim}, {self.num_heads}, {self.stored()}"
