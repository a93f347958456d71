"""compute_formats and common_format as pure functions; oracle: the rules written in the test as laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp.errors import FormatError
from minimp.formats import Format
from minimp.policy import CastClass, Mixed, common_format, compute_formats

LOW = [mp.float16, mp.bfloat16]
lows = st.sampled_from(LOW)
inputs = st.lists(st.sampled_from([None, mp.float64, mp.float32, mp.float16, mp.bfloat16]), max_size=5)
UNTOUCHED = (None, mp.float64)


@given(inputs, lows, st.sampled_from([CastClass.LOWER, CastClass.FP32, CastClass.SET_FP32]))
def test_one_target_for_all_that_is_eligible(
    given_: list[Format | None], low: Format, rule: CastClass
) -> None:
    """Oracle: the law: the region's format or float32; float64, integers and numbers are left as they are."""
    target = low if rule is CastClass.LOWER else mp.float32
    asked = compute_formats(rule, given_, low)
    assert asked == [None if f in UNTOUCHED else target for f in given_]


@given(inputs, lows)
def test_keep_asks_for_nothing(given_: list[Format | None], low: Format) -> None:
    """Oracle: the law."""
    assert compute_formats(CastClass.KEEP, given_, low) == [None] * len(given_)


@given(inputs, lows)
def test_a_dtype_of_the_callers_wins(given_: list[Format | None], low: Format) -> None:
    """Oracle: PyTorch's fp32_set_opt_dtype: with dtype= given, nothing is cast; dtype=None is not given."""
    with_dtype = compute_formats(CastClass.SET_FP32, given_, low, {"dtype": mp.float16})
    assert with_dtype == [None] * len(given_)
    without = compute_formats(CastClass.SET_FP32, given_, low, {"dtype": None})
    assert without == compute_formats(CastClass.FP32, given_, low)


@given(inputs, lows)
def test_promote_takes_the_wider_of_two_and_refuses_a_third(given_: list[Format | None], low: Format) -> None:
    """Oracle: the law: float32 if any is float32, else the region's format; the other low one raises."""
    other = LOW[1 - LOW.index(low)]
    if other in given_:
        with pytest.raises(
            FormatError, match=rf"autocast promotes float32 and {low.name} only, and met {other}"
        ):
            compute_formats(CastClass.PROMOTE, given_, low, op="cat")
        return
    target = mp.float32 if mp.float32 in given_ else low
    asked = compute_formats(CastClass.PROMOTE, given_, low)
    assert asked == [None if f in UNTOUCHED else target for f in given_]


@pytest.mark.parametrize(
    ("op", "advice"),
    [("binary_cross_entropy", "binary_cross_entropy_with_logits"), ("softmax", "policy.with_")],
)
def test_a_banned_op_is_refused_with_advice(op: str, advice: str) -> None:
    """Oracle: PyTorch's advice for its one banned op, ours for others; in any format, float64 too."""
    with pytest.raises(FormatError, match=f"{op}: unsafe inside autocast\n.*{advice}"):
        compute_formats(CastClass.BANNED, [mp.float32], mp.float16, op=op)
    with pytest.raises(FormatError, match="unsafe inside autocast"):
        compute_formats(CastClass.BANNED, [mp.float64, None], mp.float16, op=op)


@pytest.mark.parametrize(
    ("mixed", "kinds", "expected"),
    [
        (Mixed.KEEP, [(mp.float32, True), (mp.float16, True)], None),
        (Mixed.PROMOTE, [(mp.float32, True), (mp.float16, True)], mp.float32),
        (Mixed.PROMOTE, [(mp.float16, True), (mp.bfloat16, True)], mp.float32),
        (Mixed.PROMOTE, [(mp.float16, True), (mp.float32, False)], mp.float16),
        (Mixed.PROMOTE, [(mp.float16, False), (mp.float32, False)], mp.float32),
        (Mixed.PROMOTE, [(mp.float16, True), (mp.float64, True)], mp.float64),
        (Mixed.PROMOTE, [(None, True), (mp.float32, False)], mp.float32),
        (Mixed.PROMOTE, [(None, True), None], None),
        (Mixed.FLOAT, [(None, True), None], mp.float32),
        (Mixed.FLOAT, [(mp.bfloat16, True), None], mp.bfloat16),
        (Mixed.SAME, [(mp.float16, True), (None, True)], None),
    ],
)
def test_mixed_formats_promote_as_torchs(
    mixed: Mixed, kinds: list[tuple[Format | None, bool] | None], expected: Format | None
) -> None:
    """Oracle: torch.result_type of PyTorch 2.13.0, by hand: tensors with axes come before those without."""
    assert common_format("add", mixed, kinds) is expected


def test_ops_that_want_one_format_name_what_they_got() -> None:
    """Oracle: the contract of Mixed.SAME."""
    with pytest.raises(
        FormatError, match=r"matmul: expected inputs of one format, got float16 and float32\n"
    ):
        common_format("matmul", Mixed.SAME, [(mp.float32, True), (mp.float16, True)])
