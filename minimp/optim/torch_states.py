"""States to and from torch's own optimizers, without importing torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from minimp.errors import SettingError
from minimp.optim.groups import OTHERS

if TYPE_CHECKING:
    from minimp.optim.optimizer import Optimizer

__all__ = ["from_torch", "is_torchs", "to_torch"]

WAYS = ("foreach", "capturable", "differentiable", "fused")
"""Options of torch's that choose how it computes, not what."""


def is_torchs(given: Mapping[str, Any]) -> bool:
    """Tell whether a state is laid out as torch.optim.Optimizer.state_dict does it."""
    return set(given) == {"state", "param_groups"}


def from_torch(op: str, optimizer: Optimizer, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state of torch's as :meth:`Optimizer.state_dict` lays it out; what does not fit shows later.

    Tensors of torch become arrays, 16-bit ones are widened exactly; an entry of None is left out.

    Raises:
        SettingError: the decay is decoupled (AdamW) there, and not here, or the other way round.
    """
    order: list[Any] = [param for group in given["param_groups"] for param in group["params"]]
    places = {param: place for place, param in enumerate(order)}
    groups = []
    for group in given["param_groups"]:
        own = getattr(optimizer, "decoupled", None)
        if group.get("decoupled_weight_decay", own) != own:
            raise SettingError(
                f"decoupled_weight_decay={not own} does not belong to {optimizer.rule!r}",
                op=op, help="AdamW decouples it, Adam does not",
            )  # fmt: skip
        kept = {k: v for k, v in group.items() if k not in (*WAYS, "decoupled_weight_decay")}
        groups.append({name: _number(value) for name, value in kept.items()})
    state = {
        f"{places.get(param, param)}.{name}": int(_host(value)) if name == "step" else _wide(_host(value))
        for param, entries in given["state"].items()
        for name, value in entries.items()
        if value is not None
    }
    return {
        "rule": optimizer.rule,
        "settings": optimizer.settings,
        "param_groups": groups,
        "state": state,
    }


def to_torch(optimizer: Optimizer, convert: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the state as torch's optimizers take it; see :meth:`Optimizer.torch_state_dict`."""
    own = optimizer.state_dict()
    state: dict[int, dict[str, Any]] = {}
    for flat, value in own["state"].items():
        place, name = flat.split(".", 1)
        if name == "compensation":
            raise SettingError(
                "torch's optimizers keep no compensation, and weights without it are not the run's",
                op=f"{type(optimizer).__name__}.torch_state_dict",
                help='only update="fp32" and "stochastic", and master weights, can go on in torch',
            )
        if name != "master":
            kept = np.asarray(value, np.float32) if name == "step" else value
            state.setdefault(int(place), {})[name] = convert(kept)
    groups = own["param_groups"]
    known = (*optimizer.defaults, *OTHERS, "params")
    return {
        "state": state,
        "param_groups": [{name: value for name, value in group.items() if name in known} for group in groups],
    }


def _host(value: Any) -> Any:
    """Return a NumPy array of an array, a number or a tensor of torch (whose bfloat16 NumPy cannot read)."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    return np.asarray(value)


def _wide(array: Any) -> Any:
    return array.astype(np.float32) if array.dtype.itemsize == 2 else array


def _number(value: Any) -> Any:
    """Return an option as plain data: torch's rates may be tensors."""
    return _host(value).item() if hasattr(value, "detach") else value
