"""Recipes: the named choices of a training run, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from minimp import formats
from minimp.errors import SettingError, unknown_name
from minimp.formats import Format
from minimp.formats.accumulation.orders import parse_accumulate
from minimp.fp8.recipes import recipe_named
from minimp.named import Named
from minimp.policy import FLOATING, Policy, policies

__all__ = ["Recipe", "recipes"]

UPDATES = ("fp32", "stochastic", "kahan")
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "name": ((str,), "a string"),
    "master_weights": ((bool,), "True or False"),
    "accumulate": ((str,), "the name of an accumulation"),
    "policy": ((str, Policy, type(None)), "the name of a policy, a Policy or None"),
}
"""What the choices that are no formats can be: their types, and these in words."""


@dataclass(frozen=True)
class Recipe:
    """What a training run computes in, stores, and scales by.

    Attributes:
        name: how it is called.
        param_dtype: the format in which the model's parameters are stored (running statistics of batch
            normalisation stay float32 where it is a 16-bit one).
        compute_dtype: the format of products: the autocast region's, or `param_dtype` without a policy.
        master_weights: whether updates accumulate in FP32. With `param_dtype` float32 the parameters are
            the masters, and autocast makes the low copies; with a low `param_dtype` the optimizer keeps them.
        loss_scale: None (S = 1, no scaler), a fixed power of two from 2^-126 to 2^127, "dynamic", or
            "layerwise": a factor for each layer that computes in float16 (:class:`minimp.LayerwiseScaler`).
        accumulate: how sums are accumulated, a name of :func:`minimp.formats.matmul`.
        policy: the autocast policy, by name or as a Policy; None runs every op in the format of its inputs.
        update: how a low-format weight without a master takes its update: rounded to nearest ("fp32":
            the arithmetic is FP32), "stochastic" or "kahan" (Zamirai et al. 2020, arXiv 2010.06192).
        fp8: how tensors are scaled for FP8 products in `nn.Linear` layers: a recipe of :mod:`minimp.fp8`, or
            its name; None: no FP8. All else computes as the other choices say.
        note: the recipe in a few words.

    Raises:
        SettingError: a choice that contradicts another, so that it could not act.
    """

    name: str
    param_dtype: Any = formats.float32
    compute_dtype: Any = formats.float32
    master_weights: bool = False
    loss_scale: float | str | None = None
    accumulate: str = "float32"
    policy: str | Policy | None = None
    update: str = "fp32"
    fp8: Any = None
    note: str = ""

    def __post_init__(self) -> None:
        for field in ("param_dtype", "compute_dtype"):
            form = formats.get(getattr(self, field))
            if form not in FLOATING:
                raise self._refuse(
                    f"{field} cannot be {form.name}; use float64, float32, float16 or bfloat16"
                )
            object.__setattr__(self, field, form)
        for field, (kinds, words) in KINDS.items():
            if not isinstance(getattr(self, field), kinds):
                raise self._refuse(f"{field} is {words}, not {getattr(self, field)!r}")
        parse_accumulate(self.accumulate)
        if isinstance(self.policy, str) and self.policy not in policies:
            raise SettingError(unknown_name("policy", self.policy, policies))
        if self.update not in UPDATES:
            raise SettingError(unknown_name("update", self.update, UPDATES))
        self._check_scale()
        self._check_storage()
        self._check_fp8()

    def _refuse(self, why: str) -> SettingError:
        return SettingError(f"recipe {self.name!r}: {why}")

    def _check_scale(self) -> None:
        scale: Any = self.loss_scale
        if scale is None or scale == "dynamic":
            return
        if scale == "layerwise":
            if self.compute_dtype is not formats.float16 or self.param_dtype is not formats.float32:
                raise self._refuse("loss_scale='layerwise' acts on float16 products with float32 parameters")
            return
        number: Any = scale if isinstance(scale, Real) and scale is not True else 0
        if not 2.0**-126 <= number <= 2.0**127 or math.frexp(number)[0] != 0.5:
            raise self._refuse(
                f"loss_scale is None, 'dynamic', 'layerwise' or a power of two from 2^-126 to 2^127, "
                f"not {scale!r}"
            )

    def _check_storage(self) -> None:
        low_params, low_compute = self.low(self.param_dtype), self.low(self.compute_dtype)
        if self.policy is None and self.compute_dtype is not self.param_dtype:
            raise self._refuse(
                "without a policy everything is computed in param_dtype: compute_dtype cannot differ"
            )
        if self.policy is not None and not low_compute:
            raise self._refuse("an autocast policy needs a compute_dtype of float16 or bfloat16")
        if self.policy is not None and self.param_dtype is formats.float64:
            raise self._refuse(
                "autocast leaves float64 alone: param_dtype must be float32 or the compute format"
            )
        if low_params and self.param_dtype is not self.compute_dtype:
            raise self._refuse("parameters in a low format must be in the compute format")
        if not low_params and low_compute and not self.master_weights:
            raise self._refuse("FP32 parameters are master weights; say master_weights=True")
        if self.master_weights and not low_compute:
            raise self._refuse("master weights need a low compute format to be the master of")
        if self.update != "fp32" and (self.master_weights or not low_params):
            raise self._refuse(f"update={self.update!r} acts on low-format weights without masters only")

    def _check_fp8(self) -> None:
        if self.fp8 is None:
            return
        object.__setattr__(self, "fp8", recipe_named(self.fp8))
        if formats.float64 in (self.param_dtype, self.compute_dtype):
            raise self._refuse("FP8 operands are made of float32 numbers at most: float64 cannot be kept")
        if self.accumulate.startswith("tensorcore:"):
            raise self._refuse(f"FP8 products cannot be accumulated as {self.accumulate!r}")

    @staticmethod
    def low(form: Format) -> bool:
        """Tell whether a format is one of the 16-bit ones."""
        return form in (formats.float16, formats.bfloat16)

    def with_(self, **changes: Any) -> Recipe:
        """Return a copy with some choices changed; they are checked again."""
        return replace(self, **changes)


_HALF, _BRAIN, _TORCH = formats.float16, formats.bfloat16, "torch-cuda"
recipes = Named(
    "recipe",
    Recipe("fp32", note="everything in FP32: what the others are compared with"),
    Recipe("fp16", _HALF, _HALF, note="everything in FP16, loss and weights too"),
    Recipe("fp16-master", compute_dtype=_HALF, master_weights=True, policy=_TORCH,
           note="FP16 with FP32 master weights, no loss scaling"),
    Recipe("fp16-scaled", _HALF, _HALF, loss_scale="dynamic", policy=_TORCH,
           note="FP16 with loss scaling, weights kept in FP16: no master copy"),
    Recipe("mixed-fp16", compute_dtype=_HALF, master_weights=True, loss_scale="dynamic", policy=_TORCH,
           note="the whole technique: FP16 products, FP32 masters, dynamic loss scaling"),
    Recipe("mixed-layerwise", compute_dtype=_HALF, master_weights=True, loss_scale="layerwise",
           policy=_TORCH, note="as mixed-fp16, with a loss scale for each layer, chosen from its statistics"),
    Recipe("mixed-bf16", compute_dtype=_BRAIN, master_weights=True, policy=_TORCH,
           note="bfloat16 products, FP32 masters; the range of FP32 needs no loss scaling"),
    Recipe("bf16", _BRAIN, _BRAIN, policy=_TORCH, note="weights kept in bfloat16, rounded to nearest"),
    Recipe("bf16-stochastic", _BRAIN, _BRAIN, policy=_TORCH, update="stochastic",
           note="weights kept in bfloat16, updates rounded stochastically"),
    Recipe("bf16-kahan", _BRAIN, _BRAIN, policy=_TORCH, update="kahan",
           note="weights kept in bfloat16, updates compensated (Kahan)"),
    Recipe("mixed-fp8", compute_dtype=_BRAIN, master_weights=True, policy=_TORCH, fp8="delayed",
           note="as mixed-bf16, with linear layers in FP8: one scale a tensor, from the steps before"),
    Recipe("mixed-fp8-current", compute_dtype=_BRAIN, master_weights=True, policy=_TORCH, fp8="current",
           note="as mixed-fp8, each scale from the tensor itself"),
    Recipe("mixed-fp8-block", compute_dtype=_BRAIN, master_weights=True, policy=_TORCH, fp8="block",
           note="as mixed-fp8, a scale for 128 numbers, and for 128 x 128 of a weight"),
    Recipe("mixed-mxfp8", compute_dtype=_BRAIN, master_weights=True, policy=_TORCH, fp8="mxfp8",
           note="as mixed-fp8, a scale for 32 numbers (MXFP8)"),
    Recipe("fp8-unscaled", compute_dtype=_BRAIN, master_weights=True, policy=_TORCH, fp8="unscaled",
           note="as mixed-fp8 without scales: what FP8's range loses"),
)  # fmt: skip
"""The recipes by name."""
