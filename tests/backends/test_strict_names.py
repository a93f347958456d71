"""The strict backend beside the real CuPy: its list of names, and CuPy's own functions on its arrays."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from minimp.backend import get_backend
from minimp_backends.strict.naming import FILE, MANY, METHODS, names_of, survey

cupy = pytest.importorskip("cupy")

LIKE_NUMPYS = frozenset(
    {"add", "subtract", "multiply", "divide", "true_divide", "power", "negative", "absolute", "exp", "expm1",
     "log", "log1p", "log2", "sqrt", "square", "tanh", "sin", "cos", "maximum", "minimum", "floor", "rint",
     "sign", "copysign", "isfinite", "isnan", "isinf", "less", "greater", "equal", "not_equal", "less_equal",
     "greater_equal", "floor_divide", "remainder", "fmax", "ldexp", "signbit", "cosh", "sinh", "arctan"}
)  # fmt: skip
"""Elementwise functions that the engine calls."""


def test_the_list_of_names_is_that_of_the_installed_cupy() -> None:
    """Oracle: the installed CuPy itself: names, kinds, and arguments (`python -m ...strict.naming`)."""
    assert json.loads(FILE.read_text(encoding="utf-8")) == survey()


def test_the_list_says_what_is_known_of_cupy() -> None:
    """Oracle: CuPy's manual: `max` has no `initial`, `where` three arguments, `errstate` does not exist."""
    names = names_of("cupy")
    assert "errstate" not in names
    assert "vecdot" not in names
    assert names["max"].keywords == {"a", "axis", "out", "keepdims"}
    assert names["where"].positional == 3
    assert names["add"] == ("ufunc", 3, {"casting", "dtype", "out"})
    assert names["float32"].kind == "type"
    assert names["linalg"].kind == "module"
    methods = names_of(METHODS)
    assert methods["astype"].keywords == {"casting", "copy", "dtype", "order", "subok"}
    assert methods["reshape"].positional == MANY
    assert "setflags" not in methods
    assert methods["dtype"].kind == "attribute"


@pytest.mark.parametrize("name", sorted(LIKE_NUMPYS))
def test_the_real_functions_take_arrays_of_the_strict_device(name: str) -> None:
    """Oracle: NumPy's function of that name; CuPy asks its arguments before it looks for a device."""
    backend: Any = get_backend("strict")
    count = getattr(np, name).nin
    values = [np.array([1.5, -2.0, 0.25], np.float32), np.array([2.0, 3.0, 2.0], np.float32)][:count]
    values = [values[0], np.array([1, 2, 3], np.int32)] if name == "ldexp" else values
    with np.errstate(all="ignore"):
        wanted = getattr(np, name)(*values)
    found = getattr(cupy, name)(*map(backend.from_host, values))
    assert isinstance(found, backend.xp.ndarray)
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found.get(), wanted)
    if count == 2 and name != "ldexp":
        beside = getattr(cupy, name)(backend.from_host(values[0]), 2.0)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(beside.get(), getattr(np, name)(values[0], 2.0))


def test_every_function_of_the_strict_device_is_one_of_cupys() -> None:
    """Oracle: the real module: whatever `xp` hands out is there, and called as it is."""
    xp = get_backend("strict").xp
    for name, callee in names_of("cupy").items():
        if callee.kind not in ("function", "ufunc"):
            continue
        assert callable(getattr(cupy, name)), name
        try:
            assert callable(getattr(xp, name)), name
        except AttributeError as fault:
            assert "no stand-in" in str(fault)  # noqa: PT017 - what it may say where it has none
