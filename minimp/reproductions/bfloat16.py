"""Two papers on bfloat16: training without a loss scale, and weights without a master copy."""

from __future__ import annotations

from minimp.reproductions.loss_scaling import LOSS_UNIT
from minimp.reproductions.loss_scaling import SETTING as SMALL_GRADIENTS
from minimp.reproductions.record import Bar, Bench, Measures, Paper, Reproduction
from minimp.reproductions.training import CLASSIFIER, POINTS, percent, train

__all__ = ["BF16_TRAINING", "BF16_UPDATES"]

WEIGHTS = {"nearest": "bf16", "Kahan": "bf16-kahan", "stochastic": "bf16-stochastic"}
"""How an update of a bfloat16 weight is rounded -> the recipe."""


def _training(seed: int, bench: Bench) -> Measures:
    points = {name: train(CLASSIFIER, name, seed, bench) for name in ("fp32", "mixed-bf16")}
    losses = {name: train(SMALL_GRADIENTS, name, seed, bench) for name in ("fp32", "mixed-bf16")}
    return {
        "classifier, fp32": percent(points["fp32"]), "classifier, bf16": percent(points["mixed-bf16"]),
        "auto-encoder, fp32": losses["fp32"].score, "auto-encoder, bf16": losses["mixed-bf16"].score,
    }  # fmt: skip


def _updates(seed: int, bench: Bench) -> Measures:
    names = {"fp32": "fp32", **WEIGHTS}
    runs = {what: train(CLASSIFIER, recipe, seed, bench) for what, recipe in names.items()}
    lost = 100 * runs["nearest"].swallowed_updates
    return {**{what: percent(run) for what, run in runs.items()}, "swallowed, nearest": lost}


def _as_good(what: str) -> Bar:
    return Bar(
        f"points by which {what} misses fp32", lambda m: abs(m["fp32"] - m[what]), 0.3, 1.0, at_least=False
    )


BF16_TRAINING = Reproduction(
    "bf16-training",
    Paper("Kalamkar et al.", 2019, "A Study of BFLOAT16 for Deep Learning Training", "1905.12322",
          "abstract"),
    "Training in bfloat16 reaches the results of FP32 in the same number of iterations, with the same "
    "hyper-parameters, and needs no loss scaling.",
    "bfloat16 products, FP32 masters, no scaler: the classifier in-128-128-classes, Adam at 1e-4, 1000 steps "
    "of 64 rows; and the auto-encoder in-128-16-128-in whose gradients FP16 flushes (4096 accumulation "
    "steps, 300 steps of 256 rows).",
    {"classifier, fp32": POINTS, "classifier, bf16": POINTS,
     "auto-encoder, fp32": LOSS_UNIT, "auto-encoder, bf16": LOSS_UNIT},
    (
        Bar("points by which the classifier misses fp32",
            lambda m: abs(m["classifier, fp32"] - m["classifier, bf16"]), 0.3, 1.0, at_least=False),
        Bar("% by which the auto-encoder's loss is off",
            lambda m: 100 * abs(m["auto-encoder, bf16"] / m["auto-encoder, fp32"] - 1), 2.0, 10.0,
            at_least=False),
    ),
    _training,
)  # fmt: skip

BF16_UPDATES = Reproduction(
    "bf16-updates",
    Paper("Zamirai et al.", 2020, "Revisiting BFloat16 Training", "2010.06192", "abstract"),
    "With weights kept in bfloat16, rounding updates to the nearest cancels the small ones; stochastic "
    "rounding or Kahan summation, for the updates alone, ends 0.1 points below to 0.2 above 32-bit training.",
    "The classifier in-128-128-classes, ReLU; Adam at 1e-4, 1000 steps of 64 rows; weights in bfloat16, no "
    "master copy, the optimizer's state in FP32.",
    {**dict.fromkeys(("fp32", *WEIGHTS), POINTS), "swallowed, nearest": "% of updates"},
    (
        Bar("points by which nearest falls short of fp32", lambda m: m["fp32"] - m["nearest"], 20.0, 3.0),
        _as_good("Kahan"),
        _as_good("stochastic"),
    ),
    _updates,
)  # fmt: skip
