"""`minimp inspect VALUE --scale S`; oracle: minimp.quant, and codes worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from minimp.cli.inspect_code import INTEGERS
from minimp.quant import RULES, Affine, dequantize, quantize
from tests.cli.test_inspect import refused, said

Capture = pytest.CaptureFixture[str]
TABLE = """\
0.27  scale 0.02, zero point 3: value = scale (code - zero point)

format  rule           in steps  code  bits      value  error    below  above
int8    torch          16.5        16  00010000  0.26   -0.01    0.24   0.28
int8    torch-dynamic  16.5        16  00010000  0.26   -0.01    0.24   0.28
int8    onnx           16.5        17  00010001  0.28   +0.01    0.26   0.3
int8    tflite         16.5        17  00010001  0.28   +0.01    0.26   0.3
uint4   torch          16.5        15  1111      0.24   clamped  0.22   none
uint4   torch-dynamic  16.5        15  1111      0.24   clamped  0.22   none
uint4   onnx           16.5        15  1111      0.24   clamped  0.22   none
uint4   tflite         16.5        15  1111      0.24   clamped  0.22   none
"""


def test_the_table(capsys: Capture) -> None:
    """Oracle: by hand: a tie at 16.5 goes to the even code, to the even multiple of the scale, or away."""
    shown = said(capsys, "0.27", "--scale", "0.02", "--zero-point", "3", "--format", "int8,uint4")
    assert [line.rstrip() for line in shown.splitlines()] == TABLE.splitlines()


@pytest.mark.parametrize("value", ["0.27", "-1e-7", "1/3", "0x1.8p-3", "inf", "-inf", "nan", "-2.5", "1e39"])
def test_json_has_what_quant_makes_of_it(capsys: Capture, value: str) -> None:
    """Oracle: quantize and dequantize, every format and rule."""
    options = ["--scale", "0.5", "--zero-point", "1", "--format", ",".join(INTEGERS), "--json"]
    found = json.loads(said(capsys, value, *options))
    assert (found["given"], found["scale"], found["zero_point"]) == (value, 0.5, 1)
    x = np.float32({"1/3": 1 / 3, "0x1.8p-3": 0.1875, "1e39": np.inf}.get(value, value))
    assert len(found["codes"]) == len(INTEGERS) * len(RULES)
    for row in found["codes"]:
        affine = Affine(0.5, 1, *INTEGERS[row["format"]], rule=row["rule"])
        code = quantize(x, affine)
        assert row["code"] == code
        assert row["value"] == dequantize(code, affine)
        assert int(row["bits"], 2) == int(code) % 2**affine.bits
        assert len(row["bits"]) == affine.bits
        first, last = INTEGERS[row["format"]]
        assert row["below"] == (None if code == first else row["value"] - 0.5)
        assert row["above"] == (None if code == last else row["value"] + 0.5)


def test_quiet_prints_values(capsys: Capture) -> None:
    """Oracle: by hand."""
    assert (
        said(capsys, "0.8", "--scale", "0.5", "--rule", "torch", "--format", "int8,int2", "--quiet")
        == "1\n0.5\n"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["0.1", "--rule", "torch"], "--rule cannot act without --scale"),
        (["0.1", "--zero-point", "3"], "--zero-point cannot act without --scale"),
        (["0.1", "--scale", "0"], "a scale must be a float32 number"),
        (["0.1", "--scale", "1", "--zero-point", "300"], "zero point 300 is not among the codes"),
        (["0.1", "--scale", "1", "--rule", "troch"], "did you mean 'torch'"),
        (["0.1", "--scale", "1", "--format", "fp16"], "unknown integer format 'fp16'"),
        (["0.1", "--scale", "1", "--rounding", "up"], "--rounding cannot act beside --scale"),
        (["--bits", "0x3c", "--scale", "1"], "no expression, no bit pattern"),
        (["fp16(1) + 1", "--scale", "1"], "no expression, no bit pattern"),
    ],
)
def test_what_cannot_act_is_refused(capsys: Capture, arguments: list[str], says: str) -> None:
    """Oracle: exit code 2 and one line that says why."""
    assert says in refused(capsys, *arguments)
