"""Quantised models in one safetensors file, written whole or not at all, and read without running anything.

The file holds every parameter and buffer under its path in the model, as it is in memory: codes as int8 or
uint8 (those of int4 and narrower static models too, one a byte; weight-only formats below 8 bits packed, as
their layers have them), scales as float32, zero points and biases of integer layers as int32. A tensor that
stands at several paths is there once. The metadata holds the tree of modules in JSON (`minimp.quant`): the
class of each by its name in a table, and its settings, which are numbers, words and tuples of them. So the
model is rebuilt without the float model, and no class is found by a name that the file chose.

- ``classes``: the table. ``values``: settings as JSON. ``describing``, ``building``: model to tree, and back.
- ``files``: :func:`save` and :func:`load`.
"""

from minimp.quant.saving.files import load, save

__all__ = ["load", "save"]
