"""Adagrad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from minimp.optim.groups import Group, number
from minimp.optim.optimizer import Optimizer, State
from minimp.tape import Array

if TYPE_CHECKING:
    from minimp_backends.updates import Room

__all__ = ["Adagrad"]


class Adagrad(Optimizer):
    """w <- w - lr_t g / (sqrt s + eps), s the sum of all g^2 so far (torch.optim.Adagrad 2.13).

    g <- g + weight_decay w;  s <- s + g^2;  lr_t = lr / (1 + (t - 1) lr_decay). Duchi, Hazan and Singer 2011.
    The sums are taken in FP32 in torch's order. The sum begins at the first step of a parameter, where torch
    makes it with the optimizer.

    Args:
        params, master_weights, update: see :class:`Optimizer`.
        lr, lr_decay, weight_decay, eps: numbers of at least 0.
        initial_accumulator_value: what s begins with, at least 0; each group's own, where torch takes the
            constructor's for all.
        maximize: climb in the place of descending.

    Raises:
        SettingError: an option out of range.
    """

    rule: ClassVar[str] = "adagrad"
    state_names: ClassVar[frozenset[str]] = frozenset({"step", "sum"})

    def __init__(
        self, params: Any, lr: float = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
        initial_accumulator_value: float = 0, eps: float = 1e-10, *, maximize: bool = False,
        master_weights: bool | None = None, update: str | None = None,
    ) -> None:  # fmt: skip
        defaults = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults, master_weights=master_weights, update=update)

    def check_group(self, group: Group) -> None:
        """Hold the options to their ranges."""
        for name in ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps"):
            number("Adagrad", group, name)

    def lacking(self, state: State) -> list[str]:
        """Return what a state must have beside what it has: the sum and the count go together."""
        return [name for name in ("step", "sum") if name not in state]

    def begin(self, group: Group, state: State, backend: Any, weight: Array) -> None:
        """Make what a parameter's state lacks."""
        if "sum" not in state:
            start = group["initial_accumulator_value"]
            state["sum"] = backend.xp.full(weight.shape, start, weight.dtype)
        state.setdefault("step", 0)

    def advance(
        self, group: Group, state: State, backend: Any, room: Room, weight: Array, grad: Array
    ) -> None:
        """Fill `room`; the kernel is the backend's."""
        self.begin(group, state, backend, weight)
        state["step"] = state["step"] + 1
        options = {name: group[name] for name in self.defaults if name != "initial_accumulator_value"}
        backend.adagrad(room, weight, grad, state["sum"], step=state["step"], **options)
