"""Where codes begin and end: marks in a float model, and the modules that take their place."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import numpy as np

from minimp import functional
from minimp.errors import FormatError, SettingError, unknown_name
from minimp.modes import no_grad
from minimp.nn import Identity
from minimp.nn.making import lifted
from minimp.nn.module import Module
from minimp.policy import autocast
from minimp.quant.affine import Affine
from minimp.quant.modules.base import QuantizedModule, arrays_changed, buffer_of, one_scale, several
from minimp.quant.qtensor import QTensor
from minimp.tensors import Tensor

__all__ = [
    "COMPUTES",
    "Add",
    "Cat",
    "DeQuantStub",
    "DeQuantize",
    "FloatIsland",
    "Mul",
    "QuantStub",
    "Quantize",
    "Sub",
]

COMPUTES = ("float32", "float16")
"""What a module that stays in floats may compute in."""
SINGLE = 4
"""Bytes of a float32 number."""


class QuantStub(Module):
    """Mark where codes begin; in a float model, a copy of the input (torch.ao.quantization.QuantStub)."""

    def forward(self, input: Any) -> Tensor:
        """Return a copy."""
        return lifted(input).clone()


class DeQuantStub(Module):
    """Mark where codes end; in a float model, a copy of the input (torch.ao.quantization.DeQuantStub)."""

    def forward(self, input: Any) -> Tensor:
        """Return a copy."""
        return lifted(input).clone()


class _OfTwo(Module):
    """What marks of two numbers share: whether a ReLU follows."""

    def __init__(self, relu: bool = False) -> None:
        super().__init__()
        self.relu = relu

    def _ended(self, y: Tensor) -> Tensor:
        return functional.relu(y) if self.relu else y

    def extra_repr(self) -> str:
        """Show the ReLU."""
        return f"relu={self.relu}"


class Add(_OfTwo):
    """a + b, of a residual connection, as a module that converting finds; with `relu`, max(a + b, 0).

    torch writes ``torch.ao.nn.quantized.FloatFunctional().add(a, b)`` and ``.add_relu(a, b)``.
    """

    def forward(self, a: Any, b: Any) -> Tensor:
        """Return the sum."""
        return self._ended(lifted(a) + b)


class Sub(_OfTwo):
    """a - b, as a module that converting finds; with `relu`, max(a - b, 0). torch has none of its kind."""

    def forward(self, a: Any, b: Any) -> Tensor:
        """Return the difference."""
        return self._ended(lifted(a) - b)


class Mul(_OfTwo):
    """a b, as of a gate, as a module that converting finds; with `relu`, max(a b, 0).

    torch writes ``torch.ao.nn.quantized.FloatFunctional().mul(a, b)``.
    """

    def forward(self, a: Any, b: Any) -> Tensor:
        """Return the product."""
        return self._ended(lifted(a) * b)


class Cat(Module):
    """Tensors one after the other along an axis, as a module that converting finds.

    torch writes ``torch.ao.nn.quantized.FloatFunctional().cat(tensors, dim)``.
    """

    def __init__(self, dim: int = 0) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, *tensors: Any) -> Tensor:
        """Return the tensors joined; one list of them will do, as in ``torch.cat``."""
        y: Tensor = functional.cat(list(map(lifted, several(tensors))), self.dim)
        return y

    def extra_repr(self) -> str:
        """Show the axis."""
        return f"dim={self.dim}"


class Quantize(QuantizedModule):
    """Floats to codes, (...) -> (...) (torch.ao.nn.quantized.Quantize).

    Args:
        affine: the numbers of the codes, one scale.

    Raises:
        SettingError: channels.
        FormatError: when called, on codes: they cannot be quantised twice.
    """

    def __init__(self, affine: Affine) -> None:
        super().__init__()
        self.keep("", one_scale(affine, "an activation", "Quantize"))

    def forward(self, input: Any) -> QTensor:
        """Return the codes."""
        if isinstance(input, QTensor):
            raise FormatError(
                f"{self.label} takes floats, got codes: they would be quantised twice", op="Quantize",
                help="leave out one Quantize, or put a DeQuantize between",
            )  # fmt: skip
        return QTensor.of(input, self.kept(""))

    def extra_repr(self) -> str:
        """Show the numbers."""
        return str(self.kept(""))


class DeQuantize(QuantizedModule):
    """Codes to float32 numbers, (...) -> (...) (torch.ao.nn.quantized.DeQuantize)."""

    def forward(self, input: Any) -> Tensor:
        """Return s (q - z)."""
        return buffer_of(self.taken(input).dequantize())


class FloatIsland(QuantizedModule):
    """A module that was left in floats between codes: codes to floats, the module, floats to codes.

    Args:
        inner: the module; of ``"float16"`` a copy is taken.
        output: the numbers of the codes that it gives; None: it gives floats, float32 where the module makes
            16 bits.
        compute: ``"float32"``; or ``"float16"``: its weights are stored in float16, running statistics as
            they were, and it runs under ``autocast("float16")``, sums in the accumulation in force. What
            lies beyond 65504 becomes infinite there, and the last code where codes follow.
        floats: which of its inputs come in floats, by their places, in lists too; the others are codes.

    Raises:
        SettingError: another `compute`, or a weight beyond what float16 holds.
        FormatError: when called, with floats for codes or codes for floats.
    """

    def __init__(
        self, inner: Module, output: Affine | None, compute: str = "float32", floats: Iterable[int] = ()
    ) -> None:
        super().__init__()
        if compute not in COMPUTES:
            raise SettingError(unknown_name("compute", compute, COMPUTES), op="FloatIsland")
        self.compute = compute
        self.dequantize = DeQuantize()
        self.inner = inner if compute == "float32" else _in_float16(inner)
        self.end(floats, output)

    def end(self, floats: Iterable[int], output: Affine | None) -> None:
        """Say anew what it takes and gives, see above."""
        self.floats = tuple(floats)
        self.quantize = Identity() if output is None else Quantize(output)

    def forward(self, *inputs: Any, **options: Any) -> QTensor | Tensor:
        """Return what the module makes of floats, in codes or in floats."""
        taken, named = arrays_changed((inputs, options), self._floats, itertools.count())
        half = self.compute == "float16"
        with no_grad(), autocast("float16", cache="none") if half else nullcontext():
            made = self.inner(*taken, **named)
        if isinstance(self.quantize, Quantize):
            codes: QTensor = self.quantize(made)
            return codes
        floats: Tensor = made if made.dtype.itemsize >= SINGLE else made.float()
        return floats

    def _floats(self, index: int, x: Any) -> Any:
        if index not in self.floats:
            return self.dequantize(x)
        if isinstance(x, QTensor):
            raise FormatError(
                f"{self.label} takes floats as input {index}, got codes", op="FloatIsland",
                help="calibrate and convert the model anew, as it runs now",
            )  # fmt: skip
        return x

    def extra_repr(self) -> str:
        """Show what it computes in, and which inputs are floats."""
        return f"compute={self.compute}" + (f", floats={self.floats}" if self.floats else "")


def _in_float16(inner: Module) -> Module:
    """Return a copy whose weights are float16, each rounded once."""
    made = copy.deepcopy(inner)
    with np.errstate(over="ignore"):
        made.to("float16", keep_statistics=True)
    for (path, narrow), wide in zip(made.named_parameters(), inner.parameters(), strict=True):
        low, high = (np.asarray(each.backend.to_host(each.array)) for each in (narrow, wide))
        if not np.isfinite(low[np.isfinite(high)]).all():
            raise SettingError(
                f"its {path} reaches {np.abs(high[np.isfinite(high)]).max():.3g}, and float16 ends at 65504",
                op="FloatIsland", help='keep this module in "float32"',
            )  # fmt: skip
    return made
