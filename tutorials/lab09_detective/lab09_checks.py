"""Checks of lab 09; oracles: faults planted here by hand, in other layers, steps and rows than those of the lab."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import minimp as mp
from minimp.labs import exercise

F, nn = mp.functional, mp.nn


def _network(*, seed: int = 0, grown: int | None = None, by: float = 1.0) -> Any:
    """Return linear layers 0, 2 and 4 with ReLU between them; the weights of one are multiplied."""
    mp.manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    if grown is not None:
        model[grown].weight.array = model[grown].weight.array * np.float32(by)
    return model


def _step(model: Any, recipe: str, loss: Any = F.cross_entropy, lr: float = 0.01) -> mp.TrainStep:
    given = [each for each in model.parameters() if each.requires_grad]
    return mp.TrainStep(model, loss, mp.optim.SGD(given, lr=lr), recipe)


def _batch(seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    return random.standard_normal((8, 12)).astype(np.float32), random.integers(0, 4, 8)


def _traced(step: mp.TrainStep, *batches: Any, **options: Any) -> Any:
    """Return the trace of one training step for each batch."""
    with _quiet(), mp.trace.record(**options) as trace:
        for batch in batches:
            step(*batch)
    return trace


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


# ---- part 1 -------------------------------------------------------------------------------------------------


def _root_of_nothing(made: Any, _: Any) -> Any:
    return (made * 0.0).sqrt().sum()


@exercise("1a", hints=(
    "trace.first_nonfinite() is None, or has an `event`",
    "an event's `title` is the op with its phase, which `op` alone does not tell",
))  # fmt: skip
def check_1a(lab: Any) -> None:
    """An infinity in a layer, before the NaN of the next; one in the third step; a root at 0 in backward; none."""
    x, y = _batch()
    cases = (
        ("everything is finite", _traced(_step(_network(), "fp32"), (x, y)), None),
        (
            "layer 2 overflows",
            _traced(_step(_network(grown=2, by=1.5e5), "mixed-fp16"), (x, y)),
            ("linear", "2", 1),
        ),
        (
            "the inputs of step 3 are huge",
            _traced(_step(_network(), "mixed-fp16"), (x, y), (x, y), (6e4 * np.sign(x), y), (x, y)),
            ("linear", "0", 3),
        ),
        (
            "the loss has a root at 0",
            _traced(_step(_network(), "fp32", _root_of_nothing), (x, y)),
            ("sqrt backward", "", 1),
        ),
    )
    for name, trace, want in cases:
        made = lab.first_bad(trace)
        got = None if made is None else tuple(made)
        assert got == want, (
            f"first_bad, where {name}: expected {want}, got {got}; {_hint_1a(trace, want, got)}"
        )


def _hint_1a(trace: Any, want: Any, got: Any) -> str:
    if want is None or got is None:
        return "None is for a trace in which everything is finite"
    event = next((e for e in trace.events if (e.title, e.module, e.step) == got), None)
    if got[0] != want[0] and got[0] == want[0].split()[0]:
        return "the title says whether it was forward or backward, the op alone does not"
    if event is not None and event.number < trace.first_nonfinite().event.number:
        return "that came before: its results are large, but finite"
    return "that is what became of it: an infinity came before, and is not finite either"


# ---- part 2 -------------------------------------------------------------------------------------------------


class _Planted(nn.Module):
    """A linear layer of positive weights, and then what breaks on rows of zeros."""

    def __init__(self, after: Callable[[Any], Any]) -> None:
        super().__init__()
        mp.manual_seed(1)
        self.layer = nn.Linear(6, 5, bias=False)
        self.layer.weight.array = np.abs(self.layer.weight.array)
        self.after = after

    def forward(self, x: Any) -> Any:
        """Return (N,) or (N, 5)."""
        return self.after(self.layer(x))


def _rooted(made: Any) -> Any:
    return (made * made).sum(dim=1).sqrt()


def _logged(made: Any) -> Any:
    return made.log()


def _total(made: Any, _: Any) -> Any:
    return (made * made).mean()


@exercise("2a", points=2, hints=(
    "with mp.trace.break_when('nonfinite'): ... inside of try: ... except mp.errors.BreakpointError as stop:",
    "stop.event.step, stop.event.title; stop.trace.values(stop.event)['out0'] has the batch as its first axis",
    "np.isfinite(made).reshape(len(made), -1).all(axis=1) tells of each row whether all of it is finite",
))  # fmt: skip
def check_2a(lab: Any) -> None:
    """Rows of zeros planted in some steps, before a root (backward breaks) and a logarithm (forward does)."""
    for after, title, number, rows in (
        (_rooted, "sqrt backward", 4, [2, 5]),
        (_logged, "log", 3, [0, 6, 7]),
        (_rooted, "sqrt backward", 1, [3]),
        (_logged, None, 0, []),
    ):
        batches = [np.random.default_rng(each).uniform(1, 2, (8, 6)).astype(np.float32) for each in range(6)]
        if title:
            batches[number - 1][rows] = 0.0
        model = _Planted(after)
        with _quiet():
            got = lab.caught(_step(model, "fp32", _total, lr=1e-3), [(x, np.zeros(8)) for x in batches])
        want = (number, title, rows) if title else None
        case = f"where {title} breaks in rows {rows} of step {number}" if title else "where nothing breaks"
        if want is None or got is None:
            assert got == want, (
                f"caught, {case}: expected {want}, got {got}; None is for trainings without a fault"
            )
            continue
        got = (got[0], got[1], [int(row) for row in np.ravel(got[2])])
        assert got == want, f"caught, {case}: expected {want}, got {got}; {_hint_2a(want, got)}"
        kept = bool(np.isfinite(model.layer.weight.detach().numpy()).all())
        assert kept, (
            f"caught, {case}: expected weights as before the bad step, got NaN; stop in backward, before the update: "
            "break_when raises there"
        )


def _hint_2a(want: Any, got: Any) -> str:
    if got[1] != want[1]:
        return "the event's title tells the phase too, and the first event is asked for"
    if got[0] != want[0]:
        return (
            "each block of break_when counts from 1 anew: one block around all batches" if got[0] == 1
            else "the number of the step is the event's, and counts from 1"
        )  # fmt: skip
    return "the rows whose results are infinite or NaN: not finite means both"


@exercise(
    "2b", hints=("the slope of the root at 0 is infinite: keep the sum away from 0, *before* the root",)
)
def check_2b(lab: Any) -> None:
    """NumPy's norm of the difference, and finite gradients where rows are equal."""
    random = np.random.default_rng(3)
    ours, others = random.standard_normal((2, 6, 4)).astype(np.float32)
    others[2] = ours[2]
    others[4] = ours[4] + np.float32(0.03)  # a distance of 0.06
    a, b = (mp.tensor(each, requires_grad=True) for each in (ours, others))
    with _quiet():
        made = lab.safe_distance(a, b)
        (made * made).sum().backward()
    want, got = np.linalg.norm(ours - others, axis=1), np.asarray(made.detach().numpy())
    far = want > 0.05
    close = (
        got.shape == want.shape and np.allclose(got[far], want[far], rtol=1e-3, atol=0) and abs(got[2]) < 0.05
    )
    assert close, (
        f"safe_distance: expected {want.round(4)}, got {got.round(4)}; what keeps the sum from 0 must be small "
        "against the squares of the distances"
    )
    for name, each in (("a", a), ("b", b)):
        gradient = np.asarray(each.grad)
        assert np.isfinite(gradient).all(), (
            f"safe_distance of two equal rows: expected a finite gradient of {name}, got {gradient[2]}; the root "
            "of 0 is still taken, and backward goes through it: 0 times infinity, even where the result is thrown away"
        )


# ---- part 3 -------------------------------------------------------------------------------------------------


class _Still(nn.Module):
    """A gain, a stem that is frozen, a head, and a layer that counts for nothing, under names of the caller's."""

    def __init__(self, gain: str, stem: str, head: str, mute: str) -> None:
        super().__init__()
        mp.manual_seed(2)
        setattr(self, gain, nn.Parameter(np.ones(12, np.float32)))
        setattr(self, stem, nn.Linear(12, 16).requires_grad_(False))
        setattr(self, head, nn.Linear(16, 4))
        setattr(self, mute, nn.Linear(16, 4))
        self._names = gain, stem, head, mute

    def forward(self, x: Any) -> Any:
        """Return the scores."""
        gain, stem, head, mute = (getattr(self, name) for name in self._names)
        found = F.relu(stem(x * gain))
        return head(found) + 0.0 * mute(found)


def _words(step: mp.TrainStep, batch: Any) -> tuple[Any, dict[str, str]]:
    """Return a trace of a step, and by which word each parameter stands still: read off the weights themselves."""
    named = dict(step.model.named_parameters())
    before = {name: np.array(p.array, np.float64) for name, p in named.items()}
    trace, words = _traced(step, batch), {}
    for name, p in named.items():
        gradient = None if p.grad is None else p.grad.numpy().astype(np.float64)
        if gradient is None or not gradient.any():
            words[name] = "no gradient" if gradient is None else "zero gradient"
            continue
        moved = np.count_nonzero(np.array(p.array, np.float64) != before[name])
        words[name] = "swallowed" if moved < 0.1 * np.count_nonzero(gradient) else "moves"
    return trace, words


@exercise("3a", points=2, hints=(
    "rows = {row['parameter']: row for row in trace.swallowed()}",
    "ask in this order: has it a row? is 'non-zero' 0? is 'share' above 0.9?",
))  # fmt: skip
def check_3a(lab: Any) -> None:
    """Parameters that stand still for planted reasons; what moved is read off the weights before and after."""
    x, y = _batch()
    x[:, :7] = 0.0  # seven of twelve elements of the gain have no gradient
    for names in (("gain", "stem", "head", "mute"), ("scale", "a", "b", "c")):
        for recipe, lr in (("fp16", 0.02), ("bf16", 0.02), ("fp32", 0.02)):
            trace, want = _words(_step(_Still(*names), recipe, lr=lr), (x, y))
            got = dict(lab.why_still(trace, list(want)))
            wrong = [name for name in want if got.get(name) != want[name]] + [
                name for name in got if name not in want
            ]
            assert not wrong, (
                f"why_still, {wrong[0]} ({recipe}): expected {want.get(wrong[0])!r}, got {got.get(wrong[0])!r}; "
                f"{HINTS_3A.get(want.get(wrong[0], ''), 'only the names that were given')}"
            )


HINTS_3A = {
    "no gradient": "a parameter that is frozen has no row in the table",
    "zero gradient": "a row without any update that is not 0 has a share of 0, and does not move for all that",
    "swallowed": "of the updates that are not zero, more than nine tenths were swallowed: not of all elements",
    "moves": "a few swallowed updates do not hold a parameter: more than nine tenths do",
}


def _small(factor: float) -> Callable[[Any, Any], Any]:
    def loss(made: Any, _: Any) -> Any:
        return factor * F.mse_loss(made, mp.tensor(np.zeros(made.shape), dtype=made.dtype))

    return loss


def _for_nothing(made: Any, _: Any) -> Any:
    return made.sum() * 0.0


def _tiny_in_forward(made: Any, _: Any) -> Any:
    return made.mean() + (made - 30.0).exp().sum()


@exercise("3b", points=2, hints=(
    "for event in trace.select(phase='backward'): compare event.flushed with what is left",
    "what is left: the sum of side.stats.nonzero over event.outputs; None sides are left out",
))  # fmt: skip
def check_3b(lab: Any) -> None:
    """Gradients that die in the loss or in a layer; that lose a few; that were zero anyway; a forward that flushes."""
    random = np.random.default_rng(4)
    batch = random.standard_normal((64, 12)).astype(np.float32), random.integers(0, 4, 64)
    for name, model, loss, want, hint in (
        ("where the loss is tiny", _network(), _small(2e-6), ("mse_loss backward", ""),
         "it comes first: the layers before it get zeros, and lose nothing themselves"),
        ("where layer 2 has tiny weights", _network(grown=2, by=1e-6), F.cross_entropy, ("linear backward", "2"),
         "more than half of this layer's results were flushed, not all of them"),
        ("where layer 4 has tiny weights", _network(grown=4, by=1e-6), F.cross_entropy, ("linear backward", "4"),
         "more than half of this layer's results were flushed, not all of them"),
        ("where the loss is small", _network(), _small(5e-5), ("linear backward", "4"),
         "the loss loses some, but not more than half of its results"),
        ("where a few gradients are flushed", _network(), _small(1e-3), None, "a few are not more than half"),
        ("where the loss is multiplied by 0", _network(), _for_nothing, None,
         "those zeros came in, or were exact: nothing was flushed"),
        ("where forward flushes", _network(), _tiny_in_forward, None, "backward is asked for, and forward flushed"),
    ):  # fmt: skip
        trace = _traced(_step(model, "fp16", loss), batch)
        made = lab.where_it_died(trace)
        got = None if made is None else tuple(made)
        assert got == want, f"where_it_died, {name}: expected {want}, got {got}; {hint}"


# ---- part 4 -------------------------------------------------------------------------------------------------


class _Then(nn.Module):
    """A function of what comes in."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        """Apply it."""
        return self.function(x)


def _behind(function: Callable[[Any], Any], layers: int = 0) -> Any:
    """Return a linear layer, some more, the function, and a head."""
    mp.manual_seed(5)
    more = [nn.Linear(16, 16) for _ in range(layers)]
    return nn.Sequential(nn.Linear(12, 16), *more, _Then(function), nn.Linear(16, 4))


def _cancelled(x: Any) -> Any:
    return (x + 100.0) - 100.0


def _two_waves(x: Any) -> Any:
    return F.cat([(x * 300.0)[:, :8].cos(), (x * 5000.0)[:, 8:].sin()], dim=1)


@exercise("4a", points=2, hints=(
    "keep the rows with entering below 0.01 and leaving above 0.1",
    "the first of them is the one with the smallest 'event'; min(rows, key=..., default=None)",
))  # fmt: skip
def check_4a(lab: Any) -> None:
    """A sine of large angles, a difference of near numbers, two waves of which the second is worse, and none."""
    batch = _batch(7)
    for name, model, want in (
        ("nothing that multiplies errors", _behind(F.relu), None),
        ("a sine of large angles in module 1", _behind(lambda x: (x * 500.0).sin()), ("sin", "1")),
        ("x + 100 - 100 in module 3", _behind(_cancelled, layers=2), ("sub", "3")),
        ("a cosine, and then a sine that multiplies more", _behind(_two_waves), ("cos", "1")),
    ):
        trace = _traced(_step(model, "mixed-bf16"), batch, shadow=True)
        made = lab.amplifier(trace)
        got = None if made is None else tuple(made)
        assert got == want, f"amplifier, {name}: expected {want}, got {got}; {_hint_4a(trace, want, got)}"


def _hint_4a(trace: Any, want: Any, got: Any) -> str:
    if want is None or got is None:
        return "None where no event takes less than 1 % in and lets more than 10 % out"
    rows = [row for row in trace.amplifiers() if (row["op"], row["where"]) == got]
    if any(row["entering"] >= 0.01 for row in rows):
        return "that one inherited its error: it was large when it came in"
    if any(row["leaving"] <= 0.1 for row in rows):
        return "every rounding makes an error of that size: it is not the one that multiplies"
    return (
        "the first event is asked for: the table is sorted by `times`"
        if rows
        else "('op', 'where') as in the table"
    )


@exercise(
    "4b", hints=("with mp.autocast('bfloat16', enabled=False): the matrix product must lie inside, too",)
)
def check_4b(lab: Any) -> None:
    """NumPy in float64, inside of regions and outside; the region is in force again afterwards."""
    t = np.random.default_rng(6).random((40, 1), dtype=np.float32)
    for octaves in (8, 5):
        frequencies = (2 * np.pi * 2.0 ** np.arange(octaves)).astype(np.float32)[:, None]
        angles = t.astype(np.float64) @ frequencies.astype(np.float64).T
        want = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        for enabled in (True, False):
            with mp.autocast("bfloat16", enabled=enabled):
                made = lab.safe_encode(mp.tensor(t), frequencies)
                still = F.linear(mp.tensor(t), mp.tensor(np.ones((2, 1), np.float32))).format
            got = np.asarray(made.numpy(), np.float64)
            where = "inside" if enabled else "outside"
            assert got.shape == want.shape, (
                f"safe_encode: expected shape {want.shape}, got {got.shape}; sines first, then cosines"
            )
            error = float(np.abs(got - want).max())
            assert error < 1e-3, (
                f"safe_encode {where} of an autocast region, {octaves} octaves: expected errors below 0.001, got "
                f"{error:.2g}; the angles must be float32 from the product on: what was lost does not come back"
            )
            wanted = mp.bfloat16 if enabled else mp.float32
            assert still is wanted, (
                f"a layer after safe_encode: expected {wanted}, got {still}; only the encoding leaves"
            )


# ---- part 5 -------------------------------------------------------------------------------------------------


@mp.op()
def lab09_square(ctx: Any, x: Any) -> Any:
    """x^2."""
    ctx.save(x)
    return ctx.round(ctx.wide(x) ** 2)


@lab09_square.gradient
def _forgets_the_2(ctx: Any, grad: Any) -> Any:
    (x,) = ctx.saved
    return ctx.round(ctx.wide(grad) * ctx.wide(x))


@mp.op()
def lab09_soft(ctx: Any, x: Any) -> Any:
    """x / sqrt(1 + x^2)."""
    ctx.save(x)
    return ctx.round(ctx.wide(x) / np.sqrt(1 + ctx.wide(x) ** 2))


@lab09_soft.gradient
def _forgets_a_power(ctx: Any, grad: Any) -> Any:
    x = ctx.wide(ctx.saved[0])
    return ctx.round(ctx.wide(grad) / (1 + x**2))


for _name in ("lab09_square", "lab09_soft"):
    del mp.OPS[_name]  # the student's process keeps the table that it has


@exercise("5a", points=2, hints=(
    "for moment in moments_of(session): if not session.check(): ...",
    "return at once at the first; moment.event has title and module",
))  # fmt: skip
def check_5a(lab: Any) -> None:
    """Own operations with a wrong gradient, one or two of them, in several layers; and none."""
    batch = _batch(8)
    square, soft = _Then(lab09_square), _Then(lab09_soft)
    for name, layers, want in (
        ("lab09_square in module 1 forgets a factor", (square, nn.Tanh()), ("lab09_square backward", "1")),
        ("lab09_soft in module 3 forgets a power", (nn.Tanh(), soft), ("lab09_soft backward", "3")),
        ("two are wrong, and backward meets module 3 first", (square, soft), ("lab09_soft backward", "3")),
        ("everything holds", (nn.Tanh(), nn.ReLU()), None),
    ):
        mp.manual_seed(9)
        model = nn.Sequential(nn.Linear(12, 16), layers[0], nn.Linear(16, 16), layers[1], nn.Linear(16, 4))
        with _quiet(), mp.stepper.Session(_step(model, "mixed-fp16"), [batch]) as session:
            made = lab.refuted(session)
        got = None if made is None else tuple(made)
        assert got == want, f"refuted, {name}: expected {want}, got {got}; {_hint_5a(want, got)}"


def _hint_5a(want: Any, got: Any) -> str:
    if want is None or got is None:
        return "None is for a step in which every check holds; a check is false where one fails"
    if got[0].startswith("stage"):
        return "the stage repeats what its operations found: it was one of them"
    if f"{got[0]} backward" == want[0]:
        return "its forward holds, its backward does not: the title tells"
    return "the first in the order of the step; backward begins at the end of the network"
