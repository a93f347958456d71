"""Lion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from minimp.optim.groups import Group, number, pair_of_betas
from minimp.optim.optimizer import Optimizer, State
from minimp.optim.work import make_missing
from minimp.tape import Array

if TYPE_CHECKING:
    from minimp_backends.updates import Room

__all__ = ["Lion"]


class Lion(Optimizer):
    """w <- w (1 - lr weight_decay) - lr sign(beta1 m + (1 - beta1) g);  m <- beta2 m + (1 - beta2) g.

    Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2 (arXiv 2302.06675). Every
    element moves by lr, whatever its gradient's size, so a loss scale changes nothing but which gradients
    underflow. The paper (section 5) takes lr 3 to 10 times smaller than AdamW's, and weight_decay as much
    larger. torch has no Lion: arguments and names are those of torch.optim.AdamW, defaults those of the
    authors' code.

    Args:
        params, master_weights, update: see :class:`Optimizer`.
        lr, weight_decay: numbers of at least 0.
        betas: (beta1, beta2), each from 0 to below 1.
        maximize: climb in the place of descending.

    Raises:
        SettingError: an option out of range.
    """

    rule: ClassVar[str] = "lion"
    state_names: ClassVar[frozenset[str]] = frozenset({"exp_avg"})

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0, *, maximize: bool = False, master_weights: bool | None = None,
        update: str | None = None,
    ) -> None:  # fmt: skip
        defaults = {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults, master_weights=master_weights, update=update)

    def check_group(self, group: Group) -> None:
        """Hold the options to their ranges."""
        for name in ("lr", "weight_decay"):
            number("Lion", group, name)
        pair_of_betas("Lion", group)

    def lacking(self, state: State) -> list[str]:
        """Return what a state must have beside what it has."""
        return [] if "exp_avg" in state else ["exp_avg"]

    def begin(self, group: Group, state: State, backend: Any, weight: Array) -> None:
        """Make what a parameter's state lacks."""
        del group
        make_missing(state, backend, weight, "exp_avg")

    def advance(
        self, group: Group, state: State, backend: Any, room: Room, weight: Array, grad: Array
    ) -> None:
        """Fill `room`; the kernel is the backend's."""
        self.begin(group, state, backend, weight)
        beta1, beta2 = group["betas"]
        backend.lion(
            room, weight, grad, state["exp_avg"], lr=group["lr"], beta1=beta1, beta2=beta2,
            weight_decay=group["weight_decay"], maximize=group["maximize"],
        )  # fmt: skip
