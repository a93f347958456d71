"""Claims of papers, made small enough for a laptop: each with its setting, its bars, and a verdict.

A module a paper. :mod:`minimp.reproductions.record` says what a reproduction is, and
:mod:`minimp.reproductions.running` runs one over seeds. The bars stand in the record, written before the
figures: "reproduced" if all are kept, "weaker" if the effect is there and smaller, else "not reproduced".
"""

from minimp.reproductions.catalogue import REPRODUCTIONS
from minimp.reproductions.record import Bar, Bench, Figure, Judgement, Paper, Reproduction
from minimp.reproductions.running import Result, reproduce

__all__ = [
    "REPRODUCTIONS", "Bar", "Bench", "Figure", "Judgement", "Paper", "Reproduction", "Result", "reproduce",
]  # fmt: skip
