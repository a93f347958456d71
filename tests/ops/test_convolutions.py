"""conv1d, conv2d, transposed convolutions: beside torch, turned round, by name, and twice differentiated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import minimp as mp
from minimp import functional, ops
from minimp.checks import check_events
from minimp.errors import FormatError, SettingError, ShapeError
from minimp.modes import listen
from minimp.tape import Event
from tests.ops.samples import numbers
from tests.ops.sums import WAYS
from tests.ops.test_torch_parity import FLOATS, ROWS, both
from tests.tolerances import assert_close

Call = Callable[..., Any]
FORMATS = ("float64", *FLOATS)
OWN = {**ROWS, "float64": "fp64_sums"}


def _torch() -> Any:
    return pytest.importorskip("torch")


def _both_ways(name: str, arrays: list[Any], fmt: str, **options: Any) -> None:
    """Hold a function and its gradients to torch's of the same name."""
    own, other = both(
        lambda *a: getattr(functional, name)(*a, **options),
        lambda *a: getattr(_torch().nn.functional, name)(*a, **options), arrays, fmt,
    )  # fmt: skip
    assert_close(own[0], other[0], OWN[fmt])
    for got, wanted in zip(own[1:], other[1:], strict=True):
        assert_close(got, wanted, OWN[fmt].replace("_op_", "_gradient_"))


CASES: dict[str, tuple[str, list[tuple[int, ...]], dict[str, Any]]] = {
    "signal": ("conv1d", [(2, 4, 11), (6, 2, 3), (6,)], {"stride": 2, "padding": 2, "groups": 2}),
    "signal_dilated": ("conv1d", [(2, 3, 9), (4, 3, 2)], {"dilation": 3}),
    "signal_same": ("conv1d", [(2, 3, 8), (4, 3, 4), (4,)], {"padding": "same"}),
    "image_same": ("conv2d", [(2, 3, 6, 7), (4, 3, 2, 4), (4,)], {"padding": "same", "dilation": (3, 1)}),
    "image_valid": ("conv2d", [(2, 3, 6, 7), (4, 3, 2, 4), (4,)], {"padding": "valid", "stride": 2}),
    "back": ("conv_transpose1d", [(2, 4, 5), (4, 3, 3), (6,)], {"stride": 3, "padding": 1, "groups": 2}),
    "back_longer": ("conv_transpose1d", [(2, 3, 5), (3, 4, 2)], {"stride": 2, "output_padding": 1}),
    "up": (
        "conv_transpose2d", [(2, 4, 3, 4), (4, 3, 3, 2), (6,)],
        {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2), "groups": 2},
    ),
    "up_dilated": (
        "conv_transpose2d", [(2, 2, 4, 3), (2, 3, 2, 3), (3,)],
        {"dilation": (2, 3), "padding": (1, 2), "output_padding": (1, 2)},
    ),
}  # fmt: skip


QUIET = "ignore:Using padding='same' with even kernel lengths"


@pytest.mark.torch
@pytest.mark.filterwarnings(QUIET)
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("name", list(CASES))
def test_results_and_gradients_are_torchs(name: str, fmt: str) -> None:
    """Oracle: torch 2.13.0 on the CPU in the same format, to a unit of the largest element (gradients: 4)."""
    op, shapes, options = CASES[name]
    random = np.random.default_rng(11)
    _both_ways(op, [numbers(random, shape, fmt) for shape in shapes], fmt, **options)


@st.composite
def geometries(draw: Any, axes: int) -> dict[str, Any]:
    """Sizes of a convolution with every setting in play."""

    def each(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    return {
        "size": each(1, 7), "kernel": each(1, 4), "stride": each(1, 4), "padding": each(0, 4),
        "dilation": each(1, 3), "groups": draw(st.sampled_from([1, 2, 3])), "images": draw(st.integers(1, 2)),
        "channels": draw(st.integers(1, 2)), "filters": draw(st.integers(1, 2)),
    }  # fmt: skip


@pytest.mark.torch
@settings(deadline=None, max_examples=60)
@given(geometries(1) | geometries(2), st.booleans(), st.data())
def test_any_geometry_is_torchs(g: dict[str, Any], turned: bool, data: Any) -> None:
    """Oracle: torch's conv1d/2d and conv_transpose1d/2d in float64, values and gradients."""
    axes, groups = len(g["size"]), g["groups"]
    options = {name: g[name] for name in ("stride", "padding", "dilation")} | {"groups": groups}
    reach = [d * (k - 1) + 1 for d, k in zip(g["dilation"], g["kernel"], strict=True)]
    channels, filters = g["channels"] * groups, g["filters"] * groups
    if turned:
        most = [max(s, d) - 1 for s, d in zip(g["stride"], g["dilation"], strict=True)]
        options["output_padding"] = tuple(data.draw(st.integers(0, n)) for n in most)
        parts = zip(g["size"], g["stride"], g["padding"], reach, options["output_padding"], strict=True)
        assume(min((n - 1) * s - 2 * p + r + e for n, s, p, r, e in parts) >= 1)
        weight = (channels, g["filters"], *g["kernel"])
    else:
        assume(all(n + 2 * p >= r for n, p, r in zip(g["size"], g["padding"], reach, strict=True)))
        weight = (filters, g["channels"], *g["kernel"])
    shapes = [(g["images"], channels, *g["size"]), weight, (filters,)]
    random = np.random.default_rng(sum(g["size"]))
    name = f"conv_transpose{axes}d" if turned else f"conv{axes}d"
    _both_ways(name, [random.standard_normal(shape) for shape in shapes], "float64", **options)


@pytest.mark.torch
@pytest.mark.filterwarnings(QUIET)
@settings(deadline=None, max_examples=30)
@given(geometries(1) | geometries(2))
def test_same_padding_of_any_kernel_is_torchs(g: dict[str, Any]) -> None:
    """Oracle: torch's padding="same" in float64, even kernels too: the odd zero comes last."""
    axes, random = len(g["size"]), np.random.default_rng(1)
    shapes = [(1, g["channels"], *g["size"]), (g["filters"], g["channels"], *g["kernel"])]
    x, w = (mp.tensor(random.standard_normal(shape), dtype="float64") for shape in shapes)
    y = getattr(functional, f"conv{axes}d")(x, w, padding="same", dilation=g["dilation"])
    torch = _torch()
    other = getattr(torch.nn.functional, f"conv{axes}d")(
        torch.from_numpy(x.numpy()), torch.from_numpy(w.numpy()), padding="same", dilation=g["dilation"]
    )
    assert y.shape[2:] == g["size"]
    assert_close(y.numpy(), other.numpy(), "fp64_sums")


# ---- laws -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["float32", *WAYS])
def test_a_transposed_convolution_is_the_gradient_of_one(name: str) -> None:
    """Oracle: conv2d's gradient by its image, bit for bit, under every accumulation; the bias comes after."""
    random = np.random.default_rng(2)
    geometry: dict[str, Any] = {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2), "groups": 2}
    x, w, b = (
        mp.tensor(numbers(random, shape, "float16"), dtype="float16")
        for shape in [(2, 4, 3, 4), (4, 3, 3, 2), (6,)]
    )
    with mp.accumulate(name):
        y = functional.conv_transpose2d(x, w, **geometry)
        image = mp.tensor(np.zeros(y.shape), dtype="float16", requires_grad=True)
        functional.conv2d(image, w, **geometry).backward(x)
        np.testing.assert_array_equal(y.numpy(), image.grad.numpy())
        biased = functional.conv_transpose2d(x, w, b, **geometry)
    assert not np.array_equal(biased.numpy(), y.numpy())


@pytest.mark.parametrize("name", ["float32", *WAYS])
def test_a_signal_is_an_image_of_height_1(name: str) -> None:
    """Oracle: conv2d and conv_transpose2d on (N, C, 1, L), bit for bit, results and gradients."""
    random = np.random.default_rng(3)
    for turned, shapes in ((False, [(2, 4, 9), (4, 2, 3), (4,)]), (True, [(2, 4, 5), (4, 2, 3), (4,)])):
        arrays = [numbers(random, shape, "float16") for shape in shapes]
        found = []
        for axes in (1, 2):
            leaves = [mp.tensor(a, dtype="float16", requires_grad=True) for a in arrays]
            x, w = (t if axes == 1 else t.reshape(*t.shape[:2], 1, t.shape[2]) for t in leaves[:2])
            call = getattr(functional, f"conv_transpose{axes}d" if turned else f"conv{axes}d")
            first = () if axes == 1 else (1,)
            zero = () if axes == 1 else (0,)
            with mp.accumulate(name):
                y = call(x, w, leaves[2], (*first, 2), (*zero, 1), groups=2)
            y.backward(numbers(np.random.default_rng(4), y.shape, "float16"))
            found.append([y.detach().numpy().ravel(), *(t.grad.numpy() for t in leaves)])
        for own, other in zip(*found, strict=True):
            np.testing.assert_array_equal(own, other)


GEOMETRY: dict[str, Any] = {"stride": (2, 1), "padding": (1, 1), "dilation": (1, 2), "groups": 2}
TWICE: dict[str, tuple[Call, Call, list[tuple[int, ...]]]] = {
    "conv2d": (
        lambda x, w, b: functional.conv2d(x, w, b, **GEOMETRY),
        lambda x, w, b: _torch().nn.functional.conv2d(x, w, b, **GEOMETRY),
        [(2, 4, 5, 6), (4, 2, 3, 2), (4,)],
    ),
    "conv1d": (
        lambda x, w, b: functional.conv1d(x, w, b, 2, 1),
        lambda x, w, b: _torch().nn.functional.conv1d(x, w, b, 2, 1),
        [(2, 3, 7), (4, 3, 3), (4,)],
    ),
    "conv_transpose2d": (
        lambda x, w, b: functional.conv_transpose2d(x, w, b, **GEOMETRY, output_padding=(1, 0)),
        lambda x, w, b: _torch().nn.functional.conv_transpose2d(x, w, b, **GEOMETRY, output_padding=(1, 0)),
        [(2, 4, 3, 4), (4, 2, 3, 2), (4,)],
    ),
    "conv_transpose1d_longer": (
        lambda x, w, b: functional.conv_transpose1d(x, w, b, dilation=3, padding=1, output_padding=2),
        lambda x, w, b: _torch().nn.functional.conv_transpose1d(
            x, w, b, dilation=3, padding=1, output_padding=2
        ),
        [(2, 3, 4), (3, 2, 2), (2,)],
    ),
}  # fmt: skip


def twice(mine: Call, theirs: Call, arrays: list[Any]) -> None:
    """Hold the gradient of |dx|^2 + |dw|^2 + ..., weighted, to torch's, in float64."""
    torch, random = _torch(), np.random.default_rng(6)
    own = [mp.tensor(a, dtype="float64", requires_grad=True) for a in arrays]
    other = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in arrays]
    y, z = mine(*own), theirs(*other)
    seed = random.standard_normal(y.shape)
    own.append(mp.tensor(seed, dtype="float64", requires_grad=True))
    other.append(torch.tensor(seed, requires_grad=True))
    first = mp.grad(y, own[:-1], own[-1], create_graph=True)
    wanted = torch.autograd.grad(z, other[:-1], other[-1], create_graph=True)
    total: Any = sum(((g * g * g).sum() for g in first), start=0.0)
    total_other = sum((g**3).sum() for g in wanted)
    total.backward()
    total_other.backward()
    for i, (a, b) in enumerate(zip(own, other, strict=True)):
        if b.grad is None:
            assert a.grad is None or not a.grad.numpy().any(), i
        else:
            assert_close(a.grad.numpy(), b.grad.numpy(), "fp64_sums")


@pytest.mark.torch
@pytest.mark.parametrize("name", list(TWICE))
def test_second_derivatives_are_torchs(name: str) -> None:
    """Oracle: torch's double backward in float64, by inputs, parameters and the incoming gradient."""
    mine, theirs, shapes = TWICE[name]
    random = np.random.default_rng(5)
    twice(mine, theirs, [random.standard_normal(shape) for shape in shapes])


# ---- formats, and what is kept ----------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["torch-cuda", "torch-cpu"])
def test_autocast_lowers_every_convolution(policy: str) -> None:
    """Oracle: torch's lists: conv1d, conv_transpose1d, conv_transpose2d are lower_precision_fp on both."""
    x, w = (mp.tensor(np.ones(s), dtype="float32", requires_grad=True) for s in [(1, 2, 5), (2, 2, 3)])
    with mp.autocast("bfloat16", policy=policy):
        for call in (functional.conv1d, functional.conv_transpose1d):
            y = call(x, w)
            assert y.format is mp.bfloat16
            assert {a.dtype.name for a in y.node.saved} == {"bfloat16"}
    y.sum().backward()
    assert x.grad.format is mp.float32


def test_a_convolution_keeps_its_factors_alone() -> None:
    """Oracle: the closed form: bytes of x and w, in their format; nothing that no gradient needs."""
    shapes = {"conv1d": ((2, 4, 9), (6, 4, 3)), "conv_transpose2d": ((2, 4, 3, 3), (4, 6, 2, 2))}
    for name, (a, b) in shapes.items():
        x, w = (mp.tensor(np.ones(s), dtype="float16", requires_grad=True) for s in (a, b))
        saved = getattr(functional, name)(x, w).node.saved
        assert sum(s.nbytes for s in saved) == 2 * (np.prod(a) + np.prod(b))
        saved = getattr(functional, name)(x, w.detach()).node.saved
        assert saved[0] is None
        assert saved[1] is w.array


@pytest.mark.parametrize("name", ["float16", "chunked:4", "kahan", "tensorcore:ampere"])
@pytest.mark.parametrize("case", ["signal", "back_longer", "up", "up_dilated"])
def test_named_sums_keep_their_bounds(case: str, name: str) -> None:
    """Oracle: float64 references with the gamma of each accumulation."""
    op, shapes, options = CASES[case]
    random, events = np.random.default_rng(7), list[Event]()
    leaves = [mp.tensor(numbers(random, s, "float16"), dtype="float16", requires_grad=True) for s in shapes]
    with mp.accumulate(name), listen(events.append):
        getattr(functional, op)(*leaves, **options).sum().backward()
    found = check_events(events)
    assert found, str(found)


X, W = mp.tensor(np.ones((2, 4, 5)), dtype="float32"), mp.tensor(np.ones((4, 2, 3)), dtype="float32")
REFUSED: dict[str, tuple[Call, type[Exception], str]] = {
    "channels": (lambda: functional.conv1d(X, W), ShapeError, "expected 2 input channels"),
    "axes": (lambda: functional.conv1d(X[0], W, groups=2), ShapeError, r"expected x \(N, C, L\)"),
    "reach": (lambda: functional.conv1d(X, W, groups=2, dilation=3), ShapeError, "reaches over 7 elements"),
    "bias": (lambda: functional.conv1d(X, W, W[0, 0], groups=2), ShapeError, r"a bias of shape \(4,\)"),
    "first": (lambda: functional.conv_transpose1d(X, W[:3]), ShapeError, "the weight's first axis"),
    "extra": (
        lambda: functional.conv_transpose1d(X, W, output_padding=1), SettingError, "smaller than the stride",
    ),
    "nothing": (lambda: functional.conv_transpose1d(X, W, padding=4), ShapeError, "nothing is left"),
    "mixed": (lambda: functional.conv_transpose1d(X, W.half()), FormatError, "inputs of one format"),
    "groups": (lambda: functional.conv1d(X, W, groups=0), SettingError, "groups: expected a whole number"),
    "stride": (lambda: functional.conv1d(X, W, stride=0), SettingError, "stride: expected one whole number"),
    "same": (lambda: functional.conv1d(X, W, stride=2, padding="same"), SettingError, "needs stride 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_is_refused(name: str) -> None:
    """Oracle: type and words of each error."""
    call, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        call()


@pytest.mark.parametrize("name", ["float32", "float16", "kahan", "chunked:4"])
def test_the_three_kernels_have_each_other_for_gradients(name: str) -> None:
    """Oracle: conv2d, conv2d_input and conv2d_weight themselves, bit for bit, under one accumulation."""
    random = np.random.default_rng(8)
    shapes = [(2, 4, 5, 6), (4, 2, 3, 2), (2, 4, 3, 6)]  # an image, a weight, a result
    x, w, g = (mp.tensor(numbers(random, s, "float16"), dtype="float16", requires_grad=True) for s in shapes)

    def image(a: Any, b: Any) -> mp.Tensor:
        return ops.conv2d_input(a, b, shape=shapes[0], **GEOMETRY)

    def weight(a: Any, b: Any) -> mp.Tensor:
        return ops.conv2d_weight(a, b, shape=shapes[1], **GEOMETRY)

    def result(a: Any, b: Any) -> mp.Tensor:
        return functional.conv2d(a, b, **GEOMETRY)

    for call, inputs, seed, rules in (
        (result, (x, w), g, (lambda: image(g, w), lambda: weight(x, g))),
        (image, (g, w), x, (lambda: result(x, w), lambda: weight(x, g))),
        (weight, (x, g), w, (lambda: image(g, w), lambda: result(x, w))),
    ):
        with mp.accumulate(name):
            y = call(*inputs)
            wanted = [rule().detach().numpy() for rule in rules]
        for found, right in zip(mp.grad(y, inputs, seed.detach()), wanted, strict=True):
            np.testing.assert_array_equal(found.numpy(), right)
