"""Calls of the losses beyond mse_loss and nll_loss."""

from __future__ import annotations

import numpy as np

import minimp as mp
from minimp import functional as f
from tests.ops.samples.base import S, Sample

SIGNS = np.where(np.arange(35) % 3 == 0, -1.0, 1.0).reshape(S)
POSITIVES = np.array([0.5, 1.0, 2.0, 3.0, 8.0])
PAIRS = [(((), ()), "mean"), (((0, 3), (0, 3)), "sum")]


def unit(x: mp.Tensor) -> mp.Tensor:
    """Return numbers inside 0 to 1."""
    return x.sigmoid() * 0.96 + 0.02


def like(x: mp.Tensor, values: np.ndarray) -> mp.Tensor:
    """Return a constant of the format of x."""
    return mp.tensor(values, dtype=x.format)


def _of_gaps() -> list[Sample]:
    made = []
    for how in ("mean", "sum", "none"):
        made += [
            Sample("l1_loss", lambda x, t, how=how: f.l1_loss(x, t, how), (S, S), how),
            Sample("smooth_l1_loss", lambda x, t, how=how: f.smooth_l1_loss(x, t, how, 0.7), (S, S), how),
            Sample("huber_loss", lambda x, t, how=how: f.huber_loss(x, t, how, 1.3), (S, S), how),
        ]
    for call in (f.l1_loss, f.smooth_l1_loss, f.huber_loss):
        made += [
            Sample(call.__name__, lambda a, b, call=call, how=how: call(a, b, reduction=how), shapes)
            for shapes, how in PAIRS
        ]
        made.append(Sample(call.__name__, lambda a, b, call=call: call(a.T, b.T), (S, S), "strided"))
    return made


def _of_rates() -> list[Sample]:
    made = [
        Sample("poisson_nll_loss", lambda x, t, how=how: f.poisson_nll_loss(x, t, reduction=how), shapes)
        for shapes, how in [((S, S), "mean"), *PAIRS]
    ]
    for how in ("sum", "none"):
        made += [
            Sample(
                "poisson_nll_loss",
                lambda x, t, how=how: f.poisson_nll_loss(x, t, full=True, reduction=how),
                ((7, 1), (5,)), f"full_{how}",
            ),
            Sample(
                "poisson_nll_loss",
                lambda x, t, how=how: f.poisson_nll_loss(abs(x), t, log_input=False, eps=0.01, reduction=how),
                (S, (5,)), f"rates_{how}",
            ),
        ]  # fmt: skip
    return made


def _of_probabilities() -> list[Sample]:
    made = []
    name, logits = "binary_cross_entropy", "binary_cross_entropy_with_logits"
    for how in ("mean", "sum", "none"):
        made += [
            Sample(
                name, lambda x, t, how=how: f.binary_cross_entropy(unit(x), unit(t), None, how), (S, S), how
            ),
            Sample(logits, lambda x, t, how=how: getattr(f, logits)(x, t, None, how), (S, S), how),
            Sample("kl_div", lambda x, t, how=how: f.kl_div(x, abs(t), how), (S, S), how),
            Sample(
                "kl_div", lambda x, t, how=how: f.kl_div(x, t, how, log_target=True), (S, (5,)), f"log_{how}"
            ),
        ]
    made += [
        Sample(logits, lambda x, t, how=how: getattr(f, logits)(x, t, reduction=how), shapes)
        for shapes, how in PAIRS
    ]
    made += [
        Sample(
            name, lambda x, t: f.binary_cross_entropy(unit(x), unit(t), like(x, POSITIVES)), (S, S), "weight"
        ),
        Sample(
            logits, lambda x, t: getattr(f, logits)(x, t, like(x, POSITIVES), "sum", like(x, POSITIVES[:1])),
            (S, S), "weights",
        ),
        Sample(
            logits, lambda x, t: getattr(f, logits)(x, t, pos_weight=like(x, POSITIVES)), (S, S), "pos_weight"
        ),
        Sample("kl_div", lambda x, t: f.kl_div(x, abs(t), "batchmean"), ((7, 1), (5,)), "batchmean"),
        Sample("kl_div", lambda x, t: f.kl_div(x, abs(t), "sum"), ((5,), S), "broadcast"),
        Sample("kl_div", lambda x, t: f.kl_div(x, t, "batchmean", True), ((), ()), "scalars"),
    ]  # fmt: skip
    return made


def _of_margins() -> list[Sample]:
    made = []
    for how in ("mean", "none"):
        made += [
            Sample(
                "soft_margin_loss", lambda x, how=how: f.soft_margin_loss(x, like(x, SIGNS), how), options=how
            ),
            Sample(
                "hinge_embedding_loss",
                lambda x, how=how: f.hinge_embedding_loss(x, like(x, SIGNS), 0.313, how), options=how,
            ),
            Sample(
                "margin_ranking_loss", lambda a, b, t, how=how: f.margin_ranking_loss(a, b, t, 0.313, how),
                (S, S, S), how,
            ),
        ]  # fmt: skip
    return [
        *made,
        Sample("soft_margin_loss", lambda x: f.soft_margin_loss(x, like(x, SIGNS)), ((5,),), "broadcast"),
        Sample("hinge_embedding_loss", lambda x: f.hinge_embedding_loss(x, like(x, SIGNS), 0.313), ((5,),)),
        Sample(
            "margin_ranking_loss", lambda a, b, t: f.margin_ranking_loss(a, b, t, 0.313, "sum"),
            ((7, 1), (1, 5), (1, 1)),
        ),
        Sample(
            "margin_ranking_loss", lambda a, b, t: f.margin_ranking_loss(a, b, t, 0.313, "sum"),
            ((0, 3), (0, 3), (0, 3)),
        ),
    ]  # fmt: skip


SAMPLES = [*_of_gaps(), *_of_rates(), *_of_probabilities(), *_of_margins()]
