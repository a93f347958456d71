"""One loss scale on the move: its rule, its state, and what both are called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from minimp.scaler.machine import ScaleRule, ScaleState
from minimp.scaler.saving import from_state_dict, to_state_dict

__all__ = ["MovingScale"]


class MovingScale:
    """A scale S that follows a rule; a GradScaler puts it around an optimizer.

    Args:
        rule: how it moves.
    """

    def __init__(self, rule: ScaleRule) -> None:
        self._begin(rule)

    def _begin(self, rule: ScaleRule) -> None:
        self.rule = rule
        self._state = ScaleState(rule.init_scale)
        self._started = False

    def _start(self) -> float:
        """Round S to the precision it is kept in, on first use, and return it."""
        if not self._started:
            self._started = True
            self._state = replace(self._state, scale=self.rule.rounded(self._state.scale))
        return self._state.scale

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
        """Show the scale and the rest of the state."""
        s = self._state
        return f"{type(self).__name__}(scale={s.scale:g}, growth_tracker={s.growth_tracker}, skips={s.skips})"

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

    def __getstate__(self) -> dict[str, Any]:
        """Copy (copy.deepcopy); the copy rounds its scale anew, as PyTorch's does."""
        return self.__dict__ | {"_started": False}
