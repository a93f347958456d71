"""Stepping through training: stage by stage, op by op, back again, and what if.

>>> from minimp import stepper
>>> session = stepper.digits("mixed-fp16")
>>> print(session.search("op == linear and phase == backward").event.title)
linear backward

`minimp step` is this in a terminal, as a screen or as a plain prompt (:mod:`minimp.stepper.commands`).
"""

from minimp.stepper.commands import COMMANDS, Command, Prompt
from minimp.stepper.edits import EDITS, Edit
from minimp.stepper.goals import Found
from minimp.stepper.outcomes import Outcome
from minimp.stepper.running import Moment
from minimp.stepper.saving import facts_of, save_finding
from minimp.stepper.session import Session
from minimp.stepper.snapshots import fingerprint
from minimp.stepper.sources import digits, open_script

__all__ = [
    "COMMANDS", "EDITS", "Command", "Edit", "Found", "Moment", "Outcome", "Prompt", "Session", "digits",
    "facts_of", "fingerprint", "open_script", "save_finding",
]  # fmt: skip
