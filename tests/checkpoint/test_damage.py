"""Damaged and forged files; oracle: the file as it was written, and every single flipped bit."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import minimp as mp
from minimp import models, optim
from minimp.checkpoint import load, save
from minimp.data import DataLoader, digits
from minimp.errors import CheckpointError
from minimp.files.sealed import LAYOUT
from minimp.step import TrainStep
from minimp.trainer import Trainer
from tests.checkpoint.states import (
    BY_NAME,
    every_value,
    forge,
    refused,
    small_state,
)


def test_every_flipped_bit_is_caught(path: Path) -> None:
    """Oracle: a small file, loaded once with each of its bits flipped: no flip is harmless or unseen."""
    state = {"w": np.arange(4, dtype=np.float16), "b": every_value(BY_NAME["int4"], 3), "n": [1, None]}
    save(path, state, meta={"by": "me"})
    data = path.read_bytes()
    assert data[8:].find(b"  ") > 0, "the padding of the header is to be among the bytes"
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            refused(path, bytes(changed))
    path.write_bytes(data)
    load(path)


def test_every_byte_replaced_by_a_telling_one_is_caught(path: Path) -> None:
    """Oracle: the same file with each byte made a space, quote, brace, zero or 255."""
    save(path, {"w": np.arange(4, dtype=np.float16), "n": 1})
    data = path.read_bytes()
    for place in range(len(data)):
        for byte in b' "{}0\x00\xff':
            if data[place] != byte:
                refused(path, data[:place] + bytes([byte]) + data[place + 1 :])


# ---- the checkpoint of a run -------------------------------------------------------------------------------


def run_of(path: Path, hidden: int, steps: int) -> bytes:
    """Return the checkpoint of a model of three layers that was trained."""
    mp.manual_seed(3)
    train = models.MODELS["mlp"].prepare(digits("train"))
    optimizer = optim.Adam((model := models.build("mlp", train, hidden=(hidden,))).parameters())
    step = TrainStep(model, mp.functional.cross_entropy, optimizer, "mixed-fp16")
    scheduler = optim.StepLR(optimizer, 2)
    loader = DataLoader(train, 16, shuffle=True)
    Trainer(step, loader, scheduler=scheduler, checkpoint=path).run(steps)
    load(path, require_checksum=True)
    return path.read_bytes()


def every_change_is_caught(path: Path, masks: Sequence[int]) -> None:
    """Load a file once with each of its bytes changed by each mask (exclusive or)."""
    data = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(data):
            for mask in masks:
                os.pwrite(file.fileno(), bytes([byte ^ mask]), place)
                with pytest.raises(CheckpointError) as caught:
                    load(path)
                assert str(path) in str(caught.value), (place, mask)
                assert "\n  help: " in str(caught.value), (place, mask)
            os.pwrite(file.fileno(), bytes([byte]), place)
    assert path.read_bytes() == data
    load(path)


def test_every_byte_of_a_run(path: Path) -> None:
    """Oracle: a run of 4,856 bytes with each byte changed in its lowest bit, its highest and all of them; the
    message names the file and what to do.
    """
    assert len(run_of(path, 2, 3)) > 4096
    every_change_is_caught(path, (0x01, 0x80, 0xFF))


@pytest.mark.slow
def test_every_bit_of_a_run(path: Path) -> None:
    """Oracle: the same with every bit flipped; and a run of ten times the size with every byte inverted."""
    run_of(path, 2, 3)
    every_change_is_caught(path, [1 << bit for bit in range(8)])
    assert len(run_of(path, 48, 3)) > 40_000
    every_change_is_caught(path, [0xFF])


def test_a_run_cut_anywhere_or_with_more_behind_it(path: Path) -> None:
    """Oracle: the file cut at each length; with zeros, spaces, noise or itself behind it."""
    data = run_of(path, 2, 3)
    for length in range(len(data)):
        refused(path, data[:length])
    noise = np.random.default_rng(0).bytes(4096)
    for tail in (b"\0", b"\0" * 512, b" ", b"\n", noise, data):
        assert "SHA-256 differs" in refused(path, data + tail)
    for front in (b"\0", noise, data[:100]):
        refused(path, front + data)


def test_two_checkpoints_of_a_run_mixed(path: Path) -> None:
    """Oracle: the beginning of one and the end of another, at every place: it is neither, and is refused."""
    one, two = run_of(path, 2, 3), run_of(path, 2, 4)
    for place in range(max(len(one), len(two))):
        for mixed in (one[:place] + two[place:], two[:place] + one[place:]):
            if mixed not in (one, two):
                refused(path, mixed)


def test_every_truncation_is_caught(path: Path) -> None:
    """Oracle: the file cut at each length, and with bytes added; the messages tell the two apart."""
    save(path, small_state())
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for length in range(len(data)):
        assert "cut short" in refused(path, data[:length])
    assert f"{len(data) - 1} of {len(data)} bytes" in refused(path, data[:-1])
    assert "SHA-256 differs" in refused(path, data + b"\0")
    assert "SHA-256 differs" in refused(path, data[:start] + data[start + 1 :] + b"\0")


def test_two_parts_swapped_are_caught(path: Path) -> None:
    """Oracle: a header and tensors of two files that are each whole: same sizes, other numbers."""
    save(path, {"w": np.zeros(4)})
    first = path.read_bytes()
    save(path, {"w": np.ones(4)})
    assert "SHA-256 differs" in refused(path, path.read_bytes()[:-32] + first[-32:])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "cut short: it has 0 bytes"),
        (b"\x80\x04K\x01.", "cut short: it has 5 bytes"),
        (b"PK\x03\x04" + bytes(100), "it is no safetensors file"),
        (b"plain text, and rather more than eight bytes of it", "it is no safetensors file"),
        ((2**60).to_bytes(8, "little") + b"{}", "cut short"),
        ((12).to_bytes(8, "little") + b'{"a": [1, 2]', "its header is damaged"),
        ((8).to_bytes(8, "little") + b'{"a": 1}', "its header is damaged"),
        ((8).to_bytes(8, "little") + b'{"\xff": 1}', "its header is damaged"),
        ((20).to_bytes(8, "little") + b'{"__metadata__": 17}', "its header is damaged"),
        ((25).to_bytes(8, "little") + b'{"__metadata__":{"a": 17}}'[:25] + b"}", "its header is damaged"),
        ((26).to_bytes(8, "little") + b'{"__metadata__":{"a": 17}}', "its metadata is damaged"),
        ((36).to_bytes(8, "little") + b'{"a": {"data_offsets":[0,Infinity]}}', "its header is damaged"),
        ((30).to_bytes(8, "little") + b'{"a": {"data_offsets":[0, 0]}}', "it is damaged"),
        ((10**5 + 6).to_bytes(8, "little") + b'{"a": ' + b"[" * 10**5, "its header is damaged"),
    ],
)  # fmt: skip
def test_files_that_are_no_checkpoint(path: Path, data: bytes, said: str) -> None:
    """Oracle: the table: pickles, archives, text, and JSON that is not what safetensors writes."""
    assert said in refused(path, data)


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ("{", "its parts do not belong together"),
        ("[]", "its parts do not belong together"),
        ('{"tree":{},"tuples":[],"codes":{}}', "its parts do not belong together"),
        ('{"tree":{"a":{}},"tuples":["b"],"codes":{}}', "its parts do not belong together"),
        ('{"tree":{"a":null},"tuples":[],"codes":{"a":"object"}}', "its parts do not belong together"),
        ('{"tree":{"a":null},"tuples":[],"codes":{"a":"bfloat16"}}', "its parts do not belong together"),
        ('{"tree":' + "[" * 50_000 + ',"tuples":[],"codes":{}}', "its parts do not belong together"),
    ],
)
def test_forged_states(path: Path, stored: str, said: str) -> None:
    """Oracle: files with a right checksum over parts that do not fit."""
    entry = {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]}
    notes = {"minimp.checkpoint": str(LAYOUT), "minimp.state": stored}
    forge(path, {"__metadata__": notes, "a/b" if '"a":{}' in stored else "x/y": entry}, b"123")
    with pytest.raises(CheckpointError, match=said):
        load(path)


def test_a_forged_checksum(path: Path) -> None:
    """Oracle: an entry that is no SHA-256 at all."""
    for digest in ("", "é" * 64, "A" * 64, "0" * 63):
        notes = {"minimp.checkpoint": str(LAYOUT), "minimp.state": "{}", "minimp.sha256": digest}
        text = json.dumps({"__metadata__": notes}).encode()
        assert "SHA-256 differs" in refused(path, len(text).to_bytes(8, "little") + text)


def test_a_forged_tensor_keeps_its_own_message(path: Path) -> None:
    """Oracle: what safetensors says of a tensor whose bytes and shape do not agree."""
    notes = {"minimp.checkpoint": str(LAYOUT), "minimp.state": '{"tree":{},"tuples":[],"codes":{}}'}
    forge(path, {"__metadata__": notes, "a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 3]}}, b"123")
    with pytest.raises(CheckpointError, match="it is damaged: "):
        load(path)


def test_a_newer_layout_is_named(path: Path) -> None:
    """Oracle: this file with the next layout's number, its checksum made right."""
    forge(path, {"__metadata__": {"minimp.checkpoint": str(LAYOUT + 1), "minimp.state": "?"}})
    with pytest.raises(CheckpointError, match=f"layout {LAYOUT + 1}.*up to {LAYOUT}\n  help: update minimp"):
        load(path)


def test_a_tensor_of_an_unknown_type(path: Path) -> None:
    """Oracle: safetensors' packed four-bit type, which NumPy cannot hold."""
    header = b'{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    with pytest.raises(CheckpointError, match=r"tensor 'a' is of type F4|it is damaged"):  # by its version
        load(path)
