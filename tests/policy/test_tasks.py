"""Regions beside one another: threads, async tasks, copied contexts and generators."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp.errors import SettingError
from minimp.modes import MODES

ONE = mp.tensor([[1.0]])
LOWS = ("float16", "bfloat16")


def product() -> str:
    """Return the format in which a product of two float32 matrices comes out here."""
    return str((ONE @ ONE).format)


def in_new_thread(look: Callable[[], Any]) -> Any:
    """Return what a function returns in a new thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(look).result(timeout=60)


def test_a_thread_starts_outside_and_a_copied_context_inside() -> None:
    """Oracle: contextvars: a thread has an empty context, copy_context().run the one that was copied."""
    with mp.autocast("bfloat16"):
        inside = contextvars.copy_context()
        assert in_new_thread(product) == "float32"
        assert in_new_thread(lambda: inside.run(product)) == "bfloat16"
    assert inside.run(product) == "bfloat16"
    assert product() == "float32"


def test_a_region_opened_in_a_copied_context_stays_there() -> None:
    """Oracle: contextvars: what `run` sets is seen by later runs of that copy, and by nobody else."""
    copied = contextvars.copy_context()
    region = mp.autocast("float16")
    copied.run(region.__enter__)
    assert (product(), copied.run(product), contextvars.copy_context().run(product)) == (
        "float32", "float16", "float32",
    )  # fmt: skip
    copied.run(region.__exit__, None, None, None)
    assert copied.run(product) == "float32"


@given(
    plans=st.lists(
        st.lists(st.tuples(st.sampled_from(LOWS), st.booleans()), min_size=1, max_size=4),
        min_size=2,
        max_size=4,
    )
)
def test_tasks_that_take_turns_keep_their_regions(plans: list[list[tuple[str, bool]]]) -> None:
    """Oracle: each task alone: formats inside its nested regions, and after each of them."""

    async def run(plan: list[tuple[str, bool]]) -> list[str]:
        found = []
        if plan:
            low, enabled = plan[0]
            with mp.autocast(low, enabled):
                await asyncio.sleep(0)
                found.append(product())
                found += await run(plan[1:])
                await asyncio.sleep(0)
                found.append(product())
        return found

    def alone(plan: list[tuple[str, bool]]) -> list[str]:
        if not plan:
            return []
        low, enabled = plan[0]
        here = low if enabled else "float32"
        return [here, *alone(plan[1:]), here]

    async def together() -> list[list[str]]:
        return await asyncio.gather(*map(run, plans))

    assert asyncio.run(together()) == [alone(plan) for plan in plans]
    assert product() == "float32"


def test_a_task_starts_in_the_region_where_it_was_made_and_keeps_it() -> None:
    """Oracle: asyncio copies the context when a task is made; asyncio.to_thread does too."""

    async def later() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return product()

    async def main() -> list[str]:
        with mp.autocast("float16"):
            task = asyncio.create_task(later())
            in_thread = await asyncio.to_thread(product)
        outside = await asyncio.create_task(later())
        return [await task, in_thread, outside, product()]

    assert asyncio.run(main()) == ["float16", "float16", "float32", "float32"]


def test_a_cancelled_task_leaves_its_region() -> None:
    """Oracle: the state in the others, and in the task itself while it is cancelled."""
    seen = []

    async def victim() -> None:
        try:
            with mp.autocast("bfloat16"):
                await asyncio.sleep(30)
        finally:
            seen.append(product())

    async def main() -> None:
        task = asyncio.create_task(victim())
        await asyncio.sleep(0)
        seen.append(product())
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        seen.append(product())

    asyncio.run(main())
    assert seen == ["float32"] * 3


def test_each_tasks_casts_are_its_own() -> None:
    """Oracle: two tasks use one weight, twice each, in turns: one cast in each, 2 (256 + 1) -> 2 * 256."""
    w = mp.tensor([[1.0]], requires_grad=True)

    async def use() -> Any:
        with mp.autocast("bfloat16"):
            y = mp.tensor([[256.0]]) @ w
            await asyncio.sleep(0)
            region = MODES.get().autocast
            assert region is not None
            assert len(region.cache) == 1
            return y + ONE @ w

    async def main() -> list[Any]:
        return await asyncio.gather(use(), use())

    for y in asyncio.run(main()):
        y.sum().backward()
    assert w.grad is not None
    assert w.grad.item() == 512.0


def test_a_thread_that_leaves_its_region_leaves_the_others_casts() -> None:
    """Oracle: 256 + 1 -> 256 as without the thread; the thread casts for itself, in its format."""
    w = mp.tensor([[1.0]], requires_grad=True)

    def other() -> str:
        with mp.autocast("float16"):
            return str((ONE @ w).format)

    with mp.autocast("bfloat16"):
        y = mp.tensor([[256.0]]) @ w
        assert in_new_thread(other) == "float16"
        y = y + ONE @ w
    y.sum().backward()
    assert w.grad is not None
    assert w.grad.item() == 256.0


def test_one_object_serves_threads_and_tasks_at_once() -> None:
    """Oracle: the contract: a decorated function gives each call, in whatever thread, a region of its own."""
    barrier = threading.Barrier(4, timeout=60)

    @mp.autocast("bfloat16")
    def look(depth: int) -> list[str]:
        barrier.wait()
        return [product(), *(look(depth - 1) if depth else [])]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: [*look(2), product()], range(4)))
    assert results == [["bfloat16"] * 3 + ["float32"]] * 4


def test_a_decorated_generator_runs_inside_and_waits_outside() -> None:
    """Oracle: the formats, inside and outside, of a generator that is sent to, thrown into and closed."""
    seen = []

    @mp.autocast("bfloat16")
    def steps() -> Generator[str, str, str]:
        try:
            seen.append((yield product()))
            yield product()
        except KeyError:
            yield f"caught in {product()}"
        finally:
            seen.append(f"closed in {product()}")
        return "never"

    generator = steps()
    assert (next(generator), product()) == ("bfloat16", "float32")
    with mp.autocast("float16"):
        assert (generator.send("sent"), product()) == ("bfloat16", "float16")
    assert (generator.throw(KeyError()), product()) == ("caught in bfloat16", "float32")
    generator.close()
    assert seen == ["sent", "closed in bfloat16"]


def test_a_generator_may_still_wait_when_python_ends() -> None:
    """Oracle: Python's exit, at which nothing is said."""
    program = """
import minimp as mp

@mp.autocast("bfloat16")
def steps():
    yield 1
    yield 2

waiting = steps()
next(waiting)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stderr == ""


def test_a_generator_of_ones_own_region_leaves_it_to_its_caller_while_it_waits() -> None:
    """Oracle: Python: a generator has no context of its own; PyTorch's thread-local state does the same."""

    def steps() -> Generator[None, None, None]:
        with mp.autocast("bfloat16"):
            yield

    generator = steps()
    next(generator)
    assert product() == "bfloat16"
    generator.close()
    assert product() == "float32"


def test_async_functions_are_refused_with_the_way_out() -> None:
    """Oracle: type and words of the error: the body would run when the region is over."""

    async def body() -> None: ...

    async def steps() -> AsyncIterator[int]:
        yield 1

    for function in (body, steps):
        with pytest.raises(SettingError, match="async function\n  help: write the `with` block inside"):
            mp.autocast("float16")(function)
