"""What all modules on codes share: the scales that they hold, and what they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.backend import default_backend
from minimp.errors import FormatError, SettingError
from minimp.nn.module import Module
from minimp.quant.affine import Affine
from minimp.quant.qtensor import QTensor
from minimp.tensors import Tensor

__all__ = ["QuantizedModule", "arrays_changed", "buffer_of", "one_scale", "several", "usable", "whole"]

MOST = 2.0**31
"""Multipliers of sums lie below (:mod:`minimp_backends.requantizing`)."""


class QuantizedModule(Module):
    """A module that takes and gives :class:`~minimp.quant.QTensor`, codes and no floats.

    Attributes:
        path: where the module stood in the model that was converted, for messages.
    """

    path: str = ""

    def __init__(self) -> None:
        super().__init__()
        self.eval()

    @property
    def label(self) -> str:
        """The path and the class, as messages name a module."""
        return f"'{self.path}' ({self._name()})" if self.path else self._name()

    def keep(self, name: str, affine: Affine) -> None:
        """Hold affine numbers: `{name}scale` and `{name}zero_point` as buffers, the rest as settings."""
        self.register_buffer(f"{name}scale", buffer_of(affine.scale))
        self.register_buffer(f"{name}zero_point", buffer_of(affine.zero_point))
        setattr(self, f"{name}codes", (affine.quant_min, affine.quant_max, affine.axis, affine.rule))

    def kept(self, name: str) -> Affine:
        """Return the affine numbers that are held under a name.

        Raises:
            SettingError: the scales are no longer float32, which `.half()` and its like do.
        """
        scale, zero = self._buffers[f"{name}scale"], self._buffers[f"{name}zero_point"]
        assert scale is not None
        assert zero is not None
        if scale.dtype != np.float32:
            raise SettingError(
                f"{self.label}: its scales are {scale.dtype}, and were rounded to it", op="QuantizedModule",
                help="leave a converted model as it is: scales are float32, codes integers",
            )  # fmt: skip
        return Affine(scale.array, zero.array, *getattr(self, f"{name}codes"))

    def taken(self, x: Any, affine: Affine | None = None) -> QTensor:
        """Return the input, checked.

        Args:
            x: what the module is called with.
            affine: the numbers that it must have; None takes any.

        Raises:
            FormatError: it is no QTensor.
            SettingError: it has other scales or zero points than those that the module was made for.
        """
        if not isinstance(x, QTensor):
            kind = f"{type(x).__name__} of {x.dtype}" if hasattr(x, "dtype") else type(x).__name__
            raise FormatError(
                f"{self.label} takes codes, got a {kind}: something before it gives floats", op=self._name(),
                help="put a Quantize before it, or make what gives the floats a module that has an integer "
                "form (mp.quant.modules)",
            )  # fmt: skip
        if affine is not None and x.affine != affine:
            raise SettingError(
                f"{self.label} was made for codes of {affine}, got {x.affine}", op=self._name(),
                help="calibrate and convert the model anew, as it runs now",
            )  # fmt: skip
        return x


def buffer_of(array: npt.NDArray[Any]) -> Tensor:
    """Return an array as a tensor on the backend in force, for a buffer."""
    backend = default_backend()
    return Tensor(backend.from_host(np.array(array)), backend)


def one_scale(affine: Affine, what: str, op: str) -> Affine:
    """Return affine numbers of a whole tensor.

    Raises:
        SettingError: they have channels.
    """
    if affine.per_channel:
        raise SettingError(
            f"{what} must have one scale, got {affine.scale.size} along axis {affine.axis}", op=op,
            help="channels are for weights: give an observer without ch_axis",
        )  # fmt: skip
    return affine


def usable(multiplier: npt.NDArray[Any], op: str) -> npt.NDArray[Any]:
    """Return what sums are multiplied by to become codes.

    Raises:
        SettingError: 2^31 or more, or no number: a sum of 1 lies beyond all codes.
    """
    wrong = ~(multiplier < MOST)
    if wrong.any():
        raise SettingError(
            f"a step of what comes in is {multiplier[wrong].max():.3g} of what goes out: 2^31 are too many",
            op=op, help="look at both ranges: calibrate on data like those that the model will see",
        )  # fmt: skip
    return multiplier


def whole(module: QuantizedModule, x: QTensor) -> Affine:
    """Return the numbers of codes that have one scale: channels would move.

    Raises:
        SettingError: they have channels.
    """
    if x.affine.per_channel:
        raise SettingError(
            f"{module.label} takes codes of one scale, got {x.affine}", op=type(module).__name__,
            help="quantise activations without ch_axis",
        )  # fmt: skip
    return x.affine


def arrays_changed(value: Any, change: Callable[[int, Any], Any], places: Iterator[int]) -> Any:
    """Return what a module was called with, codes and arrays among it changed by (place, array) -> array.

    Places count codes and arrays in nested tuples, lists and dicts, in order.
    """
    if isinstance(value, QTensor | Tensor | np.ndarray):
        return change(next(places), value)
    if isinstance(value, dict):
        return {name: arrays_changed(each, change, places) for name, each in value.items()}
    if isinstance(value, list | tuple):
        made = [arrays_changed(each, change, places) for each in value]
        return made if isinstance(value, list) else tuple(made)
    return value


def several(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return what a module that takes any number of inputs was called with: them, or one list of them."""
    return tuple(inputs[0]) if len(inputs) == 1 and isinstance(inputs[0], list | tuple) else inputs
