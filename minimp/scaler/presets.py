"""How eight libraries move the scale, and a constant one: one row each, all driving the one machine.

Each row says where its rule was read. A library's own word for a setting is given where it differs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from minimp.errors import SettingError, unknown_name
from minimp.scaler.machine import ScaleRule

__all__ = ["PRESETS", "Preset", "preset_rule"]

FLOAT32_MAX = (2.0 - 2.0**-23) * 2.0**127
FLOAT32_TINY = 2.0**-126
FLOAT16_MAX = 65504.0


@dataclass(frozen=True, slots=True)
class Preset:
    """One library's way.

    Attributes:
        name: what :meth:`minimp.GradScaler.preset` takes.
        rule: its defaults.
        source: library, version and place.
        note: what is particular about it.
    """

    name: str
    rule: ScaleRule
    source: str
    note: str


ROWS = (
    Preset(
        "torch", ScaleRule(),
        "PyTorch 2.13.0, torch/amp/grad_scaler.py and _amp_update_scale_",
        "no floor: endless bad steps lead to 2^-149, then 0",
    ),
    Preset(
        "apex", ScaleRule(max_scale=2.0**24, precision="float64"),
        "NVIDIA apex (amp, last before its removal), apex/amp/scaler.py, LossScaler",
        "a Python number; ceiling 2^24; its min_loss_scale is min_scale here",
    ),
    Preset(
        "keras", ScaleRule(init_scale=2.0**15, stays_finite=False),
        "Keras 3.15.1, keras/src/optimizers/loss_scale_optimizer.py, LossScaleOptimizer",
        "no ceiling: an infinite S skips every step from then on; dynamic_growth_steps is growth_interval",
    ),
    Preset(
        "flax", ScaleRule(grows_late=True, min_scale=FLOAT32_TINY, max_scale=FLOAT32_MAX),
        "Flax 0.12.8, flax/training/dynamic_scale.py, DynamicScale",
        "grows one step later than the others; at its ceiling S is no power of two",
    ),
    Preset(
        "jmp", ScaleRule(init_scale=2.0**15, min_scale=1.0),
        "jmp 0.0.4, jmp/_src/loss_scale.py, DynamicLossScale",
        "the initial scale is the caller's; 2^15 is its documentation's. period is growth_interval",
    ),
    Preset(
        "paddle", ScaleRule(stays_finite=False, refill_on_backoff=True),
        "PaddlePaddle 3, python/paddle/amp/grad_scaler.py, GradScaler._update",
        "decr_every_n_nan_or_inf is hysteresis: n more bad steps for each backoff",
    ),
    Preset(
        "mindspore", ScaleRule(min_scale=1.0),
        "MindSpore 2, mindspore/python/mindspore/amp.py, DynamicLossScaler",
        "every setting is the caller's; here the defaults of PyTorch. scale_window is growth_interval",
    ),
    Preset(
        "chainer",
        ScaleRule(
            init_scale=1.0, growth_interval=1000, smooth=True, until_first_bad=2.0,
            min_scale=1.0, max_scale=FLOAT16_MAX, precision="float64",
        ),
        "Chainer 7.8.1, chainer/optimizer.py, Optimizer.loss_scaling and update_loss_scale",
        "doubles on every step until the first bad one, then creeps up; S is no power of two after that",
    ),
    Preset(
        "static", ScaleRule(growth_factor=1.0, backoff_factor=1.0),
        "Micikevicius et al. 2018, arXiv 1710.03740, section 3.2: a constant chosen beforehand",
        "bad steps are still skipped",
    ),
)  # fmt: skip
PRESETS = MappingProxyType({row.name: row for row in ROWS})
"""Every preset by name."""


def preset_rule(name: str, overrides: dict[str, Any]) -> ScaleRule:
    """Return the rule of the preset called `name`, with some of its settings changed.

    Raises:
        SettingError: an unknown preset or setting (the nearest is offered), or one that could not act.
    """
    if name not in PRESETS:
        raise SettingError(unknown_name("preset", name, PRESETS))
    known = ScaleRule.__dataclass_fields__
    for setting in overrides:
        if setting not in known:
            raise SettingError(unknown_name("setting of a loss scale", setting, known))
    if name == "static" and set(overrides) - {"init_scale"}:
        extra = ", ".join(sorted(set(overrides) - {"init_scale"}))
        raise SettingError(f"a static scale never moves, so {extra} cannot act", help="take another preset")
    return replace(PRESETS[name].rule, **overrides)
