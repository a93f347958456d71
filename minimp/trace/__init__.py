"""Recording what a computation does to its numbers, op by op, and asking where it went wrong.

>>> import minimp as mp
>>> from minimp import trace
>>> x = mp.tensor([1e-4, 1.0], dtype=mp.float16, requires_grad=True)
>>> with trace.record() as made:
...     loss = (x * x).sum()
...     loss.backward()
>>> made.underflow().column("op"), made.underflow().column("flushed")
(['mul'], [1])
"""

from minimp.trace.anomalies import detect_anomaly
from minimp.trace.breaking import break_when
from minimp.trace.conditions import Condition
from minimp.trace.events import PHASES, Error, OpError, Side, Span, TraceEvent
from minimp.trace.questions.chains import NonFinite
from minimp.trace.questions.diffs import Difference, Divergence
from minimp.trace.questions.gradient_scales import Fate, GradientScales, ScaledGradients
from minimp.trace.questions.tables import Table
from minimp.trace.recording import record
from minimp.trace.statistics import Stats
from minimp.trace.trace import Trace, load
from minimp.trace.values import sampled, when

__all__ = [
    "PHASES",
    "Condition",
    "Difference",
    "Divergence",
    "Error",
    "Fate",
    "GradientScales",
    "NonFinite",
    "OpError",
    "ScaledGradients",
    "Side",
    "Span",
    "Stats",
    "Table",
    "Trace",
    "TraceEvent",
    "break_when",
    "detect_anomaly",
    "load",
    "record",
    "sampled",
    "when",
]
