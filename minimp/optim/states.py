"""Saving and loading an optimizer: flat names, plain data, and nothing taken over if anything is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minimp.errors import FormatError, SettingError, ShapeError, unknown_name
from minimp.optim.groups import OTHERS
from minimp.optim.predicated import settle
from minimp.optim.storage import STORED
from minimp.optim.torch_states import from_torch, is_torchs

if TYPE_CHECKING:
    from minimp.optim.optimizer import Optimizer
    from minimp.tape import Value

__all__ = ["pack_state", "unpack_state"]

KEYS = ("rule", "settings", "param_groups", "state")
HELP = "load it into an optimizer made with the same model, class and options"


def pack_state(optimizer: Optimizer) -> dict[str, Any]:
    """Return the optimizer's whole state; :meth:`Optimizer.state_dict` says how it looks."""
    settle(optimizer)
    groups, start = [], 0
    for group in optimizer.param_groups:
        count = len(group["params"])
        groups.append({**group, "params": list(range(start, start + count))})
        start += count
    kept = {
        f"{i}.{name}": value if np.isscalar(value) else np.array(param.backend.to_host(value))
        for i, param in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(param, {}).items()
    }
    settings = {"master_weights": optimizer.master_weights, "update": optimizer.update}
    return {"rule": optimizer.rule, "settings": settings, "param_groups": groups, "state": kept}


def unpack_state(optimizer: Optimizer, given: Mapping[str, Any]) -> None:
    """Give an optimizer the state that :func:`pack_state` or torch made, or raise and change nothing."""
    op = f"{type(optimizer).__name__}.load_state_dict"
    if is_torchs(given):
        given = from_torch(op, optimizer, given)
    if sorted(given) != sorted(KEYS):
        raise SettingError(
            f"expected a state with {', '.join(KEYS)}; got {', '.join(given)}", op=op, help=HELP
        )
    if given["rule"] != optimizer.rule:
        raise SettingError(
            f"expected a state of rule {optimizer.rule!r}, got {given['rule']!r}", op=op, help=HELP
        )
    settings = _settings(op, optimizer, given["settings"])
    groups = _groups(op, optimizer, given["param_groups"])
    state = _state(op, optimizer, given["state"])
    for group, options in zip(optimizer.param_groups, groups, strict=True):
        group.clear()
        group.update(options)
    optimizer.adopt(settings, state)


def _parameters(optimizer: Optimizer) -> list[Value]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def _settings(op: str, optimizer: Optimizer, given: Mapping[str, Any]) -> dict[str, Any]:
    """Hold saved settings to what the optimizer was told when it was made."""
    names = ("master_weights", "update")
    if sorted(given) != sorted(names):
        raise SettingError(f"expected settings {', '.join(names)}; got {given!r}", op=op, help=HELP)
    optimizer.refuse_contradiction(op, given, configured=True)
    return dict(given)


def _groups(op: str, optimizer: Optimizer, given: Any) -> list[dict[str, Any]]:
    """Return the groups with the saved options and the optimizer's own parameters."""
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    listed = [len(group["params"]) for group in given]
    if sizes != listed:
        raise SettingError(f"expected groups of {sizes} parameters, got groups of {listed}", op=op, help=HELP)
    groups = []
    for own, saved in zip(optimizer.param_groups, given, strict=True):
        wrong = [name for name in optimizer.defaults if name not in saved]
        wrong += [name for name in saved if name not in {*own, *OTHERS}]
        if wrong:
            raise SettingError(f"options missing or unknown: {', '.join(wrong)}", op=op, help=HELP)
        if saved.get("param_names", own.get("param_names")) != own.get("param_names"):
            raise SettingError("the names of the parameters differ", op=op, help=HELP)
        plain = {
            name: tuple(v) if isinstance(v, list) and name == "betas" else v for name, v in saved.items()
        }
        group = {**own, **plain, "params": own["params"]}
        optimizer.check_group(group)
        groups.append(group)
    return groups


def _state(op: str, optimizer: Optimizer, given: Mapping[str, Any]) -> dict[Value, dict[str, Any]]:
    """Return parameter -> state, every entry held to the parameter's shape and to the dtype that is kept."""
    parameters = _parameters(optimizer)
    known = {
        f"{i}.{name}": (p, name) for i, p in enumerate(parameters) for name in optimizer.state_names | STORED
    }
    state: dict[Value, dict[str, Any]] = {}
    for flat, value in given.items():
        if flat not in known:
            raise SettingError(unknown_name("entry", flat, list(known)[:12]), op=op, help=HELP)
        param, name = known[flat]
        state.setdefault(param, {})[name] = _entry(f"{op}: {flat}", param, name, value)
    for param, kept in state.items():
        lacking = optimizer.lacking(kept)
        if lacking:
            raise SettingError(
                f"parameter {_place(parameters, param)} has {', '.join(kept)} but no {', '.join(lacking)}",
                op=op,
                help=HELP,
            )
    return state


def _place(parameters: list[Value], param: Value) -> int:
    return next(i for i, each in enumerate(parameters) if each is param)


def _entry(op: str, param: Value, name: str, value: Any) -> Any:
    """Return one number, or one array as the parameter's backend holds it."""
    if name == "step":
        count = np.asarray(value)
        if count.size != 1 or count.dtype.kind not in "iu" or int(count.reshape(-1)[0]) < 0:
            raise SettingError(f"expected a number of steps, got {value!r}", op=op)
        return int(count.reshape(-1)[0])
    array = np.asarray(value)
    if array.shape != param.shape:
        raise ShapeError(
            f"expected shape {param.shape}, got {array.shape}", op=op, shapes=[param.shape, array.shape]
        )
    wide = np.dtype("float64" if param.array.dtype == "float64" else "float32")
    wanted = param.array.dtype if name == "compensation" else wide
    if array.dtype != wanted:
        raise FormatError(
            f"expected {wanted}, got {array.dtype}", op=op, formats=[str(wanted), str(array.dtype)]
        )
    return param.backend.from_host(array)
