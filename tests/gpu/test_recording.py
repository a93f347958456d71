"""Recordings: written, read and replayed on a CPU; oracles: the NumPy references, files that are changed."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from minimp.backend import get_backend
from minimp_backends.kernels.registry import KERNELS
from tests.gpu import recording
from tests.gpu.recording import faults_of, record
from tests.gpu.recordings import FOLDER, BrokenRecordingError, Recorder, folders, manifest, read
from tests.ops.samples import SAMPLES as OP_SAMPLES

KEPT = [(folder, file) for folder in folders() for file in sorted(manifest(folder)["files"])]
FEW = ("find_nonfinite_half", "unscale_half", "cast_float_half", "update_scale")
MOST_BYTES = 4 << 20


def replay_tests() -> list[Any]:
    """Return a case for each file that was recorded on a GPU."""
    return [pytest.param(folder, file, id=f"{folder.name}/{file}") for folder, file in KEPT]


if KEPT:  # what there is is replayed; where there is nothing, the summary says so, and no test pretends

    @pytest.mark.parametrize(("folder", "file"), replay_tests())
    def test_what_a_gpu_computed_is_what_the_references_compute(folder: Path, file: str) -> None:
        """Oracle: the kernels' NumPy references, bit for bit or as their row says; the ops' bounds."""
        assert faults_of(folder, file) == []


def test_recordings_stay_small() -> None:
    """Oracle: the sizes of the files, which go into the repository."""
    assert sum(each.stat().st_size for each in FOLDER.rglob("*.npz")) <= MOST_BYTES


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: Any) -> Path:
    """A recording of a device, of a few kernels and ops."""
    monkeypatch.setattr(recording, "KERNELS", {name: KERNELS[name] for name in FEW})
    some = [each for each in recording.OP_SAMPLES if each.op in ("exp", "matmul", "softmax", "add", "index")]
    monkeypatch.setattr(recording, "OP_SAMPLES", some)
    record(tmp_path / "here", device)
    return tmp_path / "here"


def test_what_is_recorded_is_replayed(made: Path, device: Any) -> None:
    """Oracle: the references; every file is one, kernels where the device runs them."""
    files = manifest(made)["files"]
    assert {"op-exp.npz", "op-matmul.npz", "op-softmax.npz", "op-add.npz"} <= set(files)
    assert sum(name.startswith("kernel-") for name in files) == (len(FEW) if hasattr(device, "gpu") else 0)
    assert {name: faults_of(made, name) for name in files} == {name: [] for name in files}
    assert folders(made.parent) == [made]
    assert manifest(made)["on"] == device.describe()


def changed(folder: Path, file: str) -> None:
    """Change the first result of a file that is no flag, and put its new hash into the manifest."""
    with np.load(folder / file) as held:
        arrays = {key: held[key].copy() for key in held.files}
    key = next(k for k in arrays if "/out/" in k and arrays[k].size and not k.endswith("length"))
    flat = arrays[key].reshape(-1)
    flat[0] = flat[0] + 1 if np.isfinite(flat[0]) else 0
    np.savez(folder / file, **arrays)
    told = json.loads((folder / "manifest.json").read_text())
    told["files"][file]["sha256"] = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(told))


def test_a_result_that_is_wrong_is_found(made: Path) -> None:
    """Oracle: a number changed by 1 in each file, the hash with it."""
    for file in manifest(made)["files"]:
        changed(made, file)
        assert len(faults_of(made, file)) >= 1, file


def test_files_that_cannot_be_believed(made: Path) -> None:
    """Oracle: a byte changed, a file too many, another schema, no manifest: each says what it is."""
    file = made / "op-exp.npz"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BrokenRecordingError, match="SHA-256 is not the manifest's"):
        faults_of(made, "op-exp.npz")
    file.write_bytes(whole)
    (made / "op-more.npz").write_bytes(whole)
    with pytest.raises(BrokenRecordingError, match=r"files and manifest differ: .'op-more.npz'"):
        manifest(made)
    os.remove(made / "op-more.npz")
    told = (made / "manifest.json").read_text()
    (made / "manifest.json").write_text(told.replace('"schema": 1', '"schema": 2'))
    with pytest.raises(BrokenRecordingError, match="schema 2, expected 1"):
        manifest(made)
    (made / "manifest.json").write_text(told[:-9])
    with pytest.raises(BrokenRecordingError, match="no manifest that can be read"):
        manifest(made)


def test_arrays_come_back_as_they_went(tmp_path: Path) -> None:
    """Oracle: dtypes that NumPy lacks, sequences, empty ones among them, numbers; nothing is pickled."""
    given = {
        "a": np.array([1.5, np.nan], ml_dtypes.bfloat16), "many": [np.zeros(0, np.float16), np.arange(3)],
        "none": [], "scale": 0.25, "codes": np.arange(4, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn),
    }  # fmt: skip
    recorder = Recorder(tmp_path, {"GPU": "none"})
    recorder.add("kernel", "one", [{"in": given, "out": {}}, {"in": {}, "out": {"x": np.ones(2)}}])
    recorder.close()
    first, second = read(tmp_path, "kernel-one.npz")
    back = first["in"]
    assert (back["a"].dtype, back["codes"].dtype) == (given["a"].dtype, given["codes"].dtype)
    np.testing.assert_array_equal(back["a"].view("u2"), given["a"].view("u2"))
    assert [each.dtype for each in back["many"]] == [np.float16, np.arange(3).dtype]
    assert (back["none"], back["scale"].item()) == ([], 0.25)
    np.testing.assert_array_equal(second["out"]["x"], np.ones(2))


def test_every_kernel_is_recorded_and_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel_device: Any
) -> None:
    """Oracle: the registry, and the references: no file is empty, and all together are small."""
    monkeypatch.setattr(recording, "OP_SAMPLES", [])
    record(tmp_path / "here", kernel_device)
    files = manifest(tmp_path / "here")["files"]
    assert {each["name"] for each in files.values()} == set(KERNELS)
    assert {name: faults_of(tmp_path / "here", name) for name in files} == {name: [] for name in files}
    assert sum(each.stat().st_size for each in (tmp_path / "here").iterdir()) < MOST_BYTES / 2


def test_every_op_is_recorded_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the ops' bounds, on what the strict device computes; the list of ops, less those with dice."""
    monkeypatch.setattr(recording, "KERNELS", {})
    record(tmp_path / "here", get_backend("strict"))
    files = manifest(tmp_path / "here")["files"]
    assert {each["name"] for each in files.values()} == {each.op for each in OP_SAMPLES} - recording.RANDOM
    assert {name: faults_of(tmp_path / "here", name) for name in files} == {name: [] for name in files}
    assert sum(each.stat().st_size for each in (tmp_path / "here").iterdir()) < MOST_BYTES / 2


@pytest.mark.gpu
def test_record_this_gpu(gpu: Any, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Oracle: the references, for every kernel and op, on this very GPU; kept where --record says."""
    folder = Path(request.config.getoption("--record") or tmp_path / "recorded")
    record(folder, gpu)
    files = manifest(folder)["files"]
    assert {name: faults_of(folder, name) for name in files} == {name: [] for name in files}
