"""A policy of which some ops, or some calls of ops, compute in FP32 instead.

The door asks the policy for the rule of every op that it runs in a region, by :meth:`Policy.rule`. That is
the one place where a call is told from the next, so nothing else in the engine knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from minimp.formats import Format, bfloat16, float16
from minimp.modes import MODES
from minimp.policy import CastClass, Policy, Region, format_of
from minimp.tape import Event

if TYPE_CHECKING:
    from minimp.door import Op

__all__ = ["Call", "Calls", "Choice", "Forced", "Site", "force"]

Call = tuple[str, int]
"""An op's name, and which of its calls, from 1, in the order in which the run makes them."""
LOW = frozenset({float16, bfloat16})
WIDE = (CastClass.FP32, CastClass.SET_FP32)
Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Choice:
    """What computes in FP32: every call of some ops, and some calls of others."""

    ops: frozenset[str] = frozenset()
    calls: frozenset[Call] = frozenset()

    def has(self, op: str, number: int) -> bool:
        """Tell whether a call is among it."""
        return op in self.ops or (op, number) in self.calls

    def __len__(self) -> int:
        return len(self.ops) + len(self.calls)


@dataclass(slots=True)
class Site:
    """Where a call was made, and whether it computed in 16 bits.

    Attributes:
        call: the op, and which of its calls it was.
        module: the path of the innermost module, "" outside of all.
        source: the user's line, "file.py:12".
        policy: the policy that ruled it, as it was given to the region.
        low: whether an input was in 16 bits after casting; None where that is not known.
    """

    call: Call
    module: str
    source: str
    policy: Policy
    low: bool | None


@dataclass(slots=True)
class Calls:
    """The calls of one run.

    Attributes:
        choice: what computes in FP32.
        locate: gives (module path, user's line) of the call being made; None where nobody wants to know.
        blurred: whether calls were made that cannot be told from others: in a region that was opened in a
            part of the forward that runs a second time.
        counts: op -> calls so far.
        sites: the calls, where they are located.
    """

    choice: Choice
    locate: Callable[[], tuple[str, str]] | None = None
    blurred: bool = False
    counts: Counts = field(default_factory=dict)
    sites: list[Site] = field(default_factory=list)
    _unseen: dict[str, list[Site]] = field(default_factory=dict)

    def ruled(self, op: str, kind: CastClass, policy: Forced, *, whole: bool = False) -> CastClass:
        """Count a call, and return its class.

        Args:
            op: the op.
            kind: its class under the policy as it was.
            policy: the policy that is asked.
            whole: whether it stands for several ops of minimp (one in PyTorch), which no policy is asked of.
        """
        again = MODES.get().recomputing
        counts = policy.counts if again else self.counts
        number = counts[op] = counts.get(op, 0) + 1
        if self.locate is not None and not again:
            site = Site((op, number), *self.locate(), policy.origin, kind not in WIDE if whole else None)
            self.sites.append(site)
            if not whole:
                self._unseen.setdefault(op, []).append(site)
        return CastClass.FP32 if self.choice.has(op, number) else kind

    def hear(self, event: Event) -> None:
        """Note in which format a call computed (a listener)."""
        if event.phase != "forward":
            return
        waiting = self._unseen.get(event.node.op.name)
        if waiting:
            formats = [format_of(x.dtype) for x in event.inputs if hasattr(x, "dtype")]
            waiting.pop().low = any(each in LOW for each in formats)


class Forced(Policy):
    """A policy in whose regions some calls compute in FP32.

    Args:
        inner: the policy as it was.
        calls: the calls of the run.
        counts: how many calls there were before, in a part of the forward that runs a second time.
        origin: the policy before it was settled for a format.
    """

    inner: Policy
    origin: Policy
    calls: Calls
    counts: Counts

    def __init__(
        self, inner: Policy, calls: Calls, counts: Counts | None = None, origin: Policy | None = None
    ) -> None:
        held: dict[str, Any] = {each.name: getattr(inner, each.name) for each in fields(Policy)}
        rules = _Rules(inner.rules, self)
        held |= {"inner": inner, "calls": calls, "counts": counts or {}, "rules": rules}
        held["origin"] = origin or inner
        for name, value in held.items():
            object.__setattr__(self, name, value)

    def rule(self, op: Op) -> CastClass:
        """Return the class of the call that is being made."""
        kind = self.inner.rule(op)
        return kind if op.name == "cast" else self.calls.ruled(op.name, kind, self)

    def in_format(self, low: Format) -> Forced:
        """Return the policy in a format, at the call that the run has come to.

        A region is made again for what runs a second time (:func:`minimp.rerun.recompute`): the calls of the
        second run are those of the first.
        """
        now = self.counts if MODES.get().recomputing else self.calls.counts
        return Forced(self.inner.in_format(low), self.calls, dict(now), self.origin)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy as the policy that it was."""
        return self.inner.__reduce__()


class _Rules(Mapping[str, CastClass]):
    """The rules as a mapping; `get` is how functions ask that are several ops here and one in PyTorch."""

    def __init__(self, rules: Mapping[str, CastClass], policy: Forced) -> None:
        self._rules, self._policy = rules, policy

    def get(self, op: str, default: Any = None) -> Any:
        """Return the class of the call that is being made."""
        kind = self._rules.get(op, default)
        return self._policy.calls.ruled(op, kind, self._policy, whole=True) if op in self._rules else kind

    def __getitem__(self, op: str) -> CastClass:
        return self._rules[op]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)


def force(region: Region, calls: Calls, policy: Policy | None, low: Format | None) -> None:
    """Change a region that is being made: its policy and format if others are given, and what is forced."""
    if isinstance(region.policy, Forced):  # made again from one that was changed
        return
    calls.blurred |= MODES.get().recomputing
    if low is not None:
        region.format = low
    region.policy = Forced(policy or region.policy, calls)
