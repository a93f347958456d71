"""Calls of every op: one file a family, each with a list SAMPLES."""

from minimp import ops
from minimp.frameworks.cases.numbers import KINDS, numbers
from tests.ops.samples import (
    activations,
    adaptive,
    attention,
    contractions,
    convolution,
    core,
    edges,
    eight_bits,
    elementary,
    fake_quantization,
    indexing,
    losses,
    norms,
    places,
    recurrent,
    resampling,
    scans,
    selection,
    statistics,
)
from tests.ops.samples.base import FLOATS, LABELS, WEIGHTS, S, Sample, leaves, run

FILES = (
    core, places, attention, convolution, activations, selection, statistics, contractions, indexing,
    losses, adaptive, resampling, norms, elementary, scans, recurrent, edges, eight_bits, fake_quantization,
)  # fmt: skip
SAMPLES = [sample for file in FILES for sample in file.SAMPLES]
DIFFERENTIABLE = [each for each in SAMPLES if ops.OPS[each.op].backward_rule is not None]
STRAIGHT_THROUGH = frozenset(
    {"linear_fp8", "fake_quantize_per_channel_affine", "fake_quantize_per_tensor_affine"}
)
"""Ops whose gradient is another than the derivative by definition, and has none itself."""

__all__ = [
    "DIFFERENTIABLE",
    "FLOATS",
    "KINDS",
    "LABELS",
    "SAMPLES",
    "STRAIGHT_THROUGH",
    "WEIGHTS",
    "S",
    "Sample",
    "leaves",
    "numbers",
    "run",
]  # fmt: skip
