"""A number format as one 64-bit number, the way in which it travels to `formats.cuh`, and back."""

from __future__ import annotations

from minimp.formats import FORMATS, OVERFLOWS, ROUNDINGS, Format
from minimp.formats.flavours import FLAVOURS

__all__ = ["MODES", "format_of", "needs_64_bits", "overflow_of", "pack", "rule_of"]

MODES = tuple(ROUNDINGS)
"""The rounding modes in the order of `enum Rounding`."""

_FIELDS = (  # name, bits; the lowest first, as the constructor of Format in formats.cuh takes them out
    ("mantissa_bits", 6), ("exponent_bits", 4), ("emin", 13), ("padding", 6), ("bytes", 4), ("nan_place", 2),
    ("signed", 1), ("has_inf", 1), ("has_zero", 1), ("has_negative_zero", 1), ("is_gradual", 1),
    ("is_integer", 1),
)  # fmt: skip
_NAN_PLACES = {None: 0, "top": 1, "ones": 2, "sign": 3}
_LOWEST = 4096  # added to emin, which is negative as a rule
_RULES = ("saturates", "keeps_zero", "drops_sign", "lifts_lowest", "flushes")
"""The bits of `enum Rule`, the lowest first."""
_PACKED: dict[int, Format] = {}


def pack(format: Format) -> int:
    """Return the number that stands for a format on the device."""
    parts = {
        "emin": format.emin + _LOWEST,
        "bytes": format.dtype.itemsize,
        "nan_place": _NAN_PLACES[FLAVOURS[format.flavour].nan],
    }
    packed = place = 0
    for name, bits in _FIELDS:
        value = int(parts.get(name, getattr(format, name, 0)))
        assert 0 <= value < 1 << bits, f"{name} of {format} does not fit its {bits} bits"
        packed |= value << place
        place += bits
    _PACKED.setdefault(packed, format)  # formats of one number differ in name alone
    return packed


def format_of(packed: int) -> Format:
    """Return the format that a number stands for, or another with the same codes; the inverse of `pack`."""
    if not _PACKED:
        for each in FORMATS.values():
            pack(each)
    return _PACKED[int(packed)]


def needs_64_bits(source: Format, target: Format) -> bool:
    """Return whether a cast needs 64-bit integers: one of the formats is wider than float32."""
    return any(each.dtype.itemsize > 4 or not each.within_float32 for each in (source, target))


def rule_of(overflow: str | None, format: Format, subnormals: str = "keep") -> int:
    """Return what `enum Rule` says of an overflow rule in a format, and of flushing."""
    rule = OVERFLOWS["ieee" if overflow is None else overflow]
    switches = {
        "saturates": rule.saturates(format),
        "flushes": subnormals == "flush",
        **{name: getattr(rule, name) for name in ("keeps_zero", "drops_sign", "lifts_lowest")},
    }
    return sum(1 << bit for bit, name in enumerate(_RULES) if switches[name])


def overflow_of(rule: int, format: Format) -> tuple[str, str]:
    """Return the names (overflow, subnormals) behind the bits of a rule in a format."""
    subnormals = "flush" if rule >> _RULES.index("flushes") & 1 else "keep"
    names = [each.name for each in OVERFLOWS.values() if each.serves(format)]
    return next(name for name in names if rule_of(name, format, subnormals) == rule), subnormals
