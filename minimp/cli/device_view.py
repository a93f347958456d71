"""What a run made a device do: waits of the host, copies, allocations, and the peak of its memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from minimp.backend import default_backend
from minimp.cli.base import print_wrapped
from minimp.cli.train_view import bytes_text

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["DeviceWork", "show_work", "watching_device"]

NOT_FOR_TIMES = "a device for tests, whose times say nothing"


class DeviceWork:
    """What a block made the device of the default backend do; on the host there is nothing to count.

    Attributes:
        counts: waits, copies and allocations; None: nobody counts.
        pool: the memory pool; None: there is none.
        figures: what the pool held when the block ended.
    """

    def __init__(self, counts: Any = None, pool: Any = None) -> None:
        self.counts, self.pool = counts, pool
        self.figures: Any = None

    def as_dict(self) -> dict[str, int]:
        """Return all figures of the block, for JSON; bytes where the name says so."""
        found: dict[str, int] = {}
        if self.counts is not None:
            found = {name: getattr(self.counts, name) for name in type(self.counts).__slots__}
        if self.figures is not None:
            found |= {"pool_peak_bytes": self.figures.peak, "pool_total_bytes": self.figures.total}
        return found

    def text(self, backend: str, steps: int) -> str:
        """Return one sentence on what a step did; "" where nothing was counted, or no step was taken."""
        if self.counts is None or steps < 1:
            return ""
        c = self.counts
        parts = [
            f"{c.syncs / steps:,.1f} waits of the host",
            f"{c.to_device / steps:,.1f} copies to the device ({bytes_text(c.to_device_bytes // steps)})",
            f"{c.to_host / steps:,.1f} back ({bytes_text(c.to_host_bytes // steps)})",
        ]
        if c.allocations:  # the strict device counts them, CuPy's pool does not
            parts.append(
                f"{c.allocations / steps:,.0f} arrays made ({bytes_text(c.allocated_bytes // steps)})"
            )
        said = (
            f"{backend}{f' ({NOT_FOR_TIMES})' if backend == 'strict' else ''}, per step: {', '.join(parts)}"
        )
        if self.figures is not None:
            said += (
                f"; memory pool: {bytes_text(self.figures.peak)} at its peak, "
                f"{bytes_text(self.figures.total)} taken from the GPU"
            )
        return said


@contextmanager
def watching_device() -> Iterator[DeviceWork]:
    """Count what the default backend's device does in a `with` block."""
    backend: Any = default_backend()
    pool = getattr(backend, "memory", None)
    if pool is not None:
        pool.reset_peak()
    if not hasattr(backend, "counting"):
        yield DeviceWork()
        return
    with backend.counting() as counts:
        work = DeviceWork(counts, pool)
        yield work
    if pool is not None:
        work.figures = pool.figures()


def show_work(out: Console, work: DeviceWork, backend: str, steps: int, note: str = "") -> None:
    """Print the sentence on what a step did, if there is one."""
    said = work.text(backend, steps)
    if said:
        out.print()
        print_wrapped(out, said + (f". {note}" if note else "."))
