"""The losses: beside torch 2.13.0, at their edges, under autocast; what they keep, and what they refuse."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import minimp as mp
from minimp import functional as f
from minimp.checks import gradcheck
from minimp.checks.tables import REFERENCE
from minimp.errors import DataError, FormatError, SettingError, ShapeError
from tests.ops.samples import FLOATS
from tests.ops.test_torch_parity import both, to_torch
from tests.tolerances import assert_close

ROWS = {
    "float64": ("fp64_sums", "fp64_sums"),
    "float32": ("parity_op_fp32", "parity_gradient_fp32"),
    "float16": ("parity_op_fp16", "parity_gradient_fp16"),
    "bfloat16": ("parity_op_bf16", "parity_gradient_bf16"),
}
COMPOSED = ("weighted", "gaussian", "cosine", "triplet", "entropy_of_probabilities", "entropy_of_one")
"""Losses of several ops: each rounds, in torch as here, in places of its own."""
SIGNS = np.where(np.arange(15) % 4 == 0, -1.0, 1.0).reshape(5, 3)
LABELS = np.array([[0, 2], [1, -100], [3, 3]])
HALVES = np.arange(1, 16).reshape(5, 3) / 16
"""Exact in every format."""


def torch_f() -> Any:
    """Return torch.nn.functional."""
    return pytest.importorskip("torch").nn.functional


def _probabilities(call: Callable[..., Any]) -> Callable[..., Any]:
    """Call with both arguments brought inside 0 to 1."""
    return lambda lib, x, t, **o: call(lib, x.sigmoid() * 0.75 + 0.125, t.sigmoid(), **o)


def _constant(x: Any, values: np.ndarray) -> Any:
    """Return a constant of the format and the library of x."""
    if isinstance(x, mp.Tensor):
        return mp.tensor(values, dtype=x.format)
    import torch

    return torch.tensor(values, dtype=x.dtype)


# name: how it is called on a library's functions, the shapes of its tensors
CALLS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "l1": (lambda lib, *a, **o: lib.l1_loss(*a, **o), [(5, 3), (5, 3)]),
    "smooth_l1": (lambda lib, *a, **o: lib.smooth_l1_loss(*a, beta=0.5, **o), [(5, 3), (5, 3)]),
    "smooth_l1_sharp": (lambda lib, *a, **o: lib.smooth_l1_loss(*a, beta=0.0, **o), [(5, 3), (5, 3)]),
    "huber": (lambda lib, *a, **o: lib.huber_loss(*a, delta=0.75, **o), [(5, 3), (5, 3)]),
    "weighted_l1": (lambda lib, *a, **o: lib.l1_loss(*a[:2], weight=abs(a[2]), **o), [(5, 3)] * 3),
    "weighted_mse": (lambda lib, *a, **o: lib.mse_loss(*a[:2], weight=abs(a[2]), **o), [(5, 3)] * 3),
    "weighted_huber": (lambda lib, *a, **o: lib.huber_loss(*a[:2], weight=abs(a[2]), **o), [(5, 3)] * 3),
    "gaussian": (
        lambda lib, x, t, v, **o: lib.gaussian_nll_loss(x, t, v * v + 0.25, full=True, **o), [(5, 3)] * 3
    ),
    "gaussian_rows": (
        lambda lib, x, t, v, **o: lib.gaussian_nll_loss(x, t, v * v, **o), [(5, 3), (5, 3), (5,)]
    ),
    "gaussian_floor": (
        lambda lib, x, t, v, **o: lib.gaussian_nll_loss(x, t, v * v, eps=0.5, **o), [(5, 3), (1, 3), (5, 1)]
    ),
    "poisson": (lambda lib, *a, **o: lib.poisson_nll_loss(*a, **o), [(5, 3), (5, 3)]),
    "poisson_full": (
        lambda lib, x, t, **o: lib.poisson_nll_loss(x, t * t + 0.5, full=True, **o), [(5, 3), (5, 3)]
    ),
    "poisson_rates": (
        lambda lib, x, t, **o: lib.poisson_nll_loss(x * x + 0.25, t, log_input=False, **o), [(5, 3), (3,)]
    ),
    "bce": (_probabilities(lambda lib, x, t, **o: lib.binary_cross_entropy(x, t, **o)), [(5, 3), (5, 3)]),
    "bce_weighted": (
        _probabilities(lambda lib, x, t, **o: lib.binary_cross_entropy(x, t, _constant(x, HALVES[0]), **o)),
        [(5, 3), (5, 3)],
    ),
    "bce_logits": (lambda lib, *a, **o: lib.binary_cross_entropy_with_logits(*a, **o), [(5, 3), (5, 3)]),
    "bce_logits_weighted": (
        lambda lib, x, t, **o: lib.binary_cross_entropy_with_logits(
            x, t, _constant(x, HALVES), pos_weight=_constant(x, 4 * HALVES[0]), **o
        ),
        [(5, 3), (5, 3)],
    ),
    "kl_div": (lambda lib, x, t, **o: lib.kl_div(x, t * t + 0.25, **o), [(5, 3), (5, 3)]),
    "kl_div_logs": (lambda lib, x, t, **o: lib.kl_div(x, t, log_target=True, **o), [(5, 3), (3,)]),
    "soft_margin": (lambda lib, x, **o: lib.soft_margin_loss(x, _constant(x, SIGNS), **o), [(5, 3)]),
    "hinge": (
        lambda lib, x, **o: lib.hinge_embedding_loss(x, _constant(x, SIGNS), margin=0.7, **o), [(5, 3)]
    ),
    "ranking": (
        lambda lib, a, b, **o: lib.margin_ranking_loss(a, b, _constant(a, SIGNS), margin=0.25, **o),
        [(5, 3), (5, 3)],
    ),
    "ranking_ties": (
        lambda lib, a, **o: lib.margin_ranking_loss(a, a.detach(), _constant(a, SIGNS), **o), [(5, 3)]
    ),
    "cosine": (
        lambda lib, a, b, **o: lib.cosine_embedding_loss(a, b, _constant(a, SIGNS[:, 0]), margin=0.1, **o),
        [(5, 3), (5, 3)],
    ),
    "triplet": (lambda lib, *a, **o: lib.triplet_margin_loss(*a, **o), [(5, 3)] * 3),
    "triplet_swapped": (
        lambda lib, *a, **o: lib.triplet_margin_loss(*a, margin=2.0, p=3, swap=True, **o), [(5, 3)] * 3
    ),
    "nll_of_planes": (
        lambda lib, x, **o: lib.nll_loss(x, _labels(x, LABELS), _constant(x, HALVES[0].repeat(2)[:4]), **o),
        [(3, 4, 2)],
    ),
    "nll_of_one": (lambda lib, x, **o: lib.nll_loss(x, _labels(x, np.array(2)), **o), [(4,)]),
    "entropy_of_planes": (
        lambda lib, x, **o: lib.cross_entropy(
            x, _labels(x, LABELS), _constant(x, HALVES[0].repeat(2)[:4]), label_smoothing=0.25, **o
        ),
        [(3, 4, 2)],
    ),
    "entropy_of_probabilities": (
        lambda lib, x, t, **o: lib.cross_entropy(
            x, t * t, _constant(x, HALVES[0].repeat(2)[:4]), label_smoothing=0.125, **o
        ),
        [(3, 4, 2), (3, 4, 2)],
    ),
    "entropy_of_one": (lambda lib, x, t, **o: lib.cross_entropy(x, t, **o), [(4,), (4,)]),
}  # fmt: skip


def _labels(x: Any, labels: np.ndarray) -> Any:
    return labels if isinstance(x, mp.Tensor) else to_torch(labels)


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FLOATS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", list(CALLS))
def test_losses_and_gradients_are_near_torchs(name: str, reduction: str, fmt: str) -> None:
    """Oracle: torch in the same format: a unit of the largest element, a few for gradients."""
    call, shapes = CALLS[name]
    random = np.random.default_rng(len(name))
    arrays = [mp.formats.round(random.uniform(0.2, 2.0, s) * random.choice([-1, 1], s), fmt) for s in shapes]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "reduction: 'mean' divides", UserWarning)
        own, other = both(
            lambda *a: call(f, *a, reduction=reduction), lambda *a: call(torch_f(), *a, reduction=reduction),
            arrays, fmt,
        )  # fmt: skip
    assert_close(own[0], other[0], ROWS[fmt][name.startswith(COMPOSED)])
    for got, wanted in zip(own[1:], other[1:], strict=True):
        assert_close(got, wanted, ROWS[fmt][1])


BARE = {
    "l1_loss": 2, "smooth_l1_loss": 2, "huber_loss": 2, "mse_loss": 2, "poisson_nll_loss": 2,
    "binary_cross_entropy_with_logits": 2, "kl_div": 2, "soft_margin_loss": 2, "hinge_embedding_loss": 2,
    "margin_ranking_loss": 3, "gaussian_nll_loss": 3, "triplet_margin_loss": 3,
}  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("low", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", list(BARE))
def test_losses_are_float32_under_autocast(name: str, low: str) -> None:
    """Oracle: torch.autocast on the CPU; for CUDA its table, where every loss is fp32."""
    import torch

    own = [mp.tensor(np.ones((2, 3)), dtype=low) for _ in range(BARE[name])]
    with mp.autocast(low):
        assert getattr(f, name)(*own).format is mp.float32
    with mp.autocast(low, policy="torch-cpu"):
        mine = getattr(f, name)(*own)
    with torch.autocast("cpu", getattr(torch, low)), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        theirs = getattr(torch.nn.functional, name)(*(to_torch(x.numpy()) for x in own))
    assert mine.dtype.name == str(theirs.dtype).removeprefix("torch.")


def test_cross_entropies_are_float32_under_autocast() -> None:
    """Oracle: torch's CUDA table: log_softmax is fp32, and so is what follows; cosine_embedding_loss too."""
    x = mp.tensor(np.ones((2, 3, 4)), dtype="float16")
    with mp.autocast("float16"):
        assert f.cross_entropy(x, np.zeros((2, 4), np.int64)).format is mp.float32
        assert f.cross_entropy(x, x).format is mp.float32
        assert f.cosine_embedding_loss(x[0], x[1], np.ones(3, np.float32)).format is mp.float32


def test_binary_cross_entropy_is_refused_under_autocast() -> None:
    """Oracle: torch's rule for CUDA: an error that names the form with logits; on the CPU it is float32's."""
    p = mp.tensor([0.25, 0.5], dtype="float16")
    with (
        mp.autocast("float16"),
        pytest.raises(
            FormatError, match=r"binary_cross_entropy: unsafe.*\n.*binary_cross_entropy_with_logits"
        ),
    ):
        f.binary_cross_entropy(p, p)
    with mp.autocast("bfloat16", policy="torch-cpu"):
        assert f.binary_cross_entropy(p, p).format is mp.float32


def test_extreme_logits_cost_nothing() -> None:
    """Oracle: ln(1 + e^-x) -> 0 and -> -x; the slope is sigmoid(x) - t; nothing overflows."""
    for fmt in ("float32", "float16"):
        x = mp.tensor([-3e4, -1000.0, 0.0, 1000.0, 3e4], dtype=fmt, requires_grad=True)
        loss = f.binary_cross_entropy_with_logits(x, mp.tensor([1, 1, 1, 1, 1], dtype=fmt), reduction="none")
        np.testing.assert_array_equal(loss.detach().numpy()[[0, 1, 3, 4]], [3e4, 1000, 0, 0])
        loss.sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), [-1, -1, -0.5, 0, 0])
        y = mp.tensor([-3e4, 3e4], dtype=fmt)
        np.testing.assert_array_equal(
            f.soft_margin_loss(y, mp.tensor([1, 1], dtype=fmt), "none").numpy(), [3e4, 0]
        )


def test_probabilities_of_zero_and_one() -> None:
    """Oracle: torch.nn.BCELoss's documentation: logarithms are held above -100, so the loss is finite."""
    p = mp.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    t = mp.tensor([0.0, 1.0, 1.0, 0.0], requires_grad=True)
    loss = f.binary_cross_entropy(p, t, reduction="none")
    np.testing.assert_array_equal(loss.detach().numpy(), [0, 0, 100, 100])
    loss.sum().backward()
    np.testing.assert_array_equal(p.grad.numpy(), np.float32([0, 0, -1e12, 1e12]))
    np.testing.assert_array_equal(t.grad.numpy(), [100, -100, 100, -100])


def test_divergence_of_nothing_is_nothing() -> None:
    """Oracle: 0 ln 0 = 0 (the limit); of a distribution from itself the divergence is 0."""
    p = mp.tensor([[0.0, 0.25, 0.75]])
    log_p = mp.tensor([[-5.0, np.log(0.25), np.log(0.75)]])
    loss = f.kl_div(log_p, p, reduction="batchmean")
    assert_close(1 + loss.item(), 1.0, "parity_op_fp32")


@pytest.mark.parametrize("fmt", ["float32", "float16"])
@pytest.mark.parametrize(
    "name", [name for name in BARE if name not in ("gaussian_nll_loss", "triplet_margin_loss")]
)
def test_what_is_kept_is_the_inputs(name: str, fmt: str) -> None:
    """Oracle: every slope is written in the inputs alone: 2 (or 3) times their bytes, and not a copy."""
    inputs = [mp.tensor(np.ones((5, 3)), dtype=fmt, requires_grad=i < 1) for i in range(BARE[name])]
    saved = getattr(f, name)(*inputs).node.saved
    kept = [array for array in saved if array is not None]
    assert [id(array) for array in kept] == [id(x.array) for x in inputs]
    assert sum(array.nbytes for array in kept) == BARE[name] * 15 * (4 if fmt == "float32" else 2)


X, Y = np.ones((5, 3), np.float32), np.ones((3,), np.float32)
REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "l1_shape": (lambda: f.l1_loss(X, Y), ShapeError, "l1_loss: expected input and target of one shape"),
    "smooth_shape": (lambda: f.smooth_l1_loss(X, Y), ShapeError, "does not broadcast"),
    "huber_shape": (lambda: f.huber_loss(X, Y), ShapeError, "does not broadcast"),
    "bce_shape": (lambda: f.binary_cross_entropy(X, Y), ShapeError, r"\(5, 3\) and \(3,\)"),
    "logits_shape": (lambda: f.binary_cross_entropy_with_logits(X, Y), ShapeError, "does not broadcast"),
    "reduction": (lambda: f.l1_loss(X, X, "average"), SettingError, "reduction 'average'"),
    "batchmean": (lambda: f.huber_loss(X, X, "meen"), SettingError, "mean"),
    "beta": (lambda: f.smooth_l1_loss(X, X, beta=-1), SettingError, "beta above 0"),
    "delta": (lambda: f.huber_loss(X, X, delta=0), SettingError, "delta above 0"),
    "range": (lambda: f.binary_cross_entropy(X * 1.5, X), DataError, "inputs from 0 to 1, got 1.5"),
    "target_range": (lambda: f.binary_cross_entropy(X, X - 3), DataError, "targets from 0 to 1, got -2"),
    "weight": (lambda: f.binary_cross_entropy(X, X, X[:2]), ShapeError, r"broadcasts to \(5, 3\)"),
    "weight_axes": (lambda: f.binary_cross_entropy(Y, Y, X), ShapeError, r"broadcasts to \(3,\)"),
    "pos_weight": (
        lambda: f.binary_cross_entropy_with_logits(X, X, pos_weight=np.ones(2, np.float32)),
        ShapeError, "expected a pos_weight",
    ),
    "weight_gradient": (
        lambda: f.binary_cross_entropy_with_logits(
            mp.tensor(X), X, pos_weight=mp.tensor(Y, requires_grad=True)
        ),
        DataError, r"pos_weight has no gradient.*\n.*detach",
    ),
    "signs": (lambda: f.hinge_embedding_loss(X, X * 0.5), DataError, r"targets of 1 and -1, got 0.5"),
    "cosine_signs": (lambda: f.cosine_embedding_loss(X, X, 0 * X[:, 0]), DataError, "got 0"),
    "cosine_shape": (lambda: f.cosine_embedding_loss(X, X, X), ShapeError, r"\(N, D\)"),
    "variance": (lambda: f.gaussian_nll_loss(X, X, -X), DataError, "variances of at least 0, got -1"),
    "variance_shape": (lambda: f.gaussian_nll_loss(X, X, np.ones(4)), ShapeError, r"\(5, 3\), \(5,\)"),
    "eps": (lambda: f.gaussian_nll_loss(X, X, X, eps=0), SettingError, "eps above 0"),
    "axes": (lambda: f.margin_ranking_loss(X, X, Y), ShapeError, r"\[2, 2, 1\]"),
    "triplet_axes": (lambda: f.triplet_margin_loss(X, X, Y), ShapeError, "as many axes"),
    "triplet_margin": (lambda: f.triplet_margin_loss(X, X, X, margin=0), SettingError, "margin above 0"),
    "planes": (lambda: f.nll_loss(np.ones((3, 4, 2), np.float32), LABELS.T), ShapeError, r"\(N, C, ...\)"),
    "label": (lambda: f.cross_entropy(np.ones((3, 3, 2), np.float32), LABELS), DataError, "got 3 in row 4"),
    "ignored": (lambda: f.cross_entropy(X, X, ignore_index=1), SettingError, "cannot act on class probabil"),
    "weights": (lambda: f.l1_loss(X, X, weight=Y), ShapeError, "a weight for each term"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_computed_is_refused(name: str) -> None:
    """Oracle: torch refuses or warns of the same (or, of odd signs, computes what no one means): an error."""
    call, kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        call()


def test_a_number_for_the_variance() -> None:
    """Oracle: the same variance as an array."""
    x, t = mp.tensor(X), mp.tensor(X * 3)
    assert f.gaussian_nll_loss(x, t, 2.0).item() == f.gaussian_nll_loss(x, t, X * 2).item()


BROADCASTING = {
    "kl_div": lambda x, t: (x, abs(t) + 0.1),
    "poisson_nll_loss": lambda x, t: (x, t),
    "soft_margin_loss": lambda x, t: (x, np.where(t > 0, 1.0, -1.0)),
    "hinge_embedding_loss": lambda x, t: (x, np.where(t > 0, 1.0, -1.0)),
    "margin_ranking_loss": lambda x, t: (x, x[::-1].copy() if x.ndim else x, t),
}


@given(st.sampled_from(sorted(BROADCASTING)), st.data())
def test_losses_broadcast_as_numpy_does(name: str, data: st.DataObject) -> None:
    """Oracle: the loss's definition in NumPy, on shapes drawn at random, without axes and elements too."""
    shapes = data.draw(hnp.mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=3, max_dims=3))
    x, t = (np.random.default_rng(5).uniform(-2, 2, shape) for shape in shapes.input_shapes)
    if name == "margin_ranking_loss":  # of as many axes
        axes = max(x.ndim, t.ndim)
        x, t = (a.reshape((1,) * (axes - a.ndim) + a.shape) for a in (x, t))
    arrays = BROADCASTING[name](x, t)
    how = data.draw(st.sampled_from(["sum", "none"]))
    with np.errstate(all="ignore"):  # a reference may compute what it then leaves out
        wanted = REFERENCE[name](*arrays, reduction=how)
    tensors = [mp.tensor(a.T, dtype="float64").T for a in arrays]  # not in C order
    found = getattr(f, name)(*tensors, reduction=how)
    assert found.shape == wanted.shape
    assert_close(found.numpy(), wanted, "fp64_sums")


NO_DERIVATIVE = ("ranking_ties", "gaussian_floor")
"""At a kink; and variances that are held let gradients through, as torch's."""


@pytest.mark.parametrize("name", [name for name in CALLS if name not in NO_DERIVATIVE])
def test_gradients_of_every_call_are_derivatives(name: str) -> None:
    """Oracle: central differences along a random direction, in float64."""
    call, shapes = CALLS[name]
    random = np.random.default_rng(3)
    points = [random.uniform(0.3, 1.9, shape) * random.choice([-1, 1], shape) for shape in shapes]
    found = gradcheck(lambda *a: call(f, *a), points)
    assert found, str(found)
