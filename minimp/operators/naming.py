"""What a public function says when it is called with what it cannot use.

Most refusals are written where the fault is seen: by a function, or by the op beneath it. What none of them
foresaw (a string where a length belongs, a list of lists of different lengths) would come out as NumPy's or
Python's own words from somewhere inside; here it becomes an error that names the function.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import isfunction
from typing import Any, TypeVar

from minimp.errors import MinimpError, SettingError

__all__ = ["methods_naming_themselves", "naming_itself"]

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)


def naming_itself(function: Function) -> Function:
    """Return the function with errors that name it; a call that its signature refuses is Python's to refuse.

    An error of minimp's that names nothing gets the function's name in front; what NumPy or Python raised
    inside becomes a :class:`SettingError` that shows the arguments, with the original as its cause.
    """
    name = function.__name__

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except MinimpError as fault:
            if fault.op is None and name not in str(fault):
                fault.op, fault.args = name, (f"{name}: {fault}",)
            raise
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as fault:
            if fault.__traceback__ is None or fault.__traceback__.tb_next is None:
                raise  # the call itself did not fit the signature
            raise _explained(function, args, options, fault) from fault

    return call  # type: ignore[return-value]  # it is called as the function is


def methods_naming_themselves(group: Class) -> Class:
    """Do so with every public method of a class."""
    for name, method in list(vars(group).items()):
        if isfunction(method) and not name.startswith("_"):
            setattr(group, name, naming_itself(method))
    return group


def _explained(
    function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], fault: Exception
) -> SettingError:
    """Say what was given, and what the function is for."""
    given = [_short(x) for x in args] + [f"{key}={_short(x)}" for key, x in options.items()]
    summary = (function.__doc__ or "").strip().split("\n")[0]
    return SettingError(
        f"cannot be called with ({', '.join(given)}): {fault}", op=function.__name__, help=summary or None
    )


def _short(x: Any) -> str:
    """Show an argument: of arrays the kind and the shape."""
    if hasattr(x, "shape"):
        return f"{type(x).__name__} {tuple(x.shape)}"
    text = repr(x)
    return text if len(text) <= 40 else f"{text[:37]}..."
