"""batch_norm, group_norm, instance_norm: beside torch, running statistics, mixed formats, sums by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minimp as mp
from minimp import functional
from minimp.errors import FormatError, SettingError, ShapeError
from tests.arrays import host
from tests.ops.samples import numbers
from tests.ops.sums import WAYS, sums, to
from tests.ops.test_convolutions import FORMATS, OWN, twice
from tests.ops.test_torch_parity import from_torch, to_torch
from tests.tolerances import assert_close

Call = Callable[..., Any]
SUMMING = [name for name in WAYS if not name.startswith("tensorcore:")]
LOW = ("float16", "bfloat16")
f32 = np.float32


def _torch() -> Any:
    return pytest.importorskip("torch")


NORMS: dict[str, tuple[Call, Call, tuple[int, ...]]] = {
    "batch": (
        lambda x, w, b, m, v: functional.batch_norm(x, m, v, w, b, True, 0.3, 1e-3),
        lambda x, w, b, m, v: _torch().nn.functional.batch_norm(x, m, v, w, b, True, 0.3, 1e-3),
        (4, 6, 5, 3),
    ),
    "batch_of_rows": (
        lambda x, w, b, m, v: functional.batch_norm(x, m, v, w, b, True),
        lambda x, w, b, m, v: _torch().nn.functional.batch_norm(x, m, v, w, b, True),
        (9, 6),
    ),
    "batch_of_long_signals": (
        lambda x, w, b, m, v: functional.batch_norm(x, None, None, w, b, True),
        lambda x, w, b, m, v: _torch().nn.functional.batch_norm(x, None, None, w, b, True),
        (3, 6, 70),
    ),
    "fixed": (
        lambda x, w, b, m, v: functional.batch_norm(x, m, v, w, b),
        lambda x, w, b, m, v: _torch().nn.functional.batch_norm(x, m, v, w, b),
        (2, 6, 3, 2, 4),
    ),
    "group": (
        lambda x, w, b, m, v: functional.group_norm(x, 3, w, b, 1e-3),
        lambda x, w, b, m, v: _torch().nn.functional.group_norm(x, 3, w, b, 1e-3),
        (4, 6, 5, 3),
    ),
    "instance": (
        lambda x, w, b, m, v: functional.instance_norm(x, m, v, w, b, True, 0.3),
        lambda x, w, b, m, v: _torch().nn.functional.instance_norm(x, m, v, w, b, True, 0.3),
        (4, 6, 7),
    ),
    "instance_fixed": (
        lambda x, w, b, m, v: functional.instance_norm(x, m, v, w, b, False),
        lambda x, w, b, m, v: _torch().nn.functional.instance_norm(x, m, v, w, b, False),
        (4, 6, 7),
    ),
}


def _beside(name: str, fmt: str, held: str) -> None:
    """Hold result, gradients and statistics to torch's; parameters and statistics in format `held`."""
    mine, theirs, shape = NORMS[name]
    random = np.random.default_rng(8)
    x, w, b, m = (numbers(random, s, fmt) for s in (shape, (6,), (6,), (6,)))
    v = np.abs(numbers(random, (6,), fmt)) + 0.25
    parts = [(x, fmt, True), (w, held, True), (b, held, True), (m, held, False), (v, held, False)]
    own = [mp.tensor(a, dtype=f, requires_grad=needs) for a, f, needs in parts]
    other = [to_torch(t.detach().numpy(), requires_grad=t.requires_grad) for t in own]
    before = [(t.array, host(t.array.copy())) for t in own]
    y, z = mine(*own), theirs(*other)
    g = mp.tensor(numbers(random, shape, fmt), dtype=fmt)
    y.backward(g)
    z.backward(to_torch(g.numpy()))
    assert y.format is mp.formats.get(fmt)
    assert_close(y.detach().numpy(), from_torch(z), OWN[fmt])
    for t, u, (_, f, needs), (array, copy) in zip(own, other, parts, before, strict=True):
        if needs:
            assert t.grad.format is mp.formats.get(f)
            assert_close(t.grad.numpy(), from_torch(u.grad), OWN[fmt].replace("_op_", "_gradient_"))
        else:
            assert_close(t.numpy(), from_torch(u), OWN[f])
            np.testing.assert_array_equal(host(array), copy)  # what others may hold is never written to


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("name", list(NORMS))
def test_results_gradients_and_statistics_are_torchs(name: str, fmt: str) -> None:
    """Oracle: torch 2.13.0 on the CPU, all tensors in one format."""
    _beside(name, fmt, fmt)


@pytest.mark.torch
@pytest.mark.parametrize("fmt", LOW)
@pytest.mark.parametrize("name", list(NORMS))
def test_float32_parameters_beside_16_bits_are_torchs(name: str, fmt: str) -> None:
    """Oracle: torch's "mixed dtype" kernels: each gradient in its own format, statistics in float32."""
    _beside(name, fmt, "float32")


@pytest.mark.torch
@pytest.mark.parametrize("fmt", LOW)
def test_layer_norm_takes_float32_parameters_too(fmt: str) -> None:
    """Oracle: torch's layer_norm and rms_norm with float32 weights beside a 16-bit input."""
    random, torch = np.random.default_rng(9), _torch()
    x, w, b, g = (numbers(random, s, fmt) for s in ((3, 4, 5), (5,), (5,), (3, 4, 5)))
    for own_call, torch_call, count in (
        (lambda x, *p: functional.layer_norm(x, 5, *p),
         lambda x, *p: torch.nn.functional.layer_norm(x, (5,), *p), 2),
        (lambda x, *p: functional.rms_norm(x, 5, *p, eps=0.1),
         lambda x, *p: torch.nn.functional.rms_norm(x.float(), (5,), *p, eps=0.1).to(x.dtype), 1),
    ):  # fmt: skip
        own = [mp.tensor(x, dtype=fmt, requires_grad=True)]
        own += [mp.tensor(a, dtype="float32", requires_grad=True) for a in (w, b)[:count]]
        other = [to_torch(t.detach().numpy(), requires_grad=True) for t in own]
        y, z = own_call(*own), torch_call(*other)
        y.backward(g)
        z.backward(to_torch(mp.tensor(g, dtype=fmt).numpy()))
        assert [t.grad.format.name for t in own] == [fmt, *["float32"] * count]
        assert_close(y.detach().numpy(), from_torch(z), OWN[fmt])
        for t, u in zip(own, other, strict=True):
            assert_close(t.grad.numpy(), from_torch(u.grad), OWN[fmt].replace("_op_", "_gradient_"))


@pytest.mark.torch
@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 4), st.integers(1, 3), st.lists(st.integers(1, 4), max_size=3),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_shape_is_torchs(
    images: int, channels: int, places: list[int], training: bool, bare: bool
) -> None:
    """Oracle: torch's batch_norm in float64, one value a channel refused in training as there."""
    shape = (images, channels, *places)
    torch, random = _torch(), np.random.default_rng(images)
    x, m, w = (
        random.standard_normal(shape),
        random.standard_normal(channels),
        random.standard_normal(channels),
    )
    v = random.uniform(0.5, 2.0, channels)
    theirs = [torch.tensor(a) for a in (x, m, v, w)]
    own = [mp.tensor(a, dtype="float64") for a in (x, m, v, w)]
    if training and images * int(np.prod(places)) == 1:
        with pytest.raises(ShapeError, match="more than one value a channel"):
            functional.batch_norm(*own, training=True)
        np.testing.assert_array_equal(own[1].numpy(), m)
        return
    wanted = torch.nn.functional.batch_norm(*theirs[: 3 if bare else 4], training=training)
    got = functional.batch_norm(*own[: 3 if bare else 4], training=training)
    assert_close(got.numpy(), wanted.numpy(), "fp64_sums")
    for a, b in zip(own[1:3], theirs[1:3], strict=True):
        assert_close(a.numpy(), b.numpy(), "fp64_same_maths")


@pytest.mark.torch
@pytest.mark.parametrize("name", ["batch", "fixed", "group", "instance"])
def test_second_derivatives_are_torchs(name: str) -> None:
    """Oracle: torch's double backward in float64."""
    mine, theirs, shape = NORMS[name]
    random, torch = np.random.default_rng(10), _torch()
    m, v = random.standard_normal(6), random.uniform(0.5, 2, 6)
    own = (mp.tensor(m, dtype="float64"), mp.tensor(v, dtype="float64"))
    twice(
        lambda x, w, b: mine(x, w, b, *own),
        lambda x, w, b: theirs(x, w, b, torch.tensor(m), torch.tensor(v)),
        [random.standard_normal(s) for s in (shape, (6,), (6,))],
    )


@pytest.mark.parametrize("fmt", ["float16", "float32"])
@pytest.mark.parametrize("name", SUMMING)
def test_statistics_are_summed_by_name(name: str, fmt: str) -> None:
    """Oracle: the docstring's formulas in float32, with scalar sums in C order over images and places."""
    random = np.random.default_rng(11)
    x, w, b, g = (numbers(random, s, fmt) for s in [(3, 2, 4), (2,), (2,), (3, 2, 4)])
    leaves = [mp.tensor(a, dtype=fmt, requires_grad=True) for a in (x, w, b)]
    with mp.accumulate(name):
        y = functional.batch_norm(leaves[0], None, None, *leaves[1:], training=True)
    y.backward(g)
    x, w, b, g = (a.astype(f32) for a in (x, w, b, g))
    w, b = w[:, None], b[:, None]

    def mean(terms: Any) -> Any:
        return (sums(name, terms, (0, 2)) / 12).astype(f32)

    centred = x - mean(x)
    scale = 1 / np.sqrt(mean(centred * centred) + f32(1e-5))
    factor, product = scale * w, sums(name, g * centred, (0, 2))
    slope = factor * (scale * scale) * (product / 12).astype(f32)
    wanted = [
        (y, centred * factor + b),
        (leaves[0].grad, g * factor + (centred * -slope - factor * mean(g))),
        (leaves[1].grad, (product * scale)[0, :, 0]),
        (leaves[2].grad, sums(name, g, (0, 2))[0, :, 0]),
    ]
    for got, right in wanted:
        np.testing.assert_array_equal(host(got.detach()).astype(float), to(fmt, right).astype(float))


def test_running_statistics_follow_their_formula() -> None:
    """Oracle: r <- (1 - momentum) r + momentum s by hand, Bessel's correction for the variance alone."""
    x = mp.tensor([[1.0, 10.0], [3.0, 30.0], [5.0, 20.0]], dtype="float16")
    m, v = mp.tensor([1.0, 0.0]), mp.tensor([2.0, 1.0])
    with mp.no_grad():
        functional.batch_norm(x, m, v, training=True, momentum=0.25)
    assert m.numpy().tolist() == [0.75 + 0.25 * 3, 0.25 * 20]
    assert v.numpy().tolist() == [1.5 + 0.25 * 4, 0.75 + 0.25 * 100]
    functional.batch_norm(x, m, v, training=True, momentum=0.0)
    functional.batch_norm(x[:0], m, v, training=True)
    functional.batch_norm(x, m, v)
    assert m.numpy().tolist() == [1.5, 5.0]
    assert m.format is mp.float32


def test_autocast_keeps_batch_norm_beside_float32_parameters() -> None:
    """Oracle: torch: batch_norm is in no list; group_norm and layer_norm are fp32 on CUDA alone."""
    x = mp.tensor(np.random.default_rng(0).standard_normal((3, 4, 5)), dtype="bfloat16")
    w, m, v = (mp.tensor(np.ones(4), dtype="float32", requires_grad=i == 0) for i in range(3))
    for policy, wanted in (("torch-cuda", mp.float32), ("torch-cpu", mp.bfloat16)):
        with mp.autocast("bfloat16", policy=policy):
            y = functional.batch_norm(x, m, v, w, training=True)
            assert (y.format, m.format, v.format) == (mp.bfloat16, mp.float32, mp.float32)
            assert functional.instance_norm(x, m, v, w).format is mp.bfloat16
            assert functional.group_norm(x, 2, w).format is wanted
            assert functional.layer_norm(x, (4, 5), w.reshape(4, 1).expand(4, 5)).format is wanted
        y.sum().backward()
        assert w.grad.format is mp.float32


def test_what_is_kept() -> None:
    """Oracle: x and the parameters as they came, two float32 numbers a channel (or a group of an image)."""
    x = mp.tensor(np.ones((4, 6, 3, 3)), dtype="float16", requires_grad=True)
    w, b = (mp.tensor(np.ones(6), dtype="float32", requires_grad=True) for _ in range(2))
    saved = functional.batch_norm(x, None, None, w, b, True).node.saved
    assert saved[0] is x.array
    assert sum(a.nbytes for a in saved) == 2 * x.array.size + 4 * 6 * 4
    saved = functional.group_norm(x, 2, w, b).node.saved
    assert sum(a.nbytes for a in saved) == 2 * x.array.size + 4 * 6 * 2 + 4 * 8 * 2
    m, v = (mp.tensor(a, dtype="float32") for a in (np.zeros(6), np.ones(6)))
    saved = functional.batch_norm(x, m, v, w, b).node.saved
    assert saved[3] is m.array
    assert sum(a.nbytes for a in saved) == 2 * x.array.size + 4 * 6 * 4


@pytest.mark.torch
def test_local_response_norm_is_torchs() -> None:
    """Oracle: torch's local_response_norm in float64, even and odd sizes."""
    x = np.random.default_rng(1).standard_normal((2, 5, 3, 4))
    for size in (1, 2, 5, 8):
        own = functional.local_response_norm(mp.tensor(x, dtype="float64"), size, 0.5, 0.6, 2.0)
        other = _torch().nn.functional.local_response_norm(_torch().from_numpy(x), size, 0.5, 0.6, 2.0)
        assert_close(own.numpy(), other.numpy(), "fp64_same_maths")


X, P = mp.tensor(np.ones((2, 4, 5)), dtype="float32"), mp.tensor(np.ones(4), dtype="float32")
REFUSED: dict[str, tuple[Call, type[Exception], str]] = {
    "channels": (lambda: functional.batch_norm(X, P[:3], P), ShapeError, "a running_mean of shape"),
    "running": (lambda: functional.batch_norm(X, P[:3], P, training=True), ShapeError, "running stat"),
    "missing": (lambda: functional.batch_norm(X, None, None), ShapeError, "are needed outside training"),
    "weight": (lambda: functional.batch_norm(X, P, P, P[:2]), ShapeError, "a weight of shape"),
    "axes": (lambda: functional.batch_norm(X[0, 0], None, None, training=True), ShapeError, r"x \(N, C"),
    "narrow": (lambda: functional.batch_norm(X, P, P, P.half()), FormatError, "or float32 beside 16 bits"),
    "double": (lambda: functional.batch_norm(X.half(), P.double(), P), FormatError, "or float32 beside 16"),
    "groups": (lambda: functional.group_norm(X, 3), ShapeError, "in 3 equal groups"),
    "no_groups": (lambda: functional.group_norm(X, 0), SettingError, "num_groups of at least 1"),
    "instance": (lambda: functional.instance_norm(X[:, :, :1]), ShapeError, "more than one value"),
    "instance_weight": (lambda: functional.instance_norm(X, weight=P[:2]), ShapeError, "one number a"),
    "neighbours": (lambda: functional.local_response_norm(P, 2), ShapeError, r"expected x \(N, C, ...\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_is_refused(name: str) -> None:
    """Oracle: type and words of each error; no statistic is touched."""
    call, kind, words = REFUSED[name]
    before = P.array
    with pytest.raises(kind, match=words):
        call()
    assert P.array is before


def test_a_refused_call_leaves_the_statistics_alone() -> None:
    """Oracle: the arrays that were there before."""
    m, v = (mp.tensor(a, dtype="float32") for a in (np.zeros(4), np.ones(3)))
    arrays = m.array, v.array
    with pytest.raises(ShapeError):
        functional.batch_norm(X, m, v, training=True)
    assert m.array is arrays[0]
    assert v.array is arrays[1]
