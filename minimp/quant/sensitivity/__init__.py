"""When quantising hurts: where, why, and what to do about it.

- ``sweep``: the noise and the figure of merit of each layer alone, cumulated, and left out; who is to blame.
- ``saturate``: what sums in saturating int16, which some engines make, change.
"""

from minimp.quant.sensitivity.blaming import Blame
from minimp.quant.sensitivity.measuring import Advance, Measured
from minimp.quant.sensitivity.reports import SensitivityReport, SensitivityRow
from minimp.quant.sensitivity.saturating import SaturationReport, SaturationRow, saturate
from minimp.quant.sensitivity.sweeping import sweep

__all__ = [
    "Advance", "Blame", "Measured", "SaturationReport", "SaturationRow", "SensitivityReport",
    "SensitivityRow", "saturate", "sweep",
]  # fmt: skip
