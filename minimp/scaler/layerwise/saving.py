"""A layer-wise scaler's state dict: its settings, and what each layer has learnt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from minimp.errors import SettingError
from minimp.scaler.layerwise.layers import Layer, Layers, LayerwiseSettings
from minimp.scaler.machine import ScaleState

__all__ = ["layers_from", "layers_to"]

SETTINGS = tuple(each.name for each in fields(LayerwiseSettings))
ENTRIES = ("settings", "layers", "steps", "skipping")


def layers_to(layers: Layers, skipping: Mapping[str, Any]) -> dict[str, Any]:
    """Return what :func:`layers_from` reads; all of it can be written as JSON."""
    settings = {name: getattr(layers.settings, name) for name in SETTINGS}
    return {
        "settings": {**settings, "fixed": dict(layers.settings.fixed)},
        "layers": {
            name: {"factor": None if layer.exponent is None else 2.0**layer.exponent, **asdict(layer.ceiling)}
            for name, layer in layers.table.items()
        },
        "steps": layers.steps,
        "skipping": dict(skipping),
    }


def layers_from(entries: Mapping[str, Any]) -> tuple[Layers, Mapping[str, Any]]:
    """Return the layers, and the state of the scaler that skips steps.

    Raises:
        SettingError: an entry is missing or cannot be used.
    """
    _require_entries(entries, ENTRIES, "the state dict")
    _require_entries(entries["settings"], SETTINGS, "settings")
    layers = Layers(LayerwiseSettings(**{name: entries["settings"][name] for name in SETTINGS}))
    layers.steps = _count("steps", entries["steps"])
    for name, entry in entries["layers"].items():
        _require_entries(
            entry, ("factor", "scale", "growth_tracker", "skips", "met_bad"), f"layers[{name!r}]"
        )
        counts = {key: _count(key, entry[key]) for key in ("growth_tracker", "skips")}
        ceiling = ScaleState(
            2.0 ** _exponent("scale", entry["scale"]), met_bad=bool(entry["met_bad"]), **counts
        )
        factor = entry["factor"]
        layers.table[str(name)] = Layer(ceiling, None if factor is None else _exponent("factor", factor))
    return layers, entries["skipping"]


def _require_entries(entries: Any, names: tuple[str, ...], what: str) -> None:
    missing = [name for name in names if name not in entries] if isinstance(entries, Mapping) else list(names)
    if missing:
        raise SettingError(
            f"{what} lacks {', '.join(missing)}", op="LayerwiseScaler.load_state_dict",
            help="load what LayerwiseScaler.state_dict() returned",
        )  # fmt: skip


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SettingError(f"{name}: expected a count, got {value!r}", op="LayerwiseScaler.load_state_dict")
    return value


def _exponent(name: str, value: Any) -> int:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.frexp(value)[0] == 0.5
    if not fits:
        raise SettingError(
            f"{name}: expected a power of two, got {value!r}", op="LayerwiseScaler.load_state_dict"
        )
    return math.frexp(value)[1] - 1
