"""pad and interpolate: beside torch at any size, by name, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import minimp as mp
from minimp import functional, ops
from minimp.checks import check_events
from minimp.errors import SettingError, ShapeError
from minimp.modes import listen
from minimp.tape import Event
from tests.ops.samples import numbers
from tests.ops.sums import WAYS
from tests.ops.test_convolutions import FORMATS, OWN, twice
from tests.ops.test_torch_parity import both
from tests.tolerances import assert_close

Call = Callable[..., Any]
SUMMING = [name for name in WAYS if not name.startswith("tensorcore:")]
SHAPES = {1: (2, 3, 7), 2: (2, 3, 4, 5), 3: (1, 2, 3, 4, 2)}


def _torch() -> Any:
    return pytest.importorskip("torch")


def _beside(name: str, x: Any, fmt: str, *args: Any, exact: bool = False, **options: Any) -> None:
    """Hold a function and its gradient to torch's of the same name.

    In 16 bits torch rounds the weights of trilinear to 16 bits first; its float32 result, rounded, is better.
    """
    theirs = getattr(_torch().nn.functional, name)
    rounded = options.get("mode") == "trilinear" and fmt in ("float16", "bfloat16")
    own, other = both(
        lambda a: getattr(functional, name)(a, *args, **options),
        lambda a: theirs(a.float() if rounded else a, *args, **options).to(a.dtype), [x], fmt,
    )  # fmt: skip
    if exact:
        np.testing.assert_array_equal(own[0].astype(np.float64), other[0])
    assert_close(own[0], other[0], OWN[fmt])
    assert_close(own[1], other[1], OWN[fmt].replace("_op_", "_gradient_"))


# ---- pad --------------------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_borders_are_torchs(axes: int, mode: str, fmt: str) -> None:
    """Oracle: torch's pad, bit for bit; its gradient, which adds up where an element was repeated."""
    x = numbers(np.random.default_rng(1), SHAPES[axes], fmt)
    lengths = (1, 1, 3, 2, 0, 2)[: 2 * axes]
    _beside("pad", x, fmt, lengths, mode, exact=True)
    if mode != "constant":
        _beside("pad", x[0], fmt, lengths, mode, exact=True)


@pytest.mark.torch
@settings(deadline=None, max_examples=80)
@given(
    st.sampled_from(["constant", "reflect", "replicate", "circular"]),
    st.integers(1, 2).flatmap(
        lambda n: st.tuples(
            st.tuples(*[st.integers(1, 6)] * n), st.tuples(*[st.integers(-4, 8)] * (2 * n))
        )
    ),
)  # fmt: skip
def test_any_border_is_torchs_or_refused_as_there(mode: str, sizes: Any) -> None:
    """Oracle: torch's pad in float64: crops, borders longer than the axis, and what neither can do.

    Left out: crops of a whole axis (circular reads memory of nobody in torch 2.13).
    """
    lengths, pad = sizes
    sides = [(pad[2 * i], pad[2 * i + 1]) for i in reversed(range(len(lengths)))]
    kept = [n + min(a, 0) + min(b, 0) for n, (a, b) in zip(lengths, sides, strict=True)]
    assume(min(kept) >= 1)
    if mode == "circular":  # where more is asked for than is left, torch reads on
        assume(all(max(s) <= k or max(s) > n for s, k, n in zip(sides, kept, lengths, strict=True)))
    torch, x = _torch(), np.random.default_rng(2).standard_normal((2, 1, *lengths))
    try:
        wanted = torch.nn.functional.pad(torch.from_numpy(x), pad, mode).numpy()
    except RuntimeError:
        with pytest.raises(ShapeError):
            functional.pad(mp.tensor(x), pad, mode)
        return
    np.testing.assert_array_equal(functional.pad(mp.tensor(x, dtype="float64"), pad, mode).numpy(), wanted)


def test_a_border_is_rounded_to_the_inputs_format() -> None:
    """Oracle: 0.1 in float16, infinity for 1e6; whole numbers stay whole."""
    x = mp.tensor([1.0], dtype="float16")
    assert functional.pad(x, (1, 0), value=0.1).numpy().tolist() == [np.float16(0.1), 1.0]
    assert functional.pad(x, (0, 1), value=1e6).numpy().tolist() == [1.0, np.inf]
    assert functional.pad(mp.tensor(np.array([1, 2])), (1, 0), value=7).numpy().tolist() == [7, 1, 2]


# ---- interpolate ------------------------------------------------------------------------------------------

MODES = {
    "nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "linear": (1,), "bilinear": (2,), "trilinear": (3,),
    "bicubic": (2,), "area": (1, 2),
}  # fmt: skip
EVERY = [(mode, axes) for mode, every in MODES.items() for axes in every]


@pytest.mark.torch
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize(("mode", "axes"), EVERY)
def test_other_sizes_are_torchs(mode: str, axes: int, fmt: str) -> None:
    """Oracle: torch's interpolate in the same format: sizes, factors and corners; gradients."""
    x = numbers(np.random.default_rng(3), SHAPES[axes], fmt)
    moves = mode.startswith("nearest")
    _beside("interpolate", x, fmt, (9, 3, 6)[:axes], mode=mode, exact=moves)
    for factor in (2, 1.7, 0.6):
        _beside("interpolate", x, fmt, scale_factor=factor, mode=mode, exact=moves)
    _beside("interpolate", x, fmt, scale_factor=1.7, mode=mode, recompute_scale_factor=True, exact=moves)
    if mode in ("linear", "bilinear", "trilinear", "bicubic"):
        _beside("interpolate", x, fmt, (9, 3, 6)[:axes], mode=mode, align_corners=True)
        _beside("interpolate", x, fmt, scale_factor=2.5, mode=mode, align_corners=True)
        _beside("interpolate", x, fmt, 1, mode=mode, align_corners=True)


@pytest.mark.torch
@settings(deadline=None, max_examples=120)
@example("nearest", 6, 94, "float64", False)  # 47 * (6 / 94) is a hair below 3
@example("nearest", 2, 98, "float64", False)
@given(
    st.sampled_from(["nearest", "nearest-exact", "linear", "area"]), st.integers(1, 90), st.integers(1, 130),
    st.sampled_from(["float32", "float64"]), st.booleans(),
)  # fmt: skip
def test_any_length_reads_the_places_that_torch_reads(
    mode: str, size: int, length: int, fmt: str, aligned: bool
) -> None:
    """Oracle: torch's interpolate of 0, 1, 2, ...: a place that is off by one shows as a whole number."""
    torch = _torch()
    x = np.arange(float(size)).reshape(1, 1, -1)
    options = {"align_corners": aligned} if mode == "linear" else {}
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(x).to(getattr(torch, fmt)), length, mode=mode, **options
    ).double().numpy()  # fmt: skip
    own = functional.interpolate(mp.tensor(x, dtype=fmt), length, mode=mode, **options).numpy()
    assert_close(own, wanted, "parity_op_fp32" if fmt == "float32" else "fp64_same_maths")


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_second_derivatives_of_borders_are_torchs(mode: str) -> None:
    """Oracle: torch's double backward in float64."""
    x = np.random.default_rng(4).standard_normal(SHAPES[2])
    twice(
        lambda a: functional.pad(a * a, (2, 1, 1, 3), mode),
        lambda a: _torch().nn.functional.pad(a * a, (2, 1, 1, 3), mode), [x],
    )  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize(("mode", "axes"), EVERY)
def test_second_derivatives_of_other_sizes_are_torchs(mode: str, axes: int) -> None:
    """Oracle: torch's double backward in float64."""
    x = np.random.default_rng(4).standard_normal(SHAPES[axes])
    twice(
        lambda a: functional.interpolate(a * a, (9, 3, 6)[:axes], mode=mode),
        lambda a: _torch().nn.functional.interpolate(a * a, (9, 3, 6)[:axes], mode=mode), [x],
    )  # fmt: skip


# ---- sums, formats, and what is kept ----------------------------------------------------------------------


@pytest.mark.parametrize("name", SUMMING)
def test_repeated_elements_add_up_by_name(name: str) -> None:
    """Oracle: scalar sums of the gradients that met, in the order of the result's positions."""
    random = np.random.default_rng(5)
    g = numbers(random, (5, 7), "float16")
    x = mp.tensor(np.zeros((1, 1, 2, 3)), dtype="float16", requires_grad=True)
    with mp.accumulate(name):
        y = functional.interpolate(x, (5, 7))
    y.backward(g.reshape(1, 1, 5, 7))
    for u in range(2):
        for v in range(3):
            met = [float(g[i, j]) for i in range(5) for j in range(7) if (i * 2 // 5, j * 3 // 7) == (u, v)]
            wanted = WAYS[name](met, [1.0] * len(met))
            assert x.grad.numpy()[0, 0, u, v] == np.float16(wanted)


@pytest.mark.parametrize("name", ["float64", *SUMMING])
def test_named_sums_keep_their_bounds(name: str) -> None:
    """Oracle: float64 references with the gamma of each accumulation."""
    events: list[Event] = []
    random = np.random.default_rng(6)
    x = mp.tensor(numbers(random, SHAPES[2], "float16"), dtype="float16", requires_grad=True)
    with mp.accumulate(name), listen(events.append):
        y = functional.interpolate(x, (9, 3), mode="bilinear", align_corners=True)
        z = functional.interpolate(functional.pad(x, (2, 2, 1, 1), "replicate"), (3, 8), mode="bicubic")
        (y.sum() + z.sum()).backward()
    found = check_events(events)
    assert found, str(found)


@pytest.mark.parametrize(("policy", "wanted"), [("torch-cuda", "float32"), ("torch-cpu", "bfloat16")])
def test_autocast_treats_other_sizes_as_torch_does(policy: str, wanted: str) -> None:
    """Oracle: torch's lists: upsample_* are fp32 on CUDA, unlisted on the CPU; borders not so."""
    x = mp.tensor(np.ones((1, 1, 4, 4)), dtype="bfloat16")
    with mp.autocast("bfloat16", policy=policy):
        assert functional.interpolate(x, 2, mode="bilinear").format is mp.formats.get(wanted)
        assert functional.interpolate(x, 2).format is mp.formats.get(wanted)
        mirrored = functional.pad(x, (1, 1, 1, 1), "reflect")
        assert mirrored.format is (mp.float32 if policy == "torch-cpu" else mp.bfloat16)
        assert functional.pad(x, (1, 1)).format is mp.bfloat16


def test_nothing_is_kept() -> None:
    """Oracle: linear maps: their gradient needs the plan alone."""
    x = mp.tensor(np.ones((1, 1, 4, 4)), requires_grad=True)
    for y in (functional.pad(x, (1, 2)), functional.pad(x, (1, 2, 0, 1), "reflect"),
              functional.interpolate(x, 3, mode="bicubic")):  # fmt: skip
        assert y.node.saved == ()


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["nearest", "linear", "area"])
def test_infinities_reach_what_torch_lets_them_reach(mode: str) -> None:
    """Oracle: torch: an element with weight 0 is read too, and leaves NaN; one that is not read does not."""
    x = np.array([[[1.0, np.inf, 2.0, 3.0, -np.inf, 4.0, np.nan]]])
    own = functional.interpolate(mp.tensor(x), 11, mode=mode).numpy()
    wanted = _torch().nn.functional.interpolate(_torch().from_numpy(x), 11, mode=mode).numpy()
    np.testing.assert_array_equal(own, wanted.astype(own.dtype))


X = mp.tensor(np.ones((2, 3, 4, 5)), dtype="float32")
REFUSED: dict[str, tuple[Call, type[Exception], str]] = {
    "mode": (lambda: functional.pad(X, (1, 1), "mirror"), SettingError, "unknown mode 'mirror'"),
    "value": (lambda: functional.pad(X, (1, 1), "reflect", 2.0), SettingError, "takes no value"),
    "odd": (lambda: functional.pad(X, (1, 1, 1)), ShapeError, r"expected \(before, after\)"),
    "axes": (lambda: functional.pad(X, (1, 1), "reflect"), ShapeError, "pads the last 1, 2 or 3 axes"),
    "far": (lambda: functional.pad(X, (5, 0, 0, 0), "reflect"), ShapeError, "shorter than the axis"),
    "round": (lambda: functional.pad(X, (6, 0, 0, 0), "circular"), ShapeError, "at most once around"),
    "crop": (lambda: functional.pad(X, (-3, -3)), ShapeError, "takes more away"),
    "both": (lambda: functional.interpolate(X, 2, 2.0), SettingError, "either size or scale_factor"),
    "neither": (lambda: functional.interpolate(X), SettingError, "either size or scale_factor"),
    "unknown": (lambda: functional.interpolate(X, 2, mode="cubic"), SettingError, "unknown mode 'cubic'"),
    "linear": (lambda: functional.interpolate(X, 2, mode="linear"), ShapeError, "works on 3 axes"),
    "corners": (lambda: functional.interpolate(X, 2, align_corners=True), SettingError, "align_corners"),
    "lengths": (lambda: functional.interpolate(X, (2, 2, 2)), ShapeError, "one length of at least 1"),
    "empty": (lambda: functional.interpolate(X, scale_factor=0.1), ShapeError, "one length of at least 1"),
    "recompute": (
        lambda: functional.interpolate(X, 2, recompute_scale_factor=True), SettingError, "cannot act without",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_is_refused(name: str) -> None:
    """Oracle: type and words of each error."""
    call, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words):
        call()


def test_plans_are_shown_by_their_lengths() -> None:
    """Oracle: what an error or a trace prints of an op's options."""
    events: list[Event] = []
    with listen(events.append):
        functional.interpolate(X, (8, 10), mode="bilinear")
    assert repr(events[0].node.options["plan"]) == "Plan(8 from 2 each, 10 from 2 each)"
    assert ops.OPS["upsample_bilinear2d"] is events[0].node.op
