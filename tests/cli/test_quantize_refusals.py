"""What `minimp quantize` refuses; oracle: exit codes, the words, and a folder that stays as it was."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from minimp.cli import main
from tests.cli.quantized import make_runs, told

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a run of each model, of a few steps."""
    return make_runs(tmp_path_factory.mktemp("runs"))


REFUSALS: dict[str, tuple[tuple[str, ...], str]] = {
    "an unknown mode": (("mlp", "--mode", "statik"), "unknown mode 'statik'; did you mean 'static'?"),
    "an unknown observer": (("mlp", "--observer", "minmix"), "unknown observer 'minmix'"),
    "an unknown rule": (("mlp", "--rule", "tosch"), "unknown rule 'tosch'; did you mean 'torch'"),
    "an unknown rounding": (("mlp", "--requantise", "fixed"), "unknown requantise 'fixed'"),
    "an unknown granularity": (("mlp", "--granularity", "channel"), "unknown granularity 'channel'"),
    "an unknown path": (("mlp", "--keep-float", "9"), "unknown module in --keep-float '9'"),
    "an unknown format": (("mlp", "--mode", "weight-only", "--dtype", "int5"), "format of weights 'int5'"),
    "bits that are none": (("mlp", "--mode", "qat", "--bits", "8"), "--bits takes two whole numbers W,A"),
    "too many bits": (("mlp", "--mode", "qat", "--bits", "9,8"), "weights can have 2 to 8 bits, got 9"),
    "a rule without a symmetric form": (("mlp", "--rule", "torch-dynamic"), "unknown rule 'torch-dynamic'"),
    "a format that none is kept in": (("mlp", "--keep-float", "0=int4"), "unknown format in --keep-float"),
    "a recipe with 16-bit weights": (
        ("mlp", "--mode", "qat", "--recipe", "bf16"), "stores weights in bfloat16; the roundings of qat"),
    "a recipe with FP8": (("mlp", "--mode", "qat", "--recipe", "mixed-fp8"), "have no FP8 products"),
    "an unknown recipe": (("mlp", "--mode", "qat", "--recipe", "fp23"), "unknown recipe 'fp23'"),
    "a recipe without training": (("mlp", "--recipe", "fp32"), "--recipe cannot act in mode static; it does"),
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
    "data that the checkpoint does not fit": (
        ("mlp", "--data", "two.csv"), "the weights do not fit a model of this data"),
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
