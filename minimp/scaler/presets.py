"""How nine libraries move the scale, and a constant one: one row each, all driving the one machine.

Each row says where its rule was read, and how it was checked. A library's own word for a setting is given
where it differs. :func:`presets_table` prints them, :func:`replay` lets them loose on one trace of verdicts.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from types import MappingProxyType
from typing import Any

from minimp.errors import SettingError, unknown_name
from minimp.scaler.machine import ScaleRule, ScaleState, next_state

__all__ = ["PRESETS", "Preset", "preset_rule", "presets_table", "replay"]

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
        seen: "ran": the library itself was run on random traces beside this rule, all scales equal; "ran in
            part": its own code for the scale was, without the rest of it; "read": its source was.
        note: what is particular about it.
    """

    name: str
    rule: ScaleRule
    source: str
    seen: str
    note: str


ROWS = (
    Preset(
        "torch", ScaleRule(),
        "PyTorch 2.13.0, torch/amp/grad_scaler.py and _amp_update_scale_", "ran",
        "no floor: endless bad steps lead to 2^-149, then 0",
    ),
    Preset(
        "apex", ScaleRule(max_scale=2.0**24, precision="float64"),
        "NVIDIA apex (amp, last before its removal), apex/amp/scaler.py, LossScaler", "read",
        "a Python number; min_loss_scale is min_scale; its own static scale skips no step at all",
    ),
    Preset(
        "apex-fp16-optimizer",
        ScaleRule(
            init_scale=2.0**32, growth_interval=1000, min_scale=1.0, stays_finite=False, precision="float64"
        ),
        "NVIDIA apex (last before its removal), apex/fp16_utils/loss_scaler.py, DynamicLossScaler", "read",
        "starts so high that the first steps are skipped; a Python number without a ceiling",
    ),
    Preset(
        "keras", ScaleRule(init_scale=2.0**15, stays_finite=False),
        "Keras 3.15.1, keras/src/optimizers/loss_scale_optimizer.py, LossScaleOptimizer", "ran",
        "an infinite S skips every step from then on; dynamic_growth_steps is growth_interval",
    ),
    Preset(
        "tf-keras", ScaleRule(init_scale=2.0**15, min_scale=1.0),
        "tf-keras 2.21.0, tf_keras/src/mixed_precision/loss_scale_optimizer.py, _DynamicLossScaleState",
        "ran in part",
        "unlike Keras 3: a floor, and growth stops short of infinity",
    ),
    Preset(
        "flax", ScaleRule(grows_late=True, min_scale=FLOAT32_TINY, max_scale=FLOAT32_MAX),
        "Flax 0.12.8, flax/training/dynamic_scale.py, DynamicScale", "ran",
        "grows one step later than the others; at its ceiling S is no power of two",
    ),
    Preset(
        "jmp", ScaleRule(init_scale=2.0**15, min_scale=1.0),
        "jmp 0.0.4, jmp/_src/loss_scale.py, DynamicLossScale", "ran",
        "the initial scale is the caller's; 2^15 is its documentation's. period is growth_interval",
    ),
    Preset(
        "paddle", ScaleRule(stays_finite=False, refill_on_backoff=True),
        "PaddlePaddle 3.3.1, python/paddle/amp/grad_scaler.py, GradScaler._update", "ran in part",
        "decr_every_n_nan_or_inf is hysteresis: n more bad steps for each backoff; disabled on CPUs",
    ),
    Preset(
        "paddle-ampscaler",
        ScaleRule(init_scale=2.0**15, growth_interval=1000, stays_finite=False, refill_on_backoff=True),
        "PaddlePaddle 3.3.1, python/paddle/amp/grad_scaler.py, AmpScaler", "ran in part",
        "the class below GradScaler, with other defaults",
    ),
    Preset(
        "mindspore", ScaleRule(min_scale=1.0),
        "MindSpore 2.10.0, mindspore/python/mindspore/amp.py, DynamicLossScaler", "ran",
        "every setting is the caller's: these are PyTorch's. scale_window is growth_interval",
    ),
    Preset(
        "chainer",
        ScaleRule(
            init_scale=1.0, growth_interval=1000, smooth=True, until_first_bad=2.0,
            min_scale=1.0, max_scale=FLOAT16_MAX, precision="float64",
        ),
        "Chainer 7.8.1, chainer/optimizer.py, Optimizer.loss_scaling and update_loss_scale", "ran in part",
        "doubles on every step until the first bad one, then creeps up; S is no power of two after that",
    ),
    Preset(
        "static", ScaleRule(growth_factor=1.0, backoff_factor=1.0),
        "Micikevicius et al. 2018, arXiv 1710.03740, section 3.2: a constant chosen beforehand", "read",
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


def replay(
    trace: Iterable[bool], presets: Iterable[str] = tuple(PRESETS), **settings: Any
) -> dict[str, tuple[float, ...]]:
    """Run one trace of verdicts through several presets: what each library would have done with it.

    >>> replay([False, True, True], ["torch", "jmp", "paddle"], init_scale=2.0)
    {'torch': (2.0, 1.0, 0.5), 'jmp': (2.0, 1.0, 1.0), 'paddle': (2.0, 1.0, 0.5)}

    Args:
        trace: of each step, whether a gradient was infinite or NaN.
        presets: their names.
        settings: changes to every one of them: fields of :class:`minimp.scaler.ScaleRule`.

    Returns:
        The scale after each step, by preset. Nothing warns or stops: that is for runs.

    Raises:
        SettingError: an unknown preset or setting, or one that cannot act in one of them.
    """
    verdicts = [bool(bad) for bad in trace]
    rules = {name: preset_rule(name, settings) for name in presets}
    return {name: _scales(rule, verdicts) for name, rule in rules.items()}


def _scales(rule: ScaleRule, verdicts: list[bool]) -> tuple[float, ...]:
    first = ScaleState(rule.rounded(rule.init_scale))
    states = accumulate(verdicts, partial(next_state, rule), initial=first)
    return tuple(state.scale for state in states)[1:]


HEADINGS = ("preset", "S at first", "growth", "after", "backoff", "waits", "floor", "ceiling")
WIDTH = 100


def presets_table() -> str:
    """Return every preset as a table of 100 columns, with what is odd below each row.

    growth and backoff are factors; after: so many good steps in a row; waits: for so many bad ones; ceiling
    "finite": growth that would make S infinite is left out, "none": it is not.
    """
    cells = [HEADINGS, *(_cells(row) for row in ROWS)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    notes = [_wrapped(f"{row.note} ({row.source}; {row.seen})") for row in ROWS]
    return "\n".join([lines[0], *(f"{line}\n{note}" for line, note in zip(lines[1:], notes, strict=True))])


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="    ", subsequent_indent="    ")


def _cells(row: Preset) -> tuple[str, ...]:
    rule = row.rule
    ceiling = "finite" if rule.stays_finite else "none"
    waits = f"{rule.hysteresis}, anew" if rule.refill_on_backoff else str(rule.hysteresis)
    moves = rule.growth_factor > 1 or rule.backoff_factor < 1
    return (
        row.name, _number(rule.init_scale), _factor(rule.growth_factor),
        f"{rule.growth_interval}{' + 1' if rule.grows_late else ''}" if moves else "never",
        _factor(rule.backoff_factor), waits if moves else "-",
        "none" if rule.min_scale is None else _number(rule.min_scale),
        ceiling if rule.max_scale is None else _number(rule.max_scale),
    )  # fmt: skip


def _factor(value: float) -> str:
    return f"x {value:g}"


def _number(value: float) -> str:
    """Write a power of two as one, other numbers shortly."""
    mantissa, exponent = math.frexp(value)
    return f"2^{exponent - 1}" if mantissa == 0.5 and value != 1.0 else f"{value:.6g}"
