"""A model's parameters and buffers written in a 16-bit format, with an account of what was lost."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minimp import formats
from minimp.checkpoint.saving import load, save
from minimp.errors import DataError, FormatError, SettingError
from minimp.files import AnyPath
from minimp.files.sealed import Array
from minimp.formats import Format
from minimp.nn import Module
from minimp.tensors import Tensor

__all__ = ["ExportReport", "TensorExport", "export"]

TARGETS = ("float16", "bfloat16", "float32")
SHOWN = 4
"""Tensors that a message names."""


@dataclass(frozen=True, slots=True)
class TensorExport:
    """What became of one tensor.

    Attributes:
        name: its path in the model.
        elements: how many numbers it has.
        dtype, bytes_before: how it was stored, and in how many bytes.
        exported_dtype, bytes_after: how it is stored in the file. Integers and bools are left as they are.
        nonfinite: elements that were infinite or NaN before, and still are.
        overflowed: finite elements that became infinite.
        flushed: elements other than 0 that became 0.
        subnormal: elements that are subnormal now, and so have lost bits of their significand.
        max_relative_error: the largest |y - x| / |x| of finite x that did not overflow; 1 for a flushed one.
        largest: the largest finite |x|.
    """

    name: str
    elements: int
    dtype: str
    bytes_before: int
    exported_dtype: str
    bytes_after: int
    nonfinite: int
    overflowed: int
    flushed: int
    subnormal: int
    max_relative_error: float
    largest: float


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote; its sums are over all tensors, and a tied tensor counts once.

    Attributes:
        path: the file.
        dtype: the format of its floating numbers.
        tensors: one row a tensor, in the model's order.
        file_bytes: the size of the file: the tensors' bytes, and the header with names and checksum.
    """

    path: Path
    dtype: str
    tensors: tuple[TensorExport, ...]
    file_bytes: int

    @property
    def elements(self) -> int:
        """How many numbers the file has."""
        return sum(row.elements for row in self.tensors)

    @property
    def bytes_before(self) -> int:
        """Bytes of the tensors as they were."""
        return sum(row.bytes_before for row in self.tensors)

    @property
    def bytes_after(self) -> int:
        """Bytes of the tensors in the file, without its header."""
        return sum(row.bytes_after for row in self.tensors)

    @property
    def nonfinite(self) -> int:
        """Elements that were infinite or NaN before."""
        return sum(row.nonfinite for row in self.tensors)

    @property
    def overflowed(self) -> int:
        """Finite elements that became infinite."""
        return sum(row.overflowed for row in self.tensors)

    @property
    def flushed(self) -> int:
        """Elements other than 0 that became 0."""
        return sum(row.flushed for row in self.tensors)

    @property
    def subnormal(self) -> int:
        """Elements that are subnormal now."""
        return sum(row.subnormal for row in self.tensors)

    @property
    def max_relative_error(self) -> float:
        """The largest |y - x| / |x| of all tensors; 1 if anything was flushed."""
        return max((row.max_relative_error for row in self.tensors), default=0.0)

    def __str__(self) -> str:
        ratio = self.bytes_after / self.bytes_before if self.bytes_before else 1.0
        return "\n".join(
            (
                f"{self.path}: {self.elements:,} numbers, {self.dtype}",
                f"bytes of tensors   {self.bytes_before:,} -> {self.bytes_after:,} ({ratio:.2f} x)",
                f"became infinite    {self.overflowed:,}",
                f"became zero        {self.flushed:,}",
                f"became subnormal   {self.subnormal:,}",
                f"largest relative error {self.max_relative_error:.3g}",
            )
        )


def export(
    path: AnyPath,
    source: Module | Mapping[str, Any] | AnyPath,
    dtype: Any = "float16",
    *,
    allow_overflow: bool = False,
    meta: Mapping[str, str] | None = None,
) -> ExportReport:
    """Write the weights of a model in another format: y = round(x), once, to nearest, ties to even.

    The file holds one flat state dict with torch's keys, for :meth:`Module.load_state_dict`,
    ``safetensors.torch.load_file`` and ``load_model``. A tied tensor is written once, under the first of its
    names in alphabetical order, and the metadata maps the others to it, as ``safetensors.torch.save_model``
    has it. The model itself does not change.

    Args:
        path: the file to write.
        source: a module; its state dict; the state of a run, whose ``"model"`` is taken; or the file of one
            of these. Ties are known from a module or its state dict, not from a file.
        dtype: ``"float16"``, ``"bfloat16"`` or ``"float32"``, in any spelling of `mp.formats.get`.
        allow_overflow: write infinities where finite numbers do not fit the format.
        meta: strings to put into the metadata beside ``format``, which is "pt", and the tied names.

    Raises:
        DataError: a finite number does not fit the format; nothing is written then.
        FormatError: another format.
        SettingError: the source holds no tensors, or something else too.
        CheckpointError: the source's file cannot be read, or `path` cannot be written.
    """
    form = formats.get(dtype)
    if form.name not in TARGETS:
        raise FormatError(
            f"expected one of {', '.join(TARGETS)}, got {form.name}", op="export", formats=[form.name]
        )
    arrays, tied = _once(_weights_of(source))
    made: dict[str, Array] = {}
    rows = []
    for name, array in arrays.items():
        made[name], row = _rounded(name, array, form)
        rows.append(row)
    if not allow_overflow:
        _refuse_overflow(rows, form)
    save(path, made, meta={"format": "pt", **tied, **(meta or {})})
    return ExportReport(Path(path), form.name, tuple(rows), os.stat(path).st_size)


def _weights_of(source: Any) -> dict[str, Any]:
    """Return the flat state dict of whatever holds one."""
    if isinstance(source, str | os.PathLike):
        source = load(source)
    state = source.state_dict() if isinstance(source, Module) else source
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
        state = state["model"]
    if not isinstance(state, Mapping) or not state:
        what = "nothing" if isinstance(state, Mapping) else f"a {type(state).__name__}"
        raise SettingError(f"expected a module or its state, got {what}", op="export")
    for name, value in state.items():
        if not isinstance(value, Tensor | np.ndarray | np.generic):
            raise SettingError(
                f"expected tensors alone, got a {type(value).__name__} under {name!r}",
                op="export",
                help="give the module, or the part of the state that is its state dict",
            )
    return dict(state)


def _once(state: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, str]]:
    """Return the arrays, each once, and for the further names of tied ones the name that was kept."""
    held = {name: value.array if isinstance(value, Tensor) else value for name, value in state.items()}
    kept: dict[int, str] = {}
    for name in sorted(held):
        kept.setdefault(id(held[name]), name)
    tied = {name: kept[id(array)] for name, array in held.items() if kept[id(array)] != name}
    return {name: _on_host(state[name]) for name in held if name not in tied}, tied


def _on_host(value: Any) -> Array:
    return np.asarray(value.backend.to_host(value.array) if isinstance(value, Tensor) else value)


def _rounded(name: str, array: Array, form: Format) -> tuple[Array, TensorExport]:
    """Return an array in the format, and what became of its elements."""
    made, x = array, np.zeros(0)
    if _is_floating(array.dtype):
        made, x = np.asarray(formats.round(array, form), form.dtype), array.astype(np.float64)
    y = made.astype(np.float64) if made is not array else x
    row = TensorExport(
        name, array.size, array.dtype.name, array.nbytes, made.dtype.name, made.nbytes, **_counts(x, y, form)
    )
    return made, row


def _is_floating(dtype: np.dtype[Any]) -> bool:
    try:
        formats.get(dtype)
    except FormatError:
        return False
    return not np.issubdtype(dtype, np.integer)


def _counts(x: Array, y: Array, form: Format) -> dict[str, Any]:
    """Count what became of x, which is y now."""
    finite, size = np.isfinite(x), np.abs(y)
    stayed = finite & np.isfinite(y) & (x != 0)
    errors = np.abs(y[stayed] - x[stayed]) / np.abs(x[stayed])
    return {
        "nonfinite": int(np.count_nonzero(~finite)),
        "overflowed": int(np.count_nonzero(finite & ~np.isfinite(y))),
        "flushed": int(np.count_nonzero((x != 0) & (y == 0))),
        "subnormal": int(np.count_nonzero((y != 0) & (size < form.smallest_normal))),
        "max_relative_error": float(errors.max(initial=0.0)),
        "largest": float(np.abs(x[finite]).max(initial=0.0)),
    }


def _refuse_overflow(rows: list[TensorExport], form: Format) -> None:
    """Raise if a finite number became infinite, naming the tensors."""
    over = [row for row in rows if row.overflowed]
    if not over:
        return
    named = ", ".join(f"{r.name} ({r.overflowed:,} of {r.elements:,})" for r in over[:SHOWN])
    rest = f" and {len(over) - SHOWN} tensors more" if len(over) > SHOWN else ""
    raise DataError(
        f"{named}{rest}: up to {max(r.largest for r in over):.6g}, and {form.name} ends at {form.max:g}",
        op="export",
        formats=[form.name],
        help='export as "bfloat16", or pass allow_overflow=True to write infinities',
    )
