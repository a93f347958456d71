"""Check the gradient of any function of tensors along one random direction, in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minimp import formats, rng
from minimp.checks.findings import Finding, Findings
from minimp.checks.host import on_host
from minimp.errors import FormatError
from minimp.modes import accumulate
from minimp.tensors import Tensor, tensor

__all__ = ["gradcheck"]

STEP = 2.0**-17  # about eps^(1/3): the quotient's error, h^2 and eps / h, is then some 1e-10 of its terms


def gradcheck(
    fn: Callable[..., Tensor], inputs: Sequence[Any], *, slack: float = 1e-6, seed: int = 0
) -> Findings:
    """Compare <v, J^T u> from backward with (<u, f(x + h v)> - <u, f(x - h v)>) / 2 h, for random u and v.

    What agrees along a random direction agrees everywhere, but for an unlucky cancellation (HIPS autograd
    checks so). Each input has a direction of its own. The function is run in float64, with
    the same random numbers each time, so dropout can be checked.

    Args:
        fn: from tensors to a tensor. It should be smooth within 1e-5 of the inputs: no zeros at a relu.
        inputs: arrays or tensors, converted to float64.
        slack: the difference allowed, relative to the sum of |v g| + |u y|.
        seed: of u and v.

    Returns:
        Findings, true if every input's gradient agrees.

    Raises:
        FormatError: `fn` leaves float64.

    >>> import minimp as mp
    >>> bool(mp.checks.gradcheck(lambda x: (x * x).sum(), [[1.0, 2.0]]))
    True
    """
    random = np.random.default_rng(seed)
    points = [_point(x) for x in inputs]
    state = rng.get_rng_state()
    output, leaves = _run(fn, points, state)
    u = random.standard_normal(output.shape)
    output.backward(u)
    scale_y = float(np.abs(u * on_host(output)).sum())
    wrong, checked = [], 0
    for i, (leaf, x) in enumerate(zip(leaves, points, strict=True)):
        v = random.standard_normal(x.shape) * (np.abs(x) + 1.0)
        ends = [_run(fn, _replaced(points, i, x + h * v), state)[0] for h in (STEP, -STEP)]
        above, below = (on_host(end, np.float64) for end in ends)
        quotient = float((u * (above - below)).sum() / (2 * STEP))
        gradient = np.zeros_like(x) if leaf.grad is None else on_host(leaf.grad)
        projected = float((v * gradient).sum())
        allowed = slack * (float(np.abs(v * gradient).sum()) + scale_y)
        checked += x.size
        if not abs(projected - quotient) <= allowed:
            what = "backward is the derivative, along one random direction"
            wrong.append(Finding(what, f"{quotient!r} within {allowed:.3g}", repr(projected), f"input {i}"))
    return Findings("the gradient agrees with a difference quotient", tuple(wrong), checked=checked)


def _point(x: Any) -> np.ndarray[Any, Any]:
    return np.array(on_host(x), np.float64)


def _run(fn: Callable[..., Tensor], points: Sequence[Any], state: Any) -> tuple[Tensor, list[Tensor]]:
    """Call the function on leaves at `points`, with the random numbers that follow `state`."""
    rng.set_rng_state(state)
    leaves = [tensor(x, dtype=formats.float64, requires_grad=True) for x in points]
    with accumulate("float64"):
        output = fn(*leaves)
    if output.format is not formats.float64:
        raise FormatError(
            f"expected a float64 result from float64 inputs, got {output.format}",
            op="gradcheck", help="take out the casts, and run outside autocast",
        )  # fmt: skip
    return output, leaves


def _replaced(points: Sequence[Any], index: int, value: Any) -> list[Any]:
    return [value if i == index else x for i, x in enumerate(points)]
