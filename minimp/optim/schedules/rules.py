"""Rates that follow a formula of the epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from minimp.errors import SettingError
from minimp.optim.optimizer import Optimizer
from minimp.optim.schedules.base import LRScheduler, at_least_one

__all__ = [
    "ConstantLR", "ExponentialLR", "LambdaLR", "LinearLR", "MultiStepLR", "MultiplicativeLR", "PolynomialLR",
    "StepLR",
]  # fmt: skip

Rule = Callable[[int], float]


class LambdaLR(LRScheduler):
    """lr = initial_lr f(epoch).

    Args:
        optimizer, last_epoch: see :class:`LRScheduler`.
        lr_lambda: f, or one f for each group. Functions are not saved: give the same ones after loading.

    Raises:
        SettingError: not one function per group.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Rule | Sequence[Rule], last_epoch: int = -1) -> None:
        self.lr_lambdas = _functions(type(self).__name__, optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return initial_lr f(epoch)."""
        pairs = zip(self.base_lrs, self.lr_lambdas, strict=True)
        return [base * rule(self.last_epoch) for base, rule in pairs]


class MultiplicativeLR(LRScheduler):
    """lr <- lr f(epoch), from epoch 1 on.

    Args:
        optimizer, last_epoch: see :class:`LRScheduler`.
        lr_lambda: f, or one f for each group. Functions are not saved: give the same ones after loading.

    Raises:
        SettingError: not one function per group.
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Rule | Sequence[Rule], last_epoch: int = -1) -> None:
        self.lr_lambdas = _functions(type(self).__name__, optimizer, lr_lambda)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the present rates times f(epoch)."""
        return [lr * rule(self.last_epoch) for lr, rule in zip(self.now(), self.lr_lambdas, strict=True)]

    def _initial_lr(self) -> list[float]:
        return self.now()


class StepLR(LRScheduler):
    """lr <- lr gamma every `step_size` epochs.

    Args:
        optimizer, last_epoch: see :class:`LRScheduler`.
        step_size: a whole number of at least 1.
        gamma: the factor.

    Raises:
        SettingError: a step size below 1.
    """

    fields: ClassVar[tuple[str, ...]] = ("step_size", "gamma")

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.step_size, self.gamma = at_least_one("StepLR", "step_size", step_size), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the present rates, times gamma if an interval has ended."""
        ended = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return [lr * self.gamma for lr in self.now()] if ended else self.now()

    def _closed_form(self) -> list[float]:
        return [base * self.gamma ** (self.last_epoch // self.step_size) for base in self.base_lrs]


class MultiStepLR(LRScheduler):
    """lr <- lr gamma at each milestone (twice at one that is given twice).

    Args:
        optimizer, last_epoch: see :class:`LRScheduler`.
        milestones: epochs.
        gamma: the factor.
    """

    fields: ClassVar[tuple[str, ...]] = ("milestones", "gamma")

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the present rates, times gamma at a milestone."""
        if self.last_epoch not in self.milestones:
            return self.now()
        return [lr * self.gamma ** self.milestones[self.last_epoch] for lr in self.now()]

    def _closed_form(self) -> list[float]:
        passed = sum(1 for each in self.milestones.elements() if each <= self.last_epoch)
        return [base * self.gamma**passed for base in self.base_lrs]

    def _restored(self, name: str, value: Any) -> Any:
        return Counter(value) if name == "milestones" else super()._restored(name, value)


class ConstantLR(LRScheduler):
    """lr = initial_lr factor up to epoch `total_iters`, and initial_lr from then on.

    Args:
        optimizer, last_epoch: see :class:`LRScheduler`.
        factor: greater than 0, at most 1 (torch takes 0, and divides by it at the end).
        total_iters: the number of epochs.

    Raises:
        SettingError: a factor out of range.
    """

    fields: ClassVar[tuple[str, ...]] = ("factor", "total_iters")

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        if not 0.0 < factor <= 1.0:
            raise SettingError(f"expected a factor above 0, up to 1; got {factor}", op="ConstantLR")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the present rates, changed at the first epoch and at `total_iters`."""
        if self.last_epoch == 0:
            return [lr * self.factor for lr in self.now()]
        if self.last_epoch != self.total_iters:
            return self.now()
        return [lr * (1.0 / self.factor) for lr in self.now()]

    def _closed_form(self) -> list[float]:
        over = self.last_epoch >= self.total_iters
        return [base * (self.factor + over * (1 - self.factor)) for base in self.base_lrs]


class LinearLR(LRScheduler):
    """lr = initial_lr f, f going in a line from `start_factor` to `end_factor` over `total_iters` epochs.

    Args:
        optimizer, last_epoch: see :class:`LRScheduler`.
        start_factor: greater than 0, at most 1.
        end_factor: from 0 to 1.
        total_iters: the number of epochs, at least 1.

    Raises:
        SettingError: a number out of range.
    """

    fields: ClassVar[tuple[str, ...]] = ("start_factor", "end_factor", "total_iters")

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1.0 / 3, end_factor: float = 1.0,
        total_iters: int = 5, last_epoch: int = -1,
    ) -> None:  # fmt: skip
        if not 0.0 < start_factor <= 1.0 or not 0.0 <= end_factor <= 1.0:
            raise SettingError(
                f"expected factors from above 0 and from 0, up to 1; got {start_factor} and {end_factor}",
                op="LinearLR",
            )
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = at_least_one("LinearLR", "total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the present rates, times the ratio of this epoch's factor to the last one's."""
        if self.last_epoch == 0:
            return [lr * self.start_factor for lr in self.now()]
        if self.last_epoch > self.total_iters:
            return self.now()
        gap = self.end_factor - self.start_factor
        ratio = 1.0 + gap / (self.total_iters * self.start_factor + (self.last_epoch - 1) * gap)
        return [lr * ratio for lr in self.now()]

    def _initial_lr(self) -> list[float]:
        return self.get_lr() if self.last_epoch == 0 else self.now()

    def _closed_form(self) -> list[float]:
        part = min(self.total_iters, self.last_epoch) / self.total_iters
        factor = self.start_factor + (self.end_factor - self.start_factor) * part
        return [base * factor for base in self.base_lrs]


class ExponentialLR(LRScheduler):
    """lr <- lr gamma at each epoch.

    Args:
        optimizer, last_epoch: see :class:`LRScheduler`.
        gamma: the factor.
    """

    fields: ClassVar[tuple[str, ...]] = ("gamma",)

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the present rates times gamma."""
        return [lr * self.gamma for lr in self.now()]

    def _initial_lr(self) -> list[float]:
        return self.now()

    def _closed_form(self) -> list[float]:
        return [base * self.gamma**self.last_epoch for base in self.base_lrs]


class PolynomialLR(LRScheduler):
    """lr = initial_lr (1 - epoch / total_iters)^power, and 0 from `total_iters` on.

    Args:
        optimizer, last_epoch: see :class:`LRScheduler`.
        total_iters: the number of epochs, at least 1.
        power: the exponent.

    Raises:
        SettingError: `total_iters` below 1.
    """

    fields: ClassVar[tuple[str, ...]] = ("total_iters", "power")

    def __init__(
        self, optimizer: Optimizer, total_iters: int = 5, power: float = 1.0, last_epoch: int = -1
    ) -> None:
        self.total_iters = at_least_one("PolynomialLR", "total_iters", total_iters)
        self.power = power
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the present rates, times the ratio of this epoch's power to the last one's."""
        if self.last_epoch > self.total_iters:
            return self.now()
        total = self.total_iters
        ratio = (1.0 - self.last_epoch / total) / (1.0 - (self.last_epoch - 1) / total)
        return [lr * ratio**self.power for lr in self.now()]

    def _initial_lr(self) -> list[float]:
        return self.now()

    def _closed_form(self) -> list[float]:
        left = 1.0 - min(self.total_iters, self.last_epoch) / self.total_iters
        return [base * left**self.power for base in self.base_lrs]


def _functions(op: str, optimizer: Optimizer, given: Rule | Sequence[Rule]) -> list[Rule]:
    groups = len(getattr(optimizer, "param_groups", ()))
    each = [given] * groups if callable(given) else list(given)
    if len(each) != groups or not all(map(callable, each)):
        raise SettingError(f"expected one function, or {groups} of them", op=op)
    return each
