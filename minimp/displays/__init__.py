"""What a notebook shows: HTML that stands by itself, of tensors, formats, stages, checks and tables.

Nothing is loaded and nothing runs: styles are attributes, text takes the page's colour, and tints let the
page through, so that light and dark pages will do. What a colour says stands in a `title` and in a legend
too. All text is escaped where it enters (:func:`minimp.displays.elements.tag`). A display is some KB,
whatever it shows.
"""

from minimp.displays.formats import format_html
from minimp.displays.quantised import qtensor_html
from minimp.displays.steps import findings_html, report_html, stage_html
from minimp.displays.tables import table_html, trace_html
from minimp.displays.values import tensor_html

__all__ = [
    "findings_html", "format_html", "qtensor_html", "report_html", "stage_html", "table_html", "tensor_html",
    "trace_html",
]  # fmt: skip
