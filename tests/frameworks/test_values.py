"""The section on values; oracles: numbers by hand, float64, and kernels that are spoilt on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import formats
from minimp.door import OPS
from minimp.frameworks import documented
from minimp.frameworks.cases import CASES, Case, minimp_library
from minimp.frameworks.cases.numbers import KINDS, every_value, numbers
from minimp.frameworks.ops import torch_values
from minimp.frameworks.ops.call_bounds import Bound, gradient_bounds, result_bound
from minimp.frameworks.ops.torch_values import FORMATS, Tally, compare_case, from_torch, to_torch, ulps
from minimp.frameworks.results import Row, Verdict
from minimp.modes import listen
from minimp.tape import Event

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch
Array = np.ndarray[Any, Any]
Forward = Callable[..., Any]


def case_of(name: str) -> Case:
    """Return the case of that name."""
    return next(case for case in CASES if str(case) == name)


def rows_of(name: str, fmt: str = "float16") -> list[Row]:
    """Compare one call."""
    return list(compare_case(case_of(name), fmt))


def wrong(name: str, fmt: str = "float16") -> list[str]:
    """Return the cases of the rows of one call that differ."""
    return [row.case for row in rows_of(name, fmt) if row.verdict is Verdict.DIFFERS]


def half(*values: float) -> Array:
    """Return a float16 array."""
    return np.array(values, np.float16)


# ---- true without a fault ---------------------------------------------------------------------------------

QUICK = ("add", "matmul", "exp", "softmax", "layer_norm", "sum-dim", "max_pool2d", "nll_loss-cross_entropy",
         "embedding", "getitem-topk", "argmax", "where")  # fmt: skip


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("name", QUICK)
def test_a_call_holds(name: str, fmt: str) -> None:
    """Oracle: the installed torch and the ops' bounds: no row differs without a reason, ours are in bound."""
    rows = rows_of(name, fmt)
    assert not wrong(name, fmt)
    assert {row.verdict for row in rows} <= {Verdict.AGREES, Verdict.DOCUMENTED}
    assert all(row.figures.get("ours_in_bound_percent", 100.0) == 100.0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_the_whole_section_holds(seed: int) -> None:
    """Oracle: as above, for every call; each op has a result in each format, and gradients where it can."""
    section = torch_values.compare(seed)
    assert section, section.of(Verdict.DIFFERS)
    assert all(row.known == "" or row.verdict is Verdict.DOCUMENTED for row in section.rows)
    left_out = {row.subject for row in section.of(Verdict.NOT_COMPARED)}
    built_in = {name for name, op in OPS.items() if op.forward.__module__.startswith("minimp.")}
    cases = {(row.subject, ", ".join(row.case.split(", ")[:2])) for row in section.rows}
    for op in built_in - left_out:
        parts = ["result"] + ["gradients"] * (OPS[op].backward_rule is not None)
        missing = {(op, f"{fmt}, {part}") for fmt in FORMATS for part in parts} - cases
        assert not missing


@pytest.mark.parametrize("name", ["add", "mul", "sub", "neg", "where", "cat", "clamp"])
def test_single_roundings_have_torchs_bits(name: str) -> None:
    """Oracle: torch: these compute in float32 and round once in both, in both directions."""
    cases = [case for case in CASES if case.op == name and not case.what]
    for row in (row for case in cases for row in compare_case(case, "float16")):
        assert row.figures["bit_equal_percent"] == 100.0
        assert row.figures["max_ulp"] == 0


def test_every_number_of_a_format_is_compared() -> None:
    """Oracle: 2^16 codes, each once; functions of one number meet all of them."""
    random = np.random.default_rng(0)
    for fmt in FORMATS:
        codes = every_value(random, fmt).view(np.uint16)
        np.testing.assert_array_equal(np.sort(codes, axis=None), np.arange(2**16))
        assert rows_of("tanh", fmt)[0].figures["elements"] == 2**16


# ---- spoilt kernels ---------------------------------------------------------------------------------------


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return what changes an op's result, or its gradients, by a function of the array."""

    def change(op: str, by: Callable[[Array], Array], part: str = "forward") -> None:
        right = getattr(OPS[op], part)

        def faulty(*args: Any, **options: Any) -> Any:
            made = right(*args, **options)
            with np.errstate(all="ignore"):
                return tuple(map(by, made)) if isinstance(made, tuple) else by(made)

        monkeypatch.setattr(OPS[op], part, faulty)

    return change


def up(x: Array) -> Array:
    """Return the next number of the format for each element of ordinary size."""
    return np.where((abs(x) > 0.01) & (abs(x) < 100), np.nextafter(x, np.inf), x).astype(x.dtype)


def gone(x: Array) -> Array:
    """Return 0 for NaN."""
    return np.where(np.isnan(x), np.zeros_like(x), x)


def held(x: Array) -> Array:
    """Return the largest number for infinity."""
    return np.where(np.isposinf(x), np.full_like(x, np.finfo(np.float16).max), x)


@pytest.mark.parametrize("by", [up, gone, held])
@pytest.mark.parametrize("name", ["exp", "add", "div", "rsqrt", "softplus"])
def test_an_ulp_or_a_place_that_is_wrong_is_found(
    spoil: Callable[..., None], name: str, by: Callable[[Array], Array]
) -> None:
    """Oracle: one ULP too many, NaN or infinity lost: ours is outside, and the row of the result says so."""
    spoil(name, by)
    row = next(row for row in rows_of(name) if row.verdict is Verdict.DIFFERS)
    assert row.case in ("float16, result", "no bound holds: float16, result")
    assert row.figures.get("ours_out") or row.figures["apart"]
    assert row.known == ""


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "matmul", "layer_norm", "div", "erf"])
def test_a_gradient_that_is_wrong_is_found_also_where_torchs_is(
    spoil: Callable[..., None], name: str
) -> None:
    """Oracle: gradients one ULP up; a known difference of torch's hides nothing of ours."""
    before = {row.case: row.verdict for row in rows_of(name)}
    if name in ("sigmoid", "layer_norm", "div", "erf"):
        assert before["float16, gradients"] is Verdict.DOCUMENTED
    spoil(name, up, "backward_rule")
    assert "float16, gradients" in wrong(name)


def torn_at_0(x: Array) -> Array:
    """Return NaN where all of a gradient is 0."""
    return x if np.any(x) else np.full_like(x, np.nan)


@pytest.mark.parametrize("name", ["std-dim", "linalg_vector_norm", "linalg_vector_norm-dim"])
def test_nan_where_a_norm_or_a_spread_is_0_is_found(spoil: Callable[..., None], name: str) -> None:
    """Oracle: 0 / 0 in place of the 0 that torch gives, which no known difference covers."""
    assert wrong(name) == []
    spoil(name.removesuffix("-dim"), torn_at_0, "backward_rule")
    assert any("gradients" in case for case in wrong(name))


def test_losses_are_compared_on_numbers() -> None:
    """Oracle: what a divergence is of: targets from 0 on, of which a sum is no NaN."""
    case = case_of("kl_div")
    x, t = torch_values._inputs(case, "float16", "normal", np.random.default_rng(0))
    assert np.isfinite(case.call(minimp_library(), mp.tensor(x), mp.tensor(t)).item())


def in_halves(ctx: Any, a: Array, b: Array) -> Array:
    """Add up the two halves of a product in 16 bits."""
    middle = a.shape[-1] // 2
    parts = (
        ctx.wide(a[..., :middle]) @ ctx.wide(b[:middle]),
        ctx.wide(a[..., middle:]) @ ctx.wide(b[middle:]),
    )
    return ctx.round(ctx.wide(ctx.round(parts[0])) + ctx.wide(ctx.round(parts[1])))


def one_after_the_other(
    ctx: Any, x: Array, *, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Array:
    """Add up in 16 bits."""
    total = np.zeros(x.shape[:-1], x.dtype)
    for i in range(x.shape[-1]):
        total = total + x[..., i]
    return total if dim is not None else total.sum(dtype=x.dtype)


@pytest.mark.parametrize(("name", "op", "forward"), [
    ("matmul", "matmul", in_halves), ("sum-dim", "sum", one_after_the_other),
])  # fmt: skip
@pytest.mark.parametrize("fmt", FORMATS)
def test_sums_in_16_bits_are_found(
    monkeypatch: pytest.MonkeyPatch, name: str, op: str, forward: Forward, fmt: str
) -> None:
    """Oracle: partial sums rounded to 16 bits: more than one rounding, outside the bound."""
    monkeypatch.setattr(OPS[op], "forward", forward)
    assert f"{fmt}, result" in [case.removesuffix(", dim") for case in wrong(name, fmt)]


def test_a_forgotten_rounding_is_found(spoil: Callable[..., None]) -> None:
    """Oracle: a float32 result of float16 inputs: another format, which no bound excuses."""
    spoil("tanh", lambda x: x.astype(np.float32))
    row = rows_of("tanh")[0]
    assert row.verdict is Verdict.DIFFERS
    assert "float32" in row.ours
    assert "float16" in row.ours


def test_a_difference_that_nobody_has_explained_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the list of known differences emptied: torch's looser gradient of a quotient differs."""
    monkeypatch.setattr(documented, "DIFFERENCES", ())
    (row,) = [row for row in rows_of("div") if row.verdict is Verdict.DIFFERS]
    assert row.case == "float16, gradients"
    assert row.figures["ours_out"] == 0 < row.figures["theirs_out"]
    assert wrong("argsort") == ["in float64 too: float16, result"]
    assert wrong("matmul", "bfloat16") == [f"no bound holds: bfloat16, {p}" for p in ("result", "gradients")]


@pytest.mark.parametrize(
    ("whose", "fault", "verdict"),
    [
        ("theirs", RuntimeError("\"cos\" not implemented for 'Half'"), Verdict.NOT_COMPARED),
        ("theirs", RuntimeError("expected a better day"), Verdict.DIFFERS),
        ("ours", mp.errors.ShapeError("expected one axis"), Verdict.DIFFERS),
        ("ours", TypeError('a "kernel" not implemented for numbers'), Verdict.DIFFERS),
    ],
)
def test_a_call_that_fails_is_a_row(whose: str, fault: Exception, verdict: Verdict) -> None:
    """Oracle: errors made up here: a kernel that torch lacks proves nothing, any other failure differs."""

    def fail(lib: Any, a: Any) -> Any:
        if isinstance(a, mp.Tensor) == (whose == "ours"):
            raise fault
        return lib.cos(a)

    (row,) = compare_case(Case("cos", fail, ((2, 3),)), "float16")
    said = {"ours": row.ours, "theirs": row.theirs or row.note}
    assert row.verdict is verdict
    assert str(fault).split("\n", maxsplit=1)[0] in said[whose]
    assert said[{"ours": "theirs", "theirs": "ours"}[whose]] == ""


# ---- what it counts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (half(1.0), half(1.0), 0),
        (half(1.0), half(1.0 + 2**-10), 1),
        (half(1.0), half(1.0 - 2**-11), 1),
        (half(0.0), half(-0.0), 0),
        (half(2.0**-24), half(-(2.0**-24)), 2),
        (half(65504.0, 1.0), half(np.inf, 1.0), 0),
        (half(np.nan), half(np.nan), 0),
        (half(1.0, 2.0), half(2.0, 2.0), 1024),
        (np.array([1, 2]), np.array([3, 4]), 0),
    ],
)
def test_ulps_are_steps_between_numbers(a: Array, b: Array, expected: int) -> None:
    """Oracle: steps counted by hand; what is not finite has no distance, and integers have none."""
    assert ulps(a, b) == expected


def test_a_tally_tells_the_ways_to_differ_apart() -> None:
    """Oracle: one element of each kind, by hand."""
    exact = np.array([1.0, 1.0, 1.0, 1.0, 1.0, np.nan])
    allowed = np.array([0.001, 0.001, 0.001, np.inf, np.inf, 0.0])
    ours = half(1.0, 1.0, 2.0, 1.0, np.inf, np.nan)
    theirs = half(1.0 + 2**-10, 2.0, 1.0, 7.0, 1.0, np.nan)
    tally = Tally()
    tally.add(ours, theirs, Bound(exact, allowed), "here", lambda: np.array([1.0, 1.0, 1.0, 1, 1, np.nan]))
    counts = {name: getattr(tally, name) for name in torch_values.COUNTS}
    assert counts == {
        "elements": 6, "equal": 1, "ours_out": 1, "theirs_out": 1, "otherwise": 0, "apart": 1, "unclaimed": 2
    }  # fmt: skip
    assert tally.max_ulp == ulps(half(1.0), half(2.0))  # and not 7, of which nothing is claimed
    again = Tally()
    again.add(ours[:2], theirs[:2], Bound(exact[:2], allowed[:2]), "here", lambda: np.array([1.0, 2.0]))
    assert (again.theirs_out, again.otherwise) == (0, 1)
    assert again.shown["otherwise"] == ("1", "2 where float64 is 1 +- 0.001 (here)")


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float32", "float64"])
def test_bits_cross_over_and_back(fmt: str) -> None:
    """Oracle: the bits themselves."""
    x = numbers(np.random.default_rng(0), (5, 7), fmt, "special").astype(formats.get(fmt).dtype).T
    back = from_torch(to_torch(x))
    assert back.dtype == x.dtype
    np.testing.assert_array_equal(back.view(np.uint8), np.ascontiguousarray(x).view(np.uint8))


# ---- the bound of a call ----------------------------------------------------------------------------------

CHAINS = (
    "nll_loss-cross_entropy", "softmax-softmin", "matmul-bilinear", "div-softsign", "l1_loss-weight",
    "linalg_vector_norm-cosine_similarity", "linalg_vector_norm-triplet_margin_loss",
    "mul-cosine_embedding_loss", "cat-roll", "expand-repeat", "getitem-chunk",
)  # fmt: skip


LOOSE = {case for case in CHAINS if case.endswith(("triplet_margin_loss", "embedding_loss", "weight"))}
"""Differences of like numbers, and quotients of sums: their errors are added up as if they were strangers."""


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("special", "large", "wide")])
@pytest.mark.parametrize("name", CHAINS)
def test_the_bound_of_several_ops_is_around_the_float64_value_of_the_call(name: str, kind: str) -> None:
    """Oracle: the call itself in float64; the float16 one lies within, and the bound is not slack."""
    case = case_of(name)
    random = np.random.default_rng(1)
    arrays = [numbers(random, shape, "float16", kind) for shape in case.shapes_for_values]
    arrays = list(case.domain(*arrays)) if case.domain else arrays
    made = {fmt: _run(case, arrays, fmt) for fmt in ("float16", "float64")}
    bounds, low = made["float16"][0], made["float16"][1]
    for bound, got, exact in zip(bounds, low, made["float64"][1], strict=True):
        claimed = np.isfinite(bound.allowed)
        gap = np.abs(bound.exact - exact)[claimed]
        assert (gap <= 1e-9 * np.abs(exact)[claimed].max(initial=1e-300)).all()
        assert (np.abs(got.astype(np.float64) - exact)[claimed] <= bound.allowed[claimed]).all()
    if name not in LOOSE:
        result = bounds[0]
        assert (result.allowed <= 0.02 * np.abs(result.exact).max() + 1e-4).mean() > 0.9


def _run(case: Case, arrays: list[Array], fmt: str) -> tuple[list[Bound], list[Array]]:
    """Return the bounds, and the values, of a call's result and of its gradients."""
    inputs = [mp.tensor(a, dtype=fmt, requires_grad=i not in case.targets) for i, a in enumerate(arrays)]
    events: list[Event] = []
    with listen(events.append), np.errstate(all="ignore"):
        y = case.call(minimp_library(), *inputs)
        grad = np.linspace(0.5, 1.5, y.array.size).reshape(y.shape).astype(y.dtype)
        y.backward(mp.tensor(grad.astype(np.float16), dtype=y.format))
        first = result_bound(events, y.array)
        found = gradient_bounds(events, grad.astype(np.float16).astype(y.dtype), y.node, inputs)
    pairs = [(bound, x.grad.numpy()) for bound, x in zip(found, inputs, strict=True) if bound is not None]
    return [first, *(b for b, _ in pairs)], [y.detach().numpy(), *(g for _, g in pairs)]
