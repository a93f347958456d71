"""Running the user's code again and again, each time from the same state and with another choice in FP32."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from math import inf
from time import monotonic
from typing import Any

from minimp.bisecting.comparing import Agreement, IncomparableError, Judge, Numbers, numbers_of
from minimp.bisecting.forcing import Calls, Choice, force
from minimp.bisecting.memento import Memento
from minimp.errors import SettingError
from minimp.formats import Format
from minimp.modes import listen, setting
from minimp.policy import Policy, Region, autocast
from minimp.policy.region import in_region
from minimp.trace.sites import Modules, ModuleStack, hook_modules, user_line

__all__ = ["Budget", "OutOfBudget", "Progress", "Trials"]


class OutOfBudget(Exception):  # noqa: N818 - it ends a search that has an answer; nothing is wrong
    """The runs or the seconds are used up."""


@dataclass(slots=True)
class Budget:
    """How many runs there may be, and for how long.

    Attributes:
        runs, seconds: the most; None: no end.
        used: runs so far.
    """

    runs: int | None
    seconds: float | None
    used: int = 0
    began: float = field(default_factory=monotonic)

    def spend(self) -> None:
        """Take one run.

        Raises:
            OutOfBudget: there is none left, or no time.
        """
        late = self.seconds is not None and self.elapsed >= self.seconds
        if late or (self.runs is not None and self.used >= self.runs):
            raise OutOfBudget
        self.used += 1

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return monotonic() - self.began


@dataclass(frozen=True, slots=True)
class Progress:
    """What is told after each run.

    Attributes:
        phase: "FP32", "mixed", "ops" or "calls".
        runs: how many there have been.
        tried: how many ops or calls computed in FP32, of those that are searched.
        agreement: how the run compares with FP32.
        kept: the least number with which a run has agreed in this phase; None: with none yet.
    """

    phase: str
    runs: int
    tried: int
    agreement: Agreement
    kept: int | None


class Trials:
    """Runs the user's code, and compares what it returns.

    Args:
        run: the user's code.
        state: objects whose state is put back before each run, beside what is reached from `run`.
        policy, low: what regions are given in place of their own; None: they keep theirs. Where the code
            opens no region, the one around it has them.
        judge: when two runs agree.
        budget: of runs.
    """

    def __init__(
        self, run: Callable[[], Any], state: Iterable[Any], policy: Policy | None, low: Format | None,
        judge: Judge, budget: Budget,
    ) -> None:  # fmt: skip
        self.run, self.policy, self.low, self.judge, self.budget = run, policy, low, judge, budget
        self.memento = Memento([run, *state])
        self.own_region: Region | None = None
        self.reference: Any = None
        self.numbers: Numbers = {}
        self._tried: dict[Choice, Agreement] = {}

    # ---- in FP32 ----------------------------------------------------------------------------------------

    def run_reference(self) -> Agreement:
        """Run with autocast off, twice; return how the two compare.

        Raises:
            SettingError: the code raises, or returns nothing that can be compared.
            OutOfBudget: there are fewer than two runs.
        """
        self.reference, self.numbers = self._in_fp32(quiet=False)
        again, numbers = self._in_fp32()
        return self.judge(self.reference, self.numbers, again, numbers)

    def _in_fp32(self, *, quiet: bool = True) -> tuple[Any, Numbers]:
        def switch_off(region: Region) -> None:
            if region.enabled and self.own_region is None:
                self.own_region = region
            region.enabled = False

        self.budget.spend()
        try:
            return self._carry_out(switch_off, None, quiet=quiet)
        except IncomparableError:
            raise
        except Exception as fault:
            raise SettingError(
                f"run() raises without autocast: {type(fault).__name__}: {_first_line(fault)}", op="bisect",
                help="it must run in FP32: that is what a mixed run is compared with",
            ) from fault  # fmt: skip

    # ---- mixed ------------------------------------------------------------------------------------------

    def attempt(self, choice: Choice) -> Agreement:
        """Run mixed, with a choice in FP32; what was tried before is not run again.

        Raises:
            OutOfBudget: it is used up.
        """
        if choice not in self._tried:
            self._tried[choice] = self._compare(Calls(choice))
        return self._tried[choice]

    def locate(self, choice: Choice) -> tuple[Agreement, Calls]:
        """Run mixed, with a choice in FP32, and note where each call is made.

        Raises:
            OutOfBudget: it is used up.
        """
        stack = ModuleStack(Modules(), _ignore, _ignore)
        calls = Calls(choice, lambda: (stack.path, user_line()))
        end = hook_modules(stack.push, stack.pop)
        try:
            with listen(calls.hear):
                self._tried[choice] = found = self._compare(calls)
        finally:
            end()
        return found, calls

    def _compare(self, calls: Calls) -> Agreement:
        self.budget.spend()
        around = autocast(self.low, policy=self.policy or "torch-cuda") if self.own_region is None else None
        try:
            on_region = partial(force, calls=calls, policy=self.policy, low=self.low)
            held, numbers = self._carry_out(on_region, around)
        except Exception as fault:  # noqa: BLE001 - what raises here and not in FP32 does not agree with it
            return Agreement(False, inf, "", f"it raises {type(fault).__name__}: {_first_line(fault)}")
        return self.judge(self.reference, self.numbers, held, numbers)

    def _carry_out(
        self, on_region: Callable[[Region], None], around: Any, *, quiet: bool = True
    ) -> tuple[Any, Numbers]:
        """Run the code; take what it returned, before the state is put back to which that may belong."""
        with ExitStack() as stack:
            stack.callback(self.memento.restore)
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            stack.enter_context(redirect_stdout(io.StringIO()) if quiet else nullcontext())
            stack.enter_context(in_region(None))
            stack.enter_context(setting(on_region=on_region))
            stack.enter_context(around or nullcontext())
            return numbers_of(self.run())


def _ignore(_: str) -> None:
    return None


def _first_line(fault: BaseException) -> str:
    return (str(fault).splitlines() or [""])[0]
