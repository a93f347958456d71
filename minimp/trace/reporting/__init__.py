"""A recording as one page to send to a colleague; :meth:`minimp.trace.Trace.report` writes it.

What the page holds is bounded, whatever the trace: each list by its longest rows, each curve by the extremes
of its pieces, each name by its length, values by a budget of bytes. What was left out is said there.
"""

from minimp.trace.reporting.page import report_html
from minimp.trace.reporting.words import has_statistics

__all__ = ["has_statistics", "report_html"]
