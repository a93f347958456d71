"""Gradients that carry a loss scale: what leaves the mark on them, and what refuses them.

A gradient that is S times too large, or 1/S times, is a number like any other to a norm, a limit or an
optimizer: training goes on, and goes wrong. So backward marks what a scaled loss leaves behind
(:mod:`minimp.tape.scales`), unscaling changes the mark, and whoever compares gradients with something, or
steps by them, asks here first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

from minimp.errors import ScalerError
from minimp.scaler.naming import listing
from minimp.tape import Value
from minimp.tape.scales import PLAIN, SOURCES, Mark, mark_of, shown

__all__ = ["called", "factors_within", "known_name", "marks_unscaled", "refuse_scaled", "watch"]

Naming = Callable[[int], str]
"""From the place of a gradient among those that were given to what it is called."""


def watch(scaled: Value, scale: float, scaler: Any) -> None:
    """Let backward know that `scaled` is S times a loss: what lies behind it gets gradients times S."""
    if scaled.node is not None and scale != 1.0:
        SOURCES[scaled.node] = Mark(frozenset({scale}), ref(scaler))


def called(params: Sequence[Value], kind: str = "parameter") -> Naming:
    """Return what names parameters: as their scaler knows them, or by place and shape."""

    return lambda i: known_name(params[i]) or f"{kind} {i} {params[i].shape}"


def known_name(param: Value) -> str | None:
    """Return what the scaler that marked a parameter's gradient calls the parameter, or None."""
    carried = mark_of(param.grad)
    owner = None if carried is None else carried.scaler()
    return None if owner is None else owner.name_of(param)


def refuse_scaled(
    op: str, gradients: Sequence[Value | None], names: Naming, consequence: str, remedy: str
) -> None:
    """Refuse gradients that still carry a loss scale, or were divided by it too often; None is passed over.

    Args:
        op: who asks.
        gradients: of parameters, or None.
        names: what each is called.
        consequence: what would come of scaled ones; ``{}`` in it is the scale.
        remedy: what to do with scaled ones.

    Raises:
        ScalerError: naming the factor, the parameters and the remedy.
    """
    marks = [mark_of(each) for each in gradients]
    carried = [(i, m) for i, m in enumerate(marks) if m is not None and m.factors != PLAIN.factors]
    if carried:
        worst = next((m for _, m in carried if len(m.factors) > 1), carried[0][1])
        alike = [i for i, m in carried if m.factors == worst.factors]
        who = f"{len(alike)} of {len(gradients)} gradients"
        raise _fault(op, worst, who, listing(map(names, alike)), consequence, remedy)


def marks_unscaled(named: Sequence[tuple[str, Value, Value]], scale: float) -> list[Mark | None]:
    """Return the marks that gradients are to have when they have been divided by S.

    Those that were divided before are divided again, as PyTorch does; whoever meets them then refuses them.

    Args:
        named: (name, parameter, its gradient).
        scale: S.

    Raises:
        ScalerError: a gradient carries another scale, or is a sum under several: dividing makes it wrong.
    """
    marks = [mark_of(grad) for _, _, grad in named]
    mixed = [(name, m) for (name, _, _), m in zip(named, marks, strict=True) if m and len(m.factors) > 1]
    if mixed:
        who = f"{len(mixed)} of {len(named)} gradients ({listing(name for name, _ in mixed)})"
        raise mixture("GradScaler.unscale_", mixed[0][1], who)
    other = [
        (name, m) for (name, _, _), m in zip(named, marks, strict=True)
        if m and not m.unscaled and scale not in m.factors
    ]  # fmt: skip
    if other:
        was = shown(next(iter(other[0][1].factors)))
        raise ScalerError(
            f"{len(other)} of {len(named)} gradients were scaled by {was} ({listing(n for n, _ in other)}), "
            f"the scale is now {shown(scale)}: it was changed between backward and unscale_(), or the loss "
            "was scaled more than once",
            op="GradScaler.unscale_",
            help="scale each loss once; call update() at the end of an iteration, after step(), and zero the "
            "gradients then",
        )
    return [None if m is None else m.divided(scale) for m in marks]


def factors_within(
    op: str, gradients: Sequence[Value], names: Naming, consequence: str, scaler: Any, allow: bool
) -> list[float]:
    """Return what each gradient is to be divided by: the scale of `scaler` where it carries that, else 1.

    Args:
        op, gradients, names, consequence: as :func:`refuse_scaled`.
        scaler: whose scale is taken out, or None.
        allow: take the gradients as they are, whatever they carry.

    Raises:
        ScalerError: a gradient carries something else.
    """
    if allow:
        return [1.0] * len(gradients)
    known = [_factor_of(each, scaler) for each in gradients]
    unknown = [each if factor is None else None for each, factor in zip(gradients, known, strict=True)]
    remedy = (
        "pass the scaler that scaled the loss" if scaler is not None
        else "call scaler.unscale_(optimizer) first, or pass scaler=scaler; where scaled gradients are "
        "meant, pass allow_scaled=True"
    )  # fmt: skip
    if scaler is not None:
        consequence = "and the scaler that was passed is another one"
    refuse_scaled(op, unknown, names, consequence, remedy)
    return [1.0 if factor is None else factor for factor in known]


def _factor_of(gradient: Value, scaler: Any) -> float | None:
    """Return the one factor that `scaler` can take out of a gradient; 1 without mark; else None."""
    carried = mark_of(gradient)
    if carried is None:
        return 1.0
    factors = carried.factors
    mine = factors == PLAIN.factors or (scaler is not None and carried.scaler() is scaler)
    return next(iter(factors)) if mine and len(factors) == 1 and not _too_often(carried) else None


def _too_often(carried: Mark) -> bool:
    return carried.unscaled > 1 and carried.factors != PLAIN.factors


def _fault(op: str, carried: Mark, who: str, names: str, consequence: str, remedy: str) -> ScalerError:
    """Say what is wrong with gradients that carry `carried`."""
    factors = sorted(carried.factors, reverse=True)
    first = shown(factors[0])
    if len(factors) > 1:
        return mixture(op, carried, f"{who} ({names})")
    if _too_often(carried):
        return ScalerError(
            f"{who} ({names}) were unscaled {carried.unscaled} times: they are multiplied by {first}",
            op=op, help="each optimizer unscales its parameters: let no two of them share one; and zero the "
            "gradients after each step",
        )  # fmt: skip
    return ScalerError(
        f"{who} are still multiplied by the loss scale {first} ({names}), {consequence.format(first)}",
        op=op, help=remedy,
    )  # fmt: skip


def mixture(op: str, carried: Mark, who: str) -> ScalerError:
    """Say that gradients are sums of parts that had been multiplied by different numbers."""
    factors = [shown(each) for each in sorted(carried.factors, reverse=True)]
    if 1.0 in carried.factors and len(factors) == 2:
        how = f"of parts with the loss scale {next(f for f in factors if f != '1')} and parts without"
        help_ = (
            "call unscale_() after the last backward, and zero the gradients after the step"
            if carried.unscaled
            else "scale every part: scaler.scale(loss).backward(); a gradient put in place by hand counts as "
            "one without: do that after the last backward; what is meant so: p.grad = p.grad.detach()"
        )
    else:
        how = f"under different loss scales, {', '.join(factors)}"
        help_ = "call update() only after the last of the parts, and zero the gradients before the next"
    return ScalerError(f"{who} were added up {how}", op=op, help=help_)
