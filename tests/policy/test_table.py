"""The policies as tables: complete, printable, searchable, editable, comparable."""

from __future__ import annotations

from typing import Any

import pytest

import minimp as mp
from minimp.door import OPS, Op, op
from minimp.errors import SettingError
from minimp.policy import CastClass, Mixed, Policy
from minimp.policy.printed import MEANING

CUDA, CPU = mp.policies["torch-cuda"], mp.policies["torch-cpu"]


@pytest.fixture
def own_op() -> Op:
    """Return an op that no policy knows, declared to compute in float32; it leaves the list of ops again."""

    @op(cast=CastClass.FP32, mixed=Mixed.PROMOTE)
    def house_norm(ctx, x):  # type: ignore[no-untyped-def]  # as an op is written
        """Return x."""
        return x

    return OPS.pop("house_norm")


def test_every_op_is_in_every_table() -> None:
    """Oracle: the list of ops; a new op gets its row in minimp/policy/catalogue.py, as PyTorch has it."""
    assert set(OPS) - set(CUDA.rules) == set()
    assert list(CUDA.rules) == list(CPU.rules)


def test_what_ops_declare_is_cudas_class() -> None:
    """Oracle: the table of PyTorch 2.13.0's CUDA registrations."""
    assert {name: each.cast for name, each in OPS.items()} == {name: CUDA[name] for name in OPS}


@pytest.mark.parametrize(
    ("name", "cuda", "cpu"),
    [
        ("matmul", CastClass.LOWER, CastClass.LOWER),
        ("einsum", CastClass.LOWER, CastClass.KEEP),
        ("softmax", CastClass.SET_FP32, CastClass.KEEP),
        ("norm", CastClass.SET_FP32, CastClass.KEEP),
        ("exp", CastClass.FP32, CastClass.KEEP),
        ("cat", CastClass.KEEP, CastClass.PROMOTE),
        ("prod", CastClass.SET_FP32, CastClass.FP32),
        ("binary_cross_entropy", CastClass.BANNED, CastClass.FP32),
        ("mean", CastClass.KEEP, CastClass.KEEP),
        ("cross_entropy_loss", CastClass.KEEP, CastClass.FP32),
    ],
)
def test_rows_by_hand(name: str, cuda: CastClass, cpu: CastClass) -> None:
    """Oracle: PyTorch 2.13.0's registrations, looked up one by one."""
    assert (CUDA[name], CPU[name]) == (cuda, cpu)


def test_the_tables_have_their_sizes() -> None:
    """Oracle: the counts of distinct names in the registrations of PyTorch 2.13.0."""
    assert sum(kind is not CastClass.KEEP for kind in CUDA.rules.values()) == 111
    assert sum(kind is not CastClass.KEEP for kind in CPU.rules.values()) == 115


@pytest.mark.parametrize("policy", [CUDA, CPU, CUDA.with_(relu="lower")], ids=lambda policy: policy.name)
def test_the_printed_table_is_whole_and_narrow(policy: Policy) -> None:
    """Oracle: the rules themselves, read back from the print; 100 columns."""
    lines = str(policy).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == f"{policy.name}: {policy.source}"
    read: dict[str, str] = {}
    lacking: set[str] = set()
    titles = [f"{kind.value}: {meaning}" for kind, meaning in MEANING.items()]
    start = next(number for number, line in enumerate(lines) if line.startswith(titles[0]))
    for line in lines[start:]:
        if not line.startswith(" "):
            title, part = line.split(":")[0], ""
            continue
        head, colon, rest = line.rpartition(": ")
        part = head.strip() if colon else part if line.startswith("    ") else ""
        read |= dict.fromkeys((rest if colon else line).split(), title)
        lacking |= set((rest if colon else line).split()) if part == "not ops of minimp" else set()
    assert read == {name: kind.value for name, kind in policy.rules.items()}
    assert lacking == policy.lacking


def test_in_a_session_a_policy_is_shown_in_a_few_lines() -> None:
    """Oracle: its name and source are there, its 295 rules are not: print() has those."""
    assert repr(CUDA).startswith("Policy(name='torch-cuda', source='PyTorch 2.13.0, CUDA', note=")
    assert max(len(repr(policy)) for policy in mp.policies.values()) < 800


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("lower", CastClass.LOWER), ("fp32", CastClass.FP32), ("set_fp32", CastClass.SET_FP32),
        ("promote", CastClass.PROMOTE), ("keep", CastClass.KEEP), ("banned", CastClass.BANNED),
        ("lower_precision_fp", CastClass.LOWER), ("unlisted", CastClass.KEEP),
        (CastClass.FP32, CastClass.FP32),
    ],
)  # fmt: skip
def test_a_copy_is_edited_and_the_original_is_not(word: str | CastClass, kind: CastClass) -> None:
    """Oracle: the contract of with_(): one rule changes, in a new policy."""
    before = dict(CUDA.rules)
    edited = CUDA.with_(layer_norm=word)
    assert dict(edited.rules) == before | {"layer_norm": kind}
    assert dict(CUDA.rules) == before
    assert edited.name == f"torch-cuda (layer_norm: {kind.name.lower()})"
    assert (edited.source, edited.note) == (CUDA.source, CUDA.note)


def test_rules_cannot_be_written_to() -> None:
    """Oracle: the contract: policies are frozen data."""
    with pytest.raises(TypeError):
        CUDA.rules["softmax"] = CastClass.LOWER  # type: ignore[index]  # the fault under test
    mine = {"softmax": CastClass.LOWER}
    policy = Policy("mine", mine)
    mine["softmax"] = CastClass.FP32
    assert policy["softmax"] is CastClass.LOWER


def test_words_are_classes_in_a_policy_made_by_hand() -> None:
    """Oracle: the policy with the same classes; a word that was kept as it is would rule nothing."""
    words: dict[str, Any] = {"rules": {"exp": "fp32", "linear": "lower"}, "default": "keep",
                             "by_format": {"bfloat16": {"exp": "keep"}}}  # fmt: skip
    rules = {"exp": CastClass.FP32, "linear": CastClass.LOWER}
    same = Policy("mine", rules, default=CastClass.KEEP, by_format={"bfloat16": {"exp": CastClass.KEEP}})
    assert Policy("mine", **words) == same
    assert dict(Policy("mine", **words).rules) == dict(same.rules)
    for wrong in (
        {"rules": {"exp": "fp23"}},
        {"default": "kep"},
        {"by_format": {"float16": {"exp": "fp23"}}},
    ):
        with pytest.raises(SettingError, match="did you mean"):
            Policy("mine", **wrong)  # type: ignore[arg-type]  # the fault under test


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"sotfmax": "lower"}, r"policy torch-cuda: unknown op 'sotfmax'; did you mean 'softmax'"),
        ({"softmax": "lowr"}, r"unknown cast class 'lowr'; did you mean 'lower'"),
        ({"cast": "fp32"}, r"a policy cannot rule the op 'cast'"),
    ],
)
def test_edits_that_cannot_act_are_refused(edit: dict[str, str], message: str) -> None:
    """Oracle: the contract of with_()."""
    with pytest.raises(SettingError, match=message):
        CUDA.with_(**edit)


def test_an_unknown_op_is_refused_in_a_few_lines() -> None:
    """Oracle: the nearest names, and how many there are; not all 295 of them."""
    with pytest.raises(SettingError) as caught:
        CUDA["sofmax"]
    told = str(caught.value)
    assert f"did you mean 'softmax'? ({len(CUDA)} are known, the nearest are: softmax, log_softmax," in told
    assert len(told) < 400


def test_an_op_of_ones_own_follows_its_declaration_until_it_is_ruled(own_op: Op) -> None:
    """Oracle: the contract of rule() and with_()."""
    assert CPU.rule(own_op) is CastClass.FP32
    with pytest.raises(
        SettingError, match=r"unknown op 'house_norm'.*\n.*write policy.with_\(\{the_op: ...\}\)"
    ):
        CPU.with_(house_norm="lower")
    edited = CPU.with_({own_op: "lower"}, softmax="fp32")
    assert edited.rule(own_op) is CastClass.LOWER
    assert edited["softmax"] is CastClass.FP32
    assert [row for row in edited.diff(CPU) if row[0] == "house_norm"] == [
        ("house_norm", CastClass.LOWER, None)
    ]
    assert "lower_precision_fp against as declared: house_norm" in str(edited.diff(CPU))


def test_search_finds_by_part_of_the_name() -> None:
    """Oracle: the names by hand."""
    assert CUDA.search("SOFTm") == {"log_softmax": CastClass.SET_FP32, "softmax": CastClass.SET_FP32}
    assert CUDA.search("no such op") == {}
    with pytest.raises(SettingError, match="unknown op 'soft_max'; did you mean 'softmax'"):
        CUDA["soft_max"]


def test_a_difference_lists_each_op_once_with_both_classes() -> None:
    """Oracle: the two tables, compared op by op."""
    diff = CPU.diff(CUDA)
    assert {op: (left, right) for op, left, right in diff} == {
        name: (CPU[name], CUDA[name]) for name in CUDA.rules if CPU[name] is not CUDA[name]
    }
    text = str(diff)
    assert max(map(len, text.splitlines())) <= 100
    assert text.startswith(f"torch-cpu against torch-cuda: {len(diff)} ops differ\n")
    assert "  promote against unlisted: cat index_copy stack" in text.splitlines()


def test_policies_that_agree_have_no_difference() -> None:
    """Oracle: an edit undone."""
    diff = CUDA.with_(softmax="lower").with_(softmax="set_fp32").diff(CUDA)
    assert not diff
    assert str(diff).endswith("0 ops differ")


def test_policies_are_found_by_name_or_refused_with_the_nearest() -> None:
    """Oracle: the contract of mp.policies."""
    assert list(mp.policies) == [
        "torch-cuda", "torch-cpu", "keras", "jmp", "paddle-o1", "mindspore-o2", "apex-o0", "apex-o1",
        "apex-o2", "apex-o3", "chainer-mixed16",
    ]  # fmt: skip
    assert "torch-gpu" not in mp.policies
    with pytest.raises(SettingError, match="unknown policy 'torch-gpu'; did you mean 'torch-cpu'"):
        mp.policies["torch-gpu"]
    assert str(mp.policies).splitlines() == [f"{each.name}: {each.source}" for each in mp.policies.values()]
    for each in mp.policies.values():
        assert each.source
        assert each.note
        assert each.settings


def test_ops_that_nobody_here_has_do_not_differ_by_being_absent() -> None:
    """Oracle: apex's lists and PyTorch's: neither names cholesky for CUDA, which minimp has no op for."""
    rows = {op: kinds for op, *kinds in mp.policies["torch-cuda"].diff(mp.policies["apex-o1"])}
    assert "cholesky" not in rows
    assert rows["cdist"] == [CastClass.FP32, CastClass.KEEP]
