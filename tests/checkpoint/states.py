"""States to save, and what tells two of them apart."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from minimp.checkpoint import load
from minimp.errors import CheckpointError
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


def environment() -> dict[str, str]:
    """Return the environment in which another Python finds what is tested, and the tests."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def strings_of(path: Path) -> dict[str, str]:
    """Return the metadata of a file, read by safetensors."""
    with safetensors.safe_open(path, "np") as file:
        found: dict[str, str] = file.metadata()
    return found


def refused(path: Path, data: bytes) -> str:
    """Put `data` into the file and return the message with which it is refused."""
    path.touch()
    with path.open("r+b", buffering=0) as file:  # not emptied first: some file systems sync such a file
        file.write(data)
        file.truncate(len(data))
    with pytest.raises(CheckpointError) as caught:
        load(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def forge(path: Path, header: dict[str, Any], tensors: bytes = b"") -> None:
    """Write a file with any header, and a checksum that is right."""
    header.setdefault("__metadata__", {})["minimp.sha256"] = "0" * 64
    text = json.dumps(header, separators=(",", ":")).encode()
    data = len(text).to_bytes(8, "little") + text + tensors
    path.write_bytes(data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1))
