"""Recording and replaying: kernels on their samples, ops on theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import minimp as mp
from minimp.backend import get_backend
from minimp.checks.operations import check_event
from minimp.modes import listen
from minimp.tape import Event
from minimp_backends.kernels.declaring import Kernel
from minimp_backends.kernels.registry import KERNELS
from tests.gpu.recordings import Recorder, Sample, manifest, read
from tests.kernels.agreement import expected, mismatches
from tests.kernels.rungs import some
from tests.kernels.samples import Arguments, small_samples
from tests.ops.samples import SAMPLES as OP_SAMPLES
from tests.ops.samples import Sample as OpSample
from tests.ops.samples import leaves

__all__ = ["faults_of", "launch_on", "record"]

MOST = 4
"""Samples of a kernel that are recorded."""
FORMAT, KIND, SEED = "float16", "normal", 7
RANDOM = frozenset({"dropout"})


# ---- kernels ---------------------------------------------------------------------------------------------


def launch_on(backend: Any, kernel: Kernel, arguments: Arguments) -> Arguments:
    """Run a kernel on a device; return its arguments as they are then, on the host."""
    there = {p.name: _there(backend, p, arguments[p.name]) for p in kernel.parameters}
    backend.gpu.kernels(kernel.name, **there)
    return {p.name: _back(backend, p, there[p.name]) for p in kernel.parameters}


def _there(backend: Any, parameter: Any, value: Any) -> Any:
    if parameter.role == "value":
        return value
    return [backend.from_host(each) for each in value] if parameter.many else backend.from_host(value)


def _back(backend: Any, parameter: Any, value: Any) -> Any:
    if parameter.role == "value":
        return value
    return [backend.to_host(each) for each in value] if parameter.many else backend.to_host(value)


def _kernel_samples(backend: Any, kernel: Kernel) -> list[Sample]:
    found = []
    for _, arguments in some(small_samples(kernel.name), MOST):
        given = {p.name: arguments[p.name] for p in kernel.parameters}
        made = launch_on(backend, kernel, arguments)
        changed = {p.name: made[p.name] for p in kernel.parameters if p.role in ("out", "inout")}
        found.append({"in": given, "out": changed})
    return found


def _kernel_faults(kernel: Kernel, samples: list[Sample]) -> Iterator[str]:
    for place, sample in enumerate(samples):
        arguments = {p.name: _number(p, sample["in"].get(p.name, [])) for p in kernel.parameters}
        wanted = expected(kernel, arguments)
        got = {**arguments, **sample["out"]}
        yield from (f"sample {place}: {fault}" for fault in mismatches(kernel, arguments, got, wanted))


def _number(parameter: Any, value: Any) -> Any:
    if parameter.role != "value":
        return value
    return [each.item() for each in value] if parameter.many else value.item()


# ---- ops -------------------------------------------------------------------------------------------------


def _op_event(sample: OpSample) -> Event | None:
    """Run a sample on the backend in force; return the first event of its op."""
    events: list[Event] = []
    with listen(events.append):
        sample.call(*leaves(sample, FORMAT, KIND, np.random.default_rng(SEED), requires_grad=False))
    return next((each for each in events if each.node.op.name == sample.op and each.phase == "forward"), None)


def _op_samples() -> dict[str, OpSample]:
    """Return one sample an op, the first; none of ops that roll dice, which are others on a device."""
    found: dict[str, OpSample] = {}
    for each in OP_SAMPLES:
        found.setdefault(each.op, each)
    return {name: sample for name, sample in found.items() if name not in RANDOM}


def _op_arrays(backend: Any, event: Event) -> Sample:
    def host(arrays: tuple[Any, ...]) -> dict[str, Any]:
        there = {str(place): each for place, each in enumerate(arrays) if hasattr(each, "dtype")}
        return {place: backend.to_host(each) for place, each in there.items()}

    return {"in": host(event.inputs), "out": host(event.outputs)}


def _op_faults(name: str, samples: list[Sample]) -> Iterator[str]:
    with mp.use_backend("numpy"):
        event = _op_event(_op_samples()[name])
        if event is None:
            yield f"{name}: the op's sample is another than when it was recorded"
            return
        (sample,) = samples
        sides = {
            side: tuple(sample[key].get(str(place), was) for place, was in enumerate(getattr(event, side)))
            for side, key in (("inputs", "in"), ("outputs", "out"))
        }
        found = check_event(replace(event, **sides))
    if not found:
        yield str(found)


# ---- both ------------------------------------------------------------------------------------------------


def record(folder: Path, backend: Any) -> None:
    """Record every kernel, where the backend runs them, and every op."""
    recorder = Recorder(folder, backend.describe())
    if getattr(getattr(backend, "gpu", None), "kernels", None) is not None:
        for name, kernel in KERNELS.items():
            recorder.add("kernel", name, _kernel_samples(backend, kernel))
    with mp.use_backend(backend.name):
        for name, sample in _op_samples().items():
            event = _op_event(sample)
            if event is not None:
                recorder.add("op", name, [_op_arrays(get_backend(backend.name), event)])
    recorder.close()


def faults_of(folder: Path, file: str) -> list[str]:
    """Return what is wrong with a recorded file, by the NumPy references; [] if nothing is.

    Raises:
        Broken: the file cannot be believed.
    """
    told, samples = manifest(folder)["files"][file], read(folder, file)
    if not samples:
        return [f"{file} holds no sample"]
    if told["kind"] == "kernel":
        return list(_kernel_faults(KERNELS[told["name"]], samples))
    return list(_op_faults(told["name"], samples))
