"""Penalties on gradients under loss scaling: whether a loss still has the scale of the gradients in it.

Gradients that :func:`minimp.grad` takes of a loss times S are S times too large. A penalty may be built from
them only after S has been divided out; else the sum of loss and penalty weighs the penalty S times, or S^2.
So a loss that is to be scaled is followed back to the gradients that carry a scale, and the power of S is
carried forward from them, from op to op, by the rules of homogeneous functions: f(S x) = S^n f(x).

Source: PyTorch, "Automatic Mixed Precision examples", section "Gradient penalty".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from minimp import formats, ops
from minimp.errors import ScalerError, SettingError
from minimp.tape import Node, Value, require_saved
from minimp.tape.scales import PLAIN, RECORDED, Mark, mark_of, recorded_now, shown
from minimp.tensors import Tensor

__all__ = ["refuse_scaled_penalty", "unscaled"]

LOST = math.nan
"""The degree of what is no power of S any more, and never will be."""
Degrees = Sequence[float]


def _same(degrees: Degrees) -> float:
    """Sums: terms must have one degree; numbers and tensors that are no gradients' have 0, and 0 != 1."""
    return degrees[0] if all(each == degrees[0] for each in degrees) else LOST


SUMS = frozenset(
    {"add", "sub", "cat", "stack", "maximum", "minimum", "where", "lerp", "abs", "neg", "sum", "mean", "amax"}
    | {"amin", "cumsum", "linalg_vector_norm", "std", "relu", "leaky_relu", "reshape", "clone", "permute"}
    | {"expand", "getitem", "unindex", "index_select", "gather", "cast", "tril", "triu"}
)
"""What is S times larger where all its inputs that can be differentiated are."""
POWERS: Mapping[str, float] = {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0, "var": 2.0}
"""Op -> n: x is S times larger, f(x) S^n times."""
PRODUCTS = frozenset({"mul", "matmul"})
CLOSE = 1e-6
"""Degrees are sums of logarithms; a scale that is no power of two leaves a last digit."""


def refuse_scaled_penalty(outputs: Value, scale: float) -> None:
    """Refuse a loss that depends on gradients from which their scale was not taken.

    No tape is walked where no recorded gradient carries a scale.

    Args:
        outputs: what is to be scaled.
        scale: by what.

    Raises:
        ScalerError: naming the scale and the way to divide by it.
    """
    if not RECORDED or outputs.node is None:
        return
    live = recorded_now()
    degree = _degrees(outputs.node, live).get(outputs.node, 0.0) if live else 0.0
    if abs(degree) <= CLOSE:
        return
    factors = sorted({shown(each) for carried in live.values() for each in carried.factors})
    raise ScalerError(
        f"the loss depends on gradients that are still multiplied by the loss scale {', '.join(factors)}: "
        f"a penalty built from them has not its own weight, and would be scaled by {shown(scale)} again",
        op="GradScaler.scale",
        help="divide them first: grads = scaler.unscaled(mp.grad(scaler.scale(loss), params, "
        "create_graph=True)), or inv_scale = 1 / scaler.get_scale() and [g * inv_scale for g in grads]; "
        "where the scale is meant to stay, pass allow_scaled=True",
    )


def unscaled(gradients: Any, scaler: Any) -> Any:
    """Return gradients divided by the scale that they carry, recorded; see `GradScaler.unscaled`."""
    if isinstance(gradients, list | tuple):
        kind: Any = type(gradients)
        divided = [unscaled(each, scaler) for each in gradients]
        return kind(*divided) if hasattr(gradients, "_fields") else kind(divided)  # a named tuple takes each
    if gradients is None or not scaler.is_enabled():
        return gradients
    if not isinstance(gradients, Tensor):
        raise SettingError(
            f"expected gradients, or a list or tuple of them, got {type(gradients).__name__}",
            op="GradScaler.unscaled", help="take them by mp.grad(scaler.scale(loss), parameters)",
        )  # fmt: skip
    carried = mark_of(gradients) or PLAIN
    if len(carried.factors) != 1 or (carried is PLAIN and scaler.get_scale() != 1.0):
        what = "no scale" if carried is PLAIN else "several scales, " + ", ".join(map(shown, carried.factors))
        raise ScalerError(
            f"expected gradients of a scaled loss, got one of shape {gradients.shape} that carries {what}",
            op="GradScaler.unscaled", help="take them by mp.grad(scaler.scale(loss), parameters)",
        )  # fmt: skip
    (factor,) = carried.factors
    wide = gradients.float() if gradients.format in (formats.float16, formats.bfloat16) else gradients
    return wide if factor == 1.0 else ops.mul(wide, 1.0 / factor if factor else math.inf)


# ---- degrees --------------------------------------------------------------------------------------------


def _degrees(output: Node, live: Mapping[Node, Mark]) -> dict[Node, float]:
    """Return log2 of what each node between the gradients and `output` is multiplied by, where not 0."""
    scales = [factor for carried in live.values() for factor in carried.factors]
    constants = {k * math.log2(s) for s in scales if 0.0 < s < math.inf for k in (-2.0, -1.0, 1.0, 2.0)}
    found: dict[Node, float] = {}
    for node in _oldest_first(output, min(each.number for each in live)):
        if node in live:
            factors = live[node].factors
            found[node] = math.log2(next(iter(factors))) if len(factors) == 1 and min(factors) > 0 else LOST
            continue
        inputs = [found.get(edge, 0.0) if isinstance(edge, Node) else 0.0 for edge in node.inputs]
        if any(inputs):  # NaN too
            found[node] = _degree(node, inputs, constants)
    return found


def _oldest_first(output: Node, oldest: int) -> list[Node]:
    """Return the nodes that `output` depends on and that are not older than a number."""
    seen = {output}
    stack = [output]
    while stack:
        for edge in stack.pop().inputs:
            if isinstance(edge, Node) and edge.number >= oldest and edge not in seen:
                seen.add(edge)
                stack.append(edge)
    return sorted(seen, key=lambda node: node.number)


def _degree(node: Node, inputs: list[float], constants: set[float]) -> float:
    """Return the degree of a result, from those of the inputs, at least one of which is not 0."""
    name = node.op.name
    if name in SUMS:
        return _same([each for each, edge in zip(inputs, node.inputs, strict=True) if edge is not None])
    if name in POWERS:
        return inputs[0] * POWERS[name]
    if name in PRODUCTS:
        return _towards_zero(sum(inputs), _constant(node), 1.0, constants)
    if name == "div":
        return _towards_zero(inputs[0] - inputs[1], _constant(node), -1.0, constants)
    if name == "pow":
        power = _constant(node)
        return inputs[0] * power if power is not None and not inputs[1] else LOST
    return LOST


def _towards_zero(degree: float, constant: float | None, sign: float, constants: set[float]) -> float:
    """Take a power of the scale out where a number that is one was multiplied by, or divided by."""
    if not constant or not math.isfinite(constant):
        return degree
    taken = degree + sign * math.log2(abs(constant))
    is_power = any(abs(math.log2(abs(constant)) - each) <= CLOSE for each in constants)
    return taken if is_power and abs(taken) < abs(degree) else degree


def _constant(node: Node) -> float | None:
    """Return the number that an op was given beside a tensor, if there is one."""
    if not node.recording and getattr(node, "rerun", None) is not None:
        require_saved(node)  # minimp.recompute let it go; backward will want it, too
    for place, edge in enumerate(node.inputs[: len(node.saved)]):
        array = node.saved[place]
        if edge is None and array is not None and getattr(array, "size", 1) == 1:
            return float(array)
    return None
