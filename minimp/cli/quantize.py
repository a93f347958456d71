"""`minimp quantize`: a trained model in 8 bits and fewer: what became of each layer, and how it does."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minimp.cli.base import columns, console, examples, json_text, progress_console
from minimp.cli.choices import add_reading, refuse_reading
from minimp.cli.judged import Scored, Verdict, judge, scored
from minimp.cli.quantize_modes import MODES, OBSERVERS, Job, Made, Mode
from minimp.cli.quantize_training import EPOCHS, RATE, RECIPES, Training, check_recipe
from minimp.cli.quantize_view import calibrating, show
from minimp.cli.sources import CHECKPOINT, WEIGHTS, Source, find_source
from minimp.cli.train_view import progress
from minimp.data import AnyParts
from minimp.errors import CheckpointError, DataError, SettingError, plain, unknown_name
from minimp.files import check_writable, write_whole
from minimp.quant.layer_reports import bytes_of
from minimp.quant.modules.layers import MODES as REQUANTISING
from minimp.quant.rules import RULES
from minimp.quant.saving import save

__all__ = ["add_parser", "run"]

OP = "quantize"
CHECKED = 8
"""Rows on which an ONNX graph is compared with the model."""


def add_parser(subparsers: Any) -> None:
    """Add the command and its options."""
    parser = subparsers.add_parser(
        "quantize",
        help="store a trained model in 8 bits or fewer; show each layer, the accuracy, and the size",
        description="Quantise a trained model: a safetensors file gets the codes with their scales, and "
        "minimp.quant.load rebuilds the model from it. Show what became of each layer, the accuracy "
        "before and after, and the size. What is not said is static quantisation in int8.",
        epilog=_modes_text() + "\n\n" + examples(
            "minimp quantize runs/cnn-mixed-fp16",
            "minimp quantize runs/cnn-mixed-fp16 --onnx cnn.onnx --rule onnx",
            "minimp quantize runs/cnn-mixed-fp16 --mode qat --bits 3,3 --epochs 20",
            "minimp quantize runs/gpt-mixed-fp16 --mode weight-only --dtype mxfp4",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("run_path", metavar="RUN", type=Path, help="the folder of a run, its checkpoint, or file of weights")
    add("--mode", metavar="NAME", default="static", help=f"{', '.join(MODES)} (default: static)")
    add("--out", type=Path, metavar="FILE", help="the file to write (default: quantized-MODE beside the run)")
    add("--onnx", type=Path, metavar="FILE", help="write the graph for other engines too; static and qat")
    add("--json", type=Path, metavar="FILE", help="write every figure to FILE")
    add("--size-only", action="store_true", help="read no data, and do not judge; dynamic and weight-only")
    add("--quiet", action="store_true", help="no progress")
    add_reading(add, sizes=False)
    add("--label", metavar="COLUMN", help="the label column of a CSV file, by name or number")
    _add_ranges(add)
    _add_training(add)
    parser.set_defaults(run=run)


def _add_ranges(add: Callable[..., object]) -> None:
    """Add what says how codes are chosen."""
    add("--samples", type=int, metavar="N", help="rows to calibrate on (default: 512)")
    add("--batch", type=int, metavar="N", help="rows of a batch (default: 64)")
    add("--observer", metavar="NAME", help=f"{', '.join(OBSERVERS)} (default: histogram)")
    add("--patience", type=int, metavar="N", help="end calibration when ranges stood still for N batches")
    add(
        "--rule",
        metavar="NAME",
        help=f"how numbers become codes: {', '.join(NAMES['rule'])} (default: torch)",
    )
    text = "scales of weights: per-channel or per-tensor (default: per-channel; dynamic: per-tensor)"
    add("--granularity", metavar="NAME", help=text)
    text = "how sums become codes: float, as QNNPACK, or fixed-point, as TFLite (default: float)"
    add("--requantise", metavar="NAME", help=text)
    text = "modules to keep in floats between codes, A,B or A=float16"
    add("--keep-float", metavar="PATHS", help=text)
    add("--equalize", action="store_true", default=None, help="give channels equal ranges first")
    add("--dtype", metavar="FORMAT", help="weight-only: int8, float8_e4m3fn, mxfp4, ... (default: int8)")
    add("--group-size", type=int, metavar="N", help="weight-only: weights that share a scale (default: rows)")


def _add_training(add: Callable[..., object]) -> None:
    """Add what says how to train on."""
    add("--epochs", type=int, metavar="N", help=f"qat: how long to train on (default: {EPOCHS})")
    add("--steps", type=int, metavar="N", help="qat: the same in steps")
    add("--lr", type=float, metavar="X", help=f"qat: learning rate of Adam (default: {RATE:g})")
    text = f"qat: what to train in: {', '.join(RECIPES)} (default: fp32)"
    add("--recipe", metavar="NAME", help=text)
    add("--bits", metavar="W,A", help="qat: bits of weights and of activations, 2 to 8 (default: 8,8)")
    add("--delay", type=int, metavar="STEP", help="qat: the step at which rounding begins (default: 0)")
    text = "qat: the step at which ranges and statistics stand still (default: at 3/4)"
    add("--freeze", type=int, metavar="STEP", help=text)


def _modes_text() -> str:
    lines = ["modes:"]
    for mode in MODES.values():
        text = f"{mode.name}: {mode.note}"
        lines.append(textwrap.fill(text, columns() - 2, initial_indent="  ", subsequent_indent="    "))
    return "\n".join(lines)


@dataclass(frozen=True)
class Result:
    """All that is shown and written.

    Attributes:
        title: what was quantised.
        mode: how.
        made: what came of it.
        before, after: bytes of the parameters and buffers.
        written: file -> bytes.
        scores: in floats, and now; empty if not judged.
        verdict: on the difference; None if not judged.
        onnx: what is to be said of the graph; nothing without one.
    """

    title: str
    mode: Mode
    made: Made
    before: int
    after: int
    written: Mapping[str, int]
    scores: Mapping[str, Scored]
    verdict: Verdict | None
    onnx: Sequence[str]


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    mode = MODES[args.mode]
    options = _options(args, mode)
    files = (WEIGHTS, CHECKPOINT) if args.size_only else (CHECKPOINT, WEIGHTS)
    source = find_source(args.run_path, OP, files=files)
    target = args.out or source.folder / f"quantized-{mode.name}.safetensors"
    _check_files(args, source, target)
    data = None if args.size_only else _data(args, source, mode)
    if data is None and not source.meta:
        raise SettingError(
            f"{source.file} does not say of which shape its model is", op=OP,
            help=f"name the run's {WEIGHTS}, or leave --size-only out",
        )  # fmt: skip
    model = source.build(data).eval()
    with calibrating(progress_console(), quiet=args.quiet) as told:
        made = mode.make(Job(source, data, model, options, told, _training(args, options, source)))
    scores = {} if data is None else _judged(model, made, data)
    save(target, made.model, meta={**source.described(data), "quantized": mode.name})
    said = [] if args.onnx is None else _exported(args.onnx, made, data)
    written = {str(path): path.stat().st_size for path in (target, args.onnx) if path is not None}
    verdict = None
    if data is not None:
        verdict = judge(scores["quantised"], scores["in floats"], unit=data.test.unit)
    sizes = bytes_of(model), bytes_of(made.model)
    result = Result(source.title, mode, made, *sizes, written, scores, verdict, said)
    show(console(), result)
    if args.json is not None:
        write_whole(args.json, json_text(_plain(result, options)))
    return 0


# ---- options --------------------------------------------------------------------------------------------


def _options(args: argparse.Namespace, mode: Mode) -> dict[str, Any]:
    """Return the options that act in a mode; refuse those that cannot."""
    every = {name for each in MODES.values() for name in each.options}
    given = {name: getattr(args, name) for name in every if getattr(args, name) is not None}
    for name in sorted(set(given) - set(mode.options)):
        acting = ", ".join(each.name for each in MODES.values() if name in each.options)
        said = f"--{name.replace('_', '-')} cannot act in mode {mode.name}; it does in {acting}"
        raise SettingError(said, help=f"--mode {acting.split(', ')[-1]}, or leave it out")
    if args.size_only:
        _check_size_only(args, mode)
    options = {**mode.options, **given}
    for name, read in READERS.items():
        if isinstance(options.get(name), str):
            options[name] = read(options[name])
    _check_options(options)
    return options


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuse names that are none, numbers that cannot be, and what says the same twice."""
    for name, known in NAMES.items():
        if name in options and options[name] not in known:
            raise SettingError(unknown_name(name, options[name], known))
    if "recipe" in options:
        check_recipe(options["recipe"])
    for name in ("samples", "batch", "patience", "epochs", "steps", "group_size"):
        value = options.get(name)
        if value is not None and value < 1:
            raise SettingError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if options.get("epochs") is not None and options.get("steps") is not None:
        raise SettingError("--epochs and --steps say the same: give one of them")


def _check_size_only(args: argparse.Namespace, mode: Mode) -> None:
    if mode.needs_data:
        raise SettingError(
            f"--size-only cannot act in mode {mode.name}, which needs data",
            help="take --mode dynamic or --mode weight-only",
        )
    refuse_reading(args, "--size-only")


def _bits(text: str) -> tuple[int, int]:
    try:
        weight, activation = map(int, text.split(","))
    except ValueError:
        raise SettingError(f"--bits takes two whole numbers W,A, got {text!r}", help="--bits 4,8") from None
    for what, value in (("weights", weight), ("activations", activation)):
        if not 2 <= value <= 8:
            raise SettingError(f"--bits: {what} can have 2 to 8 bits, got {value}", help="--bits 4,8")
    return weight, activation


def _paths(text: str) -> dict[str, str]:
    """Return path -> what a module computes in."""
    found = {}
    for part in text.split(","):
        path, _, compute = part.strip().partition("=")
        found[path] = compute or "float32"
    return found


READERS: Mapping[str, Callable[[str], Any]] = {"bits": _bits, "keep_float": _paths}
"""Option -> how its text is read."""
NAMES: Mapping[str, Any] = {
    "observer": OBSERVERS, "rule": [name for name in RULES if name != "torch-dynamic"],
    "requantise": REQUANTISING,
    "granularity": ("per-channel", "per-tensor"),
}  # fmt: skip
"""Option -> the names that it takes; the rule of torch's dynamic layers has no symmetric form for weights."""


def _check_files(args: argparse.Namespace, source: Source, target: Path) -> None:
    """Look at all that will be written, before the work."""
    named = [target, *(each for each in (args.onnx, args.json) if each is not None)]
    held = [source.file, source.folder / CHECKPOINT, source.folder / WEIGHTS]
    for path in named:
        if path.exists() and any(each.exists() and path.samefile(each) for each in held):
            raise SettingError(f"{path} is what is quantised", help="name another file")
    if len({path.resolve() for path in named}) < len(named):
        raise SettingError("two of --out, --onnx and --json are one file", help="name different ones")
    check_writable(target, error=CheckpointError)
    for path in named[1:]:
        check_writable(path)
    if args.onnx is not None:
        from minimp.quant.onnx_export.library import library  # not needed otherwise

        library(OP)


def _data(args: argparse.Namespace, source: Source, mode: Mode) -> AnyParts:
    try:
        return source.read(vars(args))
    except DataError as fault:
        if mode.needs_data or args.data is not None:
            raise
        text = plain(fault)
        raise DataError(text, op=OP, help="name it with --data, or do not judge: --size-only") from fault


# ---- the work -------------------------------------------------------------------------------------------


def _training(args: argparse.Namespace, options: Mapping[str, Any], source: Source) -> Training | None:
    """Return how to train on, in the mode that does."""
    if "epochs" not in options:
        return None
    out, quiet = progress_console(), args.quiet
    return Training(
        options["recipe"], options["epochs"], options["steps"], options["lr"], options["delay"],
        options["freeze"], options["batch"], source.settings.seed if source.settings else 0,
        lambda steps: progress(out, done=0, steps=steps, skipped=0, quiet=quiet),
    )  # fmt: skip


def _judged(model: Any, made: Made, data: AnyParts) -> dict[str, Scored]:
    ways = {"in floats": model, "quantised": made.model}
    if made.rounded is not None:
        ways["not trained on"] = made.rounded
    return {way: scored(each, data.test) for way, each in ways.items()}


def _exported(path: Path, made: Made, data: AnyParts | None) -> list[str]:
    """Write the graph, run it by onnx.reference, and say how its codes compare, and what to know of them."""
    from minimp.quant.onnx_export import export_onnx, verify  # not needed otherwise

    assert data is not None
    rows = data.test[:CHECKED][0]
    report = export_onnx(made.model, path, rows)
    found = verify(path, made.model, rows)
    same = f"codes equal: {found.count - found.differing:,} of {found.count:,}"
    said = f"{same}, on {len(rows)} rows run by onnx.reference"
    return [said if found.same else f"{said}; {found.verdict()}", *report.notes]


def _plain(result: Result, options: Mapping[str, Any]) -> dict[str, Any]:
    made = result.made
    return {
        "source": result.title, "mode": result.mode.name, "options": dict(options),
        "layers": [asdict(each) for each in made.layers],
        "left": [{"path": each.path, "kind": each.kind, "why": each.note} for each in made.left],
        "fused": [asdict(each) for each in made.fused or ()],
        "facts": dict(made.facts), "bytes_before": result.before, "bytes_after": result.after,
        "written": dict(result.written), "scores": {way: each.figures for way, each in result.scores.items()},
        "verdict": result.verdict and asdict(result.verdict), "onnx": list(result.onnx),
    }  # fmt: skip
