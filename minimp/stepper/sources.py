"""Where sessions come from: the built-in digits, a user's script, or any training step that runs in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from minimp import models, rng
from minimp.bisecting.scripts import FirstStep, as_python_does, run_up_to
from minimp.data import ArrayDataset
from minimp.errors import DataError, MinimpError, SettingError
from minimp.files import AnyPath
from minimp.optim import Adam
from minimp.step import TrainStep
from minimp.stepper.session import Session

__all__ = ["digits", "open_script"]

BATCHES = 20
MOST_BATCHES = 1000
PROTOCOL = (
    "let it run a TrainStep; or define step (a TrainStep), inputs and targets; or a function session() that "
    "returns a Session or (step, inputs, targets). A loop without a TrainStep is stopped in by "
    "`with mp.trace.break_when(condition, 'debug'):`"
)

CAUGHT = (
    "{} was left at its first training step: every step here has that batch again, and what the script does "
    "between steps (another batch, a learning-rate schedule) is not done"
)
"""What is said of a session in which the script does not go on."""


def digits(
    recipe: str = "mixed-fp16", *, model: str = "mlp", seed: int = 0, batch: int = 32, lr: float = 1e-3,
    shadow: bool = False,
) -> Session:  # fmt: skip
    """Return a session on the built-in handwritten digits.

    Args:
        recipe: the name of a recipe.
        model: "mlp", "cnn", "autoencoder" or "resnet" of `minimp.models`.
        seed: of the weights, and of all that is drawn after them.
        batch: rows of a batch.
        lr: Adam's learning rate.
        shadow: compute every op in float64 too.

    Raises:
        SettingError: an unknown recipe or model, or a number that cannot be.
        DataError: the model reads no pictures.
    """
    kind = models.MODELS[model]
    data = kind.read("digits").train
    if not isinstance(data, ArrayDataset):  # the built-in digits are no text
        raise DataError(f"model {model!r} reads no digits", op="step")
    if not 1 <= batch <= len(data):
        raise SettingError(f"expected a batch of 1 to {len(data):,} rows, got {batch}", op="step")
    rng.manual_seed(seed)
    made = models.build(model, data)
    step = TrainStep(made, kind.loss_fn, Adam(made.parameters(), lr=lr), recipe)
    count = min(BATCHES, len(data) // batch)
    parts = [slice(i * batch, (i + 1) * batch) for i in range(count)]
    batches = [(data.inputs[part], data.targets[part]) for part in parts]
    given = [f"{recipe!r}"]
    usual = {"model": "mlp", "seed": 0, "batch": 32, "lr": 1e-3, "shadow": False}
    now = {"model": model, "seed": seed, "batch": batch, "lr": lr, "shadow": shadow}
    given += [f"{name}={value!r}" for name, value in now.items() if value != usual[name]]
    return Session(
        step, batches, shadow=shadow, title=f"the digits, model {model}, recipe {recipe}",
        source=f"stepper.digits({', '.join(given)})",
    )  # fmt: skip


def open_script(path: AnyPath, arguments: Sequence[str] = (), *, shadow: bool = False) -> Session:
    """Return a session on what a script trains; the script is run, as `python script.py` would.

    The first training step (a call of a TrainStep, by itself or by a Trainer) is caught before its first
    stage, and the script ends there: its batch is that of all steps of the session. A script that runs none
    says what to do by what it defines: `session()`, which returns a Session or (step, inputs, targets); or
    `step`, with `inputs` and `targets`, or `batches`, pairs of which the first 1,000 are taken.

    Args:
        path: the script.
        arguments: its command line.
        shadow: compute every op in float64 too.

    Raises:
        DataError: there is no such file.
        SettingError: it neither runs a training step nor defines one.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{file}: no such script", op="step")
    first = FirstStep()
    try:
        with as_python_does(str(file), arguments, file.resolve().parent):
            found = run_up_to(file, first)
            if first.step is None:
                return _declared(file, arguments, found, shadow)
            return _caught(file, arguments, first, shadow)
    except SystemExit as fault:
        raise SettingError(
            f"{file} ended before any training step (sys.exit, or a parser of arguments)", op="step",
            help=f"arguments for the script stand after --; else {PROTOCOL}",
        ) from fault  # fmt: skip
    except MinimpError:
        raise
    except Exception as fault:
        raise DataError(
            f"{file} raised {type(fault).__name__}: {fault}", op="step",
            help="MINIMP_TRACEBACK=1 shows where",
        ) from fault  # fmt: skip


def _declared(file: Path, arguments: Sequence[str], found: dict[str, Any], shadow: bool) -> Session:
    """Make a session of what a script has defined."""
    if callable(found.get("session")):
        made = found["session"]()
        if isinstance(made, Session):
            if not made.source:
                made.source, made.folder = _code(file, arguments, shadow), Path.cwd()
            return made
        if isinstance(made, tuple) and len(made) == 3 and isinstance(made[0], TrainStep):
            return _session(file, arguments, made[0], [made[1:]], shadow)
        raise SettingError(
            f"{file}: session() returned {type(made).__name__}", op="step",
            help="let it return a Session or (step, inputs, targets)",
        )  # fmt: skip
    step = found.get("step")
    if isinstance(step, TrainStep) and isinstance(found.get("batches"), Iterable):
        batches = [*islice(found["batches"], MOST_BATCHES)]  # a loader may go on for ever
        return _session(file, arguments, step, batches, shadow)
    if isinstance(step, TrainStep) and "inputs" in found and "targets" in found:
        return _session(file, arguments, step, [(found["inputs"], found["targets"])], shadow)
    raise SettingError(f"{file}: there is no training step in it", op="step", help=PROTOCOL)


def _caught(file: Path, arguments: Sequence[str], first: FirstStep, shadow: bool) -> Session:
    """Make a session of the training step at which a script was left."""
    assert first.step is not None
    made = _session(file, arguments, first.step, [first.batch], shadow)
    made.note = CAUGHT.format(file.name)
    return made


def _session(
    file: Path, arguments: Sequence[str], step: TrainStep, batches: list[tuple[Any, Any]], shadow: bool
) -> Session:
    title = f"{file.name}, recipe {step.recipe.name}"
    made = Session(step, batches, shadow=shadow, title=title, source=_code(file, arguments, shadow))
    made.folder = Path.cwd()
    return made


def _code(file: Path, arguments: Sequence[str], shadow: bool) -> str:
    """Return the code that opens a script again."""
    more = f", {list(arguments)!r}" if arguments else ""
    return f"stepper.open_script({str(file)!r}{more}{', shadow=True' if shadow else ''})"
