"""The contract of the loss scale; oracle: torch 2.13.0's GradScaler rule in a table, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from minimp.checks import check_scale_transition

TORCH: dict[str, Any] = {"growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 3}

ROWS = [
    # rule beyond torch's, (scale, good, bad) before, bad step?, (scale, good, bad) after
    ({}, (1024.0, 1, 0), False, (1024.0, 2, 0)),
    ({}, (1024.0, 2, 0), False, (2048.0, 0, 0)),
    ({}, (1024.0, 2, 0), True, (512.0, 0, 1)),
    ({}, (512.0, 0, 1), True, (256.0, 0, 2)),
    ({}, (2.0**127, 2, 0), False, (2.0**127, 0, 0)),
    ({"stays_finite": False}, (2.0**127, 2, 0), False, (float("inf"), 0, 0)),
    ({}, (2.0**-149, 0, 0), True, (0.0, 0, 1)),
    ({"min_scale": 1.0}, (1.0, 0, 0), True, (1.0, 0, 1)),
    ({"max_scale": 4096.0}, (4096.0, 2, 0), False, (4096.0, 0, 0)),
    ({"hysteresis": 2}, (64.0, 2, 0), True, (64.0, 0, 1)),
    ({"hysteresis": 2}, (64.0, 0, 1), True, (32.0, 0, 2)),
    ({"hysteresis": 2}, (64.0, 0, 2), True, (32.0, 0, 3)),
    ({"hysteresis": 2, "refill_on_backoff": True}, (64.0, 0, 2), True, (64.0, 0, 3)),
    ({"grows_late": True}, (64.0, 2, 0), False, (64.0, 3, 0)),
    ({"grows_late": True}, (64.0, 3, 0), False, (128.0, 0, 0)),
    ({"until_first_bad": 2.0}, (64.0, 0, 0), False, (128.0, 0, 0)),
    ({"backoff_factor": 0.1}, (1.0, 0, 0), True, (0.10000000149011612, 0, 1)),
    ({"backoff_factor": 0.1, "precision": "float64"}, (1.0, 0, 0), True, (0.1, 0, 1)),
]


def _state(row: tuple[float, int, int], underscore: bool = False) -> dict[str, Any]:
    names = ("scale", "_growth_tracker", "_skips") if underscore else ("scale", "growth_tracker", "skips")
    return dict(zip(names, row, strict=True))


@pytest.mark.parametrize(("more", "before", "bad", "after"), ROWS)
def test_each_row_is_the_move_that_is_allowed(
    more: dict[str, Any], before: tuple[float, int, int], bad: bool, after: tuple[float, int, int]
) -> None:
    """Oracle: the row; another scale, count or verdict is a fault."""
    rule = {**TORCH, **more}
    assert check_scale_transition(rule, _state(before), _state(after), bad)
    assert check_scale_transition(rule, _state(before, True), _state(after, True), bad)
    scale, good, skips = after
    for wrong in [(12345.0, good, skips), (scale, good + 1, skips), (scale, good, skips + 1)]:
        assert not check_scale_transition(rule, _state(before), _state(wrong), bad), wrong
    assert not check_scale_transition(rule, _state(before), _state(after), not bad)


def test_a_rule_may_be_an_object_and_lack_what_is_torchs() -> None:
    """Oracle: torch's defaults: 2000 good steps to double, one bad one to halve."""

    class Rule:
        growth_interval = 2

    assert check_scale_transition(Rule(), {"scale": 8.0, "growth_tracker": 1}, {"scale": 16.0}, False)
    assert check_scale_transition({}, {"scale": 8.0, "growth_tracker": 1}, {"scale": 8.0}, False)
    found = check_scale_transition({}, {"scale": 8.0}, {"scale": 8.0}, True)
    assert not found
    assert (
        str(found).split("\n")[0].startswith("WRONG: the loss scale moves after a bad step from 8.0 to 8.0")
    )
    assert found.wrong[0].where == "scale"
    assert found.wrong[0].expected == "4.0"


def test_growing_smoothly_reaches_the_factor_in_an_interval() -> None:
    """Oracle: chainer's 2^(1/interval) a step: three steps of float32 are a doubling to within 3 ulp."""
    rule = {**TORCH, "smooth": True, "precision": "float64"}
    scale = 64.0
    for _ in range(3):
        grown = scale * 2.0 ** (1 / 3)
        assert check_scale_transition(rule, {"scale": scale}, {"scale": grown}, False)
        scale = grown
    assert scale == pytest.approx(128.0)
