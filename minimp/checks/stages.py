"""What `check()` proves for each stage of a training step: the contracts, applied to a recorded step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from minimp import formats, fp8
from minimp.checks.accumulation import sum_of
from minimp.checks.contracts import (
    check_cast,
    check_clipped,
    check_finite,
    check_loss,
    check_scaled,
    check_unchanged,
    check_unscaled,
    same_bits,
    snapshot,
)
from minimp.checks.eight_bits import check_fp8_scales
from minimp.checks.findings import Finding, Findings, merge
from minimp.checks.host import on_host
from minimp.checks.operations import check_events
from minimp.checks.running import Arithmetic, arithmetic_of
from minimp.checks.shadow import fate_of, float64_gradients
from minimp.checks.transition import check_scale_transition
from minimp.checks.updates import check_update
from minimp.modes import accumulate
from minimp.policy import in_region
from minimp.quiet import hush, speak
from minimp.scaler import LayerwiseScaler
from minimp.tape import Array, Event, Value
from minimp.tensors import Tensor

if TYPE_CHECKING:
    from minimp.step import Stage, StepState, TrainStep

__all__ = ["proof_of", "remember"]

Proof = Callable[["Stage"], Findings]


def remember(step: TrainStep, state: StepState, name: str) -> dict[str, Any]:
    """Return what the proof of stage `name` needs to know from before it runs."""
    if name == "clip":
        return {"gradients": dict(state.gradients)}
    if name == "update":
        return {"weights": _weights(step), "optimizer": snapshot(step.optimizer.state_dict())}
    if name == "update_scale":
        return {"scaler": _scaler(step), "fp8": _fp8(step)}
    return {}


def proof_of(name: str, step: TrainStep, state: StepState, before: dict[str, Any] | None) -> Proof:
    """Return the function that proves a stage which has just run.

    What may change later (gradients, weights, the scale) is taken down now.
    """
    return PROOFS[name](step, state, before or {})


def _cast_weights(step: TrainStep, state: StepState, before: dict[str, Any]) -> Proof:
    """w16 is the master, rounded to nearest even, bit for bit."""
    del state, before
    low = step.recipe.compute_dtype
    masters = {name: _host(p, step.optimizer.master_of(p)) for name, p in step.model.named_parameters()}

    def prove(stage: Stage) -> Findings:
        parts = [check_cast(_array(t), masters[name], low, name) for name, t in stage.tensors.items()]
        return merge(f"w16 = round(w32) to {low.name}, bit for bit", parts)

    return prove


def _forward(step: TrainStep, state: StepState, before: dict[str, Any]) -> Proof:
    """Each op obeys the policy and lies within its bound of float64 from the same inputs."""
    del step, state, before
    return lambda stage: merge("every op obeys the policy and its error bound", [check_events(stage.events)])


def _loss(step: TrainStep, state: StepState, before: dict[str, Any]) -> Proof:
    """The loss has its format, and its value is that of float64 from the same output."""
    del before
    output, targets, loss = state.output, state.targets, state.loss
    assert loss is not None
    wanted = step.recipe.compute_dtype if step.recipe.policy is None else formats.float32

    def prove(stage: Stage) -> Findings:
        held: list[Array] = []
        exact = _in_float64(output, held)
        truth = targets if on_host(targets).dtype.kind in "iu" else on_host(targets, np.float64)
        with in_region(None), accumulate("float64"):
            expected = step.loss_fn(exact, truth).item() / step.micro_batches
        at = arithmetic_of(wanted, step.recipe.accumulate)
        bound = _loss_bound(expected, np.concatenate([np.zeros(0), *held]), at, step.micro_batches)
        value = check_loss(_array(loss), wanted, expected, bound)
        return merge("L = loss(y) / n", [value, check_events(stage.events)])

    return prove


def _in_float64(output: Any, held: list[Array]) -> Any:
    """Return a model's output in float64, in the same tuples, lists and dicts; its numbers go to `held`."""
    if isinstance(output, Mapping):
        return {key: _in_float64(part, held) for key, part in output.items()}
    if isinstance(output, tuple | list):
        parts = [_in_float64(part, held) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    if not isinstance(output, Tensor) or output.format is None:
        return output
    exact = output.detach().to(formats.float64)
    held.append(on_host(exact).reshape(-1))
    return exact


def _loss_bound(expected: float, output: Array, at: Arithmetic, n: int) -> float:
    """How far L / n may be from float64: 32 roundings of the loss and of the largest output, over n.

    A squared error is a few roundings of itself, a log-probability a few of itself and of the scores that
    it is a difference of; their mean adds less than one a level of the pairwise sum. Sums by another name
    add what they may lose in as many terms as there are outputs: over classes, in softmax and in the loss,
    and over rows. The ops have sharper bounds of their own, which are checked too: this one is for the path
    from the output to the value.
    """
    largest = float(np.abs(output[np.isfinite(output)]).max(initial=0.0))
    bound = 32 * (at.fmt.eps / 2) * (abs(expected) + largest / n) + at.fmt.smallest_subnormal
    if at.sums in ("float32", "float64"):
        return bound
    sums = sum_of(at.sums, output.size, at.wide)
    if abs(expected) * n * output.size >= sums.edge:  # the sum may overflow before it is divided
        return float("inf")
    return bound + 4 * sums.gamma * (abs(expected) + (largest + 1) / n) + 3 * sums.floor


def _scale_loss(step: TrainStep, state: StepState, before: dict[str, Any]) -> Proof:
    """L' = S L, exactly."""
    del before
    del step
    loss, scale = state.loss, state.scale
    return lambda stage: check_scaled(_array(stage.tensors["scaled_loss"]), _array(loss), scale)


def _backward(step: TrainStep, state: StepState, before: dict[str, Any]) -> Proof:
    """Each gradient rule keeps its bound, nothing is lost on the way, and what was flushed is counted."""
    del before
    leaves = dict(step.model.named_parameters())
    arrays = {name: p.array for name, p in step.model.named_parameters()}
    inputs, targets, earlier = state.inputs, state.targets, tuple(state.events)
    one_scale = not isinstance(step.scaler, LayerwiseScaler)

    def prove(stage: Stage) -> Findings:
        gradients = {name: _array(t) for name, t in stage.tensors.items()}
        sums = _accounted(stage.events, leaves, gradients) if one_scale else BY_LAYER
        parts = [check_events(stage.events, earlier), sums]
        notes = _fate_notes(step, inputs, targets, arrays, gradients)
        return merge("every gradient is right for its op, and arrives", [*parts, notes])

    return prove


BY_LAYER = Findings(
    "gradients by layer",
    notes=("each layer scales what flows into it: sums along the tape are not compared with what arrives",),
)


def _fate_notes(
    step: TrainStep, inputs: Any, targets: Any, arrays: dict[str, Array], gradients: dict[str, Array]
) -> Findings:
    """Count, against float64 gradients of the same step, what became zero or infinite."""
    if any(p.array is not arrays[name] for name, p in step.model.named_parameters()):
        return Findings(
            "the weights have moved on", notes=("checked after the update: nothing to compare with",)
        )
    exact = float64_gradients(step.model, step.loss_fn, inputs, targets, weights_in=step.recipe.compute_dtype)
    fate = fate_of(gradients, exact)
    said = (
        f"of {fate.nonzero:,} gradients that are not zero in float64, {fate.flushed:,} became zero "
        f"({fate.flushed_share:.1%}) and {fate.overflowed:,} overflowed ({fate.overflowed_share:.1%})"
    )
    return Findings("the fate of the gradients", notes=(said,), checked=fate.nonzero)


def _accounted(
    events: Sequence[Event], leaves: Mapping[str, Value], gradients: Mapping[str, Array]
) -> Findings:
    """Add up the gradients that each op gave, and compare with what the next op, or the leaf, received."""
    pending: dict[Any, Array] = {}
    wrong: list[Finding] = []
    walked = [event for event in events if event.phase == "backward"]
    token = hush()
    try:
        for place, event in enumerate(walked):
            due = pending.pop(event.node, None)
            if place and not _same(event.node, due, event.inputs[0]):  # the first one starts from the seed
                wrong.append(_astray("receives the sum of its gradients", event.node.op.name))
            for source, part in zip(event.node.inputs, event.outputs, strict=False):
                if source is not None and part is not None:
                    known = pending.get(source)
                    pending[source] = part if known is None else event.node.backend.add(known, part)
    finally:
        speak(token)
    for name, leaf in leaves.items():
        if not _same(leaf, pending.pop(leaf, None), gradients.get(name)):
            wrong.append(_astray("is the sum of what the ops gave", name))
    wrong += [
        _astray("runs once its gradient is there", edge.op.name) for edge in pending if hasattr(edge, "op")
    ]
    return Findings("gradients add up along the tape", tuple(wrong), checked=len(walked))


def _same(place: Any, due: Array | None, got: Array | None) -> bool:
    """Tell whether what was due arrived: the same bits, or nothing for nothing."""
    if due is None or got is None:
        return due is got
    return same_bits(place.backend.to_host(due), place.backend.to_host(got))


def _astray(rule: str, where: str) -> Finding:
    return Finding(rule, "the sum of its parts", "something else, or nothing", where)


def _unscale(step: TrainStep, state: StepState, before: dict[str, Any]) -> Proof:
    """g32 = n g16 / S, exactly."""
    del before
    scaled = {name: _array(p.grad) for name, p in step.model.named_parameters() if p.grad is not None}
    scale, n = state.scale, step.micro_batches

    def prove(stage: Stage) -> Findings:
        parts = [check_unscaled(_array(t), scaled[name], scale, n, name) for name, t in stage.tensors.items()]
        missing = [
            Finding("is unscaled", "a float32 gradient", "none", m)
            for m in scaled.keys() - stage.tensors.keys()
        ]
        return merge(f"g32 = n g16 / {scale:g}", [*parts, Findings("all gradients", tuple(missing))])

    return prove


def _check_finite(step: TrainStep, state: StepState, before: dict[str, Any]) -> Proof:
    """The names of non-finite gradients agree with a count of bit patterns."""
    del step, before
    found = state.nonfinite
    return lambda stage: check_finite(found, {name: _array(t) for name, t in stage.tensors.items()})


def _clip(step: TrainStep, state: StepState, before: dict[str, Any]) -> Proof:
    """The norm is at most c."""
    del state
    limit = step.max_norm
    old = before.get("gradients", {})

    def prove(stage: Stage) -> Findings:
        new = [_array(t) for t in stage.tensors.values()]
        return check_clipped([on_host(old[name]) for name in stage.tensors], new, limit)

    return prove


def _update(step: TrainStep, state: StepState, before: dict[str, Any]) -> Proof:
    """The update is float64's to within its bound; a skipped one leaves every bit."""
    after = {"weights": _weights(step), "optimizer": snapshot(step.optimizer.state_dict())}
    must_skip = bool(state.nonfinite) and step.scaler.is_enabled()
    gradients = dict(state.gradients)
    names = {id(p): name for name, p in step.model.named_parameters()}
    places = [
        (names[id(p)], number, {key: value for key, value in group.items() if key != "params"})
        for number, (group, p) in enumerate((g, p) for g in step.optimizer.param_groups for p in g["params"])
    ]

    def prove(_: Stage) -> Findings:
        if must_skip:
            return check_unchanged(before, after, "weights and optimizer state")
        parts = []
        for name, number, options in places:
            old, new = _kept(before, name, number), _kept(after, name, number)
            if name not in gradients:
                parts.append(check_unchanged(old, new, name))
            else:
                parts.append(_one_update(step, name, options, on_host(gradients[name]), old, new))
        return merge("w32 <- w32 - lr u(g32), as in float64", parts)

    return prove


def _kept(held: dict[str, Any], name: str, number: int) -> dict[str, Any]:
    """Return the weight of a parameter and what the optimizer keeps for it, by torch's names."""
    dot = f"{number}."
    state = {key.removeprefix(dot): v for key, v in held["optimizer"]["state"].items() if key.startswith(dot)}
    return {"weight": held["weights"][name], **state}


def _one_update(
    step: TrainStep,
    name: str,
    options: dict[str, Any],
    gradient: Array,
    old: dict[str, Any],
    new: dict[str, Any],
) -> Findings:
    """Check the weight that adds updates up: the master, the parameter, or it with its compensation."""
    optimizer = step.optimizer
    low, stored = old["weight"], new["weight"]
    rounding = "stochastic" if optimizer.update == "stochastic" else "nearest"
    weight, after, slack, cast = low, stored, 0.0, Findings("the parameter is its own master")
    if "master" in new:
        weight, after = old.get("master", low.astype(np.float32)), new["master"]
        cast = check_cast(stored, after, formats.get(stored.dtype), name)
    elif "compensation" in new:
        # s - c' = (w - c) + delta, and the rule reads w
        held, kept = (on_host(each.get("compensation", 0), np.float64) for each in (old, new))
        weight = low.astype(np.float32)
        after = (stored.astype(np.float64) - kept + held).astype(np.float32)
        rest = np.abs(kept) * formats.get(low.dtype).eps
        slack = rest + 4 * 2.0**-24 * np.abs(weight.astype(np.float64))
    made = check_update(
        optimizer.rule, weight, gradient, old, options, after, new, rounding=rounding, name=name, slack=slack
    )
    return merge(made.claim, [made, cast])


def _update_scale(step: TrainStep, state: StepState, before: dict[str, Any]) -> Proof:
    """The scale moved as the rule allows; without scaling there is nothing to move."""
    old, after, found = before.get("scaler", {}), _scaler(step), bool(state.nonfinite)
    rule = asdict(step.scaler.rule) if step.scaler.is_enabled() else None
    recipe, old_fp8, new_fp8 = step.recipe.fp8, before.get("fp8", {}), _fp8(step)

    def prove(_: Stage) -> Findings:
        if rule is None:
            moved = check_unchanged(old, after, "the scaler that does nothing")
        else:
            moved = check_scale_transition(rule, old, after, found)
        if not old_fp8:
            return moved
        return merge("the loss scale, and FP8 scales", [moved, check_fp8_scales(recipe, old_fp8, new_fp8)])

    return prove


def _scaler(step: TrainStep) -> dict[str, Any]:
    """Return the scaler's state: scale, growth_tracker, skips, met_bad; nothing of a disabled one."""
    return asdict(step.scaler.state) if step.scaler.is_enabled() else {}


def _fp8(step: TrainStep) -> dict[str, Any]:
    """Return histories and scales of the layers in FP8 that have some; arrays are replaced, never changed."""
    return fp8.state_dict(step.model) if step.fp8_layers else {}


PROOFS: dict[str, Callable[[Any, Any, dict[str, Any]], Proof]] = {
    "cast_weights": _cast_weights,
    "forward": _forward,
    "loss": _loss,
    "scale_loss": _scale_loss,
    "backward": _backward,
    "unscale": _unscale,
    "check_finite": _check_finite,
    "clip": _clip,
    "update": _update,
    "update_scale": _update_scale,
}


def _weights(step: TrainStep) -> dict[str, Array]:
    """Name -> the parameter's array; arrays are never changed in place, so no copy is needed."""
    return {name: _array(p) for name, p in step.model.named_parameters()}


def _array(value: Any) -> Array:
    return np.asarray(value.backend.to_host(value.array))


def _host(leaf: Value, array: Array | None) -> Array:
    return np.asarray(leaf.backend.to_host(leaf.array if array is None else array))
