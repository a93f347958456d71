"""One loss scale on the move: its rule, its state, and what both are called."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from minimp.errors import ScalerError, ScaleWarning
from minimp.scaler.health import ScaleHealth, Watch, alarm, health_of, watched
from minimp.scaler.machine import ScaleRule, ScaleState, next_state
from minimp.scaler.naming import listing
from minimp.scaler.on_device import DeviceScale
from minimp.scaler.saving import from_state_dict, to_state_dict
from minimp.scaler.telling import tell_move

__all__ = ["MovingScale", "warn"]


class MovingScale:
    """A scale S that follows a rule; a GradScaler puts it around an optimizer.

    Args:
        rule: how it moves.
        label: what messages call it.
    """

    def __init__(self, rule: ScaleRule, label: str = "GradScaler") -> None:
        self._begin(rule, label)

    def _begin(self, rule: ScaleRule, label: str = "GradScaler") -> None:
        self.rule = rule
        self._label = label
        self._device: DeviceScale | None = None
        self._state = ScaleState(rule.init_scale)
        self._watch = Watch()
        self._started = False

    @property
    def _state(self) -> ScaleState:
        """The state, read back from the device if it moved there."""
        if self._device is not None:
            self._held, self._device = self._device.read(), None
        return self._held

    @_state.setter
    def _state(self, state: ScaleState) -> None:
        self._held, self._device = state, None

    def on_device(self, backend: Any) -> DeviceScale:
        """Return the state as arrays of a backend, which from now on are the state.

        Whatever reads it on the host (:meth:`get_scale`, :meth:`state_dict`, ...) brings it back, once.
        Warnings, and those who watch, are not told of moves that only the device made.

        Raises:
            SettingError: max_consecutive_skips is set, which the host has to count.
        """
        if self._device is None or self._device.backend is not backend or self._device.rule != self.rule:
            self._start()
            self._device = DeviceScale(self.rule, self._state, backend)
        return self._device

    def _start(self) -> float:
        """Round S to the precision it is kept in, on first use, and return it."""
        if not self._started:
            self._started = True
            self._state = replace(self._state, scale=self.rule.rounded(self._state.scale))
        return self._state.scale

    def _move(self, found_inf: bool, nonfinite: Iterable[str]) -> str | None:
        """Move S by a verdict; return what is to be told aloud once everything is in order."""
        self._start()
        if found_inf:
            self._require_patience(nonfinite)
        before, told = self._state, self._watch.told
        self._state = next_state(self.rule, before, found_inf)
        self._watch = watched(self._watch, self.rule, before, self._state)
        tell_move(self, before, self._state)
        if self._watch.told <= told:
            return None
        return f"{self._label}: {alarm(self.health, self.rule, nonfinite)}"

    def _require_patience(self, nonfinite: Iterable[str]) -> None:
        """Refuse to skip one more step than max_consecutive_skips."""
        most = self.rule.max_consecutive_skips
        if most is not None and self._state.skips >= most:
            names = listing(nonfinite)
            raise ScalerError(
                f"{most} steps in a row have been skipped, and this one is bad too (loss scale "
                f"{self._state.scale:g}{f'; not finite in {names}' if names else ''})",
                op=self._label,
                help="look for NaN in the data or the loss and lower the learning rate, or raise "
                "max_consecutive_skips; weights and loss scale are as after the last step",
            )

    # ---- what it knows ------------------------------------------------------------------------------------

    @property
    def scale_value(self) -> float:
        """S, as a Python number; 1 where scaling is disabled."""
        return self.get_scale()

    def get_scale(self) -> float:
        """Return S, as a Python number; 1 where scaling is disabled."""
        return self._state.scale

    @property
    def state(self) -> ScaleState:
        """All that the next scale depends on, beside the rule."""
        return self._state

    @property
    def health(self) -> ScaleHealth:
        """How the scale fares: "ok", "backing off", or one of the words of :mod:`minimp.scaler.health`."""
        return health_of(self.rule, self._state, self._watch.floor_skips)

    def get_growth_factor(self) -> float:
        """Return what S is multiplied by when it grows."""
        return self.rule.growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set what S is multiplied by when it grows."""
        self.rule = replace(self.rule, growth_factor=new_factor)

    def get_backoff_factor(self) -> float:
        """Return what S is multiplied by when it backs off."""
        return self.rule.backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set what S is multiplied by when it backs off."""
        self.rule = replace(self.rule, backoff_factor=new_factor)

    def get_growth_interval(self) -> int:
        """Return how many good steps in a row it takes to grow."""
        return self.rule.growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set how many good steps in a row it takes to grow."""
        self.rule = replace(self.rule, growth_interval=new_interval)

    def __repr__(self) -> str:
        """Show the scale, the rest of the state, and how it fares."""
        s, name = self._state, type(self).__name__
        counts = f"growth_tracker={s.growth_tracker}, skips={s.skips}"
        return f"{name}(scale={s.scale:g}, {counts}, health={self.health.word!r})"

    # ---- saving -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return PyTorch's five entries; under a rule that PyTorch does not have, the rest of it as well.

        Save it after update(), between iterations. Reports are not saved.
        """
        return to_state_dict(self.rule, self._state)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a state that :meth:`state_dict`, or PyTorch's, returned; its settings are taken over.

        Settings that it lacks stay as they are; entries that nobody knows are left out.

        Raises:
            ScalerError: it is empty, as that of a disabled scaler.
            SettingError: one of PyTorch's five entries is missing, or one cannot be used. Nothing is changed.
        """
        self.rule, self._state = from_state_dict(self.rule, state_dict)
        if self._started:
            self._state = replace(self._state, scale=self.rule.rounded(self._state.scale))
        self._watch = Watch()

    def __getstate__(self) -> dict[str, Any]:
        """Copy (copy.deepcopy); the copy rounds its scale anew, as PyTorch's does."""
        self._held = self._state  # read back, if it is on a device
        return self.__dict__ | {"_started": False}


def warn(told: str | None, stacklevel: int) -> None:
    """Say aloud what :meth:`MovingScale._move` returned; `stacklevel` counts from the caller."""
    if told is not None:
        warnings.warn(told, ScaleWarning, stacklevel=stacklevel + 1)
