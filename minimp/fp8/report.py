"""What quantising to FP8 did to the numbers: how many were flushed to zero, how many clamped, how far off."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from minimp import formats
from minimp.fp8.quantizing import FLOAT32, copy_of, operand_of, scale_for
from minimp.fp8.recipes import ROLES, Fp8Recipe
from minimp.fp8.states import linears
from minimp.modes import Modes, Scope

if TYPE_CHECKING:
    from minimp.nn import Module
    from minimp.tape import Event, Node

__all__ = ["Losses", "TensorLosses", "losses_of", "watch"]

OP = "linear_fp8"
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TensorLosses:
    """Counts over what was quantised in one role; infinities and NaN are not counted.

    Attributes:
        nonzero: numbers that are not zero.
        flushed: of those, how many became zero.
        saturated: how many were beyond the format's largest value, and became it.
        signal: the sum of x^2.
        noise: the sum of (x - x')^2, x' being what was read in its place.
    """

    nonzero: int = 0
    flushed: int = 0
    saturated: int = 0
    signal: float = 0.0
    noise: float = 0.0

    def __add__(self, other: TensorLosses) -> TensorLosses:
        return TensorLosses(
            self.nonzero + other.nonzero, self.flushed + other.flushed, self.saturated + other.saturated,
            self.signal + other.signal, self.noise + other.noise,
        )  # fmt: skip

    @property
    def flushed_share(self) -> float:
        """The share that became zero; 0 if there was nothing to lose."""
        return self.flushed / self.nonzero if self.nonzero else 0.0

    @property
    def saturated_share(self) -> float:
        """The share that was clamped."""
        return self.saturated / self.nonzero if self.nonzero else 0.0

    @property
    def sqnr(self) -> float:
        """Signal to quantisation noise in dB, 20 log10(|x| / |x - x'|) (torchao's `compute_error`).

        Infinite where nothing was lost, NaN where there was nothing.
        """
        if not self.signal:
            return math.nan
        return 10 * math.log10(self.signal / self.noise) if self.noise else math.inf


def losses_of(event: Event) -> dict[str, TensorLosses]:
    """Return what the quantising of one `linear_fp8` did, from what a listener was told: role -> losses.

    A forward event has "input" and "weight", a backward event "grad". They are quantised once more here, as
    for the first product that reads them; other ops give an empty dict.
    """
    node = event.node
    if node.op.name != OP:
        return {}
    recipe, scales = node.options["recipe"], node.options.get("scales")
    arrays = {"input": event.inputs[0], "weight": event.inputs[1]} if event.phase == "forward" else {}
    if event.phase == "backward":
        arrays = {"grad": event.inputs[0]}
    found = {}
    for role, array in arrays.items():
        given = None if scales is None else scales[ROLES.index(role)]
        found[role] = _losses(node.backend, array, recipe, role, given)
    return found


def _losses(backend: Any, array: Any, recipe: Fp8Recipe, role: str, given: float | None) -> TensorLosses:
    wide = backend.wide(array).astype(FLOAT32)
    x = wide.reshape(math.prod(wide.shape[:-1]), wide.shape[-1])
    with np.errstate(all="ignore"):
        scale = None
        if recipe.block(role, 1) is None:
            scale = scale_for(recipe, role, given, backend.largest(x))
        copy = copy_of(backend, x, recipe, role, 1, scale)
        read = operand_of(backend, copy)
        host, got = backend.to_host(x), backend.to_host(read.values) * read.factor
        beyond = _beyond(host, scale, recipe, role)
    alive = np.isfinite(host) & (host != 0)
    values = host[alive].astype(np.float64)
    noise = values - got[alive]
    return TensorLosses(
        int(alive.sum()), int((got[alive] == 0).sum()), int((beyond & alive).sum()),
        float(np.dot(values, values)), float(np.dot(noise, noise)),
    )  # fmt: skip


def _beyond(x: Floats, scale: float | None, recipe: Fp8Recipe, role: str) -> npt.NDArray[np.bool_]:
    """Tell where rounding without saturation would overflow; blocks are scaled so that it never does."""
    if scale is None:
        return np.zeros(x.shape, bool)
    return ~np.isfinite(formats.round(x * np.float32(scale), recipe.format_of(role)))


@dataclass
class Losses:
    """What :class:`watch` has added up.

    Attributes:
        by_layer: path of the layer ("" where there is no model to tell) -> role -> losses.
    """

    by_layer: dict[str, dict[str, TensorLosses]] = field(default_factory=dict)

    def __getitem__(self, role: str) -> TensorLosses:
        """Return the losses of a role over all layers."""
        parts = [tensors[role] for tensors in self.by_layer.values() if role in tensors]
        return sum(parts, TensorLosses())

    def rows(self) -> Iterator[tuple[str, str, TensorLosses]]:
        """Yield (path, role, losses)."""
        for path, tensors in self.by_layer.items():
            for role in ROLES:
                if role in tensors:
                    yield path, role, tensors[role]

    def __str__(self) -> str:
        """A table: shares of the numbers that are not zero, and the ratio in dB."""
        lines = [f"{'layer':24} {'tensor':8} {'numbers':>12} {'flushed':>9} {'saturated':>10} {'SQNR dB':>9}"]
        lines += [
            f"{path or '-':24} {role:8} {each.nonzero:12,} {each.flushed_share:9.2%} "
            f"{each.saturated_share:10.2%} {each.sqnr:9.1f}"
            for path, role, each in self.rows()
        ]
        return "\n".join(lines)


class watch(Scope):  # noqa: N801 - reads as a statement: `with watch(model) as seen:`
    """Add up what quantising does to the tensors of each layer in the block, forward and backward.

    It costs another quantising of each. Blocks never saturate; what a scale of 1 step ago does not cover,
    does.

    >>> from minimp import nn, tensor
    >>> from minimp.fp8 import fp8_autocast, watch
    >>> model = nn.Sequential(nn.Linear(4, 4, bias=False))
    >>> with watch(model) as seen, fp8_autocast(recipe="current"):
    ...     y = model(tensor([[1e-9, 1.0, 1.0, 1.0]]))
    >>> seen["input"].flushed, seen["input"].nonzero
    (1, 4)

    Args:
        model: gives layers their paths.
    """

    def __init__(self, model: Module | None = None) -> None:
        super().__init__()
        self.layers = {} if model is None else linears(model)
        self.paths: WeakKeyDictionary[Node, str] = WeakKeyDictionary()
        self.found = Losses()

    def changes(self, now: Modes) -> dict[str, Any]:
        """Listen."""
        return {"listeners": (*now.listeners, self._note)}

    def __enter__(self) -> Losses:
        """Return what will be found."""
        super().__enter__()
        return self.found

    def _note(self, event: Event) -> None:
        found = losses_of(event)
        if not found:
            return
        tensors = self.found.by_layer.setdefault(self._path(event), {})
        for role, each in found.items():
            tensors[role] = tensors.get(role, TensorLosses()) + each

    def _path(self, event: Event) -> str:
        """Return the path of the layer, by its weight. Of a frozen one, backward has only the node."""
        if event.node not in self.paths:
            edge = event.node.inputs[1]
            array = event.inputs[1] if event.phase == "forward" else None
            weights = ((path, layer.weight) for path, layer in self.layers.items())
            found = (path for path, weight in weights if weight is edge or weight.array is array)
            self.paths[event.node] = next(found, "")
        return self.paths[event.node]
