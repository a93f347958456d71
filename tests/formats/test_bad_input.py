"""What cannot be rounded, encoded or decoded: one clear error each; and what looks odd but is fine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from minimp import formats
from minimp.errors import DataError, FormatError, MinimpError, SettingError
from minimp.formats import Flags, decode, encode
from minimp.formats import round as round_to
from tests.formats.oracle import EVERY, assert_same, awkward

ROUNDERS: dict[str, Callable] = {
    "round": lambda x: round_to(x, "float16"),
    "encode": lambda x: encode(x, "float16"),
    "ulp": lambda x: formats.ulp(x, "float16"),
    "representable": lambda x: formats.representable(x, "float16"),
    "next_up": lambda x: formats.next_up(x, "float16"),
    "ulp_distance": lambda x: formats.ulp_distance(x, 1.0, "float16"),
    "arithmetic": lambda x: formats.arithmetic("sqrt", x, fmt="float16"),
}
NOT_REAL = {
    "complex128": np.array([1 + 1j]),
    "complex64": np.complex64(1),
    "object": np.array([1.0, None]),
    "<U3": "0.5",
    "S3": b"0.5",
    str(np.dtype(np.longdouble)): np.longdouble([1.5]),
    "datetime64": np.datetime64("2018-02-15"),
    "timedelta64": np.timedelta64(3, "s"),
    "object, for 2^70": 2**70,
    "object, for 10^400": -(10**400),
    "object, of fractions": [formats.float16],
}


@pytest.mark.parametrize("kind", NOT_REAL)
@pytest.mark.parametrize("op", ROUNDERS)
def test_what_is_not_real_is_refused(op: str, kind: str) -> None:
    """Oracle: the message names the dtype that came, and a way out."""
    if kind == "float64":  # a machine whose long double is no longer than that
        return
    with pytest.raises(DataError, match=kind.split(",", maxsplit=1)[0]) as caught:
        ROUNDERS[op](NOT_REAL[kind])
    assert "expected real numbers of at most 64 bits" in str(caught.value)
    assert "help: convert to float64 first" in str(caught.value)


@pytest.mark.parametrize("op", ROUNDERS)
def test_masked_arrays_are_refused(op: str) -> None:
    """Oracle: the message says that the mask would be lost, and how to do without it."""
    with pytest.raises(DataError, match="masked array, whose mask would be lost") as caught:
        ROUNDERS[op](np.ma.array([1.0, 2.0], mask=[True, False]))
    assert "filled" in str(caught.value)


@pytest.mark.parametrize("op", ROUNDERS)
def test_integers_beyond_float64_are_refused(op: str) -> None:
    """Oracle: 2^53 + 1 is the first integer that float64 lacks; the message shows it and counts."""
    for bad in (np.int64(2**53 + 1), np.int64(-(2**53) - 1), np.uint64(2**64 - 1), np.int64(2**63 - 1)):
        with pytest.raises(DataError, match=rf"1 of 2 integers, {int(bad)} the first") as caught:
            ROUNDERS[op](np.array([4, bad], bad.dtype))
        assert "53 bits" in str(caught.value)
    for fine in (2**53, 2**62, -(2**63)):
        assert formats.round(fine, "float64") == fine


UNKNOWN = {
    "format": (lambda: round_to(1.0, "floot16"), FormatError, "did you mean 'float16'"),
    "format of an encoding": (lambda: encode(1.0, "float8_e4m4"), FormatError, "did you mean 'float8_e"),
    "format of a decoding": (lambda: decode(1, "bf61"), FormatError, "did you mean 'bf16'"),
    "rounding": (
        lambda: round_to(1.0, "float16", "nearest_evn"),
        SettingError,
        "did you mean 'nearest_even'",
    ),
    "rounding by number": (lambda: round_to(1.0, "float16", 3), SettingError, "unknown rounding '3'"),
    "rounding by list": (lambda: round_to(1.0, "float16", ["up"]), SettingError, "unknown rounding"),
    "no rounding": (lambda: round_to(1.0, "float16", None), SettingError, "unknown rounding 'None'"),
    "overflow": (
        lambda: round_to(1.0, "float16", overflow="satrate"),
        SettingError,
        "did you mean 'saturate'",
    ),
    "overflow by list": (
        lambda: round_to(1.0, "float16", overflow=["ieee"]),
        SettingError,
        "unknown overflow",
    ),
    "subnormals": (lambda: round_to(1.0, "float16", subnormals="flsh"), SettingError, "did you mean 'flush'"),
    "no subnormals": (
        lambda: round_to(1.0, "float16", subnormals=None),
        SettingError,
        "unknown subnormals 'None'",
    ),
    "subnormals switched": (
        lambda: encode(1.0, "float16", subnormals=True),
        SettingError,
        "unknown subnormals",
    ),
    "flags switched": (
        lambda: encode(1.0, "float16", flags=True),
        SettingError,
        "expected flags to be a Flags",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_unknown_names_are_refused(case: str) -> None:
    """Oracle: the nearest name, or the name that came."""
    call, error, said = UNKNOWN[case]
    with pytest.raises(error, match=said):
        call()


def test_settings_are_checked_before_the_data() -> None:
    """Oracle: an empty array is refused what a full one is."""
    for x in ([], [1.0]):
        for wrong in ({"rounding": "u"}, {"overflow": "o"}, {"subnormals": "s"}, {"flags": 1}):
            with pytest.raises(SettingError):
                round_to(x, "float16", **wrong)
        with pytest.raises(SettingError, match="random source"):
            round_to(x, "float16", "stochastic")


@pytest.mark.parametrize("codes", [1.0, "1", None, 1j, [1, None], 2**70, True, np.datetime64("2018-02-15")])
def test_what_is_no_code_is_refused(codes: object) -> None:
    """Oracle: the message says what was expected and what came."""
    with pytest.raises(DataError, match=r"expected integer codes of float16, got"):
        decode(codes, "float16")


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_codes_out_of_range_are_refused(fmt: formats.Format) -> None:
    """Oracle: the first number past the last code, and -1; the message gives the width."""
    for strange in (1 << fmt.bits, -1, 1 << 40):
        with pytest.raises(DataError, match=rf"1 of 2 codes are not {fmt}'s: it has {fmt.bits} bits"):
            decode(np.array([0, strange]), fmt)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i2", "u4", "i8"])
def test_either_byte_order(kind: str, order: str) -> None:
    """Oracle: the native numbers; the result is native."""
    x = np.arange(-20 if kind[0] != "u" else 0, 200, 7)
    given = x.astype(order + kind)
    got = round_to(given, "float8_e4m3fn")
    assert_same(got, round_to(x.astype(kind), "float8_e4m3fn"))
    assert got.dtype.isnative
    codes = encode(given, "float8_e4m3fn")
    assert np.array_equal(codes, encode(x.astype(kind), "float8_e4m3fn"))
    if kind[0] != "f":
        assert_same(decode(codes.astype(order + "u2"), "float8_e4m3fn"), decode(codes, "float8_e4m3fn"))


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_empty_and_single(fmt: formats.Format) -> None:
    """Oracle: the shape, and the element of an array; strided and reversed views as their copies."""
    for shape in ((), (0,), (2, 0, 3), (1, 1)):
        flags = Flags()
        got = round_to(np.ones(shape), fmt, flags=flags)
        assert isinstance(got, np.ndarray)
        assert got.shape == encode(np.ones(shape), fmt).shape == shape
        assert flags.size == got.size
        assert decode(np.zeros(shape, int), fmt).shape == shape
    x = awkward(fmt)[:600]
    for view in (x[::-1], x[::3], x.reshape(-1, 2).T):
        assert_same(round_to(view, fmt), round_to(view.copy(), fmt))
    for each in x[:5].tolist():
        assert_same(round_to(each, fmt), round_to(np.array([each]), fmt)[0])


@pytest.mark.parametrize("fmt", EVERY, ids=repr)
def test_no_warning_and_no_floating_point_error(fmt: formats.Format) -> None:
    """Oracle: np.errstate: nothing is raised where all floating-point errors are, but for inexact results."""
    for dtype in (np.float32, np.float64):
        x = np.random.default_rng(1).choice(awkward(fmt, dtype), 500)
        x = np.append(x, [np.nan] * fmt.has_nan).astype(dtype)
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            for mode in formats.ROUNDINGS:
                codes = encode(x, fmt, mode, rng=0, flags=Flags())
                decode(codes, fmt)


@pytest.mark.parametrize("op", ["round", "round_to", "encode"])
def test_ragged_lists_are_refused(op: str) -> None:
    """Oracle: by hand: one error of ours, which says what NumPy said."""
    call = {"round": formats.round, "round_to": round_to, "encode": formats.encode}[op]
    with pytest.raises(DataError, match="rows must be of one length") as caught:
        call([[1.0, 2.0], [3.0]], "float16")
    assert "inhomogeneous" in str(caught.value)


def test_every_error_is_one_of_the_projects() -> None:
    """Oracle: the tree of errors, whose leaves are ValueErrors and TypeErrors too."""
    for call, error in (
        (lambda: round_to("1", "float16"), ValueError),
        (lambda: round_to(1, "f17"), TypeError),
    ):
        with pytest.raises(error) as caught:
            call()
        assert isinstance(caught.value, MinimpError)
