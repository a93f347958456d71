"""The rate of stochastic weight averaging: down, or up, to one rate that stays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from minimp.errors import SettingError, unknown_name
from minimp.optim.optimizer import Optimizer
from minimp.optim.schedules.base import LRScheduler, at_least_one, one_for_each

__all__ = ["SWALR"]

STRATEGIES = ("cos", "linear")


class SWALR(LRScheduler):
    """lr goes to `swa_lr` in `anneal_epochs` epochs and stays there (torch.optim.swa_utils.SWALR 2.13).

    Args:
        optimizer, last_epoch: see :class:`LRScheduler`; each group gets `swa_lr`.
        swa_lr: the rate at the end, one number or one for each group.
        anneal_epochs: the number of epochs on the way, at least 0.
        anneal_strategy: "cos" or "linear".

    Raises:
        SettingError: a number out of range, or an unknown strategy.
    """

    fields: ClassVar[tuple[str, ...]] = ("anneal_epochs", "anneal_strategy", "_count")

    def __init__(
        self, optimizer: Optimizer, swa_lr: float | Sequence[float], anneal_epochs: int = 10,
        anneal_strategy: str = "cos", last_epoch: int = -1,
    ) -> None:  # fmt: skip
        rates = one_for_each("SWALR", "swa_lr", optimizer, swa_lr)
        if anneal_strategy not in STRATEGIES:
            raise SettingError(unknown_name("anneal_strategy", anneal_strategy, STRATEGIES), op="SWALR")
        if anneal_epochs:
            at_least_one("SWALR", "anneal_epochs", anneal_epochs)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["swa_lr"] = rate
        self.anneal_epochs, self.anneal_strategy, self._count = anneal_epochs, anneal_strategy, -1
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates one step further on the way, from the present ones."""
        self._count += 1
        step = max(1, self._count) if self.anneal_epochs == 0 else self._count
        before, now = (self._part(at) for at in (step - 1, step))
        rates = []
        for group in self.optimizer.param_groups:
            end = group["swa_lr"]
            begin = end if before == 1 else (group["lr"] - before * end) / (1 - before)
            rates.append(end * now + begin * (1 - now))
        return rates

    def _part(self, step: int) -> float:
        """Return how much of the way is behind, from 0 to 1."""
        part = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return part if self.anneal_strategy == "linear" else (1 - math.cos(math.pi * part)) / 2
