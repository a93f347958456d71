"""When quantising hurts: where, why, and what to do about it.

- ``sweep``: the noise and the figure of merit of each layer alone, cumulated, and left out; who is to blame.
- ``correct_bias``: what rounding the weights adds on average, taken off the biases.
- ``assign``: int8, float16 or float32 for each layer, within a budget.
- ``saturate``: what sums in saturating int16, which some engines make, change.
"""

from minimp.quant.sensitivity.assigning import assign
from minimp.quant.sensitivity.assignments import Assigned, Assignment
from minimp.quant.sensitivity.biases import BiasReport, BiasRow, correct_bias
from minimp.quant.sensitivity.blaming import Blame
from minimp.quant.sensitivity.measuring import Advance, Measured
from minimp.quant.sensitivity.reports import SensitivityReport, SensitivityRow
from minimp.quant.sensitivity.saturating import SaturationReport, SaturationRow, saturate
from minimp.quant.sensitivity.sweeping import sweep

__all__ = [
    "Advance", "Assigned", "Assignment", "BiasReport", "BiasRow", "Blame", "Measured", "SaturationReport",
    "SaturationRow", "SensitivityReport", "SensitivityRow", "assign", "correct_bias", "saturate", "sweep",
]  # fmt: skip
