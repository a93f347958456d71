"""Known differences: what a row of the list is, whether it is still true, and whether its reason is.

The reasons say what torch's CPU does. Here they are tried: torch's own ops, put together as the reason says,
must give the bits of the op that they are the reason of.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import pytest

from minimp.frameworks.cases import CASES
from minimp.frameworks.cases.numbers import every_value, numbers
from minimp.frameworks.documented import DIFFERENCES, known_difference
from minimp.frameworks.documented.difference import Difference
from minimp.frameworks.documented.ops import OP_DIFFERENCES
from minimp.frameworks.documented.values import VALUE_DIFFERENCES
from minimp.frameworks.ops import torch_formats, torch_values
from minimp.frameworks.ops.torch_values import compare_case, to_torch
from minimp.frameworks.results import Row, Verdict

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch
LOW = {"float16": torch.float16, "bfloat16": torch.bfloat16}
T = Any
F = torch.nn.functional


# ---- the list ---------------------------------------------------------------------------------------------


def test_a_difference_covers_what_its_patterns_say() -> None:
    """Oracle: by hand: framework and section by name, subject and case by pattern."""
    one = Difference("x", "torch", "values", ("cum*", "sum"), "float16, *", "why", "where")
    assert one.covers("torch", "values", "cumsum", "float16, result")
    assert one.covers("torch", "values", "sum", "float16, gradients")
    others = [
        ("jax", "values", "sum", "float16, result"), ("torch", "formats", "sum", "float16, result"),
        ("torch", "values", "mean", "float16, result"), ("torch", "values", "sum", "bfloat16, result"),
    ]  # fmt: skip
    for other in others:
        assert not one.covers(*other)


def test_every_difference_gives_a_reason_and_a_source() -> None:
    """Oracle: the list: nothing is empty, and no name, and no op of a row, stands twice."""
    assert len({each.name for each in DIFFERENCES}) == len(DIFFERENCES)
    for each in DIFFERENCES:
        assert len(each.reason) > 40, each.name
        assert len(each.source) > 10, each.name
        assert len(set(each.subjects)) == len(each.subjects), each.name
        assert each.cases


def test_no_pattern_is_wide_enough_for_what_agrees_everywhere() -> None:
    """Oracle: ops that round once in both: no known difference speaks of their plain rows."""
    for op, fmt, part in itertools.product(
        ("add", "sub", "neg", "relu", "exp", "tanh", "max_pool2d", "cat"), LOW, ("result", "gradients")
    ):
        assert known_difference("torch", "values", op, f"{fmt}, {part}") is None
        assert known_difference("torch", "formats", op, f"cpu, {fmt}, all low") is None


@pytest.mark.parametrize(
    ("section", "op", "case"),
    [
        ("formats", "index_copy", "cuda, float16, all float32"),
        ("values", "getitem", "in float64 too: float16, gradients"),
        ("values", "argsort", "in float64 too: float16, gradients"),
        ("values", "amax", "in float64 too: float16, gradients"),
        ("values", "sum", "in float64 too: float16, result"),
        ("values", "softmax", "in float64 too: bfloat16, gradients, softmin"),
        ("values", "std", "no bound holds: float16, gradients, dim"),
    ],
)
def test_a_difference_covers_the_cases_of_its_reason_alone(section: str, op: str, case: str) -> None:
    """Oracle: by hand: cases of which the reason given for an op (ties, dtype=, formats) does not speak."""
    assert known_difference("torch", section, op, case) is None


def test_a_difference_of_values_is_of_one_kind() -> None:
    """Oracle: the beginnings of a row's case: a difference in rounding does not excuse one in meaning."""
    kinds = {"rounding": "float16, gradients", "meaning": "in float64 too: float16, gradients",
             "range": "no bound holds: float16, gradients"}  # fmt: skip
    for each in VALUE_DIFFERENCES:
        variants = [case + what for case in kinds.values() for what in ("", ", dtype", ", bilinear")]
        variants += [v.replace("float16", "bfloat16") for v in variants]
        variants += [v.replace("gradients", "result") for v in variants]
        covered = {v.split(":")[0] if ":" in v else "" for v in variants if fnmatchcase(v, each.cases)}
        assert len(covered) <= 1 or each.name == "atan2-at-the-origin", each.name


# ---- still true -------------------------------------------------------------------------------------------


def unused(rows: list[Row], listed: tuple[Difference, ...]) -> list[tuple[str, str]]:
    """Return (name, subject) of the differences that none of the rows shows."""
    shown = {(row.known, row.subject) for row in rows if row.verdict is Verdict.DOCUMENTED}
    return [
        (each.name, subject)
        for each in listed
        for subject in each.subjects
        if not any(name == each.name and fnmatchcase(op, subject) for name, op in shown)
    ]


def test_a_difference_that_is_gone_is_found() -> None:
    """Oracle: a row made up here that shows one of two subjects."""
    one = Difference("x", "torch", "values", ("sum", "mean"), "*", "why", "where")
    shown = Row("sum", "float16, result", "1", "2", Verdict.DOCUMENTED, known="x")
    assert unused([shown], (one,)) == [("x", "mean")]
    assert unused([], (one,)) == [("x", "sum"), ("x", "mean")]


@pytest.mark.slow
def test_every_difference_of_formats_is_still_there() -> None:
    """Oracle: the installed torch: each listed op still differs."""
    assert unused(list(torch_formats.compare().rows), OP_DIFFERENCES) == []


RARE = {
    "addcdiv": (9,), "batch_norm": (3,), "gelu": (15,), "glu": (15,), "hinge_embedding_loss": (6, 11, 15),
    "mul": (3,), "poisson_nll_loss": (6,), "prelu": (9,), "sum": (9,), "var": (9,),
}  # fmt: skip
"""Op -> seeds of inputs that meet what is rare: infinity beside NaN, a sum that overflows in one order."""
VECTORS = torch.backends.cpu.get_cpu_capability()
ONE_MACHINE = {
    "subnormals-are-0": ("AVX512",),
    **dict.fromkeys(
        ("erf-is-absolute", "exponentials-overflow", "remainder-overflows", "formulas-beyond-the-range"),
        ("AVX512", "AVX2"),
    ),
    **dict.fromkeys(("rsqrt-in-two-roundings", "cubes-beyond-the-range"), ("DEFAULT",)),
}
"""Differences that show with some vector instructions of the processor -> with which."""


@pytest.mark.slow
def test_every_difference_of_values_is_still_there() -> None:
    """Oracle: the installed torch: each op of each difference still differs; and nothing else."""
    section = torch_values.compare(0)
    assert section, section.of(Verdict.DIFFERS)
    rare = [(case, seed) for case in CASES for seed in RARE.get(case.op, ())]
    more = [row for case, seed in rare for fmt in LOW for row in compare_case(case, fmt, seed)]
    assert [row for row in more if row.verdict is Verdict.DIFFERS] == []
    listed = tuple(each for each in VALUE_DIFFERENCES if VECTORS in ONE_MACHINE.get(each.name, (VECTORS,)))
    assert unused([*section.rows, *more], listed) == []


# ---- the reasons ------------------------------------------------------------------------------------------

UNARY: dict[str, tuple[Callable[[T], T], Callable[[T, T, T], T]]] = {
    "acos": (torch.acos, lambda x, y, g: g * -((-x * x + 1).rsqrt())),
    "asin": (torch.asin, lambda x, y, g: g * (-x * x + 1).rsqrt()),
    "atan": (torch.atan, lambda x, y, g: g / (x * x + 1)),
    "cos": (torch.cos, lambda x, y, g: g * -x.sin()),
    "cosh": (torch.cosh, lambda x, y, g: g * x.sinh()),
    "erf": (torch.erf, lambda x, y, g: 2 / math.sqrt(math.pi) * torch.exp(-(x.pow(2))) * g),
    "expm1": (torch.expm1, lambda x, y, g: g * (y + 1)),
    "log10": (torch.log10, lambda x, y, g: g / (x * math.log(10))),
    "log1p": (torch.log1p, lambda x, y, g: g / (x + 1)),
    "log2": (torch.log2, lambda x, y, g: g / (x * math.log(2))),
    "pow": (lambda x: x**2, lambda x, y, g: g * (2 * x.pow(1))),
    "power of 2": (lambda x: 2.0**x, lambda x, y, g: g * (y * math.log(2))),
    "reciprocal": (torch.reciprocal, lambda x, y, g: -g * (y * y)),
    "rsqrt": (torch.rsqrt, lambda x, y, g: -0.5 * g * y.pow(3)),
    "sin": (torch.sin, lambda x, y, g: g * x.cos()),
    "sinh": (torch.sinh, lambda x, y, g: g * x.cosh()),
    "tan": (torch.tan, lambda x, y, g: g * (1 + y.pow(2))),
}
"""Op -> its gradient in separate ops: tools/autograd/derivatives.yaml of torch 2.13.0."""


def same(a: T, b: T) -> bool:
    """Tell whether two tensors have one format and the same values, NaN equal to NaN."""
    return a.dtype is b.dtype and bool(((a == b) | (a.isnan() & b.isnan())).all())


def made(fmt: str, *shape: int, seed: int = 0, kind: str = "normal") -> T:
    """Return a tensor of numbers that requires a gradient."""
    values = numbers(np.random.default_rng([seed, *shape]), shape, fmt, kind)
    return to_torch(values).to(LOW[fmt]).requires_grad_()


def gradients(y: T, *inputs: T) -> tuple[T, tuple[T, ...]]:
    """Return a gradient of y, and what it gives the inputs."""
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y.dtype)
    y.backward(g)
    return g, tuple(x.grad for x in inputs)


@pytest.mark.parametrize("fmt", LOW)
@pytest.mark.parametrize("op", UNARY)
def test_gradients_are_made_of_several_16_bit_ops(op: str, fmt: str) -> None:
    """Oracle: torch's own ops, one after the other, on every number of the format: the same bits."""
    forward, formula = UNARY[op]
    x = to_torch(every_value(np.random.default_rng(0), fmt)).requires_grad_()
    y = forward(x)
    g, (found,) = gradients(y, x)
    with torch.no_grad():
        assert same(found, formula(x, y, g))


S = (6, 48)
N = 6 * 48
Formula = Callable[..., tuple[T | None, ...]]
SEVERAL: dict[str, tuple[Callable[..., T], tuple[tuple[int, ...], ...], Formula]] = {
    "addcdiv": (
        torch.addcdiv, (S, S, S), lambda y, g, x, a, b: (None, g, g * (1 / b), -g * (1 * a / (b * b)))
    ),
    "div": (torch.div, (S, S), lambda y, g, a, b: (None, g / b, -g * ((a / b) / b))),
    "lerp": (torch.lerp, (S, S, S), lambda y, g, a, b, w: (None, g * (1 - w), g * w, g * (b - a))),
    "remainder": (
        torch.remainder, (S, S), lambda y, g, a, b: (None, g, -g * a.div(b, rounding_mode="floor"))
    ),
    "atan2": (
        torch.atan2, (S, S),
        lambda y, g, a, b: (None, g * b * (1 / (a * a + b * b)), g * -a * (1 / (a * a + b * b))),
    ),
    "pow": (
        torch.pow, (S, S),
        lambda y, g, a, p: (None, torch.where(p == 0, 0, g * (p * a.pow(p - 1))), g * (y * a.log())),
    ),
    "var": (torch.var, (S,), lambda y, g, x: (None, 2.0 / (N - 1) * g * (x - x.mean()))),
    "std": (torch.std, (S,), lambda y, g, x: (None, 2.0 / (N - 1) * (g / (y * 2)) * (x - x.mean()))),
    "linalg_vector_norm": (torch.norm, (S,), lambda y, g, x: (None, g * (x / y))),
    "cumprod": (lambda x: x.cumprod(0), (S,), lambda y, g, x: (None, (y * g).flip(0).cumsum(0).flip(0) / x)),
    "logsumexp": (
        lambda x: x.logsumexp(1), (S,),
        lambda y, g, x: (
            (x - x.amax(1, True)).exp().sum(1).log() + x.amax(1), g[:, None] * (x - y[:, None]).exp()
        ),
    ),
    "vecdot": (torch.linalg.vecdot, (S, S), lambda y, g, a, b: ((a * b).sum(-1), None, None)),
    "mse_loss": (
        F.mse_loss, (S, S), lambda y, g, a, b: (((a - b) ** 2).mean(), whole(2 / N, a) * (a - b) * g, None)
    ),
    "l1_loss": (F.l1_loss, (S, S), lambda y, g, a, b: ((a - b).abs().mean(), (g / N) * (a - b).sign(), None)),
    "huber_loss": (
        F.huber_loss, (S, S),
        lambda y, g, a, b: (
            F.huber_loss(a, b, reduction="none").mean(), huber(a - b, whole(1 / N, a), g), None
        ),
    ),
    "smooth_l1_loss": (
        F.smooth_l1_loss, (S, S),
        lambda y, g, a, b: (F.smooth_l1_loss(a, b, reduction="none").mean(), None, None),
    ),
    "poisson_nll_loss": (
        F.poisson_nll_loss, (S, S),
        lambda y, g, a, b: ((a.exp() - b * a).mean(), (g / N) * a.exp() + -(g / N) * b, -(g / N) * a),
    ),
    "kl_div": (
        lambda a, b: F.kl_div(a, b, reduction="sum", log_target=True), (S, S),
        lambda y, g, a, b: ((b.exp() * (b - a)).sum(), g * -b.exp(), None),
    ),
    "binary_cross_entropy_with_logits": (
        F.binary_cross_entropy_with_logits, (S, S),
        lambda y, g, a, b: (((1 - b) * a - F.logsigmoid(a)).mean(), (torch.sigmoid(a) - b) * g / N, None),
    ),
    "prelu": (F.prelu, (S, (48,)), lambda y, g, a, w: (None, None, torch.where(a > 0, 0, a * g).sum(0))),
    "batch_norm": (
        lambda x: F.batch_norm(x, None, None, training=True), ((2, 4, 8, 8),),
        lambda y, g, x: (normalized(x), None),
    ),
    "glu": (F.glu, (S,), lambda y, g, x: (None, gated(x, g))),
    "log_sigmoid": (F.logsigmoid, (S,), lambda y, g, x: (None, log_gated(x, g))),
    "replication_pad3d": (
        lambda x: F.pad(x, (1,) * 6, mode="replicate"), ((2, 2, 4, 5, 6),),
        lambda y, g, x: (None, borders(g, x)),
    ),
}  # fmt: skip
"""Op -> its call, shapes, and what its result (or None) and its gradients (or None) are made of."""


def whole(value: float, like: T) -> T:
    """Return a factor in the format of a tensor."""
    return torch.tensor(value, dtype=like.dtype)


def huber(gap: T, n: T, g: T) -> T:
    """Return huber_loss's gradient, in 16 bits."""
    return torch.where(gap < -1, -n * g, torch.where(gap > 1, n * g, n * gap * g))


def normalized(x: T) -> T:
    """Return batch_norm's result from statistics that are rounded to the format."""
    wide, axes = x.float(), (0, 2, 3)
    mean = wide.mean(axes, keepdim=True).to(x.dtype).float()
    scale = (1 / (wide.var(axes, unbiased=False, keepdim=True) + 1e-5).sqrt()).to(x.dtype).float()
    return ((wide - mean) * scale).to(x.dtype)


def gated(x: T, g: T) -> T:
    """Return glu's gradient in float32 from a sigmoid that is rounded to the format."""
    a, gate = x.chunk(2, -1)
    s = gate.sigmoid().float()
    return torch.cat([(s * g.float()).to(x.dtype), ((1 - s) * s * g.float() * a.float()).to(x.dtype)], -1)


def log_gated(x: T, g: T) -> T:
    """Return log_sigmoid's gradient in float32 from e^-|x| rounded to the format."""
    z, below = torch.exp(-x.abs()).float(), (x < 0).float()
    return ((below - (2 * below - 1) * (z / (1 + z))) * g.float()).to(x.dtype)


def borders(g: T, x: T) -> T:
    """Add up in 16 bits what meets in each element, one after the other."""
    total = torch.zeros_like(x)
    kept = [[0, *range(n), n - 1] for n in x.shape[2:]]
    for here in itertools.product(*(range(len(each)) for each in kept)):
        i, j, k = (each[at] for each, at in zip(kept, here, strict=True))
        total[:, :, i, j, k] += g[:, :, here[0], here[1], here[2]]
    return total


@pytest.mark.parametrize("fmt", LOW)
@pytest.mark.parametrize("op", SEVERAL)
def test_torch_rounds_where_the_reason_says(op: str, fmt: str) -> None:
    """Oracle: torch's own ops put together as the reason says: the same bits."""
    call, shapes, formula = SEVERAL[op]
    inputs = [made(fmt, *shape, seed=i) for i, shape in enumerate(shapes)]
    y = call(*inputs)
    g, found = gradients(y, *inputs)
    with torch.no_grad():
        result, *parts = formula(y, g, *inputs)
        assert result is None or same(y, result)
        for part, each in zip(parts, found, strict=True):
            assert part is None or same(each, part)


def test_sigmoids_gradient_is_computed_in_float16() -> None:
    """Oracle: torch's own ops in float16, on every number."""
    x = to_torch(every_value(np.random.default_rng(0), "float16")).requires_grad_()
    y = x.sigmoid()
    g, (found,) = gradients(y, x)
    with torch.no_grad():
        assert same(found, g * (1 - y) * y)


@pytest.mark.parametrize("fmt", LOW)
def test_log_softmax_rounds_the_sum_and_its_logarithm(fmt: str) -> None:
    """Oracle: the formula with a sum and a logarithm in 16 bits: the same bits."""
    x = made(fmt, *S).detach()
    shifted = x.float() - x.amax(1, True).float()
    logarithm = shifted.exp().sum(1, True).to(x.dtype).log()
    assert same(F.log_softmax(x, 1), (shifted - logarithm.float()).to(x.dtype))


def test_convolutions_add_up_float16_columns() -> None:
    """Oracle: float16 products, added up in float16 at each place of the kernel in turn."""
    x, w, b = (made("float16", *shape).detach() for shape in ((2, 4, 5, 5), (4, 5, 3, 3), (5,)))
    columns = torch.einsum("nchw,coij->noijhw", x.float(), w.float()).half()
    total = torch.zeros(2, 5, 7, 7, dtype=torch.float16)
    for i, j in itertools.product(range(3), range(3)):
        total[:, :, i : i + 5, j : j + 5] += columns[:, :, i, j]
    assert same(F.conv_transpose2d(x, w, b), total + b[:, None, None])


def test_products_run_on_in_bfloat16() -> None:
    """Oracle: bfloat16 products, one after the other."""
    x = made("bfloat16", *S).detach()
    total = torch.ones(6, dtype=torch.bfloat16)
    for column in x.unbind(1):
        total = total * column
    assert same(x.prod(1), total)


def test_numbers_at_the_ends_of_the_range_go_where_the_reasons_say() -> None:
    """Oracle: the values that the reasons name."""
    low, nan = torch.bfloat16, float("nan")
    assert torch.sigmoid(torch.tensor(-89.0, dtype=low)).item() == 0
    assert (
        torch.sigmoid(torch.tensor(-89.0).double()).item() > torch.finfo(torch.float32).smallest_normal / 10
    )
    assert torch.sign(torch.tensor(nan)).item() == 0
    query, rest = torch.ones(1, 1, 2, 4), torch.ones(1, 1, 3, 4)
    query[0, 0, 0, 0] = nan
    assert F.scaled_dot_product_attention(query, rest, rest)[0, 0, 0].tolist() == [0.0] * 4
    statistics = torch.native_layer_norm(torch.ones(2, 4, dtype=torch.float16), (4,), None, None, 1e-5)[1:]
    assert {each.dtype for each in statistics} == {torch.float16}


def test_what_vector_instructions_do_is_what_the_reasons_say() -> None:
    """Oracle: the values that the reasons name, and those of plain instructions, which round once."""
    vectors, low = VECTORS in ("AVX2", "AVX512"), torch.bfloat16
    cosh = torch.cosh(torch.full((64,), 89.0, dtype=low))
    assert (cosh.isinf() == vectors).all()
    large, little = (torch.full((64,), value, dtype=low) for value in (2441216.0, 9.450974580611192e-36))
    assert ((large % little).isnan() == vectors).all()
    tiny = torch.full((64,), 6e-8, dtype=torch.float16)
    assert ((torch.erf(tiny) == 0) == vectors).all()
    x = to_torch(every_value(np.random.default_rng(0), "float16"))
    once = x.double().rsqrt().half()
    assert same(x.rsqrt(), once if vectors else 1 / x.sqrt())
