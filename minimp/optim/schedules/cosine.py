"""Rates that go down half a cosine, once or again and again (Loshchilov and Hutter 2017)."""

from __future__ import annotations

import math
from typing import ClassVar

from minimp.optim.optimizer import Optimizer
from minimp.optim.schedules.base import LRScheduler, at_least_one

__all__ = ["CosineAnnealingLR", "CosineAnnealingWarmRestarts"]


class CosineAnnealingLR(LRScheduler):
    """lr = eta_min + (initial_lr - eta_min) (1 + cos(pi epoch / T_max)) / 2 (arXiv 1608.03983).

    Args:
        optimizer, last_epoch: see :class:`LRScheduler`.
        T_max: the epoch of the lowest rate, at least 1.
        eta_min: the lowest rate.

    Raises:
        SettingError: T_max below 1.
    """

    fields: ClassVar[tuple[str, ...]] = ("T_max", "eta_min")

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = at_least_one("CosineAnnealingLR", "T_max", T_max), eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates one step further on the cosine, from the present ones."""
        epoch, half, low = self.last_epoch, self.T_max, self.eta_min
        if (epoch - 1 - half) % (2 * half) == 0:  # the step after the lowest rate, where the ratio is 0 / 0
            pairs = zip(self.now(), self.base_lrs, strict=True)
            return [lr + (base - low) * (1 - math.cos(math.pi / half)) / 2 for lr, base in pairs]
        ratio = (1 + math.cos(math.pi * epoch / half)) / (1 + math.cos(math.pi * (epoch - 1) / half))
        return [ratio * (lr - low) + low for lr in self.now()]

    def _initial_lr(self) -> list[float]:
        return self.now()

    def _closed_form(self) -> list[float]:
        height = 1 + math.cos(math.pi * self.last_epoch / self.T_max)
        return [self.eta_min + (base - self.eta_min) * height / 2 for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """A cosine that starts over after T_0, then after T_0 T_mult, then after T_0 T_mult^2 ... epochs.

    lr = eta_min + (initial_lr - eta_min) (1 + cos(pi T_cur / T_i)) / 2, T_cur counting from the last restart
    and T_i being the length of the present cosine (SGDR, arXiv 1608.03983).

    Args:
        optimizer, last_epoch: see :class:`LRScheduler`.
        T_0: the epochs of the first cosine, at least 1.
        T_mult: how much longer each is than the one before, a whole number of at least 1.
        eta_min: the lowest rate.

    Raises:
        SettingError: T_0 or T_mult below 1.
    """

    fields: ClassVar[tuple[str, ...]] = ("T_0", "T_i", "T_mult", "eta_min", "T_cur")

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        op = "CosineAnnealingWarmRestarts"
        self.T_0 = self.T_i = at_least_one(op, "T_0", T_0)
        self.T_mult, self.eta_min = at_least_one(op, "T_mult", T_mult), eta_min
        self.T_cur = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates of the place on the present cosine."""
        height = 1 + math.cos(math.pi * self.T_cur / self.T_i)
        return [self.eta_min + (base - self.eta_min) * height / 2 for base in self.base_lrs]

    def begin(self) -> None:
        """Begin at the first epoch, or go on after `last_epoch`."""
        if self.last_epoch < 0:
            self.last_epoch = self.T_cur = 0
            self.T_i = self.T_0
            self.apply(self.get_lr())
        else:
            self.advance()

    def advance(self) -> None:
        """Go on by an epoch, to the start of the next cosine where this one ends."""
        self.last_epoch += 1
        self.T_cur += 1
        if self.T_cur >= self.T_i:
            self.T_cur %= self.T_i
            self.T_i *= self.T_mult
        self.apply(self.get_lr())
