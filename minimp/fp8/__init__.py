"""FP8 recipes: how tensors are scaled into the range of an 8-bit format, and the state that this takes.

The recipes are data (:mod:`minimp.fp8.recipes`), the rules pure functions (:mod:`minimp.fp8.scales`); the op
is `linear_fp8`, and `fp8_autocast` is the region in which `nn.Linear` runs it.
"""

from minimp.fp8.quantizing import Copy, Operand, copy_of, operand_of
from minimp.fp8.recipes import (
    ROLES,
    DelayedScaling,
    FixedScaling,
    Float8BlockScaling,
    Float8CurrentScaling,
    Fp8Recipe,
    MXFP8BlockScaling,
    fp8_recipes,
)
from minimp.fp8.region import Fp8Region, fp8_autocast, is_fp8_enabled
from minimp.fp8.report import Losses, TensorLosses, losses_of, watch
from minimp.fp8.scales import current_scale, delayed_scale, inverse_of, next_history
from minimp.fp8.states import (
    LinearState,
    TensorState,
    advance,
    aligned,
    linears,
    load_state_dict,
    state_dict,
    states,
)

__all__ = [
    "ROLES", "Copy", "DelayedScaling", "FixedScaling", "Float8BlockScaling", "Float8CurrentScaling",
    "Fp8Recipe", "Fp8Region", "LinearState", "Losses", "MXFP8BlockScaling", "Operand", "TensorLosses",
    "TensorState", "advance", "aligned", "copy_of", "current_scale", "delayed_scale", "fp8_autocast",
    "fp8_recipes", "inverse_of", "is_fp8_enabled", "linears", "load_state_dict", "losses_of", "next_history",
    "operand_of", "state_dict", "states", "watch",
]  # fmt: skip
