"""Micikevicius et al. 2022: FP8 trains as well as FP16 where tensors are scaled into its range."""

from __future__ import annotations

from minimp.fp8.recipes import Float8CurrentScaling
from minimp.recipe import recipes
from minimp.reproductions.loss_scaling import LOSS_UNIT, from_reference
from minimp.reproductions.record import Bar, Bench, Measures, Paper, Reproduction
from minimp.reproductions.training import AUTOENCODER, train

__all__ = ["FP8_SCALING"]

SETTING = AUTOENCODER.with_(accumulate_steps=16)
PER_TENSOR = recipes["mixed-fp8-current"].with_(
    name="a scale a tensor", fp8=Float8CurrentScaling(use_power_2_scales=True)
)
ONE_SCALE = recipes["fp8-unscaled"].with_(name="loss scale 65536", loss_scale=65536.0)
RUNS = {
    "fp32": recipes["fp32"], "unscaled": recipes["fp8-unscaled"], "loss scale 65536": ONE_SCALE,
    "a scale a tensor": PER_TENSOR,
}  # fmt: skip


def _run(seed: int, bench: Bench) -> Measures:
    runs = {name: train(SETTING, recipe, seed, bench) for name, recipe in RUNS.items()}
    lost = 100 * runs["unscaled"].underflow_share
    return {**{name: run.score for name, run in runs.items()}, "gradients flushed, unscaled": lost}


FP8_SCALING = Reproduction(
    "fp8-scaling",
    Paper("Micikevicius et al.", 2022, "FP8 Formats for Deep Learning", "2209.05433", "sections 3 and 4"),
    "E4M3 forward and E5M2 backward match 16-bit training if each tensor is scaled into the format's range; "
    "without a scale of its own, a model of the paper has a perplexity of 12.59 against 10.19.",
    "The auto-encoder in-128-16-128-in, ReLU; Adam at 1e-3, 300 steps of 256 rows, the loss divided by 16 "
    "accumulation steps; linear layers in FP8 (E4M3 forward, E5M2 backward), the rest in bfloat16, FP32 "
    "masters.",
    {**dict.fromkeys(RUNS, LOSS_UNIT), "gradients flushed, unscaled": "%"},
    (
        Bar("loss unscaled over that of fp32", lambda m: m["unscaled"] / m["fp32"], 1.8, 1.2),
        from_reference("loss scale 65536"),
        from_reference("a scale a tensor"),
    ),
    _run,
)  # fmt: skip
