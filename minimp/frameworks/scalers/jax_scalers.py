"""The loss scalers of jmp and Flax beside minimp's presets of their names, and defects of jmp's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minimp.frameworks.judging import judged
from minimp.frameworks.results import Row, Section
from minimp.frameworks.scalers.presets_live import Family, State, followed, good_and_bad, mixed, verdict_row
from minimp.frameworks.sides import Minimp, show
from minimp.scaler import GradScaler, ScaleRule

__all__ = ["compare"]

FRAMEWORK, SECTION = "jax", "scalers"
CLAIM = (
    "After every verdict the same scale, bit for bit, and the same count of good steps; and the same bits of "
    "scaled losses and unscaled gradients."
)
COMMON = (
    Family("the defaults", good_and_bad((2100, 3), (2000, 1), (5, 0))),
    Family("random, interval 3", mixed(1000, 0.6), {"growth_interval": 3}),
    Family("random, interval 1", mixed(500, 0.5), {"growth_interval": 1}),
    Family("few bad steps, interval 20", mixed(1000, 0.1), {"growth_interval": 20}),
    Family("up to the end", good_and_bad((300, 2), (20, 0)), {"init_scale": 2.0**100, "growth_interval": 3}),
)
"""Runs that both libraries are put through."""
JMP = (
    *COMMON,
    Family("down to the floor", good_and_bad((2, 30), (7, 1), times=3), {"growth_interval": 2}),
    Family("no power of two", mixed(300, 0.5), {"init_scale": 10.0, "growth_interval": 2}),
)
ODD, ODD_32 = (
    {"growth_interval": 2, "growth_factor": float(number(1.7)), "backoff_factor": float(number(0.3))}
    for number in (float, np.float32)
)
FLAX = (
    *COMMON,
    Family("down to the floor", good_and_bad((2, 160), (9, 1), times=2), {"growth_interval": 2}),
    Family("without a floor", good_and_bad((0, 130), (9, 0)), {"min_scale": None, "growth_interval": 2}),
    Family("factors 1.7 and 0.3", mixed(500, 0.5), ODD),
    Family("factors 1.7 and 0.3 of float32", mixed(500, 0.5), ODD_32),
)
GRADIENTS = (1.0, 3.0, -0.0, 65504.0, 1e-30)


def compare(seed: int) -> Section:
    """Compare minimp's presets with the scalers of jmp and Flax that are installed.

    Args:
        seed: of the random verdicts.
    """
    rows = [
        _run("jmp.DynamicLossScale", "jmp", family, _jmp, np.random.default_rng([seed, i]))
        for i, family in enumerate(JMP)
    ]
    rows += [
        _run("flax DynamicScale", "flax", family, _flax, np.random.default_rng([seed, 100 + i]))
        for i, family in enumerate(FLAX)
    ]
    verdicts = sum(row.figures["steps"] for row in rows)
    rows += [*_eager(seed), *_others(), *_values(), *_defects()]
    return Section(
        SECTION, "loss scalers of jmp and Flax", CLAIM, tuple(rows),
        {"steps": "steps", "skips": "bad"}, {"verdicts": f"{verdicts:,}"},
    )  # fmt: skip


def _run(subject: str, preset: str, family: Family, theirs: Any, rng: np.random.Generator) -> Row:
    """Follow a run in a preset and in its library."""
    ours = GradScaler.preset(preset, **family.settings)
    verdicts = family.verdicts(rng)
    return verdict_row(
        FRAMEWORK, SECTION, subject, family, followed(ours, verdicts), theirs(ours, verdicts), verdicts
    )


def _floats(scales: Any, counts: Any) -> list[State]:
    return [(float(s), int(c)) for s, c in zip(np.asarray(scales), np.asarray(counts), strict=True)]


def _jmp_scale(rule: ScaleRule) -> Any:
    """Return jmp's scale with the settings of one of our rules."""
    import jax.numpy as jnp
    import jmp

    return jmp.DynamicLossScale(
        jnp.asarray(rule.init_scale, jnp.float32), jnp.asarray(0, jnp.int32),
        period=rule.growth_interval, factor=int(rule.growth_factor),
        min_loss_scale=jnp.asarray(rule.min_scale, jnp.float32),
    )  # fmt: skip


def _jmp(ours: GradScaler, verdicts: Sequence[bool]) -> list[State]:
    """Run jmp's scale through the verdicts, compiled as one loop."""
    import jax
    import jax.numpy as jnp

    def step(scale: Any, bad: Any) -> Any:
        scale = scale.adjust(jnp.logical_not(bad))
        return scale, (scale.loss_scale, scale.counter)

    _, (scales, counts) = jax.lax.scan(step, _jmp_scale(ours.rule), jnp.asarray(verdicts))
    return _floats(scales, counts)


def _jmp_eagerly(ours: GradScaler, verdicts: Sequence[bool]) -> list[State]:
    """The same, call by call."""
    import jax.numpy as jnp

    scale, states = _jmp_scale(ours.rule), []
    for bad in verdicts:
        scale = scale.adjust(jnp.asarray(not bad))
        states.append((float(scale.loss_scale), int(scale.counter)))
    return states


def _flax(ours: GradScaler, verdicts: Sequence[bool]) -> list[State]:
    """Run Flax's scale through gradients that are or are not finite, compiled as one loop."""
    import jax
    import jax.numpy as jnp
    from flax.training.dynamic_scale import DynamicScale

    rule = ours.rule
    begin = DynamicScale(
        growth_factor=rule.growth_factor, backoff_factor=rule.backoff_factor,
        growth_interval=rule.growth_interval, fin_steps=jnp.asarray(0, jnp.int32),
        scale=jnp.asarray(rule.init_scale, jnp.float32), minimum_scale=rule.min_scale,
    )  # fmt: skip

    def step(scale: Any, bad: Any) -> Any:
        slope = jnp.where(bad, jnp.nan, 1.0)
        moved = scale.value_and_grad(lambda p: p * slope)(jnp.float32(0.0)).dynamic_scale
        moved = moved.replace(fin_steps=moved.fin_steps.astype(jnp.int32))
        return moved, (moved.scale, moved.fin_steps)

    _, (scales, counts) = jax.lax.scan(step, begin, jnp.asarray(verdicts))
    return _floats(scales, counts)


def _eager(seed: int) -> Iterator[Row]:
    """Run what a loop cannot be compiled for: jmp's floor is lost between compiled steps."""
    family = Family(
        "call by call, a floor of 2^-20", mixed(150, 0.9),
        {"init_scale": 2.0**-10, "min_scale": 2.0**-20, "growth_interval": 2},
    )  # fmt: skip
    yield _run("jmp.DynamicLossScale", "jmp", family, _jmp_eagerly, np.random.default_rng([seed, 200]))


def _others() -> Iterator[Row]:
    """The scales that do not move."""
    import jax.numpy as jnp
    import jmp

    verdicts = [False, True, True, False]
    static = jmp.StaticLossScale(jnp.float32(1024.0))
    theirs = []
    for bad in verdicts:
        static = static.adjust(jnp.asarray(not bad))
        theirs.append(float(static.loss_scale))
    scaler = GradScaler.preset("static", init_scale=1024.0)
    ours = [scale for scale, _ in followed(scaler, verdicts)]
    yield judged(FRAMEWORK, SECTION, "jmp.StaticLossScale", "good and bad steps", show(ours), show(theirs))
    none, loss = jmp.NoOpLossScale(), jnp.ones(2)
    disabled, mine = GradScaler(enabled=False), Minimp().tensor([1.0])
    told = f"S = {float(none.loss_scale):g}, the same object: {none.scale(loss) is loss}"
    same = f"S = {disabled.get_scale():g}, the same object: {disabled.scale(mine) is mine}"
    yield judged(FRAMEWORK, SECTION, "jmp.NoOpLossScale", "a disabled GradScaler", same, told)


def _given(scaler: GradScaler) -> str:
    """Return our gradients after unscaling those given, to the bit."""
    side = Minimp()
    scaler.scale(side.tensor(1.0))
    weight = side.tensor(np.zeros(len(GRADIENTS)), requires_grad=True)
    weight.grad = side.tensor(np.array(GRADIENTS))
    scaler.unscale_(side.optim.SGD([weight], lr=1.0))
    return show(side.wide(weight.grad))


def _there_and_back(scaler: GradScaler) -> str:
    """Return our gradients of a scaled loss, unscaled."""
    side = Minimp()
    weight = side.tensor(np.zeros(len(GRADIENTS)), requires_grad=True)
    scaler.scale((weight * side.tensor(np.array(GRADIENTS))).sum()).backward()
    scaler.unscale_(side.optim.SGD([weight], lr=1.0))
    return show(side.wide(weight.grad))


def _values() -> Iterator[Row]:
    """Scale losses, and unscale gradients."""
    import jax.numpy as jnp
    import jmp
    from flax.training.dynamic_scale import DynamicScale

    side, grads = Minimp(), jnp.asarray(GRADIENTS, jnp.float32)
    for scale in (2.0**15, 3.7):
        case = f"S = {scale:g}"
        theirs = jmp.DynamicLossScale(jnp.float32(scale))
        scaler = GradScaler.preset("jmp", init_scale=scale)
        mine = show(side.wide(scaler.scale(side.tensor(np.array(GRADIENTS)))))
        yield judged(FRAMEWORK, SECTION, "jmp scale", case, mine, show(theirs.scale(grads)))
        yield judged(FRAMEWORK, SECTION, "jmp unscale", case, _given(scaler), show(theirs.unscale(grads)))
        flax = DynamicScale(scale=jnp.float32(scale))
        found = flax.value_and_grad(lambda p: (p * grads).sum())(jnp.zeros_like(grads)).grad
        mine = _there_and_back(GradScaler.preset("flax", init_scale=scale))
        yield judged(FRAMEWORK, SECTION, "flax value_and_grad", case, mine, show(found))


def _defects() -> Iterator[Row]:
    """Two ways in which jmp's dynamic scale is known to fail."""
    import jax
    import jax.numpy as jnp
    import jmp

    given = {"init_scale": 2.0**-4, "min_scale": 2.0**-20}
    ours, reborn = GradScaler.preset("jmp", **given), GradScaler.preset("jmp", **given)
    reborn.load_state_dict(ours.state_dict())
    reborn.advance(True)
    theirs = jax.jit(lambda scale: scale.adjust(jnp.asarray(False)))(_jmp_scale(ours.rule))
    told = [f"S = {float(scale):g}" for scale in (reborn.get_scale(), theirs.loss_scale)]
    yield judged(FRAMEWORK, SECTION, "jmp.DynamicLossScale", "a floor of 2^-20 through jax.jit", *told)
    half = GradScaler.preset("jmp", init_scale=2.0**15)
    half.advance(True)
    try:
        scale = jmp.DynamicLossScale(jnp.float16(2.0**15)).adjust(jnp.asarray(False)).loss_scale
        said = f"S = {float(scale):g}"
    except TypeError as fault:
        said = f"TypeError: {fault}".split(". ", maxsplit=1)[0]
    case = "a scale given in float16, a bad step"
    yield judged(FRAMEWORK, SECTION, "jmp.DynamicLossScale", case, f"S = {half.get_scale():g}", said)
