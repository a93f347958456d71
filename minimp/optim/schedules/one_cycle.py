"""One cycle: up to a high rate, and down far below the first one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from minimp.errors import SettingError, unknown_name
from minimp.optim.optimizer import Optimizer
from minimp.optim.schedules.base import LRScheduler, at_least_one, one_for_each

__all__ = ["OneCycleLR"]


class Phase(NamedTuple):
    """A stretch of the cycle: up to which step, and what its rate and momentum go from and to."""

    end_step: float
    start_lr: str
    end_lr: str
    start_momentum: str
    end_momentum: str


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) / 2.0 * (math.cos(math.pi * part) + 1)


def _line(start: float, end: float, part: float) -> float:
    return (end - start) * part + start


STRATEGIES: dict[str, Callable[[float, float, float], float]] = {"cos": _cosine, "linear": _line}


class OneCycleLR(LRScheduler):
    """The rate rises to `max_lr`, then falls to a small part of the first one; momentum does the reverse.

    Smith and Topin 2018, "Super-Convergence" (arXiv 1708.07120), as torch.optim.lr_scheduler.OneCycleLR.
    The rate begins at max_lr / div_factor, is `max_lr` after pct_start of all steps, and ends at
    max_lr / div_factor / final_div_factor. Step it after each step of the optimizer, not each epoch: it is
    the schedule for which a skipped step must not count, and :meth:`step` does not count it.

    Args:
        optimizer: each group gets `initial_lr`, `max_lr` and `min_lr`, and with `cycle_momentum`
            `max_momentum` and `base_momentum`.
        max_lr: the highest rate, one number or one for each group.
        total_steps: the number of steps in the cycle; or `epochs` and `steps_per_epoch`, whose product it is.
        pct_start: the part of the cycle in which the rate rises, from 0 to 1.
        anneal_strategy: "cos" or "linear".
        cycle_momentum: whether `momentum`, or the first of `betas`, falls while the rate rises.
        base_momentum, max_momentum: its lowest and highest value, one number or one for each group.
        div_factor: max_lr over the first rate.
        final_div_factor: the first rate over the last one.
        three_phase: come back to the first rate in as many steps as it took to rise, and fall only then.
        last_epoch: see :class:`LRScheduler`.

    Raises:
        SettingError: a number out of range, no number of steps, or no momentum to cycle.
    """

    fields: ClassVar[tuple[str, ...]] = ("total_steps", "cycle_momentum", "anneal_strategy")

    def __init__(
        self, optimizer: Optimizer, max_lr: float | Sequence[float], total_steps: int | None = None,
        epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
        anneal_strategy: str = "cos", cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85, max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0, final_div_factor: float = 1e4, three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:  # fmt: skip
        op = "OneCycleLR"
        highest = one_for_each(op, "max_lr", optimizer, max_lr)
        if not 0.0 <= pct_start <= 1.0:
            raise SettingError(f"expected pct_start from 0 to 1, got {pct_start!r}", op=op)
        if anneal_strategy not in STRATEGIES:
            raise SettingError(unknown_name("anneal_strategy", anneal_strategy, STRATEGIES), op=op)
        self.anneal_strategy, self.cycle_momentum = anneal_strategy, cycle_momentum
        self.total_steps = _total(op, total_steps, epochs, steps_per_epoch)
        self.phases = _phases(self.total_steps, pct_start, three_phase)
        self.use_beta1 = "betas" in optimizer.defaults
        if cycle_momentum and not (self.use_beta1 or "momentum" in optimizer.defaults):
            raise SettingError(
                f"{type(optimizer).__name__} has neither momentum nor betas to cycle", op=op,
                help="pass cycle_momentum=False",
            )  # fmt: skip
        if last_epoch == -1:
            for group, high in zip(optimizer.param_groups, highest, strict=True):
                first = high / div_factor
                group.update(initial_lr=first, max_lr=high, min_lr=first / final_div_factor)
            if cycle_momentum:
                self._set_limits(optimizer, base_momentum, max_momentum)
        super().__init__(optimizer, last_epoch)

    def _set_limits(self, optimizer: Optimizer, base: Any, high: Any) -> None:
        limits = (
            one_for_each("OneCycleLR", name, optimizer, value)
            for name, value in (("base_momentum", base), ("max_momentum", high))
        )
        for group, low, high_one in zip(optimizer.param_groups, *limits, strict=True):
            group.update(base_momentum=low, max_momentum=high_one)
            self._set_momentum(group, high_one)

    def _set_momentum(self, group: dict[str, Any], value: float) -> None:
        if self.use_beta1:
            group["betas"] = (value, *group["betas"][1:])
        else:
            group["momentum"] = value

    def get_lr(self) -> list[float]:
        """Return the rates at the present step; gives each group its momentum as well.

        Raises:
            SettingError: the cycle is over.
        """
        number, between = self.last_epoch, STRATEGIES[self.anneal_strategy]
        if number > self.total_steps:
            raise SettingError(
                f"the cycle has {self.total_steps} steps, and this is step {number}", op="OneCycleLR.step",
                help="make it with the number of steps that the run will have",
            )  # fmt: skip
        starts = (0.0, *(phase.end_step for phase in self.phases))
        last = len(self.phases) - 1
        i = next(i for i, phase in enumerate(self.phases) if number <= phase.end_step or i == last)
        phase, part = self.phases[i], (number - starts[i]) / (self.phases[i].end_step - starts[i])
        rates = []
        for group in self.optimizer.param_groups:
            rates.append(between(group[phase.start_lr], group[phase.end_lr], part))
            if self.cycle_momentum:
                ends = group[phase.start_momentum], group[phase.end_momentum]
                self._set_momentum(group, between(*ends, part))
        return rates


def _total(op: str, total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    """Return the number of steps of the cycle."""
    if total_steps is not None:
        return at_least_one(op, "total_steps", total_steps)
    if epochs is None or steps_per_epoch is None:
        raise SettingError("expected total_steps, or epochs and steps_per_epoch", op=op)
    return at_least_one(op, "epochs", epochs) * at_least_one(op, "steps_per_epoch", steps_per_epoch)


def _phases(total: int, pct_start: float, three: bool) -> tuple[Phase, ...]:
    """Return the phases: up, down, and with three of them further down."""
    rise = float(pct_start * total) - 1
    up = Phase(rise, "initial_lr", "max_lr", "max_momentum", "base_momentum")
    if not three:
        return up, Phase(total - 1, "max_lr", "min_lr", "base_momentum", "max_momentum")
    back = Phase(2 * pct_start * total - 2, "max_lr", "initial_lr", "base_momentum", "max_momentum")
    return up, back, Phase(total - 1, "initial_lr", "min_lr", "max_momentum", "max_momentum")
