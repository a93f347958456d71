"""Made-up outcomes of recipes: figures chosen by hand, everything else out of the way."""

from __future__ import annotations

from typing import Any

from minimp.experiments import Outcome

BYTES = {"weights": 1024, "master": 0, "gradients": 1024, "optimizer": 2048, "activations": 512}


def outcome(recipe: str, score: float = 0.9, metric: str = "test_accuracy", **figures: Any) -> Outcome:
    """Return an outcome of 100 steps in which nothing was lost, but for what is given."""
    steps = figures.pop("steps", 100)
    given = {
        "losses": (0.5,) * steps,
        "loss_scales": (1.0,) * steps,
        "skipped_steps": 0,
        "underflow_share": 0.0,
        "overflow_share": 0.0,
        "swallowed_updates": 0.0,
        "bytes": BYTES,
        "seconds_per_step": 0.01,
    }
    return Outcome(recipe=recipe, metric=metric, score=score, **(given | figures))
