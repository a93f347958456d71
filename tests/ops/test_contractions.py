"""einsum and the strictly named products: beside torch 2.13.0 and NumPy's einsum, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import minimp as mp
from minimp import functional as f
from minimp.checks import gradcheck
from minimp.errors import FormatError, SettingError, ShapeError
from minimp.modes import listen
from minimp.tape import Event
from tests.ops.samples import FLOATS
from tests.ops.test_torch_parity import both
from tests.tolerances import assert_bound, assert_close, dot_bound

Shapes = list[tuple[int, ...]]
ROWS = {
    "float64": ("fp64_sums", "fp64_sums"),
    "float32": ("parity_op_fp32", "parity_gradient_fp32"),
    "float16": ("parity_op_fp16", "parity_gradient_fp16"),
    "bfloat16": ("parity_op_bf16", "parity_gradient_bf16"),
}
EQUATIONS: dict[str, Shapes] = {
    "ij,jk->ik": [(4, 6), (6, 3)],
    "ij,kj->ki": [(4, 6), (3, 6)],
    "bij,bjk->bik": [(2, 4, 6), (2, 6, 3)],
    "bhid,bhjd->bhij": [(2, 3, 4, 6), (2, 3, 5, 6)],
    "bhij,bjhd->bihd": [(2, 3, 4, 5), (2, 5, 3, 6)],
    "ib,jb->bij": [(4, 2), (5, 2)],
    "ijk,jil->kl": [(4, 3, 5), (3, 4, 6)],
    "i,j->ij": [(4,), (5,)],
    "ij,ij->ij": [(4, 5), (4, 5)],
    "ij,ij->": [(4, 5), (4, 5)],
    "ij,ij": [(4, 5), (4, 5)],
    "ba,cb": [(4, 5), (3, 4)],
    "Za,ab": [(4, 5), (5, 3)],
    "ij->ji": [(4, 5)],
    "ij->j": [(4, 5)],
    "ij->": [(4, 5)],
    "ii->i": [(4, 4)],
    "ii": [(4, 4)],
    "iji->j": [(4, 5, 4)],
    "iii->i": [(3, 3, 3)],
    "ii,ij->j": [(4, 4), (4, 5)],
    "...ij,...jk->...ik": [(2, 3, 4, 6), (3, 6, 5)],
    "...ij,jk": [(2, 4, 6), (6, 5)],
    "i...,i...->...": [(4, 2, 3), (4, 1, 3)],
    "...,...->...": [(2, 3), (3,)],
    "ij,jk->ik ": [(4, 1), (6, 3)],
    "ij,ik->jk": [(1, 5), (4, 3)],
    "ij,jk,kl->il": [(4, 5), (5, 3), (3, 6)],
    "bn,anm,bm->ba": [(2, 5), (4, 5, 3), (2, 3)],
    "a,b,c->abc": [(2,), (3,), (4,)],
    "ij,k->ij": [(4, 5), (3,)],
    "i,->i": [(4,), ()],
    "ij,jk->k": [(0, 6), (6, 3)],
    "ij,jk->ik  ": [(4, 0), (0, 3)],
}


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("equation", list(EQUATIONS))
def test_einsum_is_torchs(equation: str, fmt: str) -> None:
    """Oracle: torch.einsum in the same format, results and gradients."""
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(len(equation))
    arrays = [mp.formats.round(random.standard_normal(shape), fmt) for shape in EQUATIONS[equation]]
    own, other = both(lambda *a: f.einsum(equation, *a), lambda *a: torch.einsum(equation, *a), arrays, fmt)
    several = len(arrays) > 2  # each product but the last is rounded on the way
    assert_close(own[0], other[0], ROWS[fmt][several])
    for got, wanted in zip(own[1:], other[1:], strict=True):
        assert_close(got, wanted, ROWS[fmt][1])


@given(st.data())
def test_einsum_is_numpys(data: st.DataObject) -> None:
    """Oracle: np.einsum in float64, on equations drawn at random: repeated labels, sums, any output order."""
    terms = data.draw(st.lists(st.text("abcd", max_size=3), min_size=1, max_size=3))
    known = sorted(set("".join(terms)))
    output = "".join(data.draw(st.permutations(known))[: data.draw(st.integers(0, len(known)))])
    lengths = {label: data.draw(st.integers(0, 3)) for label in known}
    random = np.random.default_rng(data.draw(st.integers(0, 99)))
    arrays = [random.standard_normal([lengths[label] for label in term]) for term in terms]
    equation = f"{','.join(terms)}->{output}"
    assert_close(
        f.einsum(equation, *map(mp.tensor, arrays)).numpy(), np.einsum(equation, *arrays), "fp64_sums"
    )


@pytest.mark.parametrize("equation", list(EQUATIONS))
def test_gradients_of_einsum_are_derivatives(equation: str) -> None:
    """Oracle: central differences along a random direction, in float64."""
    random = np.random.default_rng(1)
    found = gradcheck(
        lambda *a: f.einsum(equation, *a), [random.standard_normal(s) for s in EQUATIONS[equation]]
    )
    assert found, str(found)


def test_einsum_takes_lists_as_torch_does() -> None:
    """Oracle: the equation in letters; 26 sorts after 0, as a after A."""
    a, b = (mp.tensor(x) for x in np.random.default_rng(0).standard_normal((2, 3, 3)))
    np.testing.assert_array_equal(
        f.einsum(a, [0, 1], b, [1, 2], [2, 0]).numpy(), f.einsum("ij,jk->ki", a, b).numpy()
    )
    np.testing.assert_array_equal(f.einsum(a, [26, 0]).numpy(), a.numpy().T)
    np.testing.assert_array_equal(f.einsum(a, [..., 1]).numpy(), a.numpy())
    np.testing.assert_array_equal(f.einsum("ij,jk", [a, b]).numpy(), (a @ b).numpy())


def test_einsum_is_one_product_rounded_once() -> None:
    """Oracle: the bound of a dot product in float16; one matmul, and nothing that adds in float16."""
    random = np.random.default_rng(2)
    a, b = (random.standard_normal(shape).astype(np.float16) for shape in [(2, 40, 3), (2, 5, 40)])
    events: list[Event] = []
    with listen(events.append):
        y = f.einsum("bki,bjk->bij", mp.tensor(a), mp.tensor(b))
    assert [e.node.op.name for e in events] == ["permute", "permute", "matmul", "reshape"]
    factors = [x.astype(np.float64) for x in (a, b)]
    exact = np.einsum("bki,bjk->bij", *factors)
    mass = np.einsum("bki,bjk->bij", *map(abs, factors))
    assert_bound(y.numpy(), exact, dot_bound(exact, mass, 40, np.float32, np.float16), "dot_product")


def test_autocast_lowers_einsum() -> None:
    """Oracle: torch's CUDA table: every operand goes to the low format, those of sums alone too."""
    a = mp.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    with mp.autocast("float16"):
        for equation in ("ij,jk->ik", "ij,ij->ij", "i...,i...->"):
            assert f.einsum(equation, a, a).format is mp.float16
        assert f.einsum("ij->", a).format is mp.float16
        assert f.tensordot(a, a).format is mp.float32
    f.einsum("ij,jk->", a, a).backward()
    assert a.grad.format is mp.float32


SAME: dict[str, tuple[Callable[..., Any], Shapes]] = {
    "mm": (lambda lib, *a: lib.mm(*a), [(4, 6), (6, 3)]),
    "bmm": (lambda lib, *a: lib.bmm(*a), [(2, 4, 6), (2, 6, 3)]),
    "mv": (lambda lib, *a: lib.mv(*a), [(4, 6), (6,)]),
    "dot": (lambda lib, *a: lib.dot(*a), [(6,), (6,)]),
    "outer": (lambda lib, *a: lib.outer(*a), [(4,), (6,)]),
    "inner": (lambda lib, *a: lib.inner(*a), [(2, 4, 6), (3, 6)]),
    "inner_vectors": (lambda lib, *a: lib.inner(*a), [(6,), (6,)]),
    "inner_scalar": (lambda lib, *a: lib.inner(*a), [(2, 4), ()]),
    "vecdot": (lambda lib, *a: _linalg(lib).vecdot(*a), [(2, 4, 6), (4, 6)]),
    "vecdot_dim": (lambda lib, *a: _linalg(lib).vecdot(*a, dim=0), [(6, 4), (6, 4)]),
    "tensordot": (lambda lib, *a: lib.tensordot(*a), [(2, 4, 6), (4, 6, 3)]),
    "tensordot_outer": (lambda lib, *a: lib.tensordot(*a, dims=0), [(2, 4), (3,)]),
    "tensordot_lists": (lambda lib, *a: lib.tensordot(*a, ([2, 0], [0, -1])), [(2, 4, 6), (6, 3, 2)]),
    "tensordot_ones": (lambda lib, *a: lib.tensordot(*a, ([1], [1])), [(3, 1), (3, 4)]),
    "addmm": (lambda lib, *a: lib.addmm(*a, beta=0.5, alpha=2), [(3,), (4, 6), (6, 3)]),
    "addmm_of_nan": (lambda lib, *a: lib.addmm(a[0] / 0, *a[1:], beta=0), [(4, 3), (4, 6), (6, 3)]),
    "baddbmm": (lambda lib, *a: lib.baddbmm(*a), [(4, 1), (2, 4, 6), (2, 6, 3)]),
    "bilinear": (lambda lib, *a: _functional(lib).bilinear(*a), [(2, 5, 3), (2, 5, 4), (6, 3, 4), (6,)]),
    "bilinear_bare": (lambda lib, *a: _functional(lib).bilinear(*a), [(5, 3), (5, 4), (6, 3, 4)]),
}


def _linalg(lib: Any) -> Any:
    return getattr(lib, "linalg", lib)


def _functional(lib: Any) -> Any:
    return lib.nn.functional if hasattr(lib, "nn") else lib


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("name", list(SAME))
def test_products_are_torchs(name: str, fmt: str) -> None:
    """Oracle: torch's function of that name in the same format, results and gradients."""
    torch = pytest.importorskip("torch")
    call, shapes = SAME[name]
    random = np.random.default_rng(len(name))
    arrays = [mp.formats.round(random.standard_normal(shape), fmt) for shape in shapes]
    own, other = both(lambda *a: call(f, *a), lambda *a: call(torch, *a), arrays, fmt)
    assert_close(own[0], other[0], ROWS[fmt]["bilinear" in name])
    for got, wanted in zip(own[1:], other[1:], strict=True):
        assert_close(got, wanted, ROWS[fmt][1])


def test_addmm_rounds_once() -> None:
    """Oracle: 2048 + 1 - 1 in float16: a product that was rounded first would give 2048 - 1 = 2047."""
    one = np.ones((1, 1), np.float16)
    a, b = np.array([[2048, 1]], np.float16), np.array([[1], [1]], np.float16)
    assert f.addmm(-one, a, b).item() == 2048.0
    assert ((mp.tensor(a) @ mp.tensor(b)) - mp.tensor(one)).item() == 2047.0
    assert f.baddbmm(-one, a[None], b[None]).item() == 2048.0


A, B = np.ones((3, 4), np.float32), np.ones((2, 3, 4), np.float32)
REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "bmm": (lambda: f.bmm(A, A.T), ShapeError, r"bmm: expected \(N, M, K\) and \(N, K, P\).*\n.*matmul"),
    "bmm_batches": (lambda: f.bmm(B, np.ones((3, 4, 5), np.float32)), ShapeError, r"got \(2, 3, 4\)"),
    "mm": (lambda: f.mm(A, A), ShapeError, r"mm: expected \(M, K\) and \(K, N\)"),
    "mm_batched": (lambda: f.mm(B, A.T), ShapeError, r"mm: expected \(M, K\)"),
    "mv": (lambda: f.mv(A, A[:, 0]), ShapeError, r"\(M, K\) and \(K,\)"),
    "dot": (lambda: f.dot(A, A), ShapeError, r"\(K,\) and \(K,\)"),
    "dot_lengths": (lambda: f.dot(A[0], A[:, 0]), ShapeError, r"got \(4,\) and \(3,\)"),
    "outer": (lambda: f.outer(A, A[0]), ShapeError, "two vectors"),
    "inner": (lambda: f.inner(A, A.T), ShapeError, "last axes of one length"),
    "vecdot": (lambda: f.vecdot(A, A[:, :1]), ShapeError, "one length at dim -1"),
    "vecdot_dim": (lambda: f.vecdot(A, A, dim=2), ShapeError, "dim 2"),
    "tensordot": (lambda: f.tensordot(A, A, 1), ShapeError, r"axes \[1\] of \(3, 4\) and \[0\]"),
    "tensordot_many": (lambda: f.tensordot(A, A, 3), ShapeError, "at most 2 axes"),
    "tensordot_lists": (lambda: f.tensordot(A, A, ([0], [0, 1])), ShapeError, "two lists"),
    "tensordot_axis": (lambda: f.tensordot(A, A, ([2], [0])), ShapeError, "is none of shape"),
    "tensordot_twice": (lambda: f.tensordot(A, A, ([0, -2], [0, 1])), ShapeError, "stands twice"),
    "addmm": (lambda: f.addmm(B, A, A.T), ShapeError, "a summand that broadcasts"),
    "baddbmm": (lambda: f.baddbmm(A, A, A.T), ShapeError, r"baddbmm: expected \(N, M, K\)"),
    "formats": (
        lambda: f.mm(mp.tensor(A), mp.tensor(A.T, dtype="float16")), FormatError, "inputs of one format"
    ),
    "bilinear": (lambda: f.bilinear(A, A, B), ShapeError, r"\(out, in1, in2\)"),
    "operands": (lambda: f.einsum("ij,jk", A), SettingError, "names 2 operands, got 1"),
    "letters": (lambda: f.einsum("i1->i", A), SettingError, "cannot read 'i1'"),
    "dots": (lambda: f.einsum("..i", A), SettingError, "cannot read"),
    "axes": (lambda: f.einsum("ijk->i", A), ShapeError, "an operand of 3 axes for 'ijk'"),
    "few": (lambda: f.einsum("i->i", A), ShapeError, "an operand of 1 axes"),
    "length": (lambda: f.einsum("ij,jk->ik", A, A), ShapeError, "called 'j' have lengths 4 and 3"),
    "diagonal": (lambda: f.einsum("ii->i", A), ShapeError, "called 'i' have lengths 3 and 4"),
    "output": (lambda: f.einsum("ij->ik", A), SettingError, "names 'k', which no operand has"),
    "twice": (lambda: f.einsum("ij->ii", A), SettingError, "an axis twice"),
    "list": (lambda: f.einsum(A, [0, 52]), SettingError, "labels from 0 to 51"),
    "nothing": (lambda: f.einsum(A), SettingError, "expected an equation"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_does_not_fit_is_refused(name: str) -> None:
    """Oracle: torch refuses the same; the message says what was expected and what came."""
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        call()


def test_arrays_go_beside_parameters() -> None:
    """Oracle: the same numbers as tensors; a tensor among the inputs is not asked for its truth."""
    x, w = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((4, 3, 3), np.float32)
    beside = f.bilinear(x, x, mp.tensor(w))
    assert (beside.numpy() == f.bilinear(*map(mp.tensor, (x, x, w))).numpy()).all()
