"""The engine's random numbers: one generator, whose whole state can be saved and restored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from minimp.errors import SettingError

__all__ = ["drawing_from", "generator", "get_rng_state", "manual_seed", "set_rng_state"]

_generator = np.random.Generator(np.random.Philox(0))
_other: ContextVar[Any] = ContextVar("minimp.rng.other", default=None)


def generator() -> np.random.Generator:
    """Return the generator that initialisation, dropout and stochastic rounding draw from."""
    return _other.get() or _generator


@contextmanager
def drawing_from(other: Any) -> Iterator[None]:
    """Draw from another generator inside the block; the engine's own stays where it is."""
    token = _other.set(other)
    try:
        yield
    finally:
        _other.reset(token)


def manual_seed(seed: Any) -> np.random.Generator:
    """Start the generator anew from `seed`, a non-negative integer (torch.manual_seed)."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise SettingError(f"expected a seed that is a non-negative integer, got {seed!r}")
    _generator.bit_generator.state = np.random.Philox(int(seed)).state
    return _generator


def get_rng_state() -> dict[str, Any]:
    """Return the generator's state: a dict of integers, strings and lists that JSON can hold."""
    return _plain(_generator.bit_generator.state)  # type: ignore[no-any-return]  # a dict in, a dict out


def set_rng_state(state: dict[str, Any]) -> None:
    """Continue from a state that :func:`get_rng_state` returned.

    Raises:
        SettingError: it is not such a state; the generator stays as it was.
    """
    before = _generator.bit_generator.state
    try:
        inner = {k: np.asarray(v, np.uint64) for k, v in state["state"].items()}
        _generator.bit_generator.state = {
            **state,
            "state": inner,
            "buffer": np.asarray(state["buffer"], np.uint64),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        _generator.bit_generator.state = before
        raise SettingError(f"not a state of the random generator: {fault}") from fault


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
