"""What is said of a kernel: its parameters, its launch, the NumPy function it must agree with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import ml_dtypes
import numpy as np

__all__ = ["KINDS", "Kernel", "Kind", "Launch", "Parameter", "Role", "per_element"]

Role = Literal["in", "out", "inout", "value"]


@dataclass(frozen=True, slots=True)
class Kind:
    """One type of element: how CUDA C++ and NumPy spell it."""

    c_name: str
    dtype: np.dtype[Any]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "float": Kind("float", np.dtype(np.float32)),
        "double": Kind("double", np.dtype(np.float64)),
        "half": Kind("__half", np.dtype(np.float16)),
        "bfloat16": Kind("__nv_bfloat16", np.dtype(ml_dtypes.bfloat16)),
        "uint8": Kind("unsigned char", np.dtype(np.uint8)),  # FP8, FP6 and FP4 codes too
        "int8": Kind("signed char", np.dtype(np.int8)),
        "uint16": Kind("unsigned short", np.dtype(np.uint16)),
        "int32": Kind("int", np.dtype(np.int32)),
        "uint32": Kind("unsigned int", np.dtype(np.uint32)),
        "int64": Kind("long long", np.dtype(np.int64)),
        "uint64": Kind("unsigned long long", np.dtype(np.uint64)),
    }
)
"""The elements that kernels take. ``bool`` is absent: a flag is an ``int32`` that is 0 or 1."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a kernel.

    Attributes:
        name: as in the CUDA source.
        kind: a name of :data:`KINDS`.
        role: ``in``, ``out`` or ``inout`` for an array, which the kernel gets as a pointer; ``value`` for a
            number.
        many: 0 for one array or number. N for a sequence of at most N of them, which the kernel gets by value
            as one ``Many<T, N>`` (``many.cuh``); where there are fewer, the rest is null or 0.
    """

    name: str
    kind: str
    role: Role
    many: int = 0

    @property
    def c_type(self) -> str:
        """The type in the CUDA source, for example ``const float*``."""
        name = KINDS[self.kind].c_name
        single = {"value": name, "in": f"const {name}*"}.get(self.role, f"{name}*")
        return f"Many<{single}, {self.many}>" if self.many else single


@dataclass(frozen=True, slots=True)
class Launch:
    """How many threads run: ``grid`` blocks of ``block`` threads, along x alone.

    Attributes:
        grid: blocks, at least 1.
        block: threads in each, 1 to 1024.
        shared_bytes: of dynamic shared memory for each block.
    """

    grid: int
    block: int
    shared_bytes: int = 0


@dataclass(frozen=True)
class Kernel:
    """One kernel: the registry's row.

    Attributes:
        name: of the ``extern "C"`` function.
        source: the file in this folder that defines it.
        parameters: in the order of the source.
        launch: the arguments by name -> :class:`Launch`. It may read shapes and numbers, never elements.
        reference: the specification, in NumPy. It takes the same arguments by name (host arrays, Python
            numbers, sequences of either) and writes into the ``out`` and ``inout`` arrays.
        bit_exact: the kernel gives the reference's very bits on every chip. (A NaN is a NaN: its payload is
            not compared.)
        bound: where it does not, how far the results may lie apart, in words, and why; "" where it does.
        allowed: rules of the PTX lint that this kernel may break, each with the reason.
    """

    name: str
    source: str
    parameters: tuple[Parameter, ...]
    launch: Callable[[Mapping[str, Any]], Launch]
    reference: Callable[..., None]
    bit_exact: bool = True
    bound: str = ""
    allowed: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


THREADS = 256  # of a block: whole warps, and enough blocks for every multiprocessor at common sizes
MOST_BLOCKS = 4096  # above, each thread takes several elements (a grid-stride loop)


def per_element(count: int, per_thread: int = 1) -> Launch:
    """Return the launch of a grid-stride loop over ``count`` elements, ``per_thread`` of them at a time."""
    blocks = -(-count // (THREADS * per_thread))
    return Launch(min(max(blocks, 1), MOST_BLOCKS), THREADS)
