"""Which rows of modules are fused, and into what: a frozen table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from minimp.errors import SettingError
from minimp.nn import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    ConvTranspose2d,
    Identity,
    Linear,
    ReLU,
)
from minimp.nn.module import Module
from minimp.quant.fusion import intrinsic
from minimp.quant.fusion.folding import fold_batch_norm

__all__ = ["PATTERNS", "Classes", "Pattern", "chosen", "name_of"]

Classes = tuple[type[Module], ...]


@dataclass(frozen=True)
class Pattern:
    """One row of modules that can become one module.

    Attributes:
        classes: the very classes of the modules, in the order of running; a subclass may compute something
            else and does not count.
        folds: whether the second is a batch norm, which is folded into the first.
        into: what holds the first module and the ReLU that ends the row; None where no ReLU does.
    """

    classes: Classes
    folds: bool
    into: type[intrinsic.WithReLU] | None

    @property
    def name(self) -> str:
        """The names of the classes, joined by +."""
        return name_of(self.classes)

    def build(self, modules: list[Any]) -> list[Module]:
        """Return what takes the places of the modules: the fused one first, an Identity for each other.

        Raises:
            SettingError: the batch norm cannot be folded.
        """
        first = fold_batch_norm(modules[0], modules[1]) if self.folds else modules[0]
        made: Module = first if self.into is None else self.into(first, modules[-1])
        made_all = [made, *(Identity() for _ in modules[1:])]
        for each in made_all if made is not modules[0] else made_all[1:]:
            object.__setattr__(each, "training", modules[0].training)
        return made_all


_ROWS = (
    Pattern((Conv1d, BatchNorm1d), folds=True, into=None),
    Pattern((Conv1d, BatchNorm1d, ReLU), folds=True, into=intrinsic.ConvReLU1d),
    Pattern((Conv1d, ReLU), folds=False, into=intrinsic.ConvReLU1d),
    Pattern((Conv2d, BatchNorm2d), folds=True, into=None),
    Pattern((Conv2d, BatchNorm2d, ReLU), folds=True, into=intrinsic.ConvReLU2d),
    Pattern((Conv2d, ReLU), folds=False, into=intrinsic.ConvReLU2d),
    Pattern((Linear, BatchNorm1d), folds=True, into=None),
    Pattern((Linear, BatchNorm1d, ReLU), folds=True, into=intrinsic.LinearReLU),
    Pattern((Linear, ReLU), folds=False, into=intrinsic.LinearReLU),
    Pattern((ConvTranspose1d, BatchNorm1d), folds=True, into=None),
    Pattern((ConvTranspose2d, BatchNorm2d), folds=True, into=None),
    Pattern((BatchNorm1d, ReLU), folds=False, into=intrinsic.BNReLU1d),
    Pattern((BatchNorm2d, ReLU), folds=False, into=intrinsic.BNReLU2d),
    Pattern((BatchNorm3d, ReLU), folds=False, into=intrinsic.BNReLU3d),
)

PATTERNS: Mapping[Classes, Pattern] = MappingProxyType({each.classes: each for each in _ROWS})
"""Classes in the order of running -> how they are fused.

torch.ao.quantization's table for evaluation (2.13) less what needs Conv3d and ConvTranspose3d, and more:
linear + batch norm + ReLU, and BatchNorm1d + ReLU.
"""


def name_of(classes: Iterable[type]) -> str:
    """Return the names of classes, joined by +."""
    return "+".join(each.__name__ for each in classes)


def chosen(patterns: Iterable[Classes] | None, op: str) -> Mapping[Classes, Pattern]:
    """Return the rows of the table that were asked for; None asks for all.

    Raises:
        SettingError: one of them is not in the table, or there is none.
    """
    if patterns is None:
        return PATTERNS
    given: Any = patterns
    asked = [tuple(each) if isinstance(each, list | tuple) else (each,) for each in given]
    for each in asked:
        if each not in PATTERNS:
            shown = "+".join(getattr(one, "__name__", repr(one)) for one in each)
            raise SettingError(
                f"no pattern {shown}", op=op,
                help=f"the patterns are {', '.join(row.name for row in PATTERNS.values())}",
            )  # fmt: skip
    if not asked:
        raise SettingError("no patterns were given", op=op, help="leave `patterns` out to use all")
    return {each: PATTERNS[each] for each in asked}
