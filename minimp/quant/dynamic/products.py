"""The product of dynamic layers: activations become codes in each call, sums are whole numbers.

With x (M, K) float32, weights s_w[c] q_w[c, k] for channel c, and q_x, s_x, z_x what the rule
``torch-dynamic`` makes of the call's own min x and max x::

    a[m, c] = sum_k (q_x[m, k] - z_x) q_w[c, k]            int32, exact
    y[m, c] = float32(a) float32(s_x s_w[c]) + b[c]        float32, each step rounded

These are the roundings of QNNPACK's dynamic linear layer (torch 2.13.0, engine qnnpack), so that y has its
bits. Against x W^T with the weights as they are read back, |y - x W^T - b| is at most s_x/2 sum_k |w[c, k]|,
and float32's roundings of the last line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.custom import Function, FunctionContext
from minimp.errors import DataError, FormatError, GradientError, SettingError, ShapeError, unknown_name
from minimp.quant.affine import Affine, choose, floats_of, quantize
from minimp.quant.qtensor import QTensor
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["GRANULARITIES", "Arithmetic", "dynamic_linear", "quantize_weight"]

GRANULARITIES = ("per-tensor", "per-channel")
ACCUMULATIONS = ("int32", "int16-saturating")
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Arithmetic:
    """How dynamic layers compute.

    Attributes:
        granularity: ``"per-tensor"`` or ``"per-channel"``: a scale for a weight, or for each of its rows.
        reduce_range: activations have the codes 0..127, which no engine's int16 sums saturate (torch's fbgemm
            and x86; its qnnpack takes 0..255 in any case).
        accumulate: ``"int32"``, exact; or ``"int16-saturating"``, what CPUs without VNNI do inside of
            engines: neighbouring products are added in int16 and cut off there.

    Raises:
        SettingError: another granularity or accumulation.
    """

    granularity: str = "per-tensor"
    reduce_range: bool = False
    accumulate: str = "int32"

    def __post_init__(self) -> None:
        known = {"granularity": GRANULARITIES, "accumulate": ACCUMULATIONS}
        for name, words in known.items():
            if getattr(self, name) not in words:
                raise SettingError(unknown_name(name, getattr(self, name), words), op="Arithmetic")


EXACT = Arithmetic()


def quantize_weight(values: Floats, granularity: str) -> QTensor:
    """Return int8 codes of a weight: rule ``torch``, symmetric, -128..127, rows being the channels."""
    rows = granularity == "per-channel"
    axes = tuple(range(1, values.ndim)) if rows else None
    low, high = values.min(axis=axes), values.max(axis=axes)
    affine = choose(low, high, quant_min=-128, quant_max=127, symmetric=True, axis=0 if rows else None)
    return QTensor.of(values, affine)


def dynamic_linear(
    x: Any, codes: Tensor, affine: Affine, bias: Tensor | None = None, *, how: Arithmetic = EXACT
) -> Tensor:
    """Return x W^T + b with int8 weights and activations quantised in this call; for inference.

    (..., K), (N, K) int8, (N,) float32 -> (..., N) in the format of x; the formulas are the module's. 16-bit
    activations are read as float32 and the result is rounded once to their format.

    Args:
        x: floating-point activations.
        codes: of the weights.
        affine: what the codes mean: one scale, or one a row (axis 0).
        bias: b, or None.
        how: the codes of x, and how products are added up.

    Raises:
        DataError: an infinity or NaN in x.
        FormatError: x is no floating-point tensor, the codes are not int8, b is not float32, or a sum leaves
            int32.
        ShapeError: x has not K numbers a row.
        GradientError: in backward; quantising has no derivative.
    """
    value: Any = x if isinstance(x, Value) else Value.lift(x, codes.backend)
    made: Tensor = DynamicLinear.apply(value, codes, affine, bias, how)
    return made


class DynamicLinear(Function):
    """The product as one op: recorded, so that a backward that reaches it says why it cannot go on."""

    @staticmethod
    def forward(
        ctx: FunctionContext, x: Tensor, codes: Tensor, affine: Affine, bias: Tensor | None, how: Arithmetic
    ) -> Tensor:
        """Compute y."""
        del ctx
        weights = _codes_of(codes)
        _check(x, weights, bias)
        values = floats_of(x, "dynamic_linear").reshape(-1, weights.shape[1])
        y = _product(x.backend, values, weights, affine, how)
        if bias is not None:
            y += bias.backend.to_host(bias.array)
        y = y.reshape(*x.shape[:-1], len(weights))
        assert x.format is not None  # floats_of has seen floating-point numbers
        made = x.backend.from_host(y)
        return Tensor(made if y.dtype == x.dtype else x.backend.cast(made, x.format), x.backend)

    @staticmethod
    def backward(ctx: FunctionContext, *grads: Any) -> Any:
        """Refuse."""
        del ctx, grads
        raise GradientError(
            "a dynamically quantised layer has no gradient: its activations are rounded to codes",
            op="dynamic_linear",
            help="run it under mp.no_grad(); train the model in floating point and convert it then",
        )


def _product(backend: Any, x: Floats, weights: Any, affine: Affine, how: Arithmetic) -> Floats:
    """Return y without b: (M, K) float32, (N, K) int8 -> (M, N) float32."""
    if not x.size:
        return np.zeros((len(x), len(weights)), np.float32)
    low, high = x.min(), x.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        lost = int(np.count_nonzero(~np.isfinite(x)))
        raise DataError(
            f"{lost} of {x.size} activations are infinite or NaN, so that they have no range",
            op="dynamic_linear", help="look at the layers before: forward hooks show what each gives",
        )  # fmt: skip
    seen = choose(low, high, rule="torch-dynamic", quant_min=0, quant_max=255, reduce_range=how.reduce_range)
    zeros = int(seen.zero_point), affine.zero_point
    sums = backend.integer_matmul(quantize(x, seen), weights.T, *zeros, accumulate=how.accumulate)
    y: Floats = sums.astype(np.float32)
    with np.errstate(over="ignore"):  # past float32's largest number it is infinite, as in floats
        y *= seen.scale * affine.scale
    return y


def _codes_of(codes: Tensor) -> Any:
    array = codes.backend.to_host(codes.array)
    if array.dtype != np.int8:
        raise FormatError(
            f"expected int8 codes, got {array.dtype}", op="dynamic_linear", formats=[str(array.dtype)],
            help="a model is moved to another format before it is quantised, not after",
        )  # fmt: skip
    return array


def _check(x: Tensor, weights: Any, bias: Tensor | None) -> None:
    if x.ndim == 0 or x.shape[-1] != weights.shape[1]:
        raise ShapeError(
            f"expected an input of shape (..., {weights.shape[1]}), got {x.shape}",
            op="dynamic_linear", shapes=[x.shape, weights.shape],
        )  # fmt: skip
    if bias is not None and bias.dtype != np.float32:
        raise FormatError(
            f"expected a float32 bias, got {bias.dtype}", op="dynamic_linear", formats=[str(bias.dtype)],
            help="a model is moved to another format before it is quantised, not after",
        )  # fmt: skip
