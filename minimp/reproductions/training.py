"""What the reproductions that train share: runs of :mod:`minimp.experiments`, told as measures."""

from __future__ import annotations

import warnings

from minimp.errors import ScaleWarning
from minimp.experiments import Experiment, Outcome, run_recipe
from minimp.recipe import Recipe, recipes
from minimp.reproductions.record import Bench

__all__ = ["AUTOENCODER", "CLASSIFIER", "POINTS", "percent", "train"]

POINTS = "% right"
CLASSIFIER = Experiment(
    "reproduction", "a claim of a paper", "see minimp.reproductions", "mlp", ("fp32",),
    steps=1000, batch=64, lr=1e-4,
)  # fmt: skip
AUTOENCODER = CLASSIFIER.with_(model="autoencoder", steps=300, batch=256, lr=1e-3)


def train(experiment: Experiment, recipe: Recipe | str, seed: int, bench: Bench) -> Outcome:
    """Train by a recipe, from the seed's weights and batches."""
    chosen = recipes[recipe] if isinstance(recipe, str) else recipe
    here = experiment.with_(seed=seed, steps=bench.part(experiment.steps))

    def advance(name: str, number: int, _report: object) -> None:
        bench.tell(name, number / here.steps)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScaleWarning)  # a scale that collapses is a result
        return run_recipe(here, chosen, bench.data, advance)


def percent(outcome: Outcome) -> float:
    """Return the accuracy on the test part, in percent."""
    return 100.0 * outcome.score
