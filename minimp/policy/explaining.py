"""Which format each input of an op is computed in, and why: the rules of autocast, told without running."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from minimp import formats
from minimp.errors import FormatError, MinimpError, SettingError, unknown_name
from minimp.formats import Format
from minimp.modes import MODES
from minimp.policy.catalogue import LACKING
from minimp.policy.classes import FLOATING, CastClass, Mixed, common_format, compute_formats, format_of
from minimp.policy.printed import MEANING

if TYPE_CHECKING:
    from minimp.door import Op
    from minimp.policy.table import Policy

__all__ = ["Explanation", "InputExplanation", "explain", "explained"]

WIDTH = 100
NUMBERS = (float, int, bool)
_NOT_FLOATING = """
    all any argmax argmin argsort bitwise_and bitwise_not bitwise_or bitwise_xor count_nonzero eq ge gt
    isfinite isinf isnan le logical_and logical_not logical_or logical_xor lt ne
"""
NOT_FLOATING = frozenset(_NOT_FLOATING.split())
"""The ops whose results are integers or booleans, whatever they are computed in."""


@dataclass(frozen=True)
class InputExplanation:
    """One input of an op.

    Attributes:
        what: what was given, in words: "float32 leaf", "int64", "a number", "nothing".
        given: its format; None for integers, numbers and what is missing.
        compute: the format that the op computes it in; None as for `given`.
        why: the reasons.
        cached: whether the region may keep its cast: a float32 leaf that requires a gradient, cast to the
            region's format.
    """

    what: str
    given: Format | None
    compute: Format | None
    why: str
    cached: bool = False

    def __str__(self) -> str:
        goes = "" if self.compute is self.given else f" -> {self.compute}"
        kept = "; a leaf's cast, which the region's cache makes once and keeps" if self.cached else ""
        return f"{self.what}{goes}: {self.why}{kept}"


@dataclass(frozen=True)
class Explanation:
    """What autocast would do with one call of an op; its string is a report.

    Attributes:
        op: the op's name.
        policy: the name of the policy that rules, or "" outside a region.
        rule: the op's cast class, or None outside a region.
        origin: where the class comes from.
        low: the region's format, or None outside a region.
        inputs: one record an input, in their order.
        result: the format of the result, where it is a floating one and known.
        refused: why the call would raise a FormatError, or "".
        source: whose rules these are, and of which version.
    """

    op: str
    policy: str
    rule: CastClass | None
    origin: str
    low: Format | None
    inputs: tuple[InputExplanation, ...]
    result: Format | None
    refused: str
    source: str

    @property
    def formats(self) -> tuple[Format | None, ...]:
        """The compute formats, one an input."""
        return tuple(each.compute for each in self.inputs)

    def __str__(self) -> str:
        """Show the call, within 100 columns."""
        if self.rule is None or self.low is None:
            head = f"{self.op} outside an autocast region: inputs as they are"
        else:
            head = f"{self.op} in a {self.low.name} region of {self.policy}: {self.rule.value}"
            head += f" ({MEANING[self.rule]}), {self.origin}"
        lines = wrap(head, WIDTH, subsequent_indent="  ")
        for number, each in enumerate(self.inputs, 1):
            lines += wrap(f"{number}. {each}", WIDTH, initial_indent="  ", subsequent_indent="     ")
        if self.refused:
            told = self.refused.replace("\n  help: ", "; ")
            lines += wrap(f"raises: {told}", WIDTH, initial_indent="  ", subsequent_indent="     ")
        elif self.result is not None:
            lines.append(f"  result: {self.result.name}")
        return "\n".join([*lines, *(wrap(f"  rules: {self.source}", WIDTH) if self.source else [])])


@dataclass(frozen=True)
class _Given:
    what: str
    format: Format | None = None
    tensor: bool = True
    dims: bool = True
    leaf: bool = False


def explain(op: str | Op, inputs: Iterable[Any], **options: Any) -> Explanation:
    """Say which format each input of an op would be computed in here and now, in the region in force.

    The op is not run. Arguments, result and errors as :meth:`minimp.Policy.explain`; outside a region, and
    in a disabled one, no policy has a say.
    """
    region = MODES.get().autocast
    if region is None or not region.enabled:
        return explained(None, op, inputs, **options)
    return explained(region.policy, op, inputs, **{"low": region.format, **options})


def explained(
    policy: Policy | None, op: str | Op, inputs: Iterable[Any], *, low: Any = None, **options: Any
) -> Explanation:
    """Return what a policy (None: no region) does with one call; see :meth:`minimp.Policy.explain`."""
    name, declared = _named(policy, op)
    region = MODES.get().autocast
    form = formats.get(low if low is not None else formats.float16 if region is None else region.format)
    given = _first_lifted([_given(x) for x in inputs])
    rule, origin = None, ""
    if policy is not None:
        policy = policy.in_format(form)
        rule, origin = _rule(policy, name, declared)
    after, why, refused = _ruled(rule, given, form, options, name)
    if not refused and declared is not None:
        after, why, refused = _settled(declared, given, after, why)
    records = tuple(
        InputExplanation(x.what, x.format, now, reason, x.leaf and now is form)
        for x, now, reason in zip(given, after, why, strict=True)
    )
    unknown = declared is None and len({*after} - {None}) > 1  # what it makes of several is not known here
    result = None if refused or unknown else _result(name, after, options)
    source = "" if policy is None else policy.source
    return Explanation(
        name, "" if policy is None else policy.name, rule, origin, None if policy is None else form, records,
        result, refused, source,
    )  # fmt: skip


def _named(policy: Policy | None, op: str | Op) -> tuple[str, Op | None]:
    """Return the op's name, and the op where minimp has it."""
    if not isinstance(op, str):
        return op.name, op
    known: Mapping[str, Op] = import_module("minimp.door").OPS  # the door stands above the policies it asks
    if op not in known and (policy is None or op not in policy):
        names = sorted({*known, *(policy or ())})
        raise SettingError(
            unknown_name("op", op, names), op="explain", help="give the op itself if it is one of yours"
        )
    return op, known.get(op)


def _rule(policy: Policy, name: str, op: Op | None) -> tuple[CastClass, str]:
    if name in policy.rules:
        if name in policy.lacking or name in LACKING:
            return policy.rules[name], "as its table says; minimp has no op of this name"
        return policy.rules[name], "by default" if name in policy.filled else "as its table says"
    assert op is not None  # a name that neither the policy nor minimp knows was refused
    return op.cast, "as the op declares"


def _given(x: Any) -> _Given:
    """Read one input: a tensor, an array, a format or the name of one, a number, or None."""
    if x is None:
        return _Given("nothing", tensor=False)
    if x.__class__ in NUMBERS:
        return _Given("a float" if x.__class__ is float else "a whole number", tensor=False)
    if isinstance(x, Format):
        return _Given(x.name, _floating(x))
    if isinstance(x, str):
        return _spelled(x)
    if hasattr(x, "requires_grad"):
        leaf = bool(x.requires_grad) and x.node is None and x.format is formats.float32
        what = x.array.dtype.name + (" leaf" if leaf else "")
        return _Given(what, _floating(x.format), dims=x.array.ndim > 0, leaf=leaf)
    array = x if hasattr(x, "dtype") and hasattr(x, "ndim") else np.asarray(x)
    if array.dtype == np.float64 and not isinstance(x, np.ndarray | np.generic):
        array = array.astype(np.float32)  # as plain lists of floats become tensors
    return _Given(array.dtype.name, _floating(format_of(array.dtype)), dims=array.ndim > 0)


def _spelled(text: str) -> _Given:
    try:
        return _Given(formats.get(text).name, _floating(formats.get(text)))
    except MinimpError:
        try:
            kind = np.dtype(text)
        except TypeError:
            kind = np.dtype(object)
        if kind.kind not in "iub":
            raise
        return _Given(kind.name)


def _floating(form: Format | None) -> Format | None:
    return form if form in FLOATING else None


def _first_lifted(given: list[_Given]) -> list[_Given]:
    """Make the first input a tensor where no input is one, as the door does."""
    if given and not any(x.tensor for x in given):
        first = given[0].what == "a float"
        lifted = _Given(given[0].what, formats.float32 if first else None, dims=False)
        return [lifted, *given[1:]]
    return given


_Step = tuple[list[Format | None], list[str], str]


def _ruled(
    rule: CastClass | None, given: Sequence[_Given], low: Format, options: Mapping[str, Any], op: str
) -> _Step:
    """Let the policy have its say: the formats after it, and the reasons."""
    found = [x.format for x in given]
    if rule is None:
        return found, ["no region is in force"] * len(found), ""
    try:
        targets = compute_formats(rule, found, low, options, op=op)
    except FormatError as fault:
        return found, [_reason(rule, x, None, options) for x in given], str(fault)
    after = [old if new is None else new for old, new in zip(found, targets, strict=True)]
    return after, [_reason(rule, x, new, options) for x, new in zip(given, targets, strict=True)], ""


def _reason(rule: CastClass, x: _Given, target: Format | None, options: Mapping[str, Any]) -> str:
    if x.format is None or x.format is formats.float64:
        told = "autocast never touches float64" if x.format else "autocast casts floating tensors only"
        return told if x.tensor else "it has no format to change"
    if rule is CastClass.SET_FP32 and options.get("dtype") is not None:
        return "dtype= was given, and wins over the rule"
    if target is None:
        kept = rule is CastClass.KEEP
        return "the op computes in the formats it is given" if kept else "the rule refuses the call"
    same = ", which it has" if target is x.format else ""
    if rule is CastClass.PROMOTE:
        found = "float32 is among the inputs" if target is formats.float32 else "no input is float32"
        return f"{found}, so all are computed in {target.name}{same}"
    asked = "the region's format" if rule is CastClass.LOWER else "float32"
    return f"the rule asks for {asked}{same}"


def _settled(op: Op, given: Sequence[_Given], after: list[Format | None], why: list[str]) -> _Step:
    """Bring what the policy left to a common format, by the op's own rule."""
    mixed = op.mixed
    if mixed is Mixed.PROMOTE and any(x.what == "a float" and not x.tensor for x in given):
        mixed = Mixed.FLOAT
    kinds = [(now, x.dims) if x.tensor else None for x, now in zip(given, after, strict=True)]
    try:
        target = common_format(op.name, mixed, kinds)
    except FormatError as fault:
        return after, why, str(fault)
    if target is None:
        return after, why, ""
    moved = [x.tensor and now is not target for x, now in zip(given, after, strict=True)]
    after = [target if move else now for move, now in zip(moved, after, strict=True)]
    told = f"; then to {target.name}, the common format of the inputs"
    return after, [reason + told if move else reason for move, reason in zip(moved, why, strict=True)], ""


def _result(op: str, computed: Sequence[Format | None], options: Mapping[str, Any]) -> Format | None:
    """Return the format of the result: that asked for, else that of the first floating input."""
    if op in NOT_FLOATING:
        return None
    asked = options.get("format" if op == "cast" else "dtype")
    if asked is not None:
        return _floating(formats.get(asked))
    return next((each for each in computed if each is not None), None)
