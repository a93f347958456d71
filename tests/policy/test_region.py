"""The autocast region: what it covers, how regions nest, and the weight-cast cache."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.door import OPS, op
from minimp.errors import FormatError, SettingError
from minimp.modes import listen
from minimp.policy import CastClass, Policy
from minimp.tape import Event

A = mp.tensor([[1.0, 2.0], [3.0, 4.0]])


def product_format() -> str:
    """Return the format in which a product of two float32 matrices comes out here."""
    return str((A @ A).format)


def weight_gradient(**options: Any) -> float:
    """Return the gradient of a weight used twice in one region, with 256 and 1 coming back."""
    w = mp.tensor([[1.0]], requires_grad=True)
    with mp.autocast("bfloat16", **options):
        y = mp.tensor([[256.0]]) @ w + mp.tensor([[1.0]]) @ w
    y.sum().backward()
    assert w.grad is not None
    assert w.grad.format is mp.float32
    return float(w.grad.item())


def casts_of(program: Any) -> int:
    """Return how many casts a program makes on its way forward."""
    events: list[Event] = []
    with listen(events.append):
        program()
    return sum(event.node.op.name == "cast" for event in events if event.phase == "forward")


def test_a_region_begins_and_ends() -> None:
    """Oracle: the contract; outside, everything is as before, and what was computed stays low."""
    assert (product_format(), mp.is_autocast_enabled(), mp.get_autocast_dtype()) == (
        "float32", False, mp.float16,
    )  # fmt: skip
    with mp.autocast("bfloat16"):
        assert (product_format(), mp.is_autocast_enabled(), mp.get_autocast_dtype()) == (
            "bfloat16", True, mp.bfloat16,
        )  # fmt: skip
        inside = A @ A
    assert product_format() == "float32"
    assert inside.format is mp.bfloat16


def test_regions_nest() -> None:
    """Oracle: the innermost region's settings count, and each end restores those outside it."""
    seen = []
    with mp.autocast("float16"):
        seen.append(product_format())
        with mp.autocast("bfloat16"):
            seen.append(product_format())
            with mp.autocast(enabled=False):
                seen.append(product_format())
                assert not mp.is_autocast_enabled()
                with mp.autocast("float16"):
                    seen.append(product_format())
            seen.append(product_format())
        seen.append(product_format())
    assert seen == ["float16", "bfloat16", "float32", "float16", "bfloat16", "float16"]


def test_a_disabled_region_computes_in_the_inputs_formats() -> None:
    """Oracle: PyTorch: low tensors made outside stay low, and products of two formats are refused."""
    with mp.autocast("float16"):
        low = A @ A
        with mp.autocast(enabled=False):
            assert (low @ low).format is mp.float16
            with pytest.raises(FormatError, match="expected inputs of one format, got float16 and float32"):
                low @ A


def test_it_decorates_functions_also_recursive_ones() -> None:
    """Oracle: each call is a region of its own, and leaves nothing behind."""

    @mp.autocast("bfloat16")
    def formats(depth: int) -> list[str]:
        """Say hello."""
        return [product_format(), *(formats(depth - 1) if depth else [])]

    assert formats(3) == ["bfloat16"] * 4
    assert formats.__doc__ == "Say hello."
    assert product_format() == "float32"


def test_a_region_object_can_be_entered_again_and_inside_itself() -> None:
    """Oracle: the contract of a reusable context manager."""
    region = mp.autocast("bfloat16")
    with region, region:
        assert product_format() == "bfloat16"
    with region:
        assert product_format() == "bfloat16"
    assert product_format() == "float32"


def test_an_exception_ends_the_region() -> None:
    """Oracle: the state before it."""

    @mp.autocast("float16")
    def fail() -> None:
        raise KeyError("on purpose")

    with pytest.raises(KeyError), mp.autocast("float16"), mp.autocast("bfloat16"):
        raise KeyError("on purpose")
    assert product_format() == "float32"
    with pytest.raises(KeyError):
        fail()
    assert product_format() == "float32"


def test_threads_have_regions_of_their_own() -> None:
    """Oracle: PyTorch: a new thread starts outside; two threads in two formats do not meet."""
    barrier = threading.Barrier(2, timeout=60)

    def run(low: str) -> list[str]:
        seen = [product_format()]
        with mp.autocast(low):
            for _ in range(20):
                barrier.wait()
                seen.append(product_format())
        return [*seen, product_format()]

    with mp.autocast("float16"), ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, ["float16", "bfloat16"]))
        assert product_format() == "float16"
    assert results == [["float32", *[low] * 20, "float32"] for low in ("float16", "bfloat16")]


def test_threads_can_run_one_decorated_function_at_once() -> None:
    """Oracle: each call restores what its own thread had; the first to enter leaves first."""
    barrier = threading.Barrier(2, timeout=60)
    first_left = threading.Event()

    @mp.autocast("bfloat16")
    def body(number: int) -> str:
        barrier.wait()
        if number:
            first_left.wait(timeout=60)
        return product_format()

    def run(number: int) -> tuple[str, str]:
        inside = body(number)
        first_left.set()
        return inside, product_format()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(2))) == [("bfloat16", "float32")] * 2


def test_tasks_have_regions_of_their_own() -> None:
    """Oracle: contextvars: two tasks that take turns keep their formats."""

    async def run(low: str) -> list[str]:
        seen = []
        with mp.autocast(low):
            for _ in range(5):
                await asyncio.sleep(0)
                seen.append(product_format())
        return [*seen, product_format()]

    async def both() -> list[list[str]]:
        return await asyncio.gather(run("float16"), run("bfloat16"))

    assert asyncio.run(both()) == [[low] * 5 + ["float32"] for low in ("float16", "bfloat16")]


def test_backward_runs_in_the_forwards_formats_whatever_region_it_is_in() -> None:
    """Oracle: the contract: no gradient op meets autocast (in PyTorch it does: backward-obeys-region)."""
    w = mp.tensor(np.eye(2), dtype="float32", requires_grad=True)
    events: list[Event] = []
    with mp.autocast("float16"):
        y = (A @ w).sum()
    with mp.autocast("bfloat16"), listen(events.append):
        y.backward()
    assert w.grad is not None
    assert w.grad.format is mp.float32
    incoming = [(event.node.op.name, event.inputs[0].dtype.name) for event in events]
    assert incoming == [
        ("sum", "float32"), ("cast", "float32"), ("matmul", "float16"), ("cast", "float16"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 256.0), ({"cache_enabled": False}, 257.0)],
)
def test_a_cached_cast_adds_up_gradients_in_the_low_format(options: dict[str, Any], expected: float) -> None:
    """Oracle: bfloat16 has 8 bits of significand: 256 + 1 rounds to 256; float32 holds 257."""
    assert weight_gradient(**options) == expected


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: mp.tensor([[1.0]], requires_grad=True), 1),
        (lambda: mp.tensor([[1.0]]), 3),
        (lambda: mp.tensor([[1.0]], requires_grad=True) * 1.0, 3),
        (lambda: mp.tensor([[1.0]], dtype="bfloat16", requires_grad=True), 0),
    ],
    ids=["weight", "no-gradient", "activation", "low-already"],
)
def test_what_is_cached(make: Any, expected: int) -> None:
    """Oracle: PyTorch 2.13.0: a float32 leaf that requires a gradient is cast once, others at every use."""
    w, one = make(), mp.tensor([[1.0]], dtype="bfloat16")

    def use_three_times() -> None:
        with mp.autocast("bfloat16"):
            for _ in range(3):
                one @ w

    assert casts_of(use_three_times) == expected


def test_the_cache_ends_with_the_outermost_region() -> None:
    """Oracle: PyTorch clears it when the nesting depth is 0 again; a disabled region counts as one."""
    w = mp.tensor(np.eye(2), dtype="float32", requires_grad=True)

    def use_twice() -> None:
        for _ in range(2):
            with mp.autocast("bfloat16"):
                w @ w

    def inside(**options: Any) -> None:
        with mp.autocast(**options):
            use_twice()

    assert casts_of(use_twice) == 2
    assert casts_of(lambda: inside(dtype="bfloat16")) == 1
    assert casts_of(lambda: inside(enabled=False)) == 1


def test_a_nested_region_in_the_other_format_gets_its_own_cast() -> None:
    """Oracle: the contract; PyTorch 2.13.0 hands out the outer region's cast here, and fails."""
    w = mp.tensor([[1.0]], requires_grad=True)
    with mp.autocast("float16"):
        half = w @ w
        with mp.autocast("bfloat16"):
            brain = w @ w
        again = w @ w
    assert [x.format for x in (half, brain, again)] == [mp.float16, mp.bfloat16, mp.float16]


def test_a_replaced_weight_is_cast_anew() -> None:
    """Oracle: the new values; PyTorch 2.13.0 hands out the stale cast after an in-place change."""
    w = mp.tensor([[1.0]], requires_grad=True)
    with mp.autocast("float16"):
        before = (mp.tensor([[1.0]]) @ w).item()
        w.array = w.array * 3
        after = (mp.tensor([[1.0]]) @ w).item()
    assert (before, after) == (1.0, 3.0)


def test_a_cast_made_without_recording_keeps_its_gradient_for_later() -> None:
    """Oracle: PyTorch 2.13.0; before that the gradient was lost (pytorch#165068)."""
    w = mp.tensor([[2.0]], requires_grad=True)
    with mp.autocast("float16"):
        with mp.no_grad():
            silent = w @ w
        loud = mp.tensor([[3.0]]) @ w
    assert not silent.requires_grad
    loud.sum().backward()
    assert w.grad is not None
    assert w.grad.item() == 3.0


def test_an_edited_policy_acts() -> None:
    """Oracle: the formats that the edit asks for."""
    mine = mp.policies["torch-cuda"].with_(softmax="lower", matmul="keep", relu="banned", tanh="fp32")
    low = A.half()
    with mp.autocast("float16", policy=mine):
        assert A.softmax(-1).format is mp.float16
        assert (A @ A).format is mp.float32
        assert low.tanh().format is mp.float32
        with pytest.raises(FormatError, match=r"relu: unsafe inside autocast\n  help: .*policy.with_"):
            A.relu()
        with mp.autocast("float16"):
            assert A.softmax(-1).format is mp.float32


def test_an_op_of_ones_own_is_cast_as_it_declares() -> None:
    """Oracle: the declaration."""

    @op(cast=CastClass.LOWER)
    def house_product(ctx, a, b):  # type: ignore[no-untyped-def]  # as an op is written
        """Return a * b."""
        return ctx.round(ctx.wide(a) * ctx.wide(b))

    OPS.pop("house_product")
    for name in mp.policies:
        with mp.autocast("bfloat16", policy=name):
            assert house_product(A, A).format is mp.bfloat16


@pytest.mark.parametrize("spelling", ["float16", "fp16", np.float16, mp.float16])
def test_the_format_may_be_spelled_in_any_way(spelling: Any) -> None:
    """Oracle: mp.formats.get."""
    with mp.autocast(spelling):
        assert product_format() == "float16"


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dtype": "float32"}, FormatError, "autocast computes in float16 or bfloat16, not in float32"),
        ({"dtype": "float8_e4m3fn"}, FormatError, "not in float8_e4m3fn"),
        ({"dtype": "cpu"}, FormatError, "got the device 'cpu'\n.*policy='torch-cpu'"),
        ({"policy": "torch-cdua"}, SettingError, "unknown policy 'torch-cdua'; did you mean 'torch-cuda'"),
        ({"policy": {"matmul": "lower"}}, SettingError, "policy: expected a name or a Policy, got dict"),
    ],
)
def test_settings_that_cannot_act_are_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Oracle: the contract of autocast; nothing is switched off silently."""
    with pytest.raises(error, match=message):
        mp.autocast(**options)
    assert product_format() == "float32"


def test_float64_and_integers_are_left_alone() -> None:
    """Oracle: PyTorch's eligibility: floating, and not float64."""
    wide, whole = A.double(), mp.tensor([[1, 2], [3, 4]])
    with mp.autocast("float16", policy=Policy("all low", dict.fromkeys(OPS, CastClass.LOWER))):
        assert (wide @ wide).format is mp.float64
        assert (whole + whole).dtype == np.int64
