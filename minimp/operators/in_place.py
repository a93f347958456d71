"""torch's methods that change a tensor in place: what to write instead, said where they are looked up."""

from __future__ import annotations

from typing import Any, NoReturn

from minimp.errors import SettingError
from minimp.tape import Value

__all__ = ["InPlace", "NotOfferedError"]

CHANGED = """
    abs acos add addcdiv addcmul asin atan ceil clamp clip copy cos cosh cumprod cumsum div erf exp
    expm1 fill floor index_add index_copy index_fill index_put lerp log log10 log1p log2 logical_and
    logical_not logical_or masked_fill mul neg normal pow random reciprocal relu remainder round
    rsqrt scatter scatter_add sigmoid sign sin sinh sqrt square squeeze sub tan tanh transpose tril
    triu trunc uniform unsqueeze zero
"""


class NotOfferedError(SettingError, AttributeError):
    """A method that torch has and minimp has not; `hasattr` is false."""


class _Lookup:
    """Stands where the method would, and says what to write instead."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else self._refuse(owner)

    def _refuse(self, owner: type) -> NoReturn:
        plain = self.name[:-1]
        advice = f"write x = x.{plain}(...)" if hasattr(owner, plain) else "make a new tensor"
        raise NotOfferedError(
            f"tensors have no {self.name}: arrays are never changed in place, the tape may hold them",
            help=f"{advice}; a parameter's values are replaced by `p.array = ...` or by mp.nn.init",
        )


class InPlace(Value):
    """The names of torch's in-place methods, none of which is offered."""

    __slots__ = ()


for _name in CHANGED.split():
    setattr(InPlace, f"{_name}_", _Lookup(f"{_name}_"))
