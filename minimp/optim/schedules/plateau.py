"""A rate that falls when a measured quantity stops improving."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from minimp.errors import SettingError, unknown_name
from minimp.optim.optimizer import Optimizer
from minimp.optim.schedules.base import LRScheduler, one_for_each

__all__ = ["ReduceLROnPlateau"]

MODES = ("min", "max")
THRESHOLD_MODES = ("rel", "abs")


class ReduceLROnPlateau(LRScheduler):
    """lr <- max(lr factor, min_lr) when more than `patience` epochs brought nothing better.

    Args:
        optimizer: see :class:`LRScheduler`.
        mode: "min" where lower is better, "max" where higher is.
        factor: below 1.
        patience: how many epochs in a row may pass without improvement.
        threshold: by how much better a value must be than the best so far.
        threshold_mode: "rel": by threshold times the best; "abs": by threshold itself.
        cooldown: epochs after a reduction in which nothing is counted.
        min_lr: the lowest rate, one number or one for each group.
        eps: a smaller change of the rate is not made.

    Attributes:
        best: the best value so far.
        num_bad_epochs: epochs in a row without improvement.
        cooldown_counter: epochs of the cooldown that are left.

    Raises:
        SettingError: a factor of 1 or more, or an unknown mode.
    """

    fields: ClassVar[tuple[str, ...]] = (
        "factor", "min_lrs", "patience", "cooldown", "eps", "mode", "threshold", "threshold_mode", "best",
        "cooldown_counter", "num_bad_epochs",
    )  # fmt: skip

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
        min_lr: float | Sequence[float] = 0, eps: float = 1e-8,
    ) -> None:  # fmt: skip
        op = "ReduceLROnPlateau"
        self.min_lrs = one_for_each(op, "min_lr", optimizer, min_lr)
        if factor >= 1.0:
            raise SettingError(f"expected a factor below 1, got {factor!r}", op=op)
        for name, value, known in (
            ("mode", mode, MODES),
            ("threshold_mode", threshold_mode, THRESHOLD_MODES),
        ):
            if value not in known:
                raise SettingError(unknown_name(name, value, known), op=op)
        self.optimizer, self.factor, self.patience, self.cooldown = optimizer, factor, patience, cooldown
        self.mode, self.threshold, self.threshold_mode, self.eps = mode, threshold, threshold_mode, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0
        self._last_lr = self.now()

    def get_lr(self) -> list[float]:
        """Return the rates in force: they do not follow from the epoch."""
        return self.now()

    def step(self, metrics: Any) -> bool:  # type: ignore[override]  # torch's signature
        """Take note of an epoch, and lower the rates if it was one too many without improvement.

        Args:
            metrics: the measured value, a number or a tensor of one element; NaN is no improvement.

        Returns:
            Whether the rates have changed.
        """
        before = self.now()
        self.last_epoch += 1
        value = float(metrics)
        if self._is_better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
        self._last_lr = self.now()
        return self._last_lr != before

    def _is_better(self, value: float) -> bool:
        if self.threshold_mode == "rel":
            edge = self.best * (1.0 - self.threshold if self.mode == "min" else 1.0 + self.threshold)
        else:
            edge = self.best - self.threshold if self.mode == "min" else self.best + self.threshold
        return value < edge if self.mode == "min" else value > edge

    def _reduce(self) -> None:
        groups = self.optimizer.param_groups
        if len(groups) != len(self.min_lrs):
            raise SettingError(
                f"the optimizer has {len(groups)} groups now, and had {len(self.min_lrs)}",
                op="ReduceLROnPlateau.step",
                help="set its min_lrs, one for each group",
            )
        for group, least in zip(groups, self.min_lrs, strict=True):
            new = max(group["lr"] * self.factor, least)
            if group["lr"] - new > self.eps:
                group["lr"] = new

    def _kept(self) -> tuple[str, ...]:
        return ("last_epoch", "_last_lr", *self.fields)
