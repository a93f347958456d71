"""What is shipped: types, data, version, script; and what an import costs."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import subprocess
import sys

import pytest

import minimp

RUN_TIME = {"numpy", "ml_dtypes", "rich", "safetensors"}
COME_WITH_RICH = {"markdown_it", "mdurl", "pygments"}
ON_DEMAND = {"minimp.stepper.screen": "textual", "minimp.stepper.answers": "textual"}
"""Modules whose classes are an optional library's own, so that they load with it or not at all."""
SUBPROCESS_PATH = f"import sys; sys.path[:] = {sys.path!r}\n"

REFUSE_OTHERS = """
import importlib.abc
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in ALLOWED:
            raise ModuleNotFoundError(f"{name} is not a run-time dependency", name=name)
sys.meta_path.insert(0, Refuse())
"""

IMPORT_EVERYTHING = """
import importlib, pkgutil, minimp, minimp_backends
count = 0
for package in (minimp, minimp_backends):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__") and found.name not in ON_DEMAND:
            importlib.import_module(found.name)
            count += 1
print(count)
"""


def run_python(code: str) -> str:
    """Run code in a new interpreter that finds what this one finds; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SUBPROCESS_PATH + code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("package", ["minimp", "minimp_backends"])
def test_types_are_shipped(package: str) -> None:
    """Oracle: PEP 561, an empty py.typed marks a typed package."""
    assert (importlib.resources.files(package) / "py.typed").is_file()


def test_version_is_the_distributions() -> None:
    """Oracle: the metadata of the installed distribution."""
    try:
        installed = importlib.metadata.version("minimp")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(
            "minimp is imported from a checkout and not installed, so there is no metadata to compare"
        )
    assert minimp.__version__ == installed


def test_import_brings_in_no_heavy_library() -> None:
    """Oracle: sys.modules of a new interpreter: NumPy and the formats, nothing to draw or to train with."""
    listed = run_python("import minimp\nprint(*{name.partition('.')[0] for name in sys.modules})")
    third_party = set(listed.split()) - sys.stdlib_module_names - {"minimp", "minimp_backends", "__main__"}
    third_party = {
        name for name in third_party if not name.startswith(("_", "cython_runtime", "sitecustomize"))
    }
    assert third_party <= {"numpy", "ml_dtypes", "safetensors"}


def test_every_module_imports_with_the_run_time_dependencies_alone() -> None:
    """Oracle: an interpreter that refuses to import anything but the four of pyproject.toml."""
    allowed = sys.stdlib_module_names | RUN_TIME | COME_WITH_RICH | {"minimp", "minimp_backends"}
    start = f"ALLOWED, ON_DEMAND = {set(allowed)!r}, {ON_DEMAND!r}\n{REFUSE_OTHERS}"
    assert int(run_python(start + IMPORT_EVERYTHING)) > 20
    for module, library in ON_DEMAND.items():
        with pytest.raises(AssertionError, match=f"{library} is not a run-time dependency"):
            run_python(f"{start}import {module}")


def test_the_refusal_refuses() -> None:
    """Oracle: a library that is installed here, pytest, is not among the four."""
    allowed = set(sys.stdlib_module_names) | RUN_TIME
    with pytest.raises(AssertionError, match="pytest is not a run-time dependency"):
        run_python(f"ALLOWED = {allowed!r}\n{REFUSE_OTHERS}import pytest")


def test_the_command_line_is_installed() -> None:
    """Oracle: the console script of the distribution leads to minimp.cli.main."""
    scripts = importlib.metadata.entry_points(group="console_scripts", name="minimp")
    if not scripts:
        pytest.skip("minimp is imported from a checkout and not installed, so it has no script")
    (script,) = {(each.name, each.value) for each in scripts}
    assert script == ("minimp", "minimp.cli:main")
    assert callable(importlib.metadata.EntryPoint(*script, "console_scripts").load())


def test_run_time_dependencies_are_four_with_lower_bounds_only() -> None:
    """Oracle: the house plan's list; nothing is pinned from above."""
    try:
        requires = importlib.metadata.requires("minimp") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("minimp is imported from a checkout and not installed, so there is no metadata to read")
    bare = [each.replace("-", "_") for each in requires if "extra ==" not in each]
    assert {each.partition(">=")[0] for each in bare} == RUN_TIME
    assert not [each for each in bare if any(sign in each for sign in ("==", "<", "~=", "!="))]
