"""Runs one entry of a PTX text, all threads of the launch at once.

Every register is an array with one element for each thread. Those threads run next that are furthest behind
in the text, so that branches which part come together again where they meet. Memory is watched (``memory``),
and so is everything that threads wait for (``threads``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tests.kernels.ptx.accesses import Accesses
from tests.kernels.ptx.operations import computes
from tests.kernels.ptx.parsing import Entry, Instruction, Operand, PtxError, size_of
from tests.kernels.ptx.threads import AT_WARP, RUNS, Threads, shuffle_source
from tests.kernels.ptx.values import Bits, width_of

__all__ = ["Machine"]

MOST_INSTRUCTIONS = 2_000_000  # of all threads together, counted in groups: an endless loop ends
Lanes = np.ndarray  # numbers of threads
Step = Callable[[Lanes], None]


class Machine:
    """One launch.

    Args:
        entry: the kernel.
        grid: blocks.
        block: threads of each.
        shared_bytes: of dynamic shared memory.
    """

    def __init__(self, entry: Entry, grid: int, block: int, shared_bytes: int = 0) -> None:
        self.entry = entry
        self.threads = Threads(grid, block)
        self.count = self.threads.count
        self.memory = Accesses(entry, self.threads, shared_bytes)
        self.registers: dict[str, Bits] = {}
        self.widths = {name: width_of(kind) for name, kind in entry.registers.items()}
        self.special = self._special()
        self.plans = [self._plan(each) for each in entry.instructions]
        self.steps = 0

    def _special(self) -> dict[str, Bits]:
        threads = self.threads
        zero, one = np.zeros(1, np.uint64), np.ones(1, np.uint64)
        numbers = {"%tid": threads.in_block, "%ctaid": threads.block_of}
        sizes = {"%ntid": threads.block, "%nctaid": threads.grid}
        found = {f"{name}.x": each.astype(np.uint64) for name, each in numbers.items()}
        found |= {f"{name}.x": np.array([each], np.uint64) for name, each in sizes.items()}
        found |= {f"{name}.{axis}": zero for name in numbers for axis in "yz"}
        found |= {f"{name}.{axis}": one for name in sizes for axis in "yz"}
        return {**found, "%laneid": threads.lane.astype(np.uint64), "WARP_SZ": np.array([32], np.uint64)}

    # ---- operands

    def get(self, operand: Operand, lanes: Lanes) -> Bits:
        """Return an operand's bits, one element for each thread (or one for all)."""
        if operand.kind in {"integer", "float"}:
            return np.array([operand.value & (1 << 64) - 1], np.uint64)
        if operand.kind == "symbol":
            return np.array([self.memory.address_of(operand.name) + operand.value], np.uint64)
        name = operand.name.removeprefix("!")
        if name in self.special:
            found = self.special[name]
            return found if found.size == 1 else found[lanes]
        if name not in self.registers:
            raise PtxError(f"{name} is read before anything is written to it")
        value = self.registers[name][lanes]
        return value ^ np.uint64(1) if operand.name[0] == "!" else value

    def put(self, operand: Operand, lanes: Lanes, bits: Bits) -> None:
        """Write a register, cut to its width."""
        if operand.name == "_":
            return
        if operand.name not in self.registers:
            self.registers[operand.name] = np.zeros(self.count, np.uint64)
        mask = np.uint64((1 << self.widths[operand.name]) - 1)
        self.registers[operand.name][lanes] = np.asarray(bits) & mask

    # ---- instructions

    def _plan(self, instruction: Instruction) -> Step:
        try:
            return self._step(instruction)
        except PtxError as fault:
            raise PtxError(f"line {instruction.line}: {instruction.text}: {fault}") from fault

    def _step(self, instruction: Instruction) -> Step:
        compute = computes(instruction)
        if compute:
            target, *sources = instruction.operands
            return lambda lanes: self.put(target, lanes, compute([self.get(each, lanes) for each in sources]))
        special: dict[str, Callable[[Instruction, Lanes], None]] = {
            "mov": self._move,
            "cvta": self._convert_address,
            "ld": self._load,
            "st": self._store,
            "atom": self._atomic,
            "red": self._atomic,
            "membar": self._nothing,
            "fence": self._nothing,
            "shfl": self._shuffle,
            "vote": self._vote,
            "bra": self._nothing,  # the control of these is in run()
            "ret": self._nothing,
            "exit": self._nothing,
            "bar": self._nothing,
            "barrier": self._nothing,
        }
        if instruction.words[0] not in special:
            raise PtxError("this instruction is not known here")
        act = special[instruction.words[0]]
        return lambda lanes: act(instruction, lanes)

    def _nothing(self, instruction: Instruction, lanes: Lanes) -> None:
        pass

    def _move(self, instruction: Instruction, lanes: Lanes) -> None:
        target, source = instruction.operands
        if target.kind == "vector":  # a register taken apart, the low part first
            width = np.uint64(width_of(instruction.type) // len(target.parts))
            bits = self.get(source, lanes)
            for k, part in enumerate(target.parts):
                self.put(part, lanes, bits >> np.uint64(k) * width & (np.uint64(1) << width) - np.uint64(1))
        elif source.kind == "vector":
            width = width_of(instruction.type) // len(source.parts)
            parts = [self.get(part, lanes) << np.uint64(k * width) for k, part in enumerate(source.parts)]
            self.put(target, lanes, np.bitwise_or.reduce(np.broadcast_arrays(*parts)))
        else:
            self.put(target, lanes, self.get(source, lanes))

    def _convert_address(self, instruction: Instruction, lanes: Lanes) -> None:
        target, source = instruction.operands
        into = "to" in instruction.words
        space = instruction.words[2 if into else 1]
        self.put(target, lanes, self.memory.converted(self.get(source, lanes), space, into=into))

    def _addresses(self, operand: Operand, lanes: Lanes) -> np.ndarray:
        if not operand.name:
            base: Any = np.zeros(1, np.uint64)
        elif operand.name in self.widths:
            base = self.get(Operand("register", operand.name), lanes)
        else:
            base = np.array([self.memory.address_of(operand.name)], np.uint64)
        return np.broadcast_to(base.astype(np.int64) + operand.value, lanes.shape)

    def _load(self, instruction: Instruction, lanes: Lanes) -> None:
        target, source = instruction.operands
        parts = target.parts or (target,)
        size, at = size_of(instruction.type), self._addresses(source, lanes)
        for k, part in enumerate(parts):
            bits = self.memory.load(
                instruction, lanes, at + k * size, size, aligned=size * len(parts) * (k == 0)
            )
            if instruction.type[0] == "s":
                shift = np.uint64(64 - 8 * size)
                bits = ((bits << shift).view(np.int64) >> shift.astype(np.int64)).view(np.uint64)
            self.put(part, lanes, bits)

    def _store(self, instruction: Instruction, lanes: Lanes) -> None:
        target, source = instruction.operands
        parts = source.parts or (source,)
        size, at = size_of(instruction.type), self._addresses(target, lanes)
        for k, part in enumerate(parts):
            bits = self.get(part, lanes)
            aligned = size * len(parts) * (k == 0)
            self.memory.store(instruction, lanes, at + k * size, size, bits, aligned=aligned)

    def _atomic(self, instruction: Instruction, lanes: Lanes) -> None:
        """One thread after another, in the order of their numbers."""
        operands = list(instruction.operands)
        target = operands.pop(0) if instruction.words[0] == "atom" else None
        at = self._addresses(operands[0], lanes)
        values = [np.broadcast_to(self.get(each, lanes), lanes.shape) for each in operands[1:]]
        for k in range(lanes.size):
            each = slice(k, k + 1)
            old = self.memory.atomic(instruction, lanes[each], at[each], [value[each] for value in values])
            if target:
                self.put(target, lanes[each], old)

    # ---- warps

    def _shuffle(self, instruction: Instruction, lanes: Lanes) -> None:
        target, value, *rest = instruction.operands
        b, c, _ = (self.get(each, lanes) for each in rest)
        given = np.broadcast_to(self.get(value, lanes), lanes.shape)
        mode = next(word for word in instruction.words if word in {"up", "down", "bfly", "idx"})
        source, inside = shuffle_source(mode, self.threads.lane[lanes], b, c)
        position = self.threads.present(lanes)
        thread = lanes - self.threads.lane[lanes] + source
        missing = (thread >= self.count) | (position[np.minimum(thread, self.count - 1)] < 0)
        if missing.any():
            k = int(np.flatnonzero(missing)[0])
            raise PtxError(f"thread {lanes[k]} takes a value from lane {source[k]}, which gave none")
        taken = given[position[thread]]
        registers = target.parts or (target,)
        self.put(registers[0], lanes, taken)
        if len(registers) > 1:
            self.put(registers[1], lanes, inside.astype(np.uint64))

    def _vote(self, instruction: Instruction, lanes: Lanes) -> None:
        target, asked, _ = instruction.operands
        given = np.broadcast_to(self.get(asked, lanes), lanes.shape) != 0
        warps = self.threads.warp_of[lanes]
        bits, here = (np.zeros(int(self.threads.warp_of[-1]) + 1, np.uint64) for _ in range(2))
        np.bitwise_or.at(bits, warps[given], self.threads.bit[lanes][given])
        np.bitwise_or.at(here, warps, self.threads.bit[lanes])
        answers = {
            "ballot": bits,
            "any": (bits != 0).astype(np.uint64),
            "all": (bits == here).astype(np.uint64),
            "uni": ((bits == 0) | (bits == here)).astype(np.uint64),
        }
        chosen = next((answers[word] for word in instruction.words if word in answers), None)
        if chosen is None:
            raise PtxError("unknown vote")
        self.put(target, lanes, chosen[warps])

    # ---- control

    def run(self) -> None:
        """Run until every thread has returned.

        Raises:
            PtxError: an instruction that is not known, or what no GPU would let pass; with line and text.
        """
        with np.errstate(all="ignore"):
            while True:
                group = self.threads.next_group()
                if group is not None:
                    self._advance(group)
                elif not (self._release_blocks() or self._release_warps()):
                    break
        if (self.threads.state != 3).any():
            raise self.threads.stuck()

    def _advance(self, group: Lanes) -> None:
        """Run a group of threads from one instruction on, up to where it parts, waits or meets others."""
        place = int(self.threads.counter[group[0]])
        others = self.threads.counter[(self.threads.state == RUNS) & (self.threads.counter > place)]
        limit = int(others.min()) if others.size else len(self.plans)
        going = True
        while going:
            self.steps += 1
            if self.steps > MOST_INSTRUCTIONS:
                raise PtxError(f"more than {MOST_INSTRUCTIONS} instructions: a loop that does not end")
            instruction = self.entry.instructions[place] if place < len(self.plans) else None
            if instruction is None:
                self.threads.finish(group)
                return
            self.threads.clock.now += 1
            try:
                going = self._execute(instruction, place, group)
            except PtxError as fault:
                raise PtxError(f"line {instruction.line}: {instruction.text}: {fault}") from fault
            place += 1
            going = going and place < limit
        if instruction and instruction.words[0] not in _CONTROL:
            self.threads.counter[group] = place

    def _execute(self, instruction: Instruction, place: int, group: Lanes) -> bool:
        """Run one instruction; return whether the group goes on to the next one together."""
        lanes = group
        if instruction.guard:
            chosen = self.get(Operand("register", instruction.guard), group) != np.uint64(instruction.negated)
            lanes = group if chosen.all() else group[chosen]
        word = instruction.words[0]
        if word not in _CONTROL:
            if lanes.size:
                self.plans[place](lanes)
            return True
        self.threads.counter[group] = place + 1
        if word == "bra":
            self.threads.counter[lanes] = self.entry.labels[instruction.operands[0].name]
        elif word in {"ret", "exit"}:
            self.threads.finish(lanes)
        elif word in {"bar", "barrier"} and "warp" not in instruction.words:
            self.threads.wait_at_barrier(lanes)
        else:
            self.threads.counter[lanes] = place
            self._come_to_warp(instruction, lanes)
        return False

    # ---- waiting

    def _come_to_warp(self, instruction: Instruction, lanes: Lanes) -> bool:
        """Let those threads past a warp instruction whose partners are all there; the others wait."""
        masks = np.broadcast_to(self.get(instruction.operands[-1], lanes), lanes.shape)
        ready = self.threads.ready_warps(lanes, masks)
        self.threads.state[lanes[~ready]] = AT_WARP
        past = lanes[ready]
        if not past.size:
            return False
        place = int(self.threads.counter[past[0]])
        if instruction.words[0] == "bar":
            self.threads.clock.join(past, masks[ready])
        else:
            self.plans[place](past)
        self.threads.state[past] = RUNS
        self.threads.counter[past] = place + 1
        return True

    def _release_warps(self) -> bool:
        waiting = self.threads.all[self.threads.state == AT_WARP]
        released = False
        for place in np.unique(self.threads.counter[waiting]):
            group = waiting[self.threads.counter[waiting] == place]
            released |= self._come_to_warp(self.entry.instructions[int(place)], group)
        return released

    def _release_blocks(self) -> bool:
        """Let each block past its barrier that stands there whole; ``bar.red`` gives what the votes make."""
        complete = self.threads.complete_blocks()
        for threads in complete:
            instruction = self.entry.instructions[int(self.threads.counter[threads[0]]) - 1]
            words = instruction.words
            if "sync" in words and set(words) <= {"bar", "barrier", "cta", "sync", "aligned"}:
                continue
            if "red" not in words:
                raise PtxError(f"{instruction.text}: this barrier is not known here")
            given = np.broadcast_to(self.get(instruction.operands[-1], threads), threads.shape) != 0
            results: Mapping[str, Any] = {"or": given.any(), "and": given.all(), "popc": given.sum()}
            chosen = next(results[word] for word in words if word in results)
            self.put(instruction.operands[0], threads, np.array([int(chosen)], np.uint64))
        return bool(complete)


_CONTROL = frozenset({"bra", "ret", "exit", "bar", "barrier", "shfl", "vote"})
