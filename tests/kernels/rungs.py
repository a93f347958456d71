"""The ways of running a kernel without a GPU: each says what is wrong with one source of it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from minimp_backends.kernels import sources
from minimp_backends.kernels.declaring import KINDS, Kernel
from minimp_backends.kernels.sources import Source
from tests.kernels.agreement import expected, launched, mismatches
from tests.kernels.compiled import PLAIN_CHIP, entries
from tests.kernels.families import kernels_of
from tests.kernels.ptx.parsing import Entry, PtxError
from tests.kernels.ptx.running import run
from tests.kernels.samples import SAMPLES, Arguments, arrays, small_samples
from tests.kernels.shim.building import build

__all__ = ["built_with", "interpreted_faults", "moved_faults", "shim_faults", "some"]


HALF_A_RUN = 8  # bytes: a multiple of every element's size
AS_BYTES = ("cast_codes_32", "cast_codes_64")
"""Kernels whose arrays are wider elements, each at a multiple of its size, handed over as bytes."""


def some(samples: Iterable[Arguments], most: int | None) -> list[tuple[int, Arguments]]:
    """Return samples with their numbers: all, or so many spread evenly from the first to the last."""
    every = list(enumerate(samples))
    if most is None or len(every) <= most:
        return every
    return [every[k * (len(every) - 1) // max(most - 1, 1)] for k in range(most)]


def built_with(source: Source, kernel: Kernel) -> tuple[Kernel, ...]:
    """Return the kernels that are built with one: all of its file, or it alone where that is changed."""
    return kernels_of(kernel.source) if source == sources.read(kernel.source) else (kernel,)


def shim_faults(
    source: Source, kernel: Kernel, *, most: int | None = None, sanitize: bool = False
) -> Iterator[str]:
    """Yield what is wrong with a kernel that g++ built, in both orders of threads."""
    built = build(source, built_with(source, kernel), sanitize=sanitize)
    for place, arguments in some(SAMPLES[kernel.name](), most):
        wanted = expected(kernel, arguments)
        for backwards in (False, True):
            launch = launched(kernel, arguments)
            told = built.launch(kernel, launch.shape, launch.addresses, backwards=backwards)
            faults = [told] if told else [*launch.overruns()]
            faults += mismatches(kernel, arguments, launch.copies, wanted)
            order = "last to first" if backwards else "first to last"
            yield from (f"sample {place}, threads {order}: {fault}" for fault in faults)


def interpreted_faults(
    source: Source, kernel: Kernel, *, chip: int = PLAIN_CHIP, most: int | None = None
) -> Iterator[str]:
    """Yield what is wrong with the PTX of a kernel, interpreted on its small samples."""
    entry = entries(source, chip)[kernel.name]
    for place, arguments in some(small_samples(kernel.name), most):
        yield from (f"sample {place}: {fault}" for fault in _interpreted(entry, kernel, arguments))


def _interpreted(
    entry: Entry, kernel: Kernel, arguments: Arguments, moved: Mapping[str, int] | None = None
) -> Iterator[str]:
    results = copy.deepcopy(arguments)
    try:
        run(entry, kernel, results, moved)
    except PtxError as fault:
        yield str(fault)
    else:
        yield from mismatches(kernel, arguments, results, expected(kernel, arguments))


def moved_faults(source: Source, kernel: Kernel, *, chip: int = PLAIN_CHIP) -> Iterator[str]:
    """Yield what is wrong where arrays begin at no multiple of 16 bytes.

    A GPU refuses an access to several elements there, and the processor of the shim does not. All begin 8
    bytes behind, then one after the other an element behind; on the largest small sample that has it, and
    whose rows are whole groups of eight where there is one.
    """
    if kernel.name in AS_BYTES:
        return
    entry, samples = entries(source, chip)[kernel.name], small_samples(kernel.name)
    names = {each.name: KINDS[each.kind].dtype.itemsize for each in kernel.parameters if each.role != "value"}
    every = _interpreted(entry, kernel, max(samples, key=_in_groups), dict.fromkeys(names, HALF_A_RUN))
    yield from (f"all arrays moved by {HALF_A_RUN} bytes: {fault}" for fault in every)
    for name, size in names.items():
        having = [each for each in samples if any(map(np.size, arrays({"": each[name]})))]
        if having:
            faults = _interpreted(entry, kernel, max(having, key=_in_groups), {name: size})
            yield from (f"{name} moved by an element: {fault}" for fault in faults)


def _in_groups(arguments: Arguments) -> tuple[bool, int]:
    given = arrays(arguments)
    return all(each.shape[-1] % 8 == 0 for each in given if each.ndim > 1), sum(map(np.size, given))
