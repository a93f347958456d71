"""A small network that has learnt the digits, in int8."""

from __future__ import annotations

import numpy as np
import pytest

from minimp.data import DataLoader, digits
from minimp.nn.module import Module
from minimp.quant.fusion import fuse
from minimp.quant.static import calibrate, convert
from minimp.tensors import tensor
from tests.quant.learning import two_convolutions
from tests.quant.static.samples import MODES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def learnt() -> Module:
    """Return a network after six epochs, its batch norms folded."""
    return fuse(two_convolutions(), tensor(digits("train", shape="image").inputs[:4]))[0]


def accuracy(model: Module) -> float:
    """Return the share of the test images that are read right."""
    x, y = digits("test", shape="image")[:]
    return float(np.mean(model(tensor(x)).detach().array.argmax(1) == y))


def size(model: Module) -> int:
    """Return the bytes of what a model holds."""
    return sum(each.nbytes for each in [*model.parameters(), *model.buffers()])


@pytest.mark.parametrize("mode", MODES)
def test_int8_reads_digits_as_well(learnt: Module, mode: str) -> None:
    """Oracle: the float network: accuracy within 0.5 points, at most 0.29 of its bytes."""
    calibration = calibrate(learnt, DataLoader(digits("train", shape="image"), 64), patience=3)
    quantized = convert(learnt, calibration, mode=mode)
    before, after = accuracy(learnt), accuracy(quantized)
    print(f"{mode}: {before:.4f} -> {after:.4f}, {size(quantized) / size(learnt):.4f} of the bytes")
    assert before > 0.95
    assert abs(after - before) <= 0.005
    assert size(quantized) <= 0.29 * size(learnt)
