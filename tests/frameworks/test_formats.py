"""The section on formats; oracles: torch's header, and rules that are changed on purpose."""

from __future__ import annotations

import numpy as np
import pytest

import minimp as mp
from minimp import policy
from minimp.door import OPS
from minimp.frameworks.cases import CASES, minimp_library
from minimp.frameworks.ops import torch_formats, torch_rules
from minimp.frameworks.ops.torch_rules import compare_rules, registered, seen_class
from minimp.frameworks.results import Row, Verdict
from minimp.policy import CastClass

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch


def few(monkeypatch: pytest.MonkeyPatch, *ops: str) -> None:
    """Compare the calls of some ops alone, and no rules."""
    monkeypatch.setattr(torch_formats, "CASES", tuple(case for case in CASES if case.op in ops))
    monkeypatch.setattr(torch_formats, "compare_rules", lambda: ())


def differing(section: mp.frameworks.results.Section) -> list[tuple[str, str]]:
    """Return (subject, case) of the rows that differ."""
    return [(row.subject, row.case) for row in section.of(Verdict.DIFFERS)]


@pytest.mark.slow
def test_the_whole_section_holds() -> None:
    """Oracle: the installed torch; every op of minimp has a row on each device for each low format."""
    section = torch_formats.compare()
    assert section, differing(section)
    compared = {(row.subject, row.case) for row in section.rows if row.verdict is Verdict.AGREES}
    built_in = {name for name, op in OPS.items() if op.forward.__module__.startswith("minimp.")}
    missing = built_in - {row.subject for row in section.of(Verdict.NOT_COMPARED)}
    assert {(op, f"{d}, {low}") for op in missing for d in ("cpu", "cuda") for low in mp_low()} <= compared


def mp_low() -> tuple[str, str]:
    """Return the low formats."""
    return ("float16", "bfloat16")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_changed_rule_is_found_by_the_op_and_by_the_table(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """Oracle: exp put into another class in one policy: its rows there differ, and no other."""
    few(monkeypatch, "exp", "tanh", "linear")
    name = f"torch-{device}"
    wrong = mp.policies[name].with_(exp="lower")
    monkeypatch.setitem(policy.policies._rows, name, wrong)
    section = torch_formats.compare()
    assert not section
    assert {subject for subject, _ in differing(section)} == {"exp"}
    assert all(case.startswith(device) for _, case in differing(section))
    assert any("all float32" in case for _, case in differing(section))
    (row,) = [row for row in compare_rules() if row.verdict is Verdict.DIFFERS]
    assert (row.subject, row.case, row.ours) == ("exp", f"rule, {device}", CastClass.LOWER.value)


def test_an_op_that_gives_another_format_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: tanh made to give float32 whatever it gets: the low mixes differ."""
    few(monkeypatch, "tanh")
    monkeypatch.setattr(OPS["tanh"], "forward", lambda ctx, x: np.tanh(ctx.wide(x)))
    assert {case for _, case in differing(torch_formats.compare())} >= {
        "cpu, float16, all low", "cuda, bfloat16, all low", "cpu, bfloat16, the other 16-bit format"
    }  # fmt: skip


def test_errors_of_another_kind_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: torch refuses two formats in index_add on the CPU; a result in its place differs."""
    few(monkeypatch, "index_add")
    monkeypatch.setattr(OPS["index_add"], "mixed", policy.Mixed.PROMOTE)
    assert ("index_add", "cpu, float16, float32 then low") in differing(torch_formats.compare())


def test_what_differs_shows_both_formats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: huber_loss(float32, float64): float64 here, float32 in torch; it is documented, and named."""
    few(monkeypatch, "huber_loss")
    section = torch_formats.compare()
    rows = section.of(Verdict.DOCUMENTED)
    assert section
    assert {(row.ours, row.theirs, row.known) for row in rows} == {
        ("float64", "float32", "huber-keeps-the-inputs-format")
    }


def test_the_classes_seen_on_cuda_are_the_headers() -> None:
    """Oracle: the op lists of the installed header; norm stands there under a name of its own."""
    from tests.parity.test_autocast_parity import CUDA_ONLY, header_lists

    listed = header_lists() | CUDA_ONLY
    seen = {op: seen_class(op, overloads, "cuda") for op, overloads in registered("cuda").items()}
    assert seen == {op: kind.value for op, kind in listed.items()}


@pytest.mark.parametrize(
    ("op", "kind"), [("linear", CastClass.LOWER), ("prod", CastClass.FP32), ("cat", CastClass.PROMOTE)]
)
def test_the_classes_seen_on_the_cpu(op: str, kind: CastClass) -> None:
    """Oracle: aten/src/ATen/autocast_mode.cpp of 2.13; prod casts to float32 even beside a dtype."""
    assert seen_class(op, registered("cpu")[op], "cpu") == kind.value


def test_an_op_without_a_rule_is_kept() -> None:
    """Oracle: torch registers nothing for tanh."""
    assert "tanh" not in registered("cpu") | registered("cuda")
    assert seen_class("tanh", ["default"], "cuda") == CastClass.KEEP.value


def test_a_missing_registration_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a dispatcher that has lost an op, and one that has gained one."""
    real = {device: registered(device) for device in ("cpu", "cuda")}
    changed = {op: o for op, o in real["cpu"].items() if op != "linear"} | {"tanh": ["default"]}
    monkeypatch.setattr(torch_rules, "registered", lambda device: changed if device == "cpu" else {})
    rows = {row.subject: row for row in torch_rules.compare_rules() if row.case == "rule, cpu"}
    assert found(rows["linear"]) == (CastClass.LOWER.value, "not registered", Verdict.DIFFERS)
    assert found(rows["tanh"]) == ("not listed", CastClass.KEEP.value, Verdict.DIFFERS)
    assert rows["matmul"].verdict is Verdict.AGREES


def found(row: Row) -> tuple[str, str, Verdict]:
    """Return what a row says."""
    return row.ours, row.theirs, row.verdict


def test_torch_is_left_as_it_was() -> None:
    """Oracle: torch's own switches, and the level of its log."""
    from torch._subclasses import fake_tensor

    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda"), fake_tensor.log.level
    case = next(case for case in CASES if case.op == "linear")
    with torch_formats.tensors_of("cuda"):
        torch_formats.both_formats(case, "all float32", "bfloat16", "cuda")
    after = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda"), fake_tensor.log.level
    assert before == after
    assert minimp_library().float16 is mp.float16
