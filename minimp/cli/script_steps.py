"""A user's script that defines no function: its first training step, as code that can be run again and again.

The script runs as `python script.py` would, its `main()` too, and is left at its first training step. A step
by a TrainStep (also inside of a Trainer) is taken out of it: the script is run once. A loop of the user's own
cannot be taken out: each run is the script again, up to the optimizer's first step.
"""

from __future__ import annotations

import io
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from minimp.bisecting import Memento
from minimp.bisecting.scripts import FirstStep, Left, run_up_to
from minimp.door import OPS
from minimp.errors import SettingError
from minimp.modes import listen
from minimp.nn import Module
from minimp.nn.hooks import register_module_forward_pre_hook
from minimp.recipe import Recipe
from minimp.step import TrainStep
from minimp.tape import Event, Node
from minimp.trace.sites import Modules

__all__ = ["first_step"]

MOST_SKIPPED = 40
"""So many steps may be skipped before one that is compared: from a loss scale of 2^24, half of them do."""
_ops_of: dict[Path, set[str]] = {}
"""Script -> the ops that its last run defined: it defines them again in the next."""
MOST_NUMBERS = 16
"""So many numbers are remembered before backward; the loss is among them."""
LEAST_SCALE = 1.0
"""Below it the loss scale is not the cause of an infinity."""
PROTOCOL = (
    "define run(), which computes (forward, loss, gradients) and returns what is to be compared, as "
    "`minimp bisect --example` shows; or let the script take a training step"
)


class _Watcher(FirstStep):
    """Leaves a script at its first training step, and keeps what is found there.

    Args:
        patient: whether to go on from steps that a scaler skips, as long as a smaller scale may help.

    Attributes:
        step, batch: the TrainStep that was about to run, and (inputs, targets).
        loss: of a loop of the user's own, that from which the first backward starts (it carries the scale).
        gradients: of such a loop, name -> gradient, as the optimizer gets them.
        skipped: how many steps the scaler had skipped before that, and the loss scale at the end of them.
    """

    def __init__(self, *, patient: bool) -> None:
        super().__init__()
        self.patient = patient
        self.loss: float | None = None
        self.gradients: dict[str, Any] | None = None
        self.skipped, self.scale = 0, math.inf
        self.names = Modules()
        self._scaler: Any = None
        self._numbers: deque[tuple[Node, float]] = deque(maxlen=MOST_NUMBERS)

    def hear(self, event: Event) -> None:
        """Take note of the loss (a listener)."""
        if self.loss is not None:
            return
        if event.phase == "backward":
            self.loss = next((found for node, found in self._numbers if node is event.node), None)
        elif event.node.recording and (made := event.outputs[0]) is not None and made.size == 1:
            wide = event.node.backend.to_host(event.node.backend.wide(made))
            self._numbers.append((event.node, float(wide.item())))

    def optimizer_steps(self, optimizer: Any) -> None:
        """Leave the script with the gradients of an optimizer that is about to step."""
        self._take(optimizer)
        if self._scaler is not None:
            self.scale = self._scaler.get_scale()
        raise Left

    def optimizer_stepped(self, optimizer: Any, *, done: bool) -> None:
        """Nothing: the script is left before that."""

    def scaler_stepped(self, scaler: Any, optimizer: Any, report: Any) -> None:
        """Go on from a step that the scaler skipped, or leave the script there."""
        if self.gradients is None or not report.skipped:
            self._take(optimizer)
        self.skipped, self._scaler = self.skipped + report.skipped, scaler
        hopeless = report.scale <= LEAST_SCALE or not math.isfinite(self.loss or 0.0)
        if self.skipped == MOST_SKIPPED or hopeless or not self.patient:
            self.skipped = 0
            raise Left

    def name(self, module: Module, _: Any) -> None:
        """Take note of a module's parameters."""
        self.names.add(module)

    def _take(self, optimizer: Any) -> None:
        found: dict[str, Any] = {}
        for g, group in enumerate(optimizer.param_groups):
            for i, each in enumerate(group["params"]):
                if each.grad is not None:
                    known = self.names.leaf(each)
                    found[f"group {g} parameter {i}" if known in (None, *found) else f"{known}"] = each.grad
        self.gradients = {name: grad.detach() for name, grad in found.items()}


def first_step(file: Path) -> Callable[[], dict[str, Any]]:
    """Return the first training step of a script as code without arguments: what it computes.

    Of a TrainStep that is the loss and the gradients, unscaled; where the loss scale alone makes a step
    overflow, those of the same batch at the scale at which it does not. Of another loop, the loss as
    backward gets it, and the gradients.

    Raises:
        SettingError: the script takes no training step, or the loss scale makes the first one overflow in a
            loop of its own: the next has another batch.
    """
    found = _left(file, patient=True)
    if found.step is not None:
        _refuse_without_region(file, found.step.recipe)
        return partial(_take_step, found.step, found.batch)
    if found.gradients is None:
        raise SettingError(f"{file} defines no function run(), and takes no training step", help=PROTOCOL)
    if found.skipped:
        raise SettingError(
            f"{file} skips its first {found.skipped} steps, until the loss scale is {found.scale:,.10g}: "
            "none of them can be compared with one in FP32",
            help=f"let it begin there: GradScaler(init_scale={found.scale!r})",
        )
    return partial(_take_loop, file)


def _refuse_without_region(file: Path, recipe: Recipe) -> None:
    """Raise where the rules of autocast are not what makes a step mixed."""
    if recipe.policy is None or Recipe.low(recipe.param_dtype):
        raise SettingError(
            f"the step of {file} has recipe {recipe.name!r}, with parameters in {recipe.param_dtype} and "
            f"{'no rules' if recipe.policy is None else 'rules'} of autocast: there is nothing mixed that "
            "differs from FP32 by the rules alone",
            help="search it with a recipe of parameters in float32 and rules, mixed-fp16 or mixed-bf16",
        )


def _take_step(step: TrainStep, batch: tuple[Any, Any]) -> dict[str, Any]:
    """Return loss and gradients; a step that its scale makes overflow is taken again at the next."""
    chance, tries = Memento(()), 0
    while True:
        tries += 1
        for name, state in step.walk(*batch):
            if name == "check_finite" and (tries == MOST_SKIPPED or _counts(step, state)):
                return {"loss": state.loss, "gradients": dict(state.gradients)}
        chance.restore()  # the same masks of dropout in the next


def _counts(step: TrainStep, state: Any) -> bool:
    """Tell whether a step is one to compare: it is finite, or a smaller loss scale would not make it so."""
    loss = float(state.loss.detach().float().item())
    helpless = not step.scaler.is_enabled() or not math.isfinite(loss) or state.scale <= LEAST_SCALE
    return helpless or not state.nonfinite


def _take_loop(file: Path) -> dict[str, Any]:
    """Return loss and gradients of a script's first step."""
    with redirect_stdout(io.StringIO()):
        found = _left(file, patient=False)
    if found.gradients is None:
        raise SettingError(f"{file} ended before its optimizer's first step")
    loss = {} if found.loss is None else {"loss": found.loss}
    return {**loss, "gradients": found.gradients}


def _left(file: Path, *, patient: bool) -> _Watcher:
    """Run a script as `python script.py` does, and leave it at its first training step."""
    watcher = _Watcher(patient=patient)
    handle = register_module_forward_pre_hook(watcher.name)
    try:
        with listen(watcher.hear), _modules_of(file):
            run_up_to(file, watcher)
    finally:
        handle.remove()
    return watcher


@contextmanager
def _modules_of(file: Path) -> Iterator[None]:
    """Forget afterwards what a script has imported from its own folder, and before it the ops it defined."""
    known, folder = set(sys.modules), str(file.resolve().parent) + os.sep
    for name in _ops_of.pop(file, set()):
        OPS.pop(name, None)
    ops = set(OPS)
    try:
        yield
    finally:
        _ops_of[file] = set(OPS) - ops
        for name in set(sys.modules) - known:
            if (getattr(sys.modules[name], "__file__", None) or "").startswith(folder):
                del sys.modules[name]
