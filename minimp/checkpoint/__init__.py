"""Saving and loading: one safetensors file, written whole or not at all, every byte of it under a checksum.

A state is a nested dict: tensors, arrays, numbers, strings, bools and None, in dicts, lists and tuples. An
array lies in the file under its path in the state, as in ``model/0.weight``, and so under ``0.weight`` where
the state is a module's own; all the rest is JSON in the metadata of the file. So any reader of safetensors
can open a checkpoint, and nothing in it is ever executed.

:func:`export` writes weights in a 16-bit format, for other programs and for inference.

:mod:`minimp.files.sealed` has the layout of the file, :mod:`minimp.files.whole` how it comes to the disk.
"""

from minimp.checkpoint.exporting import ExportReport, TensorExport, export
from minimp.checkpoint.saving import load, read_meta, save

__all__ = ["ExportReport", "TensorExport", "export", "load", "read_meta", "save"]
