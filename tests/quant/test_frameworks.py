"""Codes, scales and zero points beside the frameworks whose rules they are; oracle: these, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from minimp.quant import Affine, choose, dequantize, fake_quantize, quantize

pytestmark = pytest.mark.filterwarnings("ignore:.*(deprecated|reduce_range|[Rr]educe)")

RANGES = [(-128, 127), (0, 255)]


def crafted(rng: np.random.Generator, scale: np.float32, size: int) -> npt.NDArray[np.float32]:
    """Numbers on the grid and on its ties, a third of them one float32 number beside."""
    steps = rng.integers(-400, 400, size) + rng.choice([0, 0.5, 0.5, 0.4999], size)
    x = (steps * scale).astype(np.float32)
    beside = np.nextafter(x, rng.choice(np.float32([-np.inf, np.inf]), size))
    return np.where(rng.random(size) < 1 / 3, beside, x)


def cases(count: int) -> Any:
    """Yield (random numbers, first code, last code, scale, zero point, values)."""
    rng = np.random.default_rng(11)
    for i in range(count):
        low, high = RANGES[i % 2]
        scale = np.float32(rng.choice([0.1, 0.02, 0.5, 1 / 3]) if i % 3 else 2.0 ** rng.uniform(-12, 8))
        zero = int(rng.integers(low, high + 1)) if i % 5 else 0
        yield low, high, scale, zero, crafted(rng, scale, int(rng.choice([1, 7, 33, 1000, 70001])))


@pytest.mark.torch
def test_codes_are_torchs() -> None:
    """Oracle: torch.quantize_per_tensor and dequantize, 120 crafted arrays of lengths about its vectors'."""
    torch = pytest.importorskip("torch")
    for low, high, scale, zero, x in cases(120):
        affine = Affine(scale, zero, low, high)
        dtype = torch.qint8 if low else torch.quint8
        theirs = torch.quantize_per_tensor(torch.from_numpy(x), float(scale), zero, dtype)
        codes = quantize(x, affine)
        assert np.array_equal(codes, theirs.int_repr().numpy())
        assert dequantize(codes, affine).tobytes() == theirs.dequantize().numpy().tobytes()
    special = np.float32([np.nan, np.inf, -np.inf, 3e38, -3e38] * 7)
    theirs = torch.quantize_per_tensor(torch.from_numpy(special), 0.5, 3, torch.qint8).int_repr().numpy()
    assert np.array_equal(quantize(special, Affine(0.5, 3)), theirs)


@pytest.mark.torch
def test_codes_of_channels_are_torchs() -> None:
    """Oracle: torch.quantize_per_channel, which rounds x (1/s) and then the sum: all the same with z = 0."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    for axis in range(3):
        shape = [4, 30, 50]
        scales = rng.uniform(0.01, 0.5, shape[axis]).astype(np.float32)
        place = [-1 if i == axis else 1 for i in range(3)]
        x = (rng.integers(-300, 300, shape) / 2 * scales.reshape(place)).astype(np.float32)
        for zeros in (np.zeros(shape[axis], int), rng.integers(-128, 128, shape[axis])):
            affine = Affine(scales, zeros, axis=axis)
            theirs = torch.quantize_per_channel(
                torch.from_numpy(x), torch.from_numpy(scales.astype(np.float64)), torch.from_numpy(zeros),
                axis, torch.qint8,
            )  # fmt: skip
            shifted = x * (1 / scales).reshape(place) + zeros.reshape(place).astype(np.float32)
            twice = np.clip(np.rint(shifted), -128, 127)
            assert np.array_equal(twice, theirs.int_repr().numpy())
            assert np.array_equal(quantize(x, affine), twice) is not zeros.any()
            assert np.array_equal(dequantize(theirs.int_repr().numpy(), affine), theirs.dequantize().numpy())


@pytest.mark.torch
def test_fake_codes_are_torchs() -> None:
    """Oracle: torch.fake_quantize_per_tensor_affine and _per_channel_affine, eight bits and four, NaN too."""
    torch = pytest.importorskip("torch")
    for low, high, scale, zero, x in cases(60):
        for least, most in ((low, high), (low // 16, high // 16)):
            inside = min(max(zero, least), most)
            affine = Affine(scale, inside, least, most)
            x[0] = np.nan
            t = torch.from_numpy(x)
            theirs = torch.fake_quantize_per_tensor_affine(t, float(scale), inside, least, most)
            assert np.array_equal(fake_quantize(x, affine), theirs.numpy())
            theirs = torch.fake_quantize_per_channel_affine(
                t[:, None], torch.tensor([float(scale)]), torch.tensor([inside], dtype=torch.int32), 1,
                least, most,
            )  # fmt: skip
            rows = Affine([scale], [inside], least, most, axis=1)
            assert np.array_equal(fake_quantize(x[:, None], rows), theirs.numpy())


def ends(rng: np.random.Generator, count: int) -> Any:
    """Yield ranges of many sizes, of a point, and empty ones."""
    for i in range(count):
        size = rng.choice([1e-9, 1e-4, 1, 1e3, 1e30])
        low, high = np.sort(rng.standard_normal(2) * size).astype(np.float32)
        yield (low, low) if i % 7 == 0 else (np.float32(0), np.float32(0)) if i % 11 == 0 else (low, high)


@pytest.mark.torch
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("reduce_range", [False, True])
@pytest.mark.parametrize("codes", [(-128, 127), (0, 255), (-127, 127), (0, 15), (-8, 7)])
def test_ranges_are_torchs(symmetric: bool, reduce_range: bool, codes: tuple[int, int]) -> None:
    """Oracle: the scale and zero point of torch's MinMaxObserver."""
    torch = pytest.importorskip("torch")
    observer = pytest.importorskip("torch.ao.quantization.observer")
    if reduce_range and (codes not in RANGES or (symmetric and codes[0] == 0)):
        return  # torch refuses it, or halves the codes of its own that it was given
    for low, high in ends(np.random.default_rng(2), 60):
        theirs = observer.MinMaxObserver(
            dtype=torch.qint8 if codes[0] else torch.quint8,
            qscheme=torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine,
            reduce_range=reduce_range,
            quant_min=None if codes in RANGES else codes[0],
            quant_max=None if codes in RANGES else codes[1],
        )
        theirs(torch.tensor([low, high]))
        scale, zero = theirs.calculate_qparams()
        ours = choose(
            low, high, quant_min=codes[0], quant_max=codes[1], symmetric=symmetric, reduce_range=reduce_range
        )
        assert (ours.scale, ours.zero_point) == (scale.numpy()[0], int(zero))


@pytest.mark.torch
def test_dynamic_ranges_are_torchs() -> None:
    """Oracle: torch._choose_qparams_per_tensor; its scale is a float64, which quantising rounds."""
    torch = pytest.importorskip("torch")
    for low, high in ends(np.random.default_rng(4), 600):
        for reduce_range in (False, True):
            scale, zero = torch._choose_qparams_per_tensor(torch.tensor([low, high]), reduce_range)
            ours = choose(
                low, high, rule="torch-dynamic", quant_min=0, quant_max=255, reduce_range=reduce_range
            )
            assert (ours.scale, ours.zero_point) == (np.float32(scale), zero)


ONNX_CODES = [
    (0.1, 3, np.int8, [-12.8, -0.05, 0.05, 0.15, 0.25, 0.35, 1.25, 13.0], [-125, 3, 3, 5, 5, 7, 15, 127]),
    (0.5, 7, np.uint8, [-3.75, -3.25, -0.25, 0.25, 0.75, 1.25, 1.75, 200], [0, 1, 7, 7, 9, 9, 11, 255]),
]
"""Scale, zero point, values, and the codes that onnx.reference (1.23.2) gave for them."""


@pytest.mark.parametrize(("scale", "zero", "dtype", "values", "codes"), ONNX_CODES)
def test_codes_of_onnx_kept_here(
    scale: float, zero: int, dtype: Any, values: list[float], codes: list[int]
) -> None:
    """Oracle: the reference implementation of ONNX, numbers kept from version 1.23.2; ties of x/s to even."""
    info = np.iinfo(dtype)
    affine = Affine(scale, zero, int(info.min), int(info.max), rule="onnx")
    assert quantize(np.float32(values), affine).tolist() == codes


def test_codes_are_those_of_onnx() -> None:
    """Oracle: onnx.reference's QuantizeLinear and DequantizeLinear, where x/s fits in 32 bits."""
    onnx = pytest.importorskip("onnx", reason="needs the reference implementation of ONNX")
    reference = pytest.importorskip("onnx.reference")
    make = onnx.helper
    for low, high, scale, zero, x in cases(30):
        kind = onnx.TensorProto.INT8 if low else onnx.TensorProto.UINT8
        ends_of = [make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in "xsy"]
        ends_of += [make.make_tensor_value_info(name, kind, None) for name in "zq"]
        nodes = [
            make.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            make.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ]
        graph = make.make_graph(nodes, "g", [ends_of[i] for i in (0, 1, 3)], [ends_of[4], ends_of[2]])
        model = make.make_model(graph, opset_imports=[make.make_opsetid("", 19)], ir_version=9)
        affine = Affine(scale, zero, low, high, rule="onnx")
        fed = {"x": x, "s": np.array(scale), "z": np.array(zero, affine.storage)}
        codes, back = reference.ReferenceEvaluator(model).run(None, fed)
        assert np.array_equal(quantize(x, affine), codes)
        assert np.array_equal(dequantize(codes, affine), back)


TFLITE_TIES = np.float32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5, 126.5, 127.5, -130.5, 0.49999997])


@pytest.mark.parametrize(
    ("zero", "codes"),
    [(0, [-3, -2, -1, 1, 2, 3, 4, 127, 127, -128, 0]), (1, [-2, -1, 0, 2, 3, 4, 5, 127, 127, -128, 1])],
)
def test_codes_of_tflite_kept_here(zero: int, codes: list[int]) -> None:
    """Oracle: numbers kept from LiteRT 2.3.0's reference kernel of QUANTIZE, scale 1, int8."""
    assert quantize(TFLITE_TIES, Affine(1.0, zero, rule="tflite")).tolist() == codes
