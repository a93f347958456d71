"""Which sections a comparison with each framework has, and running them."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from minimp.benchmarks.machine import describe_machine
from minimp.errors import SettingError, unknown_name
from minimp.frameworks.results import Comparison, Section
from minimp.named import Named

__all__ = ["SUITES", "Part", "Suite", "run_suite", "sections_of"]


@dataclass(frozen=True, slots=True)
class Part:
    """One section: its name, the module whose `compare(seed)` returns it, what it needs, and a line on it."""

    name: str
    module: str
    needs: tuple[str, ...]
    about: str = ""


@dataclass(frozen=True, slots=True)
class Suite:
    """All sections of one framework.

    Attributes:
        name: what `minimp check` takes: ``"torch"``.
        install: the command that installs what it needs.
        packages: the distributions whose versions a report names.
        parts: the sections, in the order in which they run.
        seen_with: the versions in which the documented differences were seen.
    """

    name: str
    install: str
    packages: tuple[str, ...]
    parts: tuple[Part, ...]
    seen_with: Mapping[str, str] = field(default_factory=dict)


SUITES = Named(
    "framework",
    Suite(
        "torch", 'pip install "minimp[torch]"', ("torch",),
        (
            Part("formats", "minimp.frameworks.ops.torch_formats", ("torch",),
                 "the format of each op's result under autocast, CPU and CUDA"),
            Part("values", "minimp.frameworks.ops.torch_values", ("torch",),
                 "values and gradients of each op in 16 bits, in ULPs and bounds"),
            Part("scaler", "minimp.frameworks.scalers.torch_scaler", ("torch",),
                 "GradScaler, rule by rule and on random traces"),
            Part("cache", "minimp.frameworks.cache.torch_cache", ("torch",),
                 "the cast cache: casts and gradients of programs"),
            Part("integers", "minimp.frameworks.integers.torch_integers", ("torch",),
                 "quantised numbers and integer layers, code by code"),
            Part("training", "minimp.frameworks.training.torch_training", ("torch",),
                 "100 steps of four networks in three formats"),
        ),
        {"torch": "2.13.0"},
    ),
    Suite(
        "jax", 'pip install "minimp[jax]"', ("jax", "jmp", "flax"),
        (
            Part("scalers", "minimp.frameworks.scalers.jax_scalers", ("jax", "jmp", "flax"),
                 "the loss scales of jmp and Flax"),
        ),
        {"jmp": "0.0.4", "flax": "0.12.8"},
    ),
    Suite(
        "keras", 'pip install "minimp[keras]"', ("keras", "jax"),
        (
            Part("scaler", "minimp.frameworks.scalers.keras_scaler", ("keras",),
                 "the loss scale of LossScaleOptimizer"),
        ),
    ),
    Suite(
        "onnx", 'pip install "minimp[onnx]"', ("onnx",),
        (
            Part("integers", "minimp.frameworks.integers.onnx_integers", ("onnx",),
                 "quantised numbers and integer layers, code by code"),
        ),
        {"onnx": "1.23.2"},
    ),
)  # fmt: skip
"""The suites by framework."""


def sections_of(suite: Suite, only: tuple[str, ...] = ()) -> tuple[Part, ...]:
    """Return the parts of a suite, all or those named.

    Raises:
        SettingError: an unknown part; or what the chosen ones need is not installed.
    """
    known = [part.name for part in suite.parts]
    for name in only:
        if name not in known:
            raise SettingError(unknown_name(f"section of the comparison with {suite.name}", name, known))
    chosen = tuple(part for part in suite.parts if not only or part.name in only)
    missing = sorted({need for part in chosen for need in part.needs if find_spec(need) is None})
    if missing:
        raise SettingError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed; "
            f"install with: {suite.install}"
        )
    return chosen


def run_suite(
    suite: Suite, only: tuple[str, ...] = (), *, seed: int = 0, begin: Callable[[str], None] | None = None
) -> Comparison:
    """Run a suite and return what it found.

    Args:
        suite: a row of :data:`SUITES`.
        only: names of sections to run; none: all.
        seed: of the random inputs, scaler traces and the training run.
        begin: called with the name of each section before it runs.

    Raises:
        SettingError: as :func:`sections_of`; or the seed is negative.
    """
    if seed < 0:
        raise SettingError(f"seed: expected a whole number of at least 0, got {seed}", op="run_suite")
    start = time.perf_counter()
    sections = tuple(_run(part, seed, begin) for part in sections_of(suite, only))
    return Comparison(
        suite.name, dict(_versions(suite)), _machine(), sections, time.perf_counter() - start, suite.seen_with
    )  # fmt: skip


def _run(part: Part, seed: int, begin: Callable[[str], None] | None) -> Section:
    if begin is not None:
        begin(part.name)
    start = time.perf_counter()
    found: Section = import_module(part.module).compare(seed)
    return replace(found, seconds=time.perf_counter() - start)


def _versions(suite: Suite) -> Iterator[tuple[str, str]]:
    yield "minimp", import_module("minimp").__version__
    for name in (*suite.packages, "numpy"):
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "not installed"
    yield "python", platform.python_version()


def _machine() -> str:
    facts = describe_machine()
    return f"{facts['processor']}, {facts['system']}"
