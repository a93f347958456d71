"""Products and convolutions of codes; oracles: sums in Python's integers and in int64, refusals by hand."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from minimp.backend import get_backend
from minimp.errors import FormatError, MinimpError, SettingError, ShapeError
from minimp_backends import columns, integer_products
from minimp_backends.integer_products import exact_product, saturating_product, saturating_product_reference
from minimp_backends.integers import (
    integer_conv2d,
    integer_conv2d_reference,
    integer_matmul,
    integer_matmul_reference,
)
from minimp_backends.requantizing import requantize
from tests.backends.test_convolution import meetings

Array = NDArray[Any]
DTYPES = (np.int8, np.uint8)
SATURATING = "int16-saturating"
BACKEND: Any = get_backend("numpy")


def codes(rng: np.random.Generator, shape: Any, dtype: Any, *, extreme: bool = False) -> Any:
    """Draw codes: any, or the least and the largest alone."""
    limits = np.iinfo(dtype)
    if extreme:
        return rng.choice([limits.min, limits.max], shape).astype(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def laid_out(array: Array, how: str) -> Array:
    """Return the same codes in another order in memory."""
    if how == "reversed":
        return np.ascontiguousarray(array[..., ::-1])[..., ::-1]
    if how == "transposed":
        return np.ascontiguousarray(array.swapaxes(-1, -2)).swapaxes(-1, -2)
    return np.repeat(array, 2, axis=-1)[..., ::2] if how == "gaps" else array


def exact(a: Array, b: Array, a_zero: Any, b_zero: Any) -> Array:
    """The definition in int64."""
    left = a.astype(np.int64) - np.atleast_1d(a_zero)[..., np.newaxis]
    right = b.astype(np.int64) - np.atleast_1d(b_zero)[..., np.newaxis, :]
    return np.einsum("...mk,...kn->...mn", left, right)


# ---- matrices ----------------------------------------------------------------------------------------------


@st.composite
def products(draw: st.DrawFn) -> tuple[Array, Array, Any, Any]:
    """Draw codes of matrices that fit together, and their zero points."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    m, k, n = (draw(st.integers(0, 7)) for _ in range(3))
    k = draw(st.sampled_from([k, 1023, 1024, 1025, 2049])) if draw(st.booleans()) else k
    leads = [((), ()), ((3,), ()), ((), (3,)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((0,), ()), ((2, 0), (1,))]
    lead, other = draw(st.sampled_from(leads))
    kinds, extreme = [draw(st.sampled_from(DTYPES)) for _ in range(2)], draw(st.booleans())
    a, b = (
        laid_out(
            codes(rng, shape, kind, extreme=extreme), draw(st.sampled_from(["C", "reversed", "transposed"]))
        )
        for shape, kind in zip([(*lead, m, k), (*other, k, n)], kinds, strict=True)
    )
    a_zero = codes(rng, draw(st.sampled_from([(), (m,), (*lead, m)])), kinds[0], extreme=extreme)
    b_zero = codes(rng, draw(st.sampled_from([(), (n,), (*other, n)])), kinds[1], extreme=extreme)
    return a, b, a_zero, b_zero


@given(products())
def test_products_are_those_of_int64(case: tuple[Array, Array, Any, Any]) -> None:
    """Oracle: the definition in int64: any shape, memory order, batch, and zero points of any kind."""
    found = integer_matmul(*case)
    expected = exact(*case)
    assert (found.dtype, found.shape) == (np.dtype(np.int32), expected.shape)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(integer_matmul_reference(*case), expected)


def test_the_definition_in_pythons_integers() -> None:
    """Oracle: three loops over Python's integers."""
    rng = np.random.default_rng(1)
    a, b = codes(rng, (3, 5), np.uint8), codes(rng, (5, 4), np.int8)
    zeros = [7, 200, 255]
    expected = [
        [sum((int(a[m, k]) - zeros[m]) * (int(b[k, n]) + 3) for k in range(5)) for n in range(4)]
        for m in range(3)
    ]
    assert integer_matmul(a, b, zeros, -3).tolist() == expected


@pytest.mark.parametrize("depth", [1024, 1025, 1026, 2048, 2049, 4096, 5000])
@pytest.mark.parametrize("kinds", [(a, b) for a in DTYPES for b in DTYPES])
def test_blocks_do_not_round(depth: int, kinds: tuple[Any, Any]) -> None:
    """Oracle: int64, where each block's sum is 2^24 or next to it: float32 skips odd numbers beyond."""
    for place in (0, 5, 1023, depth - 1):
        lows = [int(np.iinfo(kind).min) for kind in kinds]
        a, b = np.full((2, depth), lows[0], kinds[0]), np.full((depth, 3), lows[1], kinds[1])
        a[:, place], b[place] = (low + 129 for low in lows)  # 1, once centred, and the others -128
        np.testing.assert_array_equal(integer_matmul(a, b), exact(a, b, 0, 0))


def test_a_block_is_as_long_as_can_be() -> None:
    """Oracle: float32's 24 bits by hand: 1024 products of 2^14 and 512 pairs of 2^15 reach 2^24."""
    assert integer_products.BLOCK * 128 * 128 == 2**24
    assert integer_products.PAIR_BLOCK * 2**15 == 2**24
    assert np.float32(2**24) + np.float32(1) == np.float32(2**24)


@pytest.mark.parametrize(
    "shapes", [((700, 300), (300, 900)), ((9, 40, 50), (9, 50, 30)), ((4, 90, 20), (20, 33))]
)
def test_tiles_are_put_together(shapes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: int64, with tiles so small that there are many."""
    for name, value in (("ROWS", 7), ("TILE", 256), ("TOGETHER", 5000)):
        monkeypatch.setattr(integer_products, name, value)
    rng = np.random.default_rng(2)
    a, b = (codes(rng, shape, np.int8) for shape in shapes)
    np.testing.assert_array_equal(integer_matmul(a, b), exact(a, b, 0, 0))
    np.testing.assert_array_equal(exact_product(a, b, np.int64), exact(a, b, 0, 0))


# ---- int32 and its end -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "zeros", "depth", "total"),
    [
        ((-128, np.int8), (-128, np.int8), (0, 0), 131_071, 2_147_467_264),
        ((-128, np.int8), (127, np.int8), (0, 0), 132_104, -2_147_482_624),
        ((255, np.uint8), (255, np.uint8), (0, 0), 33_025, 2_147_450_625),
        ((255, np.uint8), (-128, np.int8), (255, 5), 65_793, 0),
        ((0, np.uint8), (-128, np.int8), (255, 0), 65_793, 2_147_483_520),
        ((127, np.int8), (127, np.int8), (0, 0), 133_143, 2_147_463_447),
    ],
)
def test_long_sums(a: Any, b: Any, zeros: tuple[int, int], depth: int, total: int) -> None:
    """Oracle: one product times K, by hand: int32 holds the sum, whatever its terms reach on the way."""
    left, right = np.full((1, depth), *a), np.full((depth, 2), *b)
    assert integer_matmul(left, right, *zeros).tolist() == [[total, total]]


@pytest.mark.parametrize(
    ("a", "b", "zeros", "depth", "total"),
    [
        ((-128, np.int8), (-128, np.int8), (0, 0), 131_072, 2_147_483_648),
        ((-128, np.int8), (127, np.int8), (0, 0), 132_105, -2_147_498_880),
        ((255, np.uint8), (255, np.uint8), (0, 0), 33_026, 2_147_515_650),
        ((0, np.uint8), (-128, np.int8), (255, 0), 65_794, 2_147_516_160),
        ((127, np.int8), (-128, np.int8), (-128, 0), 65_794, -2_147_516_160),
    ],
)
def test_sums_beyond_int32_are_refused(
    a: Any, b: Any, zeros: tuple[int, int], depth: int, total: int
) -> None:
    """Oracle: one product times K, by hand; 2^31 - 1 and -2^31 are the ends."""
    left, right = np.full((1, depth), *a), np.full((depth, 2), *b)
    with pytest.raises(
        FormatError, match=f"a sum of {depth} products is {total}, and int32 ends at"
    ) as fault:
        integer_matmul(left, right, *zeros)
    assert fault.value.op == "integer_matmul"
    with pytest.raises(FormatError, match="integer_conv2d: a sum of"):
        integer_conv2d(
            left.reshape(1, depth, 1, 1), right.T.reshape(2, depth, 1, 1), x_zero=zeros[0], w_zero=zeros[1]
        )


def test_sums_that_might_not_fit_but_do() -> None:
    """Oracle: int64, for K from which on int32 may end, of codes that cancel."""
    rng = np.random.default_rng(3)
    a, b = codes(rng, (2, 140_000), np.uint8), codes(rng, (140_000, 2), np.uint8)
    found = integer_matmul(a, b, 128, 128)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, exact(a, b, 128, 128))


# ---- saturation --------------------------------------------------------------------------------------------


def in_pairs(unsigned: list[int], signed: list[int]) -> int:
    """One sum as VPMADDUBSW and its adds make it, in Python's integers."""
    products = [u * s for u, s in zip(unsigned, signed, strict=True)]
    return sum(max(-32768, min(32767, sum(products[k : k + 2]))) for k in range(0, len(products), 2))


@given(st.integers(0, 2**32 - 1), st.integers(0, 9), st.booleans())
def test_saturating_products(seed: int, depth: int, extreme: bool) -> None:
    """Oracle: pair by pair in Python's integers, whichever factor is unsigned; the reference as well."""
    rng = np.random.default_rng(seed)
    a, b = (
        codes(rng, (2, 3, depth), np.uint8, extreme=extreme),
        codes(rng, (depth, 4), np.int8, extreme=extreme),
    )
    expected = [
        [[in_pairs(row.tolist(), column.tolist()) for column in b.T] for row in matrix] for matrix in a
    ]
    assert integer_matmul(a, b, accumulate=SATURATING).tolist() == expected
    assert saturating_product_reference(a, b).tolist() == expected
    turned = integer_matmul(b.T, a.swapaxes(-1, -2), accumulate=SATURATING)
    assert turned.swapaxes(-1, -2).tolist() == expected


@pytest.mark.parametrize(
    ("a", "b", "total"),
    [
        ([255, 255], [127, 127], 32767),
        ([255, 255], [-128, -128], -32768),
        ([255, 1], [128 - 1, 127], 255 * 127 + 127),
        ([255, 3], [127, 127], 32766),
        ([255, 4], [127, 127], 32767),
        ([255, 1], [-128, -128], -32768),
        ([255, 2], [-128, -128], -32768),
        ([255, 255, 255], [127, 127, 127], 32767 + 255 * 127),
        ([0, 255, 255, 0], [0, 127, 127, 0], 2 * 255 * 127),
    ],
)
def test_where_a_pair_is_cut_off(a: list[int], b: list[int], total: int) -> None:
    """Oracle: by hand, at both ends of int16, of neighbours and of those in different pairs."""
    found = integer_matmul(
        np.array([a], np.uint8), np.array(b, np.int8)[:, np.newaxis], accumulate=SATURATING
    )
    assert found.tolist() == [[total]]


def test_blocks_of_pairs_do_not_round() -> None:
    """Oracle: by hand: 512 pairs at -32768 are -2^24, and one more product takes them beyond float32."""
    a, b = np.full((1, 1025), 255, np.uint8), np.full((1025, 1), -128, np.int8)
    a[0, -1], b[-1] = 1, -1
    assert integer_matmul(a, b, accumulate=SATURATING).tolist() == [[-(2**24) - 1]]


@given(st.integers(0, 2**32 - 1), st.integers(0, 70))
def test_what_never_saturates(seed: int, depth: int) -> None:
    """Oracle: the exact product, for activations up to 127, and for weights in [-64, 63] (reduced ranges)."""
    rng = np.random.default_rng(seed)
    a, b = codes(rng, (3, depth), np.uint8), codes(rng, (depth, 2), np.int8)
    for left, right in ((a >> 1, b), (a, b >> 1)):
        found = integer_matmul(left, right, 9, -4, accumulate=SATURATING)
        np.testing.assert_array_equal(found, exact(left, right, 9, -4))


def test_how_often_it_is_wrong() -> None:
    """Oracle: the exact product; over all codes more than half of the sums differ, as in engines."""
    rng = np.random.default_rng(4)
    a, b = codes(rng, (100, 128), np.uint8), codes(rng, (128, 100), np.int8)
    wrong = np.mean(integer_matmul(a, b, 128, accumulate=SATURATING) != exact(a, b, 128, 0))
    assert 0.5 < wrong <= 1.0


def test_zero_points_are_exact_where_products_saturate() -> None:
    """Oracle: Jacob et al. 2018, equation 7, with the first sum from pairs in Python's integers."""
    rng = np.random.default_rng(5)
    a, b = codes(rng, (3, 11), np.uint8), codes(rng, (11, 2), np.int8)
    wide, other = a.astype(int), b.astype(int)
    for m, n in itertools.product(range(3), range(2)):
        raw = in_pairs(a[m].tolist(), b[:, n].tolist())
        expected = raw - 100 * other[:, n].sum() - 7 * wide[m].sum() + 11 * 100 * 7
        assert integer_matmul(a, b, 100, 7, accumulate=SATURATING)[m, n] == expected


def test_saturating_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the reference, with tiles so small that there are many, and more pairs than a block has."""
    monkeypatch.setattr(integer_products, "TILE", 50)
    monkeypatch.setattr(integer_products, "PAIR_BLOCK", 3)
    rng = np.random.default_rng(6)
    a, b = codes(rng, (2, 9, 31), np.uint8), codes(rng, (2, 31, 8), np.int8)
    np.testing.assert_array_equal(saturating_product(a, b, np.int32), saturating_product_reference(a, b))


# ---- images ------------------------------------------------------------------------------------------------


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[Array, Array, dict[str, Any], Any, Any]:
    """Draw codes of images and filters, a geometry and zero points."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    pairs = st.tuples(st.integers(1, 2), st.integers(1, 2))
    groups = draw(st.integers(1, 3))
    channels, filters = (groups * draw(st.integers(1, 2)) for _ in range(2))
    kernel = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    geometry = {"stride": draw(pairs), "padding": draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
                "dilation": draw(pairs), "groups": groups}  # fmt: skip
    kinds = [draw(st.sampled_from(DTYPES)) for _ in range(2)]
    size = [draw(st.integers(5, 7)) for _ in range(2)]
    x = codes(rng, (draw(st.integers(0, 2)), channels, *size), kinds[0])
    w = codes(rng, (filters, channels // groups, *kernel), kinds[1])
    w_zero = codes(rng, draw(st.sampled_from([(), (filters,)])), kinds[1])
    return x, w, geometry, int(codes(rng, (), kinds[0])), w_zero


def convolved(x: Array, w: Array, geometry: dict[str, Any], x_zero: int, w_zero: Any, like: Array) -> Array:
    """The definition: what lies in the padding is real zero, and adds nothing."""
    expected = np.zeros(like.shape, np.int64)
    zeros = np.broadcast_to(w_zero, len(w))
    for out, there, weight in meetings(x.shape, w.shape, geometry):
        expected[out] += (int(x[there]) - x_zero) * (int(w[weight]) - int(zeros[weight[0]]))
    return expected


@given(convolutions())
def test_convolutions_are_the_definition(case: Any) -> None:
    """Oracle: the definition, term by term in Python's integers; the reference is held to it too."""
    x, w, geometry, x_zero, w_zero = case
    found = integer_conv2d(x, w, **geometry, x_zero=x_zero, w_zero=w_zero)
    expected = convolved(*case, like=found)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        integer_conv2d_reference(x, w, **geometry, x_zero=x_zero, w_zero=w_zero), expected
    )


@pytest.mark.parametrize("size", [6, 20])
@pytest.mark.parametrize("accumulate", ["int32", SATURATING])
def test_convolutions_in_tiles(size: int, accumulate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the whole at once, of small images laid side by side and of large ones in rows."""
    rng = np.random.default_rng(7)
    x, w = codes(rng, (5, 4, size, size), np.uint8), codes(rng, (6, 2, 3, 3), np.int8)
    arguments: Any = (x, w, 1, 1, 1, 2, 17, 0)
    whole = integer_conv2d(*arguments, accumulate=accumulate)
    monkeypatch.setattr(columns, "COLUMN_BYTES", 20_000)
    monkeypatch.setattr(columns, "SIDE_BY_SIDE_BYTES", 20_000)
    np.testing.assert_array_equal(integer_conv2d(*arguments, accumulate=accumulate), whole)
    if accumulate == "int32":
        np.testing.assert_array_equal(whole, integer_conv2d_reference(*arguments))


@pytest.mark.parametrize("channels", [2, 3])
def test_convolutions_that_saturate(channels: int) -> None:
    """Oracle: pairs along (u, v, c) in Python's integers, padding included: channels lie last."""
    rng = np.random.default_rng(8)
    x = codes(rng, (1, channels, 4, 4), np.uint8, extreme=True)
    w = codes(rng, (2, channels, 2, 2), np.int8, extreme=True)
    found = integer_conv2d(x, w, padding=1, x_zero=200, accumulate=SATURATING)
    padded = np.full((channels, 6, 6), 200)
    padded[:, 1:5, 1:5] = x[0]
    for o, i, j in itertools.product(range(2), range(5), range(5)):
        seen = padded[:, i : i + 2, j : j + 2].transpose(1, 2, 0).reshape(-1).tolist()
        weights = w[o].transpose(1, 2, 0).reshape(-1).tolist()
        assert found[0, o, i, j] == in_pairs(seen, weights) - 200 * sum(weights)
    assert (found != integer_conv2d(x, w, padding=1, x_zero=200)).any()


def test_extra_memory_is_bounded() -> None:
    """Oracle: tracemalloc: a product holds its result and tiles, not its operands in float32."""
    rng = np.random.default_rng(9)
    a, b = codes(rng, (60_000, 256), np.int8), codes(rng, (256, 16), np.int8)
    integer_matmul(a[:10], b)
    tracemalloc.start()
    made = integer_matmul(a, b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < made.nbytes + (4 << 20) < a.nbytes


# ---- refusals ----------------------------------------------------------------------------------------------

mul, conv = integer_matmul, integer_conv2d
EIGHT, PLAIN, WORDS = np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.int8), np.zeros((3, 2), np.int16)
IMAGE, FILTER = np.zeros((1, 2, 3, 3), np.int8), np.zeros((4, 2, 3, 3), np.int8)


@pytest.mark.parametrize(
    ("call", "fault", "said"),
    [
        (lambda: mul(EIGHT, WORDS), FormatError, "expected int8 or uint8 codes, got uint8, int16"),
        (lambda: mul(EIGHT, EIGHT), ShapeError, r"\(..., M, K\) and \(..., K, N\), got \(2, 3\)"),
        (lambda: mul(EIGHT[0], PLAIN), ShapeError, "give a vector an axis of length 1"),
        (
            lambda: mul(np.zeros((2, 2, 3), np.int8), np.zeros((3, 3, 2), np.int8)),
            ShapeError, "the leading axes broadcast",
        ),
        (lambda: mul(EIGHT, PLAIN, -1), SettingError, "a_zero must be a code of uint8, 0 to 255, got -1"),
        (lambda: mul(EIGHT, PLAIN, 0, 128), SettingError, "b_zero must be a code of int8, -128 to 127"),
        (lambda: mul(EIGHT, PLAIN, 0.5), SettingError, "a_zero must be a whole number, got float64"),
        (lambda: mul(EIGHT, PLAIN, [1, 2, 3]), ShapeError, r"a_zero of shape \(3,\) does not broadcast"),
        (lambda: mul(EIGHT, PLAIN, [[1, 2]]), ShapeError, r"does not broadcast to \(2,\)"),
        (lambda: mul(EIGHT, PLAIN, accumulate="int16"), SettingError, "unknown accumulate 'int16'"),
        (lambda: mul(EIGHT, EIGHT.T, accumulate=SATURATING), SettingError, "of uint8 by int8"),
        (lambda: conv(IMAGE, FILTER, groups=2), ShapeError, "do not fit together in 2 groups"),
        (lambda: conv(IMAGE, FILTER, dilation=2), ShapeError, "has no place in an image"),
        (lambda: conv(IMAGE.astype("f4"), FILTER), FormatError, "expected int8 or uint8 codes"),
        (lambda: conv(IMAGE, FILTER, x_zero=[0, 1]), ShapeError, r"x_zero of shape \(2,\)"),
        (lambda: conv(IMAGE, FILTER, w_zero=[0, 1]), ShapeError, r"does not broadcast to \(4,\)"),
        (lambda: conv(IMAGE, FILTER, accumulate=SATURATING), SettingError, "VPMADDUBSW"),
    ],
)  # fmt: skip
def test_refusals(call: Any, fault: type[MinimpError], said: str) -> None:
    """Oracle: the class of the error, its words, and that it offers a next step."""
    with pytest.raises(fault, match=said) as caught:
        call()
    assert caught.value.op in ("integer_matmul", "integer_conv2d")
    assert caught.value.help or "known:" in str(caught.value)


# ---- an engine that saturates ------------------------------------------------------------------------------

FBGEMM = """
import sys, numpy, torch
torch.backends.quantized.engine = "fbgemm"
given = dict(numpy.load(sys.argv[1]))
def of(name, *how):
    return torch._make_per_tensor_quantized_tensor(torch.from_numpy(given[name]), *how)
made = {}
for name in sorted({name[1:] for name in given}):
    x, w = of("x" + name, 1 / 32, 100), of("w" + name, 1 / 64, 0)
    if x.dim() == 2:
        packed = torch.ops.quantized.linear_prepack(w, None)
        y = torch.ops.quantized.linear(x, packed, 1.0, 120)
    else:
        packed = torch.ops.quantized.conv2d_prepack(w, None, [1, 1], [1, 1], [1, 1], x.shape[1] // w.shape[1])
        y = torch.ops.quantized.conv2d(x, packed, 1.0, 120)
    made[name] = y.int_repr().numpy()
numpy.savez(sys.argv[2], **made)
"""


@pytest.mark.torch
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="FBGEMM is for x86 processors")
@pytest.mark.slow
def test_an_engine_that_saturates(tmp_path: Path) -> None:
    """Oracle: torch 2.13 with FBGEMM kept from using VNNI: every code of linear and convolution layers."""
    pytest.importorskip("torch")
    rng = np.random.default_rng(11)
    shapes: dict[str, Any] = {f"linear{depth}": ((50, depth), (40, depth)) for depth in (7, 64, 201)}
    for channels, filters in ((3, 20), (8, 20), (16, 20), (8, 8)):
        depth = channels if filters == 20 else 1
        shapes[f"convolution{channels}-{filters}"] = (2, channels, 9, 9), (filters, depth, 3, 3)
    pairs = {name: (codes(rng, x, np.uint8), codes(rng, w, np.int8)) for name, (x, w) in shapes.items()}
    arrays = {k + name: each for name, both in pairs.items() for k, each in zip("xw", both, strict=True)}
    np.savez(tmp_path / "given.npz", **arrays)
    files = [str(tmp_path / f"{name}.npz") for name in ("given", "made")]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FBGEMM, *files],
        env=os.environ | {"FBGEMM_ENABLE_INSTRUCTIONS": "AVX2"}, check=True, timeout=120,
    )  # fmt: skip
    made = np.load(files[1])
    for name, (x, w) in pairs.items():
        found = {}
        for accumulate in ("int32", SATURATING):
            if x.ndim == 2:
                sums = integer_matmul(x, w.T, 100, accumulate=accumulate)
            else:
                groups = x.shape[1] // w.shape[1]
                sums = integer_conv2d(x, w, 1, 1, 1, groups, 100, accumulate=accumulate)
            found[accumulate] = requantize(sums, 2.0**-11, 120, 0, 255)
        np.testing.assert_array_equal(found[SATURATING], made[name], err_msg=name)
        assert np.mean(found["int32"] != made[name]) > 0.05, name


# ---- the backend -------------------------------------------------------------------------------------------


def test_a_backend_has_the_kernels() -> None:
    """Oracle: the functions, on the same arrays."""
    rng = np.random.default_rng(10)
    a, b = codes(rng, (4, 5), np.uint8), codes(rng, (5, 3), np.int8)
    np.testing.assert_array_equal(
        BACKEND.integer_matmul(a, b, 3, [1, 2, 3]), integer_matmul(a, b, 3, [1, 2, 3])
    )
    saturated = BACKEND.integer_matmul(a, b, accumulate=SATURATING)
    np.testing.assert_array_equal(saturated, integer_matmul(a, b, accumulate=SATURATING))
    x, w = codes(rng, (2, 4, 5, 5), np.uint8), codes(rng, (4, 2, 3, 3), np.int8)
    how: Any = (2, 1, 1, 2, 9, [1, 2, 3, 4])
    np.testing.assert_array_equal(BACKEND.integer_conv2d(x, w, *how), integer_conv2d(x, w, *how))
