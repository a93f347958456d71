"""The library onnx: an extra, imported when it is used."""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp.errors import SettingError

__all__ = ["OPSETS", "library", "opset_of"]

OPSETS = (13, 25)
"""The first opset that is written, in which QuantizeLinear has channels, and the last one that is tested."""


def library(op: str) -> Any:
    """Return the module onnx.

    Raises:
        SettingError: it is not installed.
    """
    try:
        import onnx
        import onnx.reference
    except ImportError as fault:
        raise SettingError("onnx is not installed", op=op, help='pip install "minimp[onnx]"') from fault
    return onnx


def opset_of(onnx: Any, wanted: object, op: str) -> int:
    """Return the opset that is asked for.

    Raises:
        SettingError: it is older than 13, or newer than what is tested, or than the installed onnx.
    """
    first, last = OPSETS[0], min(OPSETS[1], onnx.defs.onnx_opset_version())
    number = int(wanted) if isinstance(wanted, int | np.integer) and not isinstance(wanted, bool) else 0
    if not first <= number <= last:
        raise SettingError(
            f"opset must be a whole number from {first} to {last}, got {wanted!r}", op=op,
            help=f"leave it out, or install an onnx newer than {onnx.__version__}",
        )  # fmt: skip
    return number
