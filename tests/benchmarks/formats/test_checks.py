"""The look before the clock; oracles: planted faults, minimp's own products, sums by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from minimp.benchmarks.formats.blocks import block_kernels
from minimp.benchmarks.formats.data import FEWEST, values
from minimp.benchmarks.formats.dots import allowed_error, dot
from minimp.benchmarks.formats.kernels import OURS, Kernel, kernels
from minimp.benchmarks.formats.products import Product
from minimp.benchmarks.formats.verify import verify_kernel, verify_product
from minimp.errors import MinimpError
from minimp.formats import FORMATS, get
from minimp.formats.accumulation.orders import Accumulate, matmul
from minimp.formats.exact import round_fraction

# ---- element by element ------------------------------------------------------------------------------------


def _kernel(size: int = 1 << 15) -> Kernel:
    """A kernel whose reference doubles its source."""
    x = values(size)
    return Kernel("grid", "fp16", "somebody", x, lambda part, *_: 2 * part, lambda part, _: 2 * part)


def test_a_right_kernel_passes() -> None:
    """Oracle: the reference's own result, whatever the size; NaN in both is no difference."""
    for size in (1, 17, 1 << 10, 1 << 15):
        kernel = _kernel(size)
        kernel.source[0] = np.nan
        verify_kernel(kernel, 2 * kernel.source)


Fault = Callable[[Any], Any]
FAULTS: dict[str, Fault] = {
    "the first": lambda r: np.concatenate([r[:1] + 1, r[1:]]),
    "the last": lambda r: np.concatenate([r[:-1], np.nextafter(r[-1:], np.float32(0))]),
    "one block": lambda r: np.where(np.arange(r.size) // 4096 == 3, r + 1, r),
    "a sign": lambda r: np.where(r == 0, np.copysign(r, -1), r),
    "NaN": lambda r: np.where(np.arange(r.size) == r.size - 2, np.float32(np.nan), r),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_wrong_kernel_is_refused(fault: Fault) -> None:
    """Oracle: faults planted in a right result: one bit, one block, the sign of a zero, a NaN."""
    kernel = _kernel()
    kernel.source[5] = 0.0
    with pytest.raises(MinimpError, match=r"bench formats: grid fp16, somebody: .* elements from .* not"):
        verify_kernel(kernel, fault(2 * kernel.source))


@pytest.mark.parametrize("result", [np.zeros(9, np.float32), np.zeros(1 << 15)], ids=["shape", "dtype"])
def test_a_result_of_another_kind_is_refused(result: Any) -> None:
    """Oracle: a result too short, and one in float64."""
    with pytest.raises(MinimpError, match=r"expected float32 of shape \(32768,\), got"):
        verify_kernel(_kernel(), result)


def test_every_timed_kernel_is_really_looked_at() -> None:
    """Oracle: the last bit of each contender's first result, turned over: no reference lets it pass."""
    x = values(FEWEST)
    for kernel in [*kernels(x, with_torch=False), *block_kernels(x)]:
        result = kernel.run(kernel.source, 0, 1).copy()
        result.view(f"u{result.dtype.itemsize}")[0] ^= 1
        with pytest.raises(MinimpError, match="not the reference's"):
            verify_kernel(kernel, result)


def test_pieces_are_whole_blocks() -> None:
    """Oracle: what the reference is given: from a multiple of the block on, so long, the last to the end."""
    for block, size in ((1, 5000), (32, 5000), (32, 4096), (48, 40), (1, 1)):
        seen: list[tuple[int, int]] = []

        def expected(part: Any, first: int, seen: list[tuple[int, int]] = seen) -> Any:
            seen.append((first, part.size))
            return part

        kernel = Kernel("blocks", "f", OURS, values(size), lambda part, *_: part, expected, block=block)
        verify_kernel(kernel, kernel.source)
        assert all(first % block == 0 for first, _ in seen)
        assert all(length % block == 0 or first + length == size for first, length in seen)
        assert (seen[0][0], sum(seen[-1])) == (0, size)


def test_blocks_that_are_not_full_or_too_small_for_their_scale() -> None:
    """Oracle: minimp's own blocks: one value in the last one, and one that its tensor scale makes zero."""
    x = np.full(8 * 33, 100.0, np.float32)
    x[16:33] = -1e-6
    for kernel in block_kernels(x):
        assert kernel.source.size == 33
        result = kernel.run(kernel.source, 0, 1)
        verify_kernel(kernel, result)
        assert bool((result[16:] == 0).all()) is (kernel.format == "nvfp4")


# ---- dot products ------------------------------------------------------------------------------------------

CASES = [
    *[(name, "float16") for name in (
        "float32:sequential", "float16", "float16:fma", "bfloat16", "chunked:16", "chunked:5", "pairwise",
        "kahan", "splitk:4", "splitk:3", "exact", "tensorcore:volta", "tensorcore:turing",
        "tensorcore:hopper",
    )],
    *[(name, "bfloat16") for name in ("bfloat16", "float16:fma", "kahan", "tensorcore:ampere")],
    *[(f"tensorcore:{unit}", "float8_e4m3fn") for unit in ("ada", "hopper", "blackwell")],
]  # fmt: skip


@pytest.mark.parametrize(("name", "inputs"), CASES)
@pytest.mark.parametrize("length", [1, 37])
def test_dot_products_are_those_of_matmul(name: str, inputs: str, length: int) -> None:
    """Oracle: minimp's own vectorised product, every element; subnormals among the factors."""
    fmt = get(inputs)
    rng = np.random.default_rng(length)
    a, b = (
        (rng.standard_normal(shape) * np.exp2(rng.integers(-6, 3, shape)))
        .astype(np.float32)
        .astype(fmt.dtype)
        for shape in ((4, length), (length, 4))
    )
    a, b = (np.where(each == 0, fmt.dtype.type(1), each) for each in (a, b))
    found = matmul(a, b, fmt=fmt, accumulate=name, output="float32")
    rows, columns = a.astype(np.float64).tolist(), b.T.astype(np.float64).tolist()
    want = [[round_fraction(dot(row, column, name, fmt), "float32") for column in columns] for row in rows]
    assert found.tolist() == want


def test_dot_products_by_hand() -> None:
    """Oracle: sums that swallow a one: 2048 + 1 in fp16, 2^24 + 1 in float32, and neither exactly."""
    half = FORMATS["float16"]
    ones = [1.0, 1.0, 1.0]
    assert dot([2048, 1, 1], ones, "float16", half) == 2048
    assert dot([2048, 1, 1], ones, "exact", half) == 2050
    assert dot([2048, 1, 1], ones, "float32:sequential", half) == 2050
    assert dot([4096, 1, 1], [4096, 1, 1], "float32:sequential", half) == 2**24
    assert dot([4096, 1, 1], [4096, 1, 1], "kahan", half) == 2**24 + 2
    assert dot([4096, 1, 1], [4096, 1, 1], "float32", half) == 2**24 + 2
    # V100 keeps 23 bits below the largest term: what lies below is cut off, not rounded
    assert dot([4096, 1, 1.5], [4096, 1, 1], "tensorcore:volta", half) == 2**24


def test_an_accumulation_without_a_rule_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a name that the parser knows and the table of rules does not."""
    made = Accumulate("float8", "float8", FORMATS["float8_e5m2"])
    monkeypatch.setattr("minimp.benchmarks.formats.dots.parse_accumulate", lambda name: made)
    with pytest.raises(MinimpError, match="accumulate='float8' has no reference to be checked against"):
        dot([1.0], [1.0], "float8", FORMATS["float16"])


def test_the_error_that_an_unstated_order_is_allowed() -> None:
    """Oracle: K u / (1 - K u) sum|ab| and an ulp, by hand; nothing where the order is stated."""
    half = FORMATS["float16"]
    assert allowed_error([1, 2], [3, -4], "float16", half) == 0
    allowed = allowed_error([1, 2], [3, -4], "float32", half)
    unit = 2.0**-24
    assert allowed == 11 * (2 * unit / (1 - 2 * unit) + 2.0**-10)


def _product(accumulate: str) -> Product:
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal((12, 12)).astype(np.float16) for _ in range(2))
    fmt = FORMATS["float16"]

    def run(output: str = "float16") -> Any:
        return matmul(a, b, fmt=fmt, accumulate=accumulate, output=output)

    return Product(accumulate, fmt, a, b, run, lambda: run("float32"))


@pytest.mark.parametrize("accumulate", ["float32", "float16", "tensorcore:volta"])
@pytest.mark.parametrize("place", [(0, 0), (11, 11)])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, "too far"])
def test_a_wrong_product_is_refused(accumulate: str, place: tuple[int, int], wrong: float | str) -> None:
    """Oracle: faults planted in a right product: no number, infinity, an ulp or just more than the bound."""
    product = _product(accumulate)
    result = product.run()
    verify_product(product, result)
    row, column = product.a[place[0]].tolist(), product.b[:, place[1]].tolist()
    ulp = float(np.spacing(np.float16(result[place])))
    too_far = max(ulp, 1.01 * allowed_error(row, column, accumulate, product.inputs))
    result[place] = result[place] + too_far if wrong == "too far" else wrong
    with pytest.raises(
        MinimpError, match=rf"matmul {accumulate}, float16 to float16: element \({place[0]}, {place[1]}\) is"
    ):
        verify_product(product, result)


def test_a_product_of_another_order_is_refused() -> None:
    """Oracle: the same factors summed in float32 in the place of float16, and in bfloat16 for float32."""
    for promised, done in (("float16", "float32:sequential"), ("float32:sequential", "bfloat16")):
        product = replace(_product(promised), run=_product(done).run)
        with pytest.raises(MinimpError, match="to float16: element"):
            verify_product(product, product.run())


@pytest.mark.parametrize("done", ["float32:sequential", "kahan", "splitk:2", "tensorcore:volta"])
def test_an_order_is_found_that_the_output_hides(done: str) -> None:
    """Oracle: another float32 order than the promised one, seen in the sums before they are rounded."""
    product = replace(_product("pairwise"), wide=_product(done).wide)
    with pytest.raises(MinimpError, match="matmul pairwise, float16 to float32: element"):
        verify_product(product, product.run())


def test_a_product_of_another_shape_is_refused() -> None:
    """Oracle: a row too few."""
    product = _product("float32")
    with pytest.raises(MinimpError, match=r"expected shape \(12, 12\), got \(11, 12\)"):
        verify_product(product, product.run()[:-1])


def test_fractions_are_compared_exactly() -> None:
    """Oracle: a dot product beyond float64: 2^60 + 2^-60, kept whole."""
    big, small = 2.0**60, 2.0**-60
    exact = dot([big, small], [1.0, 1.0], "exact", FORMATS["float64"])
    assert exact == Fraction(2**60) + Fraction(1, 2**60)
