"""RMSprop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from minimp.optim.groups import Group, number
from minimp.optim.optimizer import Optimizer, State
from minimp.optim.work import make_missing
from minimp.tape import Array

if TYPE_CHECKING:
    from minimp_backends.updates import Room

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    """w <- w - lr g / (sqrt v + eps), v the running mean of g^2 (torch.optim.RMSprop 2.13).

    g <- g + weight_decay w;  v <- alpha v + (1 - alpha) g^2;  with momentum b <- momentum b + g / (sqrt v +
    eps) and w <- w - lr b. Tieleman and Hinton 2012, lecture 6.5. The sums are taken in FP32, in the order of
    torch.

    Args:
        params, master_weights, update: see :class:`Optimizer`.
        lr, eps, weight_decay, momentum: numbers of at least 0.
        alpha: how much of v stays, at least 0.
        centered: put v - m^2, an estimate of the variance, in the place of v, m being the running mean of g
            (Graves 2013, arXiv 1308.0850). Rounding can take it below 0 where the gradient is constant; its
            root is then NaN, here as in torch.
        maximize: climb in the place of descending.

    Raises:
        SettingError: an option out of range.
    """

    rule: ClassVar[str] = "rmsprop"
    state_names: ClassVar[frozenset[str]] = frozenset({"step", "square_avg", "momentum_buffer", "grad_avg"})

    def __init__(
        self, params: Any, lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8, weight_decay: float = 0,
        momentum: float = 0, centered: bool = False, *, maximize: bool = False,
        master_weights: bool | None = None, update: str | None = None,
    ) -> None:  # fmt: skip
        defaults = {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults, master_weights=master_weights, update=update)

    def check_group(self, group: Group) -> None:
        """Hold the options to their ranges."""
        for name in ("lr", "momentum", "alpha", "eps", "weight_decay"):
            number("RMSprop", group, name)

    def lacking(self, state: State) -> list[str]:
        """Return what a state must have beside what it has: the running mean and the count."""
        return [name for name in ("step", "square_avg") if name not in state]

    def begin(self, group: Group, state: State, backend: Any, weight: Array) -> None:
        """Make what a parameter's state lacks."""
        make_missing(state, backend, weight, *self._kept(group))
        state.setdefault("step", 0)

    def _kept(self, group: Group) -> list[str]:
        """Return the names of the arrays that these options keep."""
        wanted = {"square_avg": True, "momentum_buffer": group["momentum"] > 0, "grad_avg": group["centered"]}
        return [name for name, used in wanted.items() if used]

    def advance(
        self, group: Group, state: State, backend: Any, room: Room, weight: Array, grad: Array
    ) -> None:
        """Fill `room`; the kernel is the backend's."""
        self.begin(group, state, backend, weight)
        state["step"] = state["step"] + 1
        used, names = self._kept(group), ("square_avg", "momentum_buffer", "grad_avg")
        kept = [state[name] if name in used else None for name in names]
        options = {name: group[name] for name in self.defaults if name != "centered"}
        backend.rmsprop(room, weight, grad, *kept, **options)
