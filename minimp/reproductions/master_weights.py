"""Micikevicius et al. 2018: without an FP32 master copy, FP16 weights lose their small updates."""

from __future__ import annotations

from minimp.recipe import recipes
from minimp.reproductions.record import Bar, Bench, Measures, Paper, Reproduction
from minimp.reproductions.training import CLASSIFIER, POINTS, percent, train

__all__ = ["MASTER_WEIGHTS", "PAPER"]

PAPER = Paper("Micikevicius et al.", 2018, "Mixed Precision Training", "1710.03740", "section 3.1, figure 2a")
SETTING = CLASSIFIER.with_(steps=2000, lr=1e-5)
MASTERS = recipes["mixed-fp16"].with_(name="FP32 masters", loss_scale=1024.0)
NONE = recipes["fp16-scaled"].with_(name="FP16 weights", loss_scale=1024.0)


def _run(seed: int, bench: Bench) -> Measures:
    full, kept, lost = (train(SETTING, each, seed, bench) for each in ("fp32", MASTERS, NONE))
    return {
        "fp32": percent(full), "FP32 masters": percent(kept), "FP16 weights": percent(lost),
        "updates swallowed": 100 * lost.swallowed_updates,
    }  # fmt: skip


MASTER_WEIGHTS = Reproduction(
    "master-weights",
    PAPER,
    "A speech model whose updates are added to FP16 weights loses 80 % of its accuracy, relatively; with an "
    "FP32 master copy of the weights it matches FP32.",
    "A classifier in-128-128-classes, ReLU; Adam at 1e-5, 2000 steps of 64 rows; FP16 with the fixed loss "
    "scale 1024; once with FP32 masters, once with the weights kept in FP16.",
    {"fp32": POINTS, "FP32 masters": POINTS, "FP16 weights": POINTS, "updates swallowed": "%"},
    (
        Bar("points by which masters miss fp32", lambda m: abs(m["fp32"] - m["FP32 masters"]), 0.3, 1.0,
            at_least=False),
        Bar("points by which FP16 weights fall short of fp32", lambda m: m["fp32"] - m["FP16 weights"],
            20.0, 5.0),
        Bar("% of updates swallowed without masters", lambda m: m["updates swallowed"], 90.0, 50.0),
    ),
    _run,
)  # fmt: skip
