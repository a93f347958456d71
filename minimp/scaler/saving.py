"""A scaler's state dict: PyTorch's five entries, and those that PyTorch has no word for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral
from typing import Any

from minimp.errors import ScalerError, SettingError
from minimp.scaler.machine import ScaleRule, ScaleState

__all__ = ["from_state_dict", "to_state_dict"]

TORCH_SETTINGS = ("growth_factor", "backoff_factor", "growth_interval")
TORCH_ENTRIES = ("scale", *TORCH_SETTINGS, "_growth_tracker")
OWN_SETTINGS = tuple(
    name for name in ScaleRule.__dataclass_fields__ if name not in ("init_scale", *TORCH_SETTINGS)
)
OWN_COUNTS = ("skips", "met_bad")


def to_state_dict(rule: ScaleRule, state: ScaleState) -> dict[str, Any]:
    """Return PyTorch's five entries, and under a rule that PyTorch does not have, the rest as well."""
    entries = {
        "scale": state.scale,
        **{name: getattr(rule, name) for name in TORCH_SETTINGS},
        "_growth_tracker": state.growth_tracker,
    }
    default = ScaleRule()
    own = {name: getattr(rule, name) for name in OWN_SETTINGS}
    own = {name: value for name, value in own.items() if value != getattr(default, name)}
    if own:
        entries |= own | {f"_{name}": getattr(state, name) for name in OWN_COUNTS}
    return entries


def from_state_dict(rule: ScaleRule, entries: Mapping[str, Any]) -> tuple[ScaleRule, ScaleState]:
    """Return the rule and the state that `entries` describe; settings that they lack stay those of `rule`.

    An array or tensor without axes, of any library, counts as its number.

    Raises:
        ScalerError: there are no entries, as from a disabled scaler.
        SettingError: one of PyTorch's five is missing, or one cannot be used.
    """
    if not entries:
        raise ScalerError(
            "the state dict is empty, as that of a disabled scaler is",
            op="GradScaler.load_state_dict", help="load it into GradScaler(enabled=False), or leave it out",
        )  # fmt: skip
    missing = [name for name in TORCH_ENTRIES if name not in entries]
    if missing:
        raise SettingError(
            f"the state dict lacks {', '.join(missing)}",
            op="GradScaler.load_state_dict", help=f"expected at least {', '.join(TORCH_ENTRIES)}",
        )  # fmt: skip
    entries = {name: value.item() if _has_no_axes(value) else value for name, value in entries.items()}
    settings = {name: entries[name] for name in (*TORCH_SETTINGS, *OWN_SETTINGS) if name in entries}
    loaded = replace(rule, init_scale=entries["scale"], **settings)
    counts = {name: _count(f"_{name}", entries.get(f"_{name}", 0)) for name in ("growth_tracker", "skips")}
    return loaded, ScaleState(loaded.init_scale, **counts, met_bad=bool(entries.get("_met_bad", False)))


def _has_no_axes(value: Any) -> bool:
    return getattr(value, "ndim", None) == 0 and hasattr(value, "item")


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise SettingError(f"{name}: expected a whole number, got {value!r}", op="GradScaler.load_state_dict")
    return int(value)
