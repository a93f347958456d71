"""The course of labs in ``tutorials/``: exercises and their checks, student copies, grading.

A lab is a folder ``labNN_name`` with ``lab.py``, in jupytext's percent format with solutions between markers,
and ``labNN_checks.py``, ordinary asserts. :mod:`minimp.labs.cells` cuts a lab into cells,
:mod:`minimp.labs.stripping` takes the solutions out, :mod:`minimp.labs.session` runs cells and checks, and
:mod:`minimp.labs.running` does so in a process of its own, within limits.
"""

from minimp.labs.answers import Exercise, NotAnswered, exercise
from minimp.labs.showing import show

__all__ = ["Exercise", "NotAnswered", "exercise", "show"]
