"""Attention and embeddings; oracles: torch 2.13.0, the definition in float64, and the readable kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional
from minimp.backend import default_backend
from minimp.checks import check_events
from minimp.checks.families.attention import attention as meaning
from minimp.errors import DataError, FormatError, SettingError, ShapeError
from minimp.modes import listen
from minimp.tape import Event
from minimp_backends import attention_blocks
from minimp_backends.attention import AttentionKernels
from tests.ops.samples import numbers
from tests.ops.test_torch_parity import FLOATS, ROWS, both, to_torch
from tests.tolerances import assert_close

attend = functional.scaled_dot_product_attention
SHAPES = ((2, 3, 6, 4), (2, 3, 5, 4), (2, 3, 5, 7))
SOME = np.random.default_rng(0).random((6, 5)) < 0.6
SOME[3] = False  # attends to nothing
HEADS = np.random.default_rng(8).random((4, 5, 5)) < 0.7
INDEX = np.array([[1, 4, 1], [6, 0, 1]])


def _f() -> Any:
    return pytest.importorskip("torch").nn.functional


def _theirs(**options: Any) -> Callable[..., Any]:
    def call(*arrays: Any) -> Any:
        given = {k: to_torch(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
        return _f().scaled_dot_product_attention(*arrays, **given)

    return call


CALLS: dict[str, tuple[dict[str, Any], tuple[tuple[int, ...], ...]]] = {
    "plain": ({}, SHAPES),
    "causal": ({"is_causal": True}, SHAPES),
    "causal_wide": ({"is_causal": True, "scale": 0.25}, ((3, 4), (5, 4), (5, 4))),
    "masked": ({"attn_mask": SOME}, SHAPES),
    "biased": ({}, (*SHAPES, (2, 3, 6, 5))),
    "gqa": ({"enable_gqa": True, "is_causal": True}, ((2, 4, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4))),
    "gqa_masked": ({"enable_gqa": True, "attn_mask": HEADS}, ((2, 4, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4))),
    "gqa_alike": ({"enable_gqa": True, "attn_mask": HEADS[:1]}, ((4, 5, 4), (2, 5, 4), (2, 5, 4))),
    "no_keys": ({}, ((2, 3, 4), (2, 0, 4), (2, 0, 5))),
    "no_features": ({}, ((2, 3, 0), (2, 5, 0), (2, 5, 4))),
}


@pytest.mark.torch
@pytest.mark.parametrize("fmt", ["float64", *FLOATS])
@pytest.mark.parametrize("name", list(CALLS))
def test_results_and_gradients_are_torchs(name: str, fmt: str) -> None:
    """Oracle: torch in the same format (its CPU kernels round 16-bit probabilities, too)."""
    options, shapes = CALLS[name]
    random = np.random.default_rng(5)
    arrays = [numbers(random, shape, fmt) for shape in shapes]
    own, other = both(lambda *a: attend(*a, **options), _theirs(**options), arrays, fmt)
    row = ROWS.get(fmt, "fp64_sums")
    assert_close(own[0], other[0], row)
    for got, wanted in zip(own[1:], other[1:], strict=True):
        assert_close(got, wanted, row.replace("_op_", "_gradient_"))


@pytest.mark.torch
@pytest.mark.parametrize("fmt", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", list(CALLS))
def test_sixteen_bits_are_float32_rounded_once(name: str, fmt: str) -> None:
    """Oracle: torch in float32 on the same 16-bit numbers, rounded once: what its math path does on GPUs."""
    options, shapes = CALLS[name]
    arrays = [numbers(np.random.default_rng(6), shape, fmt) for shape in shapes]
    wide = [to_torch(a.astype(np.float32)) for a in arrays]
    wanted = _theirs(**options)(*wide).double().numpy()
    own = attend(*(mp.tensor(a, dtype=fmt) for a in arrays), **options)
    assert own.format.name == fmt
    assert_close(own.numpy(), wanted, ROWS[fmt])


@pytest.mark.torch
@pytest.mark.parametrize("low", ["float16", "bfloat16"])
def test_autocast_is_torchs(low: str) -> None:
    """Oracle: the formats that torch.autocast gives on the CPU: attention is cast down, a table is not."""
    torch = pytest.importorskip("torch")
    q = np.ones((1, 2, 3, 4), np.float32)
    table = np.ones((5, 3), np.float32)
    with torch.autocast("cpu", dtype=getattr(torch, low)):
        theirs = [
            _f().scaled_dot_product_attention(*(to_torch(q) for _ in range(3))),
            _f().embedding(torch.tensor([1, 2]), to_torch(table)),
        ]
    with mp.autocast(low):
        own = [attend(mp.tensor(q), mp.tensor(q), mp.tensor(q)), functional.embedding([1, 2], table)]
    assert [x.format.name for x in own] == [str(x.dtype).removeprefix("torch.") for x in theirs]


# ---- blocks ---------------------------------------------------------------------------------------------


LARGE = {
    "causal": ((3, 2, 150, 8), (3, 2, 150, 8), (3, 2, 150, 16), {"causal": True}),
    "causal_few_keys": ((2, 150, 8), (2, 70, 8), (2, 70, 8), {"causal": True}),
    "causal_few_queries": ((2, 70, 8), (2, 150, 8), (2, 150, 8), {"causal": True}),
    "plain": ((5, 3, 2, 40, 8), (3, 1, 90, 8), (90, 8), {}),
    "single": ((100, 8), (60, 8), (60, 8), {}),
}


@pytest.mark.host("the blocks are NumPy's alone")
@pytest.mark.parametrize("block", [1, 300, 1 << 12, 1 << 20])
@pytest.mark.parametrize("masks", ["bare", "bool", "bias", "dropped"])
@pytest.mark.parametrize("name", list(LARGE))
def test_blocks_of_any_size_give_what_the_readable_form_gives(
    name: str, masks: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the readable form in float64, on the same numbers."""
    monkeypatch.setattr(attention_blocks, "BLOCK", block)
    monkeypatch.setattr(attention_blocks, "ROWS", 16 if block < 1000 else 64)
    *shapes, settings = LARGE[name]
    random = np.random.default_rng(1)
    q, k, v = (random.standard_normal(shape) for shape in shapes)
    lead = np.broadcast_shapes(*(x.shape[:-2] for x in (q, k, v)))
    scores = (*lead, q.shape[-2], k.shape[-2])
    extra = {
        "bare": {},
        "bool": {"mask": random.random(scores[-2:]) < 0.5},
        "bias": {"mask": random.standard_normal(scores)},
        "dropped": {"keep": random.random(scores) < 0.7, "factor": 1 / 0.7},
    }[masks]
    backend = default_backend()
    how = backend.masking(scale=0.3, **settings, **extra)
    y, log_sum = AttentionKernels.attention(backend, q, k, v, how, accumulate="float64")
    grad = random.standard_normal(y.shape)
    wanted = AttentionKernels.attention_gradient(
        backend, grad, q, k, v, log_sum, how, needs_scores=True, accumulate="float64"
    )
    found = attention_blocks.attend(q, k, v, how)
    slopes = attention_blocks.attend_gradient(grad, q, k, v, log_sum, how, needs_scores=True)
    for got, right in zip((*found, *slopes), (y, log_sum, *wanted), strict=True):
        assert got.shape == right.shape
        assert_close(got, right, "fp64_sums")


@pytest.mark.host("the blocks are NumPy's alone")
def test_heads_that_are_views_stay_views() -> None:
    """Oracle: strides: result and gradients lie in memory as the queries do, so that no copy is made."""
    q, k, v = (np.ones((2, 6, 3, 4), np.float32).transpose(0, 2, 1, 3) for _ in range(3))
    how = default_backend().masking(scale=0.5, causal=True)
    y, log_sum = attention_blocks.attend(q, k, v, how)
    for each in (y, *attention_blocks.attend_gradient(y, q, k, v, log_sum, how)[:3]):
        assert each.strides == q.strides


# ---- what is drawn and what is kept ---------------------------------------------------------------------


@pytest.mark.host("a device draws masks of its own")
def test_dropout_thins_the_probabilities() -> None:
    """Oracle: the definition in float64 with the mask that the generator draws; all of them at p = 1."""
    random = np.random.default_rng(2)
    q, k, v = (random.standard_normal(shape) for shape in SHAPES)
    mp.manual_seed(7)
    y = attend(*(mp.tensor(x, dtype="float64") for x in (q, k, v)), dropout_p=0.4)
    mp.manual_seed(7)
    keep = mp.rng.generator().random((2, 3, 6, 5)) >= 0.4
    assert_close(y.numpy(), meaning(q, k, v, None, keep, scale=0.5, dropout_p=0.4), "fp64_sums")
    assert not attend(*(mp.tensor(x) for x in (q, k, v)), dropout_p=1.0).numpy().any()


@pytest.mark.parametrize("fmt", ["float32", "float16"])
def test_no_probabilities_are_kept(fmt: str) -> None:
    """Oracle: q, k and v as they came, and four bytes a query."""
    q, k, v = (mp.tensor(np.ones(shape), dtype=fmt, requires_grad=True) for shape in SHAPES)
    saved = attend(q, k, v, is_causal=True).node.saved
    assert [a is b for a, b in zip(saved, (q.array, k.array, v.array), strict=False)] == [True] * 3
    assert [x is None for x in saved[3:5]] == [True, True]
    assert (saved[5].shape, saved[5].dtype) == ((2, 3, 6, 1), np.float32)


NAMES = [
    "float64",
    "exact",
    "pairwise",
    "kahan",
    "float16",
    "chunked:4",
    "tensorcore:ampere",
    "tensorcore:volta",
]


WAYS = [("float16", name) for name in NAMES]
WAYS += [
    ("float32", name) for name in NAMES if not name.startswith("tensorcore")
]  # units take 16-bit factors


@pytest.mark.parametrize(("fmt", "name"), WAYS)
def test_sums_keep_their_bound_however_they_are_accumulated(name: str, fmt: str) -> None:
    """Oracle: the definition in float64, with the gamma of each accumulation; units take 16-bit factors."""
    random = np.random.default_rng(3)
    events: list[Event] = []
    with mp.accumulate(name), listen(events.append):
        arrays = [mp.tensor(numbers(random, s, fmt), dtype=fmt, requires_grad=True) for s in SHAPES]
        table = mp.tensor(numbers(random, (7, 3), fmt), dtype=fmt, requires_grad=True)
        (attend(*arrays, is_causal=True).sum() + functional.embedding(INDEX, table).sum()).backward()
    found = check_events(events)
    assert found, str(found)


# ---- embedding ------------------------------------------------------------------------------------------


ROWS_OF = {"plain": {}, "padding": {"padding_idx": -6}, "by_frequency": {"scale_grad_by_freq": True}}


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("name", list(ROWS_OF))
def test_embeddings_are_torchs(name: str, fmt: str) -> None:
    """Oracle: torch; rows bit for bit, their gradients to a rounding of the sums."""
    options = ROWS_OF[name]
    table = numbers(np.random.default_rng(4), (7, 3), fmt)
    own, other = both(
        lambda w: functional.embedding(INDEX, w, **options),
        lambda w: _f().embedding(to_torch(INDEX), w, **options), [table], fmt,
    )  # fmt: skip
    np.testing.assert_array_equal(own[0].astype(np.float64), other[0])
    assert_close(own[1], other[1], ROWS[fmt].replace("_op_", "_gradient_"))


@pytest.mark.parametrize("fmt", ["float64", *FLOATS])
@pytest.mark.parametrize("name", list(ROWS_OF))
def test_embeddings_keep_their_contract(name: str, fmt: str) -> None:
    """Oracle: the sums of the gradients in float64, and their bound; many places take each row."""
    index = np.random.default_rng(5).integers(0, 9, (40, 7))
    table = mp.tensor(numbers(np.random.default_rng(6), (9, 3), fmt), dtype=fmt, requires_grad=True)
    events: list[Event] = []
    with listen(events.append):
        y = functional.embedding(index, table, **ROWS_OF[name])
        y.backward(numbers(np.random.default_rng(7), y.shape, fmt))
    found = check_events(events)
    assert found, str(found)


def test_no_rows_at_all() -> None:
    """Oracle: torch's shapes, and a gradient of zeros."""
    table = mp.tensor(np.ones((5, 3)), requires_grad=True)
    y = functional.embedding(np.zeros((2, 0), int), table)
    assert y.shape == (2, 0, 3)
    y.sum().backward()
    np.testing.assert_array_equal(table.grad.numpy(), np.zeros((5, 3)))


Q = mp.tensor(np.ones((2, 3, 4)), dtype="float32")
REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "both": (lambda: attend(Q, Q, Q, np.ones((3, 3), bool), is_causal=True), SettingError, "cannot both act"),
    "dropout": (lambda: attend(Q, Q, Q, dropout_p=1.5), SettingError, "from 0 to 1, got 1.5"),
    "mask_dtype": (lambda: attend(Q, Q, Q, np.ones((3, 3), int)), DataError, "a mask of bool or of float32"),
    "mask_format": (lambda: attend(Q, Q, Q, mp.tensor(np.ones((3, 3))).half()), FormatError, "one format"),
    "mask_shape": (lambda: attend(Q, Q, Q, np.ones((4, 3), bool)), ShapeError, r"attn_mask of \(..., 3, 3\)"),
    "features": (lambda: attend(Q, Q[..., :3], Q), ShapeError, r"key \(..., S, E\)"),
    "keys": (lambda: attend(Q, Q, Q[:, :2]), ShapeError, r"value \(..., S, V\)"),
    "vector": (lambda: attend(Q[0, 0], Q, Q), ShapeError, r"query \(..., L, E\)"),
    "formats": (lambda: attend(Q.half(), Q, Q), FormatError, "inputs of one format"),
    "heads": (lambda: attend(Q, mp.tensor(np.ones((3, 3, 4))), Q, enable_gqa=True), ShapeError, "a multiple"),
    "lead": (lambda: attend(Q, Q[:1].expand(3, 3, 4), Q), ShapeError, "cannot compute on shapes"),
    "index": (lambda: functional.embedding([0, 5], np.ones((5, 2))), DataError, "from 0 to 4, got 5"),
    "negative": (lambda: functional.embedding([-1], np.ones((5, 2))), DataError, "from 0 to 4, got -1"),
    "real": (lambda: functional.embedding([1.0], np.ones((5, 2))), DataError, "integer labels, got float32"),
    "table": (lambda: functional.embedding([1], np.ones(5)), ShapeError, r"a table \(V, D\)"),
    "padding": (lambda: functional.embedding([1], np.ones((5, 2)), 5), SettingError, "from -5 to 4, got 5"),
    "max_norm": (lambda: functional.embedding([1], np.ones((5, 2)), max_norm=1.0), SettingError, "max_norm"),
    "sparse": (lambda: functional.embedding([1], np.ones((5, 2)), sparse=True), SettingError, "dense"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_is_refused(name: str) -> None:
    """Oracle: type and words of each error."""
    call, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        call()
