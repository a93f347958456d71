"""Checkpoints; oracles: the state that was saved, safetensors' own reader, and every single flipped bit."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from minimp.checkpoint import load, read_meta, save
from minimp.errors import CheckpointError, MinimpError, SettingError
from minimp.files.sealed import LAYOUT, OURS
from minimp.tensors import tensor

NAMES = """
    bool int8 uint8 int16 uint16 int32 uint32 int64 uint64 float16 float32 float64 bfloat16
    float8_e3m4 float8_e4m3 float8_e4m3b11fnuz float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz
    float8_e8m0fnu float6_e2m3fn float6_e3m2fn float4_e2m1fn int2 int4 uint2 uint4
"""
DTYPES = [np.dtype(getattr(ml_dtypes, name, name)) for name in NAMES.split()]
BY_NAME = {each.name: each for each in DTYPES}
# Dtypes of less than a byte: the values that the byte may have.
FEWER = {"bool": 2, "float6_e2m3fn": 64, "float6_e3m2fn": 64, "float4_e2m1fn": 16} | {
    f"{kind}{bits}": 1 << bits for kind in ("int", "uint") for bits in (2, 4)
}


def as_dtype(raw: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return bytes (uint8) as values of a dtype, brought into its range where it has fewer than 256."""
    return (raw % np.uint16(FEWER.get(dtype.name, 256))).astype(np.uint8).view(dtype)


def every_value(dtype: np.dtype[Any], count: int = 256) -> np.ndarray[Any, Any]:
    """Return an array whose bytes run through all values; NaN with payloads, -0 and subnormals among them."""
    return as_dtype((np.arange(count * dtype.itemsize) * 151).astype(np.uint8), dtype)


def small_state() -> dict[str, Any]:
    """Return a state that has one of everything."""
    return {
        "model": {
            "0.weight": np.array([[1.0, -0.0], [math.nan, 65504.0]], np.float16),
            "0.bias": tensor([1.5]),
        },
        "low": every_value(BY_NAME["bfloat16"], 3),
        "tiny": every_value(BY_NAME["float4_e2m1fn"], 5),
        "none": np.zeros((0, 3), np.int32),
        "scalar": np.array(7, np.int64),
        "list": [1, -2.5, None, True, "text", [np.array([True, False])], {}],
        "betas": (0.9, (0.999, np.float32(3))),
        "inf": -math.inf,
        "big": 2**100,
    }


def same(a: Any, b: Any) -> bool:
    """Tell whether two states are alike: types, dtypes, shapes, bits, and the order of keys."""
    if isinstance(a, np.ndarray | np.generic) or hasattr(a, "numpy"):
        a = np.asarray(a.numpy() if hasattr(a, "numpy") else a)
        alike = isinstance(b, np.ndarray) and (a.dtype, a.shape) == (b.dtype, b.shape)
        return alike and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (repr(a) == repr(b))  # repr: NaN is alike, and -0.0 is not 0.0


def strings_of(path: Path) -> dict[str, str]:
    """Return the metadata of a file, read by safetensors."""
    with safetensors.safe_open(path, "np") as file:
        found: dict[str, str] = file.metadata()
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a file that is not there yet."""
    return tmp_path / "run.safetensors"


# ---- there and back ----------------------------------------------------------------------------------------


def test_a_state_comes_back(path: Path) -> None:
    """Oracle: the state itself: types, dtypes, shapes, bits and the order of keys."""
    save(path, small_state())
    assert same(small_state(), load(path))
    assert same(small_state(), load(str(path), require_checksum=True))
    assert not same(small_state(), {**load(path), "big": 2**100 + 1})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back(path: Path, dtype: np.dtype[Any]) -> None:
    """Oracle: all values of one-byte dtypes, 256 of the others, bit for bit; strided, Fortran and 0-d too."""
    whole = every_value(dtype)
    state = {
        "whole": whole,
        "strided": whole[::3],
        "reversed": whole[::-1],
        "fortran": whole.reshape(16, 16).T,
        "cube": whole.reshape(4, 1, 64),
        "scalar": whole[7].reshape(()),
        "none": whole[:0].reshape(2, 0, 5),
    }
    save(path, state)
    found = load(path)
    assert same(state, found)
    assert all(each.flags.writeable and each.flags.c_contiguous for each in found.values())
    found["whole"][0] = found["whole"][1]
    assert same(state, load(path))


def test_the_other_byte_order_comes_back_in_this_one(path: Path) -> None:
    """Oracle: the numbers, and NumPy's native dtype."""
    save(path, {"a": np.arange(5, dtype=">i4"), "b": np.arange(5, dtype=">f2")})
    found = load(path)
    assert [each.dtype for each in found.values()] == [np.dtype("i4"), np.dtype("f2")]
    assert all(np.array_equal(each, range(5)) for each in found.values())


def test_tensors_of_every_format(path: Path) -> None:
    """Oracle: the tensors' own arrays, with and without a gradient."""
    state = {name: tensor([0.5, 1.0], dtype=name, requires_grad=name == "float32")
             for name in ("float16", "bfloat16", "float32", "float64")}  # fmt: skip
    save(path, state)
    for name, found in load(path).items():
        assert same(state[name].detach().numpy(), found)


texts = st.text(st.characters(), max_size=6)  # lone surrogates too
keys = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1, max_size=6)
numbers = st.integers() | st.floats() | st.booleans() | st.none()


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Draw an array of any dtype: up to three axes, any bits."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3).map(tuple))
    raw = draw(st.binary(min_size=(size := math.prod(shape) * dtype.itemsize), max_size=size))
    return as_dtype(np.frombuffer(raw, np.uint8), dtype).reshape(shape)


leaves = arrays() | numbers | texts
nested = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=10,
)
states = st.dictionaries(keys.filter(lambda key: key != "__metadata__"), nested, max_size=4)


@given(states, st.dictionaries(keys, keys, max_size=2))
def test_any_state_comes_back(tmp_path_factory: pytest.TempPathFactory, state: Any, meta: Any) -> None:
    """Oracle: the state itself, over nested states of all dtypes; safetensors reads the file; twice alike."""
    folder = tmp_path_factory.mktemp("any")
    save(folder / "a", state, meta=meta)
    save(folder / "b", state, meta=meta)
    assert same(state, load(folder / "a"))
    assert read_meta(folder / "a") == meta
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()
    safetensors.deserialize((folder / "a").read_bytes())


def test_arrays_can_be_written_to_whatever_safetensors_gives(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: a reader that returns bytes in the place of a bytearray."""

    def read_only(data: bytes) -> list[tuple[str, dict[str, Any]]]:
        return [(name, {**each, "data": bytes(each["data"])}) for name, each in safetensors.deserialize(data)]

    save(path, {"a": np.arange(3)})
    monkeypatch.setattr("minimp.files.sealed.deserialize", read_only)
    found = load(path)["a"]
    found += 1
    assert found.tolist() == [1, 2, 3]


def test_meta(path: Path) -> None:
    """Oracle: the strings; they lie beside minimp's in the metadata that safetensors reads."""
    meta = {"recipe": "mixed-fp16", "note": 'Größe "π"\n'}
    save(path, {"step": 3}, meta=meta)
    assert read_meta(path) == meta
    found = strings_of(path)
    assert {key: text for key, text in found.items() if not key.startswith(OURS)} == meta


def test_dicts_of_other_classes_come_back_as_dicts(path: Path) -> None:
    """Oracle: an OrderedDict, which torch's state_dict is."""
    save(path, OrderedDict(a=OrderedDict(b=1)))
    assert load(path) == {"a": {"b": 1}}


# ---- the file is one of safetensors ------------------------------------------------------------------------


def test_safetensors_reads_the_arrays(path: Path) -> None:
    """Oracle: safetensors.numpy.load_file gives the arrays by their paths."""
    state = {"model": {"w": np.arange(6.0).reshape(2, 3), "list": [np.arange(3, dtype=np.int16)]}, "step": 1}
    save(path, state)
    found = safetensors.numpy.load_file(path)
    assert sorted(found) == ["model/list/0", "model/w"]
    assert same(found["model/w"], state["model"]["w"])
    assert same(found["model/list/0"], state["model"]["list"][0])


def test_the_bytes_are_those_of_safetensors(path: Path) -> None:
    """Oracle: safetensors' own writer, given the same arrays and metadata, up to their order."""
    state = {"b": np.arange(3, dtype=np.int8), "a": np.arange(2.0), "c": every_value(BY_NAME["bfloat16"], 3)}
    save(path, state)
    ours = path.read_bytes()
    theirs = safetensors.numpy.save(state, metadata=strings_of(path))
    start = 8 + int.from_bytes(ours[:8], "little")
    assert len(ours) == len(theirs)
    assert ours[start:] == theirs[start:]
    assert json.loads(ours[8:start]) == json.loads(theirs[8:start])


def test_the_checksum_is_the_one_that_is_described(path: Path) -> None:
    """Oracle: hashlib over the file with zeros in the place of the digits."""
    save(path, small_state())
    digest = strings_of(path)["minimp.sha256"].encode()
    data = path.read_bytes()
    assert data.count(digest) == 1
    assert hashlib.sha256(data.replace(digest, b"0" * 64)).hexdigest().encode() == digest


def test_a_state_cannot_imitate_the_checksum(path: Path) -> None:
    """Oracle: strings, names and bytes that look like the checksum's entry come back like any other."""
    fake = f'"minimp.sha256":"{"0" * 64}"'
    state = {fake: np.frombuffer(fake.encode(), np.uint8), "text": fake, "minimp.sha256": {"a": np.ones(1)}}
    save(path, state, meta={"fake": fake, fake: fake})
    assert same(state, load(path))


def test_files_of_others(path: Path) -> None:
    """Oracle: a file by safetensors itself, bfloat16 and float8 too; it has no checksum."""
    state = {
        "a/b": every_value(BY_NAME["bfloat16"]),
        "c": np.ones(3),
        "d": every_value(BY_NAME["float8_e4m3fn"]),
    }
    safetensors.numpy.save_file(state, path, metadata={"by": "another"})
    assert same(dict(sorted(state.items())), dict(sorted(load(path).items())))
    assert read_meta(path) == {"by": "another"}
    with pytest.raises(CheckpointError, match="another program wrote it, without a checksum"):
        load(path, require_checksum=True)
    safetensors.numpy.save_file({}, path)
    assert load(path) == {}


# ---- damage ------------------------------------------------------------------------------------------------


def refused(path: Path, data: bytes) -> str:
    """Put `data` into the file and return the message with which it is refused."""
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


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


def forge(path: Path, header: dict[str, Any], tensors: bytes = b"") -> None:
    """Write a file with any header, and a checksum that is right."""
    header.setdefault("__metadata__", {})["minimp.sha256"] = "0" * 64
    text = json.dumps(header, separators=(",", ":")).encode()
    data = len(text).to_bytes(8, "little") + text + tensors
    path.write_bytes(data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1))


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


# ---- what cannot be saved ----------------------------------------------------------------------------------

itself: dict[str, Any] = {}
itself["again"] = itself


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a": {"b/c": 1}}, "state['a'] has the key 'b/c'"),
        ({"": 1}, "state has the key ''"),
        ({"a": [{0: 1}]}, "state['a']['0'] has the key 0"),
        ({"__metadata__": np.ones(1)}, "state has the key '__metadata__'"),
        ({"half \ud800": 1}, "state has the key 'half \\ud800'"),
        ({"a": object()}, "state['a'] is a object"),
        ({"a": {1, 2}}, "state['a'] is a set"),
        ({"a": b"bytes"}, "state['a'] is a bytes"),
        ({"a": 1j}, "state['a'] is a complex"),
        ({"a": 10**5000}, "state['a'] is an integer of thousands of digits"),
        ({"a": np.array([object()])}, "state['a'] is a array of object"),
        ({"a": np.ones(2, complex)}, "state['a'] is a array of complex128"),
        ({"a": np.array(["text"])}, "state['a'] is a array of str"),
        ({"a": np.array(["2020-01-01"], "M8[D]")}, "state['a'] is a array of datetime64[D]"),
        ({"a": np.zeros(2, "V1")}, "state['a'] is a array of void8"),
        ({"a": np.zeros(2, [("x", "f4")])}, "state['a'] is a array of void32"),
        ({"a": np.ones(2, np.longdouble)}, "state['a'] is a array of longdouble"),
        ({"a": np.ma.masked_array([1.0], [True])}, "state['a'] is a masked array"),
        (itself, "state" + "['again']" * 8 + "... lies under 64 others"),
        ([1, 2], "the state is a list"),
        (np.ones(2), "the state is a ndarray"),
    ],
)
def test_what_cannot_be_saved_is_named(path: Path, state: Any, said: str) -> None:
    """Oracle: the place in the state, and what lies there; the old file stays."""
    path.write_bytes(b"old")
    with pytest.raises(SettingError) as caught:
        save(path, state)
    said = said.replace("longdouble", np.dtype(np.longdouble).name).replace("array of str", "array of str128")
    assert str(caught.value).startswith(f"save {path}: {said}")
    assert "\n  help: " in str(caught.value)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("meta", [{"minimp.x": "1"}, {"a": 1}, {1: "a"}, {"a": "\ud800"}, {"\udfff": "a"}])
def test_meta_that_cannot_be_saved(path: Path, meta: Any) -> None:
    """Oracle: keys that are minimp's, and what is no text; nothing is written."""
    with pytest.raises(SettingError, match="meta has "):
        save(path, {}, meta=meta)
    assert not path.exists()


def test_a_header_that_safetensors_would_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the limit, brought down to a hundred bytes."""
    monkeypatch.setattr("minimp.files.sealed.LONGEST_HEADER", 100)
    with pytest.raises(SettingError, match="put long lists of numbers into arrays"):
        save(path, {"losses": [0.5] * 50})
    assert not path.exists()


# ---- the disk ----------------------------------------------------------------------------------------------


def test_missing_files_and_folders(path: Path) -> None:
    """Oracle: the errors of minimp.files, as CheckpointError."""
    with pytest.raises(CheckpointError, match="there is no such file"):
        load(path)
    with pytest.raises(CheckpointError, match="it is a folder"):
        load(path.parent)
    with pytest.raises(CheckpointError, match="its folder does not exist"):
        save(path / "x", {})


def test_a_full_disk_leaves_the_old_checkpoint(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: ENOSPC at the second piece; the old file loads, and lies alone in its folder."""
    save(path, {"step": 1})
    real, calls = os.write, []

    def write(handle: int, data: Any) -> int:
        calls.append(handle)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(CheckpointError, match="the disk is full"):
        save(path, {"step": 2, "w": np.ones(3)})
    monkeypatch.undo()
    assert load(path) == {"step": 1}
    assert [each.name for each in path.parent.iterdir()] == [path.name]


KILLED = """
import os, signal, sys
sys.path[:0] = sys.argv[3:]
import numpy as np
from minimp.checkpoint import save
setattr(os, sys.argv[2], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
save(sys.argv[1], {"step": 2, "w": np.ones(1000)})
"""


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_crash_leaves_the_old_checkpoint(path: Path, step: str) -> None:
    """Oracle: SIGKILL in the place of one step of the writing: the old file loads, and can be replaced."""
    save(path, {"step": 1})
    command = [sys.executable, "-c", KILLED, str(path), step, *sys.path]
    assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
    assert load(path) == {"step": 1}
    save(path, {"step": 3})
    assert load(path) == {"step": 3}


def test_readers_find_the_old_state_or_the_new_one(path: Path) -> None:
    """Oracle: readers while a writer saves again and again: each load is one whole state, none older."""
    save(path, {"step": 0, "w": np.zeros(20_000)})
    stop, faults = threading.Event(), []

    def read() -> None:
        last = 0
        while not stop.is_set():
            try:
                found = load(path, require_checksum=True)
            except MinimpError as fault:
                faults.append(str(fault))
                return
            if not (found["w"] == found["step"]).all() or found["step"] < last:
                faults.append(f"step {found['step']} after {last}")
            last = found["step"]

    readers = [threading.Thread(target=read) for _ in range(3)]
    for each in readers:
        each.start()
    for step in range(1, 30):
        save(path, {"step": step, "w": np.full(20_000, float(step))})
    stop.set()
    for each in readers:
        each.join()
    assert faults == []
