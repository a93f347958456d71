"""The contracts: what each op and each stage of a training step must fulfil, checked by a second way."""

from minimp.checks.contracts import (
    check_cast,
    check_clipped,
    check_finite,
    check_loss,
    check_scaled,
    check_unchanged,
    check_unscaled,
    snapshot,
)
from minimp.checks.findings import Finding, Findings, merge
from minimp.checks.gradcheck import gradcheck
from minimp.checks.operations import check_event, check_events
from minimp.checks.transition import check_scale_transition
from minimp.checks.updates import check_update

__all__ = [
    "Finding",
    "Findings",
    "check_cast",
    "check_clipped",
    "check_event",
    "check_events",
    "check_finite",
    "check_loss",
    "check_scale_transition",
    "check_scaled",
    "check_unchanged",
    "check_unscaled",
    "check_update",
    "gradcheck",
    "merge",
    "snapshot",
]
