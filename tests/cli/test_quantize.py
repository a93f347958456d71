"""`minimp quantize`; oracle: the calls of mp.quant that it stands for, the files, and `evaluate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimp import checkpoint
from minimp.cli import main
from minimp.cli.quantize_modes import MODES, OBSERVERS
from minimp.cli.quantize_training import RECIPES
from minimp.data import DataLoader
from minimp.evaluation import evaluate
from minimp.quant import calibrate, convert, equalize, fuse, quantize_dynamic, saving, weight_only
from minimp.quant.layer_reports import bytes_of, sqnr
from minimp.quant.observers import HistogramObserver, MinMaxObserver, PerChannelMinMaxObserver
from minimp.tensors import tensor
from tests.cli.processes import START, on_a_terminal, process
from tests.cli.quantized import bits, make_runs, told, trained

Capture = pytest.CaptureFixture[str]
HEEDING = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
"""A suite in the background ignores Ctrl-C, and its children with it."""
IMAGES = {"mlp": "100", "cnn": "100", "resnet": "80", "autoencoder": "80"}
"""Models of images, and how wide the screen is."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run of each model, of a few steps."""
    return make_runs(tmp_path_factory.mktemp("runs"))


def batches_of(data: Any, size: int) -> list[Any]:
    """Return the batches of the training part in the order in which the command takes them."""
    return list(DataLoader(data.train, size, shuffle=True, seed=0))


def observer(**options: Any) -> Any:
    """Return what makes an observer of int8 weights."""
    kind = options.pop("kind", PerChannelMinMaxObserver)
    return lambda: kind(quant_min=-128, quant_max=127, symmetric=True, **options)


STATIC: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "as it comes": ((), {}, "torch"),
    "per tensor": (("--granularity", "per-tensor"), {"weight": observer(kind=MinMaxObserver)}, "torch"),
    "fixed point": (("--requantise", "fixed-point"), {"mode": "fixed-point"}, "torch"),
    "by ONNX's rule": (("--rule", "onnx"), {"weight": observer(rule="onnx")}, "onnx"),
    "a layer in floats": (("--keep-float", "7=float16"), {"keep_float": {"7": "float16"}}, "torch"),
}


@pytest.mark.parametrize("name", STATIC)
def test_static_is_these_calls(name: str, runs: Path, tmp_path: Path) -> None:
    """Oracle: fuse, calibrate and convert on all rows, whose ends no order changes: every bit, and scores."""
    words, options, rule = STATIC[name]
    rows = ("--observer", "minmax", "--samples", "1400", "--batch", "700")
    found, loaded = told(tmp_path, str(runs / "cnn"), *rows, *words)
    model, data = trained(runs, "cnn")
    fused, _ = fuse(model, data.train[:8][0])
    seen = calibrate(fused, batches_of(data, 700), activation=lambda: MinMaxObserver(rule=rule))
    made = convert(fused, seen, **options)
    assert bits(loaded) == bits(made)
    assert repr(loaded) == repr(made)
    assert found["scores"] == {
        "in floats": evaluate(model, data.test, "fp32"), "quantised": evaluate(made, data.test, "fp32")
    }  # fmt: skip
    assert (found["bytes_before"], found["bytes_after"]) == (bytes_of(model), bytes_of(made))
    assert found["written"] == {str(tmp_path / "q.safetensors"): (tmp_path / "q.safetensors").stat().st_size}


def test_the_rows_that_are_calibrated_on(runs: Path, tmp_path: Path) -> None:
    """Oracle: the loader's first 70 rows in their order, and no more: ends that the next rows would move."""
    words = ("--observer", "minmax", "--samples", "70", "--batch", "64")
    found, loaded = told(tmp_path, str(runs / "cnn"), *words)
    assert found["facts"]["calibrated on"] == "70 rows of the training part in 2 batches"
    model, data = trained(runs, "cnn")
    fused, _ = fuse(model, data.train[:8][0])
    first, second = (inputs for inputs, _ in batches_of(data, 64)[:2])
    made = [convert(fused, calibrate(fused, [first, second[:n]], activation=MinMaxObserver)) for n in (6, 64)]
    assert [bits(each) == bits(loaded) for each in made] == [True, False]


def test_a_row_of_the_table(runs: Path, tmp_path: Path) -> None:
    """Oracle: the module of the file, and both models run by hand up to that layer."""
    found, loaded = told(tmp_path, str(runs / "cnn"))
    rows = {row["path"]: row for row in found["layers"]}
    assert list(rows) == ["input 0", "0", "3", "7"]
    row, layer, affine = rows["3"], loaded.model[3], loaded.model[3].kept("")
    ends = float(affine.low), float(affine.high), float(affine.scale), int(affine.zero_point)
    assert (row["low"], row["high"], row["scale"], row["zero_point"]) == ends
    assert (row["kind"], row["stored"]) == ("Conv2d+ReLU", "int8, 6 scales")
    held = (layer.weight, layer.bias, layer.weight_scale, layer.weight_zero_point)
    assert (row["bytes_before"], row["bytes_after"]) == (
        4 * (6 * 4 * 9 + 6),
        sum(each.nbytes for each in held),
    )
    model, data = trained(runs, "cnn")
    x = tensor(data.test[:128][0])
    wanted, codes = model[:5](x), loaded.quantize[0](x)
    for each in list(loaded.model)[:4]:
        codes = each(codes)
    expected = sqnr([(np.asarray(wanted.detach()), codes.dequantize())])
    assert row["error_db"] == pytest.approx(expected, abs=1e-3)  # fused weights were rounded once more
    assert 20 < row["error_db"] < 60


@pytest.mark.parametrize("name", IMAGES)
def test_static_takes_all_models_of_images(
    name: str, runs: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the screen is as wide as it may be; layers with weights have rows; scores are close."""
    width, out = IMAGES[name], tmp_path / "q.safetensors"
    monkeypatch.setenv("COLUMNS", width)
    assert main(["quantize", str(runs / name), "--quiet", "--out", str(out), "--samples", "128"]) == 0
    lines = [each for each in capsys.readouterr().out.splitlines() if not each.startswith(("written", " "))]
    assert max(map(len, lines)) <= int(width)
    model, data = trained(runs, name)
    layers = [
        path for path, each in fuse(model, data.train[:8][0])[0].named_modules() if hasattr(each, "weight")
    ]
    shown = {line.split(" ")[0] for line in lines}
    assert {each.removesuffix(".0") if each not in shown else each for each in layers} <= shown | {""}
    before, after = (evaluate(each, data.test, "fp32") for each in (model, saving.load(out)))
    assert after["test_loss"] == pytest.approx(before["test_loss"], rel=0.05)


@pytest.mark.parametrize("name", ["mlp", "gpt", "resnet"])
def test_the_modes_without_calibration(name: str, runs: Path, tmp_path: Path) -> None:
    """Oracle: quantize_dynamic and weight_only on the same model: every bit, rows, reasons and scores."""
    model, data = trained(runs, name)
    for words, (made, report) in (
        (("dynamic",), quantize_dynamic(model)),
        (("dynamic", "--granularity", "per-channel"), quantize_dynamic(model, granularity="per-channel")),
        (("weight-only",), weight_only(model)),
        (("weight-only", "--dtype", "mxfp4"), weight_only(model, "mxfp4")),
        (("weight-only", "--group-size", "8"), weight_only(model, granularity="per-group", group_size=8)),
    ):
        found, loaded = told(tmp_path, str(runs / name), "--mode", *words)
        assert bits(loaded) == bits(made)
        assert [(row["path"], row["error_db"]) for row in found["layers"]] == [
            (row.path, row.sqnr_db) for row in report.converted
        ]
        assert [(row["path"], row["why"]) for row in found["left"]] == [
            (row.path, row.note) for row in report.left
        ]
        assert found["scores"]["quantised"] == evaluate(made, data.test, "fp32")


def test_the_size_alone(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    """Oracle: the bytes that are written when the model is judged too; no data is read: its file is gone."""
    gone = tmp_path / "gpt"
    gone.mkdir()
    for name in ("weights", "checkpoint"):
        (gone / f"{name}.safetensors").write_bytes((runs / "gpt" / f"{name}.safetensors").read_bytes())
    one, two = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    words = ("--mode", "weight-only", "--quiet", "--out")
    assert main(["quantize", str(gone), "--size-only", *words, str(one)]) == 0
    assert "in floats," not in capsys.readouterr().out
    text = ("--data", str(runs / "text.txt"))
    assert main(["quantize", str(gone / "weights.safetensors"), *text, *words, str(two)]) == 0
    assert one.read_bytes() == two.read_bytes()
    meta = checkpoint.read_meta(one)
    assert (meta["model"], meta["quantized"]) == ("gpt", "weight-only")


def test_what_was_done_before(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    """Oracle: fuse and equalize, every bit and their rows; a model that loses much is told what to try."""
    words = ("--equalize", "--observer", "minmax", "--samples", "1400", "--batch", "700")
    _, loaded = told(tmp_path, str(runs / "resnet"), *words)
    said = " ".join(capsys.readouterr().out.split())
    model, data = trained(runs, "resnet")
    fused, report = fuse(model, data.train[:8][0])
    assert all(row.modules[0] in said for row in report.fused)
    moved, scaling = equalize(fused, data.train[:8][0])
    made = convert(moved, calibrate(moved, batches_of(data, 700), activation=MinMaxObserver))
    assert bits(loaded) == bits(made)
    assert all(f"{row.first} -> {row.second} (up to x {row.factor:.3g})" in said for row in scaling.paired)
    worse = ["quantize", str(runs / "mlp"), "--mode", "qat", "--bits", "2,2", "--steps", "1", "--lr", "1e-6"]
    assert main([*worse, "--quiet", "--out", str(tmp_path / "q")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Worse than in floats" in said
    assert "To try: more --epochs" in said
    assert "of 2 and 2 bits, each in a byte of its own" in said


def test_training_on(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    """Oracle: widths in the file, the scores of its model, of floats and of no training; what was said."""
    words = ("--mode", "qat", "--bits", "4,6", "--steps", "9", "--delay", "2", "--freeze", "7")
    found, loaded = told(tmp_path, str(runs / "resnet"), *words)
    codes = {each.weight_codes[:2] for each in loaded.modules() if "weight_codes" in vars(each)}
    ends = {vars(each)["codes"][:2] for each in loaded.modules() if "weight_codes" in vars(each)}
    assert (codes, ends) == ({(-8, 7)}, {(0, 63)})
    model, data = trained(runs, "resnet")
    fused, _ = fuse(model, data.train[:8][0])
    seen = calibrate(fused, batches_of(data, 64)[:8], activation=lambda: HistogramObserver(quant_max=63))
    weight = partial(PerChannelMinMaxObserver, quant_min=-8, quant_max=7, symmetric=True)
    assert found["scores"] == {
        "in floats": evaluate(model, data.test, "fp32"), "quantised": evaluate(loaded, data.test, "fp32"),
        "not trained on": evaluate(convert(fused, seen, weight=weight), data.test, "fp32"),
    }  # fmt: skip
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "9 steps of 64 rows in fp32, Adam lr 0.001, rounding from step 2; ranges stand still from step 7"
        in said
    )


def test_training_on_in_mixed_precision(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    """Oracle: the recipe by name trains other integers than fp32; its scale is told in the log of steps."""
    words = ("--mode", "qat", "--steps", "12", "--lr", "0.01", "--recipe")
    made = {name: bits(told(tmp_path, str(runs / "mlp"), *words, name)[1]) for name in RECIPES[:1]}
    assert "12 steps of 64 rows in fp32" in " ".join(capsys.readouterr().out.split())
    out = ["quantize", str(runs / "mlp"), "--out", str(tmp_path / "q.safetensors"), *words, "mixed-fp16"]
    assert main(out) == 0
    said, heard = capsys.readouterr()
    assert "12 steps of 64 rows in mixed-fp16" in " ".join(said.split())
    assert "scale 6.55e+04" in heard or "scale 65536" in heard or "scale 65,536" in heard
    assert bits(saving.load(tmp_path / "q.safetensors")) != made["fp32"]


def test_what_the_screen_says_to_run(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    """Oracle: the two lines under "use", executed: the model of the file, and its loss in JSON."""
    found, loaded = told(tmp_path, str(runs / "mlp"))
    lines = capsys.readouterr().out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("use "))
    names: dict[str, Any] = {}
    exec("\n".join(line[16:] for line in lines[first : first + 2]), names)
    assert bits(names["model"]) == bits(loaded)
    _, data = trained(runs, "mlp")
    assert evaluate(names["model"], data.test, "fp32") == found["scores"]["quantised"]


def test_the_rule_of_tflite(runs: Path, tmp_path: Path) -> None:
    """Oracle: weights on codes -127..127 with 127 at the largest of each row, zero points of 0."""
    _, loaded = told(tmp_path, str(runs / "mlp"), "--rule", "tflite", "--samples", "64")
    model, _ = trained(runs, "mlp")
    layer, weight = loaded.model[0], np.asarray(model[0].weight.detach())
    assert layer.weight_codes[:2] == (-127, 127)
    np.testing.assert_array_equal(np.abs(layer.weight.array).max(axis=1), 127)
    largest = np.abs(weight).max(axis=1) / np.float32(127)
    np.testing.assert_array_equal(layer.weight_scale.array.ravel(), largest)


@pytest.mark.slow
def test_the_schedule_acts(runs: Path, tmp_path: Path) -> None:
    """Oracle: other steps at which rounding begins or ranges freeze make other integers."""
    base = ("--mode", "qat", "--bits", "4,4", "--steps", "8")
    ways = (("--freeze", "2"), ("--freeze", "7"), ("--delay", "5", "--freeze", "7"), ("--freeze", "2"))
    made = [bits(told(tmp_path, str(runs / "mlp"), *base, *words)[1]) for words in ways]
    assert made[0] == made[3]
    assert made[0] != made[1] != made[2] != made[0]


def test_a_graph_beside_it(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    """Oracle: onnx.checker, and the count of codes that the graph and the model have."""
    onnx = pytest.importorskip("onnx")
    graph = tmp_path / "g.onnx"
    words = ("--onnx", str(graph), "--rule", "onnx", "--samples", "64")
    found, loaded = told(tmp_path, str(runs / "mlp"), *words)
    onnx.checker.check_model(onnx.load(graph), full_check=True)
    count = 8 * (64 + 24 + 10)
    assert loaded.model[2].weight.shape == (10, 24)
    assert found["onnx"] == [f"codes equal: {count} of {count}, on 8 rows run by onnx.reference"]
    assert set(found["written"]) == {str(tmp_path / "q.safetensors"), str(graph)}
    assert "codes equal" in capsys.readouterr().out


def test_progress(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    """Oracle: lines on stderr, at most ten; with patience, by how much ranges moved; none when quiet."""
    words = ["quantize", str(runs / "mlp"), "--out", str(tmp_path / "q"), "--observer", "minmax"]
    assert main([*words, "--samples", "1400", "--batch", "20", "--patience", "3"]) == 0
    said, told_by = capsys.readouterr()
    lines = told_by.splitlines()
    assert 0 < len(lines) <= 10
    assert "ranges moved by" in lines[0] or "calibrating: batch" in lines[0]
    assert "ended early, as ranges had settled" in " ".join(said.split())
    assert main([*words, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_the_tables_of_names() -> None:
    """Oracle: each observer is one of activations; each option of a mode is one of the command's."""
    assert all(kind().ch_axis is None for kind in OBSERVERS.values())
    assert list(MODES) == ["static", "dynamic", "weight-only", "qat"]


INTERRUPTED = f"""{HEEDING}
import os
from minimp.step import TrainStep
real, calls = TrainStep.__call__, []
def step(*arguments):
    calls.append(1)
    if len(calls) == 9:
        os.kill(os.getpid(), signal.SIGINT)
    return real(*arguments)
TrainStep.__call__ = step
{START}
"""
"""The command, whose user presses Ctrl-C in the ninth step of training."""


@pytest.mark.slow
def test_stopping_leaves_nothing_half_made(runs: Path, tmp_path: Path) -> None:
    """Oracle: exit code 130, and a folder without new files; what was there before is whole."""
    out = tmp_path / "q.safetensors"
    out.write_bytes(b"before")
    words = ("quantize", str(runs / "cnn"), "--mode", "qat", "--epochs", "4000", "--out", str(out))
    made = process(*words, script=INTERRUPTED)
    assert "interrupted" in made.stderr
    assert made.returncode == 130
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("q.safetensors", b"before")]


@pytest.mark.slow
def test_on_a_terminal(runs: Path, tmp_path: Path) -> None:
    """Oracle: the exit code, the bar, and the colours that NO_COLOR switches off."""
    words = ("quantize", str(runs / "mlp"), "--out", str(tmp_path / "q"))
    code, said = on_a_terminal(*words, COLUMNS="80", TERM="xterm")
    assert (code, "calibrating" in said, "\x1b[1m" in said) == (0, True, True)
    code, said = on_a_terminal(*words, "--quiet", COLUMNS="80", TERM="xterm", NO_COLOR="1")
    assert (code, "calibrating" in said, "\x1b[3" in said) == (0, False, False)
