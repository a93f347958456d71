"""Stochastic gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from minimp.errors import SettingError
from minimp.optim.groups import Group, number
from minimp.optim.optimizer import Optimizer, State
from minimp.tape import Array

if TYPE_CHECKING:
    from minimp_backends.updates import Room

__all__ = ["SGD"]


class SGD(Optimizer):
    """w <- w - lr d, with momentum, Nesterov's look ahead and weight decay (torch.optim.SGD 2.13).

    g <- g + weight_decay w;  b <- momentum b + (1 - dampening) g, or g at the first step;  d = b, or
    g + momentum b (nesterov), or g (momentum 0). Sutskever et al. 2013, but for where lr stands. The sums
    are taken in FP32 in torch's order.

    Args:
        params, master_weights, update: see :class:`Optimizer`.
        lr, momentum, dampening, weight_decay: numbers of at least 0.
        nesterov: needs a momentum and no dampening.
        maximize: climb in the place of descending.

    Raises:
        SettingError: an option out of range.
    """

    rule: ClassVar[str] = "sgd"
    state_names: ClassVar[frozenset[str]] = frozenset({"momentum_buffer"})

    def __init__(
        self, params: Any, lr: float = 1e-3, momentum: float = 0, dampening: float = 0,
        weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False,
        master_weights: bool | None = None, update: str | None = None,
    ) -> None:  # fmt: skip
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults, master_weights=master_weights, update=update)

    def check_group(self, group: Group) -> None:
        """Hold the options to their ranges."""
        for name in ("lr", "momentum", "dampening", "weight_decay"):
            number("SGD", group, name)
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise SettingError(
                f"nesterov needs a momentum and no dampening, got momentum={group['momentum']!r} "
                f"and dampening={group['dampening']!r}",
                op="SGD",
            )

    def lacking(self, state: State) -> list[str]:
        """Return nothing: a momentum buffer may be there or not."""
        del state
        return []

    def begin(self, group: Group, state: State, backend: Any, weight: Array) -> None:
        """Make what a parameter's state lacks."""
        if group["momentum"] and "momentum_buffer" not in state:
            state["momentum_buffer"] = backend.xp.zeros(weight.shape, weight.dtype)
            state["first"] = True  # until the buffer has been filled

    def advance(
        self, group: Group, state: State, backend: Any, room: Room, weight: Array, grad: Array
    ) -> None:
        """Fill `room`; the kernel is the backend's."""
        self.begin(group, state, backend, weight)
        first = state.pop("first", False)
        if hasattr(first, "dtype"):  # on the device, where nobody has read it
            state["first"] = first & False
        options = {name: group[name] for name in self.defaults}
        buffer = state.get("momentum_buffer") if group["momentum"] else None
        backend.sgd(room, weight, grad, buffer, first=first, **options)
