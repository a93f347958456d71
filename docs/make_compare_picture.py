"""Draw docs/compare.svg, the picture in the README: `minimp compare` with its defaults, as a screen.

Run it with ``python docs/make_compare_picture.py``.
"""

from __future__ import annotations

import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME

from minimp.cli.base import MOST_COLUMNS
from minimp.cli.compare import show, show_legend
from minimp.data import load
from minimp.experiments import EXPERIMENTS, run_experiment
from minimp.verdicts import verdict


def main() -> None:
    """Run the usual experiments and write the picture beside this file."""
    screen = Console(record=True, width=MOST_COLUMNS, force_terminal=True, highlight=False)
    data = load("digits")
    for experiment in (each for each in EXPERIMENTS.values() if each.usual):
        outcomes = list(run_experiment(experiment, data))
        reference = next(each for each in outcomes if each.recipe == experiment.reference)
        show(screen, experiment, [(each, verdict(each, reference)) for each in outcomes], data)
    show_legend(screen)
    offline = re.sub(
        r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL
    )  # no font from elsewhere
    picture = Path(__file__).with_name("compare.svg")
    screen.save_svg(str(picture), title="minimp compare", code_format=offline, theme=SVG_EXPORT_THEME)


if __name__ == "__main__":
    main()
