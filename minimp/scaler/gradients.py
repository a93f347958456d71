"""The gradients of an optimizer's parameters: their names, and unscaling them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from minimp import formats
from minimp.errors import ScalerError, SettingError
from minimp.quiet import hush, speak
from minimp.tape import Value
from minimp.tensors import Tensor

__all__ = ["Names", "find_nonfinite", "named_parameters", "skip", "unscale_gradients"]

MOST_NAMES = 5
"""As many names a message gives before it counts the rest."""


class Names:
    """What the parameters are called: as told by :meth:`learn`, by the optimizer, or by their place."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Value, str]] = {}  # the parameter is held, so that its id stays its own

    def learn(self, named: Iterable[tuple[str, Any]]) -> None:
        """Take (name, parameter) pairs."""
        for name, param in named:
            if not isinstance(param, Value):
                raise SettingError(
                    f"expected (name, parameter) pairs, got {type(param).__name__} for {name!r}"
                )
            self._known[id(param)] = (param, str(name))

    def of(self, param: Value, group: dict[str, Any], place: tuple[int, int]) -> str:
        """Return the name of the parameter at (group, index) of an optimizer."""
        if id(param) in self._known:
            return self._known[id(param)][1]
        given = group.get("param_names")
        if given is not None:
            return str(given[place[1]])
        return f"parameter {place[1]} of group {place[0]} {param.shape}"


def listing(names: Iterable[str]) -> str:
    """Join names for a message: the first few, and how many more there are."""
    all_names = list(names)
    more = len(all_names) - MOST_NAMES
    return ", ".join(all_names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def named_parameters(optimizer: Any, names: Names) -> Iterator[tuple[str, Value]]:
    """Yield (name, parameter) for everything that the optimizer updates.

    Raises:
        SettingError: it has no `param_groups`, or something in them is no tensor.
    """
    groups = getattr(optimizer, "param_groups", None)
    if groups is None:
        raise SettingError(
            f"expected an optimizer with param_groups, got {type(optimizer).__name__}",
            help="pass an optimizer of mp.optim",
        )
    for g, group in enumerate(groups):
        for i, param in enumerate(group["params"]):
            if not isinstance(param, Value):
                raise SettingError(f"expected tensors in group {g}, got {type(param).__name__}")
            yield names.of(param, group, (g, i)), param


def skip(optimizer: Any) -> Any:
    """Leave out a step, and return None; an optimizer of mp.optim is told, for its schedulers."""
    told = getattr(optimizer, "skip_step", None)
    return None if told is None else told()


def find_nonfinite(named: list[tuple[str, Value]]) -> tuple[str, ...]:
    """Return the names of the parameters whose gradient has an infinite or NaN element; None is skipped."""
    token = hush()
    try:
        return tuple(
            name for name, p in named if p.grad is not None and not p.backend.is_finite(p.grad.array)
        )
    finally:
        speak(token)


def unscale_gradients(named: list[tuple[str, Value]], scale: float) -> tuple[str, ...]:
    """Replace each gradient g by g * float32(1 / S), and return the names of the non-finite ones.

    The product is taken in float32 (float64 for a float64 gradient) and stored in the parameter's format.
    Finiteness is judged before multiplying, and non-finite gradients are multiplied too. Parameters
    without a gradient are skipped. Nothing is changed when an error is raised.

    Raises:
        ScalerError: a gradient is in float16, where dividing by S would flush what scaling had saved.
    """
    with_grad = [(name, p, p.grad) for name, p in named if p.grad is not None]
    half = [name for name, _, grad in with_grad if grad.format is formats.float16]
    if half:
        raise ScalerError(
            f"cannot unscale float16 gradients: {listing(half)}",
            op="GradScaler.unscale_", formats=["float16"],
            help="keep master weights: parameters in float32, computing under mp.autocast('float16')",
        )  # fmt: skip
    token = hush()
    try:
        results = [p.backend.unscale(grad.array, scale) for _, p, grad in with_grad]
        arrays = [p.backend.narrow(a, p.format) for (_, p, _), (a, _) in zip(with_grad, results, strict=True)]
    finally:
        speak(token)
    for (_, p, _), array in zip(with_grad, arrays, strict=True):
        p.grad = Tensor(array, p.backend)
    return tuple(name for (name, _, _), (_, found) in zip(with_grad, results, strict=True) if found)
