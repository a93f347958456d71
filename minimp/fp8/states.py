"""What delayed scaling remembers of a layer: amax histories and scales, one of each tensor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from minimp.errors import CheckpointError
from minimp.fp8.recipes import ROLES, DelayedScaling
from minimp.fp8.scales import HISTORY, History, delayed_scale, next_history, resized, staged

if TYPE_CHECKING:
    from minimp.nn import Linear, Module

__all__ = [
    "Filter", "LinearState", "TensorState", "advance", "aligned", "drop_staged", "linears",
    "load_state_dict", "may_compute_in_fp8", "scales_of", "state_dict", "states",
]  # fmt: skip

Filter = Callable[["Linear", str], bool]
MULTIPLE = 16
"""What both sides of a weight must be multiples of for an FP8 matrix unit."""


@dataclass
class TensorState:
    """One tensor's history and scale. Arrays are replaced, never changed in place.

    Attributes:
        amax_history: float32; slot 0 holds the amax of the step that is under way, 0 if there is none.
        scale: s, which the step under way reads the tensor with.
    """

    amax_history: History
    scale: float = 1.0

    def stage(self, amax: float) -> None:
        """Note an amax; the largest of a step counts."""
        self.amax_history = staged(self.amax_history, amax)

    def drop(self) -> None:
        """Forget what was staged."""
        self.amax_history = np.concatenate([np.zeros(1, HISTORY), self.amax_history[1:]])

    def advance(self, recipe: DelayedScaling, fp8_max: float) -> None:
        """Compute the scale of the next step, then rotate the history."""
        self.scale = delayed_scale(
            self.amax_history, self.scale, fp8_max, margin=recipe.margin, algorithm=recipe.amax_compute_algo
        )
        self.amax_history = next_history(self.amax_history)

    @property
    def nbytes(self) -> int:
        """Bytes of the history and the scale."""
        return self.amax_history.nbytes + HISTORY.itemsize


@dataclass
class LinearState:
    """The three tensors of a layer: "input", "weight" and "grad".

    Attributes:
        tensors: role -> state.
        region: the number of the region that last used the layer.
    """

    tensors: dict[str, TensorState] = field(default_factory=dict)
    region: int = -1

    @classmethod
    def of(cls, recipe: DelayedScaling) -> LinearState:
        """Return the state before the first step: histories of zeros, scales of 1."""
        length = recipe.amax_history_len
        return cls({role: TensorState(np.zeros(length, HISTORY)) for role in ROLES})

    @property
    def scales(self) -> tuple[float, float, float]:
        """The scales of input, weight and grad."""
        first, second, third = (self.tensors[role].scale for role in ROLES)
        return first, second, third

    def stage(self, role: str, amax: float) -> None:
        """Note an amax of a tensor."""
        self.tensors[role].stage(amax)

    def fit(self, recipe: DelayedScaling) -> None:
        """Give histories the recipe's length: cut, or filled up with zeros (as Transformer Engine does)."""
        for each in self.tensors.values():
            if each.amax_history.size != recipe.amax_history_len:
                each.amax_history = resized(each.amax_history, recipe.amax_history_len)

    def advance(self, recipe: DelayedScaling) -> None:
        """Move all three tensors one step on."""
        for role, each in self.tensors.items():
            each.advance(recipe, recipe.format_of(role).max)

    @property
    def nbytes(self) -> int:
        """Bytes of all histories and scales."""
        return sum(each.nbytes for each in self.tensors.values())


def linears(model: Module, filter_fn: Filter | None = None) -> dict[str, Linear]:
    """Return path -> layer of the `nn.Linear` layers of a model that `filter_fn` lets pass.

    Args:
        model: a module.
        filter_fn: `filter_fn(module, path)` (torchao's `module_filter_fn`), as :func:`aligned`; None: all.
    """
    found: Any = {path: each for path, each in model.named_modules() if may_compute_in_fp8(each)}
    return {path: each for path, each in found.items() if filter_fn is None or filter_fn(each, path)}


def may_compute_in_fp8(x: object) -> bool:
    """Tell whether something is an `nn.Linear`."""
    return hasattr(type(x), "fp8_state")


def aligned(module: Linear, path: str) -> bool:
    """Tell whether both sides of the weight are multiples of 16, as FP8 matrix units want them (torchao)."""
    del path
    return all(n % MULTIPLE == 0 for n in module.weight.shape)


def states(model: Module) -> Iterator[tuple[str, LinearState]]:
    """Yield (path, state) of the layers that have one."""
    for path, layer in linears(model).items():
        if layer.fp8_state is not None:
            yield path, layer.fp8_state


def advance(layers: Iterable[Linear], recipe: DelayedScaling) -> None:
    """Move the states of layers one step on; what was not used since the last time stays as it is."""
    for layer in layers:
        if layer.fp8_state is not None:
            layer.fp8_state.advance(recipe)


def drop_staged(layers: Iterable[Linear]) -> None:
    """Forget the amaxes of a step that was not finished."""
    for layer in layers:
        for each in layer.fp8_state.tensors.values() if layer.fp8_state is not None else ():
            if each.amax_history[0]:
                each.drop()


def scales_of(layers: Mapping[str, Linear]) -> dict[str, tuple[float, float, float]]:
    """Return path -> the scales of input, weight and grad that the next step reads."""
    return {path: each.fp8_state.scales for path, each in layers.items() if each.fp8_state is not None}


def state_dict(model: Module) -> dict[str, dict[str, Any]]:
    """Return path -> {role.amax_history: float32 array, role.scale: number}: what a resumed run needs."""
    return {
        path: {
            f"{role}.{name}": value
            for role, each in state.tensors.items()
            for name, value in (("amax_history", each.amax_history), ("scale", each.scale))
        }
        for path, state in states(model)
    }


def load_state_dict(model: Module, state: Mapping[str, Any]) -> None:
    """Take over histories and scales, or none of them.

    Raises:
        CheckpointError: it is of other layers, or holds no histories and scales.
    """
    layers = linears(model)
    for path in state:
        if path not in layers:
            raise CheckpointError(
                f"there are FP8 scales of {path!r}, which is no Linear layer of the model",
                op="fp8.load_state_dict", help=f"its layers: {', '.join(layers) or 'none'}",
            )  # fmt: skip
    made = {path: _state_of(path, saved) for path, saved in state.items()}
    for path, layer in layers.items():
        layer.fp8_state = made.get(path)


def _state_of(path: str, saved: Any) -> LinearState:
    names = {f"{role}.{name}" for role in ROLES for name in ("amax_history", "scale")}
    if not isinstance(saved, Mapping) or set(saved) != names:
        raise CheckpointError(
            f"expected histories and scales of {', '.join(ROLES)} of {path!r}", op="fp8.load_state_dict"
        )
    made = LinearState()
    for role in ROLES:
        history = np.array(saved[f"{role}.amax_history"])
        scale = saved[f"{role}.scale"]
        a_history = history.dtype == HISTORY and history.ndim == 1 and history.size
        if not (a_history and isinstance(scale, float) and 0 < scale < math.inf):
            raise CheckpointError(
                f"{path}.{role}: expected a float32 history and a finite scale above 0, got {history.dtype} "
                f"of shape {history.shape} and {scale!r}",
                op="fp8.load_state_dict",
            )  # fmt: skip
        made.tensors[role] = TensorState(history, scale)
    return made
