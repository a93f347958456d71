"""The base of the schedulers: where they stand, when they move on, and how they are saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from minimp.errors import SettingError
from minimp.optim.optimizer import Optimizer

__all__ = ["LRScheduler", "at_least_one", "one_for_each"]


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
        require_optimizer(op, optimizer)
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
        self.last_epoch = last_epoch
        self._seen = (optimizer.steps_taken, optimizer.steps_skipped)
        self.begin()

    @abstractmethod
    def get_lr(self) -> list[float]:
        """Return the rate of each group for the epoch `last_epoch`, from those in force."""

    # ---- moving on --------------------------------------------------------------------------------------

    def step(self) -> bool:
        """Go to the next epoch: give each group its new rate.

        Where every step of the optimizer since the last call was skipped (the gradients were not finite at
        the present loss scale), nothing was learned at the present rate, and it stays: nothing changes.
        Where there was no step at all, as when rates are drawn up beforehand, the scheduler goes on.

        Returns:
            Whether it has moved on.
        """
        seen = (self.optimizer.steps_taken, self.optimizer.steps_skipped)
        only_skips = seen[0] == self._seen[0] and seen[1] > self._seen[1]
        self._seen = seen
        if not only_skips:
            self.advance()
        return not only_skips

    def advance(self) -> None:
        """Go to the next epoch, whatever the optimizer did."""
        self.last_epoch += 1
        self.apply(self.get_lr())

    def begin(self) -> None:
        """Set the rates of the first epoch: from a constructor, or from a sequence that starts over."""
        self.last_epoch += 1
        self.apply(self._initial_lr())

    def take_over(self) -> None:
        """Set the rates of epoch 0, where a sequence of schedulers reaches this one."""
        self.last_epoch = 0
        closed = self._closed_form()
        self.apply(self.get_lr() if closed is None else closed)

    def undo(self) -> None:
        """Go back by the epoch of the constructor; a sequence begins its first scheduler again."""
        self.last_epoch -= 1

    def _initial_lr(self) -> list[float]:
        """Return the rates when the scheduler begins."""
        return self.get_lr()

    def _closed_form(self) -> list[float] | None:
        """Return the rates from `initial_lr` and the epoch alone, if the rule has such a form."""
        return None

    def apply(self, rates: Sequence[float]) -> None:
        """Give each group its rate."""
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = self.now()

    def now(self) -> list[float]:
        """Return the rates in force."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[float]:
        """Return the rates that this scheduler set last."""
        return list(self._last_lr)

    # ---- saving -----------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the position and the rule's numbers, as plain data; the optimizer's state has the rates."""
        return {name: _plain(getattr(self, name)) for name in self._kept()}

    def _kept(self) -> tuple[str, ...]:
        return ("base_lrs", "last_epoch", "_last_lr", *self.fields)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned, or nothing of it; load the optimizer's state too.

        Raises:
            SettingError: the state is of another kind of scheduler, or of another number of groups.
        """
        self.check_state(state_dict)
        for name, value in state_dict.items():
            setattr(self, name, self._restored(name, value))
        self._seen = (self.optimizer.steps_taken, self.optimizer.steps_skipped)

    def check_state(self, state_dict: Mapping[str, Any]) -> None:
        """Refuse a state that is not of this kind of scheduler.

        Raises:
            SettingError: naming what was expected.
        """
        wanted = self._kept()
        if set(state_dict) != set(wanted) or len(state_dict["_last_lr"]) != len(self._last_lr):
            raise SettingError(
                f"expected {', '.join(wanted)} for {len(self._last_lr)} groups, got {', '.join(state_dict)}",
                op=f"{type(self).__name__}.load_state_dict",
                help="load it into a scheduler of the same class over the same groups",
            )

    def _restored(self, name: str, value: Any) -> Any:
        """Return a saved value as the attribute `name` holds it."""
        del name
        return list(value) if isinstance(value, list | tuple) else value


def require_optimizer(op: str, optimizer: Any) -> None:
    """Refuse what is no optimizer.

    Raises:
        SettingError: naming what came.
    """
    if not isinstance(optimizer, Optimizer):
        raise SettingError(f"expected an optimizer, got {type(optimizer).__name__}", op=op)


def at_least_one(op: str, name: str, value: Any) -> int:
    """Return a whole number of at least 1.

    Raises:
        SettingError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SettingError(f"expected {name} to be a whole number of at least 1, got {value!r}", op=op)
    return value


def one_for_each(op: str, name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """Return a list with one value for each group: the one given for all, or those given.

    Raises:
        SettingError: not one for each group.
    """
    require_optimizer(op, optimizer)
    groups = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [value] * groups
    if len(value) != groups:
        raise SettingError(f"expected one {name}, or {groups} of them, got {len(value)}", op=op)
    return list(value)


def _plain(value: Any) -> Any:
    """Return a copy that JSON can hold; repeated milestones are listed as often as they count."""
    if isinstance(value, Counter):
        return sorted(value.elements())
    return list(value) if isinstance(value, list) else value
