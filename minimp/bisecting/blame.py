"""What a search has found, as figures, as a policy, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from minimp.bisecting.comparing import Agreement
from minimp.policy import Policy, policies

__all__ = ["Blame", "Instance"]

WIDTH = 100
MOST_SHOWN = 12
MOST_NUMBERS = 6


@dataclass(frozen=True, slots=True)
class Instance:
    """One call of an op.

    Attributes:
        op: its name.
        module: the path of the innermost module that was running; "" outside of all.
        source: the user's line, "file.py:12".
        call: which of the run's calls of that op it is, from 1.
        calls: how many the run makes.
    """

    op: str
    module: str
    source: str
    call: int
    calls: int

    @property
    def place(self) -> str:
        """The module and the line in words."""
        return ", ".join(filter(None, (self.module and f"module {self.module}", self.source)))

    def __str__(self) -> str:
        return _line([self])


@dataclass(frozen=True)
class Blame:
    """What must compute in FP32 for a mixed run to agree with one in FP32.

    It is true where nothing must: the runs agree as they are.

    Attributes:
        ops: the ops; () where the runs agree.
        instances: the calls of them that are enough; () where these were not looked for, or not told apart.
        runs: how often the code was run.
        seconds: how long that took.
        before, after: how the mixed run compares with FP32 as it is, and with `ops` in FP32.
        minimal: whether the search came to its end: without any one of `ops` the runs disagree, and with
            `instances` alone, without any one of them (unless `note` says that they were taken together).
            False where the budget ended first: they are then the least that was found.
        smallest: whether every set of fewer ops was tried, and disagrees.
        original: the policy as it was.
        policy: the policy with `ops` in FP32.
        dtype: the low format.
        candidates: op -> calls that computed in 16 bits.
        noise: by how much two runs in FP32 differ.
        note: what else there is to know.
    """

    ops: tuple[str, ...]
    instances: tuple[Instance, ...]
    runs: int
    seconds: float
    before: Agreement
    after: Agreement
    minimal: bool
    smallest: bool
    original: Policy
    policy: Policy
    dtype: str
    candidates: Mapping[str, int]
    noise: float = 0.0
    note: str = ""

    def __bool__(self) -> bool:
        return not self.ops

    @property
    def code(self) -> str:
        """The edit of the policy as code; "" where there is none.

        >>> from minimp.bisecting import bisect
        >>> import minimp as mp
        >>> x = mp.tensor([300.0, 400.0])
        >>> blame = bisect(lambda: x @ x)
        >>> print(blame.code)
        policy = mp.policies["torch-cuda"].with_(matmul="fp32")
        """
        return self._code(WIDTH - 4) if self.ops else ""

    def _code(self, width: int) -> str:
        known = self.original.name in policies and policies[self.original.name] == self.original
        start = f'policy = mp.policies["{self.original.name}"].with_(' if known else "policy = policy.with_("
        edits = [f'{op}="fp32"' if op.isidentifier() else f'**{{"{op}": "fp32"}}' for op in self._named]
        own = ", ".join(f'{op}: "fp32"' for op in self.ops if op not in self.original)
        edits = [f"{{{own}}}", *edits] if own else edits
        line = f"{start}{', '.join(edits)})"
        return line if len(line) <= width else "\n".join([start, *(f"    {x}," for x in edits), ")"])

    @property
    def _named(self) -> list[str]:
        return [op for op in self.ops if op in self.original]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data for JSON; the policies as their names and the edit."""
        return {
            "agrees": bool(self), "ops": list(self.ops),
            "instances": [
                {name: getattr(each, name) for name in Instance.__slots__} for each in self.instances
            ],
            "minimal": self.minimal, "smallest": self.smallest, "code": self.code,
            "policy": self.original.name, "dtype": self.dtype,
            "before": _plain(self.before), "after": _plain(self.after), "runs": self.runs,
            "seconds": self.seconds, "candidates": dict(self.candidates), "noise": self.noise,
            "note": self.note,
        }  # fmt: skip

    def __str__(self) -> str:
        """Say what was found, within 100 columns."""
        return self.text()

    def text(self, width: int = WIDTH) -> str:
        """Say what was found, in lines of so many columns; code stays one edit to a line."""
        lines = [f"{self.dtype} by the rules of {self.original.name}, beside FP32: {self.before}."]
        if not self.ops:
            lines += [self._agreeing()]
        else:
            given = f'mp.autocast("{self.dtype}", policy=policy), or as the policy of a Recipe'
            code = [f"    {each}" for each in self._code(width - 4).split("\n")]
            lines += [self._found(), "", *code, ""]
            lines += [f"With it, given to {given}: {self.after}.", *self._calls()]
        if self.noise:
            lines += [f"Two runs in FP32 differ as well, by {self.noise:.2g}."]
        lines += [self.note] if self.note else []
        ended = "" if self.minimal else " The search was ended early: less may be enough."
        lines += [f"{self._effort()}.{ended}"]
        return "\n".join(each for line in lines for each in _wrapped(line, width))

    def _agreeing(self) -> str:
        if not self.candidates:
            return "They agree, but no op computed in 16 bits in an autocast region: nothing was tested."
        return f"They agree: none of the {len(self.candidates)} ops that compute in 16 bits must run in FP32."

    def _found(self) -> str:
        count = len(self.ops)
        total = len(self.candidates)
        if total == 1:
            return f"The only op that computes in 16 bits must run in FP32: {self.ops[0]}."
        which = {total: "Both" if total == 2 else f"All {total}"}.get(count, f"{count} of the {total}")
        what = f"{which} ops that compute in 16 bits must run in FP32"
        proved = ""
        if count > 1 and self.minimal:
            proved = " Without any one of them the runs disagree again"
            proved += ", and no smaller set will do." if self.smallest else "."
        return f"{what}: {', '.join(self.ops)}.{proved}"

    def _calls(self) -> list[str]:
        if not self.instances:
            return []
        all_calls = sum(self.candidates.get(op, 0) for op in self.ops)
        count = len(self.instances)
        if count == all_calls:
            head = "It is the only call:" if count == 1 else f"Each of the {count} calls is needed:"
        else:
            head = (
                f"{count} of {all_calls} calls would be enough. To spare the others, leave the policy as it "
                "is and compute them from .float() inputs inside `with mp.autocast(enabled=False):`"
            )
        places: dict[tuple[str, str], list[Instance]] = {}
        for each in self.instances:
            places.setdefault((each.op, each.place), []).append(each)
        shown = [_line(group) for group in places.values()]
        lines = ["", head, *(f"  {line}" for line in shown[:MOST_SHOWN])]
        rest = sum(map(len, [*places.values()][MOST_SHOWN:]))
        return [*lines, *([f"  and {rest} more"] if rest > 0 else [])]

    def _effort(self) -> str:
        return f"{self.runs} runs in {self.seconds:.1f} s"


def _line(group: Sequence[Instance]) -> str:
    """Return calls of one op at one place in one line."""
    first = group[0]
    numbers = [str(each.call) for each in group[:MOST_NUMBERS]]
    numbers += ["..."] if len(group) > MOST_NUMBERS else []
    word = "calls" if len(group) > 1 else "call"
    text = f"{first.op}, {word} {', '.join(numbers)} of {first.calls}"
    return f"{text}: {first.place}" if first.place else text


def edited(policy: Policy, ops: Sequence[str], own: Mapping[str, Any]) -> Policy:
    """Return the policy with some ops in FP32; `own` has those that it does not name."""
    return policy.with_({op if op in policy else own[op]: "fp32" for op in ops}) if ops else policy


def _plain(found: Agreement) -> dict[str, Any]:
    return {name: getattr(found, name) for name in Agreement.__slots__}


def _wrapped(line: str, width: int) -> list[str]:
    """Return a line in lines that fit: code as it is, a call with the rest of it further in."""
    if line.startswith("    ") or not line:
        return [line]
    further = "      " if line.startswith("  ") else ""
    return wrap(line, width, break_on_hyphens=False, subsequent_indent=further)
