"""Weights stored narrow; oracles: the block formats' own arrays, layers on the weights read back, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from minimp import formats, functional, nn
from minimp.errors import DataError, FormatError, SettingError
from minimp.formats.blocks.arrays import quantize
from minimp.formats.blocks.table import BLOCK_FORMATS, BlockFormat
from minimp.models import gpt
from minimp.modes import no_grad
from minimp.policy import autocast
from minimp.quant.narrow_weights import KINDS, NarrowWeights, weight_only
from minimp.rng import manual_seed
from minimp.tensors import tensor

PLAIN = ("int8", "float8_e4m3fn", "float8_e5m2", "float6_e2m3fn", "float4_e2m1fn")


@pytest.fixture(autouse=True)
def _seed() -> None:
    manual_seed(11)


def values(*shape: int, seed: int = 0) -> Any:
    """Draw normal numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


LAYERS: dict[type[nn.Module], tuple[Any, tuple[Any, ...]]] = {
    nn.Linear: (lambda: nn.Linear(40, 6), (values(3, 40),)),
    nn.Bilinear: (lambda: nn.Bilinear(5, 7, 3), (values(2, 5), values(2, 7))),
    nn.Conv1d: (lambda: nn.Conv1d(4, 6, 3, groups=2), (values(2, 4, 9),)),
    nn.Conv2d: (lambda: nn.Conv2d(3, 5, 3, padding=1), (values(2, 3, 6, 6),)),
    nn.Embedding: (lambda: nn.Embedding(9, 33), (np.array([[0, 8], [3, 3]]),)),
    nn.RNN: (lambda: nn.RNN(5, 4, num_layers=2), (values(6, 2, 5),)),
    nn.LSTM: (lambda: nn.LSTM(5, 8, bidirectional=True, proj_size=3), (values(6, 2, 5),)),
    nn.GRU: (lambda: nn.GRU(5, 4, bias=False), (values(6, 2, 5),)),
    nn.MultiheadAttention: (lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True), (values(4, 2, 8),) * 3),
}
"""Of each class a layer, and what it is called with."""


def outputs(module: Any, inputs: tuple[Any, ...]) -> Any:
    """Return the first result of a call as an array."""
    with no_grad():
        made = module(*inputs)
    return (made[0] if isinstance(made, tuple) else made).numpy()


def test_every_class_has_a_layer_here() -> None:
    """Oracle: the table of classes."""
    assert tuple(LAYERS) == KINDS


@pytest.mark.parametrize("dtype", ["int8", "mxfp8", "mxfp4"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_layers_compute_on_what_is_read_back(kind: type[nn.Module], dtype: str) -> None:
    """Oracle: the layer itself with the weights read back in their places: the same bits."""
    build, inputs = LAYERS[kind]
    layer = build()
    made, report = weight_only(layer, dtype)
    before = outputs(layer, inputs)
    for name, read in made.read_weights().items():
        leaf = layer.get_parameter(name)
        assert read.shape == leaf.shape
        assert (read != leaf.detach().numpy()).any()
        leaf.array = read
    assert outputs(made, inputs).tobytes() == outputs(layer, inputs).tobytes() != before.tobytes()
    assert isinstance(made, kind)
    assert len(report) == 1
    assert all(leaf.ndim < 2 or name.startswith("bias_") for name, leaf in made.named_parameters())


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(BLOCK_FORMATS)), st.integers(1, 150), st.integers(1, 140), st.integers(-40, 40),
    st.integers(0, 999),
)  # fmt: skip
def test_weights_are_the_block_formats(name: str, rows: int, columns: int, power: int, seed: int) -> None:
    """Oracle: BlockArray.dequantize: every format, sizes that are no multiples of a block, any magnitude."""
    layer = nn.Linear(columns, rows, bias=False)
    layer.weight.array = values(rows, columns, seed=seed) * np.float32(2.0**power)
    made: Any = weight_only(layer, name)[0]
    expected = quantize(layer.weight.array, name).dequantize()
    assert made.weight.numpy().tobytes() == expected.tobytes()
    assert made.read_weights()["weight"].tobytes() == expected.tobytes()


@settings(max_examples=40)
@given(
    st.sampled_from(PLAIN), st.integers(1, 9), st.integers(1, 100), st.sampled_from([None, 1, 7, 32, 128]),
    st.integers(0, 999),
)  # fmt: skip
def test_plain_formats_have_float32_scales(
    name: str, rows: int, columns: int, group: int | None, seed: int
) -> None:
    """Oracle: s = float32(amax / largest), e the nearest element to w / s, for each row or group; int8 by
    hand: within half a step, and the largest exactly at its end."""
    layer = nn.Linear(columns, rows, bias=False)
    w = layer.weight.array = values(rows, columns, seed=seed)
    how: dict[str, Any] = {} if group is None else {"granularity": "per-group", "group_size": group}
    made: Any = weight_only(layer, name, **how)[0]
    read = made.weight.numpy()
    length = columns if group is None else group
    largest = formats.get(name).max
    for start in range(0, columns, length):
        part = slice(start, start + length)
        amax = np.abs(w[:, part]).max(axis=1, keepdims=True).astype(np.float64)
        scale = (amax / largest).astype(np.float32)
        ratio = np.clip(w[:, part] / scale.astype(np.float64), -largest, largest)
        element = np.rint(ratio) if name == "int8" else formats.round(ratio, name).astype(np.float64)
        assert (read[:, part] == (element * scale).astype(np.float32)).all()
    scales = made.weight_scales.numpy()
    assert scales.shape == (rows, -(-columns // length))


@pytest.mark.parametrize("dtype", ["mxint8", "mxfp4", "nvfp4"])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.LSTM, nn.MultiheadAttention], ids=lambda kind: kind.__name__)
def test_a_row_has_the_largest_weight_and_scale(kind: type[nn.Module], dtype: str) -> None:
    """Oracle: the parameters, and mp.formats on the matrices of each: t s of every block."""
    layer = LAYERS[kind][0]()
    made, report = weight_only(layer, dtype)
    weights = [layer.get_parameter(name).detach().numpy() for name in made.read_weights()]
    blocks = [quantize(each.reshape(len(each), -1), dtype) for each in weights]
    scales = [np.max(each.scales) * np.float64(each.tensor_scale or 1) for each in blocks]
    assert report.rows[0].largest == max(np.abs(each).max() for each in weights)
    assert report.rows[0].scale == max(scales)


def test_bytes_and_noise() -> None:
    """Oracle: by hand: a byte a code (half of one in 4 bits), four a scale, or one in MX; the noise of the
    weights read back in float64."""
    layer = nn.Linear(64, 10)
    w = layer.weight.detach().numpy().astype(np.float64)
    sizes = {
        ("int8", None): 640 + 4 * 10, ("float8_e4m3fn", 16): 640 + 4 * 40, ("float4_e2m1fn", None): 320 + 40,
        ("mxfp8", None): 640 + 20, ("mxfp4", None): 320 + 20, ("nvfp4", None): 320 + 40 + 4,
        ("mxfp6_e2m3", None): 480 + 20,
    }  # fmt: skip
    for (dtype, group), size in sizes.items():
        how: dict[str, Any] = {} if group is None else {"granularity": "per-group", "group_size": group}
        made, report = weight_only(nn.Sequential(layer), dtype, **how)
        (row,) = report
        assert (row.bytes_before, row.bytes_after) == (4 * 650, size + 40)
        assert report.bytes_after == size + 40
        noise = float(((w - made.get_submodule("0").weight.numpy()) ** 2).sum())
        assert row.sqnr_db == pytest.approx(10 * np.log10((w**2).sum() / noise), rel=1e-12)


def test_tied_weights_stay_tied() -> None:
    """Oracle: table and head of a GPT are one array of codes, and the bytes are counted once."""
    made, report = weight_only(gpt((8,), 30, width=16, layers=1), "int8")
    table, head = made.get_submodule("tokens"), made.get_submodule("head")
    assert table.weight_codes is head.weight_codes
    unique = {id(each.array): each.nbytes for each in [*made.buffers(), *made.parameters()]}
    assert report.bytes_after == sum(unique.values())
    assert made(np.zeros((1, 8), np.int64)).shape == (1, 8, 30)


def test_state_goes_through_files(tmp_path: Path) -> None:
    """Oracle: the same bits in a model of other weights that loads the file; safetensors' own reader."""
    from minimp.checkpoint import save

    for dtype in ("int8", "float8_e4m3fn", "mxfp8", "nvfp4"):
        first, other = (weight_only(nn.Sequential(nn.Linear(20, 4), nn.GRU(4, 3)), dtype)[0] for _ in "ab")
        save(tmp_path / "state.safetensors", first.state_dict())
        other.load_state_dict(tmp_path / "state.safetensors")
        x = values(5, 20)
        pairs = [
            outputs(each.get_submodule("1"), (outputs(each.get_submodule("0"), (x,)),))
            for each in (first, other)
        ]
        assert pairs[0].tobytes() == pairs[1].tobytes()
        seen = safetensors.numpy.load_file(tmp_path / "state.safetensors")
        assert seen["0.weight_codes"].dtype == (np.int8 if dtype == "int8" else np.uint8)
        assert ("0.weight_tensor_scale" in seen) == (dtype == "nvfp4")


def test_gradients_of_inputs_pass() -> None:
    """Oracle: the gradient of a linear layer by its input, grad W, with the weight that was read back."""
    made: Any = weight_only(nn.Linear(6, 3), "mxfp8")[0]
    x = tensor(values(2, 6), requires_grad=True)
    made(x).sum().backward()
    expected = functional.linear(tensor(np.ones((2, 3), np.float32)), made.weight.transpose(0, 1)).numpy()
    assert (x.grad.numpy() == expected).all()  # type: ignore[union-attr]  # backward gave it
    assert [name for name, _ in made.named_parameters()] == ["bias"]


def test_other_precisions() -> None:
    """Oracle: a bfloat16 layer reads its weights in bfloat16, rounded once; autocast casts what is read."""
    layer = nn.Linear(6, 3).bfloat16()
    made: Any = weight_only(layer, "int8")[0]
    assert made.weight.format is formats.bfloat16
    expected = formats.round(made.read_weights()["weight"], "bfloat16")
    assert (made.weight.float().numpy() == np.asarray(expected, np.float32)).all()
    wide: Any = weight_only(nn.Linear(6, 3), "int8")[0]
    with autocast("bfloat16"), no_grad():
        assert wide(values(2, 6)).format is formats.bfloat16


def test_a_model_moved_afterwards() -> None:
    """Oracle: a refusal that says so; codes in uint8 and their scales stand any move."""
    made: Any = weight_only(nn.Linear(6, 3), "int8")[0].half()
    with pytest.raises(FormatError, match="expected weight_codes in int8 and weight_scales in float32, got"):
        made(values(2, 6))
    blocks: Any = weight_only(nn.Linear(6, 3, bias=False), "mxfp8")[0]
    before = blocks.read_weights()["weight"]
    assert (blocks.half().read_weights()["weight"] == before).all()


def test_a_block_format_of_ones_own() -> None:
    """Oracle: BlockArray.dequantize."""
    form = BlockFormat("mine", formats.get("float8_e4m3fn"), formats.float32, (5,), "amax_up")
    layer = nn.Linear(12, 3)
    made: Any = weight_only(layer, form)[0]
    assert made.weight.numpy().tobytes() == quantize(layer.weight.array, form).dequantize().tobytes()


def test_what_is_left_and_how_it_shows() -> None:
    """Oracle: the reasons and the text by hand."""
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 3), nn.PReLU())
    made, report = weight_only(model, "float8_e4m3fn")
    notes = {row.path: row.note for row in report.left}
    assert notes["1"] == "its weights are vectors"
    assert notes["2"].startswith("its weights have their outputs along the second axis")
    assert notes["3"].startswith("weight_only converts Linear, Bilinear")
    assert repr(made.get_submodule("0")) == (
        "WeightOnlyConv2d(2, 4, kernel_size=(3, 3), stride=(1, 1), weights fp8_e4m3fn / row)"
    )
    assert max(map(len, str(report).splitlines())) <= 100


def test_refusals() -> None:
    """Oracle: one clear error for each fault."""
    model = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(SettingError, match="granularity='per-group' cannot act: mxfp8_e4m3 has blocks"):
        weight_only(model, "mxfp8", granularity="per-group")
    for dtype in ("float16", "uint8", "e8m0"):
        with pytest.raises(FormatError, match="expected a signed format of at most 8 bits"):
            weight_only(model, dtype)
    with pytest.raises(FormatError, match="unknown format of weights 'int3'"):
        weight_only(model, "int3")
    with pytest.raises(SettingError, match="unknown granularity 'per-tensor'; did you mean"):
        weight_only(model, granularity="per-tensor")
    with pytest.raises(SettingError, match="group_size to be a whole number of at least 1, got 0"):
        weight_only(model, granularity="per-group", group_size=0)
    with pytest.raises(SettingError, match="'0' is on codes already"):
        weight_only(weight_only(model)[0], "mxfp8")
    made: Any = weight_only(model)[0].get_submodule("0")
    with pytest.raises(SettingError, match="codes are not drawn anew"):
        made.reset_parameters()
    assert isinstance(made, NarrowWeights)
    model[0].weight.array = np.full((2, 3), np.inf, np.float32)
    with pytest.raises(DataError, match=r"'0': .*6 of 6 numbers of weight of a Linear"):
        weight_only(model)


def test_an_error_of_a_layer_is_quoted_without_its_op_and_help() -> None:
    """Oracle: the op and the help line, each once, also as attributes of the error."""
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    model[0].weight.array = np.full((2, 3), np.inf, np.float32)
    with pytest.raises(DataError) as fault:
        weight_only(model)
    assert str(fault.value).count("weight_only: ") == str(fault.value).count("help: ") == 1
    assert (fault.value.op, fault.value.help is None) == ("weight_only", False)
