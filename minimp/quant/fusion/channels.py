"""Where a layer's channels lie in its weight: factors by output or input channel, and their ranges.

====================  ====================================  =============================  ==================
layer                 weight                                output channel o               input channel i
====================  ====================================  =============================  ==================
Linear                (out, in)                             row o                          column i
Conv1d, Conv2d        (out, in/groups, *kernel)             row o                          column i mod
                                                                                           in/groups, in the
                                                                                           rows of its group
ConvTranspose1d, 2d   (in, out/groups, *kernel)             column o mod out/groups, in    row i
                                                            the rows of its group
====================  ====================================  =============================  ==================
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minimp.nn import Conv1d, Conv2d, ConvTranspose1d, ConvTranspose2d, Linear
from minimp.nn.module import Module

__all__ = [
    "CONVOLUTIONS", "LAYERS", "TRANSPOSED", "Wide", "channel_axis", "input_factors", "input_ranges",
    "inputs_of", "output_factors", "output_ranges", "outputs_of",
]  # fmt: skip

Wide = np.ndarray[Any, np.dtype[np.float64]]
CONVOLUTIONS: tuple[type[Module], ...] = (Conv1d, Conv2d)
TRANSPOSED: tuple[type[Module], ...] = (ConvTranspose1d, ConvTranspose2d)
LAYERS: tuple[type[Module], ...] = (*CONVOLUTIONS, *TRANSPOSED, Linear)
"""Layers whose outputs are sums of weights times inputs; a subclass may do something else, and is none."""


def outputs_of(layer: Any) -> int:
    """Return the number of output channels."""
    return int(layer.out_features if type(layer) is Linear else layer.out_channels)


def inputs_of(layer: Any) -> int:
    """Return the number of input channels."""
    return int(layer.in_features if type(layer) is Linear else layer.in_channels)


def channel_axis(layer: Any, ndim: int) -> int:
    """Return which axis of an input or output of `ndim` axes the channels are."""
    return ndim - 1 if type(layer) is Linear else ndim - layer.axes - 1


def output_factors(layer: Any, factors: Wide) -> Wide:
    """(out,) -> an array that multiplies the weight channel by channel; it broadcasts to the weight."""
    along = _along_columns if type(layer) in TRANSPOSED else _along_rows
    return along(layer, factors)


def input_factors(layer: Any, factors: Wide) -> Wide:
    """(in,) -> an array that multiplies the weight input by input; it broadcasts to the weight."""
    along = _along_rows if type(layer) in TRANSPOSED else _along_columns
    return along(layer, factors)


def output_ranges(layer: Any, weight: Wide) -> Wide:
    """Return r_o, the largest |weight| that reaches output channel o.  -> (out,)."""
    return (_by_column if type(layer) in TRANSPOSED else _by_row)(layer, weight)


def input_ranges(layer: Any, weight: Wide) -> Wide:
    """Return r_i, the largest |weight| that input channel i meets.  -> (in,)."""
    return (_by_row if type(layer) in TRANSPOSED else _by_column)(layer, weight)


def _along_rows(layer: Any, factors: Wide) -> Wide:
    return factors.reshape(-1, *(1,) * (layer.weight.ndim - 1))


def _along_columns(layer: Any, factors: Wide) -> Wide:
    rows, columns = layer.weight.shape[:2]
    groups = _groups(layer)
    spread = np.repeat(factors.reshape(groups, columns), rows // groups, axis=0)  # (rows, columns)
    return spread.reshape(rows, columns, *(1,) * (layer.weight.ndim - 2))


def _by_row(layer: Any, weight: Wide) -> Wide:
    del layer
    found: Wide = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    return found


def _by_column(layer: Any, weight: Wide) -> Wide:
    rows, columns = weight.shape[:2]
    groups = _groups(layer)
    blocks = np.abs(weight).reshape(groups, rows // groups, columns, -1)
    found: Wide = blocks.max(axis=(1, 3)).reshape(-1)  # (groups * columns,)
    return found


def _groups(layer: Any) -> int:
    return 1 if type(layer) is Linear else int(layer.groups)
