"""`minimp range`; oracles: the library beneath it, files that NumPy and safetensors wrote, counting."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from minimp.checkpoint import save
from minimp.cli import main
from minimp.formats import FORMATS, decode
from minimp.formats.pictures.losses import FATES, losses
from minimp.formats.pictures.number_line import number_line, outline

Capture = pytest.CaptureFixture[str]
DEFAULT = ["float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]


def said(capsys: Capture, *arguments: str) -> str:
    """Run `minimp range`, which must succeed, and return what it prints."""
    capsys.readouterr()
    assert main(["range", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def refused(capsys: Capture, *arguments: str) -> str:
    """Run `minimp range`, which must fail with nothing on stdout, and return its message."""
    assert main(["range", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


@pytest.fixture
def weights(tmp_path: Path) -> tuple[str, np.ndarray]:
    """Write eight numbers to a file."""
    x = np.array([[0.0005, 0.0021, 0.01, 0.1], [1, 0.5, 0, 500]], np.float32)
    np.save(tmp_path / "w.npy", x)
    return str(tmp_path / "w.npy"), x


# ---- what it prints ----------------------------------------------------------------------------------------


def test_the_formats_alone(capsys: Capture) -> None:
    """Oracle: the library's drawing; by default float16, bfloat16 and the two OCP float8 formats."""
    assert said(capsys) == f"{number_line(DEFAULT, width=100).text(ascii_only=False)}\n"
    assert said(capsys, "fp4,fp16", "fp4", "--linear") == (
        f"{number_line(['fp4', 'fp16'], scale='linear', width=100).text(ascii_only=False)}\n"
    )
    assert said(capsys, "--quiet") == "".join(f"{name}: {outline(name)}\n" for name in DEFAULT)


TABLE = """\
what x would lose   exact  rounded  flushed  beyond  subnormal      SQNR   worst  binades
float16              50 %     50 %      0 %     0 %        0 %  146.2 dB  0.0004     7/40
float8_e4m3fn      37.5 %   37.5 %   12.5 %  12.5 %       25 %   -inf dB     inf     5/18
exact: stored as it is. subnormal: among the exact and the rounded. SQNR: the power of x over that
of the errors. worst: the largest relative error. binades: those of the format that hold a stored
number.

float16 keeps every number in its normal range
float8_e4m3fn puts 12.5 % beyond its range, flushes 12.5 % to zero and makes 25 % subnormal; scaled
  by 2^-1 it flushes 12.5 % to zero and makes 25 % subnormal
"""


def test_what_a_tensor_would_lose(capsys: Capture, weights: tuple[str, np.ndarray]) -> None:
    """Oracle: by hand: e4m3fn ends at 448 and flushes up to 2^-10; its subnormals lie below 2^-6 = 0.0156."""
    path, x = weights
    screen = said(capsys, "fp16", "e4m3fn", "--data", path)
    head, drawing, table = screen.partition(
        number_line(["fp16", "e4m3fn"], x, width=100).text(ascii_only=False)
    )
    assert head == f"x = {path}: float32 (2, 4)\n\n"
    assert drawing
    assert re.sub(" +\n", "\n", table.lstrip("\n")) == TABLE
    quiet = said(capsys, "fp16", "e4m3fn", "--data", path, "--quiet").splitlines()
    assert quiet == [losses(x, name).advice for name in ("fp16", "e4m3fn")]


def test_any_screen_fits_100_columns(
    capsys: Capture, weights: tuple[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the longest line, over all formats; and in a narrower terminal, down to 60 columns."""
    path, _ = weights
    for columns in (None, 70, 40):
        if columns:
            monkeypatch.setenv("COLUMNS", str(columns))
        for options in (["--data", path], [], ["--linear"], ["--linear", "--data", path]):
            screen = said(capsys, *FORMATS, *options)
            drawing = (
                screen.partition("what x would lose")[0].partition("\n\n")[2]
                if "--data" in options
                else screen
            )
            assert max(map(len, drawing.splitlines())) <= max(columns or 100, 60)
            assert max(map(len, screen.splitlines())) <= 105


def test_json(capsys: Capture, weights: tuple[str, np.ndarray]) -> None:
    """Oracle: the library's records; every value of a small format counted."""
    path, x = weights
    found = json.loads(said(capsys, "e4m3fn", "fp16", "--data", path, "--json"))
    assert found["data"] | {"binades": None} == {
        "file": path, "dtype": "float32", "shape": [2, 4], "count": 8, "smallest": float(x[0, 0]),
        "largest": 500.0, "zeros": 1, "infinite": 0, "nan": 0, "binades": None,
    }  # fmt: skip
    assert found["data"]["binades"] == {"-11": 1, "-9": 1, "-7": 1, "-4": 1, "-1": 1, "0": 1, "8": 1}
    entry = found["formats"][0]
    values = decode(np.arange(256), "e4m3fn")
    assert sum(entry["values_in_binades"].values()) == np.count_nonzero(values > 0)
    assert (entry["format"], entry["max"], entry["smallest"]) == ("float8_e4m3fn", 448.0, 2.0**-9)
    expected = losses(x, "e4m3fn")
    lost = entry["losses"]
    for record, shown in ((expected, lost), (expected.at_best, lost["at_best"])):
        assert record is not None
        assert {name: shown[name] for name in FATES} == {name: getattr(record, name) for name in FATES}
        assert shown["scale_exponent"] == record.exponent
    assert (lost["sqnr_db"], lost["advice"]) == ("-inf", expected.advice)
    bare = json.loads(said(capsys, "fp4", "--json"))
    assert list(bare) == ["formats"]
    assert "losses" not in bare["formats"][0]


# ---- the ways in -------------------------------------------------------------------------------------------


def test_files_of_all_kinds(capsys: Capture, tmp_path: Path) -> None:
    """Oracle: the library on the array that was written."""
    x = np.linspace(-3, 3, 24).reshape(2, 3, 4)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(x, dtype=">f4"))
    np.savez(tmp_path / "several.npz", first=x, second=np.arange(5))
    np.savez_compressed(tmp_path / "one:only.npz", x=x)
    save(tmp_path / "own.safetensors", {"model": {"w": x, "b": [x.astype(ml_dtypes.bfloat16)]}, "step": 3})
    (tmp_path / "plain.npy").write_bytes((tmp_path / "fortran.npy").read_bytes())
    expected = f"{losses(x.astype(np.float32), 'fp16').advice}\n"
    for name in (
        "fortran.npy",
        "several.npz:first",
        "one:only.npz",
        "one:only.npz:x",
        "own.safetensors:model/w",
    ):
        assert said(capsys, "fp16", "--quiet", "--data", str(tmp_path / name)) == expected
    for name, exact in (("several.npz:second", 5), ("own.safetensors:model/b/0", 24)):
        found = json.loads(said(capsys, "bf16", "--json", "--data", str(tmp_path / name)))
        assert found["formats"][0]["losses"]["exact"] + found["formats"][0]["losses"]["zeros"] == exact


def test_pictures(capsys: Capture, weights: tuple[str, np.ndarray], tmp_path: Path) -> None:
    """Oracle: the first bytes of such files; figures differ where the options do, and not else."""
    pytest.importorskip("matplotlib")
    options = ([], ["--linear"], ["--errors"], ["--data", weights[0]])
    files = []
    for at, chosen in enumerate(options):
        path = tmp_path / f"{at}.svg"
        said(capsys, "e4m3fn", "fp4", *chosen, "--quiet", "--svg", str(path))
        files.append(path.read_bytes())
    assert all(each.startswith(b"<?xml") for each in files)
    assert len(set(files)) == 4
    said(
        capsys, "e4m3fn", "fp4", "--json", "--svg", str(tmp_path / "0.svg"), "--png", str(tmp_path / "a.png")
    )
    assert (tmp_path / "0.svg").read_bytes() == files[0]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


# ---- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fp17"], "unknown number format 'fp17'; did you mean"),
        (["--json", "--quiet"], "--quiet cannot act beside --json"),
        (["--errors"], "--errors cannot act without --svg or --png"),
        (["--errors", "--png", "a.png", "--linear"], "--linear cannot act beside --errors"),
        (["--errors", "--png", "a.png", "--data", "x"], "--data cannot act beside --errors"),
        (["--linear", "--json"], "--linear cannot act on --json and --quiet"),
        (["--dtaa", "x"], "unknown option '--dtaa'; did you mean '--data'?"),
        ([","], "expected a format"),
    ],
)
def test_options_that_cannot_act(arguments: list[str], said: str, capsys: Capture) -> None:
    """Oracle: one clear error each, and nothing is written."""
    assert said in refused(capsys, *arguments)
    assert not Path("a.png").exists()


def test_pictures_that_cannot_be_written(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the message comes before the work; without matplotlib it names the remedy."""
    pytest.importorskip("matplotlib")
    found = refused(
        capsys, "fp16", "--data", str(tmp_path / "x.npy"), "--png", str(tmp_path / "no" / "a.png")
    )
    assert "its folder does not exist" in found
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert 'pip install "minimp[plot]"' in refused(capsys, "fp16", "--svg", str(tmp_path / "a.svg"))
    assert list(tmp_path.iterdir()) == []


def bad_files(folder: Path) -> dict[str, Any]:
    """Write files of which none can be used; return argument -> what is said of it."""
    good = np.arange(64.0)
    np.save(folder / "good.npy", good)
    raw = (folder / "good.npy").read_bytes()
    np.savez(folder / "good.npz", a=good, b=good[:0], c=good * np.nan, d=np.array(["x"]))
    np.savez(folder / "none.npz")
    np.save(folder / "objects.npy", np.array([{}, None]), allow_pickle=True)
    np.save(folder / "lost.npy", good.astype(ml_dtypes.bfloat16))
    np.save(folder / "complex.npy", good * 1j)
    save(folder / "good.safetensors", {"x": good})
    sealed = bytearray((folder / "good.safetensors").read_bytes())
    sealed[-1] ^= 1
    zipped = bytearray((folder / "good.npz").read_bytes())
    zipped[200] ^= 1
    for name, content in {
        "short.npy": raw[:-1], "long.npy": raw + b"\0", "head.npy": raw[:20],
        "version.npy": raw[:6] + b"\x07" + raw[7:], "huge.npy": raw.replace(b"(64,)", b"(9**99,)"),
        "large.npy": raw.replace(b"(64,), ", b"(9999999999,), "), "text.npy": b"1 2 3\n", "empty.npy": b"",
        "torn.npz": bytes(zipped[:300]), "flipped.npz": bytes(zipped), "torn.safetensors": bytes(sealed[:40]),
        "flipped.safetensors": bytes(sealed), "pickle.pt": b"\x80\x02}q\x00.",
    }.items():  # fmt: skip
        (folder / name).write_bytes(content)
    return {
        "missing.npy": "there is no such file", "missing.npz:a": "missing.npz: there is no such file",
        ".": "it is a folder", "good.npy:a": "holds a single array, without a name",
        "good.npz": "holds several arrays: a, b, c, d",
        "good.npz:aa": "unknown array 'aa'; did you mean 'a'?",
        "good.npz:b": "is empty: its shape is (0,)", "none.npz": "holds no arrays",
        "good.npz:c": "holds no finite number: 64 of 64 are NaN, 0 infinite",
        "good.npz:d": "expected real numbers of at most 64 bits, got <U1",
        "good.safetensors:y": "unknown array 'y'", "objects.npy": "holds Python objects",
        "lost.npy": "do not keep the name of a bfloat16 or float8 type",
        "complex.npy": "expected real numbers of at most 64 bits, got complex128",
        "short.npy": "its header tells of 512 bytes of numbers, and there are 511",
        "long.npy": "and there are 513", "head.npy": "is damaged", "version.npy": "is damaged",
        "huge.npy": "is damaged", "large.npy": "its header tells of 79999999992 bytes",
        "text.npy": "is no .npy, .npz or .safetensors file",
        "empty.npy": "is no .npy, .npz or .safetensors file",
        "torn.npz": "is damaged", "flipped.npz:a": "is damaged", "torn.safetensors": "torn.safetensors",
        "flipped.safetensors": "SHA-256 differs", "pickle.pt": "is no .npy, .npz or .safetensors file",
    }  # fmt: skip


def test_files_that_cannot_be_used(capsys: Capture, tmp_path: Path) -> None:
    """Oracle: the list of ways to go wrong; one clear error each, which names the file."""
    for name, expected in bad_files(tmp_path).items():
        found = refused(capsys, "fp16", "--data", str(tmp_path / name))
        assert expected in found
        if "expected real numbers" not in expected and name != ".":
            assert name.partition(":")[0] in found


def test_damage_of_any_byte_is_an_error_or_another_number(capsys: Capture, tmp_path: Path) -> None:
    """Oracle: the exit codes: whatever byte of a header is changed, there is no traceback."""
    np.save(tmp_path / "x.npy", np.arange(4.0))
    np.savez(tmp_path / "x.npz", x=np.arange(4.0))
    for name, span in (("x.npy", range(128)), ("x.npz", range(60))):
        raw = (tmp_path / name).read_bytes()
        for at in span:
            for flip in (1, 0x80):
                (tmp_path / name).write_bytes(raw[:at] + bytes([raw[at] ^ flip]) + raw[at + 1 :])
                assert main(["range", "fp16", "--quiet", "--data", str(tmp_path / name)]) in (0, 2)
                assert "Traceback" not in capsys.readouterr().err
