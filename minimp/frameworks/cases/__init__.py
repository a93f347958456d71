"""The calls by which minimp's ops are compared with another library's: one file a family.

Every op that has a counterpart in PyTorch is called at least once; :data:`NO_COUNTERPART` says why not the
others.
"""

from collections.abc import Mapping
from types import MappingProxyType

from minimp.frameworks.cases import core, elementwise, families, layers
from minimp.frameworks.cases.base import Case, Library, Shapes, minimp_library, torch_library

__all__ = [
    "CASES", "NO_COUNTERPART", "Case", "Library", "Shapes", "minimp_library",
    "torch_library",
]  # fmt: skip

CASES: tuple[Case, ...] = (*core.CASES, *families.CASES, *elementwise.CASES, *layers.CASES)
"""All calls."""
_PART = "a gradient that has a gradient itself: part of its op's backward in PyTorch"
_RECURRENCE = "a whole recurrence: PyTorch hands it to ops that differ by device"
NO_COUNTERPART: Mapping[str, str] = MappingProxyType(
    {
        "cast": "what the formats of the others are made by",
        **dict.fromkeys(
            ("adaptive_avg_pool2d_input", "avg_pool2d_input", "conv2d_input", "conv2d_weight",
             "max_pool2d_input", "resample", "resample_input", "unindex"), _PART,
        ),
        **dict.fromkeys(
            ("fake_quantize_per_channel_affine", "fake_quantize_per_tensor_affine"),
            "PyTorch has no kernel of it for the tensors without memory by which CUDA is tried",
        ),
        "linear_fp8": "PyTorch has its products alone (_scaled_mm); the recipes are Transformer Engine's",
        **dict.fromkeys(("gru", "lstm", "rnn_relu", "rnn_tanh"), _RECURRENCE),
    }
)  # fmt: skip
"""Ops of minimp that PyTorch has not as one op, and why."""
