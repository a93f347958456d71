"""Is a gradient rule the derivative of its forward? One random projection answers for all elements.

With J the derivative of f at x, u the incoming gradient and v a direction, <v, J^T u> is what the rule gives,
and d/dh <u, f(x + h v)> at h = 0 what a difference quotient gives; they agree for a random v only if they
agree everywhere, but for unlucky cancellations (HIPS autograd checks its rules so).

The direction is relative, v = x s with signs s that depend on |x| alone: zeros stay zero, equal elements
stay equal and opposite ones opposite, so relu, abs, max, norms and pooling are not pushed over their kinks,
and log and sqrt stay in their domains. Where a result is at a kink all the same, an input being equal to
another one, it is left out. The step is 2^-26, below half the distance between neighbouring
float32 numbers: no two elements of float32, float16 or bfloat16 change their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minimp.checks.findings import Finding
from minimp.checks.tables import NO_DERIVATIVE, REFERENCE, TURNS
from minimp.formats import float64
from minimp.policy import format_of
from minimp.tape import Node

__all__ = ["check_rule", "signs_of"]

Array = np.ndarray[Any, Any]
STEP = 2.0**-26
NOISE = 2.0**-25  # what an absolute error of some u |x| in the forward, as gelu's, makes in the quotient
TINY = 2.0**-200  # float32 and the 16-bit formats end far above; their products and squares stay in float64
SLACK = 2.0**-13
"""The quotient's rounding error is about K 2^-53 / 2^-26 = K 2^-27 of its terms: this leaves room for
K = 10^4, while a wrong factor, sign or missing term shows at once."""

BEND, CURVE = 2.0**-4, 2.0**-44
"""A kink's second difference is of the size of the first one; rounding makes some 2^-51 of the value."""


def check_rule(
    node: Node, inputs: Sequence[Any], grad: Array, options: Mapping[str, Any]
) -> tuple[Finding, ...]:
    """Run an op's own gradient rule in float64 and compare it with a difference quotient of the reference.

    An op without a reference is compared with its own forward, run in float64. Nothing is said where an
    input, the incoming gradient or a result is not finite (or extreme, in float64), and about dropout, whose
    mask cannot be drawn again.

    Args:
        node: the op's context, of which the op, the edges and the backend are used.
        inputs: the forward's inputs: arrays on the host, Python numbers, None.
        grad: the incoming gradient.
        options: the op's options.
    """
    if node.op.name == "dropout" or NO_DERIVATIVE.get(node.op.name, _never)(options):
        return ()
    wide = [x.astype(np.float64) if _floating(x) else x for x in inputs]
    if node.op.name in TURNS and TURNS[node.op.name](*wide):
        return ()
    u = np.asarray(grad, np.float64)
    in_float64 = {
        key: float64 if key in ("dtype", "format") and value is not None else value
        for key, value in options.items()
    }
    gradients = _run_rule(node, wide, u, in_float64)
    wrong = []
    for i, gradient in enumerate(gradients):
        if gradient is None or i >= len(wide) or node.inputs[i] is None:
            continue
        v = wide[i] * signs_of(wide[i])
        ends = [_forward(node, _moved(wide, i, h * v), in_float64) for h in (STEP, -STEP)]
        quotient, projected, allowed = _compared(u, v, gradient, ends, wide[i])
        if not (np.isfinite([quotient, projected, allowed]).all() and _tame(u) and all(map(_tame, wide))):
            continue
        if not abs(projected - quotient) <= allowed:  # perhaps at a kink: leave those results out
            smooth = np.where(_bent(ends, _forward(node, wide, in_float64)), 0.0, u)
            (gradient,) = _run_rule(node, wide, smooth, in_float64)[i : i + 1]  # noqa: PLW2901 - again
            quotient, projected, allowed = _compared(smooth, v, gradient, ends, wide[i])
        if not abs(projected - quotient) <= allowed:
            place = f"gradient of {node.op.name}#{node.number} by {i}"
            what = "its rule is the derivative of its forward, along one direction"
            wrong.append(Finding(what, f"{quotient!r} within {allowed:.3g}", repr(projected), place))
    return tuple(wrong)


def _compared(
    u: Array, v: Array, gradient: Any, ends: Sequence[Array], x: Array
) -> tuple[float, float, float]:
    """Return the difference quotient, what the rule makes of it, and how far they may be apart."""
    above, below = ends
    quotient = float((u * (above - below)).sum() / (2 * STEP))
    projected = float((v * gradient).sum())
    scale = float(np.abs(v * gradient).sum() + np.abs(u * above).sum())
    return quotient, projected, SLACK * scale + NOISE * float(np.abs(u).sum() * np.abs(x).max(initial=0.0))


def _bent(ends: Sequence[Array], middle: Array) -> Array:
    """Tell where a result has another slope on one side than on the other: two inputs are equal, say.

    Where it is smooth, the second difference is the rounding error of its three values.
    """
    above, below = ends
    turn = np.abs(above - 2 * middle + below)
    return np.asarray((turn > BEND * np.abs(above - below)) & (turn > CURVE * np.abs(middle)))


def signs_of(x: Array) -> Array:
    """Return +1 or -1 for each element of a float64 array, equal for equal magnitudes."""
    mixed = np.abs(x).view(np.uint64) * np.uint64(
        0x9E3779B97F4A7C15
    )  # Fibonacci hashing: the top bit looks random
    return np.where(mixed >> np.uint64(63), 1.0, -1.0)


def _never(_: Mapping[str, Any]) -> bool:
    return False


def _run_rule(node: Node, wide: Sequence[Any], u: Array, options: dict[str, Any]) -> list[Array | None]:
    """Run forward and gradient of the op on float64 arrays."""
    twin = Node(node.op, node.inputs, options, node.backend, float64, "float64", True)
    node.op.forward(twin, *_on_device(node, wide), **options)
    parts = node.op.differentiate(twin, node.backend.from_host(u))
    return [None if part is None else np.asarray(node.backend.to_host(part), np.float64) for part in parts]


def _forward(node: Node, wide: Sequence[Any], options: dict[str, Any]) -> Array:
    """Return the float64 forward by the reference, or by the op itself if it has none."""
    if node.op.name in REFERENCE:
        return np.asarray(REFERENCE[node.op.name](*wide, **options), np.float64)
    twin = Node(node.op, node.inputs, options, node.backend, float64, "float64", False)
    return np.asarray(node.backend.to_host(node.op.forward(twin, *_on_device(node, wide), **options)))


def _on_device(node: Node, wide: Sequence[Any]) -> list[Any]:
    return [node.backend.from_host(x) if hasattr(x, "dtype") else x for x in wide]


def _moved(wide: Sequence[Any], index: int, change: Array) -> list[Any]:
    return [x + change if i == index else x for i, x in enumerate(wide)]


def _tame(x: Any) -> bool:
    """Tell whether the float64 rule can neither overflow nor underflow on the way."""
    size = np.abs(x[x != 0]) if _floating(x) else np.ones(1)
    return bool(((size > TINY) & (size < 1 / TINY)).all())


def _floating(x: Any) -> bool:
    return hasattr(x, "dtype") and format_of(x.dtype) is not None
