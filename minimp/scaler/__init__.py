"""Loss scaling: the rule by which the scale moves, and the scaler that follows it."""

from minimp.scaler.grad_scaler import GradScaler
from minimp.scaler.health import ScaleHealth
from minimp.scaler.layerwise import LayerwiseScaler
from minimp.scaler.losses import LossScalers
from minimp.scaler.machine import ScaleRule, ScaleState, next_state
from minimp.scaler.presets import PRESETS, Preset, presets_table, replay
from minimp.scaler.records import ScalerStep

__all__ = [
    "PRESETS",
    "GradScaler",
    "LayerwiseScaler",
    "LossScalers",
    "Preset",
    "ScaleHealth",
    "ScaleRule",
    "ScaleState",
    "ScalerStep",
    "next_state",
    "presets_table",
    "replay",
]
