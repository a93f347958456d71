"""minimp beside the frameworks that are installed: the same calls in both, compared live.

- ``results``: what a comparison found, as rows, sections and a verdict. ``suites``: which sections a
  framework has, and running them. ``judging``: from what both gave to a row. ``sides``: one face for both.
- ``documented/``: the differences that are known, each with its reason and where it was seen.
- ``cases/``: the calls that ops are compared by.
- ``ops/``, ``scalers/``, ``cache/``, ``training/``: the sections.
- ``recording``: :class:`record_torch`, a trace of a PyTorch model, to be compared with one of ours.

Nothing here is needed to train: only `minimp check` and the tests load it.
"""

from minimp.frameworks.recording import record_torch

__all__ = ["record_torch"]
