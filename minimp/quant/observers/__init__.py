"""Observers: what watches values during calibration, and chooses scales and zero points for them."""

from minimp.quant.observers.base import Observer
from minimp.quant.observers.given import GivenObserver
from minimp.quant.observers.histogram import HistogramObserver
from minimp.quant.observers.minmax import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from minimp.quant.observers.thresholds import EntropyObserver, PercentileObserver

__all__ = [
    "EntropyObserver", "GivenObserver", "HistogramObserver", "MinMaxObserver", "MovingAverageMinMaxObserver",
    "MovingAveragePerChannelMinMaxObserver", "Observer", "PerChannelMinMaxObserver", "PercentileObserver",
]  # fmt: skip
