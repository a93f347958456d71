"""What can be changed in a session: the loss scale, a policy, formats, sums, the elements of tensors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minimp import formats
from minimp.errors import DataError, SettingError, unknown_name
from minimp.policy import format_of, policies
from minimp.tensors import Tensor, tensor

if TYPE_CHECKING:
    from minimp.step import TrainStep
    from minimp.stepper.running import Run

__all__ = ["EDITS", "Edit", "parse_edit", "parse_index", "parse_number"]


@dataclass(frozen=True)
class Edit:
    """A change to a step, made each time that the step runs.

    Attributes:
        kind: a key of :data:`EDITS`.
        words: what is changed, and to what.
        step: the number of the step.
        stages: how many of its stages have run when it is made; 0: before the first.
    """

    kind: str
    words: tuple[str, ...]
    step: int = 1
    stages: int = 0

    @property
    def text(self) -> str:
        """The command that makes it."""
        return " ".join(("set", self.kind, *self.words))

    def apply(self, step: TrainStep, run: Run | None, batch: tuple[Any, Any]) -> tuple[Any, Any]:
        """Make the change; return the batch, which it may be a change of.

        Raises:
            MinimpError: it cannot act here.
        """
        return EDITS[self.kind].apply(step, run, batch, self.words)


@dataclass(frozen=True)
class Kind:
    """One kind of change: how it is written, what it is, when it is made, and how."""

    usage: str
    summary: str
    words: int
    at_once: bool
    apply: Callable[[Any, Any, Any, tuple[str, ...]], tuple[Any, Any]]


def parse_number(text: str) -> float:
    """Read a number: 0.5, 1e-4, 2^24, inf, nan.

    Raises:
        SettingError: it is none.
    """
    base, power, exponent = text.replace("**", "^").partition("^")
    try:
        return math.pow(float(base), int(exponent)) if power else float(base)
    except (ValueError, OverflowError) as fault:
        raise SettingError(f"expected a number, got {text!r}", help="as 0.5, 1e-4, 2^24, inf") from fault


def parse_index(text: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Read the place of an element: "3,4", or one number counted in C order.

    Raises:
        DataError: there is no such element.
    """
    try:
        found = tuple(int(part) for part in text.replace(" ", "").strip("[]()").split(",") if part)
    except ValueError as fault:
        raise DataError(f"expected the place of an element, got {text!r}", help="as 3,4") from fault
    size = math.prod(shape)
    if len(found) == 1 and len(shape) != 1:
        if not 0 <= found[0] < size:
            raise DataError(f"there is no element {found[0]} of {size:,}", shapes=[shape])
        return tuple(int(i) for i in np.unravel_index(found[0], shape))
    if len(found) != len(shape) or any(not 0 <= i < n for i, n in zip(found, shape, strict=False)):
        raise DataError(f"there is no element {list(found)} in a shape of {list(shape)}", shapes=[shape])
    return found


def parse_edit(words: list[str], step: int, stages: int) -> Edit:
    """Read what follows the command `set`.

    Raises:
        SettingError: an unknown kind, or words that do not fit it.
    """
    if not words:
        raise SettingError("expected what to set", help="; ".join(kind.usage for kind in EDITS.values()))
    name, *rest = words
    if name not in EDITS:
        raise SettingError(unknown_name("thing to set", name, EDITS))
    kind = EDITS[name]
    if name == "value" and len(rest) == 2 and "[" in rest[0]:
        target, _, place = rest[0].partition("[")
        rest = [target, place.rstrip("]"), rest[1]]
    if len(rest) != kind.words:
        raise SettingError(f"expected {kind.usage!r}, got {' '.join(('set', *words))!r}")
    return Edit(name, tuple(rest), step, stages if kind.at_once else 0)


# ---- the kinds ----------------------------------------------------------------------------------------


def _set_scale(step: TrainStep, run: Run | None, batch: Any, words: tuple[str, ...]) -> Any:
    del run
    state = step.scaler.state_dict()
    if not step.scaler.is_enabled() or "scale" not in state:
        raise SettingError(
            f"recipe {step.recipe.name!r} has no one loss scale that could be set",
            op="set scale", help="open the session with --recipe mixed-fp16",
        )  # fmt: skip
    scale = parse_number(words[0])
    if not (math.isfinite(scale) and scale > 0):
        raise SettingError(f"expected a scale above 0, got {words[0]}", op="set scale")
    step.scaler.load_state_dict({**state, "scale": scale})
    return batch


def _set_policy(step: TrainStep, run: Run | None, batch: Any, words: tuple[str, ...]) -> Any:
    del run
    recipe = step.recipe
    if recipe.policy is None:
        raise SettingError(
            f"recipe {recipe.name!r} has no autocast policy: each op computes in the format that it gets",
            op="set policy", help="open the session with --recipe mixed-fp16",
        )  # fmt: skip
    policy = policies[recipe.policy] if isinstance(recipe.policy, str) else recipe.policy
    step.recipe = recipe.with_(policy=policy.with_(**{words[0]: words[1]}))
    return batch


def _set_format(step: TrainStep, run: Run | None, batch: Any, words: tuple[str, ...]) -> Any:
    del run
    form, recipe = formats.get(words[0]), step.recipe
    if recipe.policy is None or recipe.low(recipe.param_dtype) or not recipe.low(form):
        raise SettingError(
            f"recipe {recipe.name!r} cannot compute in {form.name}: weights in float32 and a policy let the "
            "products be in float16 or bfloat16",
            op="set format", help="open the session with another --recipe",
        )  # fmt: skip
    step.recipe = recipe.with_(compute_dtype=form)
    return batch


def _set_accumulate(step: TrainStep, run: Run | None, batch: Any, words: tuple[str, ...]) -> Any:
    del run
    step.recipe = step.recipe.with_(accumulate=words[0])
    return batch


def _set_value(step: TrainStep, run: Run | None, batch: Any, words: tuple[str, ...]) -> Any:
    """Change one element of what the next stage works on."""
    name, place, number = words
    if run is None:
        if name == "input":
            x = batch[0] if isinstance(batch[0], Tensor) else Tensor.lift(batch[0], None)
            return Tensor(_changed(x.array, x.backend, place, number), x.backend), batch[1]
        holders: dict[str, Any] = dict(step.model.named_parameters())
    else:
        holders = _holders(run)
    if name not in holders:
        known = [*holders, "input"] if run is None else [*holders]
        what = "before the first stage" if run is None else f"after stage {run.stages[-1].name}"
        raise SettingError(
            unknown_name(f"tensor that can be changed {what},", name, known),
            op="set value", help="go to the end of the stage that makes it; `where` tells the place",
        )  # fmt: skip
    holder = holders[name]
    if isinstance(holder, dict):
        holder[name] = _changed(holder[name], run.state.backend if run else None, place, number)
    else:
        holder.array = _changed(holder.array, holder.backend, place, number)
    return batch


def _holders(run: Run) -> dict[str, Any]:
    """Return name -> the tensor (or the dict of arrays) that the next stages read, after the last stage."""
    state, stage = run.state, run.stages[-1]
    parameters = dict(state.parameters)
    if stage.name == "cast_weights":
        return dict(stage.tensors) if state.region is not None else parameters
    if stage.name == "forward":
        return {"output": state.output} if isinstance(state.output, Tensor) else {}
    if stage.name == "loss":
        return {"loss": state.loss}
    if stage.name == "backward":
        return {name: p.grad for name, p in parameters.items() if p.grad is not None}
    if stage.name in ("unscale", "check_finite", "clip"):
        return dict.fromkeys(state.gradients, state.gradients)
    return parameters if stage.name in ("update", "update_scale") else {}


def _changed(array: Any, backend: Any, place: str, number: str) -> Any:
    """Return a copy of an array with one element changed, rounded once to the array's format."""
    at, form = parse_index(place, array.shape), format_of(array.dtype)
    made = array.copy()
    if form is None:
        made[at] = _whole(number, np.dtype(array.dtype))
    else:
        with np.errstate(all="ignore"):  # what is too large becomes infinite, as asked
            made[at] = tensor(parse_number(number), dtype=form, backend=backend.name).array
    return made


def _whole(text: str, kind: np.dtype[Any]) -> int:
    """Read a whole number that an integer array can hold.

    Raises:
        SettingError: it is none.
    """
    value = parse_number(text)
    low, high = (0, 1) if kind == np.bool_ else (np.iinfo(kind).min, np.iinfo(kind).max)
    if not (low <= value <= high and value == int(value)):
        raise SettingError(f"expected a whole number from {low} to {high}, got {text}", op="set value")
    return int(value)


EDITS: dict[str, Kind] = {
    "scale": Kind("set scale S", "the loss scale with which the step begins", 1, False, _set_scale),
    "policy": Kind("set policy OP CLASS", "the cast class of an op: lower, fp32, promote, ...", 2, False,
                   _set_policy),
    "format": Kind("set format F", "the format of products: float16 or bfloat16", 1, False, _set_format),
    "accumulate": Kind("set accumulate NAME", "how sums are accumulated", 1, False, _set_accumulate),
    "value": Kind("set value NAME[I,J] X", "one element of a tensor that the next stage works on", 3, True,
                  _set_value),
}  # fmt: skip
"""Kind -> how it is written and what it changes; all but `value` are made before the step's first stage."""
