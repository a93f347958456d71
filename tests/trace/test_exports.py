"""Traces for other programs: TensorBoard's event files, and the JSON of Perfetto."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import trace
from minimp.errors import DataError, SettingError
from tests.trace.cases import batch, grown, make_step


@pytest.fixture(scope="module")
def made() -> trace.Trace:
    """Three steps with a shadow, the last with an overflow, and an op outside of them."""
    step = make_step()
    with trace.record(shadow=True, values="all") as found:
        step(*batch())
        step(*batch(1))
        make_step(change=grown(2, 1.5e5))(*batch())
        mp.tensor([1.0, 1e-9]).half()
    return found


# ---- TensorBoard -------------------------------------------------------------------------------------------


def crc32c(data: bytes) -> int:
    """CRC-32C bit by bit (RFC 3720, B.4: polynomial 0x1EDC6F41, reflected)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    """The checksum as a TFRecord has it: rotated right by 15 bits, plus a constant."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path: Path) -> Iterator[bytes]:
    """Read a TFRecord file: length, its checksum, data, its checksum."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12]) == (masked(data[:8]),)
        yield data[12 : 12 + length]
        assert struct.unpack("<I", data[12 + length : 16 + length]) == (masked(data[12 : 12 + length]),)
        data = data[16 + length :]


def read_back(folder: Path) -> dict[tuple[str, int], Any]:
    """(Tag, step) -> the scalar, or the histogram, of the one event file in a folder."""
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")
    (path,) = folder.iterdir()
    found = {}
    for record in records(path):
        event = proto.Event.FromString(record)
        for value in event.summary.value:
            histogram = value.HasField("histo")
            found[value.tag, event.step] = value.histo if histogram else value.simple_value
    return found


def test_checksums_are_castagnolis() -> None:
    """Oracle: RFC 3720, B.4: the checksum of 32 zeros, and of "123456789"."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"123456789") == 0xE3069283


def test_tensorboards_file_holds_the_traces_numbers(made: trace.Trace, tmp_path: Path) -> None:
    """Oracle: the trace's own events, through tensorboardX's own protocol buffers and the file's framing."""
    pytest.importorskip("tensorboardX")
    assert made.tensorboard(tmp_path / "logs") == tmp_path / "logs"
    found = read_back(tmp_path / "logs")
    for step in (1, 2, 3):
        (loss,) = made.select(phase="stage", op="loss", step=step)
        if loss.outputs[0].stats.max is not None:
            assert found["loss", step] == np.float32(loss.outputs[0].stats.max)
        (scale,) = made.select(phase="stage", op="update_scale", step=step)
        assert found["loss_scale", step] == scale.facts["loss_scale"]
    burst = sum(event.overflowed for event in made.select(op="linear", phase="forward", step=3))
    assert found["overflowed/linear", 3] == burst > 0
    assert found["flushed/cast", 0] == 1
    assert found["overflowed/linear", 1] == 0
    rows = made.select(phase="stage", op="update", step=2)[0].facts["updates"]
    _, nonzero, swallowed = rows["2.weight"]
    assert found["swallowed/2.weight", 2] == np.float32(swallowed / nonzero)
    error = max(e.made.relative for x in made.select(op="linear", phase="forward", step=1) for e in x.errors)
    assert found["error/linear", 1] == np.float32(error)


def test_histograms_are_numpys(made: trace.Trace, tmp_path: Path) -> None:
    """Oracle: np.histogram of log2 |g| of the kept gradients, with the bins that the file names."""
    pytest.importorskip("tensorboardX")
    made.tensorboard(tmp_path)
    found = read_back(tmp_path)
    (event,) = made.select(phase="stage", op="unscale", step=2)
    looked = 0
    kept = made.values(event)
    for i, side in enumerate(event.outputs):
        grad = np.abs(kept[f"out{i}"].astype(np.float64)) if f"out{i}" in kept else None
        if grad is None:
            continue
        logs = np.log2(grad[grad > 0])
        histogram = found[f"gradients/{side.name}", 2]
        ends = list(histogram.bucket_limit)
        wanted, _ = np.histogram(logs, bins=[ends[0] - 1, *ends])
        assert list(histogram.bucket) == wanted.tolist()
        assert histogram.num == logs.size == wanted.sum()
        assert (histogram.min, histogram.max) == (np.floor(logs).min(), np.floor(logs).max() + 1)
        looked += 1
    assert looked == 6


def test_a_folder_that_cannot_be_written_to_is_refused(made: trace.Trace, tmp_path: Path) -> None:
    """Oracle: the docstring."""
    pytest.importorskip("tensorboardX")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="name a folder to write to"):
        made.tensorboard(tmp_path / "file" / "logs")


def test_without_tensorboardx_it_is_said_what_to_install(
    made: trace.Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the extra's name in pyproject.toml."""
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    with pytest.raises(SettingError, match=r"pip install minimp\[tensorboard\]"):
        made.tensorboard(tmp_path / "logs")
    assert not (tmp_path / "logs").exists()


# ---- Perfetto ----------------------------------------------------------------------------------------------


def test_slices_are_in_microseconds(made: trace.Trace, tmp_path: Path) -> None:
    """Oracle: the events' own nanoseconds, and which of them stands in which stage and module."""
    shown = json.loads(made.chrome(tmp_path / "t.json").read_text())["traceEvents"]
    by_number = {each["args"]["event"]: each for each in shown if "event" in each.get("args", {})}
    for event in made.events:
        if event.phase != "stage":
            each = by_number[event.number]
            assert round(each["ts"] * 1000) == event.start
            assert round(each["dur"] * 1000) == event.end - event.start
    stages = [each for each in shown if each.get("cat") == "stage"]
    assert len(stages) == 3 * len(mp.step.STAGES)
    forward = [each for each in stages if each["name"] == "forward"]
    for event in made.select(op="linear", phase="forward"):
        each, home = by_number[event.number], forward[event.step - 1]
        assert home["ts"] <= each["ts"]
        assert each["ts"] + each["dur"] <= home["ts"] + home["dur"] + 1e-6
