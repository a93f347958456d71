"""LAMB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from minimp.optim.groups import Group, number, pair_of_betas
from minimp.optim.optimizer import Optimizer, State
from minimp.optim.work import make_missing
from minimp.tape import Array

if TYPE_CHECKING:
    from minimp_backends.updates import Room

__all__ = ["LAMB"]


class LAMB(Optimizer):
    """w <- w - lr r u, u = m^ / (sqrt v^ + eps) + weight_decay w, and r = |w| / |u| of each whole tensor.

    You et al. 2020, "Large Batch Optimization for Deep Learning", algorithm 2 (arXiv 1904.00962), in the form
    that corrects the bias of Adam's means (^; the paper's versions differ in that), with phi the identity,
    and r = 1 where |w| or |u| is 0. So every tensor moves by lr of its own length. This is optax.lamb's
    variant; apex's FusedLAMB clips the gradients of all tensors beforehand (here: `clip_grad_norm_`) and by
    default takes r = 1 where weight_decay is 0. The norms are summed in float64. torch has no LAMB: arguments
    and names are those of torch.optim.Adam, defaults those of FusedLAMB.

    Args:
        params, master_weights, update: see :class:`Optimizer`.
        lr, eps, weight_decay: numbers of at least 0.
        betas: (beta1, beta2), each from 0 to below 1.
        maximize: climb in the place of descending.

    Raises:
        SettingError: an option out of range.
    """

    rule: ClassVar[str] = "lamb"
    together: ClassVar[bool] = False
    state_names: ClassVar[frozenset[str]] = frozenset({"step", "exp_avg", "exp_avg_sq"})

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-6,
        weight_decay: float = 1e-2, *, maximize: bool = False, master_weights: bool | None = None,
        update: str | None = None,
    ) -> None:  # fmt: skip
        defaults = {
            "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults, master_weights=master_weights, update=update)

    def check_group(self, group: Group) -> None:
        """Hold the options to their ranges."""
        for name in ("lr", "eps", "weight_decay"):
            number("LAMB", group, name)
        pair_of_betas("LAMB", group)

    def lacking(self, state: State) -> list[str]:
        """Return what a state must have beside what it has: the three of Adam go together."""
        return [name for name in ("step", "exp_avg", "exp_avg_sq") if name not in state]

    def begin(self, group: Group, state: State, backend: Any, weight: Array) -> None:
        """Make what a parameter's state lacks."""
        del group
        make_missing(state, backend, weight, "exp_avg", "exp_avg_sq")
        state.setdefault("step", 0)

    def advance(
        self, group: Group, state: State, backend: Any, room: Room, weight: Array, grad: Array
    ) -> None:
        """Fill `room`; the kernel is the backend's."""
        self.begin(group, state, backend, weight)
        state["step"] = state["step"] + 1
        beta1, beta2 = group["betas"]
        backend.lamb(
            room, weight, grad, state["exp_avg"], state["exp_avg_sq"], lr=group["lr"], beta1=beta1,
            beta2=beta2, eps=group["eps"], weight_decay=group["weight_decay"], maximize=group["maximize"],
            step=state["step"],
        )  # fmt: skip
