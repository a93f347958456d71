"""Rules of the house that no linter here has; oracle: the text of the sources."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import minimp
import minimp_backends

MOST_LINES_OF_A_FILE = 400
MOST_LINES_OF_A_FUNCTION = 40
HERE = Path(__file__).parents[1]
PACKAGES = [Path(package.__file__).parent for package in (minimp, minimp_backends)]
LABS = "tutorials"
"""Inside the package where it is installed, beside it in a checkout."""
FOLDERS = [*PACKAGES, *(path for path in (PACKAGES[0].parent / LABS,) if path.is_dir())]
SOURCES = sorted(path for root in FOLDERS for path in root.rglob("*.py"))
TESTS = sorted(HERE.rglob("*.py"))

# Tests are not type-checked, so that a `type: ignore` there is only a word to the reader's editor.
EXEMPTION = re.compile(r"#\s*(noqa|type:\s*ignore|pragma|pyright:\s*ignore|fmt:\s*off)")
WITH_REASON = re.compile(
    r"#\s*(noqa:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*\s+-\s+\S.*"
    r"|type:\s*ignore\[[a-z, -]+\]\s+#\s*(noqa:.*|\S.*\S)"
    r"|(pragma|pyright:\s*ignore|fmt:\s*off)\b.*\s-\s+\S.*)"
)


def name_of(path: Path) -> str:
    """Return the path from the folder that holds the package."""
    roots = [*(root.parent for root in PACKAGES), HERE.parent]
    return next(str(path.relative_to(root)) for root in roots if path.is_relative_to(root))


def comments(path: Path) -> list[tuple[int, str]]:
    """Return (line, text) of each comment of a file, strings left out."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]


def bare_exemptions(path: Path) -> list[str]:
    """Return the exemptions of a file that give no reason, neither beside nor in a comment just above."""
    lines = path.read_text("utf-8").splitlines()
    found = [(line, text) for line, text in comments(path) if EXEMPTION.search(text)]
    bare = [(line, text) for line, text in found if not WITH_REASON.search(text)]
    return [
        f"{name_of(path)}:{line}: {text}"
        for line, text in bare
        if line < 2 or not lines[line - 2].lstrip().startswith("#")
    ]


def long_functions(source: str) -> list[tuple[str, int]]:
    """Return (name, lines of code) of each function that is too long; its docstring does not count."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = (
                node.body[1] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body[0]
            )
            lines = (node.end_lineno or 0) - first.lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                found.append((node.name, lines))
    return found


def test_every_exemption_has_a_reason() -> None:
    """Oracle: `# noqa: CODE - reason` or `# type: ignore[code]  # reason`, in packages and tests."""
    bare = [each for path in SOURCES for each in bare_exemptions(path)]
    bare += [each for path in TESTS for each in bare_exemptions(path) if "type:" not in each]
    assert bare == []


@pytest.mark.parametrize(
    ("comment", "bare"),
    [
        ("# noqa: A002 - torch's name", False),
        ("# noqa: A002, N803 - torch's name", False),
        ("# type: ignore[arg-type]  # the fault under test", False),
        ("# noqa: A002", True),
        ("# noqa", True),
        ("# type: ignore[arg-type]", True),
        ("# pragma: no cover", True),
        ("\n# the fault under test\nz = 1  # type: ignore[arg-type]", False),
        ("\nz = 1  # type: ignore[arg-type]", True),
    ],
)
def test_the_reason_finder_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comment: str, bare: bool
) -> None:
    """Oracle: exemptions with and without a reason, by hand."""
    monkeypatch.setattr(f"{__name__}.HERE", tmp_path / "tests")
    path = tmp_path / "example.py"
    path.write_text(f"x = 1  {comment}\ny = '# noqa'\n")
    assert bool(bare_exemptions(path)) is bare


def test_files_and_functions_keep_their_size() -> None:
    """Oracle: the house's lengths; a longer one asks to be split along a seam.

    A lab and its checks are as long as its exercises are many, and are read one by one.
    """
    texts = {name_of(path): path.read_text("utf-8") for path in SOURCES}
    long_files = {
        name: text.count("\n")
        for name, text in texts.items()
        if text.count("\n") > MOST_LINES_OF_A_FILE and LABS not in Path(name).parts
    }
    assert long_files == {}
    assert {name: found for name, text in texts.items() if (found := long_functions(text))} == {}


def test_the_length_finder_finds() -> None:
    """Oracle: a function of 41 lines of code under a docstring, and one of 40."""
    body = "\n    x = 1"
    assert long_functions('def f():\n    """One."""' + body * 41) == [("f", 41)]
    assert long_functions('def f():\n    """One."""' + body * 40) == []
