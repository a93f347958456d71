"""The values of every op and of its gradients, here and in the installed PyTorch on the CPU, bit by bit.

Both start from the same bits, without autocast. What each gives is compared with the other's, and held to the
op's own error bound around the float64 value of the call (:mod:`minimp.frameworks.ops.call_bounds`).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np

from minimp import formats
from minimp.checks.contracts import within
from minimp.errors import MinimpError
from minimp.frameworks.cases import CASES, NO_COUNTERPART, Case, minimp_library, torch_library
from minimp.frameworks.cases.numbers import FLAT, KINDS, every_value, numbers
from minimp.frameworks.judging import judged
from minimp.frameworks.ops.call_bounds import Bound, gradient_bounds, result_bound
from minimp.frameworks.results import Row, Section, Verdict
from minimp.modes import listen
from minimp.policy import format_of
from minimp.tape import Event
from minimp.tensors import tensor

__all__ = ["FORMATS", "Tally", "compare", "compare_case", "from_torch", "to_torch", "ulps"]

Array = np.ndarray[Any, Any]
FORMATS = ("float16", "bfloat16")
GRADS = {"wide": "wide", "special": "special", "moderate": "wide"}
"""Kind of the inputs -> kind of the result's gradient, where it is not normal."""
APART = {"otherwise": "in float64 too", "apart": "no bound holds"}
"""Count of a tally -> what the case of a row of its own begins with, if that is not 0."""
FAULTS = (MinimpError, RuntimeError, TypeError, ValueError, LookupError, AttributeError)
NOT_COMPARED = {"dropout": "each library draws its own mask"}


@dataclass(frozen=True, eq=False)
class _Shown:
    """The arrays of one comparison, of which one element is to be shown."""

    ours: Array
    theirs: Array
    exact: Array
    allowed: Array
    where: str

    def first(self, odd: Array) -> tuple[str, str]:
        """Return ours and theirs in words where `odd` is true for the first time."""
        at = int(odd.ravel().argmax())
        ours, theirs, exact, allowed = (
            float(a.ravel()[at]) for a in (self.ours, self.theirs, self.exact, self.allowed)
        )
        room = "not claimed" if np.isinf(allowed) else f"{exact:.9g} +- {allowed:.2g}"
        return f"{ours:.9g}", f"{theirs:.9g} where float64 is {room} ({self.where})"


@dataclass
class Tally:
    """What was counted over the elements of one result, or of the gradients of one call.

    Attributes:
        elements: how many were compared.
        equal: how many have the same bits, or are NaN in both.
        max_ulp: the largest difference in ULPs where both are finite and the bound claims something.
        ours_out: how many of ours lie outside the bound.
        theirs_out: how many of theirs do, while torch's own float64 result lies inside.
        otherwise: how many of theirs do in float64 too: torch computes something else there.
        apart: on how many of the elements of which the bound says nothing, since something overflows on the
            way, one is finite and the other not, or they are two infinities.
        unclaimed: how many those elements are.
        shown: for each of these counts that is not 0, the first such element: ours and theirs in words.
        wrong: what cannot be compared element by element, in words.
    """

    elements: int = 0
    equal: int = 0
    max_ulp: int = 0
    ours_out: int = 0
    theirs_out: int = 0
    otherwise: int = 0
    apart: int = 0
    unclaimed: int = 0
    shown: dict[str, tuple[str, str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def add(
        self, ours: Array, theirs: Array, bound: Bound, where: str, in_float64: Callable[[], Array]
    ) -> None:
        """Count the elements of one array.

        Args:
            ours, theirs: the values.
            bound: what they are held to.
            where: what to call the array when an element of it is shown.
            in_float64: returns what torch gives from the same inputs in float64.
        """
        if ours.dtype != theirs.dtype or ours.shape != theirs.shape:
            self.wrong.append(f"{where}: {ours.dtype}{ours.shape} and {theirs.dtype}{theirs.shape}")
            return
        exact, allowed = (np.broadcast_to(a, ours.shape) for a in (bound.exact, bound.allowed))
        mine, other = ours.astype(np.float64), theirs.astype(np.float64)
        good, fair = within(ours, exact, allowed), within(theirs, exact, allowed)
        same = (_bits(ours) == _bits(theirs)) | (np.isnan(mine) & np.isnan(other))
        alike = same | (np.isfinite(mine) & np.isfinite(other)) | (mine == other)
        free = np.isposinf(allowed)
        meant = fair if fair.all() else within(in_float64(), exact, allowed)
        self.elements += ours.size
        self.equal += int(same.sum())
        self.unclaimed += int(free.sum())
        self.max_ulp = max(self.max_ulp, ulps(ours[~free], theirs[~free]))
        shown = _Shown(mine, other, exact, allowed, where)
        odd = {
            "ours_out": ~good,
            "theirs_out": ~fair & meant,
            "otherwise": ~fair & ~meant,
            "apart": free & ~alike,
        }
        for name, mask in odd.items():
            if mask.any():
                setattr(self, name, getattr(self, name) + int(mask.sum()))
                self.shown.setdefault(name, shown.first(mask))

    @property
    def figures(self) -> dict[str, Any]:
        """The counts by name, and the four columns of the report."""
        total, theirs_out = max(self.elements, 1), self.theirs_out + self.otherwise
        counts = {name: getattr(self, name) for name in COUNTS}
        return {
            "bit_equal_percent": 100.0 * self.equal / total,
            "max_ulp": self.max_ulp,
            "ours_in_bound_percent": 100.0 * (self.elements - self.ours_out) / total,
            "theirs_in_bound_percent": 100.0 * (self.elements - theirs_out) / total,
            **counts,
        }


COUNTS = ("elements", "equal", "ours_out", "theirs_out", "otherwise", "apart", "unclaimed")


def compare(seed: int = 0) -> Section:
    """Compare the values of every op, and its gradients, in float16, bfloat16 and float32.

    Args:
        seed: of the random inputs.
    """
    rows = [row for case in CASES for fmt in FORMATS for row in compare_case(case, fmt, seed)]
    rows += [Row(op, "", "", "", Verdict.NOT_COMPARED, why) for op, why in NO_COUNTERPART.items()]
    counted = [row.figures for row in rows if "elements" in row.figures]
    elements, equal = (sum(f[name] for f in counted) for name in ("elements", "equal"))
    return Section(
        "values",
        "The values of each op and of its gradients, from the same bits, on the CPU",
        "Agreeing means: of each element, both libraries give the same bits, or values within the op's own "
        "error bound around the float64 value of the call; and NaN and infinities stand in the same places. "
        "Functions of one number are compared on all 65,536 numbers of a 16-bit format.",
        tuple(rows),
        {"bit_equal_percent": "bits equal %", "max_ulp": "max ULP",
         "ours_in_bound_percent": "ours in bound %", "theirs_in_bound_percent": "theirs in bound %"},
        {"elements compared": f"{elements:,}", "of these bit for bit equal": f"{equal / elements:.2%}",
         "torch's vector instructions": _vectors()},
    )  # fmt: skip


def _vectors() -> str:
    import torch

    return str(torch.backends.cpu.get_cpu_capability())


def compare_case(case: Case, fmt: str, seed: int = 0) -> Iterator[Row]:
    """Compare one call in one format: a row for its result, and one for its gradients where it has any.

    A row of its own has what differs where torch's float64 result differs too: then it is not its arithmetic
    but its definition. And another has what differs where no bound holds: where a sum overflows on the way,
    whether a number, an infinity or NaN comes out is a matter of the order.

    Args:
        case: the call.
        fmt: the format of the inputs.
        seed: of the random inputs.
    """
    if case.op in NOT_COMPARED:
        yield Row(case.op, _words(case, fmt, "result"), "", "", Verdict.NOT_COMPARED, NOT_COMPARED[case.op])
        return
    result, gradients = Tally(), Tally()
    for kind in ("every value",) if case.pointwise and len(case.shapes) == 1 else (*KINDS, *FLAT):
        try:
            with np.errstate(all="ignore"):
                _run(case, fmt, kind, seed, result, gradients)
        except FAULTS as fault:
            yield _refused(case, fmt, fault)
            return
    for part, tally in (("result", result), ("gradients", gradients)):
        if tally.elements or tally.wrong:
            yield from _rows(case, _words(case, fmt, part), tally)


def _refused(case: Case, fmt: str, fault: Exception) -> Row:
    """Return the row of a call that failed: not compared where torch has no such kernel."""
    said = str(fault).strip().splitlines()[0]
    words = _words(case, fmt, "result")
    if not isinstance(fault, _TorchError):
        return Row(case.op, words, f"{type(fault).__name__}: {said}", "", Verdict.DIFFERS)
    if "not implemented for" in said:
        return Row(case.op, words, "", "", Verdict.NOT_COMPARED, f"torch has no kernel for it: {said}")
    return Row(case.op, words, "", said, Verdict.DIFFERS)


def _words(case: Case, fmt: str, part: str) -> str:
    return ", ".join((fmt, part, *([case.what] if case.what else [])))


def _rows(case: Case, words: str, tally: Tally) -> Iterator[Row]:
    """Return the row of one tally; and one for each way in which torch means something else."""
    if tally.wrong or tally.ours_out:  # what is wrong here is never a known difference
        shown = (tally.wrong[0], "") if tally.wrong else tally.shown["ours_out"]
        yield Row(case.op, words, *shown, Verdict.DIFFERS, figures=tally.figures)
    else:
        shown = tally.shown.get("theirs_out", ("", ""))
        yield judged("torch", "values", case.op, words, *shown, agrees=not tally.theirs_out,
                     figures=tally.figures)  # fmt: skip
    for name, called in APART.items():
        if name in tally.shown:
            yield judged("torch", "values", case.op, f"{called}: {words}", *tally.shown[name], agrees=False,
                         figures={name: getattr(tally, name)})  # fmt: skip


# ---- one call in both -------------------------------------------------------------------------------------


def _run(case: Case, fmt: str, kind: str, seed: int, result: Tally, gradients: Tally) -> None:
    """Run a call in both libraries, forward and backward, and count."""
    random = np.random.default_rng([seed, zlib.crc32(f"{case} {fmt} {kind}".encode())])
    arrays = _inputs(case, fmt, kind, random)
    wanted = [i not in case.targets for i in range(len(arrays))]
    ours = [tensor(a, requires_grad=w) for a, w in zip(arrays, wanted, strict=True)]
    events: list[Event] = []
    with listen(events.append):
        y = case.call(minimp_library(), *ours)
    theirs = _Theirs(case, arrays, wanted)
    finer = cache(lambda: _Theirs(case, [a.astype(np.float64) for a in arrays], wanted))
    result.add(y.array, theirs.result, result_bound(events, y.array), kind, lambda: finer().result)
    if y.requires_grad != theirs.differentiable:
        gradients.wrong.append(f"{'a' if y.requires_grad else 'no'} gradient here alone")
    if not (y.requires_grad and theirs.differentiable):
        return
    grad = _held(numbers(random, y.shape, y.format.name, GRADS.get(kind, "normal")), kind, y.format.name)
    with listen(events.append):
        y.backward(tensor(grad))
    theirs.backward(grad)
    for i, bound in enumerate(gradient_bounds(events, grad, y.node, ours)):
        mine, other = ours[i].grad, theirs.gradients[i]
        if bound is not None and mine is not None and other is not None:
            gradients.add(mine.array, other, bound, f"{kind}, input {i}", partial(_gradient, finer, grad, i))
        elif (mine is None) != (other is None):
            gradients.wrong.append(f"input {i}: {'no' if mine is None else 'a'} gradient here alone")


def _gradient(made: Callable[[], _Theirs], grad: Array, index: int) -> Array:
    part = made().backward(grad)[index]
    assert part is not None  # it is the same call that had one in 16 bits
    return part


class _TorchError(RuntimeError):
    """torch refused a call."""


@contextmanager
def _telling_whose() -> Iterator[None]:
    try:
        yield
    except FAULTS as fault:
        raise _TorchError(f"{type(fault).__name__}: {fault}") from fault


class _Theirs:
    """A call in torch."""

    def __init__(self, case: Case, arrays: Sequence[Array], wanted: Sequence[bool]) -> None:
        self.inputs = [to_torch(a).requires_grad_(w) for a, w in zip(arrays, wanted, strict=True)]
        with _telling_whose():
            self.made = case.call(torch_library(), *self.inputs)
        self.result, self.differentiable = from_torch(self.made), self.made.requires_grad
        self.gradients: list[Array | None] = []

    def backward(self, grad: Array) -> list[Array | None]:
        """Return the gradient by each input."""
        if not self.gradients:
            wide = self.result.dtype == np.float64
            with _telling_whose():
                self.made.backward(to_torch(grad.astype(np.float64) if wide else grad))
            self.gradients = [None if x.grad is None else from_torch(x.grad) for x in self.inputs]
        return self.gradients


def _inputs(case: Case, fmt: str, kind: str, random: np.random.Generator) -> list[Array]:
    """Return the inputs' arrays in their format."""
    if kind == "every value":
        arrays = [every_value(random, fmt)]
    else:
        shapes = ((64, 64),) * len(case.shapes) if case.pointwise else case.shapes_for_values
        arrays = [_held(numbers(random, shape, fmt, kind), kind, fmt) for shape in shapes]
    if case.domain is None:
        return arrays
    return [a.astype(x.dtype) for a, x in zip(case.domain(*arrays), arrays, strict=True)]


def _held(values: Array, kind: str, fmt: str) -> Array:
    """Return numbers as an array of a format; infinities are for the special ones."""
    f = formats.get(fmt)
    return (values if kind == "special" else np.clip(values, -f.max, f.max)).astype(f.dtype)


def to_torch(array: Array) -> Any:
    """Return a torch tensor with the same bits."""
    import torch

    bits = np.array(array, order="C")
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(bits.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(bits)


def from_torch(made: Any) -> Array:
    """Return a NumPy array with the bits of a torch tensor."""
    import torch

    made = made.detach()
    if made.dtype is torch.bfloat16:
        return np.asarray(made.contiguous().view(torch.uint16).numpy()).view(formats.bfloat16.dtype)
    return np.asarray(made.numpy())


# ---- distances --------------------------------------------------------------------------------------------


def ulps(a: Array, b: Array) -> int:
    """Return the largest distance of two arrays of one format in ULPs, where both are finite.

    ULPs are counted in steps from one number of the format to the next; 0 and -0 are one number.
    """
    if format_of(a.dtype) is None or not a.size:
        return 0
    finite = np.isfinite(a.astype(np.float64)) & np.isfinite(b.astype(np.float64))
    steps = [_order(x)[finite] for x in (a, b)]
    return int(np.abs(steps[0] - steps[1]).max(initial=0))


def _order(x: Array) -> Array:
    """Number the values of a format from the least to the largest; both zeros are number 0."""
    bits = _bits(x).astype(np.int64)
    top = np.int64(1) << (8 * x.itemsize - 1)
    return np.where(bits & top, -(bits & (top - 1)), bits)


def _bits(x: Array) -> Array:
    return x if format_of(x.dtype) is None else np.ascontiguousarray(x).view(f"u{x.itemsize}")
