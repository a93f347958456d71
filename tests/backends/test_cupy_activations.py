"""Activations and the bias by kernels of ours, beside the array functions that they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import minimp as mp
from minimp import formats, functional, nn
from minimp_backends.kernels.families.activations import NAMES
from minimp_backends.kernels.references.activations import FUNCTIONS, ROUNDINGS, ULPS
from minimp_backends.special import erf
from minimp_backends.strict.counts import DEVICE
from tests.kernels.samples.activations import odd
from tests.tolerances import assert_bound, assert_close

Array = np.ndarray[Any, Any]
LOW = ("float16", "bfloat16")
STORED = ("float32", *LOW)


def numbers(shape: tuple[int, ...], name: str, seed: int = 0) -> Array:
    """Return numbers of many magnitudes, some of them odd."""
    rng = np.random.default_rng(seed)
    wide = rng.standard_normal(shape) * 2.0 ** rng.uniform(-6, 3, shape)
    if wide.size > 100:
        wide.reshape(-1)[: odd().size] = odd()
    with np.errstate(all="ignore"):
        return wide.astype(formats.get(name).dtype)


def same(made: Array, wanted: Array) -> None:
    """Compare dtypes and bits; each NaN is like the others."""
    assert made.dtype == wanted.dtype
    assert made.shape == wanted.shape
    with np.errstate(all="ignore"):
        nan = np.isnan(made), np.isnan(wanted)
    np.testing.assert_array_equal(*nan)
    bits = f"u{made.itemsize}"
    made, wanted = np.ascontiguousarray(made), np.ascontiguousarray(wanted)
    np.testing.assert_array_equal(made.view(bits)[~nan[0]], wanted.view(bits)[~nan[0]])


# ---- the mathematics -------------------------------------------------------------------------------------


def points() -> Array:
    """Return float32 numbers of all magnitudes, densely where the functions bend."""
    near, far = np.linspace(-12, 12, 40_001), np.geomspace(1e-40, 1e18, 8001)
    tails = np.linspace(-110, -80, 2001)
    return np.concatenate([near, far, -far, tails, -tails, [0.0, -0.0]]).astype(np.float32)


def exact(name: str, x: Array) -> Array:
    """Return an activation, or its slope, in float64."""
    s, density = 1 / (1 + np.exp(-x)), np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    phi, bend = 0.5 * (1 + erf(np, x / math.sqrt(2))), math.sqrt(2 / math.pi)
    t = np.tanh(bend * (x + 0.044715 * x**3))
    return {
        "sigmoid": lambda: s,
        "tanh": lambda: np.tanh(x),
        "silu": lambda: x * s,
        "silu_gradient": lambda: s * (1 + x * (1 - s)),
        "gelu": lambda: x * phi,
        "gelu_gradient": lambda: phi + x * density,
        "gelu_tanh": lambda: x * 0.5 * (1 + t),
        "gelu_tanh_gradient": lambda: (
            0.5 * (1 + t) + x * 0.5 * (1 - t * t) * bend * (1 + 3 * 0.044715 * x * x)
        ),
    }[name]()


def reference(name: str, x: Array) -> Array:
    """Return what the kernel gives, of gradients for g = 1."""
    value, gradient = FUNCTIONS[name.removesuffix("_gradient")]
    with np.errstate(all="ignore"):
        return gradient(np.ones_like(x), x) if name.endswith("_gradient") else value(x)


@pytest.mark.parametrize("name", ULPS)
def test_values_keep_their_ulps(name: str) -> None:
    """Oracle: float64; a number times an s that is subnormal has that many of its errors."""
    x = points()
    with np.errstate(all="ignore"):
        wanted = exact(name, x.astype(np.float64))
    ulp = np.ldexp(1.0, np.maximum(np.frexp(wanted)[1] - 1, -126) - 23)
    lost = np.abs(x.astype(np.float64)) * 2.0**-149 if name == "silu" else 0.0
    assert_bound(reference(name, x), wanted, ULPS[name] * ulp + lost, "activation_kernels")


@pytest.mark.parametrize("name", ROUNDINGS)
def test_what_cancels_keeps_its_roundings(name: str) -> None:
    """Oracle: float64, and the bound that stands beside the reference, absolute as 1 + erf cancels."""
    x = points()
    with np.errstate(all="ignore"):
        wanted = exact(name, x.astype(np.float64))
    bound = ROUNDINGS[name] * 2.0**-24 * np.maximum(1, np.abs(x.astype(np.float64)))
    assert_bound(reference(name, x), wanted, bound, "activation_kernels")


def test_every_function_has_a_bound_or_the_bits_of_the_arrays() -> None:
    """Oracle: the names of the kernels."""
    bitwise = {
        "relu",
        "relu_gradient",
        "leaky_relu",
        "leaky_relu_gradient",
        "sigmoid_gradient",
        "tanh_gradient",
    }
    assert bitwise | set(ULPS) | set(ROUNDINGS) == NAMES


# ---- beside the array functions --------------------------------------------------------------------------

OPS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "relu": (functional.relu, True),
    "leaky_relu": (lambda x: functional.leaky_relu(x, 0.2), True),
    "sigmoid": (functional.sigmoid, False),
    "tanh": (functional.tanh, False),
    "silu": (functional.silu, False),
    "gelu": (functional.gelu, False),
    "gelu_tanh": (lambda x: functional.gelu(x, approximate="tanh"), False),
}
"""Name -> (op, whether all bits are those of the array functions)."""


def run(op: Callable[[Any], Any], x: Array, g: Array) -> list[Array]:
    """Return the value and the gradient on the device."""
    a = mp.tensor(x, requires_grad=True, backend="cupy", dtype=formats.get(x.dtype).name)
    y = op(a)
    y.backward(mp.tensor(g, backend="cupy", dtype=formats.get(g.dtype).name))
    return [y.detach().numpy(), a.grad.numpy()]


def two_ways(x: Array, g: Array, wanted: Array) -> Array:
    """Bound the difference of two results that were computed within 8 roundings each, and rounded."""
    unit = ml_dtypes.finfo(wanted.dtype)
    with np.errstate(all="ignore"):
        x, g, y = (np.abs(each.astype(np.float64)) for each in (x, g, wanted))
        bound = 16 * 2.0**-24 * np.maximum(1, x) * g + float(unit.eps) * y
    return np.nan_to_num(bound, nan=0.0) + float(unit.smallest_subnormal)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("name", OPS)
def test_ops_are_those_of_the_arrays(device: Any, name: str, stored: str) -> None:
    """Oracle: the array functions: the bits where nothing but + - x is done, and the ops' tolerances else.

    NaN and infinities are in the same places, of odd numbers too.
    """
    op, bitwise = OPS[name]
    x, g = numbers((7, 60), stored, 1), numbers((7, 60), stored, 2)[::-1]
    made = run(op, x, g)
    kinds = {each.removesuffix({"float32": "_float", "float16": "_half"}.get(stored, "_bfloat16"))
             for each in device.ran}  # fmt: skip
    assert kinds == {name, f"{name}_gradient"}
    with device.use_route("arrays"):
        wanted = run(op, x, g)
    for one, other, slope in zip(made, wanted, (np.ones_like(g), g), strict=True):
        if bitwise:
            same(one, other)
            continue
        assert one.dtype == other.dtype
        assert_bound(one, other, two_ways(x, slope, other), "activation_kernels")


@pytest.mark.parametrize("name", OPS)
def test_a_single_number_stays_without_axes(device: Any, name: str) -> None:
    """Oracle: the shape given; CuPy's ascontiguousarray makes one of one axis."""
    made = run(OPS[name][0], np.asarray(0.5, np.float32), np.asarray(1.0, np.float32))
    assert [each.shape for each in made] == [(), ()]
    assert f"{name}_float" in device.ran


@pytest.mark.parametrize("stored", STORED)
def test_a_bias_has_the_bits_of_the_arrays(device: Any, stored: str) -> None:
    """Oracle: the array functions, bit for bit; rows and images, of any memory order, and none at all."""
    form = formats.get(stored)
    layouts: tuple[tuple[tuple[int, ...], int, tuple[int, ...]], ...] = (
        ((7, 33), -1, (0, 1)), ((3, 5, 8), -1, (0, 1, 2)), ((2, 5, 4, 3), -3, (1, 0, 2, 3)),
        ((2, 5, 4, 3), -3, (3, 0, 2, 1)), ((0, 4), -1, (0, 1)), ((1, 1), -1, (0, 1)),
    )  # fmt: skip
    for shape, axis, order in layouts:
        sums = numbers(shape, "float32", 3)
        bias = numbers((shape[axis],), stored, 4)
        found = []
        for route in ("kernels", "arrays"):
            with device.use_route(route):
                there = device.from_host(np.ascontiguousarray(sums.transpose(order)))
                there = there.transpose(tuple(np.argsort(order)))
                made = device.add_bias(there, device.from_host(bias), form, axis)
                found.append(device.to_host(made))
        same(*found)
    kind = {"float32": "float", "float16": "half"}.get(stored, stored)
    assert device.ran == [f"add_bias_{kind}"] * 5


def test_a_bias_with_gaps_between_its_sums(device: Any) -> None:
    """Oracle: the host, on a slice of a larger array and on an array turned round."""
    sums, bias = numbers((6, 10), "float32", 1), numbers((5,), "float16", 2)
    for cut in ((slice(None), slice(0, 5)), (slice(None, None, -1), slice(None, None, 2))):
        made = device.add_bias(device.from_host(sums)[cut], device.from_host(bias), formats.float16)
        same(device.to_host(made), (sums[cut] + bias.astype(np.float32)).astype(np.float16))


@pytest.mark.parametrize("stored", [*STORED, "float64"])
@pytest.mark.parametrize("accumulate", ["float32", "float64"])
def test_layers_have_the_bits_of_the_arrays(device: Any, stored: str, accumulate: str) -> None:
    """Oracle: the array functions: linear, convolutions of both kinds, with a bias and without."""
    x, w = (mp.tensor(numbers(shape, stored, 5), backend="cupy") for shape in ((4, 9), (6, 9)))
    image, kernel = (
        mp.tensor(numbers(shape, stored, 6), backend="cupy") for shape in ((2, 3, 7, 5), (6, 3, 3, 2))
    )
    turned, b = kernel.transpose(0, 1), mp.tensor(numbers((6,), stored, 7), backend="cupy")
    found: dict[str, list[Array]] = {}
    for route in ("kernels", "arrays"):
        with device.use_route(route), mp.accumulate(accumulate):
            made = [
                y
                for bias in (b, None)
                for y in (
                    functional.linear(x, w, bias),
                    functional.conv2d(image, kernel, bias, stride=2),
                    functional.conv1d(image[:, :, 0], kernel[:, :, 0], bias),
                    functional.conv_transpose2d(image, turned, bias),
                    functional.conv_transpose1d(image[:, :, 0], turned[:, :, 0], bias),
                )
            ]
            found[route] = [y.numpy() for y in made]
    for one, other in zip(*found.values(), strict=True):
        same(one, other)
    fits = accumulate == "float32" and stored != "float64"
    assert sum(each.startswith("add_bias") for each in device.ran) == (5 if fits else 0)


def test_a_float32_bias_is_added_in_place(device: Any) -> None:
    """Oracle: the device's own count of arrays; the sums are fresh, and nobody else's."""
    sums, bias = device.from_host(numbers((4, 3), "float32")), device.from_host(numbers((3,), "float32", 1))
    with DEVICE.counting() as counts:
        made = device.add_bias(sums, bias, formats.float32)
    assert counts.allocations == 0
    same(device.to_host(made), device.to_host(sums))


def test_what_kernels_do_not_take_goes_to_the_arrays(device: Any) -> None:
    """Oracle: the host's results; float64, empty arrays, and functions without a kernel."""
    x = numbers((5, 4), "float64")
    for op in (functional.gelu, functional.sigmoid, functional.relu, functional.leaky_relu):
        made = op(mp.tensor(x, backend="cupy")).numpy()
        assert_close(made, op(mp.tensor(x)).numpy(), "parity_op_fp32")
    assert functional.silu(mp.tensor(np.zeros((0, 3), np.float16), backend="cupy")).shape == (0, 3)
    functional.softplus(mp.tensor(np.ones(3, np.float16), backend="cupy"))
    g, y = numbers((1, 4), "float32", 1), numbers((3, 4), "float32", 2)
    made = device.pointwise(
        "sigmoid_gradient", lambda _, g, y: g * y * (1 - y), formats.float32, device.from_host(g),
        device.from_host(y),
    )  # fmt: skip
    same(device.to_host(made), g * y * (1 - y))
    assert device.ran == []


def test_a_formula_that_uses_a_function_uses_the_kernels(device: Any) -> None:
    """Oracle: sigmoid and tanh themselves, bit for bit: glu's gate, and a cell's state."""
    x = mp.tensor(numbers((3, 8), "float32", 1), backend="cupy")
    same(functional.glu(x).numpy(), (functional.sigmoid(x[:, 4:]) * x[:, :4]).numpy())
    wide, out = device.from_host(numbers((4, 6), "float32", 2)), device.xp.zeros((4, 6), np.float32)
    assert device.tanh(wide, out) is out
    same(device.to_host(out), device.to_host(device.tanh(wide)))
    assert device.ran.count("tanh_float") == 2


def test_gradients_that_record_are_those_that_do_not(device: Any) -> None:
    """Oracle: the kernels' gradients; and, once more differentiated, the NumPy backend's."""
    x = np.linspace(-2, 2, 9, dtype=np.float32)
    for name in ("sigmoid", "silu", "gelu", "tanh", "relu", "leaky_relu"):
        op, second = getattr(functional, name), []
        for backend in ("cupy", "numpy"):
            a = mp.tensor(x, requires_grad=True, backend=backend)
            (plain,) = mp.grad((op(a) * a).sum(), a)
            (slope,) = mp.grad((op(a) * a).sum(), a, create_graph=True)
            assert_close(slope.detach().numpy(), plain.numpy(), "parity_gradient_fp32")
            second.append(mp.grad((slope * slope).sum(), a)[0].numpy())
        assert_close(*second, "parity_gradient_fp32")


def test_a_layer_and_its_activation_make_no_temporaries(device: Any) -> None:
    """Oracle: the device's own count: a product, its rounded sum, and the activation are three arrays."""
    x, layer = mp.tensor(numbers((16, 8), "float16", 1), backend="cupy"), nn.Linear(8, 4).half().to("cupy")
    with DEVICE.counting() as kernels, mp.no_grad():
        functional.gelu(layer(x))
    with device.use_route("arrays"), DEVICE.counting() as arrays, mp.no_grad():
        functional.gelu(layer(x))
    assert kernels.allocations == 3
    assert arrays.allocations > 10
