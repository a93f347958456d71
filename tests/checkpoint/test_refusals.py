"""What cannot be saved; oracle: the place in the state, named, and the old file untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minimp.checkpoint import save
from minimp.errors import SettingError

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
