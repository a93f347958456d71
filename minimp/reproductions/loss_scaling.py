"""Micikevicius et al. 2018: gradients below FP16's range become zero, and a loss scale brings them back."""

from __future__ import annotations

from dataclasses import replace

from minimp.recipe import recipes
from minimp.reproductions.master_weights import PAPER
from minimp.reproductions.record import Bar, Bench, Measures, Reproduction
from minimp.reproductions.training import AUTOENCODER, train

__all__ = ["LOSS_SCALING", "LOSS_UNIT", "from_reference"]

LOSS_UNIT = "test MSE"
SETTING = AUTOENCODER.with_(accumulate_steps=4096)
FIXED = recipes["mixed-fp16"].with_(name="fp16, S = 1024", loss_scale=1024.0)


def from_reference(measure: str, against: str = "fp32") -> Bar:
    """Return the bar of a run that must end as the reference does."""
    return Bar(
        f"% by which the loss of {measure} is off that of {against}",
        lambda m: 100 * abs(m[measure] / m[against] - 1), 5.0, 20.0, at_least=False,
    )  # fmt: skip


def _run(seed: int, bench: Bench) -> Measures:
    full, plain, fixed, dynamic = (
        train(SETTING, each, seed, bench) for each in ("fp32", "fp16-master", FIXED, "mixed-fp16")
    )
    return {
        "fp32": full.score, "fp16, S = 1": plain.score, "fp16, S = 1024": fixed.score,
        "fp16, dynamic S": dynamic.score, "gradients flushed at S = 1": 100 * plain.underflow_share,
    }  # fmt: skip


LOSS_SCALING = Reproduction(
    "loss-scaling",
    replace(PAPER, section="section 3.2, figure 3"),
    "A detector (SSD) diverges in FP16 without loss scaling: gradients of 2^-27 to 2^-24, which it needs, "
    "are zero. A constant factor, 8 and more, brings it back to FP32's accuracy.",
    "An auto-encoder in-128-16-128-in, ReLU, mean squared error; Adam at 1e-3, 300 steps of 256 rows, each "
    "loss divided by 4096 accumulation steps; FP32 masters throughout.",
    {**dict.fromkeys(("fp32", "fp16, S = 1", "fp16, S = 1024", "fp16, dynamic S"), LOSS_UNIT),
     "gradients flushed at S = 1": "%"},
    (
        Bar("loss at S = 1 over that of fp32", lambda m: m["fp16, S = 1"] / m["fp32"], 2.0, 1.2),
        from_reference("fp16, S = 1024"),
        from_reference("fp16, dynamic S"),
    ),
    _run,
)  # fmt: skip
