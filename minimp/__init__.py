"""minimp: mixed-precision training that can be read, stepped through and checked.

>>> import minimp as mp
>>> w = mp.tensor([[1.0, 2.0]], requires_grad=True)
>>> with mp.autocast("float16"):
...     loss = (w @ mp.tensor([[3.0], [4.0]])).sum()
>>> loss.backward()
>>> w.grad
tensor([[3., 4.]])
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from minimp import errors, formats
from minimp.backend import available_backends, use_backend
from minimp.custom import Function
from minimp.differentiation import grad
from minimp.door import OPS, Op, cast, op
from minimp.formats import (
    bfloat16,
    float4_e2m1fn,
    float6_e2m3fn,
    float6_e3m2fn,
    float8_e4m3fn,
    float8_e4m3fnuz,
    float8_e5m2,
    float8_e5m2fnuz,
    float16,
    float32,
    float64,
    int8,
    tfloat32,
)
from minimp.function_casts import custom_bwd, custom_fwd
from minimp.modes import accumulate, enable_grad, is_grad_enabled, no_grad
from minimp.policy import Policy, autocast, get_autocast_dtype, is_autocast_enabled, policies
from minimp.recipe import Recipe, recipes
from minimp.rerun import recompute
from minimp.rng import get_rng_state, manual_seed, set_rng_state
from minimp.tensors import Tensor, from_dlpack, tensor

if TYPE_CHECKING:
    from minimp import (
        checks,
        data,
        fp8,
        functional,
        labs,
        memory,
        models,
        nn,
        optim,
        quant,
        stepper,
        trace,
    )
    from minimp.bisecting import bisect
    from minimp.checkpoint import load, save
    from minimp.evaluation import evaluate
    from minimp.fp8 import fp8_autocast
    from minimp.functional.creation import (
        arange,
        eye,
        full,
        full_like,
        linspace,
        ones,
        ones_like,
        rand,
        rand_like,
        randn,
        randn_like,
        zeros,
        zeros_like,
    )
    from minimp.interop import from_torch
    from minimp.ladder import debug
    from minimp.scaler import GradScaler, LayerwiseScaler, LossScalers
    from minimp.step import TrainStep
    from minimp.trace import detect_anomaly
    from minimp.trainer import Trainer

__version__ = "0.1.0"

__all__ = [
    "OPS",
    "Function",
    "GradScaler",
    "LayerwiseScaler",
    "LossScalers",
    "Op",
    "Policy",
    "Recipe",
    "Tensor",
    "TrainStep",
    "Trainer",
    "accumulate",
    "arange",
    "autocast",
    "available_backends",
    "bfloat16",
    "bisect",
    "cast",
    "checks",
    "custom_bwd",
    "custom_fwd",
    "data",
    "debug",
    "detect_anomaly",
    "enable_grad",
    "errors",
    "evaluate",
    "eye",
    "float4_e2m1fn",
    "float6_e2m3fn",
    "float6_e3m2fn",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float16",
    "float32",
    "float64",
    "formats",
    "fp8",
    "fp8_autocast",
    "from_dlpack",
    "from_torch",
    "full",
    "full_like",
    "functional",
    "get_autocast_dtype",
    "get_rng_state",
    "grad",
    "int8",
    "is_autocast_enabled",
    "is_grad_enabled",
    "labs",
    "linspace",
    "load",
    "manual_seed",
    "memory",
    "models",
    "nn",
    "no_grad",
    "ones",
    "ones_like",
    "op",
    "optim",
    "policies",
    "quant",
    "rand",
    "rand_like",
    "randn",
    "randn_like",
    "recipes",
    "recompute",
    "save",
    "set_rng_state",
    "stepper",
    "tensor",
    "tfloat32",
    "trace",
    "use_backend",
    "zeros",
    "zeros_like",
]  # fmt: skip

CREATING = (
    "arange", "eye", "full", "full_like", "linspace", "ones", "ones_like", "rand", "rand_like", "randn",
    "randn_like", "zeros", "zeros_like",
)  # fmt: skip
PARTS = (
    "checks", "data", "fp8", "functional", "labs", "memory", "models", "nn", "optim", "quant", "stepper",
    "trace",
)  # fmt: skip
ON_FIRST_USE = {
    **{name: f"minimp.{name}" for name in PARTS},
    **dict.fromkeys(CREATING, "minimp.functional.creation"),
    **dict.fromkeys(("GradScaler", "LayerwiseScaler", "LossScalers"), "minimp.scaler"),
    "fp8_autocast": "minimp.fp8",
    "TrainStep": "minimp.step",
    "Trainer": "minimp.trainer",
    "from_torch": "minimp.interop",
    "bisect": "minimp.bisecting",
    "debug": "minimp.ladder",
    "detect_anomaly": "minimp.trace",
    "evaluate": "minimp.evaluation",
    "load": "minimp.checkpoint",
    "save": "minimp.checkpoint",
}
"""Names whose modules are imported when they are first asked for, so that `import minimp` stays quick."""


def __getattr__(name: str) -> Any:
    """Import what a name stands for, and keep it."""
    if name not in ON_FIRST_USE:
        raise AttributeError(f"module 'minimp' has no attribute {name!r}", name=name)
    module = import_module(ON_FIRST_USE[name])
    found = module if module.__name__ == f"minimp.{name}" else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return the names that are there and those that would be."""
    return sorted({*globals(), *ON_FIRST_USE})


if os.environ.get("MINIMP_DEBUG"):
    import_module("minimp.ladder").begin()
