"""exp, log and their like of the kernels: their bits are the NumPy reference's, which keep their bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from minimp_backends.kernels import sources
from minimp_backends.kernels.declaring import Kernel, Parameter, per_element
from minimp_backends.kernels.nvrtc import Compiler
from minimp_backends.kernels.references import exponentials
from minimp_backends.kernels.references.exponentials import BOUNDS
from minimp_backends.kernels.sources import Source
from minimp_backends.special import erf
from tests.kernels.agreement import launched, mismatches
from tests.kernels.compiled import PLAIN_CHIP, entries
from tests.kernels.linting import findings
from tests.kernels.ptx.running import run
from tests.kernels.shim.building import build

Array = np.ndarray[Any, Any]
NAMES = tuple(BOUNDS)
EXACT: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "tanh": np.tanh,
    "erf": lambda x: erf(np, x),
}  # fmt: skip
EDGES = np.array(
    [0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 88.72283, 88.72284, 89.5, -87.4, -103.3, -103.98, -104.5, 4,
     3.9999, 1e-45, -1e-45, 1.1754942e-38, 3.4e38, -3.4e38, 0.375, -0.25, 0.70710677, 1.4142135, -0.99999994,
     16777216, 0.34657359, -0.34657359, 1.0397208], np.float32,
)  # fmt: skip


def every(step: int) -> Array:
    """Return every step-th float32 number there is, and those at which something changes."""
    bits = np.arange(0, 1 << 32, step, dtype=np.int64).astype(np.uint32)
    return np.concatenate([EDGES, bits.view(np.float32)])


def reference(name: str) -> Callable[..., None]:
    """Return the NumPy reference of a tiny kernel."""

    def write(x: Array, y: Array, count: int) -> None:
        """Write the function of each element."""
        y[:count] = getattr(exponentials, name)(x[:count])

    return write


def tiny(name: str) -> Kernel:
    """A kernel that is one function and nothing else."""
    return Kernel(
        f"each_{name}", "tried_exponentials.cu",
        (Parameter("x", "float", "in"), Parameter("y", "float", "out"), Parameter("count", "int64", "value")),
        lambda arguments: per_element(arguments["count"]), reference(name),
    )  # fmt: skip


TINY = {name: tiny(name) for name in NAMES}
SOURCE = Source(
    "tried_exponentials.cu",
    '#include "exponentials.cuh"\n'
    + "".join(
        f'extern "C" __global__ void each_{name}(const float* x, float* y, long long count) {{\n'
        "    for (long long i = first_element(); i < count; i += element_stride()) {\n"
        f"        y[i] = {name}_fixed(x[i]);\n    }}\n}}\n"
        for name in NAMES
    ),
    sources.read("embedding.cu").headers,
)


def arguments_of(x: Array) -> dict[str, Any]:
    """Return the arguments of a tiny kernel."""
    return {"x": x, "y": np.zeros_like(x), "count": x.size}


@pytest.mark.parametrize("step", [9973, pytest.param(401, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_bounds(name: str, step: int) -> None:
    """Oracle: float64, over numbers of every sign, exponent and kind; in ULPs of float32."""
    for x in np.array_split(every(step), max(1, 9973 // step)):
        with np.errstate(all="ignore"):
            exact = EXACT[name](x.astype(np.float64))
            rounded, got = exact.astype(np.float32), getattr(exponentials, name)(x)
            ulp = np.ldexp(1.0, np.maximum(np.frexp(exact)[1] - 1, -126) - 23)
            error = np.abs(got - exact) / ulp
        np.testing.assert_array_equal(np.isnan(got), np.isnan(rounded))
        known = ~np.isnan(got)
        np.testing.assert_array_equal(np.signbit(got[known]), np.signbit(rounded[known]))
        finite = np.isfinite(got) & np.isfinite(rounded)
        assert error[finite].max(initial=0) <= BOUNDS[name]
        np.testing.assert_array_equal(got[known & ~finite], rounded[known & ~finite])


@pytest.mark.parametrize("name", NAMES)
def test_special_values(name: str) -> None:
    """Oracle: NumPy's functions at infinities, NaN, zeros and the poles."""
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -1 if "log" in name else 0], np.float32)
    with np.errstate(all="ignore"):
        wanted = EXACT[name](x.astype(np.float64)).astype(np.float32)
    got = getattr(exponentials, name)(x)
    np.testing.assert_array_equal(got, wanted)
    np.testing.assert_array_equal(np.signbit(got)[:2], np.signbit(wanted)[:2])


def test_subnormal_results() -> None:
    """Oracle: float64: e^x below 2^-126 is no zero, but one of the few numbers that there are."""
    x = np.linspace(-104, -87.3, 5001, dtype=np.float32)
    exact = np.exp(x.astype(np.float64))
    assert (exponentials.exp(x)[exact > 2.0**-149] > 0).all()
    assert np.abs(exponentials.exp(x) - exact).max() <= BOUNDS["exp"] * 2.0**-149


@pytest.mark.parametrize("step", [99_991, pytest.param(4999, marks=pytest.mark.slow)])
def test_gcc_gives_the_references_bits(host_compiler: str, step: int) -> None:
    """Oracle: the NumPy reference; -ffp-contract=off."""
    built = build(SOURCE, TINY.values())
    for name, kernel in TINY.items():
        launch = launched(kernel, arguments_of(every(step)))
        assert built.launch(kernel, launch.shape, launch.addresses, backwards=False) == ""
        wanted = arguments_of(every(step))
        kernel.reference(**wanted)
        assert list(mismatches(kernel, wanted, launch.copies, wanted)) == [], name


@pytest.mark.parametrize("name", NAMES)
def test_ptx_gives_the_references_bits(compiler: Compiler, name: str) -> None:
    """Oracle: the NumPy reference, against what NVRTC made, interpreted."""
    kernel, x = TINY[name], every(0x1_0000_0000 // 220)
    got, wanted = arguments_of(x), arguments_of(x)
    run(entries(SOURCE, PLAIN_CHIP)[kernel.name], kernel, got)
    kernel.reference(**wanted)
    assert list(mismatches(kernel, wanted, got, wanted)) == []


@pytest.mark.parametrize("name", NAMES)
def test_ptx_has_nothing_inexact(compiler: Compiler, name: str) -> None:
    """Oracle: the lint: no approximation, no contraction, no fma, no flush-to-zero."""
    assert list(findings(TINY[name], entries(SOURCE, PLAIN_CHIP)[f"each_{name}"])) == []
