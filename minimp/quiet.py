"""Silence NumPy's floating-point warnings around a kernel, cheaply.

An overflow is something that this engine measures and reports; NumPy's ``RuntimeWarning`` would say it a
second time, and only for some of the formats. ``np.errstate`` costs about three small additions a time,
so where NumPy offers the context variable beneath it (2.0 to 2.4), that is set directly.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

import numpy as np

__all__ = ["hush", "speak"]


def _with_context_variable() -> tuple[Callable[[], Any], Callable[[Any], None]]:
    from numpy._core import umath

    variable: ContextVar[Any] = umath._extobj_contextvar
    silent = umath._make_extobj(all="ignore")
    variable.reset(variable.set(silent))
    return partial(variable.set, silent), variable.reset


def _with_errstate() -> tuple[Callable[[], Any], Callable[[Any], None]]:
    return partial(np.seterr, all="ignore"), _restore


def _restore(old: dict[str, Any]) -> None:
    np.seterr(**old)


try:
    hush, speak = _with_context_variable()
except (ImportError, AttributeError, TypeError):
    hush, speak = _with_errstate()
"""``token = hush()`` silences this thread or task; ``speak(token)`` restores what was before."""
