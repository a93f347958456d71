"""`minimp quantize`; oracle: the calls of mp.quant that it stands for, the files, and `evaluate`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimp import checkpoint, models
from minimp.cli import main
from minimp.cli.quantize_modes import MODES, OBSERVERS
from minimp.data import DataLoader
from minimp.evaluation import evaluate
from minimp.nn import Module
from minimp.quant import calibrate, convert, equalize, fuse, quantize_dynamic, saving, weight_only
from minimp.quant.layer_reports import bytes_of, sqnr
from minimp.quant.observers import HistogramObserver, MinMaxObserver, PerChannelMinMaxObserver
from minimp.tensors import tensor
from tests.cli.processes import START, environment, on_a_terminal

Capture = pytest.CaptureFixture[str]
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("hidden=24", {"hidden": (24,)}),
    "cnn": ("channels=4x6", {"channels": (4, 6)}),
    "resnet": ("width=4", {"width": 4}),
    "autoencoder": ("hidden=16,code=4", {"hidden": 16, "code": 4}),
    "gpt": ("width=16,layers=1,heads=2", {"width": 16, "layers": 1, "heads": 2}),
}
IMAGES = {"mlp": "100", "cnn": "100", "resnet": "80", "autoencoder": "80"}
"""Models of images, and how wide the screen is."""
TEXT = "the quick brown fox jumps over the lazy dog\n" * 200


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run of each model, of a few steps."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text(TEXT)
    (folder / "two.csv").write_text("a,b,label\n" + "1,2,x\n2,1,y\n" * 20)
    for name, (sizes, _) in SIZES.items():
        text = ("--data", str(folder / "text.txt"), "--context", "16", "--sample", "0")
        steps = "80" if name == "mlp" else "12"
        words = ("train", "--quiet", "--steps", steps, "--model", name, "--out", str(folder / name))
        assert main([*words, "--sizes", sizes, *(text if name == "gpt" else ())]) == 0
    return folder


def trained(runs: Path, name: str) -> tuple[Module, Any]:
    """Return the model of a run, made by hand, and its data."""
    options = {"context": 16} if name == "gpt" else {}
    data = models.MODELS[name].read(str(runs / "text.txt") if name == "gpt" else "digits", **options)
    model = models.build(name, data.train, **SIZES[name][1])
    model.load_state_dict(runs / name / "weights.safetensors")
    return model.eval(), data


def told(folder: Path, *words: str) -> tuple[dict[str, Any], Module]:
    """Run the command quietly; return what it wrote as JSON, and the model of its file."""
    out, figures = folder / "q.safetensors", folder / "q.json"
    assert main(["quantize", *words, "--quiet", "--out", str(out), "--json", str(figures)]) == 0
    found: dict[str, Any] = json.loads(figures.read_text())
    return found, saving.load(out)


def bits(model: Module) -> dict[str, bytes]:
    """Return the bytes of every leaf."""
    return {path: each.array.tobytes() for path, each in model.state_dict().items()}


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
    assert "9 steps of 64 rows, Adam lr 0.001, rounding from step 2; ranges stand still from step 7" in said


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


REFUSALS: dict[str, tuple[tuple[str, ...], str]] = {
    "an unknown mode": (("mlp", "--mode", "statik"), "unknown mode 'statik'; did you mean 'static'?"),
    "an unknown observer": (("mlp", "--observer", "minmix"), "unknown observer 'minmix'"),
    "an unknown rule": (("mlp", "--rule", "tosch"), "unknown rule 'tosch'; did you mean 'torch'"),
    "an unknown rounding": (("mlp", "--requantise", "fixed"), "unknown requantise 'fixed'"),
    "an unknown granularity": (("mlp", "--granularity", "channel"), "unknown granularity 'channel'"),
    "an unknown path": (("mlp", "--keep-float", "9"), "unknown path in keep_float '9'"),
    "an unknown format": (("mlp", "--mode", "weight-only", "--dtype", "int5"), "number format 'int5'"),
    "bits that are none": (("mlp", "--mode", "qat", "--bits", "8"), "--bits takes two whole numbers W,A"),
    "too many bits": (("mlp", "--mode", "qat", "--bits", "9,8"), "weight_bits must be from 2 to 8, got 9"),
    "no samples": (("mlp", "--samples", "0"), "--samples must be at least 1, got 0"),
    "too many samples": (("mlp", "--samples", "9999"), "--samples 9999 is more than the 1400 rows"),
    "epochs and steps": (("mlp", "--mode", "qat", "--epochs", "1", "--steps", "1"), "say the same"),
    "a late freeze": (("mlp", "--mode", "qat", "--steps", "4", "--freeze", "9"), "there are 4 steps"),
    "a freeze at once": (("mlp", "--mode", "qat", "--steps", "4", "--freeze", "0"), "cannot freeze at"),
    "an option of another mode": (
        ("mlp", "--mode", "dynamic", "--samples", "9"), "--samples cannot act in mode dynamic; it does"),
    "size of what needs data": (("mlp", "--size-only"), "--size-only cannot act in mode static"),
    "data that is not read": (
        ("mlp", "--mode", "dynamic", "--size-only", "--data", "digits"), "--data cannot act beside"),
    "a checkpoint without data": (
        ("mlp/checkpoint.safetensors", "--mode", "dynamic", "--size-only"), "does not say of which shape"),
    "integers that come in": (("gpt",), "the model 'gpt' has no integer form throughout: input 0"),
    "its own file": (("mlp", "--out", "mlp/checkpoint.safetensors"), "is what is quantised"),
    "one file twice": (("mlp", "--out", "x", "--json", "x"), "are one file"),
    "a folder that is not there": (("mlp", "--out", "nowhere/x"), "its folder does not exist"),
    "no run": ((".",), "holds no run"),
    "data of another kind": (("mlp", "--data", "stdlib"), "is text"),
    "data of another shape": (
        ("mlp/weights.safetensors", "--data", "two.csv"), "takes inputs of (64,), and two"),
    "data that is not there": (("mlp", "--data", "nothing.npz"), "nothing.npz"),
    "diverging": (("mlp", "--mode", "qat", "--steps", "30", "--lr", "1e30"), "training diverged"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_be_is_one_clear_error(
    name: str, runs: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: exit code 2, the words, an advice; no file was made or changed."""
    words, said = REFUSALS[name]
    monkeypatch.chdir(runs)
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    assert main(["quantize", *words, "--quiet"]) == 2
    heard = capsys.readouterr().err
    assert said in " ".join(heard.split())
    assert len(heard.splitlines()) <= 2
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()} == before


def test_what_has_no_integer_form_is_told_before_the_work(runs: Path, capsys: Capture) -> None:
    """Oracle: nothing on stderr but the error: no batch was calibrated on."""
    assert main(["quantize", str(runs / "gpt")]) == 2
    assert capsys.readouterr().err.startswith("minimp: error: quantize: the model 'gpt'")


def test_a_quantised_file_is_not_quantised_again(runs: Path, tmp_path: Path, capsys: Capture) -> None:
    """Oracle: the words, from this command and from `minimp export`."""
    told(tmp_path, str(runs / "mlp"))
    for command in ("quantize", "export"):
        assert main([command, str(tmp_path / "q.safetensors")]) == 2
        assert "a model that is quantised already (static)" in capsys.readouterr().err


@pytest.mark.slow
def test_the_library_of_graphs_is_missing(
    runs: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the words, before any work; nothing is written."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    words = ["quantize", str(runs / "mlp"), "--out", str(tmp_path / "q"), "--onnx", str(tmp_path / "g")]
    assert main(words) == 2
    assert "onnx is not installed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_stopping_leaves_nothing_half_made(runs: Path, tmp_path: Path) -> None:
    """Oracle: exit code 130, and a folder without new files; what was there before is whole."""
    out = tmp_path / "q.safetensors"
    out.write_bytes(b"before")
    words = ("quantize", str(runs / "cnn"), "--mode", "qat", "--epochs", "4000", "--out", str(out))
    process = subprocess.Popen(
        [sys.executable, "-c", START, *words], env=environment(), stderr=subprocess.PIPE, text=True
    )
    time.sleep(6)
    process.send_signal(signal.SIGINT)
    assert "interrupted" in process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("q.safetensors", b"before")]


@pytest.mark.slow
def test_on_a_terminal(runs: Path, tmp_path: Path) -> None:
    """Oracle: the exit code, the bar, and the colours that NO_COLOR switches off."""
    words = ("quantize", str(runs / "mlp"), "--out", str(tmp_path / "q"))
    code, said = on_a_terminal(*words, COLUMNS="80", TERM="xterm")
    assert (code, "calibrating" in said, "\x1b[1m" in said) == (0, True, True)
    code, said = on_a_terminal(*words, "--quiet", COLUMNS="80", TERM="xterm", NO_COLOR="1")
    assert (code, "calibrating" in said, "\x1b[3" in said) == (0, False, False)
