"""Precision blame: which ops, and which calls of them, must compute in FP32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

from minimp import formats
from minimp.bisecting.blame import Blame, Instance, edited
from minimp.bisecting.comparing import Agreement, judge_of
from minimp.bisecting.delta import ddmin, smaller, thin
from minimp.bisecting.forcing import Call, Calls, Choice, Site
from minimp.bisecting.trials import Budget, OutOfBudget, Progress, Trials
from minimp.door import OPS
from minimp.errors import FormatError, SettingError
from minimp.policy import CastClass, Policy, autocast, policies

__all__ = ["bisect"]

LEAST_RUNS = 4
"""FP32 twice, mixed, and mixed with everything in FP32."""
MOST_SMALLER = 100
"""How many sets are tried at most in search of one that is smaller than a minimal one."""
MOST_CALLS = 48
"""From more calls than that, those of one op from one line are not told apart."""
SUSPICION = {CastClass.FP32: 0, CastClass.SET_FP32: 0, CastClass.BANNED: 0, CastClass.LOWER: 2}
"""By what an op declares: those that should not be in 16 bits come first, products last. A set of products
makes everything after them FP32 too, which is no answer where there is another."""
T = TypeVar("T")


def bisect(
    run: Callable[[], Any], *, policy: str | Policy | None = None, dtype: Any = None, agree: Any = None,
    budget: int | None = 200, seconds: float | None = None, instances: bool = True,
    state: Iterable[Any] = (), progress: Callable[[Progress], object] | None = None,
) -> Blame:  # fmt: skip
    """Find a minimal set of ops that must compute in FP32 for a mixed run to agree with one in FP32.

    >>> import minimp as mp
    >>> from minimp.bisecting import bisect
    >>> x = mp.tensor([[4.0, 2.0], [1.0, 2.0]])
    >>> def run():
    ...     return (x @ x).exp().log().mean()
    >>> blame = bisect(run, policy=mp.policies["torch-cuda"].with_(exp="lower"))
    >>> blame.ops
    ('exp',)

    `run` is run in FP32 (autocast off) twice, then mixed. If these agree, that is the answer. Else the ops
    that computed in 16 bits are searched by delta debugging (:func:`minimp.bisecting.ddmin`), then the calls
    of those that were found. The set is minimal: without any one of its elements the runs disagree. Then all
    smaller sets are tried, as far as there are few enough, so that the set is the smallest: `smallest` tells.

    **What "must compute in FP32" means.** The inputs of the op are cast to float32, it computes in float32,
    and its result stays float32 until an op that the policy lists for the low format casts it down; its
    gradient is computed in float32 too. What its inputs lost before, in an op that ran in 16 bits, it does
    not bring back: an op that was given rounded numbers is not to blame, and forcing it does not help. And a
    result that the next op casts down again may be lost there: then both are needed, and both are named.

    What the code changes is put back after each run: what is reached from `run`, and `state`
    (:class:`minimp.bisecting.Memento` says how far that goes). Each run begins with the same state, that of
    the random generators included.

    Args:
        run: the code, without arguments: forward and loss, or a whole training step. It returns what is
            compared: a tensor, array or number, or a dict, list or tuple of them. If it opens autocast
            regions (a :class:`minimp.TrainStep` does), the ops in them are searched, else a region is put
            around it. What runs in FP8, in a cast written by hand, or outside of a region is as it is in all
            runs. What it prints is shown of the first run only.
        policy: the rules of the regions, a name in `mp.policies` or a Policy. None: those that the regions
            have; of the one around the code "torch-cuda".
        dtype: the low format. None: that of the regions; of the one around the code as autocast's.
        agree: a bound on max |y - r| / max |r| for each array y and its r from FP32, an inner dict or list as
            one array (see :class:`Agreement`); "finite": every number is finite; or a function
            `agree(reference, candidate)` of what `run` returned, tensors as arrays, that tells. None: 32
            roundings of the low format, 2^-6 for float16 and 2^-3 for bfloat16.
        budget: the most runs. None: no end.
        seconds: no run is begun after so many seconds.
        instances: whether to look for the calls.
        state: objects whose state is put back too, where `run` does not lead to them.
        progress: called with a :class:`Progress` after each run.

    Raises:
        KeyboardInterrupt: as it came; its attribute `blame` is what was found so far, or None.
        SettingError: `run` raises in FP32, or returns nothing comparable; two runs in FP32 differ; the runs
            disagree with every op in FP32 too; or the budget ends before there is an answer.
    """
    low = None if dtype is None else formats.get(dtype)
    if low is not None and low not in (formats.float16, formats.bfloat16):
        raise FormatError(f"dtype must be float16 or bfloat16, got {low.name}", op="bisect")
    _check_settings(run, budget, seconds, state, progress)
    given = policies[policy] if isinstance(policy, str) else policy
    trials: Trials

    def low_format() -> formats.Format:
        own = trials.own_region
        return low or (own.format if own is not None else formats.get(_usual(given)))

    trials = Trials(run, state, given, low, judge_of(agree, low_format), Budget(budget, seconds))
    search = _Search(trials, progress)
    try:
        search.look_at_both()
        if not search.before:
            search.find_ops()
            if instances:
                search.find_calls()
    except OutOfBudget:
        search.refuse_without_answer()
    except KeyboardInterrupt as stop:
        vars(stop)["blame"] = None if search.best is None else search.blame(low_format().name)
        raise
    finally:
        trials.memento.restore()
    return search.blame(low_format().name)


def _check_settings(run: Any, budget: Any, seconds: Any, state: Any, progress: Any) -> None:
    """Raise a SettingError for what cannot be."""
    whole = hasattr(budget, "__index__") and not isinstance(budget, bool)
    number = isinstance(seconds, float | int) and not isinstance(seconds, bool)
    for name, given, fits, expected in (
        ("run", run, callable(run), "a function without arguments"),
        (
            "budget",
            budget,
            budget is None or (whole and budget >= LEAST_RUNS),
            f"a whole number of at least {LEAST_RUNS} runs",
        ),
        ("seconds", seconds, seconds is None or (number and seconds >= 0), "a number of at least 0, or None"),
        ("state", state, isinstance(state, Iterable), "a list of objects"),
        ("progress", progress, progress is None or callable(progress), "a function of a Progress"),
    ):
        if not fits:
            raise SettingError(f"{name}: expected {expected}, got {given!r}", op="bisect")


def _usual(policy: Policy | None) -> str:
    """Return the low format of the region that is put around code that opens none."""
    return autocast(None, policy=policy or "torch-cuda").format.name


@dataclass
class _Search:
    """The search as it stands.

    Attributes:
        best: the least choice of ops with which a run has agreed; None before there is one.
        fewest: the same of calls.
    """

    trials: Trials
    progress: Callable[[Progress], object] | None
    before: Agreement = field(default_factory=lambda: Agreement(False, float("inf")))
    noise: float = 0.0
    sites: list[Site] = field(default_factory=list)
    best: tuple[str, ...] | None = None
    fewest: tuple[Call, ...] | None = None
    blurred: bool = False
    minimal: bool = False
    smallest: bool = False
    note: str = ""

    def look_at_both(self) -> None:
        """Run in FP32 twice, and mixed."""
        found = self.trials.run_reference()
        self._tell("FP32", 0, found, None)
        if not found:
            raise _unsteady(found)
        self.noise = found.error
        self.before, calls = self.trials.locate(Choice())
        self._note(calls)
        self.minimal = bool(self.before)
        self._tell("mixed", 0, self.before, None)

    def find_ops(self) -> None:
        """Find the ops, once all of them together are seen to be enough."""
        known: tuple[str, ...] = ()
        while (names := tuple(sorted(self.candidates(), key=_suspicion))) != known:
            known = names
            found, calls = self.trials.locate(Choice(ops=frozenset(names)))
            self._tell("ops", len(names), found, len(names) if found else None)
            if found:
                break
            self._note(calls)
        else:
            raise _hopeless(self.trials.attempt(Choice(ops=frozenset(known))), known)
        self.best = known

        def enough(part: tuple[str, ...]) -> bool:
            found = self.trials.attempt(Choice(ops=frozenset(part)))
            if found and self.best is not None and len(part) < len(self.best):
                self.best = part
            self._tell("ops", len(part), found, len(self.best or ()))
            return bool(found)

        self.best = next(((op,) for op in known if enough((op,))), None) or ddmin(known, enough)
        self.minimal = True
        self.best, self.smallest = smaller(known, self.best, enough, MOST_SMALLER)

    def find_calls(self) -> None:
        """Find the calls of the ops that were found."""
        assert self.best is not None
        lows = [site.call for site in self.sites if site.low is not False]
        wanted = tuple(call for call in lows if call[0] in self.best)
        self.minimal = False
        everything = self.trials.attempt(Choice(calls=frozenset(wanted)))
        self._tell("calls", len(wanted), everything, None)
        if self.blurred or not everything:
            self.minimal = True
            self.note = (
                "The calls cannot be told apart: with some of them in FP32, the code makes other calls "
                "(a region that is opened inside of what is recomputed, or a choice that hangs on numbers)."
            )
            return
        self.fewest = wanted

        def enough(part: tuple[Call, ...]) -> bool:
            found = self.trials.attempt(Choice(calls=frozenset(part)))
            if found and self.fewest is not None and len(part) < len(self.fewest):
                self.fewest = part
            self._tell("calls", len(part), found, len(self.fewest or ()))
            return bool(found)

        places = self._places(wanted)
        if len(places) < len(wanted):  # a loop's calls from one line go together, at first
            kept = ddmin(places, lambda part: enough(tuple(chain.from_iterable(part))))
            wanted = tuple(sorted(chain.from_iterable(kept), key=wanted.index))
        if len(wanted) > MOST_CALLS:
            self.fewest, self.minimal = wanted, True
            self.note = "So many calls from one line were taken together: fewer of them may be enough."
            return
        self.fewest = thin(wanted, enough)
        self.minimal = True
        self.fewest, _ = smaller(wanted, self.fewest, enough, min(len(wanted), MOST_SMALLER))

    def _places(self, calls: tuple[Call, ...]) -> tuple[tuple[Call, ...], ...]:
        """Return the calls, those of one op in one module from one line together."""
        together: dict[tuple[str, str, str], list[Call]] = {}
        for site in self.sites:
            if site.call in calls:
                together.setdefault((site.call[0], site.module, site.source), []).append(site.call)
        return tuple(map(tuple, together.values()))

    def candidates(self) -> dict[str, int]:
        """Return op -> calls, of the ops that computed in 16 bits and that a policy can rule."""
        lows = [site for site in self.sites if site.low is not False and _editable(site)]
        return dict(Counter(site.call[0] for site in lows))

    def refuse_without_answer(self) -> None:
        """Raise where the budget ended before a run has agreed."""
        if self.best is None:
            raise SettingError(
                f"the budget ended after {self.trials.budget.used} runs, before any mixed run had agreed",
                op="bisect", help="give it more runs, or more seconds",
            )  # fmt: skip

    def blame(self, dtype: str) -> Blame:
        """Return what was found."""
        ops, calls = self.best or (), self.fewest or ()
        after = self.trials.attempt(Choice(ops=frozenset(ops))) if ops else self.before
        original = next((site.policy for site in self.sites if site.call[0] in ops), None)
        if original is None:
            own = self.trials.own_region
            original = self.trials.policy or (own.policy if own else policies["torch-cuda"])
        totals = Counter(site.call[0] for site in self.sites)
        places = {site.call: site for site in self.sites}
        made = [places[each] for each in calls]
        return Blame(
            ops,
            tuple(Instance(x.call[0], x.module, x.source, x.call[1], totals[x.call[0]]) for x in made),
            self.trials.budget.used, self.trials.budget.elapsed, self.before, after, self.minimal,
            self.smallest or not ops, original, edited(original, ops, OPS), dtype, self.candidates(),
            self.noise, self.note,
        )  # fmt: skip

    def _note(self, calls: Calls) -> None:
        """Take over where calls are made; of what is known, what was seen in 16 bits stays so."""
        self.blurred |= calls.blurred
        known = {site.call: site for site in self.sites}
        for site in calls.sites:
            if site.call not in known or known[site.call].low is False:
                known[site.call] = site
        self.sites = list(known.values())

    def _tell(self, phase: str, tried: int, found: Agreement, kept: int | None) -> None:
        if self.progress is not None:
            self.progress(Progress(phase, self.trials.budget.used, tried, found, kept))


def _suspicion(name: str) -> int:
    return SUSPICION.get(OPS[name].cast, 1) if name in OPS else 1


def _editable(site: Site) -> bool:
    name, policy = site.call[0], site.policy
    return name not in policy.lacking and (name in policy or name in OPS)


def _unsteady(found: Agreement) -> SettingError:
    if found.error == 0.0 or found.words:
        return SettingError(
            f"the run in FP32 does not agree with itself: {found}", op="bisect",
            help="it must pass the test that mixed runs are held to",
        )  # fmt: skip
    return SettingError(
        f"two runs in FP32 do not agree: {found}", op="bisect",
        help="make it deterministic: take random numbers from minimp, NumPy or Python's random, "
        "with a seed where a generator is made, and no data "
        "from an iterator that goes on; name in state= what it changes",
    )  # fmt: skip


def _hopeless(found: Agreement, ops: tuple[str, ...]) -> SettingError:
    if not ops:
        return SettingError(
            f"the runs disagree ({found}), and no op computed in 16 bits in an autocast region", op="bisect",
            help="a mixed run differs from FP32 by the regions alone: is_autocast_enabled() in the code?",
        )  # fmt: skip
    return SettingError(
        f"the runs disagree with all of {len(ops)} ops in FP32 too: {found}", op="bisect",
        help="look for what no policy rules: a cast by hand, parameters in 16 bits, dtype= of an op, FP8; or "
        "allow a larger difference",
    )  # fmt: skip
