"""More of what a GradScaler does, rule by rule: from unscaling to saving."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from minimp.frameworks.scalers.programs import INF, NAN, Program
from minimp.frameworks.scalers.workbench import Workbench

__all__ = ["SAVING", "STEPPING", "UNSCALING", "UPDATING"]

Run = Callable[[Workbench], str]

# ---- unscale_ ---------------------------------------------------------------------------------------------


def _unscaled(scale: float, grad: list[float], dtype: str = "float32") -> Run:
    """The gradient after unscale_, and whether the step is made."""

    def run(b: Workbench) -> str:
        scaler, optimizer = b.scaler(scale), b.optimizer(grad, dtype=dtype)
        scaler.unscale_(optimizer)
        return f"gradient {b.grads(optimizer)}; {b.step(scaler, optimizer)}"

    return run


def _calls(*names: str, **settings: Any) -> Run:
    """Make calls by name, each tried, on one optimizer with a good gradient; how the last one ended."""

    def run(b: Workbench) -> str:
        scaler, optimizer = b.scaler(**settings), b.optimizer([4.0])
        calls = {
            "unscale_": lambda: scaler.unscale_(optimizer),
            "step": lambda: b.step(scaler, optimizer),
            "update": scaler.update,
        }
        ends = [b.tried(calls[name]) for name in names]
        return f"{ends[-1]}; {b.state(scaler)}"

    return run


def _before_scale(call: str) -> Run:
    def run(b: Workbench) -> str:
        scaler, optimizer = b.side.scaler(), b.optimizer([1.0])
        args = () if call == "update" else (optimizer,)
        return str(getattr(scaler, call)(*args))

    return run


def _refused_float16_stays_ready(b: Workbench) -> str:
    scaler, optimizer = b.scaler(), b.optimizer([8.0], dtype="float16")
    first = b.tried(lambda: scaler.unscale_(optimizer))
    for param in b.params(optimizer):
        param.grad = None
    scaler.unscale_(optimizer)
    return f"{first}; then unscaled"


def _without_gradient(b: Workbench) -> str:
    scaler, optimizer = b.scaler(), b.optimizer(None, [8.0])
    return f"{b.step(scaler, optimizer)}; gradients {b.grads(optimizer)}"


def _a_name_on_the_gradient(b: Workbench) -> str:
    scaler, optimizer = b.scaler(), b.optimizer([8.0])
    held = b.params(optimizer)[0].grad
    scaler.unscale_(optimizer)
    return f"it sees {b.tensor(held)}"


def _sparse(b: Workbench) -> str:
    places = (b.side.formats, b.side.functional)
    make = next((p.sparse_coo_tensor for p in places if hasattr(p, "sparse_coo_tensor")), None)
    if make is None:
        return "there are no sparse tensors"
    scaler, optimizer = b.scaler(), b.optimizer([0.0, 0.0])
    (param,) = b.params(optimizer)
    param.grad = make([[1]], [8.0], (2,))
    scaler.step(optimizer)
    return f"weights {b.weights(optimizer)}"


UNSCALING = (
    Program("unscale_", "before scale()", _before_scale("unscale_")),
    Program("unscale_", "twice", _calls("unscale_", "unscale_")),
    Program("unscale_", "after step()", _calls("step", "unscale_")),
    Program("unscale_", "1/3.7 rounded from float64", _unscaled(3.7, [1.0, 3.0, -0.0])),
    Program("unscale_", "bfloat16", _unscaled(3.7, [1.0, 3.0], "bfloat16")),
    Program("unscale_", "float64", _unscaled(3.7, [1.0, 3.0], "float64")),
    Program("unscale_", "all multiplied, though one is inf", _unscaled(8.0, [INF, 8.0])),
    Program("unscale_", "NaN", _unscaled(8.0, [NAN, 8.0])),
    Program("unscale_", "finite before, infinite after", _unscaled(2.0**-149, [1.0])),
    Program("unscale_", "underflow", _unscaled(2.0**16, [1e-42])),
    Program("unscale_", "S = 1", _unscaled(1.0, [0.1, 1e-45])),
    Program("unscale_", "float16", lambda b: str(b.scaler().unscale_(b.optimizer([8.0], dtype="float16")))),
    Program("unscale_", "float16 refused, then dropped", _refused_float16_stays_ready),
    Program("unscale_", "a parameter without gradient", _without_gradient),
    Program("unscale_", "another name on the gradient", _a_name_on_the_gradient),
    Program("unscale_", "sparse gradients", _sparse),
)  # fmt: skip

# ---- step -------------------------------------------------------------------------------------------------


def _two_optimizers(b: Workbench) -> str:
    scaler, clean, bad = b.scaler(), b.optimizer([8.0]), b.optimizer([INF])
    ends = f"{b.step(scaler, clean)}; {b.step(scaler, bad)}"
    scaler.update()
    return f"{ends}; {b.state(scaler)}"


def _both_bad(b: Workbench) -> str:
    scaler = b.scaler()
    for optimizer in (b.optimizer([NAN]), b.optimizer([INF], [INF])):
        scaler.step(optimizer)
    scaler.update()
    return b.state(scaler)


def _shared_parameter(b: Workbench) -> str:
    scaler, one = b.scaler(), b.optimizer([1.0])
    other = b.over(b.params(one))
    scaler.unscale_(one)
    scaler.unscale_(other)
    return f"gradient {b.grads(one)}"


def _self_scaling(unscaled: bool, grad: float) -> Run:
    """An optimizer with _step_supports_amp_scaling: what it is given, and what is left on it."""

    def run(b: Workbench) -> str:
        class Own(b.side.optim.SGD):  # type: ignore[misc,name-defined]  # one of two libraries
            _step_supports_amp_scaling = True

            def step(self) -> str:
                given = self.grad_scale
                shown = None if given is None else float(given)
                return f"grad_scale {shown}, found_inf {float(self.found_inf):g}"

        scaler, plain = b.scaler(), b.optimizer([grad], dtype="float32" if unscaled else "float16")
        optimizer = Own(b.params(plain), lr=1.0)
        if unscaled:
            scaler.unscale_(optimizer)
        result = b.step(scaler, optimizer)
        scaler.update()
        left = [name for name in ("grad_scale", "found_inf") if hasattr(optimizer, name)]
        return f"{result}; {b.state(scaler)}; left on it: {left}"

    return run


STEPPING = (
    Program("step", "before scale()", _before_scale("step")),
    Program("step", "unscales first", lambda b: b.step(b.scaler(), b.optimizer([8.0]))),
    Program("step", "skips an infinity", lambda b: b.step(b.scaler(), b.optimizer([8.0], [1.0, -INF]))),
    Program("step", "skips a NaN", lambda b: b.step(b.scaler(), b.optimizer([8.0], [NAN]))),
    Program("step", "no gradients at all", lambda b: b.step(b.scaler(), b.optimizer(None))),
    Program("step", "twice", _calls("step", "step")),
    Program("step", "closure by keyword", lambda b: b.step(b.scaler(), b.optimizer([8.0]), closure=float)),
    Program("step", "closure by position", lambda b: b.step(b.scaler(), b.optimizer([8.0]), lambda: 2.5)),
    Program("step", "two optimizers, one infinity", _two_optimizers),
    Program("step", "two bad optimizers, one backoff", _both_bad),
    Program("step", "a parameter in two optimizers", _shared_parameter),
    Program("step", "an optimizer that unscales", _self_scaling(False, 8.0)),
    Program("step", "an optimizer that unscales, inf", _self_scaling(False, INF)),
    Program("step", "an optimizer that unscales, unscaled before", _self_scaling(True, 8.0)),
    Program("step", "an optimizer that unscales, unscaled before, inf", _self_scaling(True, INF)),
)  # fmt: skip

# ---- update -----------------------------------------------------------------------------------------------


def _set_to(value: float | tuple[float, ...], **settings: Any) -> Run:
    """Set the scale after one good step, to a number, or to a tensor of these; the state."""

    def run(b: Workbench) -> str:
        scaler = b.scaler(**settings)
        b.iteration(scaler, 1.0)
        given = b.side.tensor(np.array(value)) if isinstance(value, tuple) else value
        ended = b.tried(lambda: scaler.update(given))
        return f"{ended}; {b.state(scaler)}"

    return run


def _set_to_scalar(requires_grad: bool) -> Run:
    def run(b: Workbench) -> str:
        scaler, given = b.scaler(), b.side.tensor(3.7, requires_grad=requires_grad)
        ended = b.tried(lambda: scaler.update(given))
        return f"{ended}; {b.state(scaler)}"

    return run


def _set_amid(b: Workbench) -> str:
    scaler, optimizer = b.scaler(), b.optimizer([INF])
    scaler.step(optimizer)
    scaler.update(16.0)
    return f"{b.state(scaler)}; {b.tried(scaler.update)}"


def _iterations(scale: float, grads: list[float], **settings: Any) -> Run:
    """Iterate with these gradients; the last weight and the state."""

    def run(b: Workbench) -> str:
        scaler = b.scaler(scale, **settings)
        return [b.iteration(scaler, grad) for grad in grads][-1]

    return run


UPDATING = (
    Program("update", "before scale()", _before_scale("update")),
    Program("update", "nothing was checked", _calls("update")),
    Program("update", "unscaled, not stepped", _calls("unscale_", "update")),
    Program("update", "grows at the interval", _iterations(8.0, [1.0] * 3, growth_interval=3)),
    Program("update", "counts anew after a bad step", _iterations(8.0, [1, 1, INF, 1], growth_interval=3)),
    Program("update", "to a float; the tracker stays", _set_to(3.7)),
    Program("update", "to infinity", _set_to(INF)),
    Program("update", "to 1e39, beyond float32", _set_to(1e39)),
    Program("update", "to NaN", _set_to(NAN)),
    Program("update", "to a whole number", _set_to(4)),
    Program("update", "to a tensor without axes", _set_to_scalar(False)),
    Program("update", "to a tensor that requires a gradient", _set_to_scalar(True)),
    Program("update", "to a tensor of one axis", _set_to((3.7,))),
    Program("update", "to a tensor of two numbers", _set_to((3.7, 4.0))),
    Program("update", "to a float, amid an iteration", _set_amid),
    Program("extremes", "2^127 cannot grow", _iterations(2.0**127, [1.0], growth_interval=1)),
    Program("extremes", "2^126 grows to 2^127", _iterations(2.0**126, [1.0], growth_interval=1)),
    Program("extremes", "1e38, bad steps", _iterations(1e38, [INF] * 5)),
    Program("extremes", "149 bad steps from 1", _iterations(1.0, [INF] * 149)),
    Program("extremes", "150 bad steps from 1", _iterations(1.0, [INF] * 150)),
    Program("extremes", "S = 0, then a good step", _iterations(1.0, [INF] * 150 + [1.0])),
    Program("extremes", "S = inf, then good gradients", _iterations(INF, [1.0, 1.0])),
)  # fmt: skip

# ---- saving and disabling ---------------------------------------------------------------------------------

STATE = {
    "scale": 4.0,
    "growth_factor": 3.0,
    "backoff_factor": 0.25,
    "growth_interval": 2,
    "_growth_tracker": 1,
}


def _without(entry: str) -> dict[str, Any]:
    return {name: value for name, value in STATE.items() if name != entry}


def _loaded(state: dict[str, Any], started: bool, enabled: bool = True) -> Run:
    """Load a state, before or after the first scale(); what is said, and the entries afterwards."""

    def run(b: Workbench) -> str:
        scaler = b.scaler(enabled=enabled) if started else b.side.scaler(enabled=enabled)
        ended = b.tried(lambda: scaler.load_state_dict(dict(state)))
        return f"{ended}; {scaler.state_dict()}"

    return run


def _goes_on_from_a_state(b: Workbench) -> str:
    scaler = b.side.scaler()
    scaler.load_state_dict(dict(STATE))
    scaler.scale(b.side.tensor(1.0))
    return f"{b.iteration(scaler, 4.0)}; {b.iteration(scaler, INF)}"


def _copied(amid: bool) -> Run:
    """Copy a scaler after a step and, or not, its update; the copy needs a scale() anew."""

    def run(b: Workbench) -> str:
        scaler = b.scaler()
        scaler.step(b.optimizer([1.0]))
        if not amid:
            scaler.update()
        made = copy.deepcopy(scaler)
        return f"{b.state(made)}; {b.tried(made.update)}"

    return run


def _set(name: str, value: float) -> Run:
    def run(b: Workbench) -> str:
        scaler = b.scaler()
        getattr(scaler, f"set_{name}")(value)
        return f"{getattr(scaler, f'get_{name}')()}; {b.iteration(scaler, 1.0)}; {b.iteration(scaler, INF)}"

    return run


def _disabled(b: Workbench) -> str:
    scaler, loss, optimizer = b.side.scaler(enabled=False), b.full(1.0, ()), b.optimizer([INF])
    same = scaler.scale(loss) is loss
    scaler.unscale_(optimizer)
    scaler.step(optimizer)
    ended = b.step(scaler, optimizer)
    scaler.update()
    facts = (scaler.get_scale(), scaler.is_enabled(), scaler.state_dict(), copy.deepcopy(scaler).get_scale())
    return f"same {same}; {ended}; {facts}; {b.tried(scaler.get_growth_factor)}"


SAVING = (
    Program("state_dict", "its entries", lambda b: str(b.scaler().state_dict())),
    Program("state_dict", "loaded before scale()", _loaded(STATE, started=False)),
    Program("state_dict", "loaded after scale()", _loaded(STATE, started=True)),
    Program("state_dict", "training goes on from it", _goes_on_from_a_state),
    Program("state_dict", "an empty one", _loaded({}, started=True)),
    Program("state_dict", "into a disabled scaler", _loaded(STATE, started=False, enabled=False)),
    Program("state_dict", "one without a scale", _loaded(_without("scale"), started=True)),
    Program("state_dict", "one without a tracker", _loaded(_without("_growth_tracker"), started=True)),
    Program("copy", "between iterations", _copied(amid=False)),
    Program("copy", "amid an iteration", _copied(amid=True)),
    Program("settings", "set_growth_factor(4)", _set("growth_factor", 4.0)),
    Program("settings", "set_backoff_factor(0.1)", _set("backoff_factor", 0.1)),
    Program("settings", "set_growth_interval(1)", _set("growth_interval", 1)),
    Program("settings", "set_growth_factor(0.5)", _set("growth_factor", 0.5)),
    Program("settings", "set_backoff_factor(2)", _set("backoff_factor", 2.0)),
    Program("disabled", "every call", _disabled),
)  # fmt: skip
