"""What quantisation-aware training adds to a model: places at which numbers go to codes and back.

Jacob et al. 2018 (arXiv 1712.05877), section 3: the forward pass rounds weights and activations as the
integer model will; the backward pass takes the rounding for the identity, so that float weights learn to live
with it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp import functional
from minimp.errors import DataError, MinimpError, SettingError, ShapeError, plain
from minimp.modes import MODES
from minimp.nn.making import lifted, whole
from minimp.nn.module import Module
from minimp.policy import is_autocast_enabled
from minimp.quant.affine import Affine
from minimp.quant.modules.base import buffer_of
from minimp.quant.observers import MinMaxObserver, MovingAverageMinMaxObserver
from minimp.tensors import Tensor

__all__ = ["FakeQuantize", "FixedQParamsFakeQuantize"]

Array = npt.NDArray[Any]
SINGLE = 4
"""Bytes of a float32 number."""


class FakeQuantize(Module):
    """Watches the range of what passes, and rounds it to the codes of that range and back.  (...) -> (...).

        y = s (clamp(rint(x (1/s)) + z) - z),    dL/dx = dL/dy where x is not clamped, else 0

    s and z are chosen by the observer from the range it holds (section 3.1), in float32. Two switches, as in
    torch.ao.quantization.FakeQuantize (2.13.0): `observer_enabled`, whether the range moves, and
    `fake_quant_enabled`, whether numbers are rounded. They, s, z and the range are buffers: a state dict has
    all of it. Unlike torch's, the range moves in training mode only, as the statistics of a batch norm do.

    Formats: x is rounded to codes in float32 (float64 x in float64). y is in the format of x, rounded once
    more to it if that has 16 bits; but under autocast in float32, whatever x is, because bfloat16 holds 255 s
    to no better than a step. The product behind it rounds y to its own 16 bits then.

    Args:
        observer: MinMaxObserver or a class made from it; it chooses the range.
        quant_min, quant_max: the first and the last code.
        channels: how many scales there are, for observers of channels.
        current: take the range of what passes now, and keep nothing of what passed before: for weights, which
            are all there at once.
        settings: those of the observer.

    Raises:
        SettingError: another observer, or one whose rule is not "torch"; channels without an observer of
            channels, or the other way round; on a call in which numbers are rounded, that nothing was
            observed yet.
        DataError: on a call, NaN or an infinity in what is observed.
        ShapeError: on a call, other channels.
    """

    statistics = ("scale", "min_val", "max_val")
    scale: Tensor
    zero_point: Tensor
    min_val: Tensor
    max_val: Tensor
    batches: Tensor
    observer_enabled: Tensor
    fake_quant_enabled: Tensor
    where: str = ""
    """What passes, for messages: "the weight of 'conv1'"."""

    def __init__(
        self, observer: Any = MovingAverageMinMaxObserver, quant_min: int = 0,
        quant_max: int = 255, *, channels: int | None = None, current: bool = False, **settings: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        if not (isinstance(observer, type) and issubclass(observer, MinMaxObserver)):
            raise SettingError(
                f"expected MinMaxObserver or a class made from it, got {observer!r}", op="FakeQuantize",
                help="others choose ranges from histograms: they are for calibrate",
            )  # fmt: skip
        self.make = partial(observer, quant_min=quant_min, quant_max=quant_max, counting=False, **settings)
        made: MinMaxObserver = self.make()
        if made.rule != "torch":
            raise SettingError(
                f"training rounds by the rule 'torch', and the observer has {made.rule!r}", op="FakeQuantize"
            )
        if (channels is None) != (made.ch_axis is None):
            raise SettingError(
                f"channels={channels} and {observer.__name__} do not go together", op="FakeQuantize",
                help="observers of channels need their number, and others have none",
            )  # fmt: skip
        self.quant_min, self.quant_max, self.ch_axis = quant_min, quant_max, made.ch_axis
        self.current = current
        shape = () if channels is None else (whole("channels", channels, "FakeQuantize"),)
        self._hold(np.ones(shape, np.float32), np.zeros(shape, np.int32), made, shape)

    def _hold(self, scale: Array, zero: Array, made: MinMaxObserver, shape: tuple[int, ...]) -> None:
        """Register all state as buffers."""
        one = np.ones(1, np.uint8)
        state = {
            "scale": scale, "zero_point": zero,
            "min_val": np.broadcast_to(made.min_val, shape), "max_val": np.broadcast_to(made.max_val, shape),
            "batches": np.zeros((), np.int64), "observer_enabled": one, "fake_quant_enabled": one,
        }  # fmt: skip
        for name, array in state.items():
            self.register_buffer(name, buffer_of(array))

    def forward(self, input: Any) -> Tensor:
        """Observe, and return the input as its codes are read back."""
        x = lifted(input)
        if self.training and self.observing and not MODES.get().recomputing:
            self.observe(x)
        return self.rounded(x) if self.rounding else x

    # ---- the two halves ---------------------------------------------------------------------------------

    def observe(self, x: Tensor) -> None:
        """Let the range take in some numbers, and choose scale and zero point anew."""
        if self.ch_axis is not None and x.shape[self.ch_axis] != self.scale.size:
            raise ShapeError(
                f"expected {self.scale.size} channels on axis {self.ch_axis}, got {x.shape}",
                op="FakeQuantize", shapes=[x.shape],
            )  # fmt: skip
        watch = self.make()
        if not self.current and self.observed:
            watch.min_val, watch.max_val = _host(self.min_val), _host(self.max_val)
            watch.batches = self.observed
        try:
            watch.observe(x)
        except MinimpError as fault:
            text = plain(fault)
            raise DataError(f"{self.where or 'input'}: {text}", op="FakeQuantize", help=fault.help) from fault
        chosen = watch.affine()
        _put(self.min_val, watch.min_val)
        _put(self.max_val, watch.max_val)
        _put(self.batches, np.int64(self.observed + 1))
        _put(self.scale, chosen.scale)
        _put(self.zero_point, chosen.zero_point)

    def rounded(self, x: Tensor) -> Tensor:
        """Return numbers as their codes are read back; nothing is observed."""
        numbers = self.affine()
        wide = x.float() if is_autocast_enabled() else x
        codes = numbers.quant_min, numbers.quant_max
        if self.ch_axis is None:
            return functional.fake_quantize_per_tensor_affine(wide, numbers.scale, numbers.zero_point, *codes)
        return functional.fake_quantize_per_channel_affine(
            wide, numbers.scale, numbers.zero_point, self.ch_axis, *codes
        )

    # ---- state ------------------------------------------------------------------------------------------

    @property
    def observing(self) -> bool:
        """Whether the range moves in training."""
        return bool(_host(self.observer_enabled)[0])

    @property
    def rounding(self) -> bool:
        """Whether numbers are rounded to codes."""
        return bool(_host(self.fake_quant_enabled)[0])

    @property
    def observed(self) -> int:
        """How many batches were observed."""
        return int(_host(self.batches))

    def affine(self) -> Affine:
        """Return scale, zero point and codes as they are now.

        Raises:
            SettingError: nothing was observed; or scales of 16 bits, which `.half()` makes.
        """
        if not self.observed:
            raise SettingError(
                f"{self.where or 'this place'} was never observed: its scale is not known", op="FakeQuantize",
                help="run training batches through the model in training mode, observers enabled",
            )  # fmt: skip
        if self.scale.dtype.itemsize < SINGLE:
            raise SettingError(
                f"{self.where or 'this place'}: its scale was rounded to {self.scale.dtype}",
                op="FakeQuantize",
                help="leave the model in float32, and train it under autocast (recipe 'mixed-fp16' or "
                "'mixed-bf16'); or convert it with keep_statistics=True",
            )  # fmt: skip
        scale = _host(self.scale).astype(np.float32)  # `.double()` widens it: the same number
        return Affine(scale, _host(self.zero_point), self.quant_min, self.quant_max, self.ch_axis)

    def switch(self, *, observer: bool | None = None, fake_quant: bool | None = None) -> None:
        """Turn the observer, the rounding or both on or off; None leaves one as it is."""
        for buffer, on in ((self.observer_enabled, observer), (self.fake_quant_enabled, fake_quant)):
            if on is not None:
                _put(buffer, np.full(1, on, np.uint8))

    def extra_repr(self) -> str:
        """Show the switches and the numbers."""
        on = f"observer_enabled={self.observing}, fake_quant_enabled={self.rounding}"
        numbers = str(self.affine()) if self.observed else f"codes {self.quant_min}..{self.quant_max}"
        return f"{on}, {numbers if self.observed else numbers + ', never observed'}"


class FixedQParamsFakeQuantize(FakeQuantize):
    """Rounds by numbers that are fixed, whatever passes: of softmax, sigmoid and tanh, whose ends are known.

    (torch.ao.quantization.FixedQParamsFakeQuantize, 2.13.0.)

    Args:
        fixed: the affine numbers, one scale.
    """

    def __init__(self, fixed: Affine) -> None:
        super().__init__(MinMaxObserver, fixed.quant_min, fixed.quant_max)
        for name, value in (("scale", fixed.scale), ("zero_point", fixed.zero_point), ("batches", 1)):
            _put(self._buffers[name], value)
        _put(self.min_val, fixed.low)
        _put(self.max_val, fixed.high)

    def observe(self, x: Tensor) -> None:
        """Let the range be."""


def _host(buffer: Tensor) -> Array:
    return np.asarray(buffer.backend.to_host(buffer.array))


def _put(buffer: Any, value: Any) -> None:
    """Replace the array of a buffer."""
    buffer.array = buffer.backend.from_host(np.array(value, buffer.dtype))
