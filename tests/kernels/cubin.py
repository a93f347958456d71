"""What a cubin says of its kernels: the registers and the local memory that each thread takes."""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["Needs", "needs"]

_SECTION = struct.Struct("<IIQQQQIIQQ")  # Elf64_Shdr: name, type, flags, address, offset, size, ...
_REGISTERS, _FRAME = 0x2F, 0x11  # attributes of .nv.info: (symbol, count) each
_SIZED = 4  # the form of an attribute that says how long it is; others are four bytes in all


@dataclass
class Needs:
    """What one thread of a kernel takes: registers, and bytes of local memory."""

    registers: int = 0
    frame: int = 0


def _sections(elf: bytes) -> dict[str, bytes]:
    """Return the content of each section by its name."""
    (start,), (count, names) = struct.unpack_from("<Q", elf, 40), struct.unpack_from("<HH", elf, 60)
    headers = [_SECTION.unpack_from(elf, start + k * _SECTION.size) for k in range(count)]
    texts = headers[names][4]
    return {_text(elf, texts + each[0]): elf[each[4] : each[4] + each[5]] for each in headers}


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()


def needs(elf: bytes) -> dict[str, Needs]:
    """Return what each kernel of a cubin takes."""
    sections = _sections(elf)
    info, symbols, texts = (sections[name] for name in (".nv.info", ".symtab", ".strtab"))
    found: dict[str, Needs] = {}
    at = 0
    while at < len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == _SIZED:
            if attribute in (_REGISTERS, _FRAME):
                symbol, value = struct.unpack_from("<II", info, at)
                name = _text(texts, *struct.unpack_from("<I", symbols, 24 * symbol))
                which = "registers" if attribute == _REGISTERS else "frame"
                setattr(found.setdefault(name, Needs()), which, value)
            at += size
    return found
