"""A workbench for programs about a GradScaler: what they make and what they see of it, in one library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minimp.frameworks.scalers.refusals import kind_of_refusal
from minimp.frameworks.sides import Side, show

__all__ = ["Workbench"]


class Workbench:
    """One library, and short words for what programs about scalers do.

    Args:
        side: the library.
    """

    def __init__(self, side: Side) -> None:
        self.side = side

    def scaler(self, scale: float = 8.0, **settings: Any) -> Any:
        """Return a scaler that has scaled something."""
        made = self.side.scaler(init_scale=scale, **settings)
        made.scale(self.side.tensor(1.0))
        return made

    def optimizer(self, *grads: list[float] | None, dtype: str = "float32") -> Any:
        """Return w <- w - g over parameters of zeros that have these gradients, or none."""
        params = []
        for grad in grads:
            zeros = [0.0] * (1 if grad is None else len(grad))
            params.append(self.side.tensor(zeros, dtype, requires_grad=True))
            params[-1].grad = None if grad is None else self.side.tensor(grad, dtype)
        return self.over(params)

    def over(self, params: list[Any]) -> Any:
        """Return w <- w - g over these parameters."""
        own = {"master_weights": False} if self.side.name == "minimp" else {}
        return self.side.optim.SGD(params, lr=1.0, **own)

    @staticmethod
    def params(optimizer: Any) -> list[Any]:
        """Return an optimizer's parameters."""
        return [param for group in optimizer.param_groups for param in group["params"]]

    def weights(self, optimizer: Any) -> str:
        """Show all parameters of an optimizer."""
        return ", ".join(show(self.side.wide(param)) for param in self.params(optimizer))

    def grads(self, optimizer: Any) -> str:
        """Show all its gradients."""
        grads = [param.grad for param in self.params(optimizer)]
        return ", ".join("none" if grad is None else show(self.side.wide(grad)) for grad in grads)

    def tensor(self, tensor: Any) -> str:
        """Show a tensor and its format."""
        return f"{show(self.side.wide(tensor))} {self.side.format_of(tensor)}"

    @staticmethod
    def state(scaler: Any) -> str:
        """Show S and the growth tracker."""
        return f"S {show(scaler.get_scale())}, tracker {scaler.state_dict()['_growth_tracker']}"

    def tried(self, call: Callable[[], Any]) -> str:
        """Make a call: what it returned, or the kind of refusal."""
        try:
            return str(call())
        except self.side.refusals as fault:
            return f"refused: {kind_of_refusal(fault)}"

    def step(self, scaler: Any, optimizer: Any, *args: Any, **options: Any) -> str:
        """Step: what the optimizer returned, and what became of the weights."""
        result = scaler.step(optimizer, *args, **options)
        return f"{getattr(result, 'returned', result)}, weights {self.weights(optimizer)}"

    def iteration(self, scaler: Any, *grad: float) -> str:
        """Make a whole iteration with one parameter's gradient: the weights and the state after it."""
        optimizer = self.optimizer(list(grad))
        scaler.step(optimizer)
        scaler.update()
        return f"weights {self.weights(optimizer)}, {self.state(scaler)}"

    def full(self, value: float, shape: tuple[int, ...], dtype: str = "float32") -> Any:
        """Return a tensor of one value."""
        return self.side.tensor(np.full(shape, value), dtype)
