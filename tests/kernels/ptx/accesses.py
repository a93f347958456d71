"""The spaces of memory that a kernel knows, and what its loads, stores and atomics do there."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from tests.kernels.ptx.memory import Region
from tests.kernels.ptx.parsing import Entry, Instruction, PtxError, size_of
from tests.kernels.ptx.threads import Threads
from tests.kernels.ptx.values import INTEGERS, Bits, bits_of, read

__all__ = ["Accesses"]

# Generic addresses: an address of shared or local memory with this added. Global ones stay as they are.
WINDOWS = {"shared": 1 << 48, "local": 1 << 49, "global": 0, "const": 0, "param": 1 << 50}
HINTS = frozenset(
    {
        *("nc", "ca", "cg", "cs", "cv", "wb", "wt", "lu", "lastuse", "L1", "L2", "no_allocate"),
        *("evict_first", "evict_last", "evict_normal", "64B", "128B", "256B", "unified"),
        *("weak", "relaxed", "acquire", "release", "acq_rel", "volatile", "gpu", "cta", "sys", "v2", "v4"),
    }
)
"""How a load or store goes through the caches, which changes no value."""
_STRONG = frozenset({"volatile", "relaxed", "acquire", "release", "acq_rel"})

_ATOMIC: dict[str, Callable[..., np.ndarray]] = {
    "add": np.add,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "min": np.minimum,
    "max": np.maximum,
    "exch": lambda _, value: value,
    "inc": lambda old, limit: np.where(old >= limit, old.dtype.type(0), old + old.dtype.type(1)),
    "cas": lambda old, wanted, value: np.where(old == wanted, value, old),
}


class Accesses:
    """Every space of one launch.

    Args:
        entry: whose variables these are.
        threads: of the launch.
        shared_bytes: of dynamic shared memory.
    """

    def __init__(self, entry: Entry, threads: Threads, shared_bytes: int) -> None:
        self.threads = threads
        self.regions = {
            name: Region(f"{name} memory", threads.clock, watch=name in {"shared", "global"})
            for name in ("param", "shared", "local", "global")
        }
        self.places: dict[str, tuple[str, int]] = {}
        self.stride = {"param": 0, "global": 0}
        by_space: dict[str, dict[str, tuple[int, int]]] = {name: {} for name in self.regions}
        for each in (*entry.parameters, *entry.variables):
            space = "global" if each.space == "const" else each.space
            size = each.size or (shared_bytes if space == "shared" else 0)
            by_space[space][each.name] = (size, each.align)
        for space, copies in (("param", 1), ("shared", threads.grid), ("local", threads.count)):
            places, self.stride[space] = self.regions[space].frames(by_space[space], copies)
            self.places |= {name: (space, place) for name, place in places.items()}
        self.constants = {each.name: each for each in entry.variables if each.space in {"global", "const"}}

    def place_globals(self, arrays: dict[str, int], moved: Mapping[str, int] | None = None) -> dict[str, int]:
        """Lay out arrays, given by name and size, beside the kernel's constants; return their addresses.

        These are multiples of 16, but for arrays that are `moved` by so many bytes.
        """
        sizes = {f"{name} (constant)": (each.size, each.align) for name, each in self.constants.items()}
        sizes |= {name: (size, 16) for name, size in arrays.items()}
        places, _ = self.regions["global"].frames(sizes, 1, moved)
        for name, each in self.constants.items():
            place = places[f"{name} (constant)"]
            self.places[name] = ("global", place)
            self.regions["global"].fill(place, each.content or bytes(each.size))
        return {name: places[name] for name in arrays}

    def address_of(self, name: str) -> int:
        """Return the address of a variable in its own space."""
        if name not in self.places:
            raise PtxError(f"{name} is not known")
        return self.places[name][1]

    def converted(self, addresses: Bits, space: str, *, into: bool) -> Bits:
        """Return generic addresses as those of a space, or the other way round."""
        if space not in WINDOWS:
            raise PtxError(f"unknown space .{space}")
        window = np.uint64(WINDOWS[space])
        return addresses - window if into else addresses + window

    def _region(
        self, instruction: Instruction, threads: np.ndarray, at: np.ndarray
    ) -> tuple[Region, np.ndarray]:
        words = set(instruction.words[1:]) - {instruction.type, *HINTS}
        space = next((each for each in ("param", "shared", "local", "global", "const") if each in words), "")
        if unknown := words - {space, *_ATOMIC}:
            raise PtxError(f"unknown modifier .{', .'.join(sorted(unknown))}")
        if not space:  # generic: by the window it lies in
            highest = [each for each in ("param", "local", "shared") if (at >= WINDOWS[each]).any()]
            space = highest[0] if highest else "global"
            at = at - WINDOWS[space]
        space = "global" if space == "const" else space
        frame = {"shared": self.threads.block_of, "local": self.threads.all}.get(space)
        if frame is not None:
            stride = self.stride[space]
            if ((at < 0) | (at >= stride)).any():
                raise PtxError(f"{space} memory: an address outside what the kernel has")
            at = at + frame[threads] * stride
        return self.regions[space], at

    def _align(self, at: np.ndarray, size: int) -> None:
        if size and (at % size).any():
            raise PtxError(f"an access to {size} bytes at an address that is no multiple of it")

    def load(
        self, instruction: Instruction, threads: np.ndarray, at: np.ndarray, size: int, *, aligned: int
    ) -> Bits:
        """Return what a load gives."""
        region, places = self._region(instruction, threads, at)
        self._align(places, aligned)
        return region.load(threads, places, size, atomic=bool(_STRONG & set(instruction.words)))

    def store(
        self,
        instruction: Instruction,
        threads: np.ndarray,
        at: np.ndarray,
        size: int,
        bits: Bits,
        *,
        aligned: int,
    ) -> None:
        """Do a store."""
        region, places = self._region(instruction, threads, at)
        self._align(places, aligned)
        region.store(threads, places, size, bits, atomic=bool(_STRONG & set(instruction.words)))

    def atomic(
        self, instruction: Instruction, threads: np.ndarray, at: np.ndarray, values: list[Bits]
    ) -> Bits:
        """Do an atomic operation of one thread; return what was there before."""
        kind = instruction.type
        if kind not in INTEGERS:
            raise PtxError(f"no atomic of type .{kind} here")
        name = next((word for word in instruction.words[1:] if word in _ATOMIC), None)
        if name is None:
            raise PtxError("unknown atomic operation")
        region, places = self._region(instruction, threads, at)
        size = size_of(kind)
        old = region.load(threads, places, size, atomic=True)
        new = _ATOMIC[name](read(old, kind), *(read(each, kind) for each in values))
        region.store(threads, places, size, bits_of(new.astype(INTEGERS[kind])), atomic=True)
        return old
