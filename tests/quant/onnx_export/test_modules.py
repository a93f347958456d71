"""Every kind of module on codes, written to ONNX and run by onnx.reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minimp.nn.module import Module
from minimp.quant import modules as on_codes
from minimp.quant.modules import FloatIsland, QuantizedModule
from minimp.quant.onnx_export import Agreement, export_onnx, verify
from minimp.quant.onnx_export.exporting import FORMS
from tests.quant.onnx_export.samples import CASES, CODES, Array, prepared
from tests.quant.static.samples import MODES

pytest.importorskip("onnx")

NAMES = list(CODES)


def compared(folder: Path, model: Module, x: Array, form: str) -> Agreement:
    """Write a model and compare it."""
    export_onnx(model, folder / "m.onnx", x[:2], form=form)
    return verify(folder / "m.onnx", model, x)


def judge(found: Agreement, form: str) -> None:
    """Hold what is promised: in integer form the same codes, in QDQ form off by 1 near ties alone."""
    assert found.ok, str(found)
    assert found.count > 0
    if form == "integer":
        assert found.same, str(found)
        assert found.alone == 0
    assert found.alone <= sum(each.near for each in found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", CASES)
def test_codes_of_each_module(tmp_path: Path, case: str, form: str) -> None:
    """Oracle: the model's codes, which onnx.reference computes from the graph alone."""
    place = list(CASES).index(case)
    model, x = prepared(case, NAMES[place % len(NAMES)], MODES[form == "integer" and place % 3 > 0])
    judge(compared(tmp_path, model, x, form), form)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("case", CASES)
def test_codes_of_each_module_in_each_width(
    tmp_path: Path, case: str, codes: str, mode: str, form: str
) -> None:
    """Oracle: as above, for three sets of weights and inputs."""
    for seed in range(3):
        model, x = prepared(case, codes, mode, seed=seed)
        judge(compared(tmp_path, model, x, form), form)


def test_every_class_is_written_and_tested() -> None:
    """Oracle: the classes of minimp.quant.modules; an island is written as its parts."""
    public = (getattr(on_codes, name) for name in on_codes.__all__)
    kinds = {each for each in public if isinstance(each, type) and issubclass(each, QuantizedModule)}
    wanted = kinds - {QuantizedModule, FloatIsland}
    for form in FORMS.values():
        assert wanted <= set(form)
    seen = {type(each) for case in CASES for each in prepared(case)[0].modules()}
    assert wanted <= seen


def test_ties_of_means_stay_ties(tmp_path: Path) -> None:
    """Oracle: the model: half of these means are ties exactly, which scale 1 keeps and another would not."""
    model, _ = prepared("mean pool")
    scale = float(model.quantize[0].kept("").scale)
    steps = np.random.default_rng(0).integers(0, 20, (4, 3, 6, 7))
    found = compared(tmp_path, model, (steps * np.float32(scale)).astype(np.float32), "qdq")
    judge(found, "qdq")
    assert found.same
    sums = steps[:, :, :, :6].reshape(4, 3, 3, 2, 3, 2).sum((3, 5))
    assert np.count_nonzero(sums % 4 == 2) > 20
