"""A trace for TensorBoard: scalars and histograms by training step.

==================================  ======================================================================
tag                                 what it is, at each step
==================================  ======================================================================
``loss``, ``loss_scale``            of the stages `loss` and `update_scale` (scalars)
``gradient_norm``                   of the stage `check_finite`, where it is finite
``flushed/OP``, ``overflowed/OP``   results that an op flushed to 0, or made infinite
``swallowed/PARAMETER``             the share of updates that left the weight as it was
``error/OP``                        with a shadow: the largest relative error that an op made
``gradients/PARAMETER``             a histogram of log2 |g|, one bin a binade, zeros left out
==================================  ======================================================================

Step 0 holds what ran outside of training steps. Times are seconds since the recording began.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from minimp.errors import DataError, SettingError
from minimp.files import AnyPath
from minimp.trace.events import TraceEvent
from minimp.trace.statistics import Stats

__all__ = ["histograms", "scalars", "write_tensorboard"]

Scalar = tuple[str, float, int, int]
"""Tag, value, step, nanoseconds."""


def write_tensorboard(events: Sequence[TraceEvent], logdir: AnyPath) -> None:
    """Write one event file into a folder, which is made; see :meth:`minimp.trace.Trace.tensorboard`."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError as fault:
        raise SettingError(
            "tensorboardX is not installed", op="trace.tensorboard", help="pip install minimp[tensorboard]"
        ) from fault
    try:
        writer = SummaryWriter(str(logdir))
    except OSError as fault:
        raise DataError(
            f"{logdir}: {fault.strerror or fault}", op="trace.tensorboard", help="name a folder to write to"
        ) from fault
    with writer:
        for tag, value, step, when in scalars(events):
            writer.add_scalar(tag, value, step, walltime=when / 1e9)
        for tag, stats, step, when in histograms(events):
            writer.add_histogram_raw(tag, **raw_histogram(stats), global_step=step, walltime=when / 1e9)


def scalars(events: Sequence[TraceEvent]) -> Iterator[Scalar]:
    """Yield the scalars, step by step as they came."""
    lost: Counter[tuple[str, int]] = Counter()
    errors: dict[tuple[str, int], float] = {}
    ends: dict[int, int] = {}
    for event in events:
        ends[event.step] = event.end
        if event.phase == "stage":
            yield from _of_stage(event)
            continue
        for what, count in (("flushed", event.flushed), ("overflowed", event.overflowed)):
            lost[f"{what}/{event.title}", event.step] += count
        for error in event.errors:
            if error is not None:
                key = (f"error/{event.title}", event.step)
                errors[key] = max(errors.get(key, 0.0), error.made.relative)
    for (tag, step), value in (*lost.items(), *errors.items()):
        yield tag.replace(" ", "_"), float(value), step, ends[step]


def _of_stage(event: TraceEvent) -> Iterator[Scalar]:
    side = event.outputs[0] if event.op == "loss" and event.outputs else None
    if side is not None and side.stats is not None and side.stats.max is not None:
        yield "loss", side.stats.max, event.step, event.end
    if event.op == "update_scale" and "loss_scale" in event.facts:
        yield "loss_scale", float(event.facts["loss_scale"]), event.step, event.end
    if event.op == "check_finite" and event.facts.get("grad_norm") is not None:
        yield "gradient_norm", float(event.facts["grad_norm"]), event.step, event.end
    for name, (_, nonzero, swallowed) in event.facts.get("updates", {}).items():
        yield f"swallowed/{name}", swallowed / nonzero if nonzero else 0.0, event.step, event.end


def histograms(events: Sequence[TraceEvent]) -> Iterator[tuple[str, Stats, int, int]]:
    """Yield the gradients that have a histogram: tag, statistics, step, nanoseconds."""
    for event in events:
        if event.phase != "stage" or event.op != "unscale":
            continue
        for side in event.outputs:
            if side is not None and side.stats is not None and side.stats.binades:
                yield f"gradients/{side.name}", side.stats, event.step, event.end


def raw_histogram(stats: Stats) -> dict[str, Any]:
    """Return log2 |x| of numbers that are not 0, a bin for each binade; within one, its lower end stands."""
    binades = range(min(stats.binades), max(stats.binades) + 1)
    counts = [stats.binades.get(e, 0) for e in binades]
    total = sum(counts)
    return {
        "min": float(binades[0]), "max": float(binades[-1] + 1), "num": total,
        "sum": float(sum(e * n for e, n in zip(binades, counts, strict=True))),
        "sum_squares": float(sum(e * e * n for e, n in zip(binades, counts, strict=True))),
        "bucket_limits": [float(e + 1) for e in binades], "bucket_counts": counts,
    }  # fmt: skip
