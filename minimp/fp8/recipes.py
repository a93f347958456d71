"""FP8 scaling recipes as data: which format, which scale, which copies of a matrix a product reads.

A linear layer has three products, and each reads two matrices in FP8 (Micikevicius et al. 2022, "FP8 Formats
for Deep Learning", arXiv 2209.05433; names and defaults are Transformer Engine's):

=========  ======================  ==========================================================
product    equation                operands
=========  ======================  ==========================================================
fprop      Y = X W^T + b           X and W, blocks along `in`
dgrad      dX = dY W               dY and W, blocks along `out`
wgrad      dW = dY^T X             dY and X, blocks along the rows
=========  ======================  ==========================================================

X and W are e4m3 (largest value 448). dY is e5m2 (57344) in the format ``"HYBRID"``, e4m3 in ``"E4M3"``.
Products of two FP8 values are exact in float32, and summed as the accumulation in force says; db is the sum
of dY as it came, not quantised.

Rounding is to nearest even, and saturates: what lies beyond the largest value becomes it, infinities too (as
CUDA's conversions do, ``__NV_SATFINITE``); NaN stays NaN. A block with an infinity or NaN in it has the scale
NaN, and is NaN as a whole; no other is touched.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar, Self

from minimp import formats
from minimp.errors import SettingError, unknown_name
from minimp.formats import Format

__all__ = [
    "FORMATS", "ROLES", "DelayedScaling", "FixedScaling", "Float8BlockScaling", "Float8CurrentScaling",
    "Fp8Recipe", "MXFP8BlockScaling", "fp8_recipes", "recipe_named",
]  # fmt: skip

ROLES = ("input", "weight", "grad")
"""X, W and dY."""
FORMATS = {
    "HYBRID": {"input": "float8_e4m3fn", "weight": "float8_e4m3fn", "grad": "float8_e5m2"},
    "E4M3": dict.fromkeys(ROLES, "float8_e4m3fn"),
}
"""Name of Transformer Engine's `Format` -> role -> format. It refuses a pure E5M2, and so is it here."""
ALGORITHMS = ("max", "most_recent")
Block = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Fp8Recipe:
    """What all recipes share; not a recipe itself.

    Attributes:
        fp8_format: ``"HYBRID"`` (e4m3 forward, e5m2 backward) or ``"E4M3"``.

    Raises:
        SettingError: a format, or another choice, that does not exist; or none of the kinds below was made.
    """

    fp8_format: str = "HYBRID"
    has_history: ClassVar[bool] = False
    """Whether scales come from earlier steps, so that there is a state."""
    reads_amax: ClassVar[bool] = False
    """Whether the largest magnitude of a whole tensor is looked at."""

    def __post_init__(self) -> None:
        if type(self) is Fp8Recipe:
            raise SettingError("it says nothing of scales; make one of its kinds", op="Fp8Recipe")
        name: Any = self.fp8_format
        if not isinstance(name, str) or name not in FORMATS:
            raise SettingError(
                unknown_name("fp8_format", name, FORMATS), op=type(self).__name__,
                help='"HYBRID", or "E4M3"; nobody trains in pure E5M2',
            )  # fmt: skip

    def format_of(self, role: str) -> Format:
        """Return the format of ``"input"``, ``"weight"`` or ``"grad"``."""
        return formats.get(FORMATS[self.fp8_format][role])

    def block(self, role: str, axis: int) -> Block | None:
        """Return the extent of a block of the (M, N) copy summed over `axis`; None: one scale for all."""
        del role, axis
        return None

    def shares(self, role: str) -> bool:
        """Tell whether one copy serves sums over either axis."""
        return self.block(role, 0) == self.block(role, 1)

    def with_(self, **changes: Any) -> Self:
        """Return a copy with some choices changed; they are checked again."""
        return replace(self, **changes)


@dataclass(frozen=True, kw_only=True)
class DelayedScaling(Fp8Recipe):
    """One scale a tensor, from the amaxes of earlier steps: s = (fp8_max / amax) / 2^margin.

    A step reads the tensor with the scale that it finds, and notes its amax in slot 0 of the history. Then
    the scale is computed, and the history rotated (:func:`minimp.fp8.delayed_scale`,
    :func:`minimp.fp8.next_history`). The first step has a history of zeros, and scale 1. A tensor that grows
    by more than 2^margin beyond all of its history saturates for a step. One that scale 1 flushes to zero is
    found by the next step; gradients that small come alive one layer a step, for behind a layer whose dY was
    lost there is nothing to note.

    An infinite amax stays in the history, and holds the scale, until it has been rotated out: under ``"max"``
    for `amax_history_len` steps.

    Source: Transformer Engine 2.x, ``common/recipe/__init__.py`` (`DelayedScaling`) and
    ``delayed_scaling.cu``.

    Attributes:
        margin: powers of two that are left free above the amax.
        amax_history_len: the steps that the history remembers, the present one among them.
        amax_compute_algo: ``"max"`` of the history, or ``"most_recent"``.
    """

    margin: int = 0
    amax_history_len: int = 1024
    amax_compute_algo: str = "max"
    has_history: ClassVar[bool] = True
    reads_amax: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if _whole(self.margin) is None or not -64 <= self.margin <= 64:
            raise SettingError(
                f"margin must be a whole number from -64 to 64, got {self.margin!r}", op="DelayedScaling"
            )
        if (_whole(self.amax_history_len) or 0) < 1:
            raise SettingError(
                f"amax_history_len must be a whole number of at least 1, got {self.amax_history_len!r}",
                op="DelayedScaling",
            )
        object.__setattr__(self, "margin", _whole(self.margin))
        object.__setattr__(self, "amax_history_len", _whole(self.amax_history_len))
        if self.amax_compute_algo not in ALGORITHMS:
            raise SettingError(
                unknown_name("amax_compute_algo", self.amax_compute_algo, ALGORITHMS), op="DelayedScaling"
            )


@dataclass(frozen=True, kw_only=True)
class Float8CurrentScaling(Fp8Recipe):
    """One scale a tensor, from the tensor itself: s = fp8_max / amax; nothing saturates, nothing is kept.

    An amax of 0, an infinity or NaN gives s = 1 (:func:`minimp.fp8.current_scale`).

    Source: Transformer Engine 2.x, `Float8CurrentScaling` and ``recipe_common.cuh``.

    Attributes:
        use_power_2_scales: cut s down to a power of two, so that scaling is exact.
    """

    use_power_2_scales: bool = False
    reads_amax: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.use_power_2_scales, bool):
            raise SettingError(
                f"use_power_2_scales is True or False, not {self.use_power_2_scales!r}",
                op="Float8CurrentScaling",
            )


@dataclass(frozen=True, kw_only=True)
class Float8BlockScaling(Fp8Recipe):
    """One scale for 128 numbers of X and dY, along the axis of the sum, and for 128 x 128 of W.

    Scales are float32 numbers that are powers of two, the least with which nothing is clamped. X and dY have
    a copy for each product that reads them, both made from the numbers as they came; the squares of W serve
    both directions. A last block that is not full has its own scale, as if zeros filled it up (Transformer
    Engine takes only matrices whose sides are multiples of 128).

    Source: Transformer Engine 2.x, `Float8BlockScaling`; DeepSeek-AI 2024, "DeepSeek-V3 Technical Report",
    arXiv 2412.19437, section 3.3.2 (there in e4m3 throughout, which is the default here too).
    """

    fp8_format: str = "E4M3"
    length: ClassVar[int] = 128

    def block(self, role: str, axis: int) -> Block:
        """Return (128, 128) for weights, else 128 along `axis`."""
        if role == "weight":
            return self.length, self.length
        return (self.length, 1) if axis == 0 else (1, self.length)


@dataclass(frozen=True, kw_only=True)
class MXFP8BlockScaling(Fp8Recipe):
    """One E8M0 scale (a power of two, in a byte) for 32 numbers along the axis of the sum.

    Every matrix has a copy for each product that reads it: rowwise and columnwise ones, both made from the
    numbers as they came, for a copy of a copy would be rounded twice. A last block that is not full has its
    own scale (Transformer Engine takes only matrices whose sides are multiples of 32).

    The scale is the least power of two with which nothing is clamped, as Transformer Engine and cuBLAS round
    amax / fp8_max up; OCP MX 1.0, section 6.3, suggests the one below, which clamps the largest numbers of
    some blocks (:func:`minimp.formats.quantize` does both).

    Source: OCP Microscaling Formats (MX) 1.0, 2023; Transformer Engine 2.x, `MXFP8BlockScaling`.
    """

    fp8_format: str = "E4M3"
    length: ClassVar[int] = 32

    def block(self, role: str, axis: int) -> Block:
        """Return 32 along `axis`."""
        del role
        return (self.length, 1) if axis == 0 else (1, self.length)


@dataclass(frozen=True, kw_only=True)
class FixedScaling(Fp8Recipe):
    """Scales that never move; at 1, what FP8 does to numbers that nobody brought into its range.

    Attributes:
        input, weight, grad: the scale s of X, W and dY, a float32 number above 0.
    """

    input: float = 1.0
    weight: float = 1.0
    grad: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for role in ROLES:
            scale: Any = getattr(self, role)
            number = isinstance(scale, Real) and not isinstance(scale, bool)
            if not (
                number and 2.0**-126 <= scale <= 2.0**127 and float(formats.round(scale, "float32")) == scale
            ):
                raise SettingError(
                    f"the scale of {role} must be a float32 number from 2^-126 to 2^127, got {scale!r}",
                    op="FixedScaling", help="take a power of two, then scaling is exact",
                )  # fmt: skip
            object.__setattr__(self, role, float(scale))


def _whole(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


fp8_recipes: dict[str, Fp8Recipe] = {
    "delayed": DelayedScaling(),
    "current": Float8CurrentScaling(),
    "block": Float8BlockScaling(),
    "mxfp8": MXFP8BlockScaling(),
    "unscaled": FixedScaling(),
}
"""The recipes by a short name, with their defaults."""


def recipe_named(x: Any) -> Fp8Recipe:
    """Return a recipe itself, or the one of a name.

    Raises:
        SettingError: it is neither.
    """
    if isinstance(x, Fp8Recipe):
        return x
    if not isinstance(x, str) or x not in fp8_recipes:
        raise SettingError(
            unknown_name("FP8 recipe", x, fp8_recipes), help="or make one: DelayedScaling(...)"
        )
    return fp8_recipes[x]
