"""The suite's own rules; oracle: pytest run on planted tests with a copy of tests/conftest.py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minimp

TESTS = Path(__file__).parent
PLANTED = """
import os, warnings
from dataclasses import replace
import numpy as np
import pytest
from hypothesis import given, strategies as st
from minimp.modes import MODES, no_grad

def test_leaks_modes():
    MODES.set(replace(MODES.get(), grad_enabled=False))

def test_next_one_starts_clean():
    assert MODES.get().grad_enabled
    assert os.environ["OPENBLAS_NUM_THREADS"] == "1"

def test_scope_is_no_leak():
    with no_grad():
        pass

def test_leaks_errstate():
    np.seterr(over="ignore")

def test_leaks_legacy_random():
    np.random.seed(0)

def test_leaks_environment():
    os.environ["MINIMP_DEBUG"] = "2"

def test_own_environment_is_no_leak(monkeypatch):
    monkeypatch.setenv("MINIMP_DEBUG", "2")

def test_warning_is_an_error():
    warnings.warn("planted", DeprecationWarning)

SEEN = []

@given(st.integers())
def test_examples(value):
    SEEN.append(value)

def test_examples_are_the_same_each_time():
    print("EXAMPLES", hash(tuple(SEEN)))

@pytest.mark.torch
def test_parity():
    pass
"""
NO_TORCH = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "torch" else found(name, package)
"""


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Return a folder with the suite's configuration and one file of planted tests."""
    (tmp_path / "tests").mkdir()
    for name in ("__init__.py", "conftest.py"):
        shutil.copy(TESTS / name, tmp_path / "tests")
    shutil.copy(TESTS.parent / "pyproject.toml", tmp_path)
    (tmp_path / "tests" / "test_planted.py").write_text(PLANTED)
    (tmp_path / "no_torch.py").write_text(NO_TORCH)
    return tmp_path


def run_pytest(suite: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in the folder; it finds the packages that this run finds."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "MINIMP"))
    }
    environment["PYTHONPATH"] = os.pathsep.join([str(suite), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=suite,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_leaks_and_warnings_fail_the_test_that_makes_them(suite: Path) -> None:
    """Oracle: the planted tests: four leak, one warns, the others keep the rules."""
    out = run_pytest(suite).stdout
    assert re.findall(r"^ERROR tests/test_planted.py::(\w+)", out, re.MULTILINE) == [
        "test_leaks_modes",
        "test_leaks_errstate",
        "test_leaks_legacy_random",
        "test_leaks_environment",
    ]
    assert re.findall(r"^FAILED tests/test_planted.py::(\w+)", out, re.MULTILINE) == [
        "test_warning_is_an_error"
    ]
    assert "this test leaks global state\n  the record of modes in force" in out
    assert "BLAS threads: 1" in out


def test_hypothesis_tries_the_same_examples(suite: Path) -> None:
    """Oracle: two runs print one hash of their examples (hash of ints, so no salt)."""
    runs = [run_pytest(suite, "-s", "-k", "examples").stdout for _ in range(2)]
    hashes = [re.findall(r"EXAMPLES (-?\d+)", out) for out in runs]
    assert hashes[0] == hashes[1]
    assert len(hashes[0]) == 1


def test_missing_torch_is_said(suite: Path) -> None:
    """Oracle: a run that cannot find torch: the marked test skips, the summary names what is missing."""
    out = run_pytest(suite, "-p", "no_torch", "-k", "parity").stdout
    assert "NOT RUN: 1 tests or modules that compare with torch (pip install torch==2.13.0)" in out
    assert "1 skipped" in out


def test_no_skip_turns_skips_into_failures(suite: Path) -> None:
    """Oracle: a marked test and a module that skip without torch must fail; an expected failure must not."""
    (suite / "tests" / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_library')")
    (suite / "tests" / "test_expected.py").write_text(
        "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_expected():\n    raise ValueError"
    )
    options = ("-p", "no_torch", "-k", "parity or expected", "--no-skip")
    assert (
        "would be skipped: Skipped: could not import 'no_such_library'" in run_pytest(suite, *options).stdout
    )
    out = run_pytest(suite, *options, "--ignore=tests/test_module.py").stdout
    assert "would be skipped: Skipped: needs torch==2.13.0" in out
    assert re.search(r"1 xfailed, 1 error", out)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--backend", "numpi"], "--backend numpi: it does not exist; use one of: numpy, strict, cupy"),
        (["--installed"], "--installed: minimp would be imported from"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(suite: Path, options: list[str], message: str) -> None:
    """Oracle: pytest's exit code 4, a usage error; under --installed a package lies beside the tests."""
    if options == ["--installed"]:
        shutil.copytree(Path(minimp.__file__).parent, suite / "minimp")
    done = run_pytest(suite, *options)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert message in done.stderr


ENGINE_TEST = """
import pytest
import minimp as mp

def test_where_tensors_are():
    print("TENSORS ON", mp.tensor([1.0]).backend.name)

@pytest.mark.host("planted")
def test_of_numpys_arrays():
    assert mp.tensor([1.0]).backend.name == "numpy"
"""


def test_another_backend_runs_the_engines_tests_alone(suite: Path) -> None:
    """Oracle: a planted test in a folder of the engine, one marked `host`, and the planted ones outside."""
    (suite / "tests" / "ops").mkdir()
    (suite / "tests" / "ops" / "test_engine.py").write_text(ENGINE_TEST)
    out = run_pytest(suite, "-s", "--backend", "strict").stdout
    assert "TENSORS ON strict" in out
    assert "1 passed, 1 deselected" in out
    assert "NOT RUN on strict: 1 of the engine's tests, and all others" in out
    assert "2 passed" in run_pytest(suite, "tests/ops").stdout


def test_a_backend_that_cannot_run_skips_everything_and_says_why(suite: Path) -> None:
    """Oracle: as before, with a backend whose library is not there."""
    (suite / "tests" / "ops").mkdir()
    (suite / "tests" / "ops" / "test_engine.py").write_text(ENGINE_TEST)
    (suite / "no_torch.py").write_text("import sys; sys.modules['cupy'] = None")
    out = run_pytest(suite, "-p", "no_torch", "--backend", "cupy").stdout
    assert "1 skipped, 1 deselected" in out
    assert "NOT RUN on cupy: the cupy backend cannot run here" in out
