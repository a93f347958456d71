"""Faults put into a kernel's source, and which rung of the ladder finds each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from minimp_backends.kernels import sources
from minimp_backends.kernels.declaring import Kernel
from minimp_backends.kernels.registry import KERNELS
from minimp_backends.kernels.sources import Source
from tests.kernels.compiled import PLAIN_CHIP, entries
from tests.kernels.far import far_faults
from tests.kernels.linting import findings
from tests.kernels.rungs import interpreted_faults, moved_faults, shim_faults
from tests.kernels.samples import Bug

__all__ = ["RUNGS", "found_by", "planted"]

_MADE = re.compile(r"^[A-Z][A-Z0-9_]*\((\w+), [\w, ]+\)$", re.MULTILINE)


def planted(bug: Bug) -> Source:
    """Return the source of the bug's kernel with the bug in it, and as few other kernels as may be.

    Raises:
        ValueError: the text to change is nowhere, or the change changes nothing.
    """
    source = sources.read(KERNELS[bug.kernel].source)
    if bug.old == bug.new:
        raise ValueError(f"{bug.name}: old and new are the same")
    if bug.old in source.text:
        return replace(source, text=_alone(source.text.replace(bug.old, bug.new, 1), bug.kernel))
    for name, text in source.headers.items():
        if bug.old in text:
            headers = {**source.headers, name: text.replace(bug.old, bug.new, 1)}
            return replace(source, text=_alone(source.text, bug.kernel), headers=headers)
    raise ValueError(f"{bug.name}: {bug.old!r} is neither in {source.name} nor in a header")


def _alone(text: str, kernel: str) -> str:
    """A source without the lines, such as ``SOFTMAX(half, __half)``, that make kernels of another name."""
    return _MADE.sub(lambda line: line[0] if f"_{line[1]}_" in f"_{kernel}_" else "", text)


def _lint(source: Source, kernel: Kernel) -> Iterator[str]:
    yield from findings(kernel, entries(source, PLAIN_CHIP)[kernel.name])


RUNGS = {
    "lint": _lint, "interpreter": interpreted_faults, "moved": moved_faults, "shim": shim_faults,
    "far": far_faults,
}  # fmt: skip
"""In the order of their cost."""


def found_by(bug: Bug) -> tuple[str, str]:
    """Return the first rung that finds a bug and what it says; ("", "") where none does.

    Raises:
        DeviceError: with the bug in it the source does not compile, so that it is no bug but a typing error.
    """
    source, kernel = planted(bug), KERNELS[bug.kernel]
    for rung, faults in RUNGS.items():
        found = next(faults(source, kernel), None)
        if found:
            return rung, found
    return "", ""
