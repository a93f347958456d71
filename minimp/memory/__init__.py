"""Bytes by cause: what a training step holds and why, forecast from shapes and measured.

Two columns. *Logical*: what hardware with real 16-bit arithmetic would hold. *Physical*: what this process
holds: also float32 twins of 16-bit arrays (:mod:`minimp_backends.twins`), and gradients in float32.
"""

from minimp.memory.applying import Applied, inference
from minimp.memory.classics import Claim, claims
from minimp.memory.counting import saved_arrays, scratch_bytes
from minimp.memory.forecasting import forecast, on_shapes
from minimp.memory.measuring import ledger, measure
from minimp.memory.records import CAUSES, MOMENTS, Bytes, Ledger

__all__ = [
    "CAUSES", "MOMENTS", "Applied", "Bytes", "Claim", "Ledger", "claims", "forecast", "inference", "ledger",
    "measure", "on_shapes", "saved_arrays", "scratch_bytes",
]  # fmt: skip
