"""What PyTorch changed in its autocast rules, and the policies as of a release."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

import minimp as mp
from minimp.errors import SettingError
from minimp.policy import CastClass
from minimp.policy.history import CHANGES, RELEASES

CUDA, CPU = mp.policies["torch-cuda"], mp.policies["torch-cpu"]
KEEP, LOWER, FP32 = CastClass.KEEP, CastClass.LOWER, CastClass.FP32
KERNELS = {
    "cuda": {
        "1.10": (90, "6c9ccc27"), "1.11": (89, "a74f0458"), "1.12": (90, "077b885f"),
        "1.13": (91, "903e2d71"), "2.0": (95, "9bf5a9f1"), "2.1": (95, "9bf5a9f1"),
        "2.2": (96, "f67fa75c"), "2.3": (96, "f67fa75c"), "2.4": (109, "c9013d62"),
        "2.5": (109, "c9013d62"), "2.6": (109, "c9013d62"), "2.7": (109, "c9013d62"),
        "2.8": (109, "c9013d62"), "2.9": (109, "c9013d62"), "2.10": (109, "c9013d62"),
        "2.11": (109, "c9013d62"), "2.12": (110, "0338d1c1"), "2.13": (110, "0338d1c1"),
    },
    "cpu": {
        "1.10": (146, "9cc49a28"), "1.11": (149, "2f924275"), "1.12": (100, "87558b8e"),
        "1.13": (111, "7b71290b"), "2.0": (110, "302c4349"), "2.1": (111, "29767e42"),
        "2.2": (114, "fa2433f5"), "2.3": (114, "fa2433f5"), "2.4": (114, "fa2433f5"),
        "2.5": (114, "fa2433f5"), "2.6": (115, "edf990a0"), "2.7": (115, "edf990a0"),
        "2.8": (115, "edf990a0"), "2.9": (115, "edf990a0"), "2.10": (115, "edf990a0"),
        "2.11": (115, "edf990a0"), "2.12": (115, "edf990a0"), "2.13": (115, "edf990a0"),
    },
}  # fmt: skip
"""Device -> release -> how many ops its library has kernels for, and a checksum of their names and classes.

Both are of the names in the library of each release's build, without overloads (binary_cross_entropy, which
is refused, has no kernel; norm's fp32_append_dtype counts as fp32_set_opt_dtype).
"""


@pytest.mark.parametrize("device", KERNELS)
def test_each_release_has_the_kernels_of_its_library(device: str) -> None:
    """Oracle: the names of the autocast kernels in the library of each release."""
    found = {}
    for release in RELEASES:
        rules = mp.policies[f"torch-{device}"].at(release).rules
        lines = [
            f"{op} {kind.value}" for op, kind in sorted(rules.items()) if kind not in (KEEP, CastClass.BANNED)
        ]
        found[release] = (len(lines), f"{zlib.crc32(chr(10).join(lines).encode()):08x}")
    assert found == KERNELS[device]


@pytest.mark.parametrize(
    ("device", "op", "classes"),
    [
        ("cuda", "rms_norm", {"2.11": KEEP, "2.12": FP32}),
        ("cuda", "einsum", {"1.11": KEEP, "1.12": LOWER}),
        ("cuda", "upsample_nearest2d", {"1.10": KEEP, "2.3": KEEP, "2.4": FP32}),
        ("cuda", "scaled_dot_product_attention", {"1.13": KEEP, "2.0": LOWER}),
        ("cuda", "matmul", {"1.10": LOWER, "2.13": LOWER}),
        ("cuda", "binary_cross_entropy", {"1.10": CastClass.BANNED, "2.13": CastClass.BANNED}),
        ("cpu", "matmul", {"1.11": KEEP, "1.12": LOWER}),
        ("cpu", "prelu", {"1.11": FP32, "1.12": KEEP, "2.0": KEEP, "2.1": LOWER}),
        ("cpu", "smooth_l1_loss", {"1.11": FP32, "1.12": KEEP, "1.13": FP32, "2.13": FP32}),
        ("cpu", "upsample_nearest2d", {"1.10": FP32, "1.12": KEEP}),
        ("cpu", "_upsample_nearest_exact2d", {"1.10": KEEP, "1.11": FP32, "1.12": KEEP}),
        ("cpu", "conv_transpose2d", {"1.13": FP32, "2.0": LOWER}),
        ("cpu", "batch_norm", {"1.11": FP32, "1.12": KEEP}),
    ],
)
def test_rows_by_hand(device: str, op: str, classes: dict[str, CastClass]) -> None:
    """Oracle: the kernels in the releases' libraries, looked up one by one."""
    policy = mp.policies[f"torch-{device}"]
    assert {release: policy.at(release)[op] for release in classes} == classes


@pytest.mark.parametrize("policy", [CUDA, CPU], ids=lambda policy: policy.name)
def test_changes_are_a_chain_that_ends_in_the_present(policy: mp.Policy) -> None:
    """Oracle: the table itself: each change starts where the one before ended, the last ends in the rules."""
    order = list(RELEASES)
    by_op: dict[str, list[tuple[CastClass, CastClass]]] = {}
    places = [order.index(row.release) for row in policy.changes]
    assert places == sorted(places)
    for row in policy.changes:
        assert row.before is not row.after
        assert row.device in policy.name
        assert RELEASES[row.release] in row.source
        by_op.setdefault(row.op, []).append((row.before, row.after))
    for op, steps in by_op.items():
        ends = [after for _, after in steps[:-1]]
        assert ends == [before for before, _ in steps[1:]]
        assert steps[-1][1] is policy.rules.get(op, KEEP)


def test_a_policy_of_a_release_is_a_policy() -> None:
    """Oracle: the contract of at(): its own name, source, history and lacking ops; it rules a region."""
    old = CPU.at("1.13")
    assert (old.name, old.source) == ("torch-cpu@1.13", "PyTorch 1.13.1, CPU")
    assert old.releases[-1] == "1.13"
    assert {row.release for row in old.changes} == {"1.11", "1.12", "1.13"}
    assert "symeig" in old.lacking
    assert old.at("1.12") == CPU.at("1.12")
    assert [str(row[0]) for row in CUDA.at("2.11").diff(CUDA)] == ["rms_norm"]
    x = mp.tensor([[1.0, 2.0]], dtype="float16")
    for name, expected in [("torch-cuda@2.11", mp.float16), ("torch-cuda@2.12", mp.float32)]:
        with mp.autocast("float16", policy=name):
            assert mp.functional.rms_norm(x, (2,)).format is expected


def test_names_may_carry_a_release() -> None:
    """Oracle: the contract of mp.policies; a Recipe takes such a name too."""
    assert mp.policies["torch-cuda@2.11"] == CUDA.at("2.11")
    assert "torch-cuda@2.11" in mp.policies
    assert "torch-cuda@1.9" not in mp.policies
    assert CUDA.at("2.13") is CUDA.at("2.13.0") is CUDA.at("2.13.0+cpu") is CUDA
    recipe = mp.Recipe("old", compute_dtype="bfloat16", master_weights=True, policy="torch-cpu@1.12")
    assert recipe.policy == "torch-cpu@1.12"


@pytest.mark.parametrize(
    ("policy", "release", "message"),
    [
        (CUDA, "1.9", r"the rules of '1.9' were not read; known are 1.10 to 2.13\n"),
        (CUDA, "2.14", r"the rules of '2.14' were not read"),
        (CUDA, "2.4.0", r"'2.4.0' were not read.*\n.*the build of 2.4 that was read is 2.4.1"),
        (CUDA, "", "were not read"),
        (CUDA, 2.10, r"got the number 2.1\n.*write .at\('2.10'\)"),
        (CUDA.with_(softmax="lower"), "2.11", "has no history"),
        (mp.policies["keras"], "3.0", "policy keras has no history"),
        (CUDA.at("2.4"), "2.11", "known are 1.10 to 2.4"),
    ],
)
def test_releases_that_were_not_read_are_refused(policy: mp.Policy, release: Any, message: str) -> None:
    """Oracle: the contract of at(): no claim about a release that was not read."""
    with pytest.raises(SettingError, match=message):
        policy.at(release)


def test_the_report_has_every_change_once() -> None:
    """Oracle: the rows, read back from the print; 100 columns."""
    for policy in (CUDA, CPU):
        lines = str(policy.history()).splitlines()
        assert max(map(len, lines)) <= 100
        read, release, title = [], "", ""
        for line in lines[2:]:
            if not line.startswith(" "):
                release = line.split()[0]
                continue
            head, colon, rest = line.partition(": ")
            title, ops = (head.strip(), rest) if colon else (title, line)
            read += [(release, title, name) for name in ops.split()]
        rows = [(row.release, f"{row.before.value} -> {row.after.value}", row.op) for row in policy.history()]
        assert sorted(read) == sorted(rows)
        assert len(policy.history()) == len(rows) == sum(row in CHANGES for row in policy.changes)
    with pytest.raises(SettingError, match="has no history"):
        mp.policies["jmp"].history()
