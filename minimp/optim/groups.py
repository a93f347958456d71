"""Parameter groups: what an optimizer may be given, and what it makes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from minimp.errors import FormatError, GradientError, SettingError, unknown_name
from minimp.policy import FLOATING
from minimp.tape import Value

__all__ = ["OTHERS", "Group", "as_groups", "make_group", "number", "pair_of_betas"]

Group = dict[str, Any]
SCHEDULED = ("initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr")
"""What schedulers keep in a group."""
OTHERS = ("param_names", *SCHEDULED)
"""What a group may hold besides its parameters and the optimizer's options."""


def as_groups(op: str, params: Any) -> list[Group]:
    """Return the groups that `params` describes: one for an iterable of parameters, else as they are.

    Raises:
        SettingError: a single tensor, or nothing.
    """
    if isinstance(params, Value | Mapping | str):
        raise SettingError(
            f"expected an iterable of parameters or of group dicts, got {type(params).__name__}",
            op=op,
            help="pass model.parameters(), or put the one tensor or dict in a list",
        )
    listed = list(params)
    if not listed:
        raise SettingError("the list of parameters is empty", op=op, help="pass model.parameters()")
    return [dict(each) for each in listed] if isinstance(listed[0], Mapping) else [{"params": listed}]


def make_group(op: str, given: Mapping[str, Any], defaults: Mapping[str, Any], taken: set[int]) -> Group:
    """Return a group of its own: parameters listed, options filled up from the defaults.

    Args:
        op: the optimizer's name, for messages.
        given: `params`, an iterable of tensors or of (name, tensor) pairs or one tensor, and options.
        defaults: every option and its value where the group has none.
        taken: the ids of the parameters of other groups.

    Raises:
        SettingError: unknown options; something that is no tensor; a parameter that comes twice.
        GradientError: a parameter that is no leaf.
        FormatError: a parameter without a floating format.
    """
    known = ("params", *OTHERS, *defaults)
    for option in given:
        if option not in known:
            raise SettingError(unknown_name("option", option, known), op=op)
    if "params" not in given:
        raise SettingError("a group has no 'params'", op=op, help="write {'params': ..., 'lr': ...}")
    params = given["params"]
    if isinstance(params, set | frozenset):
        raise SettingError("a set of parameters has no order to save them in", op=op, help="pass a list")
    listed = [params] if isinstance(params, Value) else list(params)
    pairs = [each if isinstance(each, tuple) else (None, each) for each in listed]
    tensors = [each for _, each in pairs]
    _check_parameters(op, tensors, taken)
    group = {**defaults, **given, "params": tensors}
    names = [name for name, _ in pairs if name is not None]
    if names:
        group["param_names"] = names
    if len(group.get("param_names", tensors)) != len(tensors):
        raise SettingError("some parameters have a name and some have none", op=op)
    return group


def _check_parameters(op: str, tensors: list[Any], taken: set[int]) -> None:
    for i, each in enumerate(tensors):
        if not isinstance(each, Value):
            raise SettingError(
                f"expected tensors, but parameter {i} is a {type(each).__name__}",
                op=op,
                help="pass model.parameters()",
            )
        if each.node is not None:
            raise GradientError(
                f"parameter {i} of shape {each.shape} is no leaf", op=op, help="use .detach()"
            )
        if each.format not in FLOATING:
            raise FormatError(f"parameter {i} is of {each.array.dtype}, not of a floating format", op=op)
    ids = [id(each) for each in tensors]
    if len(set(ids)) != len(ids) or not taken.isdisjoint(ids):
        raise SettingError("a parameter comes twice", op=op, help="give each parameter to one group, once")


def number(op: str, group: Mapping[str, Any], name: str, *, below: float = math.inf) -> None:
    """Hold an option to be a number of at least 0 and less than `below`.

    Raises:
        SettingError: it is not.
    """
    value = group[name]
    kind = isinstance(value, int | float) and not isinstance(value, bool)
    if not kind or not 0.0 <= value < below:
        limit = f" and below {below:g}" if below < math.inf else ""
        raise SettingError(
            f"expected {name} to be a finite number of at least 0{limit}, got {value!r}", op=op
        )


def pair_of_betas(op: str, group: Mapping[str, Any]) -> None:
    """Hold `betas` to be two numbers, each from 0 to below 1.

    Raises:
        SettingError: they are not.
    """
    betas = tuple(group["betas"])
    if len(betas) != 2:
        raise SettingError(f"expected two betas, got {betas}", op=op)
    for i, beta in enumerate(betas):
        number(op, {f"betas[{i}]": beta}, f"betas[{i}]", below=1.0)
