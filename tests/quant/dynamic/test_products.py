"""The product of dynamic layers; oracles: its definition in int64, a bound, laws, torch's QNNPACK."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimp import formats
from minimp.errors import DataError, FormatError, GradientError, SettingError, ShapeError
from minimp.modes import listen, no_grad
from minimp.nn import Linear
from minimp.quant import Affine, choose, dequantize, quantize
from minimp.quant.dynamic import Arithmetic, DynamicQuantizedLinear, dynamic_linear
from minimp.quant.dynamic.products import GRANULARITIES, quantize_weight
from minimp.tensors import Tensor, tensor
from tests.tolerances import assert_bound, dot_bound

pytestmark = pytest.mark.filterwarnings("ignore:.*(deprecated|reduce_range)")

Floats = npt.NDArray[np.float32]
SEEDS = st.integers(0, 2**32 - 1)
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 70), st.integers(1, 9))
HALVES = ("float16", "bfloat16")


def drawn(seed: int, shape: tuple[int, int, int]) -> tuple[Floats, Floats, Floats]:
    """Activations, a weight and a bias of any magnitude that scales can take in."""
    rng = np.random.default_rng(seed)
    m, k, n = shape
    x, w, b = rng.normal(size=(m, k)), rng.normal(size=(n, k)), rng.normal(size=n)
    sizes = 2.0 ** rng.uniform(-8, 8, 3)
    x = x + rng.choice([0, 0, 3, -3])
    return tuple((a * size).astype(np.float32) for a, size in zip((x, w, b), sizes, strict=True))  # type: ignore[return-value]  # three


def product(x: Any, w: Floats, b: Floats | None, granularity: str, how: Arithmetic = Arithmetic()) -> Floats:  # noqa: B008 - frozen
    """Return the dynamic product as an array."""
    q = quantize_weight(w, granularity)
    bias = None if b is None else tensor(b)
    return dynamic_linear(tensor(x), tensor(q.codes.copy()), q.affine, bias, how=how).numpy()


def activations(x: Floats, *, reduce_range: bool = False) -> tuple[npt.NDArray[np.int64], Affine]:
    """Return what the rule makes of a call's activations: q - z in int64, and their scale."""
    ends = x.min(), x.max()
    seen = choose(*ends, rule="torch-dynamic", quant_min=0, quant_max=255, reduce_range=reduce_range)
    return quantize(x, seen).astype(np.int64) - int(seen.zero_point), seen


@pytest.mark.parametrize("granularity", GRANULARITIES)
@given(SEEDS, SHAPES, st.booleans(), st.booleans())
def test_product_is_its_definition(
    granularity: str, seed: int, shape: tuple[int, int, int], biased: bool, reduced: bool
) -> None:
    """Oracle: sums of codes in int64, then one float32 product and one float32 sum: equal to the bit."""
    x, w, b = drawn(seed, shape)
    q = quantize_weight(w, granularity)
    codes, seen = activations(x, reduce_range=reduced)
    sums = codes @ q.codes.T.astype(np.int64)
    expected = sums.astype(np.float32) * (seen.scale * q.affine.scale)
    expected = expected + b if biased else expected
    how = Arithmetic(granularity, reduce_range=reduced)
    y = product(x, w, b if biased else None, granularity, how)
    assert y.tobytes() == expected.astype(np.float32).tobytes()


@pytest.mark.parametrize("granularity", GRANULARITIES)
@given(SEEDS, SHAPES)
def test_error_is_half_a_step_of_each_activation(
    granularity: str, seed: int, shape: tuple[int, int, int]
) -> None:
    """Oracle: x W^T + b in float64, W as read back; bound: half a step a number, 255 ulps of x (1/s) in
    float32, and the roundings of three float32 operations."""
    x, w, b = drawn(seed, shape)
    q = quantize_weight(w, granularity)
    read = dequantize(q.codes, q.affine).astype(np.float64)
    _, seen = activations(x)
    exact = x.astype(np.float64) @ read.T + b
    steps = float(seen.scale) * (0.5 + 255 * 2.0**-22) * np.abs(read).sum(axis=1)
    mass = np.abs(x).astype(np.float64) @ np.abs(read.T) + steps + np.abs(b)
    assert_bound(
        product(x, w, b, granularity), exact, steps + dot_bound(exact, mass, 3, np.float32, np.float32),
        "dot_product",
    )  # fmt: skip


@given(SEEDS, SHAPES, st.integers(-6, 6))
def test_a_power_of_two_passes(seed: int, shape: tuple[int, int, int], power: int) -> None:
    """Law: scales follow their numbers, so that 2^k x gives 2^k y, as long as no scale is at its floor."""
    x, w, _ = drawn(seed, shape)
    _, seen = activations(x)
    if float(seen.scale) * 2.0 ** min(power, 0) < 1e-3 or x.min() == x.max() == 0:
        return
    times = np.float32(2.0**power)
    y = product(x, w, None, "per-tensor")
    assert (product(x * times, w, None, "per-tensor") == y * times).all()


@given(SEEDS, SHAPES)
def test_rows_within_the_range_do_not_meet(seed: int, shape: tuple[int, int, int]) -> None:
    """Law: the range is all that rows share: rows inside it come and go without changing the others."""
    x, w, b = drawn(seed, shape)
    inside = np.concatenate([x, x[::-1] * np.float32(0.5) + x * np.float32(0.5)])
    inside = np.clip(inside, x.min(), x.max())
    y = product(inside, w, b, "per-channel")
    assert y[: len(x)].tobytes() == product(x, w, b, "per-channel").tobytes()


@given(SEEDS, SHAPES)
def test_channels_are_tensors_of_their_own(seed: int, shape: tuple[int, int, int]) -> None:
    """Law: per channel, each output is that of a layer that has this output alone."""
    x, w, b = drawn(seed, shape)
    y = product(x, w, b, "per-channel")
    for c in range(len(w)):
        alone = product(x, w[c : c + 1], b[c : c + 1], "per-tensor")
        assert y[:, c : c + 1].tobytes() == alone.tobytes()


@pytest.mark.parametrize("name", HALVES)
def test_sixteen_bits_are_rounded_once(name: str) -> None:
    """Oracle: the float32 result on the same numbers, rounded once."""
    x, w, b = drawn(1, (4, 30, 5))
    q = quantize_weight(w, "per-channel")
    narrow = tensor(x).to(name)
    wide = narrow.float().numpy()
    y = dynamic_linear(narrow, tensor(q.codes.copy()), q.affine, tensor(b))
    expected = product(wide, w, b, "per-channel")
    assert y.format is formats.get(name)
    assert (y.float().numpy() == formats.round(expected, name)).all()


def test_leading_axes_and_empty_batches() -> None:
    """Oracle: the same rows as one matrix; no rows give no rows."""
    x, w, b = drawn(2, (6, 5, 3))
    y = product(x, w, b, "per-tensor")
    assert product(x.reshape(2, 3, 5), w, b, "per-tensor").tobytes() == y.tobytes()
    assert product(x[0], w, b, "per-tensor").shape == (3,)
    assert product(np.zeros((0, 5), np.float32), w, b, "per-tensor").shape == (0, 3)


def test_saturation_shows_and_reduced_ranges_avoid_it() -> None:
    """Oracle: 255 * 127 twice is more than int16 has; with 0..127 no pair is, and sums are exact."""
    x, w = np.ones((1, 2), np.float32), np.ones((1, 2), np.float32)
    exact = product(x, w, None, "per-tensor")
    cut = product(x, w, None, "per-tensor", Arithmetic(accumulate="int16-saturating"))
    scales = activations(x)[1].scale * quantize_weight(w, "per-tensor").affine.scale
    assert exact == np.float32(2 * 255 * 127) * scales
    assert cut == np.float32(32767) * scales
    reduced = [Arithmetic(reduce_range=True, accumulate=each) for each in ("int32", "int16-saturating")]
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(20, 64)).astype(np.float32), rng.normal(size=(9, 64)).astype(np.float32)
    first, second = (product(x, w, None, "per-channel", how) for how in reduced)
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_activations_without_a_range(bad: float) -> None:
    """Oracle: one clear error that counts them (torch: "min should be less than or equal to max")."""
    x, w, b = drawn(3, (2, 4, 3))
    x[1, 2] = bad
    with pytest.raises(DataError, match="1 of 8 activations are infinite or NaN"):
        product(x, w, b, "per-tensor")


def test_wrong_inputs() -> None:
    """Oracle: the errors that the docstring names."""
    x, w, b = drawn(4, (2, 4, 3))
    q = quantize_weight(w, "per-tensor")
    codes, bias = tensor(q.codes.copy()), tensor(b)
    with pytest.raises(ShapeError, match=r"expected an input of shape \(\.\.\., 4\), got \(2, 3\)"):
        dynamic_linear(tensor(x[:, :3].copy()), codes, q.affine, bias)
    with pytest.raises(FormatError, match="expected floating-point numbers, got int64"):
        dynamic_linear(tensor(np.ones((2, 4), np.int64)), codes, q.affine, bias)
    with pytest.raises(FormatError, match="expected int8 codes, got float16"):
        dynamic_linear(tensor(x), codes.to("float16"), q.affine, bias)
    with pytest.raises(FormatError, match="expected a float32 bias, got float16"):
        dynamic_linear(tensor(x), codes, q.affine, bias.to("float16"))
    with pytest.raises(SettingError, match="unknown granularity 'per-chanel'; did you mean 'per-channel'"):
        Arithmetic("per-chanel")
    with pytest.raises(SettingError, match="unknown accumulate 'int16'"):
        Arithmetic(accumulate="int16")


def test_backward_says_why() -> None:
    """Oracle: a GradientError that names the layer; without recording there is nothing to go back along."""
    layer = DynamicQuantizedLinear.from_float(Linear(4, 3))
    x = tensor(np.ones((2, 4), np.float32), requires_grad=True)
    loss = (layer(x * 2)).sum()
    with pytest.raises(GradientError, match="dynamically quantised layer has no gradient"):
        loss.backward()
    assert x.grad is None
    with no_grad():
        assert not layer(x).requires_grad


def test_listeners_see_one_op() -> None:
    """Oracle: one event, whose result is the layer's."""
    layer, seen = DynamicQuantizedLinear.from_float(Linear(4, 3)), []
    with listen(seen.append):
        y = layer(np.ones((2, 4), np.float32))
    assert [event.node.op.name for event in seen] == ["DynamicLinear"]
    assert y.shape == seen[0].node.shape == (2, 3)


@pytest.mark.torch
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_product_is_qnnpacks(qnnpack: Any, granularity: str) -> None:
    """Oracle: torch.ao.nn.quantized.dynamic.Linear, engine qnnpack: weights, and every result to the bit."""
    torch = qnnpack
    rng = np.random.default_rng(0)
    for seed, shape in enumerate([(3, 7, 5), (17, 64, 33), (50, 300, 10), (1, 1000, 9), (9, 1, 1)] * 4):
        x, w, b = drawn(int(rng.integers(2**32)) + seed, shape)
        theirs = theirs_of(torch, w, b, granularity)
        with torch.no_grad():
            expected = theirs(torch.from_numpy(x)).numpy()
        assert (theirs.weight().int_repr().numpy() == quantize_weight(w, granularity).codes).all()
        assert product(x, w, b, granularity).tobytes() == expected.tobytes()


def theirs_of(torch: Any, w: Floats, b: Floats, granularity: str) -> Any:
    """Return torch's dynamic layer with the engine qnnpack."""
    import torch.ao.quantization as ao

    layer = torch.nn.Linear(w.shape[1], w.shape[0])
    layer.weight.data, layer.bias.data = torch.from_numpy(w), torch.from_numpy(b)
    per_tensor = granularity == "per-tensor"
    layer.qconfig = ao.default_dynamic_qconfig if per_tensor else ao.per_channel_dynamic_qconfig
    return torch.ao.nn.quantized.dynamic.Linear.from_float(layer)


def test_a_tensor_of_its_own() -> None:
    """Oracle: what comes back shares no memory with the bias or the codes."""
    layer = DynamicQuantizedLinear.from_float(Linear(3, 2))
    before = {name: each.numpy().copy() for name, each in layer.state_dict().items()}
    y: Tensor = layer(np.zeros((0, 3), np.float32))
    z: Tensor = layer(np.ones((1, 3), np.float32))
    z.numpy()[:] = 7
    assert y.shape == (0, 2)
    assert all((each.numpy() == before[name]).all() for name, each in layer.state_dict().items())
