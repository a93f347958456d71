"""Checks of lab 03; oracles: polynomials by hand, central differences in float64, minimp's own gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minimp as mp
from minimp.labs import exercise

Array = np.ndarray[Any, Any]


def drawn(*shape: int, seed: int = 0) -> Array:
    """Return normal numbers in float64."""
    return np.random.default_rng(seed).standard_normal(shape)


def close(got: Any, expected: Any, rtol: float = 1e-6) -> bool:
    """Tell whether two arrays have one shape and nearly the same numbers."""
    got, expected = np.asarray(got), np.asarray(expected)
    return got.shape == expected.shape and bool(np.allclose(got, expected, rtol=rtol, atol=1e-9))


@exercise("1a", hints=("two calls of f: at x + h * v and at x - h * v", "they lie 2 * h apart"))
def check_1a(lab: Any) -> None:
    """A cube, whose central difference is 3 x^2 v + h^2 v^3 exactly."""
    x, v, h = np.array([1.0, -2.0, 0.5]), np.array([2.0, 1.0, -1.0]), 0.25
    expected = 3 * x**2 * v + h**2 * v**3
    got = np.asarray(lab.difference(lambda x: x**3, x, v, h))
    hint = "both sides of x"
    if close(got, 2 * expected):
        hint = "the two points lie 2 * h apart"
    elif close(got, ((x + h) ** 3 - (x - h) ** 3) / (2 * h)):
        hint = "move along v, not by h alone"
    elif close(got, ((x + h * v) ** 3 - x**3) / h):
        hint = "that is a one-sided difference: its error is like h, not h squared"
    assert close(got, expected), f"difference of x**3: expected {expected}, got {got}; {hint}"


@exercise("1b", points=2, hints=(
    "left: np.sum(u * difference(lambda x: op(x)[0], x, v, h)); right: np.sum(op(x)[1](u) * v)",
    "abs(left - right) / max(abs(left), abs(right))",
))  # fmt: skip
def check_1b(lab: Any) -> None:
    """A matrix, whose pullback is its transpose, right and too large by half: 0 and 1 / 3."""
    a, x, u, v = drawn(3, 4), drawn(4, seed=1), drawn(3, seed=2), drawn(4, seed=3)
    for factor, expected in ((1.0, 0.0), (1.5, 1 / 3), (0.5, 0.5), (-1.0, 2.0)):
        got = float(lab.disagreement(_op_of(a, factor), x, u, v))
        left, right = float(u @ a @ v), float(u @ a @ v) * factor
        hint = "u goes with results, v with inputs"
        if math.isclose(-got, expected, rel_tol=1e-6):
            hint = "a distance has no sign"
        elif math.isclose(got, abs(left - right), rel_tol=1e-6):
            hint = "relative: divide by the larger of the two sizes"
        elif math.isclose(got, abs(left - right) / abs(left), rel_tol=1e-6):
            hint = "divide by the larger of the two sizes, not always by the first"
        said = f"disagreement of a pullback that is {factor} times the right one"
        assert abs(got - expected) < 1e-7, f"{said}: expected {expected:.4f}, got {got:.4f}; {hint}"


def _op_of(a: Array, factor: float) -> Any:
    return lambda x: (a @ x, lambda u: factor * (a.T @ u))


@exercise("2a", points=2, hints=(
    "the product rule: (x s)' = s + x s'", "multiply the slope by u: that is the chain rule",
))  # fmt: skip
def check_2a(lab: Any) -> None:
    """The formula, against numbers by hand."""
    x, u = drawn(3, 5), drawn(3, 5, seed=1)
    s = 1 / (1 + np.exp(-x))
    y, pullback = lab.silu(x)
    assert close(y, x * s), f"silu(x)[0]: expected {x * s}, got {y}; the result is x times the sigmoid of x"
    expected, got = u * (s + x * s * (1 - s)), np.asarray(pullback(u))
    hints = (
        (s + x * s * (1 - s), "multiply by u: the chain rule"),
        (u * s, "the sigmoid moves with x too: the product rule has two terms"),
        (u * s * (1 - s), "that is the slope of the sigmoid alone; the product rule has two terms"),
        (u * x * s * (1 - s), "x itself moves too: the product rule has two terms"),
    )
    hint = next(
        (say for wrong, say in hints if close(got, wrong)), "compare with disagreement(silu, x, u, v)"
    )
    assert close(got, expected), f"the gradient of silu: expected {expected[0]}, got {got[:1]}; {hint}"


@exercise("2b", points=3, hints=(
    "shapes decide: dx (rows, in) can only be u @ w; dw (out, in) only u.T @ x", "db sums u over the rows",
))  # fmt: skip
def check_2b(lab: Any) -> None:
    """The three formulas; a square layer too, where no shape gives a slip away."""
    for rows, inner, outer in ((6, 4, 3), (5, 5, 5), (1, 2, 3)):
        x, w, b, u = (
            drawn(rows, inner),
            drawn(outer, inner, seed=1),
            drawn(outer, seed=2),
            drawn(rows, outer, seed=3),
        )
        y, pullback = lab.linear(x, w, b)
        assert close(y, x @ w.T + b), f"linear's result: expected x @ w.T + b, got an array of {np.shape(y)}"
        given = [np.asarray(each) for each in pullback(u)]
        wanted = {
            "dx": (u @ w, x.shape, "each input reaches y by w: u @ w"),
            "dw": (u.T @ x, w.shape, "u.T @ x"),
            "db": (u.sum(axis=0), b.shape, "b was used once for every row: the sum over the rows, no mean"),
        }
        for (name, (expected, shape, hint)), got in zip(wanted.items(), given, strict=True):
            assert got.shape == shape, f"{name}: expected shape {shape}, got {got.shape}; {hint}"
            assert close(got, expected), (
                f"{name}: expected {expected.ravel()[:3]}..., got {got.ravel()[:3]}; {hint}"
            )


@exercise("3a", points=3, hints=(
    "shifted = z - z.max(axis=1, keepdims=True)",
    "softmax, then grad[np.arange(n), targets] -= 1, then divide by n and multiply by u",
))  # fmt: skip
def check_3a(lab: Any) -> None:
    """A stable cross-entropy in float64, at small scores, large ones, and with u = 3."""
    targets = np.array([0, 2, 1, 2])
    for z in (drawn(4, 3), drawn(4, 3) * 1000.0):
        rows, shifted = np.arange(4), z - z.max(axis=1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        with np.errstate(all="ignore"):
            loss, pullback = lab.cross_entropy(z.copy(), targets)
            got = np.asarray(pullback(3.0))
        expected = -logs[rows, targets].mean()
        hint = "subtract the row's largest score first" if not np.isfinite(loss) else (
            "the mean over the rows, not the sum" if close(loss, 4 * expected) else "log of the sum, less the target's"
        )  # fmt: skip
        assert close(loss, expected), f"cross_entropy: expected {expected:.6f}, got {loss}; {hint}"
        softmax, hot = np.exp(logs), np.eye(3)[targets]
        hints = (
            (3 * (softmax - hot), "the loss is a mean: divide by the number of rows"),
            (3 * softmax / 4, "1 less at the target's place"),
            ((softmax - hot) / 4, "multiply by u"),
            (3 * (hot - softmax) / 4, "the sign: softmax less the target's 1"),
        )
        hint = next((say for wrong, say in hints if close(got, wrong)), "(softmax - 1 at the target) / n * u")
        expected = 3 * (softmax - hot) / 4
        assert close(got, expected), f"the gradient of row 0: expected {expected[0]}, got {got[:1]}; {hint}"


@exercise("4a", points=3, hints=(
    "in forward: ctx.save_for_backward(x); in backward: (x,) = ctx.saved_tensors",
    "s = mp.functional.sigmoid(x) again in backward; return grad * (s + x * s * (1 - s))",
))  # fmt: skip
def check_4a(lab: Any) -> None:
    """Values, first and second derivatives of the formula, in float64 by NumPy."""
    at = np.array([-3.0, -0.5, 0.0, 0.7, 4.0])
    s = 1 / (1 + np.exp(-at))
    x = mp.tensor(at.astype(np.float32), requires_grad=True)
    y: Any = lab.Silu.apply(x)
    assert close(y.detach().numpy(), at * s, 1e-4), (
        f"Silu.apply: expected {at * s}, got {y.detach().numpy()}; x * sigmoid(x)"
    )
    slope = s + at * s * (1 - s)
    first: Any
    (first,) = mp.grad((y * 2.0).sum(), [x], create_graph=True)
    hint = "multiply by grad: the chain rule" if close(first.detach().numpy(), slope, 1e-4) else (
        "the product rule has two terms: s + x s (1 - s)"
    )  # fmt: skip
    assert close(first.detach().numpy(), 2 * slope, 1e-4), (
        f"the gradient: expected {2 * slope}, got {first.detach().numpy()}; {hint}"
    )
    expected = 2 * (s * (1 - s) * (2 + at * (1 - 2 * s)))
    try:
        second: Any = mp.grad(first.sum(), [x])[0]
        got: Any = second.detach().numpy()
    except mp.errors.MinimpError as fault:
        got = mp.errors.plain(fault)
    same = not isinstance(got, str) and close(got, expected, 1e-4)
    hint = "in backward compute with saved tensors, the sigmoid again: what forward made on the way is a constant"
    assert same, f"the second derivative: expected {expected}, got {got}; {hint}"


@exercise("4b", points=2, hints=("leave out the zeros first", "multiply, then round, then compare with 0"))
def check_4b(lab: Any) -> None:
    """Powers of two around 2**-25, where float16 begins to be zero."""
    gradients = np.array(
        [0.0, 2.0**-25, -(2.0**-25), 1.5 * 2.0**-25, 2.0**-24, 2.0**-14, 0.0, -1.0, 2.0**-40, 2.0**-30]
    )
    for scale, expected in ((1.0, 4 / 8), (2.0, 2 / 8), (2.0**10, 1 / 8), (2.0**20, 0.0)):
        got = float(lab.share_lost(gradients.copy(), scale))
        hint = "multiply by the scale before rounding"
        if math.isclose(got, (expected * 8 + 2) / 10) or math.isclose(got, expected * 8 / 10):
            hint = "of those that are not zero: leave out the zeros, which were nothing before"
        elif got == float(np.mean(np.abs(gradients[gradients != 0]) * scale < 2.0**-14)):
            hint = "subnormal numbers are there: only what rounds to zero is lost"
        assert math.isclose(got, expected, abs_tol=1e-12), (
            f"share_lost at scale {scale:g}: expected {expected}, got {got}; {hint}"
        )
