"""Learning rates that change from epoch to epoch, with torch.optim.lr_scheduler's names and arithmetic.

A scheduler sets `lr` of each group when it is made (epoch 0) and at each :meth:`LRScheduler.step`, which
belongs after the optimizer's. Like torch's, most rules go from the present rate to the next one, so several
schedulers on one optimizer multiply; the rates are float64.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from minimp.errors import SettingError
from minimp.optim.optimizer import Optimizer

__all__ = ["CosineAnnealingLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR", "StepLR"]


class LRScheduler(ABC):
    """The base of the schedulers.

    Args:
        optimizer: whose groups get new rates. A group keeps its first rate as `initial_lr`.
        last_epoch: the epoch that was last; -1 begins anew. Another one needs groups with `initial_lr`.

    Attributes:
        base_lrs: the first rate of each group.
        last_epoch: the epoch whose rates are in force.

    Raises:
        SettingError: no Optimizer, or no `initial_lr` where one is needed.
    """

    fields: ClassVar[tuple[str, ...]] = ()
    """What :meth:`state_dict` holds beside the position."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        op = type(self).__name__
        if not isinstance(optimizer, Optimizer):
            raise SettingError(f"expected an optimizer, got {type(optimizer).__name__}", op=op)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise SettingError(
                    f"group {i} has no 'initial_lr' to go on from epoch {last_epoch}",
                    op=op,
                    help="load the optimizer's state first, or leave last_epoch at -1",
                )
        self.optimizer = optimizer
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch + 1
        self._apply(self._initial_lr())

    @abstractmethod
    def get_lr(self) -> list[float]:
        """Return the rate of each group for the epoch `last_epoch`, from those in force."""

    def _initial_lr(self) -> list[float]:
        """Return the rates when the scheduler is made."""
        return self.get_lr()

    def step(self) -> None:
        """Go to the next epoch: give each group its new rate."""
        self.last_epoch += 1
        self._apply(self.get_lr())

    def _apply(self, rates: list[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = self._now()

    def _now(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """Return the rates that this scheduler set last."""
        return list(self._last_lr)

    def state_dict(self) -> dict[str, Any]:
        """Return the position and the rule's numbers, as plain data; the optimizer's state has the rates."""
        kept = ("base_lrs", "last_epoch", "_last_lr", *self.fields)
        return {name: _plain(getattr(self, name)) for name in kept}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned, or nothing of it; load the optimizer's state too.

        Raises:
            SettingError: the state is of another kind of scheduler, or of another number of groups.
        """
        wanted = self.state_dict()
        if set(state_dict) != set(wanted) or len(state_dict["base_lrs"]) != len(self.base_lrs):
            raise SettingError(
                f"expected {', '.join(wanted)} for {len(self.base_lrs)} groups, got {', '.join(state_dict)}",
                op=f"{type(self).__name__}.load_state_dict",
                help="load it into a scheduler of the same class over the same groups",
            )
        for name, value in state_dict.items():
            setattr(self, name, self._restored(name, value))

    def _restored(self, name: str, value: Any) -> Any:
        """Return a saved value as the attribute `name` holds it."""
        del name
        return list(value) if isinstance(value, list | tuple) else value


class LambdaLR(LRScheduler):
    """lr = initial_lr f(epoch).

    Args:
        optimizer, last_epoch: see :class:`LRScheduler`.
        lr_lambda: f, or one f for each group. Functions are not saved: give the same ones after loading.

    Raises:
        SettingError: not one function per group.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        groups = len(getattr(optimizer, "param_groups", ()))
        each = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(each) != groups or not all(map(callable, each)):
            raise SettingError(f"expected one function, or {groups} of them", op="LambdaLR")
        self.lr_lambdas = each
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return initial_lr f(epoch)."""
        pairs = zip(self.base_lrs, self.lr_lambdas, strict=True)
        return [base * rule(self.last_epoch) for base, rule in pairs]


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
        self.step_size, self.gamma = _at_least_one("StepLR", "step_size", step_size), gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the present rates, times gamma if an interval has ended."""
        ended = self.last_epoch > 0 and self.last_epoch % self.step_size == 0
        return [lr * self.gamma for lr in self._now()] if ended else self._now()


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
            return self._now()
        return [lr * self.gamma ** self.milestones[self.last_epoch] for lr in self._now()]

    def _restored(self, name: str, value: Any) -> Any:
        return Counter(value) if name == "milestones" else super()._restored(name, value)


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
        self.total_iters = _at_least_one("LinearLR", "total_iters", total_iters)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the present rates, times the ratio of this epoch's factor to the last one's."""
        if self.last_epoch == 0:
            return [lr * self.start_factor for lr in self._now()]
        if self.last_epoch > self.total_iters:
            return self._now()
        gap = self.end_factor - self.start_factor
        ratio = 1.0 + gap / (self.total_iters * self.start_factor + (self.last_epoch - 1) * gap)
        return [lr * ratio for lr in self._now()]

    def _initial_lr(self) -> list[float]:
        return self.get_lr() if self.last_epoch == 0 else self._now()


class CosineAnnealingLR(LRScheduler):
    """lr = eta_min + (initial_lr - eta_min) (1 + cos(pi epoch / T_max)) / 2 (Loshchilov and Hutter 2017).

    Args:
        optimizer, last_epoch: see :class:`LRScheduler`.
        T_max: the epoch of the lowest rate, at least 1.
        eta_min: the lowest rate.

    Raises:
        SettingError: T_max below 1.
    """

    fields: ClassVar[tuple[str, ...]] = ("T_max", "eta_min")

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = _at_least_one("CosineAnnealingLR", "T_max", T_max), eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """Return the rates one step further on the cosine, from the present ones."""
        epoch, half, low = self.last_epoch, self.T_max, self.eta_min
        if (epoch - 1 - half) % (2 * half) == 0:  # the step after the lowest rate, where the ratio is 0 / 0
            pairs = zip(self._now(), self.base_lrs, strict=True)
            return [lr + (base - low) * (1 - math.cos(math.pi / half)) / 2 for lr, base in pairs]
        ratio = (1 + math.cos(math.pi * epoch / half)) / (1 + math.cos(math.pi * (epoch - 1) / half))
        return [ratio * (lr - low) + low for lr in self._now()]

    def _initial_lr(self) -> list[float]:
        return self._now()


def _at_least_one(op: str, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SettingError(f"expected {name} to be a whole number of at least 1, got {value!r}", op=op)
    return value


def _plain(value: Any) -> Any:
    """Return a copy that JSON can hold; repeated milestones are listed as often as they count."""
    if isinstance(value, Counter):
        return sorted(value.elements())
    return list(value) if isinstance(value, list) else value
