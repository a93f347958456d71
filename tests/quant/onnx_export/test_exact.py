"""Exported graphs run by onnx.reference: which codes are the model's, and how near to ties the others are."""

from __future__ import annotations

from pathlib import Path

import pytest

from minimp.quant.static import calibrate, convert
from tests.quant.static.samples import batches, residual

pytest.importorskip("onnx")

from minimp.quant.onnx_export import export_onnx, verify


@pytest.mark.parametrize("form", ["qdq", "integer"])
def test_a_network_of_all_kinds(tmp_path: Path, form: str) -> None:
    """Oracle: the model's codes, each layer: all alike, or in QDQ form off by 1 where a tie is near."""
    model, x = residual()
    made = convert(model, calibrate(model, batches(x)))
    export_onnx(made, tmp_path / "m.onnx", x[:2], form=form)
    found = verify(tmp_path / "m.onnx", made, x[:20])
    assert found.ok
    assert found.alone <= sum(each.near for each in found)
    if form == "integer":
        assert found.same
