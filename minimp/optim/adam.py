"""Adam and AdamW."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from minimp.optim.groups import Group, number, pair_of_betas
from minimp.optim.optimizer import Optimizer, State
from minimp.optim.work import make_missing
from minimp.tape import Array

if TYPE_CHECKING:
    from minimp_backends.updates import Room

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """w <- w - lr m^ / (sqrt v^ + eps), m and v running means of g and g^2 (torch.optim.Adam 2.13).

    m <- m + (1 - beta1) (g - m);  v <- beta2 v + (1 - beta2) g^2;  ^ divides by 1 - beta^t. Kingma and Ba
    2015 (arXiv 1412.6980); weight decay is added to g. The sums are taken in FP32 in torch's order.

    Args:
        params, master_weights, update: see :class:`Optimizer`.
        lr, eps, weight_decay: numbers of at least 0.
        betas: (beta1, beta2), each from 0 to below 1.
        amsgrad: use the largest v so far in the place of v (Reddi et al. 2018).
        maximize: climb in the place of descending.

    Raises:
        SettingError: an option out of range.
    """

    rule: ClassVar[str] = "adam"
    decoupled: ClassVar[bool] = False
    state_names: ClassVar[frozenset[str]] = frozenset({"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"})

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 0, amsgrad: bool = False, *, maximize: bool = False,
        master_weights: bool | None = None, update: str | None = None,
    ) -> None:  # fmt: skip
        defaults = {
            "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "amsgrad": amsgrad,
            "maximize": maximize,
        }  # fmt: skip
        super().__init__(params, defaults, master_weights=master_weights, update=update)

    def check_group(self, group: Group) -> None:
        """Hold the options to their ranges."""
        for name in ("lr", "eps", "weight_decay"):
            number(self._name(), group, name)
        pair_of_betas(self._name(), group)

    def lacking(self, state: State) -> list[str]:
        """Return what a state must have beside what it has: the three of Adam go together."""
        together = ("step", "exp_avg", "exp_avg_sq")
        return [name for name in together if name not in state]

    def begin(self, group: Group, state: State, backend: Any, weight: Array) -> None:
        """Make what a parameter's state lacks."""
        make_missing(state, backend, weight, "exp_avg", "exp_avg_sq")
        if group["amsgrad"]:
            make_missing(state, backend, weight, "max_exp_avg_sq")
        state.setdefault("step", 0)

    def advance(
        self, group: Group, state: State, backend: Any, room: Room, weight: Array, grad: Array
    ) -> None:
        """Fill `room`; the kernels are the backend's."""
        self.begin(group, state, backend, weight)
        state["step"] = state["step"] + 1
        beta1, beta2 = group["betas"]
        backend.adam(
            room, weight, grad, state["exp_avg"], state["exp_avg_sq"],
            state["max_exp_avg_sq"] if group["amsgrad"] else None,
            lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"], weight_decay=group["weight_decay"],
            decoupled=self.decoupled, maximize=group["maximize"], step=state["step"],
        )  # fmt: skip


class AdamW(Adam):
    """Adam whose weight decay shrinks the weight first: w <- w (1 - lr weight_decay).

    torch.optim.AdamW 2.13; Loshchilov and Hutter 2019 (arXiv 1711.05101). Arguments
    and errors as :class:`Adam`, but for the default of `weight_decay`.
    """

    rule: ClassVar[str] = "adamw"
    decoupled: ClassVar[bool] = True

    def __init__(
        self, params: Any, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
        weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False,
        master_weights: bool | None = None, update: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, master_weights=master_weights,
            update=update,
        )  # fmt: skip
