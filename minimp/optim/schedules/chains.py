"""Several schedulers as one: one after another, or all at once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from minimp.errors import SettingError
from minimp.optim.optimizer import Optimizer
from minimp.optim.schedules.base import LRScheduler, require_optimizer
from minimp.optim.schedules.plateau import ReduceLROnPlateau

__all__ = ["ChainedScheduler", "SequentialLR"]


class _Several(LRScheduler):
    """What both have in common: the parts, and saving them."""

    def _adopt(self, optimizer: Optimizer, schedulers: Sequence[Any]) -> None:
        """Take over schedulers of one optimizer."""
        op = type(self).__name__
        require_optimizer(op, optimizer)
        for i, each in enumerate(schedulers):
            if not isinstance(each, LRScheduler) or isinstance(each, ReduceLROnPlateau):
                raise SettingError(
                    f"expected schedulers that need no measured value, but number {i} is a "
                    f"{type(each).__name__}", op=op,
                )  # fmt: skip
            if each.optimizer is not optimizer:
                raise SettingError(f"scheduler {i} is of another optimizer", op=op)
        self.optimizer, self._schedulers = optimizer, list(schedulers)
        self._seen = (optimizer.steps_taken, optimizer.steps_skipped)

    def undo(self) -> None:
        """Let each part go back by the epoch of its constructor."""
        for each in self._schedulers:
            each.undo()

    def get_lr(self) -> list[float]:
        """Return the rates in force; the parts set them."""
        return self.now()

    def state_dict(self) -> dict[str, Any]:
        """Return the position and the state of each part."""
        return {**super().state_dict(), "_schedulers": [each.state_dict() for each in self._schedulers]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned, or nothing of it; load the optimizer's state too.

        Raises:
            SettingError: the state is of other schedulers.
        """
        self.check_state(state_dict)
        own = {name: value for name, value in state_dict.items() if name != "_schedulers"}
        for each, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            each.load_state_dict(state)
        for name, value in own.items():
            setattr(self, name, self._restored(name, value))
        self._seen = (self.optimizer.steps_taken, self.optimizer.steps_skipped)

    def check_state(self, state_dict: Mapping[str, Any]) -> None:
        """Refuse a state that is not of these schedulers.

        Raises:
            SettingError: naming what was expected.
        """
        parts = state_dict.get("_schedulers")
        if not isinstance(parts, list) or len(parts) != len(self._schedulers):
            raise SettingError(
                f"expected the states of {len(self._schedulers)} schedulers, got {', '.join(state_dict)}",
                op=f"{type(self).__name__}.load_state_dict",
            )
        super().check_state({name: value for name, value in state_dict.items() if name != "_schedulers"})
        for each, state in zip(self._schedulers, parts, strict=True):
            each.check_state(state)


class SequentialLR(_Several):
    """One scheduler after another: a warm-up, then a cosine.

    >>> warm_up = LinearLR(optimizer, 0.1, total_iters=100)  # doctest: +SKIP
    >>> cosine = CosineAnnealingLR(optimizer, T_max=900)  # doctest: +SKIP
    >>> schedule = SequentialLR(optimizer, [warm_up, cosine], milestones=[100])  # doctest: +SKIP

    Args:
        optimizer: that of all schedulers.
        schedulers: in the order in which they are in force.
        milestones: the epochs at which the second, third ... takes over, counting from its own epoch 0.
        last_epoch: the epoch that was last.

    Raises:
        SettingError: no schedulers, not one milestone fewer than schedulers, schedulers of another optimizer,
            or one that needs a measured value.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ) -> None:
        self._adopt(optimizer, schedulers)
        if len(milestones) != len(schedulers) - 1:
            raise SettingError(
                f"expected one milestone fewer than schedulers, got {len(schedulers)} schedulers and "
                f"{len(milestones)} milestones", op="SequentialLR",
            )  # fmt: skip
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        self.undo()
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first.begin()
        self._last_lr = first.get_last_lr()

    def begin(self) -> None:
        """Let the first part begin; this one is a part of another itself."""
        self._schedulers[bisect_right(self._milestones, 0)].begin()
        self._last_lr = self.now()

    def advance(self) -> None:
        """Go on by an epoch; at a milestone the next scheduler takes over."""
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        if i > 0 and self._milestones[i - 1] == self.last_epoch:
            self._schedulers[i].take_over()
        else:
            self._schedulers[i].advance()
        self._last_lr = self._schedulers[i].get_last_lr()

    def _kept(self) -> tuple[str, ...]:
        return ("_milestones", "last_epoch", "_last_lr")


class ChainedScheduler(_Several):
    """All schedulers at once: each changes the rates that the one before it has set.

    Args:
        schedulers: in the order in which they act.
        optimizer: that of all schedulers; None takes that of the first.

    Raises:
        SettingError: no schedulers, schedulers of several optimizers, or one that needs a measured value.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None) -> None:
        if not schedulers:
            raise SettingError("expected at least one scheduler", op="ChainedScheduler")
        self._adopt(getattr(schedulers[0], "optimizer", None) if optimizer is None else optimizer, schedulers)  # type: ignore[arg-type]  # refused there
        self._last_lr = self.now()

    def begin(self) -> None:
        """Let each scheduler begin; this one is a part of another itself."""
        for each in self._schedulers:
            each.begin()
        self._last_lr = self.now()

    def advance(self) -> None:
        """Let each scheduler go on by an epoch."""
        for each in self._schedulers:
            each.advance()
        self._last_lr = self.now()

    def _kept(self) -> tuple[str, ...]:
        return ("_last_lr",)
