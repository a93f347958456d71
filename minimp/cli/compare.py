"""`minimp compare`: train the same model by several recipes and show what each part is worth."""

from __future__ import annotations

import argparse
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from minimp import models
from minimp.backend import default_backend
from minimp.cli.base import console, examples, json_text, progress_console
from minimp.cli.choices import READING, add_backend, add_reading, both_sizes, computing_on, models_text
from minimp.cli.compare_page import page
from minimp.cli.device_view import DeviceWork, show_work, watching_device
from minimp.cli.sizes import parse_sizes
from minimp.data import AnyParts
from minimp.errors import DeviceError, ScaleWarning, SettingError, plain
from minimp.experiments import EXPERIMENTS, Experiment, Outcome, run_experiment
from minimp.files import check_writable, write_whole
from minimp.fp8 import TensorLosses
from minimp.pages import require_renderer
from minimp.recipe import recipes
from minimp.step import StepReport
from minimp.verdicts import METRICS, verdict

__all__ = ["add_parser", "as_json", "run", "show", "show_legend", "table"]

BYTES = (
    "weights, masters, optim. (optimizer state) and saved (activations kept for backward): bytes, K = 1024."
)
FIGURES = (
    "skipped: steps without an update. flushed: gradients that are not zero in float64 but were zero here. "
    "swallowed: weight updates with w + dw == w. time: per step, relative to the reference. Shares are of "
    "sampled steps."
)
OVERFLOWED = "overflowed: gradients that were infinite or NaN."
HEADS = ("weights", "masters", "optim.", "saved", "skipped", "flushed", "swallowed", "time")
NARROW_HEADS = ("wts", "mast.", "optim.", "saved", "skip", "flush.", "swall.", "time")
Results = dict[str, list[tuple[Outcome, str]]]


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "compare",
        help="train the same model by several recipes; show what each part is worth",
        description="Train the same model from the same seed and data under several recipes, and show with "
        "measurements what each part of mixed precision is worth.",
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    usual = ", ".join(name for name, each in EXPERIMENTS.items() if each.usual)
    add("--experiment", metavar="NAME",
        help=f"one of {', '.join(EXPERIMENTS)} (default: the model's first, else {usual})")  # fmt: skip
    add("--model", metavar="NAME", help=f"one of {', '.join(models.MODELS)} (default: the experiment's)")
    add_reading(add)
    add("--steps", type=int, help="optimizer steps (default: the experiment's)")
    add("--batch", type=int, help="rows of a batch")
    add("--lr", type=float, help="Adam's learning rate")
    add("--accumulate-steps", type=int, help="micro-batches a step stands for")
    add("--seed", type=int, default=0, help="of weights, batches and stochastic rounding (default: 0)")
    add("--recipes", metavar="A,B", help="recipes to run; fp32, or else the first, is the reference")
    add_backend(add)
    add("--json", metavar="FILE", type=Path, help="write every figure to FILE")
    add("--report", metavar="FILE", type=Path, help="write a page that works offline to FILE (needs Jinja2)")
    add("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(run=run)


def _epilog() -> str:
    """Explain the experiments' settings, and give examples."""
    lines = []
    for experiment in EXPERIMENTS.values():
        settings = (
            f"{experiment.model}, {experiment.steps} steps of Adam, lr {experiment.lr:g}, "
            f"batch {experiment.batch}, accumulate-steps {experiment.accumulate_steps}"
        )
        text = f"{experiment.name}: {experiment.shows}. Settings: {settings}. {experiment.why}"
        lines.append(textwrap.fill(text, 96, initial_indent="  ", subsequent_indent="    "))
    return "experiments:\n" + "\n".join(lines) + "\n\n" + models_text() + "\n\n" + examples(
        "minimp compare",
        "minimp compare --experiment loss-scaling --accumulate-steps 256",
        "minimp compare --model cnn --recipes fp32,mixed-fp16 --lr 1e-3 --steps 200",
        "minimp compare --json figures.json --report recipes.html",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    chosen = _choose(args)
    for file in filter(None, (args.json, args.report)):
        check_writable(file)
    if args.report is not None:
        require_renderer()
    with computing_on(args.backend), watching_device() as work:
        _refuse_formats(chosen)
        kind = models.MODELS[chosen[0].model]  # the others are of its kind: text or not
        data = kind.load(_source(args, chosen), **{name: getattr(args, name) for name in READING})
        _refuse_misfits(args, chosen, data)
        out = console()
        results: Results = {}
        for experiment in chosen:
            results[experiment.name] = _run_with_progress(experiment, data, quiet=args.quiet)
            show(out, experiment, results[experiment.name], data)
        show_legend(out)
    steps = sum(each.steps * len(each.recipes) for each in chosen)
    show_work(out, work, args.backend, steps, "Evaluation and what was measured on the way are in it.")
    if args.json is not None:
        write_whole(args.json, json_text(as_json(_config(args, chosen, data), results) | _device(work)))
    if args.report is not None:
        parts = [(each, _setting(each, data), results[each.name]) for each in chosen]
        write_whole(args.report, page(parts, f"{FIGURES} {OVERFLOWED}"))
    return 0


def _refuse_formats(chosen: Sequence[Experiment]) -> None:
    """Refuse recipes in whose formats the device cannot multiply, before the first of them runs."""
    for name in dict.fromkeys(name for experiment in chosen for name in experiment.recipes):
        for form in (recipes[name].param_dtype, recipes[name].compute_dtype):
            try:
                default_backend().require(form)
            except DeviceError as fault:
                raise DeviceError(
                    f"recipe {name}: {plain(fault)}",
                    help="name others, for example --recipes fp32,fp16,mixed-fp16",
                ) from fault


def _refuse_misfits(args: argparse.Namespace, chosen: Sequence[Experiment], data: AnyParts) -> None:
    """Refuse data that a model cannot take, and a batch that the data cannot fill, before any work."""
    for experiment in chosen:
        models.MODELS[experiment.model].prepare(data.train)
    rows = len(data.train)
    if args.batch is not None and args.batch > rows:
        raise SettingError(
            f"--batch {args.batch} is more than the {rows} {data.train.unit} of {data.train.name}",
            help=f"--batch {rows} takes all of them in every step",
        )


def _choose(args: argparse.Namespace) -> list[Experiment]:
    """Return the experiments that the options ask for, with the options put in."""
    names = _names(args)
    given = {
        name: getattr(args, name)
        for name in ("model", "steps", "batch", "lr", "accumulate_steps", "seed")
        if getattr(args, name) is not None
    }
    if args.recipes is not None:
        given["recipes"] = tuple(recipes[name.strip()].name for name in args.recipes.split(","))
    chosen = [EXPERIMENTS[name].with_(**given) for name in names]
    return [each.with_(sizes=_sizes(args, each)) for each in chosen]


def _names(args: argparse.Namespace) -> list[str]:
    """Return the names of the experiments to run: that asked for, the model's first, or the usual ones."""
    if args.experiment is not None:
        return [EXPERIMENTS[args.experiment].name]
    if args.model is None:
        return [name for name, each in EXPERIMENTS.items() if each.usual]
    metric = models.MODELS[args.model].metric
    own = [name for name, each in EXPERIMENTS.items() if each.model == args.model]
    usual = [name for name, each in EXPERIMENTS.items() if each.usual and each.metric == metric]
    return own[:1] or usual[:1]


def _sizes(args: argparse.Namespace, experiment: Experiment) -> dict[str, Any]:
    """Return the sizes of an experiment's model, with those put in that were asked for."""
    asked = parse_sizes(args.sizes, models.MODELS[experiment.model])
    return {**experiment.sizes, **asked}


def _source(args: argparse.Namespace, chosen: Sequence[Experiment]) -> str:
    """Return the data asked for, or that of the model."""
    return models.MODELS[chosen[0].model].data if args.data is None else args.data


def _run_with_progress(experiment: Experiment, data: AnyParts, *, quiet: bool) -> list[tuple[Outcome, str]]:
    """Run an experiment with one progress bar per recipe; return outcomes with their verdicts."""
    columns = (
        TextColumn("{task.description:16}"), BarColumn(28), MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}", justify="right"),
        TextColumn("S {task.fields[scale]}"), TimeElapsedColumn(),
    )  # fmt: skip
    screen = progress_console()
    unseen = quiet or not screen.is_terminal  # into a file, the bars would be empty lines
    with Progress(*columns, console=screen, disable=unseen, transient=True) as bars:
        tasks: dict[str, TaskID] = {
            name: bars.add_task(name, total=experiment.steps, loss="-", scale="-", start=False)
            for name in experiment.recipes
        }

        def advance(name: str, number: int, report: StepReport) -> None:
            if number == 1:
                bars.start_task(tasks[name])
            if number % 10 == 0 or number == experiment.steps:
                bars.update(
                    tasks[name], completed=number, loss=f"{report.loss:8.4f}", scale=f"{report.loss_scale:g}"
                )

        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", ScaleWarning
            )  # a scale that collapses is a result: it has a verdict
            outcomes = list(run_experiment(experiment, data, None if unseen else advance))
    reference = next(each for each in outcomes if each.recipe == experiment.reference)
    return [(outcome, verdict(outcome, reference)) for outcome in outcomes]


def show(out: Console, experiment: Experiment, rows: Sequence[tuple[Outcome, str]], data: AnyParts) -> None:
    """Print the table of an experiment, what it was run on, and one sentence per recipe."""
    out.print()
    out.print(f"[bold]{experiment.name}[/]: {experiment.shows}")
    out.print(_wrapped(_setting(experiment, data), out.width), markup=False)
    wide = table(rows, experiment.reference)
    fits = out.measure(wide, options=out.options.update(width=1000)).maximum <= out.width
    out.print(wide if fits else table(rows, experiment.reference, narrow=True))
    out.print()
    first = max(16, *(len(outcome.recipe) for outcome, _ in rows))
    for outcome, sentence in rows:
        lines = _wrapped(sentence, out.width - first - 2).split("\n")
        out.print(f"[bold]{outcome.recipe:{first}}[/]  " + f"\n{'':{first + 2}}".join(lines))


def show_legend(out: Console) -> None:
    """Say what the columns are."""
    out.print()
    out.print(_wrapped(f"{BYTES} {FIGURES}", out.width), style="dim")


def _setting(experiment: Experiment, data: AnyParts) -> str:
    """Say on what, and how, an experiment was run."""
    n = experiment.accumulate_steps
    text = (
        f"{experiment.model}{_changes(experiment)} on {data.train.name} ({both_sizes(data)}), "
        f"{experiment.steps:,} steps of Adam, lr {experiment.lr:g}, batch {experiment.batch}, "
        f"{'' if experiment.max_norm is None else f'max-norm {experiment.max_norm:g}, '}"
        f"seed {experiment.seed}; {models.MODELS[experiment.model].loss}."
    )
    if n > 1:
        text += (
            f" Accumulation over {n:,} steps: one computed micro-batch stands for {n:,} equal ones. Its loss "
            f"is divided by {n:,}, its unscaled FP32 gradient multiplied by {n:,}."
        )
    return text


def _changes(experiment: Experiment) -> str:
    """Return the sizes that are not the model's own, in brackets."""
    said = ", ".join(f"{name} {value}" for name, value in experiment.sizes.items())
    return f" ({said})" if said else ""


def _wrapped(text: str, width: int) -> str:
    return textwrap.fill(text, max(width, 20), break_on_hyphens=False)


def table(rows: Sequence[tuple[Outcome, str]], reference_name: str, *, narrow: bool = False) -> Table:
    """Return the table of one experiment, at most 100 columns wide; with `narrow`, 80."""
    reference = next(outcome for outcome, _ in rows if outcome.recipe == reference_name)
    metric = METRICS[reference.metric]
    padding = (0, 1, 0, 0) if narrow else (0, 1)
    grid = Table(box=None, pad_edge=False, padding=padding, header_style="bold")
    heads = ("recipe", metric.head, *(NARROW_HEADS if narrow else HEADS))
    for i, head in enumerate(heads):
        grid.add_column(head, justify="left" if i == 0 else "right", no_wrap=True)
    for outcome, _ in rows:
        grid.add_row(
            outcome.recipe, metric.cell(outcome.score),
            *(_bytes(outcome.bytes[cause]) for cause in ("weights", "master", "optimizer", "activations")),
            f"{outcome.skipped_steps:,}",
            f"{outcome.underflow_share:.1%}",
            f"{outcome.swallowed_updates:.1%}",
            f"{outcome.seconds_per_step / reference.seconds_per_step:.2f}x",
        )  # fmt: skip
    return grid


def _bytes(count: int) -> str:
    power = next((power for power in (10, 20, 30) if count < 2**power * 1000), 40)
    return f"{count / 2**power:,.1f}{'KMGT'[power // 10 - 1]}" if count else "-"


def _config(args: argparse.Namespace, chosen: Sequence[Experiment], data: AnyParts) -> dict[str, Any]:
    """Return the settings of the run, as JSON has them."""
    return {
        "data": _source(args, chosen),
        "train_rows": len(data.train),
        "test_rows": len(data.test),
        "backend": args.backend,
        "seed": args.seed,
        "experiments": {
            e.name: {"model": e.model, "recipes": list(e.recipes), "steps": e.steps, "batch": e.batch,
                     "lr": e.lr, "accumulate_steps": e.accumulate_steps, "optimizer": "adam",
                     "max_norm": e.max_norm, "sizes": dict(e.sizes)}
            for e in chosen
        },
    }  # fmt: skip


def as_json(config: dict[str, Any], results: Results) -> dict[str, Any]:
    """Return what `--json` writes; shares and accuracies are fractions of 1."""
    return {
        "config": config,
        "experiments": {
            name: {"metric": rows[0][0].metric, "recipes": {o.recipe: _figures(o, v) for o, v in rows}}
            for name, rows in results.items()
        },
    }


def _device(work: DeviceWork) -> dict[str, Any]:
    found = work.as_dict()
    return {"device": found} if found else {}


def _quantised(lost: TensorLosses) -> dict[str, float]:
    return {
        "flushed_share": lost.flushed_share, "saturated_share": lost.saturated_share, "sqnr_db": lost.sqnr,
    }  # fmt: skip


def _figures(outcome: Outcome, sentence: str) -> dict[str, Any]:
    return {
        outcome.metric: outcome.score,
        "final_loss": outcome.losses[-1],
        "losses": list(outcome.losses),
        "loss_scales": list(outcome.loss_scales),
        "skipped_steps": outcome.skipped_steps,
        "underflow_share": outcome.underflow_share,
        "swallowed_updates": outcome.swallowed_updates,
        "bytes": outcome.bytes,
        "seconds_per_step": outcome.seconds_per_step,
        **({"fp8": {role: _quantised(lost) for role, lost in outcome.fp8.items()}} if outcome.fp8 else {}),
        "verdict": sentence,
    }
