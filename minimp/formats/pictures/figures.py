"""matplotlib, loaded on first use, and its figures as files that are written whole or not at all."""

from __future__ import annotations

import io
from importlib import import_module
from typing import Any

from minimp.errors import SettingError
from minimp.files import AnyPath, write_whole

__all__ = ["KINDS", "load", "new_axes", "new_figure", "save_figure"]

KINDS = ("png", "svg")
_DPI = 100  # of a PNG


def load(module: str) -> Any:
    """Import a module of matplotlib.

    Raises:
        SettingError: matplotlib is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as fault:
        raise SettingError(
            f"pictures are drawn by matplotlib, and there is no module {fault.name!r} here",
            op="plot",
            help='pip install "minimp[plot]"',
        ) from fault


def new_axes(width: float, height: float) -> Any:
    """Axes on a new figure of pyplot's, width × height in inches, that plt.show() would show."""
    _, ax = load("matplotlib.pyplot").subplots(figsize=(width, height), layout="constrained")
    return ax


def new_figure(width: float, height: float) -> Any:
    """A figure that pyplot knows nothing of, width × height in inches: for a file, not for a window."""
    return load("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: AnyPath, kind: str) -> None:
    """Write a figure to a file, whole or not at all; the same figure gives the same bytes.

    Args:
        figure: a matplotlib Figure.
        path: the file; its folder must exist.
        kind: one of ``KINDS``.

    Raises:
        SettingError: unknown kind.
        DataError: the file cannot be written.
    """
    if kind not in KINDS:
        raise SettingError(f"expected one of {', '.join(KINDS)}, got {kind!r}", op="save_figure")
    buffer = io.BytesIO()
    undated = {"Date": None} if kind == "svg" else {}
    with load("matplotlib").rc_context({"svg.hashsalt": "minimp", "savefig.dpi": _DPI}):
        figure.savefig(buffer, format=kind, metadata=undated)
    write_whole(path, buffer.getvalue(), op="save_figure")
