"""The section beside ONNX; oracles: onnx.reference, and planted faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from minimp.frameworks.documented.integers import INTEGER_DIFFERENCES
from minimp.frameworks.integers import onnx_integers
from minimp.frameworks.results import Verdict
from minimp.quant.kernels import fused
from minimp.quant.rules import RULES
from minimp_backends import integers
from tests.frameworks.faults import differing

pytest.importorskip("onnx", reason="needs the reference implementation of ONNX")


@pytest.mark.parametrize("seed", range(3))
def test_the_section_holds(seed: int) -> None:
    """Oracle: onnx.reference; every node is compared, and differs for known reasons alone."""
    section = onnx_integers.compare(seed)
    assert section, differing(section)
    assert {row.subject for row in section.rows} == {
        "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger",
        "QLinearMatMul", "QLinearConv",
    }  # fmt: skip
    known = {each.name for each in INTEGER_DIFFERENCES if each.framework == "onnx"}
    met = {row.known for row in section.of(Verdict.DOCUMENTED)}
    assert {"codes-cast-to-int32", "dynamic-scales-in-float32"} <= met <= known
    exact = [row for row in section.rows if row.subject in ("MatMulInteger", "ConvInteger")]
    assert {row.verdict for row in exact} == {Verdict.AGREES}


def ties_to_even_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add z before rounding."""
    monkeypatch.setitem(RULES._rows, "onnx", replace(RULES["onnx"], encode=fused))


def scales_too_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose scales for a code more."""
    real = RULES["onnx"].choose
    monkeypatch.setitem(
        RULES._rows, "onnx",
        replace(RULES["onnx"], choose=lambda low, high, codes: (real(low, high, codes)[0] * 255 / 256,
                                                                real(low, high, codes)[1])),
    )  # fmt: skip


def padded_with_code_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay images out in a border of the code 0."""
    real = integers._padded
    monkeypatch.setattr(integers, "_padded", lambda x, geometry, zero: real(x, geometry, 0))


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (ties_to_even_codes, {"QuantizeLinear"}),
        (scales_too_wide, {"DynamicQuantizeLinear"}),
        (padded_with_code_0, {"ConvInteger", "QLinearConv"}),
    ],
)
def test_planted_faults_are_found(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None], found: set[str]
) -> None:
    """Oracle: the fault: what it touches differs, and nothing else does."""
    fault(monkeypatch)
    assert {subject for subject, _ in differing(onnx_integers.compare(0))} == found


def test_one_node_is_one_node() -> None:
    """Oracle: by hand: 2 x 3 + 1 x 5 of codes less their zero points."""
    a, b = np.array([[3, 2]], np.uint8), np.array([[4], [6]], np.int8)
    (its,) = onnx_integers._run("MatMulInteger", a, b, np.array(1, np.uint8), np.array(1, np.int8))
    assert its.tolist() == [[11]]
