"""Rouhani et al. 2023: a power-of-two scale for each 32 numbers lets 8 bits and fewer stand in for FP32."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from minimp import formats
from minimp.quant.affine import choose, fake_quantize
from minimp.reproductions.record import Bar, Bench, Measures, Paper, Reproduction

__all__ = ["MX_FORMATS"]

ROWS, CHANNELS, OUTLIER, FACTOR = 1024, 1024, 7, 100.0
EXPECTED = {"mxint8": 41.7, "mxfp8_e4m3": 30.6, "mxfp6_e2m3": 30.9, "mxfp8_e5m2": 25.3, "mxfp4": 18.8}
"""Format -> dB on normal numbers, by another implementation of the OCP specification."""
INT8 = "int8, one scale"
OUTLIERS = ("mxint8", INT8)
DECIBEL = "dB"


def _int8(x: npt.NDArray[np.float32]) -> float:
    """Return the dB of int8 with one scale for the tensor."""
    most = np.max(np.abs(x))
    error = fake_quantize(x, choose(-most, most, quant_min=-127, quant_max=127, symmetric=True)) - x
    return float(10 * np.log10(np.sum(x.astype(np.float64) ** 2) / np.sum(error.astype(np.float64) ** 2)))


def _decibels(x: npt.NDArray[np.float32], name: str) -> float:
    return _int8(x) if name == INT8 else formats.block_report(x, name).sqnr_db


def _outlier(name: str) -> str:
    return f"{name}, an outlier channel"


def _run(seed: int, bench: Bench) -> Measures:
    x = np.random.default_rng(seed).standard_normal((bench.part(ROWS), CHANNELS)).astype(np.float32)
    wild = x.copy()
    wild[:, OUTLIER] *= np.float32(FACTOR)
    names = (*EXPECTED, INT8)
    found = {}
    for number, name in enumerate(names):
        bench.tell(name, number / len(names))
        found[name] = _decibels(x, name)
    return found | {_outlier(name): _decibels(wild, name) for name in OUTLIERS}


def _near(name: str, wanted: float) -> Bar:
    return Bar(
        f"dB by which {name} is off {wanted}", lambda m: abs(m[name] - wanted), 0.5, 2.0, at_least=False
    )


def _loss(name: str) -> Bar:
    """Return the bar of what an outlier channel may cost, or must cost where one scale serves all."""
    return Bar(
        f"dB that an outlier channel costs {name}", lambda m: m[name] - m[_outlier(name)],
        15.0 if name == INT8 else 10.0, None, at_least=name == INT8,
    )  # fmt: skip


MX_FORMATS = Reproduction(
    "mx-formats",
    Paper("Rouhani et al.", 2023, "Microscaling Data Formats for Deep Learning", "2310.10537",
          "abstract and section 2"),
    "Formats of 8 bits and fewer with a power-of-two scale for each 32 numbers stand in for FP32, where one "
    "scale for a whole tensor must serve its outliers and loses the rest.",
    f"{ROWS} x {CHANNELS} normal numbers; the same with channel {OUTLIER} times {FACTOR:g}; signal to "
    "quantisation noise, 10 log10(sum x^2 / sum (x - q)^2), blocks along the channels.",
    dict.fromkeys((*EXPECTED, INT8, *map(_outlier, OUTLIERS)), DECIBEL),
    (*(_near(*each) for each in EXPECTED.items()), *map(_loss, OUTLIERS)),
    _run,
    trains=False,
)  # fmt: skip
