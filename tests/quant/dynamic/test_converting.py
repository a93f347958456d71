"""Whole models made dynamic: what is taken and left, ties, reports, files, refusals; oracles: by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from minimp import nn
from minimp.checkpoint import load, save
from minimp.errors import DataError, FormatError, MinimpError, SettingError
from minimp.models import gpt
from minimp.modes import no_grad
from minimp.quant.dynamic import DynamicQuantizedEmbedding, DynamicQuantizedLinear, quantize_dynamic
from minimp.rng import manual_seed
from minimp.tensors import tensor


class Reader(nn.Module):
    """A model with every kind of layer that has a dynamic form, and some that have none."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 16)
        self.lstm = nn.LSTM(16, 12, bidirectional=True, batch_first=True)
        self.gru = nn.GRU(24, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.narrow = nn.Conv1d(6, 6, 1)
        self.head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5))

    def forward(self, codes: Any) -> Any:
        """(N, 6) integers -> (N, 6, 5) scores."""
        y, _ = self.lstm(self.table(codes))
        y, _ = self.gru(y)
        y, _ = self.attention(y, y, y)
        return self.head(self.norm(self.narrow(y)))


CODES = np.random.default_rng(0).integers(0, 20, (3, 6))
TAKEN = ["table", "lstm", "gru", "attention", "head.0", "head.2"]


@pytest.fixture
def model() -> Reader:
    """Return the model, drawn from a seed."""
    manual_seed(5)
    return Reader().eval()


def run(model: Any, codes: Any = CODES) -> Any:
    """Return a model's result as an array."""
    with no_grad():
        return model(codes).numpy()


def test_every_kind_is_taken_and_the_rest_is_named(model: Reader) -> None:
    """Oracle: the layers by hand; the model in floating point is as it was, and near."""
    before, y = {name: each.numpy().copy() for name, each in model.state_dict().items()}, run(model)
    made, report = quantize_dynamic(model)
    assert [row.path for row in report.converted] == TAKEN
    assert {row.path: row.note for row in report.left} == {
        "norm": "its parameters are few, and its sums stay in floating point",
        "narrow": "convolutions have no dynamic form; static quantisation takes them",
    }
    assert type(made.get_submodule("attention.out_proj")) is DynamicQuantizedLinear
    assert all((each.numpy() == before[name]).all() for name, each in model.state_dict().items())
    assert (run(model) == y).all()
    assert not (run(made) == y).any()
    assert np.corrcoef(run(made).ravel(), y.ravel())[0, 1] > 0.99
    assert sorted(name for name, _ in made.named_parameters()) == [
        "narrow.bias", "narrow.weight", "norm.bias", "norm.weight",
    ]  # fmt: skip


def test_bytes_are_counted(model: Reader) -> None:
    """Oracle: four bytes a number in float32; one a code, eight a scale and its zero point, four a bias."""
    _, report = quantize_dynamic(model, granularity="per-channel")
    rows = {row.path: row for row in report.converted}
    assert (rows["head.2"].bytes_before, rows["head.2"].bytes_after) == (4 * 45, 40 + 8 * 5 + 4 * 5)
    assert (rows["table"].bytes_before, rows["table"].bytes_after) == (4 * 320, 320 + 8 * 20)
    left = sum(row.bytes_after for row in report.left)
    assert report.bytes_before == 4 * model.num_parameters()
    assert report.bytes_after == left + sum(row.bytes_after for row in report.converted)
    assert report.ratio == report.bytes_after / report.bytes_before


def test_noise_of_weights_is_told() -> None:
    """Oracle: a weight on the grid loses nothing; +-1.5 among 127.5 loses a quarter each: by hand."""
    layer = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(4, 1, bias=False))
    layer[0].weight.array = np.array([[-127.5, 3, -64, 5]], np.float32)
    layer[1].weight.array = np.array([[-127.5, 1.5, 2.5, 0]], np.float32)
    _, report = quantize_dynamic(layer)
    noise = [0.5**2, 0.5**2 + 0.5**2 + 0.5**2]  # -127.5 is read as -128; ties go to the even code
    signal = [float((each.weight.detach().numpy().astype(float) ** 2).sum()) for each in layer]
    expected = [10 * np.log10(s / n) for s, n in zip(signal, noise, strict=True)]
    assert [row.sqnr_db for row in report] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("granularity", ["per-tensor", "per-channel"])
def test_a_row_has_the_largest_weight_and_scale(granularity: str) -> None:
    """Oracle: max |w| / 127.5 in float32, the scale of torch's symmetric codes -128..127."""
    layer = nn.MultiheadAttention(8, 2)
    layer.out_proj.weight.array = layer.out_proj.weight.array * np.float32(9)
    layer.in_proj_weight.array[0, 0] = 0.5
    row = quantize_dynamic(layer, granularity=granularity)[1].rows[0]
    largest = np.abs(layer.out_proj.weight.array).max()
    assert row.largest == largest > 0.5
    assert row.scale == largest / np.float32(127.5)


def test_report_fits_a_terminal(model: Reader) -> None:
    """Oracle: the first line by hand; no line is longer than 100 columns, however long a path is."""
    deep = nn.Sequential(nn.ModuleDict({"a_name_that_goes_on_and_on_and_on_until_it_is_cut": model}))
    _, report = quantize_dynamic(deep)
    text = str(report)
    ratio = f"({report.ratio:.2f} x)"
    assert text.splitlines()[0] == (
        f"6 layers converted, 2 left; parameters and buffers {report.bytes_before:,} -> "
        f"{report.bytes_after:,} bytes {ratio}"
    )
    assert max(map(len, text.splitlines())) <= 100
    assert "until_it_is_cut.head.2" in text
    assert "0.table" not in text


def test_classes_and_paths_choose(model: Reader) -> None:
    """Oracle: the rows that are converted, and why the others are not."""
    for asked, taken in (
        ({nn.Linear}, ["head.0", "head.2"]),
        (["head.2", nn.GRU], ["gru", "head.2"]),
        ("head", ["head.0", "head.2"]),
        ("attention", ["attention"]),
    ):
        _, report = quantize_dynamic(model, asked)  # type: ignore[arg-type]  # sets of both kinds
        assert [row.path for row in report.converted] == taken
    notes = {row.path: row.note for row in report.left}
    assert notes["lstm"] == "not among the modules asked for"


def test_a_path_is_no_beginning_of_a_name() -> None:
    """Oracle: "head" stands for head.0, and not for header."""
    model = nn.ModuleDict({"head": nn.Sequential(nn.Linear(2, 2)), "header": nn.Linear(2, 2)})
    _, report = quantize_dynamic(model, ["head"])
    assert [row.path for row in report.converted] == ["head.0"]


def test_modes_are_kept() -> None:
    """Oracle: dropout between recurrences acts in training mode alone, and the mode is the layer's."""
    model = nn.Sequential(nn.LSTM(3, 4, num_layers=2, dropout=0.5))
    x = tensor(np.ones((2, 1, 3), np.float32))
    for training in (True, False):
        made = quantize_dynamic(model.train(training))[0].get_submodule("0")
        first, second = (run(lambda x, made=made: made(x)[0], x) for _ in "ab")
        assert made.training is training
        assert (first == second).all() == (not training)


def test_transformers_run() -> None:
    """Oracle: a transformer's layer whose attention and linear layers are exchanged, near to what it was."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    x = tensor(np.random.default_rng(0).normal(size=(2, 5, 16)).astype(np.float32))
    made, report = quantize_dynamic(layer)
    assert [row.path for row in report.converted] == ["self_attn", "linear1", "linear2"]
    before, after = run(layer, x), run(made, x)
    assert (before != after).any()
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.999


def test_in_place(model: Reader) -> None:
    """Oracle: the same object, its layers exchanged, the same numbers as the copy's."""
    copied, _ = quantize_dynamic(model)
    changed, _ = quantize_dynamic(model, inplace=True)
    assert changed is model
    assert (run(model) == run(copied)).all()
    single = nn.Linear(3, 2)
    made, _ = quantize_dynamic(single)
    assert type(made) is DynamicQuantizedLinear
    with pytest.raises(SettingError, match="cannot become another in place"):
        quantize_dynamic(single, inplace=True)


def test_a_layer_at_two_places_stays_one() -> None:
    """Oracle: one object before, one after, and one row."""
    layer = nn.Linear(4, 4)
    made, report = quantize_dynamic(nn.Sequential(layer, nn.ReLU(), layer))
    assert made.get_submodule("0") is made.get_submodule("2")
    assert type(made.get_submodule("0")) is DynamicQuantizedLinear
    assert len(report) == 1


@pytest.mark.parametrize("granularity", ["per-tensor", "per-channel"])
def test_tied_weights(granularity: str) -> None:
    """Oracle: a scale a row serves table and head alike, and their codes stay one array; with one for the
    whole head there are two, which the report says."""
    made, report = quantize_dynamic(gpt((8,), 30, width=16, layers=1), granularity=granularity)
    table, head = made.get_submodule("tokens"), made.get_submodule("head")
    assert isinstance(table, DynamicQuantizedEmbedding)
    assert (table.weight_codes is head.weight_codes) == (granularity == "per-channel")
    notes = {row.path: row.note for row in report}
    assert notes["head"].startswith("tied to tokens.weight")
    unique = {id(each.array): each.array.nbytes for _, each in made.named_buffers()}
    unique |= {id(each.array): each.array.nbytes for each in made.parameters()}
    assert report.bytes_after == sum(unique.values())
    codes = np.arange(8)[None]
    copied = {name: each.numpy() for name, each in made.state_dict().items()}
    again, _ = quantize_dynamic(gpt((8,), 30, width=16, layers=1), granularity=granularity)
    again.load_state_dict(copied)
    assert (run(again, codes) == run(made, codes)).all()


def test_state_goes_through_files(model: Reader, tmp_path: Path) -> None:
    """Oracle: the same bits after save and load, and by safetensors' own reader; another model's differ."""
    made, _ = quantize_dynamic(model, granularity="per-channel")
    y = run(made)
    save(tmp_path / "state.safetensors", made.state_dict())
    save(tmp_path / "run.safetensors", {"model": made.state_dict(), "step": 3})
    manual_seed(77)
    other, _ = quantize_dynamic(Reader().eval(), granularity="per-channel")
    assert (run(other) != y).any()
    other.load_state_dict(tmp_path / "state.safetensors")
    assert (run(other) == y).all()
    third, _ = quantize_dynamic(Reader().eval(), granularity="per-channel")
    third.load_state_dict(load(tmp_path / "run.safetensors")["model"])
    assert (run(third) == y).all()
    seen = safetensors.numpy.load_file(tmp_path / "state.safetensors")
    assert seen["head.2.weight_codes"].dtype == np.int8
    assert seen["head.2.weight_scale"].dtype == np.float32
    assert seen["lstm.weight_hh_l0_reverse_zero_point"].dtype == np.int32
    wrong, _ = quantize_dynamic(Reader().eval())
    with pytest.raises(MinimpError, match="wrong shapes"):
        wrong.load_state_dict(tmp_path / "state.safetensors")


def test_refusals(model: Reader) -> None:
    """Oracle: one clear error for each fault."""
    made, _ = quantize_dynamic(model)
    with pytest.raises(SettingError, match="'table' is on codes already"):
        quantize_dynamic(made)
    with pytest.raises(SettingError, match=r"a Conv1d cannot be converted\n.*static quantisation takes them"):
        quantize_dynamic(model, {nn.Conv1d})
    with pytest.raises(SettingError, match="'norm', a LayerNorm, cannot be converted: its param"):
        quantize_dynamic(model, ["norm"])
    with pytest.raises(SettingError, match="no module at 'heat'"):
        quantize_dynamic(model, ["heat"])
    with pytest.raises(SettingError, match="expected classes of layers or paths, got 3"):
        quantize_dynamic(model, [3])
    with pytest.raises(SettingError, match="no modules are named"):
        quantize_dynamic(model, [])
    with pytest.raises(SettingError, match=r"no layer can be converted \(0: convolutions"):
        quantize_dynamic(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()))
    with pytest.raises(SettingError, match="unknown granularity"):
        quantize_dynamic(model, granularity="per-group")
    with pytest.raises(SettingError, match="expected a module, got list"):
        quantize_dynamic([model])  # type: ignore[arg-type]  # the fault


def test_layers_that_cannot_be(model: Reader) -> None:
    """Oracle: the reasons: a projected LSTM, hooks, a class of its own, an attention's own projection."""

    class Own(nn.Linear):
        def forward(self, input: Any) -> Any:
            return super().forward(input) * 2

    model.lstm = nn.LSTM(16, 24, proj_size=12, bidirectional=True, batch_first=True)
    model.head[0] = Own(8, 8)
    model.head[2].register_forward_hook(lambda *_: None)
    model.attention.out_proj.register_forward_hook(lambda *_: None)
    made, report = quantize_dynamic(model)
    notes = {row.path: row.note for row in report.left}
    assert notes["lstm"] == "an LSTM with proj_size has no dynamic form"
    assert notes["head.0"] == "a class made from Linear, whose forward may be its own"
    assert notes["head.2"].startswith("it has hooks")
    assert notes["attention"].startswith("it has hooks")
    assert notes["attention.out_proj"] == "it is a part of attention: convert nn.MultiheadAttention"
    assert [row.path for row in report.converted] == ["table", "gru"]
    assert run(made).shape == (3, 6, 5)


def test_weights_that_cannot_be(model: Reader) -> None:
    """Oracle: the layer's path in the message, and a model that has not changed."""
    model.gru.weight_hh_l0.array = np.full((24, 8), np.nan, np.float32)
    before = list(model.named_modules())
    with pytest.raises(DataError, match=r"'gru': .*192 of 192 numbers of weight_hh_l0 of a GRU"):
        quantize_dynamic(model, inplace=True)
    assert list(model.named_modules()) == before


def test_formats_are_chosen_before(model: Reader) -> None:
    """Oracle: a bfloat16 model converts, and its float32 scales are as those of its rounded weights; a model
    moved afterwards is refused at its next call."""
    made, _ = quantize_dynamic(model.bfloat16())
    with no_grad():
        assert made.get_submodule("head")(np.ones((1, 8), np.float32)).dtype == np.float32
    made.half()
    with pytest.raises(FormatError, match="expected weight_scale in float32, got float16"):
        run(made)
