"""Parameters in a format of their own: float32 weights beside an input in 16 bits.

So are normalising layers fed under autocast, and so do torch's CPU kernels take them (2.13: "mixed dtype").
The op computes in float32, its result has the input's format, and each gradient that of what it belongs to.
"""

from __future__ import annotations

from minimp import formats
from minimp.errors import FormatError
from minimp.formats import Format
from minimp.policy import FLOATING, format_of
from minimp.tape import Array, Node

__all__ = ["check_formats", "formats_of", "to_format"]

LOW = (formats.float16, formats.bfloat16)


def check_formats(op: str, fmt: Format | None, *parameters: Array | None) -> None:
    """Refuse parameters that are neither all in the input's format nor all in float32 beside 16 bits."""
    held = [format_of(p.dtype) for p in parameters if p is not None]
    alike = all(f is fmt for f in held)
    if fmt in FLOATING and (alike or (fmt in LOW and all(f is formats.float32 for f in held))):
        return
    names = [str(fmt), *map(str, held)]
    raise FormatError(
        f"expected parameters in the input's format, or float32 beside 16 bits, got {', '.join(names[1:])} "
        f"beside {names[0]}",
        op=op, formats=names, help="cast the input or the parameters with .to(...)",
    )  # fmt: skip


def formats_of(*arrays: Array | None) -> tuple[Format | None, ...]:
    """The format of each input, for :func:`to_format`."""
    return tuple(None if a is None else format_of(a.dtype) for a in arrays)


def to_format(ctx: Node, index: int, wide: Array) -> Array | None:
    """Round a gradient to the format of input `index`, found in `ctx.memo`; None if it is not needed."""
    if len(ctx.inputs) <= index or not ctx.needs(index):
        return None
    return ctx.backend.narrow(wide, ctx.memo[index])
