"""`minimp train`: one model by one recipe, with a log, checkpoints, and a resume that is exact to the bit."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from minimp import checkpoint, models
from minimp.cli.base import columns, console, examples, json_text, progress_console
from minimp.cli.choices import add_backend, add_reading, both_sizes, computing_on, models_text
from minimp.cli.device_view import DeviceWork, show_work, watching_device
from minimp.cli.train_sample import OPTIONS as SAMPLING
from minimp.cli.train_sample import Sampler, add_sample_options, show_sample
from minimp.cli.train_settings import DEFAULTS, OPTIMIZERS, TrainSettings
from minimp.cli.train_trace import Tracing, add_trace_options
from minimp.cli.train_view import figures, progress, summary
from minimp.data import AnyParts, TextDataset
from minimp.errors import CheckpointError, MinimpError, SettingError
from minimp.files import check_writable, sync_folder, write_whole
from minimp.memory import ledger
from minimp.recipe import recipes
from minimp.runlog import read_log
from minimp.scaler import LayerwiseScaler
from minimp.trainer import RunResult, Trainer

__all__ = ["add_parser", "run"]

INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C ended
RUNS = Path("runs")
LOG, CHECKPOINT, WEIGHTS = "log.jsonl", "checkpoint.safetensors", "weights.safetensors"
FILES = (LOG, CHECKPOINT, WEIGHTS)


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "train",
        help="train one model by one recipe; stop and resume without a bit of difference",
        description=textwrap.fill(
            "Train one model by one recipe. A folder gets the log (JSON lines), one checkpoint, replaced as "
            "a whole every so many steps, and the final weights. Ctrl-C finishes the step, saves, and says "
            "how to resume. A run that was killed at any instant, or lost its power, goes on by --resume "
            "from its last complete checkpoint, and ends with the same bits.",
            columns(),
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=models_text() + "\n\n" + examples(
            "minimp train",
            "minimp train --recipe bf16-stochastic --model cnn --steps 300 --out runs/mine",
            "minimp train --model gpt --sample 1000 --prompt 'class '",
            "minimp train --resume runs/mine --steps 600",
            "minimp train --steps 100 --trace mytrace --trace-steps 1-3,50 --shadow",
        ),
    )  # fmt: skip
    _add_choices(parser.add_argument)
    add_sample_options(parser.add_argument)
    add_trace_options(parser.add_argument)
    add = parser.add_argument
    add("--out", type=Path, metavar="DIR", help="folder of the run (default: a new one in runs/)")
    every = DEFAULTS["checkpoint_every"]
    text = f"steps between checkpoints; 0: only at the end (default: {every})"
    add("--checkpoint-every", type=int, metavar="N", help=text)
    add(
        "--resume",
        nargs="?",
        const="",
        metavar="DIR",
        help="go on with the run in DIR (default: the last in runs/)",
    )
    add("--stop-on-divergence", action="store_true", help="end at the first loss that is not finite")
    add("--json", metavar="FILE", type=Path, help="write every figure to FILE")
    add("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run)


def _add_choices(add: Callable[..., object]) -> None:
    """Add the options that a checkpoint keeps."""
    for name, metavar, text in (
        ("recipe", "NAME", f"one of {', '.join(recipes)}"),
        ("model", "NAME", f"one of {', '.join(models.MODELS)}"),
        ("optimizer", "NAME", f"one of {', '.join(OPTIMIZERS)}"),
    ):
        add(f"--{name}", metavar=metavar, help=f"{text} (default: {DEFAULTS[name]})")
    add_backend(add, None)
    add_reading(add)
    add("--label", metavar="COLUMN", help="the label column of a CSV file, by name or number")
    for name, text in (
        ("steps", "optimizer steps in all"),
        ("batch", "rows of a batch"),
        ("seed", "of weights, batches and stochastic rounding"),
    ):
        add(f"--{name}", type=int, metavar="N", help=f"{text} (default: {DEFAULTS[name]})")
    rates = ", ".join(f"{name} {own['lr']:g}" for name, (_, own) in OPTIMIZERS.items())
    add("--lr", type=float, metavar="X", help=f"learning rate (default: {rates})")
    add("--momentum", type=float, metavar="X", help="of sgd and rmsprop (default: 0)")
    add("--weight-decay", type=float, metavar="X", help="(default: 0, adamw and lamb 0.01)")
    add("--max-norm", type=float, metavar="X", help="clip the norm of all gradients to this")


@dataclass(frozen=True)
class _Run:
    """A run that is ready to go on."""

    folder: Path
    settings: TrainSettings
    data: AnyParts
    trainer: Trainer
    sampler: Sampler
    tracing: Tracing


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    folder, state = _saved_run(args)
    settings = _settings(args, state)
    with computing_on(settings.backend):
        made = _make_run(args, settings, folder, state)
        _say_that_it_moved(settings, state)
        with watching_device() as work:
            result, interrupted = _train(made, quiet=args.quiet)
        made.tracing.say(progress_console())
        if interrupted:
            _say_how_to_go_on(args, made.folder, result.step, settings.steps)
            return INTERRUPTED
        _finish(args, made, result, work)
    return 0


def _settings(args: argparse.Namespace, state: dict[str, Any] | None) -> TrainSettings:
    """Return the settings of a new or of a resumed run."""
    if state is None:
        return TrainSettings.from_options(vars(args))
    settings = TrainSettings.from_checkpoint(state, vars(args))
    if settings.steps < state["step"]:
        raise SettingError(
            f"the run has done {state['step']:,} steps, more than --steps {settings.steps}",
            help=f"ask for more: --steps {2 * state['step']}",
        )
    return settings


def _make_run(
    args: argparse.Namespace, settings: TrainSettings, folder: Path | None, state: dict[str, Any] | None
) -> _Run:
    """Read the data and make the model; only then the folder of a new run, and its first checkpoint."""
    data = settings.load_data()
    if state is not None:
        settings.check_data(state, data)
    sampler, tracing = Sampler(args, settings, data), Tracing(args, settings, state)
    step, loader = settings.make_step(data), settings.make_loader(data)
    there_before = folder is not None or (args.out is not None and args.out.exists())
    folder = folder or _new_folder(args.out, settings)
    try:
        trainer = Trainer(
            step, loader, test=data.test, log=folder / LOG, checkpoint=folder / CHECKPOINT,
            checkpoint_every=settings.checkpoint_every, stop_on_divergence=args.stop_on_divergence,
            settings=settings.bound(data), notes=settings.free(),
        )  # fmt: skip
        check_writable(folder / WEIGHTS)
        if args.json is not None:
            check_writable(args.json)  # only now: it may lie in the new folder
        if state is not None:
            trainer.load_state_dict(state)
    except MinimpError:
        for made in () if there_before else (folder, *([RUNS] if args.out is None else [])):
            with suppress(OSError):  # it holds something
                made.rmdir()
        raise
    return _Run(folder, settings, data, trainer, sampler, tracing)


# ---- where the run is -----------------------------------------------------------------------------------


def _saved_run(args: argparse.Namespace) -> tuple[Path | None, dict[str, Any] | None]:
    """Return the folder and the state of the run to resume; neither for a new run."""
    if args.resume is None:
        return None, None
    if args.resume and args.out is not None:
        raise SettingError("--out cannot act beside --resume DIR: the run goes on in its own folder")
    folder = Path(args.resume) if args.resume else args.out or _last_run()
    if folder.name == CHECKPOINT and folder.is_file():
        folder = folder.parent
    file = folder / CHECKPOINT
    if not file.exists() and folder.is_dir():
        raise CheckpointError(
            f"{folder} holds no run: there is no {CHECKPOINT} in it", help="name the folder of a run"
        )
    state = checkpoint.load(file, require_checksum=True)
    if not isinstance(state.get("settings"), dict) or not isinstance(state.get("notes"), dict):
        raise CheckpointError(f"{file} does not hold the state of a run", help="name the folder of a run")
    return folder, state


def _last_run() -> Path:
    """Return the folder in runs/ whose checkpoint is the newest."""
    found = sorted(RUNS.glob(f"*/{CHECKPOINT}"), key=lambda file: file.stat().st_mtime_ns)
    if not found:
        raise CheckpointError("there is no run in runs/ to resume", help="name its folder: --resume DIR")
    return found[-1].parent


def _new_folder(out: Path | None, settings: TrainSettings) -> Path:
    """Make the folder of a new run; one that was named may exist, without a run in it."""
    try:
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            sync_folder(out.parent)
            held = [name for name in FILES if (out / name).exists() and (out / name).stat().st_size]
            if held:
                raise SettingError(
                    f"{out} already holds a run ({', '.join(held)})",
                    help=f"go on by minimp train --resume {shlex.quote(str(out))}, or name another --out",
                )
            return out
        RUNS.mkdir(exist_ok=True)
        return _numbered(RUNS / f"{settings.model}-{settings.recipe}")
    except OSError as fault:
        where = out or RUNS
        raise CheckpointError(
            f"cannot make the folder {where}: {fault.strerror or fault}",
            help="name one that you may write to",
        ) from fault


def _numbered(stem: Path) -> Path:
    """Make a new folder: the stem, or the stem with the first number that is free."""
    number = 1
    while True:
        folder = stem if number == 1 else stem.with_name(f"{stem.name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            for above in (stem.parent, stem.parent.parent):  # their names must outlast a power cut too
                sync_folder(above)
            return folder


# ---- the run --------------------------------------------------------------------------------------------


def _say_that_it_moved(settings: TrainSettings, state: dict[str, Any] | None) -> None:
    """Say that a run goes on where other bits come out than where it began."""
    before = settings.backend if state is None else str(state["notes"].get("backend", "numpy"))
    if before != settings.backend:
        progress_console().print(
            f"saved on {before}, going on on {settings.backend}: results differ within the bounds of each op",
            highlight=False,
        )  # fmt: skip


def _train(made: _Run, *, quiet: bool) -> tuple[RunResult, bool]:
    """Do the steps that are left; tell whether a signal ended them early."""
    trainer, steps = made.trainer, made.settings.steps
    shown = progress(progress_console(), done=trainer.done, steps=steps, skipped=trainer.skipped, quiet=quiet)
    with _signals_stop(trainer) as asked, shown as show, made.tracing.of(trainer, show) as on_step:
        trainer.on_step = on_step
        result = trainer.run(steps - trainer.done)
    return result, result.stopped and bool(asked)


@contextmanager
def _signals_stop(trainer: Trainer) -> Iterator[list[int]]:
    """Let Ctrl-C (SIGINT) and SIGTERM end the run after its step; a second one ends it at once.

    Yields:
        The signals that have come.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread may handle signals
        return

    def ask(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - what the system calls
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        trainer.stop()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


# ---- what is said at the end ----------------------------------------------------------------------------


def _resume_command(args: argparse.Namespace, folder: Path) -> str:
    """Return the command that goes on with a run that was stopped, with what its checkpoint does not hold."""
    words = ["minimp", "train", "--resume", str(folder)]
    if args.json is not None:
        words += ["--json", str(args.json)]
    for name in SAMPLING:
        value = getattr(args, name)
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    flags = {"--stop-on-divergence": args.stop_on_divergence, "--quiet": args.quiet}
    return shlex.join(words + [flag for flag, given in flags.items() if given])


def _say_how_to_go_on(args: argparse.Namespace, folder: Path, done: int, steps: int) -> None:
    """Say where a run that was stopped is, and the command that resumes it."""
    for line in (
        f"stopped after step {done} of {steps}; saved {folder / CHECKPOINT}",
        f"resume: {_resume_command(args, folder)}",
    ):
        progress_console().print(line, soft_wrap=True, highlight=False, markup=False)


def _finish(args: argparse.Namespace, made: _Run, result: RunResult, work: DeviceWork) -> None:
    """Judge the model, write its weights and the figures, and print the summary."""
    folder, settings, trainer, train = made.folder, made.settings, made.trainer, made.data.train
    scores = trainer.evaluate()
    checkpoint.save(folder / WEIGHTS, trainer.step.model.state_dict(), meta=_described(made))
    written = made.sampler.write(trainer.step.model)
    records = read_log(folder / LOG)
    held = ledger(trainer.step, *train[: settings.batch])
    if args.json is not None:
        config = {**trainer.settings, **trainer.notes}
        found = figures(result, records, scores, held)
        found |= {"device": device} if (device := work.as_dict()) else {}
        told = found if written is None else {**found, "sample": written}
        write_whole(args.json, json_text({"config": config, "result": told}))
    further = {**_by_layer(trainer), **_ways_on(made)}
    summary(console(), _title(made), result, records, scores, held, further)
    show_work(console(), work, settings.backend, len(result.records), "Each step's report is read.")
    if written is not None:
        show_sample(console(), written)


def _described(made: _Run) -> dict[str, str]:
    """Return what the file of the weights says of the model."""
    settings, train = made.settings, made.data.train
    said = {
        "model": settings.model, "recipe": settings.recipe, "input_shape": str(train.input_shape),
        "num_classes": str(train.num_classes), "sizes": settings.sizes or "",
    }  # fmt: skip
    if isinstance(train, TextDataset):
        said["vocabulary"] = train.vocabulary.characters
    return said


def _title(made: _Run) -> str:
    """Say what was run."""
    s, data = made.settings, made.data
    sizes = f" ({s.sizes})" if s.sizes else ""
    clipped = "" if s.max_norm is None else f"max-norm {s.max_norm:g}, "
    return (
        f"{s.model}{sizes} on {data.train.name} ({both_sizes(data)}), {s.recipe}, {s.optimizer} lr {s.lr:g}, "
        f"batch {s.batch}, {clipped}seed {s.seed}"
    )


def _by_layer(trainer: Trainer) -> dict[str, str]:
    """Say what layers multiply their gradients by, where each has a scale of its own."""
    scaler = trainer.step.scaler
    if not isinstance(scaler, LayerwiseScaler) or not scaler.factors:
        return {}
    factors = scaler.factors.values()
    return {"layer scales": f"{min(factors):g} to {max(factors):g}, {len(factors)} layers; the loss's is 1"}


def _ways_on(made: _Run) -> dict[str, str]:
    """Say where things are and what can be done with them."""
    folder, settings, train = made.folder, made.settings, made.data.train
    again = shlex.join(["minimp", "train", "--resume", str(folder), "--steps", str(2 * settings.steps)])
    sizes = "".join(f", {name}={value!r}" for name, value in settings.model_sizes.items())
    shapes = f"({train.input_shape}, {train.num_classes}){sizes}"
    writing = {}
    if isinstance(train, TextDataset):
        writing = {"write more": shlex.join(["minimp", "train", "--resume", str(folder), "--sample", "1000"])}
    return {
        "written": f"{folder}{os.sep}  {'  '.join(FILES)}",
        "go on": again,
        **writing,
        "use": "from minimp import load, models",
        " ": f"model = models.build({settings.model!r}, {shapes})",
        "  ": f"model.load_state_dict(load({str(folder / WEIGHTS)!r}))",
    }
