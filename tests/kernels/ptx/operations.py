"""What each instruction computes: its words read once, then a function from operands to the result.

Nothing is skipped over: a word that the tables do not have is an error that names the instruction.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.kernels.ptx import conversions, floats, integers
from tests.kernels.ptx.parsing import Instruction, PtxError
from tests.kernels.ptx.values import Bits, bits_of, read, width_of

__all__ = ["computes"]

Compute = Callable[[list[Bits]], Bits]
_MODES = ("rn", "rz", "rm", "rp", "approx", "full")
_LOW32 = np.uint64(0xFFFF_FFFF)


def _words(instruction: Instruction, *known: str) -> set[str]:
    """The modifiers of an instruction, all of which must be known; its types are left out."""
    modifiers = set(instruction.words[1:]) - {instruction.type}
    if unknown := modifiers - set(known):
        raise PtxError(f"unknown modifier .{', .'.join(sorted(unknown))}")
    return modifiers


def _float_arithmetic(instruction: Instruction) -> Compute:
    name, type_name = instruction.words[0], instruction.type
    words = _words(instruction, *_MODES, "ftz", "sat")
    mode = next((word for word in _MODES if word in words), "rn").replace("full", "approx")
    flush = floats.flushed if "ftz" in words else lambda values: values

    def compute(operands: list[Bits]) -> Bits:
        result = floats.arithmetic(name, mode, [flush(read(each, type_name)) for each in operands])
        if "sat" in words:
            result = np.where(np.isnan(result), result.dtype.type(0), np.clip(result, 0, 1))
        return bits_of(flush(result))

    return compute


def _integer_arithmetic(instruction: Instruction) -> Compute:
    words = _words(instruction, "lo", "hi", "wide")
    part = next(iter(words), "")
    name, type_name = instruction.words[0], instruction.type
    return lambda operands: integers.integer(name, part, type_name, operands)


def _arithmetic(instruction: Instruction) -> Compute:
    kind = instruction.type
    if kind in {"f32", "f64"}:
        return _float_arithmetic(instruction)
    if kind[:1] in {"s", "u"} and kind in integers.INTEGERS:
        return _integer_arithmetic(instruction)
    raise PtxError(f"no arithmetic of type .{kind} here")


def _extreme(instruction: Instruction) -> Compute:
    kind = instruction.type
    if not kind.startswith("f"):
        return _integer_arithmetic(instruction)
    words = _words(instruction, "ftz", "NaN")
    flush = floats.flushed if "ftz" in words else lambda values: values
    name = instruction.words[0]
    return lambda operands: bits_of(
        floats.larger_or_smaller(
            name, *(flush(read(each, kind)) for each in operands), keep_nan="NaN" in words
        )
    )


def _sign(instruction: Instruction) -> Compute:
    """abs and neg: of a float, its sign bit alone."""
    kind = instruction.type
    if kind[:1] == "s":
        return _integer_arithmetic(instruction)
    words = _words(instruction, "ftz")
    bit = np.uint64(1) << np.uint64(width_of(kind) - 1)
    negates = instruction.words[0] == "neg"

    def compute(operands: list[Bits]) -> Bits:
        value = operands[0]
        if "ftz" in words:
            value = bits_of(floats.flushed(read(value, kind)))
        return value ^ bit if negates else value & ~bit

    return compute


def _copysign(instruction: Instruction) -> Compute:
    _words(instruction)
    bit = np.uint64(1) << np.uint64(width_of(instruction.type) - 1)
    return lambda operands: operands[1] & ~bit | operands[0] & bit


def _bitwise(instruction: Instruction) -> Compute:
    _words(instruction)
    function = integers.BITWISE[instruction.words[0]]
    if instruction.type == "pred" and instruction.words[0] == "not":
        return lambda operands: operands[0] ^ np.uint64(1)
    return lambda operands: function(*operands)


def _counted(instruction: Instruction) -> Compute:
    _words(instruction)
    function, kind = integers.LONG[instruction.words[0]], instruction.type
    return lambda operands: function(read(operands[0], kind))


def _shift(instruction: Instruction) -> Compute:
    _words(instruction)
    name, kind = instruction.words[0], instruction.type
    return lambda operands: integers.shift(name, kind, *operands)


def _funnel(instruction: Instruction) -> Compute:
    words = _words(instruction, "l", "r", "wrap", "clamp")
    direction, mode = ("l" if "l" in words else "r"), ("wrap" if "wrap" in words else "clamp")
    return lambda operands: integers.funnel(direction, mode, *operands)


def _bitfield(instruction: Instruction) -> Compute:
    _words(instruction)
    name, kind = instruction.words[0], instruction.type
    return lambda operands: integers.bitfield(name, kind, operands)


def _permute(instruction: Instruction) -> Compute:
    _words(instruction)
    return lambda operands: integers.permute(*operands)


def _lop3(instruction: Instruction) -> Compute:
    _words(instruction)
    table = instruction.operands[-1].value
    return lambda operands: integers.lop3(table, *operands[:3])


def _dot4(instruction: Instruction) -> Compute:
    signs = "".join(word[0] for word in instruction.words[1:])
    if instruction.words[1:] not in {("s32", "s32"), ("u32", "u32"), ("s32", "u32"), ("u32", "s32")}:
        raise PtxError("unknown types")
    return lambda operands: integers.dot4(signs, *operands)


def _convert(instruction: Instruction) -> Compute:
    return lambda operands: conversions.convert(instruction.words[1:], operands)


def _select(instruction: Instruction) -> Compute:
    _words(instruction)
    if instruction.words[0] == "slct":
        raise PtxError("slct is not known here")
    return lambda operands: np.where(operands[2] != 0, operands[0], operands[1])


def _set_predicate(instruction: Instruction) -> Compute:
    """setp: a comparison; with a boolean operation and a third predicate, both together."""
    how, *rest = [word for word in instruction.words[1:] if word not in {instruction.type, "ftz"}]
    flush = floats.flushed if "ftz" in instruction.words else lambda values: values
    kind = instruction.type if instruction.type != "f16" else "f16"
    if rest and rest[0] not in {"and", "or", "xor"}:
        raise PtxError(f"unknown modifier .{rest[0]}")

    def compute(operands: list[Bits]) -> Bits:
        a, b = (flush(read(each, kind)) for each in operands[:2])
        result = bits_of(integers.compare(how, a, b))
        return integers.BITWISE[rest[0]](result, operands[2]) if rest else result

    return compute


def _set(instruction: Instruction) -> Compute:
    """set: a comparison as all ones, or as 1.0."""
    _, how, to, taken = instruction.words
    one = np.uint64(0x3F80_0000) if to == "f32" else _LOW32
    return lambda operands: (
        bits_of(integers.compare(how, *(read(each, taken) for each in operands[:2]))) * one
    )


def _testp(instruction: Instruction) -> Compute:
    words = _words(instruction, "finite", "infinite", "number", "notanumber", "subnormal")
    tests: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "finite": np.isfinite,
        "infinite": np.isinf,
        "number": lambda x: ~np.isnan(x),
        "notanumber": np.isnan,
        "subnormal": lambda x: (x != 0) & (np.abs(x) < np.finfo(x.dtype).tiny),
    }
    (test,) = words
    return lambda operands: bits_of(tests[test](read(operands[0], instruction.type)))


_TABLE: dict[str, Callable[[Instruction], Compute]] = {
    **dict.fromkeys(("add", "sub", "mul", "mad", "fma", "div", "rem"), _arithmetic),
    **dict.fromkeys(("sqrt", "rcp", "rsqrt", "ex2", "lg2", "sin", "cos", "tanh"), _float_arithmetic),
    **dict.fromkeys(("min", "max"), _extreme),
    **dict.fromkeys(("abs", "neg"), _sign),
    **dict.fromkeys(integers.BITWISE, _bitwise),
    **dict.fromkeys(integers.LONG, _counted),
    **dict.fromkeys(("shl", "shr"), _shift),
    **dict.fromkeys(("bfe", "bfi"), _bitfield),
    "copysign": _copysign,
    "shf": _funnel,
    "prmt": _permute,
    "lop3": _lop3,
    "dp4a": _dot4,
    "cvt": _convert,
    "selp": _select,
    "setp": _set_predicate,
    "set": _set,
    "testp": _testp,
}


def computes(instruction: Instruction) -> Compute | None:
    """Return what an instruction computes from its operands; None where it does not compute.

    Raises:
        PtxError: it has a word that is not known here.
    """
    reader = _TABLE.get(instruction.words[0])
    return reader(instruction) if reader else None
