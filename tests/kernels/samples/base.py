"""What a family's samples are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Arguments = dict[str, Any]
Samples = Mapping[str, Callable[[], Iterable[Arguments]]]
Judge = Callable[[Arguments, str, np.ndarray, np.ndarray], str]
"""(arguments, name of the parameter, result, reference) -> what is wrong with it, "" if nothing is."""

SMALL = 256  # elements of all arrays of a sample at most: what the PTX interpreter takes


@dataclass(frozen=True)
class Bug:
    """A fault to plant: `old` in the source of `kernel` becomes `new`; some rung must find it.

    `old` must occur in the kernel's .cu file or, where it does not, in one of the .cuh files; its first
    occurrence is replaced.
    """

    name: str
    kernel: str
    old: str
    new: str


def arrays(arguments: Arguments) -> list[np.ndarray]:
    """Return every array of a sample, those inside sequences too."""
    found: list[np.ndarray] = []
    for value in arguments.values():
        each = value if isinstance(value, list | tuple) else [value]
        found += [item for item in each if isinstance(item, np.ndarray)]
    return found


def is_small(arguments: Arguments, most: int = SMALL) -> bool:
    """Return whether the PTX interpreter takes this sample."""
    return sum(each.size for each in arrays(arguments)) <= most
