"""A state comes back; oracles: the state that was saved, and safetensors' own reader and writer."""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from minimp.checkpoint import load, read_meta, save
from minimp.errors import CheckpointError
from minimp.files.sealed import OURS
from minimp.tensors import tensor
from tests.checkpoint.states import (
    BY_NAME,
    DTYPES,
    as_dtype,
    every_value,
    same,
    small_state,
    strings_of,
)


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
