"""The section on integers; oracles: the installed torch, FBGEMM kept from VNNI, planted faults."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minimp.backend import default_backend
from minimp.cli import main
from minimp.frameworks.documented.integers import INTEGER_DIFFERENCES
from minimp.frameworks.integers import engines, torch_engines, torch_integers
from minimp.frameworks.integers.choosing import compare_choosing
from minimp.frameworks.integers.dynamic import compare_dynamic
from minimp.frameworks.integers.layers import compare_layers
from minimp.frameworks.integers.rounding import compare_rounding
from minimp.frameworks.results import Row, Section, Verdict
from minimp.quant import rules
from minimp.quant.kernels import quotient
from minimp.quant.rules import RULES
from minimp.rng import get_rng_state
from minimp_backends import integer_products, integers
from tests.frameworks.faults import differing

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch
HAS_FBGEMM = "fbgemm" in torch.backends.quantized.supported_engines
RARE = {"scales-in-another-order", "searches-that-stop", "sums-of-two-scales"}
"""Differences at ties, which a seed may not meet."""
OF_X86 = {"bias-in-floats", "fused-multiply-add", "sums-cut-off-at-int16"}


@pytest.fixture(scope="module")
def section() -> Section:
    """Return the section, compared once."""
    return torch_integers.compare(0)


def test_the_section_holds(section: Section) -> None:
    """Oracle: the installed torch; every part is compared, and every known difference is met."""
    assert section, differing(section)
    assert {row.subject for row in section.rows} == {
        "MinMaxObserver", "MovingAverageMinMaxObserver", "PerChannelMinMaxObserver",
        "MovingAveragePerChannelMinMaxObserver", "HistogramObserver", "_choose_qparams_per_tensor",
        "quantize_per_tensor", "quantize_per_channel", "dequantize", "fake_quantize_per_tensor_affine",
        "fake_quantize_per_channel_affine", "linear", "conv2d", "add", "cat", "relu", "max_pool2d",
        "avg_pool2d", "adaptive_avg_pool2d", "dynamic linear", "dynamic LSTM", "dynamic GRU", "sums",
        *(["requantising"] if HAS_FBGEMM else []),
    }  # fmt: skip
    known = {each.name for each in INTEGER_DIFFERENCES if each.framework == "torch"}
    expected = known - RARE - (set() if HAS_FBGEMM else OF_X86)
    met = {row.known for row in section.of(Verdict.DOCUMENTED)}
    assert expected <= met <= known


def test_layers_on_qnnpack_have_all_codes(section: Section) -> None:
    """Oracle: torch on QNNPACK: not one code of linear layers and convolutions is another."""
    rows = [row for row in section.rows if row.subject in ("linear", "conv2d") and "qnnpack" in row.case]
    assert {row.verdict for row in rows} == {Verdict.AGREES}
    assert len(rows) == 28
    assert sum(row.figures["elements"] for row in rows) > 10_000
    assert any("per channel" in row.case and "depthwise" in row.case for row in rows)


@pytest.mark.skipif(not HAS_FBGEMM, reason="FBGEMM is for x86 processors")
def test_sums_that_are_cut_off_have_all_codes(section: Section) -> None:
    """Oracle: FBGEMM in a process without VNNI: our emulation has its codes, exact sums have not."""
    rows = [row for row in section.rows if "kept from VNNI" in row.case]
    cut = [row for row in rows if row.case.endswith("'int16-saturating'")]
    whole = [row for row in rows if row.case.endswith("'int32'")]
    assert len(cut) == len(whole) == len(engines.LAYERS)
    assert {row.verdict for row in cut} == {Verdict.AGREES}
    assert {row.known for row in whole} == {"sums-cut-off-at-int16"}
    assert all(row.figures["others"] > 0.05 * row.figures["elements"] for row in whole)


@pytest.mark.skipif(not HAS_FBGEMM, reason="FBGEMM is for x86 processors")
@pytest.mark.parametrize(
    ("accumulate", "moved", "verdict"),
    [
        ("int32", 0, Verdict.AGREES),
        ("int16-saturating", 0, Verdict.DOCUMENTED),
        ("int32", 1, Verdict.DIFFERS),
        ("int16-saturating", 1, Verdict.DIFFERS),
    ],
)
def test_the_verdict_is_right_on_every_processor(
    monkeypatch: pytest.MonkeyPatch, accumulate: str, moved: int, verdict: Verdict
) -> None:
    """Oracle: engines made up here: one that is exact, one that cuts off, and both a code too high."""

    def product_of(x: Any, w: Any, bias: Any) -> Any:
        made = engines.ours(x, w, bias, accumulate)
        made[:1] = np.clip(made[:1].astype(int) + moved, 0, 255)
        return made

    monkeypatch.setattr(engines, "product_of", product_of)
    rows = [row for row in engines.compare_engines(np.random.default_rng(0)) if row.subject == "sums"]
    assert len(rows) == 2 * len(engines.ENGINES) * len(engines.LAYERS)
    full = [row for row in rows if "codes 0..255" in row.case]
    assert {row.verdict for row in full} == {verdict}
    reduced = {row.verdict for row in rows if "codes 0..127" in row.case}
    assert reduced == {Verdict.DIFFERS if moved else Verdict.AGREES}


def test_a_missing_engine_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a torch made up here that has no engine for x86: rows that prove nothing, and say so."""
    monkeypatch.setattr(engines, "has_engine", lambda name: False)
    rng = np.random.default_rng(0)
    rows = [*engines.compare_engines(rng), *engines.compare_limited(*engines.limited(rng))]
    assert {row.verdict for row in rows} == {Verdict.NOT_COMPARED}
    assert len(rows) == len(engines.ENGINES) + 1


def test_everything_is_put_back(section: Section) -> None:
    """Oracle: torch's engine, threads, both random generators and warnings, before and after."""
    assert section

    def state() -> tuple[Any, ...]:
        generator = torch.random.get_rng_state().tolist()
        return torch.backends.quantized.engine, torch.get_num_threads(), generator, str(get_rng_state())

    def use_and_fail() -> None:
        with torch_integers._alone(), torch_engines.engine("qnnpack"):
            assert torch.backends.quantized.engine == "qnnpack"
            torch.rand(1)
            warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
            raise ZeroDivisionError

    before = state()
    with pytest.raises(ZeroDivisionError):
        use_and_fail()
    assert state() == before


@pytest.mark.slow
@pytest.mark.skipif(not HAS_FBGEMM, reason="FBGEMM is for x86 processors")
def test_a_process_that_fails_says_why() -> None:
    """Oracle: weights of another depth than the inputs: torch's own words, and no folder that stays."""
    x, w, bias = np.zeros((2, 4), np.uint8), np.zeros((3, 5), np.int8), np.zeros(3, np.float32)
    process = torch_engines.Limited({"wrong": (x, w, bias)})
    with pytest.raises(RuntimeError, match=r"in a process of its own failed: .*"):
        process.codes()
    assert not any(each.parent.exists() for each in process._files)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_FBGEMM, reason="FBGEMM is for x86 processors")
def test_a_comparison_that_breaks_off_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the process has ended and its folder is gone when the error of another part arrives."""
    started: list[Any] = []

    def noted(rng: np.random.Generator) -> Any:
        started.append(engines.limited(rng))
        return started[0]

    def broken(rng: np.random.Generator) -> Iterator[Row]:
        raise ZeroDivisionError(str(rng))

    monkeypatch.setattr(torch_integers, "limited", noted)
    monkeypatch.setattr(torch_integers, "compare_choosing", broken)
    with pytest.raises(ZeroDivisionError):
        torch_integers.compare(0)
    ((_, process),) = started
    assert process._process.returncode is not None
    assert not any(each.parent.exists() for each in process._files)


# ---- planted faults ---------------------------------------------------------------------------------------


def on_qnnpack(part: Callable[[np.random.Generator], Iterator[Row]]) -> list[Row]:
    """Compare a part from seed 0, as the section does."""
    with torch_integers._alone(), torch_engines.engine("qnnpack"):
        return list(part(np.random.default_rng(0)))


def with_rule(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Change torch's rule."""
    monkeypatch.setitem(RULES._rows, "torch", replace(RULES["torch"], **changes))


def ties_to_even_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round x / s before z is added."""
    with_rule(monkeypatch, encode=quotient)


def nan_is_least(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give NaN the smallest code."""
    with_rule(monkeypatch, nan_is_largest=False)


def zero_points_one_too_high(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choose zero points that are one too high."""
    real = RULES["torch"].choose

    def choose(low: Any, high: Any, codes: Any) -> Any:
        scale, zero = real(low, high, codes)
        return scale, np.minimum(zero + 1, codes.quant_max)

    with_rule(monkeypatch, choose=choose)


def no_least_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget eps."""
    monkeypatch.setattr(rules, "EPS", np.float32(2.0**-100))


def padded_with_code_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lay images out in a border of the code 0, which is not real zero."""
    real = integers._padded
    monkeypatch.setattr(integers, "_padded", lambda x, geometry, zero: real(x, geometry, 0))


def gradients_pass_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pass gradients of what is clamped."""
    monkeypatch.setattr(type(default_backend()), "keep_where", lambda self, grad, inside: grad)


FAULTS: list[tuple[Any, Any, set[str], set[str]]] = [
    (ties_to_even_steps, compare_rounding, {"quantize_per_tensor"}, {"dequantize"}),
    (nan_is_least, compare_rounding, {"quantize_per_tensor"}, {"quantize_per_channel", "dequantize"}),
    (zero_points_one_too_high, compare_choosing,
     {"MinMaxObserver", "MovingAverageMinMaxObserver", "PerChannelMinMaxObserver",
      "MovingAveragePerChannelMinMaxObserver", "HistogramObserver"}, {"_choose_qparams_per_tensor"}),
    (no_least_scale, compare_choosing,
     {"MinMaxObserver", "PerChannelMinMaxObserver"}, {"HistogramObserver", "_choose_qparams_per_tensor"}),
    (padded_with_code_0, compare_layers, {"conv2d"}, {"linear", "avg_pool2d", "max_pool2d"}),
    (gradients_pass_everywhere, compare_rounding,
     {"fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine"}, {"quantize_per_tensor"}),
    (zero_points_one_too_high, compare_dynamic, {"dynamic linear"}, set()),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fault", "part", "found", "unharmed"),
    FAULTS,
    ids=[f"{each[0].__name__}-{each[1].__name__}" for each in FAULTS],
)
def test_planted_faults_are_found(
    monkeypatch: pytest.MonkeyPatch, fault: Any, part: Any, found: set[str], unharmed: set[str]
) -> None:
    """Oracle: the fault: what it touches differs, and no reason excuses it; what it does not, agrees."""
    fault(monkeypatch)
    met = {row.subject for row in on_qnnpack(part) if row.verdict is Verdict.DIFFERS}
    assert found <= met
    assert not met & unharmed


def test_a_padding_of_code_0_is_found_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the fault: convolutions with padding, and no others."""
    padded_with_code_0(monkeypatch)
    rows = [row for row in on_qnnpack(compare_layers) if row.subject == "conv2d"]
    assert {"1 x 1" in row.case for row in rows if row.verdict is Verdict.DIFFERS} == {False}
    assert {row.verdict for row in rows if "1 x 1" in row.case} == {Verdict.AGREES}


@pytest.mark.skipif(not HAS_FBGEMM, reason="FBGEMM is for x86 processors")
def test_an_emulation_that_cuts_elsewhere_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the fault: sums that end at 32,000; FBGEMM's depthwise kernel saturates on any processor."""
    monkeypatch.setattr(integer_products, "MOST", 32_000.0)
    rows = [row for row in engines.compare_engines(np.random.default_rng(0)) if row.subject == "sums"]
    found = {row.case for row in rows if row.verdict is Verdict.DIFFERS}
    assert "fbgemm, codes 0..255, conv2d, depthwise" in found
    assert all("codes 0..255" in case for case in found)


@pytest.mark.slow
def test_a_fault_ends_the_command_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: the exit codes that the command promises, and the op that it names."""
    arguments = ["check", "torch", "--only", "integers", "--brief", "--quiet"]
    assert main(arguments) == 0
    no_least_scale(monkeypatch)
    assert main(arguments) == 1
    assert "integers: MinMaxObserver" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 5, 28])
def test_other_seeds_hold(seed: int) -> None:
    """Oracle: the installed torch; 28 has a search that float32's noise stops, others meet rare ties."""
    found = torch_integers.compare(seed)
    assert found, differing(found)
