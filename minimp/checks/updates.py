"""The contract of the weight update: the same formula in float64, with its bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from minimp import formats
from minimp.checks.contracts import within
from minimp.checks.findings import Finding, Findings, compare
from minimp.checks.host import on_host
from minimp.checks.running import U64, Arithmetic, Running
from minimp.errors import SettingError, unknown_name
from minimp.policy import format_of

__all__ = ["UPDATES", "check_update"]

Array = np.ndarray[Any, Any]
State = dict[str, Any]


def check_update(
    rule: str, weight: Any, gradient: Any, state: Mapping[str, Any], settings: Mapping[str, Any], after: Any,
    state_after: Mapping[str, Any] | None = None, *, rounding: str = "nearest", name: str = "weight",
    slack: Any = 0.0,
) -> Findings:  # fmt: skip
    """Check w <- w - lr u(g) against the same formula in float64, element by element.

    The bound is a running error analysis of the formula in float32 (:mod:`minimp.checks.running`), and one
    rounding to the format of what is stored.

    Args:
        rule: a key of :data:`UPDATES`: "sgd", "adam", "adamw", "rmsprop", "adagrad", "lion" or "lamb".
        weight: w before: the FP32 master, or the low-format weight if there is none.
        gradient: g, unscaled and clipped.
        state: the optimizer's state before, by torch's names: momentum_buffer | exp_avg, exp_avg_sq,
            max_exp_avg_sq | square_avg, grad_avg | sum | step (the number of steps taken). Empty at the
            first step.
        settings: lr, weight_decay, momentum, ... by torch's names; what is missing is 0 or False.
        after: w after the update.
        state_after: the state after the update; every array of it that the formula makes is checked too.
        rounding: "nearest", or "stochastic": to either neighbour of the exact value.
        name: what to call it in the findings.
        slack: how much further from float64 the weight may be, for a reason of its storage.

    Raises:
        SettingError: an unknown rule.
    """
    if rule not in UPDATES:
        raise SettingError(unknown_name("update rule", rule, UPDATES))
    weight, after = on_host(weight), on_host(after)
    fmt = format_of(weight.dtype)
    if fmt is None or after.dtype != weight.dtype or after.shape != weight.shape:
        got = f"{after.dtype} of shape {after.shape}"
        wrong = Finding("keeps format and shape", f"{weight.dtype} of shape {weight.shape}", got, name)
        return Findings(f"{name}: {rule} update", (wrong,))
    at = Arithmetic(formats.float64 if fmt is formats.float64 else formats.float32, fmt)
    old = {key: at.number(on_host(v)) if getattr(v, "ndim", 0) else v for key, v in state.items()}
    with np.errstate(all="ignore"):
        moved, made = UPDATES[rule](at.number(weight), at.number(on_host(gradient)), old, dict(settings))
        wanted = moved.rounded(fmt)
        spare = formats.ulp(wanted.exact, fmt) / 2 if rounding == "stochastic" else 0.0
        wrong_ones = compare_running(name, after, wanted, spare + slack)
        for key, value in made.items():
            if state_after is not None and key in state_after:
                stored = on_host(state_after[key])
                kept = value.rounded(format_of(stored.dtype) or formats.float32)
                wrong_ones += compare_running(f"{name}.{key}", stored, kept, 0.0)
    return Findings(
        f"{name}: {rule} update equals float64's within its bound", wrong_ones, checked=after.size
    )


def compare_running(name: str, got: Array, wanted: Running, spare: Any) -> tuple[Finding, ...]:
    """Compare a result with a running analysis of it."""
    allowed = np.broadcast_to(wanted.error + spare, got.shape)
    exact = np.broadcast_to(wanted.exact, got.shape)
    return compare(
        "equals the float64 update", name, got, exact, ~within(got, exact, allowed), detail=allowed
    )


# ---- the update rules in float64, after the papers and torch.optim 2.13 ------------------------------------

Rule = Callable[[Running, Running, State, State], tuple[Running, dict[str, Running]]]


def _sgd(w: Running, g: Running, state: State, by: State) -> tuple[Running, dict[str, Running]]:
    """b <- mu b + (1 - tau) g, or g at the first step; w <- w - lr (b, or g + mu b with Nesterov).

    Sutskever et al. 2013 in the form of torch.optim.SGD: the weight decay is added to g.
    """
    g = _decayed(w, g, by)
    mu = by.get("momentum", 0.0)
    if not mu:
        return w - by["lr"] * g, {}
    held = state.get("momentum_buffer")
    buffer = g if held is None else mu * held + (1 - by.get("dampening", 0.0)) * g
    return w - by["lr"] * (g + mu * buffer if by.get("nesterov") else buffer), {"momentum_buffer": buffer}


def _adam(w: Running, g: Running, state: State, by: State) -> tuple[Running, dict[str, Running]]:
    """Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1: weight decay is added to g."""
    return _adam_step(w, _decayed(w, g, by), state, by)


def _adamw(w: Running, g: Running, state: State, by: State) -> tuple[Running, dict[str, Running]]:
    """Loshchilov and Hutter 2019 (arXiv 1711.05101) as torch.optim.AdamW: w <- w (1 - lr lambda) first."""
    g = -g if by.get("maximize") else g
    decay = by.get("weight_decay", 0.0)
    return _adam_step(w * (1 - by["lr"] * decay) if decay else w, g, state, by)


def _adam_step(w: Running, g: Running, state: State, by: State) -> tuple[Running, dict[str, Running]]:
    """m, v: running means of g and g^2; w <- w - lr m^ / (sqrt(v^) + eps), ^ dividing by 1 - beta^t."""
    aim, made = _adam_aim(g, state, by)
    return w - (by["lr"] / (1 - by["betas"][0] ** _step(state))) * aim, made


def _adam_aim(g: Running, state: State, by: State) -> tuple[Running, dict[str, Running]]:
    """Return m / (sqrt(v^) + eps), whose bias is still to be corrected, and the means."""
    beta1, beta2 = by["betas"]
    zero = 0.0 * g
    t = _step(state)
    # In the order of torch's lerp and addcmul: another order rounds elsewhere, and the bound knows it.
    m = _lerp(state.get("exp_avg", zero), g, beta1)
    v = beta2 * state.get("exp_avg_sq", zero) + ((1 - beta2) * g) * g
    made = {"exp_avg": m, "exp_avg_sq": v}
    if by.get("amsgrad"):
        held = state.get("max_exp_avg_sq", zero)
        v = v.where(v.exact >= held.exact, held)
        v = Running(v.exact, np.maximum(made["exp_avg_sq"].error, held.error), v.at)
        made["max_exp_avg_sq"] = v
    root = v.sqrt() / (1 - beta2**t) ** 0.5 + by["eps"]
    return m / root, made


def _rmsprop(w: Running, g: Running, state: State, by: State) -> tuple[Running, dict[str, Running]]:
    """v <- alpha v + (1 - alpha) g^2; w <- w - lr g / (sqrt(v or v - m^2) + eps), or by its running sum.

    Tieleman and Hinton 2012; Graves 2013 (arXiv 1308.0850), eq. 38 to 45, as torch.optim.RMSprop.
    """
    g = _decayed(w, g, by)
    alpha, zero = by["alpha"], 0.0 * g
    v = alpha * state.get("square_avg", zero) + ((1 - alpha) * g) * g
    made = {"square_avg": v}
    if by.get("centered"):
        m = made["grad_avg"] = _lerp(state.get("grad_avg", zero), g, alpha)
        v = v - m * m
    aim = g / (v.sqrt() + by["eps"])
    if by.get("momentum"):
        aim = made["momentum_buffer"] = by["momentum"] * state.get("momentum_buffer", zero) + aim
    return w - by["lr"] * aim, made


def _adagrad(w: Running, g: Running, state: State, by: State) -> tuple[Running, dict[str, Running]]:
    """s <- s + g^2; w <- w - lr / (1 + (t - 1) decay) g / (sqrt(s) + eps): Duchi et al. 2011 as in torch."""
    g = _decayed(w, g, by)
    begin = 0.0 * g + by.get("initial_accumulator_value", 0.0)
    s = state.get("sum", begin) + g * g
    rate = by["lr"] / (1 + (_step(state) - 1) * by.get("lr_decay", 0.0))
    return w - rate * (g / (s.sqrt() + by["eps"])), {"sum": s}


def _lion(w: Running, g: Running, state: State, by: State) -> tuple[Running, dict[str, Running]]:
    """Chen et al. 2023 (arXiv 2302.06675), algorithm 2: w <- w (1 - lr lambda) - lr sign(m mixed with g)."""
    beta1, beta2 = by["betas"]
    g = -g if by.get("maximize") else g
    m, decay = state.get("exp_avg", 0.0 * g), by.get("weight_decay", 0.0)
    aim = _sign(beta1 * m + (1 - beta1) * g)
    moved = (w * (1 - by["lr"] * decay) if decay else w) - by["lr"] * aim
    return moved, {"exp_avg": beta2 * m + (1 - beta2) * g}


def _lamb(w: Running, g: Running, state: State, by: State) -> tuple[Running, dict[str, Running]]:
    """You et al. 2020 (arXiv 1904.00962), algorithm 2: w <- w - lr |w| / |u| u, u = m^ / ... + lambda w."""
    aim, made = _adam_aim(-g if by.get("maximize") else g, state, by)
    aim = (1 / (1 - by["betas"][0] ** _step(state))) * aim
    aim = aim + by["weight_decay"] * w if by.get("weight_decay") else aim
    size, length = _norm(w), _norm(aim)
    if not size.exact or not length.exact:
        return w - by["lr"] * aim, made
    return w - (by["lr"] * (size / length)) * aim, made


# ---- what several rules do ---------------------------------------------------------------------------------


def _decayed(w: Running, g: Running, by: State) -> Running:
    """Return g, negated to climb, plus the decay."""
    g = -g if by.get("maximize") else g
    return g + by["weight_decay"] * w if by.get("weight_decay") else g


def _lerp(held: Running, g: Running, beta: float) -> Running:
    """Return beta m + (1 - beta) g in the order of torch's lerp."""
    gap = g - held
    return held + (1 - beta) * gap if beta > 0.5 else g - beta * gap


def _step(state: State) -> int:
    """Return the number of the step, from 1."""
    return int(np.asarray(state.get("step", 0)).ravel()[0]) + 1


def _sign(x: Running) -> Running:
    """Return the sign, which is sure where 0 is further away than the error; else anything from -1 to 1."""
    unsure = (x.error > 0) & (np.abs(x.exact) <= x.error)
    error = np.where(np.isinf(x.error), np.inf, np.where(unsure, 1.0, 0.0))
    return Running(np.where(unsure, 0.0, np.sign(x.exact)), error, x.at)


def _norm(x: Running) -> Running:
    """Return |x|, summed in float64: an error e of the elements moves it by at most |e|."""
    exact, moved = (np.sqrt(np.sum(np.square(each))) for each in (x.exact, x.error))
    error = moved + (x.exact.size + 2) * U64 * (exact if np.isfinite(exact) else 0.0)
    return Running(np.asarray(exact), np.asarray(error), x.at)


UPDATES: Mapping[str, Rule] = MappingProxyType(
    {
        "sgd": _sgd, "adam": _adam, "adamw": _adamw, "rmsprop": _rmsprop, "adagrad": _adagrad,
        "lion": _lion, "lamb": _lamb,
    }
)  # fmt: skip
"""Update rules by name: (w, g, state, settings) -> (w after, state after)."""
