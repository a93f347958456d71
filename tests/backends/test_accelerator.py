"""The search for an accelerator, its self-test, and its casts. Oracle: the plain casts."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minimp.errors import DeviceError, FormatError, SettingError, ShapeError
from minimp_backends import accelerator, casts, plain_casts
from minimp_backends.accelerator import Accelerator
from tests.backends.cast_samples import (
    ALL_CODES,
    assert_same_values,
    bits,
    float16_boundaries,
    random_words,
)

Convert = Callable[..., object]


@pytest.fixture(autouse=True)
def _fresh_search() -> Iterator[None]:
    """Forget earlier searches, and this one afterwards."""
    cached: tuple[Any, ...] = (accelerator._finding, casts._by_default, casts.ROUTES["numkong"])
    for each in cached:
        each.cache_clear()
    yield
    for each in cached:
        each.cache_clear()


@pytest.fixture
def numkong() -> Accelerator:
    """Return the real accelerator, or skip."""
    pytest.importorskip("numkong")
    return Accelerator("numkong", "as installed", sys.modules["numkong"].astype)


# ---- stand-ins for the library -------------------------------------------------------------------------


def right(source: NDArray[Any], dtype: str, *, out: NDArray[Any]) -> None:
    """Convert as the plain casts do."""
    with np.errstate(all="ignore"):
        out[...] = source.astype(dtype)


def spoilt(spoil: Callable[[NDArray[Any], NDArray[Any]], None], target: str = "float16") -> Convert:
    """Return a conversion that is right until ``spoil(source, out)`` has had its way."""

    def convert(source: NDArray[Any], dtype: str, *, out: NDArray[Any]) -> None:
        right(source, dtype, out=out)
        if dtype == target:
            spoil(source, out)

    return convert


def _truncate(source: NDArray[Any], out: NDArray[Any]) -> None:
    too_far = np.abs(out.astype(np.float64)) > np.abs(source.astype(np.float64))
    bits(out)[...] -= too_far.astype(np.uint16)


def _ties_away(source: NDArray[Any], out: NDArray[Any]) -> None:
    words = bits(out)
    upper = (words + np.uint16(1)).view(np.float16).astype(np.float64)
    tie = np.isfinite(upper) & (2 * source.astype(np.float64) == out.astype(np.float64) + upper)
    words[...] += (tie & (np.abs(out) < np.abs(source))).astype(np.uint16)


def _set_where(choose: Callable[[NDArray[Any]], NDArray[Any]], value: float) -> Callable[..., None]:
    def spoil(source: NDArray[Any], out: NDArray[Any]) -> None:
        out[choose(source)] = value

    return spoil


def _write_too_far(source: NDArray[Any], out: NDArray[Any]) -> None:
    if out.base is not None and out.base.size == out.size + 2:
        out.base[-1] = 0


FAULTY: dict[str, Convert] = {
    "truncates": spoilt(_truncate),
    "ties away from zero": spoilt(_ties_away),
    "flushes subnormals": spoilt(_set_where(lambda x: np.abs(x) < 2.0**-14, 0.0)),
    "flushes on widening": spoilt(_set_where(lambda x: np.abs(x) < 2.0**-14, 0.0), "float32"),
    "saturates": spoilt(_set_where(lambda x: x >= 65520.0, 65504.0)),
    "overflows early": spoilt(_set_where(lambda x: x == np.float32(65519.996), np.inf)),
    "loses -0": spoilt(_set_where(lambda x: x == 0.0, 0.0)),
    "loses -0 on widening": spoilt(_set_where(lambda x: x == 0.0, 0.0), "float32"),
    "NaN to zero": spoilt(_set_where(np.isnan, 0.0)),
    "NaN to infinity": spoilt(_set_where(lambda x: x.view(np.uint32) == 0x7FFFFFFF, np.inf)),
    "loses the sign of NaN": spoilt(_set_where(np.isnan, np.nan)),
    "forgets the tail": spoilt(lambda x, out: out[x.size & ~15 :].fill(7) if x.size < 1000 else None),
    "writes too far": spoilt(_write_too_far),
    "writes too far on widening": spoilt(_write_too_far, "float32"),
    "does nothing": lambda source, dtype, *, out: None,
    "raises": lambda source, dtype, *, out: int("?"),
}


def install(monkeypatch: pytest.MonkeyPatch, convert: Convert) -> None:
    """Put a stand-in where ``import numkong`` finds it."""
    library = types.ModuleType("numkong")
    library.__version__ = "0.0-test"  # type: ignore[attr-defined]
    library.astype = convert  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "numkong", library)


@pytest.mark.parametrize("fault", FAULTY)
def test_a_wrong_library_is_refused(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library with such a fault is not used, and the status says so; asked for by name, it raises."""
    install(monkeypatch, FAULTY[fault])
    monkeypatch.setenv(accelerator.VARIABLE, "auto")
    assert accelerator.find_accelerator() is None
    status = accelerator.accelerator_status()
    assert status.startswith("none: numkong 0.0-test failed its self-test (")
    assert casts.casts().name == "blocks"
    with pytest.raises(DeviceError, match="failed its self-test"):
        accelerator.search("numkong")
    with pytest.raises(DeviceError, match="failed its self-test"):
        casts.use_casts("numkong")


def test_a_right_library_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test passes what the plain casts would do: so the refusals above come from the faults."""
    install(monkeypatch, right)
    monkeypatch.setenv(accelerator.VARIABLE, "auto")
    found = accelerator.find_accelerator()
    assert found is not None
    assert (found.name, found.version) == ("numkong", "0.0-test")
    assert accelerator.accelerator_status() == "numkong 0.0-test, self-test passed"
    assert casts.casts().name == "numkong"
    assert casts.casts().narrow_float16 == found.narrow_float16


@pytest.mark.parametrize("present", [True, False])
def test_off_never_looks(present: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With MINIMP_ACCELERATOR=off nothing is imported."""
    if present:
        install(monkeypatch, right)
    monkeypatch.setenv(accelerator.VARIABLE, "off")
    monkeypatch.setattr(accelerator, "_load_numkong", lambda: pytest.fail("looked for numkong"))
    assert accelerator.find_accelerator() is None
    assert accelerator.accelerator_status() == "none: MINIMP_ACCELERATOR=off"
    assert casts.casts().name == "blocks"


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, it is no fault under auto, and an error with a next step when asked for."""
    monkeypatch.setitem(sys.modules, "numkong", None)
    monkeypatch.setenv(accelerator.VARIABLE, "auto")
    assert accelerator.find_accelerator() is None
    assert "not installed" in accelerator.accelerator_status()
    accelerator._finding.cache_clear()
    monkeypatch.setenv(accelerator.VARIABLE, "numkong")
    for _ in range(2):  # the error is not remembered as an answer
        with pytest.raises(DeviceError, match=r"not installed(.|\n)*help: pip install"):
            accelerator.find_accelerator()
    with pytest.raises(DeviceError):
        casts.casts()


def test_unknown_or_broken_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module without astype, and one that cannot be loaded, are refused with the reason."""
    monkeypatch.setitem(sys.modules, "numkong", types.ModuleType("numkong"))
    assert "not one that minimp knows" in accelerator.search("auto").status

    def broken(name: str) -> None:
        raise ImportError("libgomp.so.1: cannot open shared object file", name=name)

    monkeypatch.setattr(importlib, "import_module", broken)
    assert "cannot be loaded (libgomp.so.1" in accelerator.search("auto").status


def test_unknown_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest setting is offered."""
    monkeypatch.setenv(accelerator.VARIABLE, "numkon")
    for ask in (accelerator.find_accelerator, accelerator.accelerator_status, casts.casts):
        with pytest.raises(SettingError, match="did you mean 'numkong'"):
            ask()


def test_nothing_is_imported_before_first_use() -> None:
    """Importing the backend's casts imports no accelerator; asking for the casts in force may."""
    code = "import sys, minimp_backends.casts; sys.exit('numkong' in sys.modules)"
    environment = {"PYTHONPATH": ":".join(sys.path), "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


# ---- the real library ----------------------------------------------------------------------------------


def check_narrow(candidate: Accelerator, wide: NDArray[Any]) -> None:
    """Hold the three ways into float16 to the plain cast."""
    expected, expected_grid = np.empty(wide.shape, np.float16), np.empty(wide.shape, np.float32)
    plain_casts.narrow_float16(wide, expected, expected_grid)
    half, grid = np.empty_like(expected), np.empty_like(expected_grid)
    candidate.narrow_float16(wide, half)
    assert_same_values(half, expected, wide)
    candidate.narrow_float16(wide, half, grid)
    assert_same_values(half, expected, wide)
    assert_same_values(grid, expected_grid, wide)
    candidate.round_to_float16_grid(wide, grid)
    assert_same_values(grid, expected_grid, wide)
    in_place = wide.copy()
    candidate.narrow_float16(in_place, half, in_place)
    assert_same_values(in_place, expected_grid, wide)


def check_widen(candidate: Accelerator, half: NDArray[Any]) -> None:
    """Hold the way out of float16 to the plain cast."""
    expected, wide = np.empty(half.shape, np.float32), np.empty(half.shape, np.float32)
    plain_casts.widen_float16(half, expected)
    candidate.widen_float16(half, wide)
    assert_same_values(wide, expected, half)


def test_numkong_boundaries_and_random_patterns(numkong: Accelerator, rng: np.random.Generator) -> None:
    """Oracle: plain cast, on every half, midpoint and neighbour, and on 2^20 random patterns."""
    check_narrow(numkong, float16_boundaries())
    check_narrow(numkong, random_words(rng, 1 << 20))
    check_narrow(numkong, random_words(rng, 1 << 20, top_exponent=127 + 15))
    check_widen(numkong, ALL_CODES.view(np.float16))


def test_numkong_passes_its_self_test(numkong: Accelerator) -> None:
    """The installed version is one that may be used."""
    assert accelerator.self_test(numkong) is None


def _unaligned(array: NDArray[Any]) -> NDArray[Any]:
    room = np.empty(array.nbytes + 1, np.uint8)
    moved = room[1:].view(array.dtype).reshape(array.shape)
    moved[...] = array
    return moved


LAYOUTS: dict[str, Callable[[NDArray[Any]], NDArray[Any]]] = {
    "transposed": lambda a: a.T,
    "every second column": lambda a: a[:, ::2],
    "reversed": lambda a: a[::-1],
    "one row broadcast": lambda a: np.broadcast_to(a[0], a.shape),
    "unaligned": _unaligned,
    "read-only": lambda a: np.broadcast_to(a, a.shape),
    "empty": lambda a: a[:0],
    "0-d": lambda a: a[0, 0, ...],
    "nine axes": lambda a: a[:1, :1].reshape((1,) * 9),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_numkong_layouts(numkong: Accelerator, layout: str, rng: np.random.Generator) -> None:
    """Oracle: plain cast of the same view; targets in C order, in the view's order and strided."""
    base = random_words(rng, 64 * 48, top_exponent=127 + 15).reshape(64, 48)
    wide = LAYOUTS[layout](base)
    check_narrow(numkong, wide)
    check_widen(numkong, LAYOUTS[layout](base.astype(np.float16)))
    expected = np.empty(wide.shape, np.float16)
    plain_casts.narrow_float16(wide, expected)
    room = np.zeros((*wide.shape, 2), np.float16)
    for half in (np.empty(wide.shape, np.float16, order="F"), room[..., 0], _unaligned(expected)):
        half[...] = 1
        numkong.narrow_float16(wide, half)
        assert_same_values(half, expected, wide)
    assert not room[..., 1].any()


def test_numkong_refuses_what_the_plain_casts_refuse(numkong: Accelerator) -> None:
    """Wrong dtypes and shapes raise the same errors, before the library sees them."""
    wide = np.zeros((2, 3), np.float32)
    with pytest.raises(FormatError, match="narrow_float16"):
        numkong.narrow_float16(wide.astype(np.float64), np.zeros((2, 3), np.float16))
    with pytest.raises(ShapeError, match="narrow_float16"):
        numkong.narrow_float16(wide, np.zeros((3, 2), np.float16))
    with pytest.raises(ShapeError, match="grid"):
        numkong.narrow_float16(wide, np.zeros((2, 3), np.float16), np.zeros(6, np.float32))
    with pytest.raises(FormatError, match="widen_float16"):
        numkong.widen_float16(wide, wide)
