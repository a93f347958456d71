"""When rounding begins in training, and when ranges and statistics come to rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from minimp.errors import CheckpointError, SettingError
from minimp.nn.module import Module
from minimp.quant.qat.switches import (
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    enable_observer,
    fake_quants,
    freeze_bn_stats,
    norms,
    update_bn_stats,
)

__all__ = ["QATSchedule"]

SETTINGS = ("delay", "freeze_observers", "freeze_batch_norm")


class QATSchedule:
    """Turns the switches of a prepared model at given steps.

    Steps are counted by :meth:`step`, which is called after each update of the weights. An update that a loss
    scaler skipped is none: ranges and statistics have moved in its forward, weights have not, and the
    schedule had better wait (``if not report.skipped: schedule.step()``).

    - before step `delay` nothing is rounded: ranges are only watched. Ranges that still move make noise of
      the rounding, so that it had better come in late (Jacob et al. 2018, section 3.1, where activations
      are not quantised for the first 50 thousand to 2 million steps);
    - from step `freeze_observers` on ranges stand still. What lies beyond them is clamped and has no
      gradient, the model's result too: frozen early, a loss of growing scores stands still;
    - from step `freeze_batch_norm` on the statistics of folded batch norms stand still: what is trained then
      is the very function that is converted (Krishnamoorthi 2018, arXiv 1806.08342).

    A Trainer saves the switches, which are buffers of the model, and not the count. Called in its `on_step`,
    a schedule goes on where a resumed run does by
    ``schedule.load_state_dict({**schedule.state_dict(), "steps": trainer.done - trainer.skipped})``.

    Args:
        model: what :func:`minimp.quant.qat.prepare_qat` made. Its switches are set at once.
        delay: steps without rounding; 0 rounds from the first on.
        freeze_observers: the step at which ranges freeze; None: never.
        freeze_batch_norm: the step at which statistics freeze; None: never.

    Raises:
        SettingError: steps that are negative, no whole numbers or in another order than this; ranges that
            freeze before the first batch; batch norms to freeze where there are none; nothing to do at all.
    """

    def __init__(
        self, model: Module, *, delay: int = 0, freeze_observers: int | None = None,
        freeze_batch_norm: int | None = None,
    ) -> None:  # fmt: skip
        fake_quants(model, "QATSchedule")
        self.model, self.delay = model, delay
        self.freeze_observers, self.freeze_batch_norm = freeze_observers, freeze_batch_norm
        self._check()
        self._go_to(0)

    def step(self) -> None:
        """Count one step, and turn the switches that are due.

        Raises:
            SettingError: ranges are to freeze, and one of them has seen nothing. The step is not counted,
                and no switch has turned.
        """
        if self.steps + 1 in (self.delay, self.freeze_observers, self.freeze_batch_norm):
            self._go_to(self.steps + 1)
        else:
            self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the steps that were counted, and the settings."""
        return {"steps": self.steps} | {name: getattr(self, name) for name in SETTINGS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another of the same settings was; the switches are set as they were.

        The ranges are the model's: load its state first.

        Raises:
            CheckpointError: other settings, or a state that is not whole. Nothing has changed then.
            SettingError: ranges are frozen at that step, and one of them has seen nothing. Nor then.
        """
        given: Any = state
        state = given if isinstance(given, Mapping) else {}
        mine = {name: getattr(self, name) for name in SETTINGS}
        its = {name: state.get(name) for name in SETTINGS}
        steps = state.get("steps")
        if its != mine or isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 0:
            raise CheckpointError(
                f"expected a state of {mine} and a count of steps, got {given!r:.200}", op="QATSchedule",
                help="make the schedule with the settings of the run that is resumed",
            )  # fmt: skip
        self._go_to(int(steps))

    def _go_to(self, steps: int) -> None:
        """Set the switches to what holds at a step, or leave all as it is."""
        frozen = self.freeze_observers is not None and steps >= self.freeze_observers
        (disable_observer if frozen else enable_observer)(self.model)  # the one that may refuse goes first
        (enable_fake_quant if steps >= self.delay else disable_fake_quant)(self.model)
        if self.freeze_batch_norm is not None:
            still = steps >= self.freeze_batch_norm
            (freeze_bn_stats if still else update_bn_stats)(self.model)
        self.steps = steps

    def _check(self) -> None:
        """Refuse settings that cannot act."""
        given = {name: getattr(self, name) for name in SETTINGS if getattr(self, name) is not None}
        for name, value in given.items():
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
                raise SettingError(f"{name} must be a number of steps, got {value!r}", op="QATSchedule")
        if self.freeze_observers == 0:
            raise SettingError(
                "ranges cannot freeze at step 0, before the first batch", op="QATSchedule",
                help="let them watch some hundred steps",
            )  # fmt: skip
        for (first, a), (then, b) in zip(list(given.items())[:-1], list(given.items())[1:], strict=True):
            if a > b:
                raise SettingError(
                    f"{first}={a} comes after {then}={b}", op="QATSchedule",
                    help="the order is delay, freeze_observers, freeze_batch_norm; equal steps may be",
                )  # fmt: skip
        if list(given.values()) == [0]:
            raise SettingError(
                "nothing would happen: no delay, and nothing to freeze", op="QATSchedule",
                help="leave the schedule out, or give a step",
            )  # fmt: skip
        if self.freeze_batch_norm is not None:
            norms(self.model, "QATSchedule")

    def __repr__(self) -> str:
        """Show the settings and the step."""
        shown = ", ".join(f"{name}={getattr(self, name)}" for name in SETTINGS)
        return f"QATSchedule({shown}), step {self.steps}"
