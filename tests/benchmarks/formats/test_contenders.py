"""Who takes part, and on what; oracles: the formats' own limits, counts by hand, the readable references."""

from __future__ import annotations

import numpy as np
import pytest

from minimp.benchmarks.formats.blocks import block_kernels
from minimp.benchmarks.formats.data import FEWEST, MOST, factors, values, whole_size
from minimp.benchmarks.formats.kernels import FAMILIES, OURS, SUBJECTS, kernels
from minimp.benchmarks.formats.products import NUMPY, SGEMM, WIDTH, products
from minimp.benchmarks.formats.verify import verify_kernel, verify_product
from minimp.errors import SettingError
from minimp.formats import FORMATS
from minimp.formats.accumulation.orders import ACCUMULATES, parse_accumulate
from tests.tolerances import assert_close

# ---- data --------------------------------------------------------------------------------------------------


def test_the_values_are_what_the_report_says() -> None:
    """Oracle: the sixteenth by itself has over 30 exponents; none reaches a format's last binade."""
    x = values(1 << 18)
    assert (x.dtype, x.shape) == (np.float32, (1 << 18,))
    assert x.tobytes() == values(1 << 18).tobytes()
    plain = np.delete(x, np.s_[::16])
    assert_close((plain.std(dtype=np.float64) - 1) * np.sqrt(2 * plain.size), 0.0, "six_deviations")
    binades = np.frexp(np.abs(x[::16]))[1]
    assert np.unique(binades).size > 30
    for subject in SUBJECTS:
        assert np.abs(x).max() < 2.0**subject.format.emax, subject.name
    assert (np.abs(x) < FORMATS["float16"].smallest_normal).sum() > 1000


def test_factors_are_of_their_format() -> None:
    """Oracle: the dtype asked for; equal bits from equal seeds, other factors from another."""
    a, b = factors(8, FORMATS["bfloat16"].dtype)
    assert (a.dtype, a.shape, b.shape) == (FORMATS["bfloat16"].dtype, (8, 8), (8, 8))
    assert a.tobytes() == factors(8, a.dtype)[0].tobytes()
    assert a.tobytes() != factors(8, a.dtype, seed=2)[0].tobytes()
    assert a.tobytes() != b.tobytes()


@pytest.mark.parametrize(
    ("text", "size"),
    [("4096", FEWEST), ("2^12", FEWEST), ("2^30", MOST), ("10^6", 10**6), ("1000001", 1000001)],
)
def test_sizes_that_can_be_read(text: str, size: int) -> None:
    """Oracle: the numbers by hand, both ends included."""
    assert whole_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "4095",
        "2^31",
        "2^999999999",
        "-2^20",
        "1e6",
        "",
        "9" * 5000,
        "^20",
        "2^",
        "2^^20",
        "many",
        "\u0664\u0665\u0666\u0667\u0668",
    ],
)
def test_sizes_that_cannot(text: str) -> None:
    """Oracle: a refusal that names the bounds and what came; a huge power is not worked out for it."""
    with pytest.raises(SettingError, match=r"from 4096 \(2\^12\) to 1073741824 \(2\^30\), got"):
        whole_size(text)


# ---- kernels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_torch", [False, pytest.param(True, marks=pytest.mark.torch)])
def test_the_contenders_and_their_results(with_torch: bool) -> None:
    """Oracle: the families by hand; and every one of them passes the check on the whole of a small array."""
    x = values(FEWEST + 5)  # the last block is not full
    found = [*kernels(x, with_torch=with_torch), *block_kernels(x)]
    names = [(each.family, each.format, each.maker) for each in found]
    assert len(set(names)) == len(names)
    assert {family for family, *_ in names} == set(FAMILIES)
    formats = {family: [f for g, f, maker in names if (g, maker) == (family, OURS)] for family in FAMILIES}
    everyone = ["fp16", "bf16", "e4m3fn", "e5m2"]
    stored = ["fp16", "e4m3fn", "e5m2"]
    assert formats == {
        "copy": [], "grid": everyone, "storage": stored, "decode": stored, "stochastic": everyone,
        "blocks": ["mxfp8", "nvfp4"],
    }  # fmt: skip
    makers = {maker for *_, maker in names}
    theirs = {"numpy", "numpy astype", "ml_dtypes astype"} | ({"torch copy_"} if with_torch else set())
    assert makers == {OURS, "minimp, out=", "minimp, reference"} | theirs
    for kernel in found:
        verify_kernel(kernel, kernel.run(kernel.source, 0, 1))


def test_a_piece_is_rounded_at_random_as_in_the_whole() -> None:
    """Oracle: the whole array's own elements: its random bits belong to places, not to calls."""
    found = [each for each in kernels(values(FEWEST), with_torch=False) if each.family == "stochastic"]
    for kernel in found:
        whole = kernel.run(kernel.source, 0, 1)
        piece = kernel.run(kernel.source[1001:2002], 1001, 2)
        assert piece.tobytes() == whole[1001:2002].tobytes()
        assert whole.tobytes() != kernel.run(kernel.source, 1, 1).tobytes()


# ---- products ----------------------------------------------------------------------------------------------


def test_every_accumulation_takes_part() -> None:
    """Oracle: the table of orders: each is there with fp16 inputs, those with a size at one size."""
    found = products()
    half = {each.accumulate for each in found if each.inputs is FORMATS["float16"]}
    assert {parse_accumulate(name).order for name in half - {SGEMM, NUMPY}} == {"exact", *ACCUMULATES}
    assert {SGEMM, NUMPY, "chunked:16"} <= half
    others = {each.inputs.name for each in found if each.accumulate.startswith("tensorcore:")}
    assert others == {"float16", "bfloat16", "float8_e4m3fn"}
    assert {each.a.shape for each in found} == {(WIDTH, WIDTH)} == {each.b.shape for each in found}
    assert {each.order for each in found if each.accumulate in (SGEMM, NUMPY)} == {"float32"}


def test_the_quick_products_are_right() -> None:
    """Oracle: dot products on fractions; the timed calls themselves, those that take little time."""
    quick = (SGEMM, NUMPY, "float32", "chunked:16")
    found = [each for each in products() if each.accumulate in quick]
    assert len(found) == len(quick)
    for product in found:
        verify_product(product, product.run())
