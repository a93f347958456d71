"""What depends on one code alone is a table of 256 codes; softmax is one of exponentials, and whole numbers.

An entry is round(f(s_x (q - z_x)) / s) + z: f in float64, rounded once, ties as the rule of the output's
codes has them, and clamped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.backend import default_backend
from minimp.errors import DataError, SettingError, ShapeError
from minimp.nn import Hardsigmoid, Sigmoid, Softmax, Softmax2d, Tanh
from minimp.nn.module import Module
from minimp.quant.affine import Affine
from minimp.quant.modules.base import QuantizedModule, buffer_of, one_scale
from minimp.quant.qtensor import QTensor

__all__ = ["FIXED", "QuantizedSoftmax", "QuantizedTable", "codes_of", "fixed_output", "numbers_of"]

Array = npt.NDArray[Any]
Function = Callable[[Array], Array]
FAR = 2.0**20
"""Codes that are clamped anyway: infinities become this."""


class QuantizedTable(QuantizedModule):
    """Codes of f(x), f a function of one number: an entry for each code.  (...) -> (...).

    Args:
        table: (256,) codes of the output, in the order of bytes: those of 0..255, or of 0..127, -128..-1.
        input, output: the affine numbers of what comes in and goes out, one scale each.
        name: of f, to be shown.

    Raises:
        SettingError: channels, or entries that are no codes of the output; when called, codes of other
            numbers than those of `input`.
        ShapeError, FormatError: another length or dtype.
    """

    def __init__(self, table: Array, input: Affine, output: Affine, name: str = "") -> None:
        super().__init__()
        self.keep("input_", one_scale(input, "what a table is read by", self._name()))
        self.keep("", one_scale(output, "what a table gives", self._name()))
        if np.shape(table) != (256,):
            raise ShapeError(
                f"a table has an entry for each of 256 codes, got {np.shape(table)}", op=self._name(),
                shapes=[np.shape(table)],
            )  # fmt: skip
        self.register_buffer("table", buffer_of(QTensor(table, output).codes))
        self.name = name

    @classmethod
    def of(cls, function: Function, input: Affine, output: Affine, name: str = "") -> QuantizedTable:
        """Work out a table.

        Args:
            function: float64 -> float64, element by element.
            input, output, name: as above.

        Raises:
            DataError: f is NaN for a code.
        """
        one_scale(input, "what a table is read by", cls.__name__)
        x = numbers_of(input)
        y = np.asarray(function(x), np.float64)
        if np.isnan(y).any():
            raise DataError(
                f"{name or 'the function'} is NaN at {x[np.isnan(y)][0]:g}, which a code stands for",
                op=cls.__name__, help="a table needs a number for every code",
            )  # fmt: skip
        return cls(codes_of(y, one_scale(output, "what a table gives", cls.__name__)), input, output, name)

    def forward(self, input: Any) -> QTensor:
        """Return the codes."""
        x, backend = self.taken(input, self.kept("input_")), self.table.backend
        codes = backend.integer_lookup(x.codes, backend.to_host(self.table.array))
        return QTensor(backend.to_host(codes), self.kept(""))

    def extra_repr(self) -> str:
        """Show the function and the output's numbers."""
        return f"{self.name}, {self.kept('')}" if self.name else str(self.kept(""))


def numbers_of(affine: Affine) -> Array:
    """Return what each code stands for, s (q - z) in float64, in the order of bytes.  -> (256,)."""
    codes = np.arange(256, dtype=np.uint8).view(affine.storage).astype(np.float64)
    return np.asarray(np.float64(affine.scale) * (codes - affine.zero_point))


Ties = Callable[[Array, Array, int], Array]
_EVEN_CODE: Ties = lambda value, whole, zero: (whole + zero) % 2 != 0  # noqa: E731, ARG005 - a row of a table
_EVEN_STEP: Ties = lambda value, whole, zero: whole % 2 != 0  # noqa: E731, ARG005 - a row of a table
_AWAY: Ties = lambda value, whole, zero: value > 0  # noqa: E731, ARG005 - a row of a table
TIES: Mapping[str, Ties] = MappingProxyType(
    {"torch": _EVEN_CODE, "torch-dynamic": _EVEN_CODE, "onnx": _EVEN_STEP, "tflite": _AWAY}
)
"""Rule -> (value in steps, that rounded down, zero point) -> whether a half goes up."""


def codes_of(y: Array, affine: Affine) -> Array:
    """Return the codes of float64 numbers: y / s rounded once, ties by the rule, plus z, and clamped."""
    zero = int(affine.zero_point)
    with np.errstate(over="ignore"):
        steps = np.clip(y / np.float64(affine.scale), -FAR, FAR)
    whole = np.floor(steps)
    rest = steps - whole  # exact
    up = (rest > 0.5) | ((rest == 0.5) & TIES[affine.rule](steps, whole, zero))
    codes: Array = np.clip(whole + up + zero, affine.quant_min, affine.quant_max)
    return codes.astype(affine.storage)


# ---- outputs whose scale is known beforehand -------------------------------------------------------------


def _from_0_to_1(affine: Affine) -> tuple[float, int]:
    return 2.0**-affine.bits, affine.quant_min


def _from_minus_1_to_1(affine: Affine) -> tuple[float, int]:
    return 2.0 ** (1 - affine.bits), (affine.quant_min + affine.quant_max + 1) // 2


TORCHS = ("torch", "torch-dynamic")
FIXED: Mapping[type[Module], tuple[Callable[[Affine], tuple[float, int]], tuple[str, ...]]] = (
    MappingProxyType(
        {
            Sigmoid: (_from_0_to_1, (*TORCHS, "tflite")),
            Hardsigmoid: (_from_0_to_1, TORCHS),
            Tanh: (_from_minus_1_to_1, (*TORCHS, "tflite")),
            Softmax: (_from_0_to_1, (*TORCHS, "tflite", "onnx")),
            Softmax2d: (_from_0_to_1, (*TORCHS, "tflite", "onnx")),
        }
    )
)
"""Class -> (codes -> scale and zero point, the rules under which the output has them whatever was observed).

Of 256 codes: 1/256 and the least code for numbers from 0 to 1, 1/128 and the middle one for -1 to 1
(torch 2.13.0, the fixed qparams of torch.ao.quantization.qconfig_mapping; LiteRT's 8-bit quantization
specification: LOGISTIC, TANH, SOFTMAX). ONNX fixes none; softmax on codes has 1/256 there, too.
"""


def fixed_output(kind: type[Module], observed: Affine) -> Affine:
    """Return the numbers of what a module gives: those observed, or where the rule fixes them, these."""
    chosen, rules = FIXED.get(kind, (None, ()))
    if chosen is None or observed.rule not in rules:
        return observed
    scale, zero = chosen(observed)
    rest = observed.quant_min, observed.quant_max, None, observed.rule
    return Affine(np.asarray(scale, np.float32), np.asarray(zero, np.int32), *rest)


# ---- softmax ---------------------------------------------------------------------------------------------


class QuantizedSoftmax(QuantizedModule):
    """Codes of softmax along an axis, by whole numbers alone.  (...) -> (...).

    e^(x - max x) is read from 256 numbers, rint(2^30 e^(-s_x d)), d a difference of codes; their sum and the
    quotient are exact, and rounded once, halves up (:mod:`minimp_backends.integer_pointwise`, with the bound
    of the error: half a code, and 1.2e-7 (N + 1) codes for N numbers).

    Args:
        input, output: the affine numbers of what comes in and goes out. The output's scale is one over a
            whole number, 1/256 as a rule, and its zero point the least code.
        dim: the axis; None takes the last one of a vector or a matrix (:class:`minimp.nn.Softmax`).

    Raises:
        SettingError: channels, or an output with other numbers; when called, codes of other numbers, or more
            than two axes without a `dim`.
        ShapeError: when called, no such axis, or nothing along it.
    """

    def __init__(self, input: Affine, output: Affine, dim: int | None = -1) -> None:
        super().__init__()
        self.keep("input_", one_scale(input, "what comes in", self._name()))
        self.keep("", one_scale(output, "what goes out", self._name()))
        steps = round(1 / float(output.scale))
        if np.float32(1 / max(steps, 1)) != output.scale or int(output.zero_point) != output.quant_min:
            raise SettingError(
                f"expected a scale of one over a whole number and the least code as zero point, got {output}",
                op=self._name(), help="softmax has 1/256, and zero point 0 of uint8 or -128 of int8",
            )  # fmt: skip
        self.register_buffer("table", buffer_of(default_backend().exp_table(float(input.scale))))
        self.dim = dim

    def forward(self, input: Any) -> QTensor:
        """Return the codes."""
        x, output, backend = self.taken(input, self.kept("input_")), self.kept(""), self.table.backend
        if self.dim is None and len(x.shape) > 2:
            raise SettingError(
                f"{self.label}: which of {len(x.shape)} axes to normalise over was not said", op=self._name(),
                help="pass dim=",
            )  # fmt: skip
        codes = backend.integer_softmax(
            x.codes, backend.to_host(self.table.array), -1 if self.dim is None else self.dim,
            steps=round(1 / float(output.scale)), qmin=output.quant_min, qmax=output.quant_max,
            dtype=output.storage,
        )  # fmt: skip
        return QTensor(backend.to_host(codes), output)

    def extra_repr(self) -> str:
        """Show the axis and the output's numbers."""
        return f"dim={self.dim}, {self.kept('')}"
