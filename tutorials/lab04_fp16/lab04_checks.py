"""Checks of lab 04; oracles: float64, NumPy's float16, and traces of trainings whose trouble is known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import minimp as mp
from minimp.labs import exercise

POSITIVE = np.arange(0x7C00, dtype=np.uint16).view(np.float16)


@exercise("1a", points=2, hints=("np.log(65504) is near; which float16 number is next to it, below?",
                                 "try every number of all_positive, and round what comes out"))  # fmt: skip
def check_1a(lab: Any) -> None:
    """All float16 numbers, in NumPy's float16."""
    wide = POSITIVE.astype(np.float64)
    with np.errstate(over="ignore"):
        finite = {"largest_exp": np.isfinite(np.exp(wide).astype(np.float16)),
                  "largest_square": np.isfinite((wide * wide).astype(np.float16))}  # fmt: skip
    for name, good in finite.items():
        want, got = float(wide[good].max()), float(getattr(lab, name))
        hint = "that is no float16 number" if float(np.float16(got)) != got else (
            "there it is infinite already" if got > want else "there are larger ones"
        )  # fmt: skip
        assert got == want, f"{name}: expected {want}, got {got}; {hint}"


@exercise("1b", points=3, hints=(
    "c is the largest score of its row: then the largest exponential is exp(0) = 1",
    "scores.amax(dim=1, keepdim=True) is (N, 1); what is added at the end must be (N,)",
))  # fmt: skip
def check_1b(lab: Any) -> None:
    """float64, with gradients; rows of very different size stand in one batch."""
    rows = [[0, 1, 2], [12, 12, 12], [500, 499, -500], [-500, -501, -502], [60000, -60000, 0], [-3, 11, 4]]
    scores = mp.tensor(rows, dtype=mp.float16, requires_grad=True)
    wide = np.array(rows, np.float64)
    top = wide.max(axis=1)
    want = top + np.log(np.exp(wide - top[:, None]).sum(axis=1))
    made = lab.log_sum_exp(scores)
    assert made.shape == (len(rows),), f"log_sum_exp: expected shape {(len(rows),)}, got {made.shape}"
    found = made.detach().numpy().astype(np.float64)
    for row, expected, got in zip(rows, want, found, strict=True):
        near = abs(got - expected) <= 2 * float(np.spacing(np.float16(abs(expected))))
        assert near, f"log_sum_exp of {row}: expected {expected:.5g}, got {got:.5g}; {_hint_1b(row, got)}"
    made.sum().backward()
    softmax = np.exp(wide - want[:, None])
    worst = float(np.abs(scores.grad.numpy() - softmax).max())
    assert worst < 0.01, f"log_sum_exp: its gradient is the softmax, and is off by {worst:.3g}"


def _hint_1b(row: list[int], got: float) -> str:
    if not math.isfinite(got):
        return "all exponentials became 0: take the largest of each row" if got < 0 else (
            "an exponential overflowed: subtract the largest score of the row first"
        )  # fmt: skip
    return "what was subtracted must be added again" if got < max(row) - 1 else "c is one number a row"


@exercise("1c", points=2, hints=("divide by the largest magnitude: then the squares lie between 0 and 1",
                                 "all zeros: there is nothing to divide by"))  # fmt: skip
def check_1c(lab: Any) -> None:
    """float64."""
    random = np.random.default_rng(4)
    for values, hint in (
        ([3.0, 4.0], "the root of the sum of squares"),
        ([300.0, -400.0], "squares of 256 and more overflow: make the numbers smaller first"),
        ([60000.0, 1.0, 0.0], "squares of 256 and more overflow: make the numbers smaller first"),
        ([1e-4] * 4, "small squares are flushed to zero: what you divide by must fit the numbers"),
        ([2e-7, -4e-7], "small squares are flushed to zero: what you divide by must fit the numbers"),
        ([0.0, 0.0], "the norm of zeros is 0, and 0 / 0 is NaN"),
        (random.normal(0, 50, 1000).tolist(), "the root of the sum of squares"),
    ):  # fmt: skip
        given = mp.tensor(values, dtype=mp.float16)
        want = float(np.linalg.norm(given.numpy().astype(np.float64)))
        got = float(lab.norm(given))
        near = abs(got - want) <= 4 * float(np.spacing(np.float16(want)))
        shown = values if len(values) < 5 else f"{len(values)} numbers"
        assert near, f"norm of {shown}: expected {want:.5g}, got {got:.5g}; {hint}"


@exercise(
    "2a", hints=("rounding is to nearest: what is above half of 2**-24 survives", "leave zeros out first")
)
def check_2a(lab: Any) -> None:
    """NumPy's conversion to float16."""
    random = np.random.default_rng(5)
    drawn = random.normal(0, 1, 500) * 10.0 ** random.integers(-10, -3, 500)
    for name, values in (
        ("2^-15 and 1", np.array([2.0**-15, 1.0])), ("1.5 * 2^-25", np.array([1.5 * 2.0**-25])),
        ("2^-25, a tie", np.array([2.0**-25])), ("0, 1e-9 and -1", np.array([0.0, 1e-9, -1.0])),
        ("zeros", np.zeros(3)), ("500 numbers", drawn), ("a matrix", drawn.reshape(20, 25)),
    ):  # fmt: skip
        nonzero = values[values != 0]
        want = float(np.mean(nonzero.astype(np.float16) == 0)) if nonzero.size else 0.0
        got = float(lab.flushed_share(values))
        hint = {"2^-15 and 1": "a subnormal number is not zero", "1.5 * 2^-25": "the nearest number is 2^-24, not 0",
                "2^-25, a tie": "a tie goes to the even neighbour, which is 0",
                "0, 1e-9 and -1": "of those that are not zero already", "zeros": "none: share 0"}.get(
                    name, "signs do not matter, zeros do not count")  # fmt: skip
        assert math.isclose(got, want, abs_tol=1e-12), (
            f"flushed_share of {name}: expected {want}, got {got}; {hint}"
        )


@exercise("2b", points=2, hints=("2 d / (N n) is zero up to 2**-25, the tie included", "solve for d"))
def check_2b(lab: Any) -> None:
    """The gradient at that error and just above it, in NumPy's float16."""
    for elements, parts in ((256 * 64, 4096), (256 * 64, 1), (1000, 30), (64, 2**20)):
        got = float(lab.lost_up_to(elements, parts))
        want = 2.0**-25 * elements * parts / 2
        hint = "the derivative of d squared is 2 d, and 2^-24 / 2 is where zero begins" if got == 2 * want else (
            "that was multiplied where it must be divided" if got == 4 * want
            else "2 d / (N n) = 2^-25, solved for d"
        )  # fmt: skip
        assert math.isclose(got, want), (
            f"lost_up_to({elements}, {parts}): expected {want:g}, got {got:g}; {hint}"
        )


@exercise(
    "3a", points=2, hints=("half an ulp above P is P / 2048", "lr must be below P / 2048, not equal to it")
)
def check_3a(lab: Any) -> None:
    """Subtracting from, and adding to, every weight around P in NumPy's float16."""
    for lr in (1e-5, 1e-3, 3e-6, 2.0**-17, 0.7 * 2.0**-14):
        want = 2.0 ** (math.floor(math.log2(2048 * lr)) + 1)
        assert not _moves(want, lr)  # the rule, held to the format itself
        assert _moves(want / 2, lr)
        got = float(lab.stands_still_above(lr))
        hint = "a power of two was asked for" if math.frexp(got)[0] != 0.5 else (
            "at exactly half an ulp, a tie, every other weight moves" if lr == 2.0**-17 and got == want / 2
            else "some weights above that still move: half an ulp counts, P / 2048" if got < want
            else "a smaller P does as well: half an ulp is P / 2048"
        )  # fmt: skip
        assert got == want, f"stands_still_above({lr!r}): expected {want!r}, got {got!r}; {hint}"


def _moves(power: float, lr: float) -> bool:
    """Tell whether a float16 weight between P and 2P (both left out) moves by lr."""
    between = POSITIVE[np.logical_and(power < POSITIVE, 2 * power > POSITIVE)].astype(np.float64)
    up, down = (between + lr).astype(np.float16), (between - lr).astype(np.float16)
    return bool(np.any(up != between) or np.any(down != between))


@exercise("4a", points=3, hints=(
    'sum row["flushed"] over the rows whose row["op"].endswith("backward"), and row["non-zero"] too',
    "mind traces in which nothing was trained: no rows, nothing to divide by",
))  # fmt: skip
def check_4a(lab: Any) -> None:
    """Steps whose trouble is known by their making."""
    for name, made, want, hint in _traces():
        got = lab.diagnose(made)
        assert got == want, f"diagnose of {name}: expected {want!r}, got {got!r}; {hint}"


def _traces() -> Iterator[tuple[str, mp.trace.Trace, str, str]]:
    with mp.trace.record() as made:
        mp.tensor([20.0], dtype=mp.float16).exp()
    yield "exp(20)", made, "too large", "first_nonfinite() tells of it"
    with mp.trace.record() as made:
        mp.tensor([-1.0], dtype=mp.float16).log()
    yield "log(-1)", made, "too large", "a NaN counts too, and is no overflow"
    with mp.trace.record() as made:
        mp.tensor([1.0], dtype=mp.float16).exp()
    yield "exp(1), without any training", made, "fine", "no rows: the share is 0"
    digits = mp.data.digits("train")
    x, y = digits.inputs[:128], digits.targets[:128]
    yield (
        "an auto-encoder",
        _step(64, x, x, 1e-3, parts=4096),
        "too small",
        "count backward alone, not forward",
    )
    yield (
        "a classifier at 5e-5",
        _step(10, x, y, 5e-5),
        "fine",
        "some updates are always swallowed: more than half",
    )
    yield (
        "a classifier at 1e-6",
        _step(10, x, y, 1e-6),
        "too close",
        "more than half of the updates are swallowed",
    )


def _step(width: int, x: Any, y: Any, lr: float, *, parts: int = 1) -> mp.trace.Trace:
    mp.manual_seed(7)
    nn, functional = mp.nn, mp.functional
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, width))
    loss = functional.mse_loss if width == 64 else functional.cross_entropy
    optimizer = mp.optim.Adam(model.parameters(), lr=lr)
    step = mp.TrainStep(model, loss, optimizer, "fp16", micro_batches=parts)
    with mp.trace.record() as made:
        step(x, y)
    return made
