"""What every test runs under: one BLAS thread, fixed hypothesis profiles, visible skips, no leaked state."""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import os
import platform
import sys
import sysconfig
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

NUMPY_CAME_FIRST = "numpy" in sys.modules
BLAS_THREADS = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
for _variable in BLAS_THREADS:  # read by BLAS when NumPy loads it: before the imports below
    os.environ[_variable] = "1"

import hypothesis  # noqa: E402 - the threads are pinned first
import numpy as np  # noqa: E402 - the threads are pinned first
import pytest  # noqa: E402 - the threads are pinned first

from minimp.backend import MADE, get_backend, use_backend  # noqa: E402 - the threads are pinned first
from minimp.door import OPS, Op  # noqa: E402 - the threads are pinned first
from minimp.errors import DeviceError  # noqa: E402 - the threads are pinned first
from minimp.modes import MODES  # noqa: E402 - the threads are pinned first
from minimp.rng import manual_seed  # noqa: E402 - the threads are pinned first

STAND_IN = "cupy-on-strict"
BACKENDS = ("numpy", "strict", STAND_IN, "cupy")
ENGINE = frozenset(
    {"ops", "nn", "optim", "scaler", "step", "policy", "higher", "checks", "fp8", "trainer", "gpu"}
    | {"test_tensors.py", "test_recompute.py"}
)
"""What in tests/ is about the engine, and runs on every backend; the rest is about NumPy's arrays."""
WHY_NOT = pytest.StashKey[str]()
LEFT_OUT = pytest.StashKey[int]()
NO_GPU = pytest.StashKey[str]()
RECORDED = Path(__file__).parent / "gpu" / "recorded"
TORCH_VERSION = "2.13.0"
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
HAS_TORCH = importlib.util.find_spec("torch") is not None

# Both profiles try the same examples on every run; CI tries more of them.
hypothesis.settings.register_profile(
    "default", derandomize=True, deadline=None, max_examples=40, database=None
)
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=150, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of this suite."""
    group = parser.getgroup("minimp")
    group.addoption(
        "--backend",
        default="numpy",
        metavar="NAME",
        help=f"backend under test: {', '.join(BACKENDS)}; on another than numpy, the engine's tests alone",
    )
    group.addoption(
        "--installed", action="store_true", help="fail unless minimp is imported from site-packages"
    )
    group.addoption("--record", metavar="DIR", help="where tests on a GPU leave what it computed")
    group.addoption("--no-skip", action="store_true", help="a test that would be skipped fails instead")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse options that cannot be honoured; make new tensors on the backend under test."""
    config.addinivalue_line(
        "markers", "host(reason): not for backends other than numpy: it is about NumPy's arrays themselves"
    )
    backend = config.getoption("--backend")
    if backend not in BACKENDS:
        raise pytest.UsageError(f"--backend {backend}: it does not exist; use one of: {', '.join(BACKENDS)}")
    if backend != "numpy":
        try:
            use_backend(_made(backend))  # before tests are collected: their modules may make tensors
        except DeviceError as fault:
            config.stash[WHY_NOT] = f"the {backend} backend cannot run here: {fault}"
    if config.getoption("--installed"):
        _refuse_unless_installed()


def _made(option: str) -> str:
    """Return the backend that an option means; the stand-in for a GPU takes the place of the cupy backend."""
    if option != STAND_IN:
        return option
    from tests.backends.cupy_on_strict import (
        CupyOnStrict,
    )  # only where it is asked for: it loads cuBLAS's plans

    MADE["cupy"] = CupyOnStrict()
    return "cupy"


def _refuse_unless_installed() -> None:
    """Raise a usage error unless both packages come from this interpreter's site-packages."""
    site = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    for name in ("minimp", "minimp_backends"):
        found = importlib.util.find_spec(name)
        where = Path(found.origin).resolve() if found and found.origin else None
        if where is None or not site.intersection(where.parents):
            raise pytest.UsageError(
                f"--installed: {name} would be imported from {where}, not from site-packages"
            )


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what is under test, and what is missing."""
    parts = [f"{name} {_version(name)}" for name in ("numpy", "ml_dtypes", "torch", "numkong")]
    threads = "not pinned (numpy was loaded before the tests)" if NUMPY_CAME_FIRST else "1"
    import minimp  # the package under test; not at the top, so that --installed can speak first

    return [
        f"minimp: {next(iter(minimp.__path__))}, backend {config.getoption('--backend')}",
        f"with: {', '.join(parts)}; BLAS threads: {threads}; {platform.machine()}",
    ]


def _version(distribution: str) -> str:
    """Return the installed version of a distribution, or "absent"."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


# --- the garbage collector: tens of thousands of tests stay to the end, and need not be walked through -----


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while tests are gathered, and never look at them again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


# --- other backends: the engine's tests run on them, the rest is left out -----------------------------------


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out what is not about the engine, where another backend than numpy is under test."""
    here = Path(__file__).parent
    if config.getoption("--backend") == "numpy" or not collection_path.is_relative_to(here):
        return None
    inside = collection_path.relative_to(here).parts
    return True if inside and inside[0] not in ENGINE else None


def _only_what_a_device_runs(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop what is marked `host`, and skip the rest where the backend cannot run."""
    left_out = [item for item in items if item.get_closest_marker("host")]
    items[:] = [item for item in items if not item.get_closest_marker("host")]
    config.hook.pytest_deselected(items=left_out)
    config.stash[LEFT_OUT] = len(left_out)
    reason = config.stash.get(WHY_NOT, None)
    for item in items if reason else ():
        item.add_marker(pytest.mark.skip(reason=reason))


# --- a GPU: where there is none, what is marked `gpu` is left out, and the summary says so ------------------


def _without_a_gpu(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop what is marked `gpu` where the cupy backend cannot run."""
    asked = [item for item in items if item.get_closest_marker("gpu")]
    if not asked:
        return
    reason = "the cupy backend runs on a stand-in"
    if config.getoption("--backend") != STAND_IN:
        try:
            get_backend("cupy")
        except DeviceError as fault:
            reason = str(fault).splitlines()[0]
        else:
            return
    items[:] = [item for item in items if not item.get_closest_marker("gpu")]
    config.hook.pytest_deselected(items=asked)
    config.stash[NO_GPU] = f"{len(asked)} tests that need a GPU: {reason}"


def _say_what_needs_a_gpu(terminalreporter: Any, config: pytest.Config) -> None:
    """Name the tests that had no GPU, and recordings of one if there are none yet to replay."""
    reason = config.stash.get(NO_GPU, None)
    if reason is None:
        return
    terminalreporter.write_line(f"NOT RUN: {reason}", yellow=True)
    if not any(RECORDED.glob("*/manifest.json")):
        terminalreporter.write_line(
            "NOT REPLAYED: nothing was recorded on a GPU yet; on a machine that has one, it is with pytest "
            "--backend cupy --record tests/gpu/recorded/NAME tests/gpu",
            yellow=True,
        )


# --- torch: parity tests skip where it is missing, and the summary says so ---------------------------------


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked `torch` where torch is missing; on another backend than numpy, leave `host` out."""
    if config.getoption("--backend") != "numpy":
        _only_what_a_device_runs(config, items)
    if config.getoption("--backend") != "cupy":
        _without_a_gpu(config, items)
    if HAS_TORCH:
        return
    for item in items:
        if item.get_closest_marker("torch"):
            item.add_marker(pytest.mark.skip(reason=f"needs torch=={TORCH_VERSION}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure under --no-skip."""
    return _refuse_skip((yield), item.config)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a whole module into a failure under --no-skip."""
    return _refuse_skip((yield), collector.config)


def _refuse_skip(report: Report, config: pytest.Config) -> Report:
    if config.getoption("--no-skip") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"--no-skip: this would be skipped: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name what was not run: for want of torch, or because it is about NumPy alone."""
    config = terminalreporter.config
    backend, reason = config.getoption("--backend"), config.stash.get(WHY_NOT, None)
    if backend != "numpy":
        about = (
            f"{config.stash.get(LEFT_OUT, 0)} of the engine's tests, and all others, are about NumPy alone"
        )
        terminalreporter.write_line(f"NOT RUN on {backend}: {reason or about}", yellow=True)
    _say_what_needs_a_gpu(terminalreporter, config)
    if HAS_TORCH:
        return
    skipped = terminalreporter.stats.get("skipped", [])
    count = sum("torch" in str(report.longrepr) for report in skipped)
    terminalreporter.write_line(
        f"NOT RUN: {count} tests or modules that compare with torch (pip install torch=={TORCH_VERSION})",
        yellow=True,
    )


# --- global state: a test that leaks it fails, and the next one starts clean -------------------------------


@dataclass(frozen=True, slots=True)
class Watched:
    """One piece of global state: how to read it, compare it and put it back."""

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], object]
    same: Callable[[Any, Any], bool]


def _read_minimp_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("MINIMP_")}


def _restore_minimp_variables(before: dict[str, str]) -> None:
    for name in _read_minimp_variables():
        del os.environ[name]
    os.environ.update(before)


def _restore_ops(before: dict[str, Op]) -> None:
    OPS.clear()
    OPS.update(before)


def _same_legacy_state(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    return before[2:] == after[2:] and np.array_equal(before[1], after[1])


WATCHED = (
    Watched(
        "the record of modes in force (minimp.modes.MODES)",
        MODES.get,
        MODES.set,
        lambda a, b: a is b or a == b,
    ),
    Watched("the table of operations (mp.OPS)", lambda: dict(OPS), _restore_ops, lambda a, b: a == b),
    Watched("np.errstate", np.geterr, lambda before: np.seterr(**before), lambda a, b: a == b),
    Watched(
        "the legacy np.random state (use np.random.default_rng)",
        np.random.get_state,
        np.random.set_state,
        _same_legacy_state,
    ),
    Watched(
        "MINIMP_* environment variables",
        _read_minimp_variables,
        _restore_minimp_variables,
        lambda a, b: a == b,
    ),
)


@pytest.fixture(autouse=True)
def _no_leaked_state() -> Iterator[None]:
    """Fail a test that leaves global state changed, naming what; put it back for the next test.

    The engine's own random numbers start anew for each test, so that none depends on those before it.
    """
    manual_seed(0)
    before = [each.read() for each in WATCHED]
    yield
    leaked = []
    for each, was in zip(WATCHED, before, strict=True):
        now = each.read()
        if not each.same(was, now):
            each.restore(was)
            leaked.append(f"{each.name}: was {_short(was)}, now {_short(now)}")
    if leaked:
        pytest.fail("this test leaks global state\n  " + "\n  ".join(leaked), pytrace=False)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator with a fixed seed, new for each test."""
    return np.random.default_rng(20180215)
