"""The float64 shadow: each op again in float64, from the same inputs and from inputs never rounded.

The first run tells the error that an op *made*, the second one what it *inherited*: the difference of the
two. It is the op's own formula that runs, by float64 kernels; :mod:`minimp.checks` holds the formulas to an
independent reference. Shadows go with the arrays they belong to: an array that the recorder did not see being
made (a batch, a weight, what an optimizer wrote) is taken as exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minimp.door import OPS
from minimp.errors import MinimpError
from minimp.formats import Format, float64, get
from minimp.policy import format_of
from minimp.tape import Array, Edge, Event, Node
from minimp.trace.events import Error, OpError
from minimp.trace.identity import ByIdentity
from minimp.trace.statistics import measure, targets_of

__all__ = ["Shadow", "compare", "ulp_of"]

FAULTS = (MinimpError, ValueError, TypeError, IndexError, AttributeError)
WITHOUT = ("fp8", "quant")
"""In the names of ops that round to codes by design: float64 would not be what they stand for."""


@dataclass(frozen=True, slots=True)
class Twin:
    """An array in float64, and how far the real one is from it, as a norm."""

    array: Array
    relative: float


@dataclass(frozen=True, slots=True)
class Judged:
    """One output: its error, and what the op made zero or infinite of it."""

    error: OpError
    flushed: int
    overflowed: int


class Shadow:
    """What is known in float64 of the arrays that live.

    Attributes:
        inherits: whether gradients go on from the shadow's gradients. Not where a scaler multiplies them on
            their way.
        notes: op -> why it has no shadow.
    """

    def __init__(self) -> None:
        self.inherits = True
        self.notes: dict[str, str] = {}
        self._arrays: ByIdentity[Twin] = ByIdentity()
        self._nodes: ByIdentity[tuple[Node, Node]] = ByIdentity()
        self._arriving: ByIdentity[Array] = ByIdentity()

    def see(self, event: Event) -> tuple[Judged | None, ...]:
        """Run an op or a gradient in float64; return one judgement for each output."""
        op, nothing = event.node.op, (None,) * len(event.outputs)
        if OPS.get(op.name) is not op or op.on_tensors is not None or event.node.format is None:
            return nothing
        if any(word in op.name for word in WITHOUT):
            self.notes[op.name] = "it rounds to codes by design"
            return nothing
        try:
            return self._forward(event) if event.phase == "forward" else self._backward(event)
        except FAULTS as fault:
            self.notes[op.name] = str(fault).split("\n")[0]
            return nothing

    def leaf(self, leaf: Any, grad: Array) -> OpError | None:
        """Return the error of a leaf's gradient after backward, and forget the shadow's."""
        pure = self._arriving.pop(leaf)
        form = format_of(grad.dtype)
        if pure is None or form is None or pure.shape != grad.shape:
            return None
        error = compare(_wide(grad), pure, form)
        return OpError(Error(), error, error, error.relative, _unrounded(pure, form))

    # ---- forward ----------------------------------------------------------------------------------------

    def _forward(self, event: Event) -> tuple[Judged | None, ...]:
        node, (result,) = event.node, event.outputs
        form = format_of(result.dtype) if result is not None else None
        if result is None or form is None:
            return (None,)
        twins = [self._arrays.get(x) if hasattr(x, "dtype") else None for x in event.inputs]
        same = [_wide(x) for x in event.inputs]
        first, exact = _run(node, same, result)
        second, pure = first, exact
        if any(twins):
            inputs = [x if t is None else t.array for x, t in zip(same, twins, strict=True)]
            second, pure = _run(node, inputs, result)
        if node.recording:
            self._nodes.put(node, (first, second))
        entering = max((t.relative for t in twins if t is not None), default=0.0)
        judged = _judge(_wide(result), exact, pure, form, entering)
        self._arrays.put(result, Twin(pure, judged.error.total.relative))
        return (judged,)

    # ---- backward ---------------------------------------------------------------------------------------

    def _backward(self, event: Event) -> tuple[Judged | None, ...]:
        node, (grad,) = event.node, event.inputs
        pair = self._nodes.get(node)
        arrived = self._arriving.pop(node) if self.inherits else None
        if pair is None:
            return (None,) * len(event.outputs)
        given = _wide(grad)
        exacts = node.op.differentiate(pair[0], given)
        pures, entering = exacts, 0.0
        if arrived is not None or pair[1] is not pair[0]:
            pures = node.op.differentiate(pair[1], given if arrived is None else arrived)
        if arrived is not None:
            entering = _relative(given - arrived, arrived)
        return tuple(
            self._judged_part(node.inputs[i], part, exacts[i], pures[i], entering)
            for i, part in enumerate(event.outputs)
        )

    def _judged_part(
        self, edge: Edge | None, part: Array | None, exact: Array, pure: Array, entering: float
    ) -> Judged | None:
        if part is None or edge is None or exact is None or pure is None:
            return None
        if self.inherits:
            held = self._arriving.get(edge)
            self._arriving.put(edge, pure if held is None else held + pure)
        form = format_of(part.dtype)
        if form is None:
            return None
        return _judge(_wide(part), exact, pure, form, entering, unrounded=True)


def _run(node: Node, inputs: Sequence[Any], result: Array) -> tuple[Node, Array]:
    """Run the op of a node in float64; return the node that it leaves, and the result."""
    options = {key: float64 if isinstance(value, Format) else value for key, value in node.options.items()}
    twin = Node(node.op, node.inputs, options, node.backend, float64, "float64", node.recording)
    if node.op.name == "dropout":  # the mask that was drawn; drawing again would move the generator
        twin.saved = node.saved or (_wide(result) != 0,)
        return twin, node.op.differentiate(twin, inputs[0])[0]
    made = node.op.forward(twin, *inputs, **options)
    twin.shape = made.shape
    return twin, made


def _wide(x: Any) -> Any:
    """Return floating arrays as float64, anything else as it is."""
    return x.astype(np.float64) if hasattr(x, "dtype") and format_of(x.dtype) is not None else x


def _judge(
    got: Array, exact: Array, pure: Array, form: Format, entering: float, *, unrounded: bool = False
) -> Judged:
    made = compare(got, exact, form)
    inherited, total = Error(), made
    if pure is not exact:
        inherited, total = compare(exact, pure, form), compare(got, pure, form)
    error = OpError(made, inherited, total, entering, _unrounded(pure, form) if unrounded else None)
    zero = got == 0
    flushed = int(np.count_nonzero(exact[zero])) if zero.any() else 0
    infinite = np.isinf(got)
    burst = int(np.count_nonzero(np.isfinite(exact[infinite]))) if infinite.any() else 0
    return Judged(error, flushed, burst)


def _unrounded(pure: Array, form: Format) -> Any:
    host = np.ascontiguousarray(pure)
    return measure(host, float64, host, targets_of(form))


# ---- distances --------------------------------------------------------------------------------------------


def compare(got: Any, exact: Any, form: Format | str) -> Error:
    """Return how far `got` is from `exact`, float64 arrays of one shape, in ulps of `form` and as a norm."""
    form = get(form)
    gap = np.abs(got - exact)
    if not gap.size or not gap.any():
        return Error()
    if not np.isfinite(gap).all():
        known = np.isfinite(gap)
        gap, exact = gap[known], exact[known]
        if not gap.size:
            return Error()
    ulps = gap / ulp_of(exact, form)
    return Error(float(ulps.max()), float(ulps.mean()), _relative(gap, exact))


def ulp_of(exact: Any, form: Format) -> Any:
    """Return one unit in the last place of `form` at each float64 number; below the normal ones it is even.

    The exponent is read off the bits.
    """
    lowest = 1023 + round(np.log2(form.smallest_normal))
    powers = (np.ascontiguousarray(exact).view(np.int64) >> 52) & 0x7FF
    powers = np.maximum(np.maximum(powers, lowest) - form.mantissa_bits, 1)
    return (powers << 52).view(np.float64)


def _relative(gap: Any, exact: Any) -> float:
    """Return |gap| / |exact| by norms; what is not finite counts as nothing."""
    over, under = (float(np.sqrt(np.dot(x.reshape(-1), x.reshape(-1)))) for x in (gap, exact))
    if not np.isfinite([over, under]).all():
        return 0.0
    return over / under if under else (0.0 if not over else float("inf"))
