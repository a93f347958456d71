"""The picture of the loss scales; oracle: the table, read back from the bars of the Axes."""

from __future__ import annotations

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402 - only where there is matplotlib

import minimp as mp  # noqa: E402 - the same
from minimp import trace  # noqa: E402 - the same
from tests.tolerances import assert_close  # noqa: E402 - the same
from tests.trace.cases import batch, make_step  # noqa: E402 - the same


def test_the_bars_are_the_table() -> None:
    """Oracle: `table()`, whose counts are held to rounding elsewhere; the scale is the step's."""
    with trace.record() as made:
        make_step(scale=2.0**10)(*batch())
    found = made.gradients_at_scales()
    ax = plt.figure().add_subplot()
    assert found.plot(ax) is ax
    flushed, subnormal, kept, over = ([bar.get_height() for bar in band] for band in ax.containers)
    rows = found.table()
    assert [round(bar.get_x() + 0.5) for bar in ax.containers[0]] == [power for power, _ in rows]
    whole = found.total.nonzero
    assert_close(flushed, [100 * fate.flushed / whole for _, fate in rows], "fp64_same_maths")
    assert_close(subnormal, [100 * fate.subnormal / whole for _, fate in rows], "fp64_same_maths")
    assert_close(over, [100 * fate.overflowed / whole for _, fate in rows], "fp64_same_maths")
    assert_close(
        np.sum([flushed, subnormal, kept, over], axis=0), np.full(len(rows), 100.0), "fp64_same_maths"
    )
    (line,) = ax.lines
    assert list(line.get_xdata()) == [10, 10]
    low, high = found.powers()
    assert f"2^{low} to 2^{high} lose nothing" in ax.get_xlabel()
    plt.close("all")


def test_nothing_to_draw_is_said() -> None:
    """Oracle: the docstring: a gradient of zeros has no share."""
    x = mp.tensor([0.0, 0.0], requires_grad=True)
    with trace.record() as made:
        (x * 0.0).sum().backward(mp.tensor(0.0))
    with pytest.raises(mp.errors.SettingError, match="all gradients were 0"):
        made.gradients_at_scales().plot()
