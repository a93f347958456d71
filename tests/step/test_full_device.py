"""A device that has no room left, somewhere in a step; oracle: the same steps where there was room."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import functional, models, optim
from minimp.errors import OutOfMemoryError
from minimp_backends.strict import counts
from tests.arrays import host

EVERY = 7
"""Which allocations of a step are refused, one in a run: the first, the eighth, ..."""


class Room:
    """Refuses one allocation, the one that `left` counts down to."""

    left = used = 0

    def take(self, size: int) -> None:
        """Count an allocation."""
        self.left -= 1
        if self.left == 0:
            raise OutOfMemoryError("the GPU has no room", asked=size, used=self.used, help="a smaller batch")


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """Make new tensors on a strict device whose room can be used up."""
    made, plain = Room(), counts.Device.allocated

    def allocated(self: counts.Device, held: np.ndarray[Any, Any]) -> None:
        plain(self, held)
        made.take(held.nbytes)

    monkeypatch.setattr(counts.Device, "allocated", allocated)
    with mp.use_backend("strict"), counts.DEVICE.counting():  # it looks at allocations only while counting
        yield made


def trained(control: str) -> tuple[mp.TrainStep, Any]:
    """Return a step that has run twice, and its batch."""
    mp.manual_seed(0)
    model = models.mlp((8,), 3, hidden=(6,))
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    step = mp.TrainStep(
        model, functional.cross_entropy, optimizer, "mixed-fp16", control=control, max_norm=1.0
    )
    rng = np.random.default_rng(0)
    batch = mp.tensor(rng.standard_normal((4, 8)).astype(np.float32)), mp.tensor(np.array([0, 1, 2, 0]))
    step(*batch), step(*batch)
    return step, batch


def bits(step: mp.TrainStep) -> list[bytes]:
    """Return every bit of weights and optimizer."""
    saved = step.optimizer.state_dict()["state"]
    arrays = [host(p) for p in step.model.parameters()] + [np.asarray(saved[name]) for name in sorted(saved)]
    return [each.tobytes() for each in arrays]


def refused(room: Room, step: mp.TrainStep, batch: Any, number: int) -> OutOfMemoryError | None:
    """Run a step whose allocation of this number is refused; return the error, None if it has not so many."""
    room.left = number
    try:
        step(*batch)
    except OutOfMemoryError as fault:
        return fault
    room.left = 0
    return None


@pytest.mark.parametrize("control", ["host", "device"])
def test_a_step_that_had_no_room_never_was_or_it_says_so(room: Room, control: str) -> None:
    """Oracle: weights and optimizer before or after a whole step, and the next step, bit for bit.

    In the middle of the update, which replaces what it reads, it is said that parameters are of two steps.
    """
    step, batch = trained(control)
    before = bits(step)
    step(*batch)
    after = bits(step)
    ended = {"before": 0, "torn": 0, "after": 0}
    for number in range(1, 1000, EVERY):
        step, batch = trained(control)
        fault = refused(room, step, batch, number)
        if fault is None:
            break
        if "some parameters may be a step ahead" in str(fault):
            ended["torn"] += 1
            assert "load the last checkpoint before going on; a smaller batch" in (fault.help or "")
            assert fault.asked > 0
            continue
        ended["after" if ended["torn"] else "before"] += 1
        assert bits(step) == (after if ended["torn"] else before)
        if not ended["torn"]:
            step(*batch)
            assert bits(step) == after
    assert ended["before"] >= 5
    assert ended["torn"] >= 1


def test_the_error_says_what_the_step_holds(room: Room) -> None:
    """Oracle: sizes of weights, moments and masters by hand, and a pool that holds 1 MiB more than those."""
    step, batch = trained("device")
    count = sum(p.size for p in step.model.parameters())
    room.used = 3 * 4 * count + 8 + (1 << 20)
    fault = refused(room, step, batch, 1)
    assert fault is not None
    assert fault.held == {
        "parameters": 4 * count, "masters": 0, "optimizer": 8 * count + 8, "gradients": 0,
        "activations and workspaces": 1 << 20,
    }  # fmt: skip
    assert "; the step holds parameters 0.0 MiB, masters 0.0 MiB, optimizer 0.0 MiB, gradients" in str(fault)
    assert "activations and workspaces 1.0 MiB\n  help: a smaller batch" in str(fault)
    assert (fault.used, fault.asked > 0) == (room.used, True)
