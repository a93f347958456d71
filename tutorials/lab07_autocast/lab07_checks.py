"""Checks of lab 07; oracles: autocast itself, float64, byte counts by hand, and trainings."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

import minimp as mp
from minimp.errors import FormatError
from minimp.labs import exercise

F = mp.functional
STOCK = mp.policies["torch-cuda"]
WHY_1A = {
    "h": "a product is computed in the region's format",
    "a": "relu keeps the format that it is given",
    "c": "add keeps formats, and a float16 and a float32 operand meet in float32",
    "d": "a product casts its inputs down again, whatever made them",
    "e": "softmax computes in float32, and no result is cast back",
    "f": "mul keeps formats, and a float16 and a float32 operand meet in float32",
}


@exercise("1a", hints=("the second column of the table; softmax counts as fp32",
                       "a rule is about inputs: the result has the format that was computed in"))  # fmt: skip
def check_1a(lab: Any) -> None:
    """The formats that autocast gives."""
    x = w = b = v = mp.tensor(np.ones((4, 4), np.float32))
    with mp.autocast("float16"):
        h = x @ w
        a = h.relu()
        c = a + b
        d = c @ v
        e = F.softmax(d, dim=1)
        results = {"h": h, "a": a, "c": c, "d": d, "e": e, "f": e * a}
    for name, result in results.items():
        want, got = result.dtype.name, lab.predicted.get(name)
        assert got == want, f"predicted[{name!r}]: expected {want!r}, got {got!r}; {WHY_1A[name]}"


CALLS = (("matmul", "lower", 2), ("mse_loss", "fp32", 2), ("exp", "fp32", 1), ("add", "keep", 2),
         ("addcmul", "promote", 3), ("binary_cross_entropy", "banned", 2))  # fmt: skip


@exercise("1b", points=2, hints=(
    "lower, fp32 and banned do not look at what is given",
    "promote: first whether anything but float32 and low is among them, then whether float32 is",
))  # fmt: skip
def check_1b(lab: Any) -> None:
    """What minimp tells of calls with every mix of formats."""
    for op, rule, many in CALLS:
        mixes = sorted(product(("float16", "bfloat16", "float32"), repeat=many), key=lambda mix: len({*mix}))
        for given, low in product(mixes, ("float16", "bfloat16")):
            told = STOCK.explain(op, given, low=low)
            want = "refused" if told.refused or told.result is None else told.result.name
            got = lab.computes_in(rule, list(given), low)
            assert got == want, (
                f"computes_in({rule!r}, {list(given)}, {low!r}): expected {want!r}, got {got!r}; "
                f"{_hint_1b(rule, given, low)}"
            )


def _hint_1b(rule: str, given: tuple[str, ...], low: str) -> str:
    if rule == "keep":
        return "keep does not look at the region's format" if len({*given}) == 1 else (
            "two formats meet in one that holds both: float32"
        )  # fmt: skip
    if rule == "promote":
        return "promote refuses the other 16-bit format" if not {*given} <= {low, "float32"} else (
            "float32 if any input is float32, else the region's format"
        )  # fmt: skip
    return {"lower": "every input goes to the region's format", "banned": "the call is refused",
            "fp32": "the result has the format that was computed in: nothing is cast back"}[rule]  # fmt: skip


@exercise("2a", points=3, hints=(
    "collect the casts by number; then look at the links of every other event's inputs",
    "take a cast out of the collection when its first reader is found; skip inputs that are None",
))  # fmt: skip
def check_2a(lab: Any) -> None:
    """Bytes counted by hand: a cast between float32 and float16 moves 6 for each element."""
    for name, events, elements, hint in _traced():
        want, got = {op: 6 * count for op, count in elements.items()}, dict(lab.cast_bytes(events))
        said = "the account is that of the operation whose input links to the cast" if {*got} != {*want} else (
            "what a cast reads counts, and what it writes: 4 and 2 bytes, or 2 and 4"
            if any(got[op] in (4 * count, 2 * count) for op, count in elements.items())
            else hint
        )  # fmt: skip
        assert got == want, f"cast_bytes of {name}: expected {want}, got {got}; {said}"


def _traced() -> Iterator[tuple[str, list[Any], dict[str, int], str]]:
    """Traces, with the elements that are cast for each operation."""
    random = np.random.default_rng(0)
    x = mp.tensor(random.normal(size=(5, 5)).astype(np.float32))
    with mp.trace.record() as trace, mp.autocast("float16"):
        (x @ x).exp()
    yield "x @ x, then exp", _forward(trace), {"matmul": 50, "exp": 25}, "x is cast for each of its uses"
    with mp.trace.record() as trace:
        (x @ x).exp()
    yield "a program without a region", _forward(trace), {}, "there are no casts"
    w = mp.tensor(random.normal(size=(5, 5)).astype(np.float32), requires_grad=True)
    twice = "a cast that is kept counts once, for its first reader"
    with mp.trace.record() as trace, mp.autocast("float16"):
        w @ w
    yield "w @ w for a weight w", _forward(trace), {"matmul": 25}, twice
    with mp.trace.record() as trace, mp.autocast("float16"):
        F.linear(x @ w, w)
    yield "linear(x @ w, w) for a weight w", _forward(trace), {"matmul": 50}, twice
    mp.manual_seed(1)
    layers = mp.nn.Sequential(mp.nn.Linear(5, 7), mp.nn.ReLU(), mp.nn.Linear(7, 3))
    step = mp.TrainStep(layers, F.cross_entropy, mp.optim.SGD(layers.parameters(), lr=0.1), "mixed-fp16")
    with mp.trace.record() as trace:
        step(x.numpy(), np.array([0, 1, 2, 0, 1]))
    cast = 5 * 7 + 7 + 7 * 3 + 3 + 5 * 5
    yield "a training step", _forward(trace), {"linear": cast, "log_softmax": 5 * 3}, "follow side.links"


def _forward(trace: mp.trace.Trace) -> list[Any]:
    return [event for event in trace.events if event.phase == "forward"]


@exercise("2b", points=2, hints=("a loop over reversed(inputs)",
                                 "with the cache, round the total to bfloat16 after each addition"))  # fmt: skip
def check_2b(lab: Any) -> None:
    """Gradients that autocast gives, with and without its cache."""
    random = np.random.default_rng(7)
    drawn = mp.formats.round(random.normal(0, 30, 20), mp.bfloat16).tolist()
    for inputs in ([3.0], [256.0, 1.0, 1.0], [1.0, 256.0], [1.0, 1.0, 256.0], [0.5, -2.0, 300.0, 1.0], drawn):
        for cached in (False, True):
            want, got = _gradient(inputs, cached), float(lab.shared_gradient(list(inputs), cached))
            shown = [round(x, 4) for x in inputs] if len(inputs) < 5 else f"{len(inputs)} numbers"
            assert math.isclose(got, want, rel_tol=1e-6, abs_tol=1e-6), (
                f"shared_gradient({shown}, {cached}): expected {want:g}, got {got:g}; "
                f"{_hint_2b(inputs, cached, got)}"
            )


def _gradient(inputs: list[float], cached: bool) -> float:
    w = mp.tensor([[1.0]], requires_grad=True)
    with mp.autocast("bfloat16", cache="torch" if cached else "none"):
        parts = [mp.tensor([[x]]) @ w for x in inputs]
    total = mp.tensor([[0.0]])
    for part in parts:
        total = total + part.float()
    total.sum().backward()
    return float(w.grad.item())


def _hint_2b(inputs: list[float], cached: bool, got: float) -> str:
    if not cached:
        return "without the cache there is a cast for each use, and gradients add up in float32"
    once, forward = float(mp.formats.round(np.array(math.fsum(inputs)), mp.bfloat16)), 0.0
    for x in inputs:
        forward = float(mp.formats.round(np.array(forward + x), mp.bfloat16))
    if got == once:
        return "the total is rounded to bfloat16 after each addition, not once at the end"
    return "backward visits the uses from the last to the first" if got == forward else (
        "with the cache gradients add up in bfloat16"
    )  # fmt: skip


@exercise("3a", points=3, hints=(
    "for each op that differs: one edit to the stock policy, one region, one call of compute()",
    "np.isfinite(compute().item()) is False for infinities and for NaN",
))  # fmt: skip
def check_3a(lab: Any) -> None:
    """Computations whose culprits are known by their making."""
    many = STOCK.with_(exp="lower", sum="lower", log="lower", softmax="lower", mean="lower", relu="fp32")
    flat, sharp, low = (
        mp.tensor(row, dtype=mp.float16) for row in ([8.0] * 40, [20.0, 1.0, -3.0], [1.0, 2.0, 3.0])
    )
    for name, policy, compute, want in (
        ("40 scores of 8", many, lambda: flat.exp().sum().log(), ["log", "sum"]),
        ("a score of 20", many, lambda: sharp.exp().sum().log(), ["exp", "log", "sum"]),
        ("scores up to 3", many, lambda: low.exp().sum().log(), []),
        ("exp(20) - exp(20)", many, lambda: (sharp.exp() - sharp.exp())[0], ["exp"]),
        ("an unedited policy", STOCK, lambda: sharp.exp().sum().log(), []),
    ):
        got = lab.culprits(policy, compute)
        assert list(got) == want, f"culprits, {name}: expected {want}, got {got}; {_hint_3a(name, want, got)}"


def _hint_3a(name: str, want: list[str], got: list[str]) -> str:
    if name.startswith("exp(20) -"):
        return "infinity less infinity is NaN, which is not finite either"
    if want and not got:
        return "edit the stock policy in one place: where there are two culprits, to take one edit back heals nothing"
    return "an edit that does no harm is no culprit: try each one alone" if {*got} > {*want} else (
        "each operation by itself, in sorted order"
    )  # fmt: skip


@exercise("4a", points=2, hints=("there is a function that takes scores in the place of chances",
                                 "F.binary_cross_entropy_with_logits"))  # fmt: skip
def check_4a(lab: Any) -> None:
    """float64: max(s, 0) - s t + log(1 + exp(-|s|)), and its gradient (p - t) / N."""
    for s, t in ((0.5, 1.0), (3.0, 0.0), (-3.0, 0.25), (9.0, 0.0), (20.0, 0.0), (60.0, 0.0), (-60.0, 1.0)):
        want = max(s, 0) - s * t + math.log1p(math.exp(-abs(s)))
        scores = mp.tensor([s, 0.0], dtype=mp.float16, requires_grad=True)
        try:
            with mp.autocast("float16"):
                loss = lab.binary_loss(scores, mp.tensor([t, 0.0]))
        except FormatError as fault:
            said = "the ban is for the region: compute something else, or in a region that is off"
            raise AssertionError(
                f"binary_loss of score {s}: expected a loss, got an error: {fault}; {said}"
            ) from None
        got, want = float(loss.item()), (want + math.log(2)) / 2  # the other score is 0, its target too
        assert abs(got - want) <= 1e-4 * max(want, 1), (
            f"binary_loss of scores {s} and 0, targets {t} and 0: expected {want:.6f}, got {got:.6f}; {_hint_4a(s)}"
        )
        assert loss.dtype == np.float32, f"binary_loss: expected a float32 loss, got {loss.dtype.name}"
        loss.backward()
        slope, found = (1 / (1 + math.exp(-s)) - t) / 2, float(scores.grad[0].item())
        assert abs(found - slope) <= 0.001, (
            f"binary_loss at {s}: expected the gradient {slope:.4f}, got {found:.4f}"
        )


def _hint_4a(s: float) -> str:
    if abs(s) < 15:
        return "the chance was rounded to float16: outside of a region a float16 tensor is float16 still"
    return "a float32 chance is 1 here, and its distance to 1 is lost: begin with the scores"


def _norm(x: mp.Tensor) -> mp.Tensor:
    return (x * x).sum(dim=1, keepdim=True).sqrt()


class _Cosine(mp.nn.Module):
    """The lab's classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = mp.nn.Linear(64, 64)
        self.out = mp.nn.Linear(64, 10, bias=False)

    def forward(self, pixels: mp.Tensor) -> mp.Tensor:
        features = self.hidden(pixels / _norm(pixels)).relu()
        features = features / _norm(features)
        return F.linear(features, self.out.weight / _norm(self.out.weight)) * 20


def _loss(scores: mp.Tensor, targets: Any) -> mp.Tensor:
    chosen = mp.tensor(np.eye(10, dtype=np.float32)[targets])
    return (scores.exp().sum(dim=1).log() - (scores * chosen).sum(dim=1)).mean()


@exercise("5a", points=3, hints=(
    "64 squares of up to 65025 are added up; e^20 is 485 million",
    "the operation that makes the large number must be wide, and each one that is given it: sum and sqrt, exp and ...",
))  # fmt: skip
def check_5a(lab: Any) -> None:
    """Two trainings, and a trace of what they compute in float32."""
    assert isinstance(lab.mine, mp.Policy), f"mine: expected a Policy, got {type(lab.mine).__name__}"
    for seed in (0, 1):
        right, infinite, wide = _trained(lab.mine, seed)
        assert right >= 0.9, (
            f"mine, seed {seed}: expected 90 % of the test digits right, got {right:.1%}; the norm of the "
            "pixels is infinite unless the sum of squares is wide, and also the operation that is given it"
        )
        assert not infinite, (
            f"mine, seed {seed}: expected finite losses, got {infinite} of 150 that are not; exp(12) does not "
            "fit into float16, nor does what sum makes of it for the operation that comes next"
        )
        assert len(wide) <= 4, (
            f"mine: expected at most 4 operations in float32, got {len(wide)}: {', '.join(wide)}; "
            "what follows a wide operation need not be wide: rule it lower"
        )


def _trained(policy: mp.Policy, seed: int) -> tuple[float, int, list[str]]:
    """Return the share of test digits told right, the losses that were not finite, and the wide operations."""
    train, test = mp.data.digits("train"), mp.data.digits("test")
    mp.manual_seed(seed)
    model = _Cosine()
    recipe = mp.Recipe(
        "own", compute_dtype="float16", master_weights=True, loss_scale="dynamic", policy=policy
    )
    step = mp.TrainStep(model, _loss, mp.optim.Adam(model.parameters(), lr=1e-2), recipe)
    batches = mp.data.DataLoader(train, 64, shuffle=True, seed=seed).cycle()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a scale that falls and falls
        losses = [step(255 * x, y).loss for (x, y), _ in zip(batches, range(150), strict=False)]
        with mp.trace.record() as trace:
            step(255 * train.inputs[:64], train.targets[:64])
    wide = {
        event.op for event in trace.events
        if event.phase == "forward" and event.op != "cast" and event.stage != "scale_loss"
        and any(side is not None and side.format == "float32" for side in event.inputs)
    }  # fmt: skip
    with mp.no_grad(), mp.autocast("float16", policy=policy):
        scores = model(mp.tensor(255 * test.inputs)).numpy()
    right = float(np.mean(scores.argmax(1) == test.targets))
    return right, int(np.sum(~np.isfinite(losses))), sorted(wide)
