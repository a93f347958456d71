"""PTX text as data: entries, their parameters, variables and instructions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Entry", "Instruction", "Operand", "PtxError", "Variable", "parse", "size_of"]


class PtxError(Exception):
    """PTX that this package cannot read or run, or that does what no GPU would let pass."""


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand.

    Attributes:
        kind: ``register``, ``integer``, ``float`` (its bits), ``symbol``, ``address`` or ``vector``.
        name: of the register or symbol; of an address, of what it is relative to.
        value: of an immediate; of an address or symbol, the offset in bytes.
        width: of a float immediate, in bits.
        parts: of a vector (also of ``d|p``).
    """

    kind: str
    name: str = ""
    value: int = 0
    width: int = 0
    parts: tuple[Operand, ...] = ()


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: ``@!%p1 ld.global.u32 %r1, [%rd1+4];`` with its line in the text."""

    line: int
    text: str
    words: tuple[str, ...]
    operands: tuple[Operand, ...]
    guard: str = ""
    negated: bool = False

    @property
    def type(self) -> str:
        """The last word that is a type, for example ``f32``; "" where there is none."""
        return next((word for word in reversed(self.words) if re.fullmatch(_TYPE, word)), "")


@dataclass(frozen=True, slots=True)
class Variable:
    """A parameter, or a variable in shared, local, constant or global memory."""

    name: str
    space: str
    size: int
    align: int
    content: bytes = b""


@dataclass
class Entry:
    """One kernel."""

    name: str
    parameters: list[Variable] = field(default_factory=list)
    variables: list[Variable] = field(default_factory=list)
    registers: dict[str, str] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    tables: dict[str, list[str]] = field(default_factory=dict)


_TYPE = r"(?:pred|[usbf](?:8|16|32|64|128)|bf16|tf32|f16x2|bf16x2|e4m3x2|e5m2x2|[us]16x2|b1)"
_SPACES = ("param", "shared", "local", "const", "global")
_VARIABLE = re.compile(
    rf"(?:\.(?:visible|extern|weak)\s+)*\.({'|'.join(_SPACES)})\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+"
    r"(?:\.ptr\s+(?:\.\w+\s+)?(?:\.align\s+\d+\s+)?)?([\w$]+)((?:\[\d*\])*)(?:\s*=\s*(.*))?$",
    re.DOTALL,
)
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.*)$", re.DOTALL)
_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)[^{]*\{")
_INSTRUCTION = re.compile(r"(?:@(!?)([%\w$]+)\s+)?([a-z][\w.:]*)\s*(.*)$", re.DOTALL)
_LABEL = re.compile(r"\s*([\w$]+):(?!:)\s*")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)


def size_of(type_name: str) -> int:
    """Return the bytes of a type such as ``u32`` or ``f16x2``."""
    digits = re.fullmatch(r"[a-z]+(\d+)(?:x(\d+))?", type_name)
    if not digits:
        raise PtxError(f"unknown type .{type_name}")
    return max(int(digits[1]) * int(digits[2] or 1) // 8, 1)


def parse(text: str) -> dict[str, Entry]:
    """Return every entry of a PTX text by name.

    Raises:
        PtxError: the text has something that this parser does not know.
    """
    plain = _COMMENT.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    entries = {}
    outside = []
    end = 0
    for match in _ENTRY.finditer(plain):
        outside.append(plain[end : match.start()])
        end = _matching_brace(plain, match.end() - 1)
        entry = Entry(match[1])
        entry.parameters = [_variable(each.strip()) for each in match[2].split(",") if each.strip()]
        _Body(entry, plain.count("\n", 0, match.end())).read(plain[match.end() : end])
        entries[entry.name] = entry
        end += 1
    outside.append(plain[end:])
    shared = [_variable(each) for part in outside for each in _module_variables(part)]
    for entry in entries.values():
        entry.variables[:0] = shared
    return entries


def _matching_brace(text: str, start: int) -> int:
    depth = 0
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise PtxError("a brace is never closed")


def _module_variables(text: str) -> Iterator[str]:
    for part in text.split(";"):
        statement = re.sub(r"^\s*(?:\.(?:version|target|address_size)[^\n]*\s*)*", "", part).strip()
        if re.match(r"(?:\.visible|\.weak)?\s*\.func", statement):
            raise PtxError(f"a function of its own is not known here: {statement.split('(')[0]}")
        if statement and not re.fullmatch(r"(?:\.visible|\.weak|\.func|\s)*", statement):
            yield statement


def _variable(text: str) -> Variable:
    match = _VARIABLE.match(text)
    if not match:
        raise PtxError(f"unknown declaration: {text}")
    space, align, type_name, name, dimensions, content = match.groups()
    size = size_of(type_name)
    count = 1
    for each in re.findall(r"\[(\d*)\]", dimensions):
        count *= int(each or 0)
    data = b""
    if content:
        numbers = re.findall(r"0[fFdD][0-9A-Fa-f]+|-?0x[0-9A-Fa-f]+|-?\d+", content)
        data = b"".join((_number(each)[0] & (1 << 8 * size) - 1).to_bytes(size, "little") for each in numbers)
    return Variable(name, space, count * size, int(align or size), data)


def _number(text: str) -> tuple[int, int]:
    """An immediate's bits, and of a float its width (0 for an integer)."""
    lower = text.lower()
    if lower.startswith(("0f", "0d")):
        return int(f"0x{text[2:]}", 0), 32 if lower[1] == "f" else 64
    return int(lower.rstrip("u"), 0), 0


class _Body:
    """Reads the body of an entry; a name that is declared again in an inner block is another register."""

    def __init__(self, entry: Entry, line: int) -> None:
        self.entry, self.line = entry, line + 1
        self.scopes: list[dict[str, str]] = [{}]
        self.blocks = 0

    def read(self, text: str) -> None:
        pending = ""
        for piece in re.split(r"([{};])", text):
            opens = piece == "{" and not _is_operand_brace(pending)
            closes = piece == "}" and "{" not in pending
            if opens:
                self.scopes.append({})
                self.blocks += 1
            elif closes:
                self.scopes.pop()
            elif piece == ";":
                self.statement(pending.strip())
                pending = ""
            else:
                self.line += piece.count("\n")
                pending = self.labels(pending + piece) if piece not in "{}" else pending + piece
                continue
            if opens or closes:
                pending = ""
        if pending.strip():
            raise PtxError(f"line {self.line}: no end to {pending.strip()!r}")

    def labels(self, text: str) -> str:
        """Note the labels that a text begins with; return the rest."""
        while match := _LABEL.match(text):
            self.entry.labels[match[1]] = len(self.entry.instructions)
            text = text[match.end() :]
        return text

    def statement(self, text: str) -> None:
        if not text or text.startswith((".pragma", ".loc", ".file", ".section")):
            return
        if match := _REGISTERS.match(text):
            self.declare(match[1], match[2])
        elif text.startswith(".branchtargets"):
            raise PtxError(f"line {self.line}: a branch table outside its label: {text}")
        elif text.startswith("."):
            self.entry.variables.append(_variable(text))
        else:
            self.entry.instructions.append(self.instruction(text))

    def declare(self, type_name: str, names: str) -> None:
        for name in (each.strip() for each in names.split(",")):
            several = re.fullmatch(r"([%\w$]+)<(\d+)>", name)
            each = [f"{several[1]}{k}" for k in range(int(several[2]))] if several else [name]
            for register in each:
                unique = register if len(self.scopes) == 1 else f"{register}@{self.blocks}"
                self.scopes[-1][register] = unique
                self.entry.registers[unique] = type_name

    def resolved(self, name: str) -> str:
        return next((scope[name] for scope in reversed(self.scopes) if name in scope), name)

    def instruction(self, text: str) -> Instruction:
        match = _INSTRUCTION.match(text)
        if not match:
            raise PtxError(f"line {self.line}: not an instruction: {text}")
        negated, guard, opcode, operands = match.groups()
        return Instruction(
            self.line,
            " ".join(text.split()),
            tuple(opcode.replace("::", ".").split(".")),
            tuple(self.operand(each) for each in _split(operands)),
            self.resolved(guard) if guard else "",
            bool(negated),
        )

    def operand(self, text: str) -> Operand:
        if "|" in text:
            return Operand("vector", parts=tuple(self.operand(each.strip()) for each in text.split("|")))
        if text[0] == "{":
            return Operand("vector", parts=tuple(self.operand(each) for each in _split(text[1:-1])))
        if text[0] == "[":
            name, offset = _relative(text[1:-1])
            return Operand("address", self.resolved(name), offset)
        if text[0].isdigit() or (text[0] == "-" and text[1].isdigit()):
            value, width = _number(text)
            return Operand("float" if width else "integer", value=value, width=width)
        return self.named(text)

    def named(self, text: str) -> Operand:
        if text[0] == "!":
            return Operand("register", f"!{self.resolved(text[1:])}")
        name, offset = _relative(text)
        name = self.resolved(name)
        register = name in self.entry.registers or name.startswith("%") or name == "_"
        return Operand("register" if register else "symbol", name, offset)


def _is_operand_brace(before: str) -> bool:
    """Whether a brace that follows this text opens a vector of operands rather than a block."""
    return bool(before.strip())


def _split(text: str) -> list[str]:
    """Split at the commas that are not inside braces or brackets."""
    return [each.strip() for each in re.split(r",(?![^{\[]*[}\]])", text) if each.strip()]


def _relative(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"\s*([%\w$.]+)\s*(?:\+\s*(-?\w+))?\s*", text)
    if not match:
        raise PtxError(f"unknown operand: {text}")
    if match[1][0].isdigit():
        return "", int(match[1], 0) + int(match[2] or "0", 0)
    return match[1], int(match[2] or "0", 0)
