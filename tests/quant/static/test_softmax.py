"""Softmax on codes as a module; oracles: float64, torch's quantized softmax, ONNX's reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import nn
from minimp.errors import FormatError, SettingError, ShapeError
from minimp.quant import Affine, QTensor
from minimp.quant.modules import QuantizedSoftmax
from minimp.quant.modules.tables import fixed_output
from minimp.quant.static import calibrate, convert
from minimp.tensors import tensor
from tests.quant.static.samples import INT8, MODES, UINT8, Array

INTO = Affine(0.1, 30, *UINT8)


def some(shape: tuple[int, ...], affine: Affine = INTO, seed: int = 0) -> QTensor:
    """Return codes of all sizes."""
    rng = np.random.default_rng(seed)
    return QTensor(rng.integers(affine.quant_min, affine.quant_max + 1, shape).astype(affine.storage), affine)


def softmax_of(affine: Affine, dim: int | None = -1) -> QuantizedSoftmax:
    """Return softmax with the output that the rule fixes."""
    return QuantizedSoftmax(affine, fixed_output(nn.Softmax, affine), dim)


def real_softmax(q: QTensor, dim: int) -> Array:
    """Return softmax of the numbers, in float64."""
    x = np.float64(q.affine.scale) * (q.codes.astype(np.float64) - q.affine.zero_point)
    terms = np.exp(x - x.max(axis=dim, keepdims=True))
    return np.asarray(terms / terms.sum(axis=dim, keepdims=True))


@given(
    st.integers(0, 2**32 - 1), st.floats(2.0**-12, 2.0, width=32), st.integers(-128, 127),
    st.sampled_from([UINT8, INT8, (-8, 7), (0, 15), (-127, 127), (0, 127)]), st.integers(-3, 2),
)  # fmt: skip
def test_softmax(seed: int, scale: float, zero: int, codes: tuple[int, int], dim: int) -> None:
    """Oracle: float64; half a code, and 1.2e-7 (N + 1) codes, along any axis, of codes of 4 to 8 bits."""
    q = some((3, 4, 5), Affine(scale, int(np.clip(zero, *codes)), *codes), seed)
    made = softmax_of(q.affine, dim)(q)
    steps = 2 ** (codes[1] - codes[0]).bit_length()
    assert (float(made.affine.scale), int(made.affine.zero_point)) == (1 / steps, codes[0])
    wanted = np.minimum(steps * real_softmax(q, dim), codes[1] - codes[0])
    assert np.abs(made.codes.astype(int) - codes[0] - wanted).max() <= 0.5 + steps * 6 * 2.0**-31


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_softmax_is_torchs() -> None:
    """Oracle: torch 2.13.0, quantized::softmax, which computes in float32 between; every code."""
    torch = pytest.importorskip("torch")
    for scale, zero in ((0.1, 30), (0.013, 200), (0.7, 0)):
        q = some((60, 20), Affine(scale, zero, *UINT8))
        theirs = torch._make_per_tensor_quantized_tensor(
            torch.from_numpy(q.codes.copy()), float(q.affine.scale), zero
        )
        its = torch.ops.quantized.softmax(theirs, 1, 1 / 256, 0)
        np.testing.assert_array_equal(softmax_of(q.affine)(q).codes, its.int_repr().numpy())


def test_softmax_is_onnxs() -> None:
    """Oracle: onnx.reference: Softmax between DequantizeLinear and QuantizeLinear; every code."""
    onnx = pytest.importorskip("onnx", reason="needs the reference implementation of ONNX")
    reference = pytest.importorskip("onnx.reference")
    make = onnx.helper
    ends = [make.make_tensor_value_info(name, onnx.TensorProto.INT8, None) for name in ("q", "z", "w", "r")]
    ends += [make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("s", "t")]
    nodes = [
        make.make_node("DequantizeLinear", ["q", "s", "z"], ["x"]),
        make.make_node("Softmax", ["x"], ["y"], axis=1),
        make.make_node("QuantizeLinear", ["y", "t", "w"], ["r"]),
    ]
    graph = make.make_graph(nodes, "g", [*ends[:3], *ends[4:]], [ends[3]])
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=9)
    q = some((200, 7, 3), Affine(0.031, -9, *INT8, rule="onnx"))
    fed = {"q": q.codes, "s": np.array(q.affine.scale), "t": np.float32(1 / 256)}
    fed |= {"z": np.array(-9, np.int8), "w": np.array(-128, np.int8)}
    (theirs,) = reference.ReferenceEvaluator(model).run(None, fed)
    np.testing.assert_array_equal(softmax_of(q.affine, 1)(q).codes, theirs)


@pytest.mark.parametrize("mode", MODES)
def test_softmax_in_a_model(mode: str) -> None:
    """Oracle: the float model: a few steps of 1/256 away; the sum; another table by a state dict."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 6, 4, 4)).astype(np.float32)
    model = nn.Sequential(
        nn.Conv2d(6, 5, 1), nn.Softmax2d(), nn.Conv2d(5, 3, 1), nn.Flatten(), nn.Linear(48, 7), nn.Softmax()
    ).eval()
    made: Any = convert(model, calibrate(model, [x]), mode=mode)
    y, q = (np.asarray(each(tensor(x)).detach().array) for each in (model, made))
    assert np.abs(y - q).max() < 8 / 256
    assert np.abs(q.sum(axis=1) - 1).max() <= 4 / 256
    assert (made.model[1].dim, made.model[5].dim) == (-3, None)
    other: Any = convert(model, calibrate(model, [3 * x]), mode=mode)
    other.load_state_dict(made.state_dict())
    np.testing.assert_array_equal(np.asarray(other(tensor(x)).array), q)


def test_what_softmax_refuses() -> None:
    """Oracle: the message, one for each fault."""
    with pytest.raises(SettingError, match="one over a whole number and the least code"):
        QuantizedSoftmax(INTO, Affine(0.3, 0, *UINT8))
    with pytest.raises(SettingError, match="one over a whole number and the least code"):
        QuantizedSoftmax(INTO, Affine(1 / 256, 3, *UINT8))
    with pytest.raises(SettingError, match="must have one scale"):
        QuantizedSoftmax(Affine(np.ones(2), np.zeros(2, np.int32), axis=0), Affine(1 / 256, 0, *UINT8))
    softmax = softmax_of(INTO, None)
    with pytest.raises(SettingError, match="which of 3 axes to normalise over"):
        softmax(some((2, 3, 4)))
    with pytest.raises(FormatError, match="takes codes, got a ndarray"):
        softmax(np.zeros(3, "f4"))
    with pytest.raises(SettingError, match=r"was made for codes of uint8, scale 0\.1"):
        softmax(some((3,), Affine(0.2, 30, *UINT8)))
    with pytest.raises(ShapeError, match="nothing along axis 4"):
        softmax_of(INTO, 4)(some((3, 2)))
