"""Every part runs on devices that need no GPU; oracles: the table of parts, the strict device's counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from minimp import backend as backends
from minimp.backend import get_backend
from minimp.benchmarks.gpu import PARTS, TINY, Bench, Run, TorchSide, clock_of, parts, run_parts
from minimp.benchmarks.gpu.models import product_flops
from minimp.benchmarks.gpu.parts import _of_this_chip
from minimp.benchmarks.gpu.sizes import FULL
from minimp.errors import DeviceError, SettingError
from minimp_backends.kernels.nvrtc import VARIANTS
from tests.backends.cupy_on_strict import CupyOnStrict

TIMED = [name for name, part in PARTS.items() if part.jobs is not None]


@pytest.fixture
def cupy_on_strict(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The CuPy backend's own Python on the strict device, under the name "cupy"."""
    pytest.importorskip("ml_dtypes")
    monkeypatch.setitem(backends.MADE, "cupy", CupyOnStrict())
    return get_backend("cupy")


def run(backend: Any, torch: TorchSide | None, *names: str) -> Run:
    """Run parts at their tiny sizes."""
    return run_parts(Bench(backend, clock_of(backend), TINY, 3, torch), names)


def check(found: Run, variants: int) -> None:
    """Nothing failed, every part that is timed has times of ours, and what is counted is as aimed at."""
    assert found.all_faults() == []
    assert {each.part for each in found.timed} == {"roof", *TIMED}
    assert all(each.seconds["minimp"] > 0 for each in found.timed if "minimp" not in each.left_out)
    assert [each.part for each in found.timed if "minimp" in each.left_out] == ["fp8"]
    assert set(found.roof.rates) == {"B", "FLOP"}
    assert {each.name for each in found.counted if not each.reached} == set()
    assert len(found.counted) == 2 + 3 + 2 * variants


def test_every_part_runs_on_the_strict_device() -> None:
    """Oracle: above; no wait in a step, and the ledger within 2 % of tracemalloc."""
    check(run(get_backend("strict"), None, *PARTS), variants=0)


def test_every_part_runs_as_on_cupy(cupy_on_strict: Any) -> None:
    """Oracle: above; products are planned as for cuBLAS, kernels are given what a launch would be."""
    check(run(cupy_on_strict, None, *PARTS), variants=len(VARIANTS))


def test_cudnn_is_beside_the_columns_where_it_is_there(cupy_on_strict: Any) -> None:
    """Oracle: a time of its own, or the reason of its absence: no such engine, or its own error."""
    found = run(cupy_on_strict, None, "cnn").timed[-1]
    assert found.seconds.keys() == {"minimp", "minimp cudnn"}
    assert cupy_on_strict.gpu.cudnn().cudnn.graphs > 0

    def missing() -> Any:
        raise DeviceError("convolutions by cuDNN cannot run here: it is not installed", help="pip install it")

    object.__setattr__(cupy_on_strict.gpu, "cudnn", missing)
    for backend, why in ((cupy_on_strict, "it is not installed"), (get_backend("strict"), "columns alone")):
        left = run(backend, None, "cnn")
        assert left.all_faults() == []
        assert why in left.all_left_out()[0]
        assert left.timed[-1].seconds.keys() == {"minimp"}


@pytest.mark.slow
@pytest.mark.torch
def test_torch_is_beside_in_every_part() -> None:
    """Oracle: PyTorch on the CPU, which has all but a stochastic cast, fp32 out, and our options."""
    pytest.importorskip("torch")
    found = run(get_backend("strict"), TorchSide("cpu"), *PARTS)
    assert found.all_faults() == []
    alone = [each.what for each in found.timed if "torch" not in each.seconds and each.part != "options"]
    assert all("stochastic" in what or "to fp32" in what for what in alone)
    names = {figure.name for each in found.timed for figure in each.figures(found.roof.rates)}
    left_out = {each.part for each in found.timed if "minimp" in each.left_out}
    assert left_out <= {"fp8"}  # where nvmath is not installed
    for part in set(TIMED) - {"options"} - left_out:
        assert any(name.startswith(f"{part}: ") and name.endswith("over torch") for name in names), part


def test_a_part_that_breaks_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a product that raises; the part after it has its times."""
    strict = get_backend("strict")

    def broken(*given: Any) -> Any:
        raise RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED")

    monkeypatch.setattr(type(strict), "integer_matmul", broken)
    found = run(strict, None, "int8", "unscale")
    assert [line.partition(" to int32")[0] for line in found.all_faults()] == ["int8: 8^3 int8"]
    assert [each.part for each in found.timed if each.part != "roof" and "minimp" in each.seconds] == [
        "unscale"
    ] * 2


def test_a_part_that_cannot_begin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: a part that raises before its first job: its name and the reason; the next one is measured."""

    def full(bench: Bench) -> Iterator[Any]:
        raise MemoryError("no room for 400 MB")
        yield

    made = {"full": parts.Part("nothing", 1, full), "unscale": PARTS["unscale"]}
    monkeypatch.setattr(parts, "PARTS", made)
    found = run(get_backend("strict"), None, *made)
    assert found.all_faults() == ["full: MemoryError: no room for 400 MB"]
    assert found.timed[-1].part == "unscale"


def test_tiny_sizes_judge_no_time() -> None:
    """Oracle: of tiny sizes only what is counted has an aim."""
    found = run(get_backend("strict"), None, "unscale", "latency")
    assert found.tiny
    assert [each.name for each in found.figures()] == ["step: waits of the host", "step: bytes read back"]
    found.tiny = False
    assert len(found.figures()) > 3


def test_operations_of_the_steps() -> None:
    """Oracle: by hand: 2 M N K forward and for each gradient, the first layer's input needs none."""
    flops = product_flops(FULL)
    assert flops["mlp"] == 2 * 8192 * 4096**2 * (3 * 4 - 1)
    tokens, width, length = 16 * 1024, 1024, 1024
    assert flops["block"] == 6 * tokens * (12 * width**2 + 2 * length * width)
    assert math.isfinite(flops["cnn"])


def test_what_is_known_of_a_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the name of the GPU; of others nothing is known."""
    strict = get_backend("strict")
    roof = run(strict, None).timed[-1]
    for name, expected in (("NVIDIA H100 80GB HBM3", 1), ("NVIDIA L4", 0)):
        monkeypatch.setattr(type(strict), "describe", lambda _, name=name: {"GPU": name})
        assert len(_of_this_chip(Bench(strict, clock_of(strict), TINY), roof)) == expected


def test_variants_are_timed_beside_the_kernels_and_judged_by_bits(cupy_on_strict: Any) -> None:
    """Oracle: the names of the compiler's options; the stand-in flushes where ftz is among them."""
    found = run(cupy_on_strict, None, "options")
    timed = [each for each in found.timed if each.part == "options"]
    assert [set(each.seconds) for each in timed] == [{"minimp", *VARIANTS}] * 3
    changed = {each.name.partition(": ")[2]: each.value for each in found.counted}
    for what in ("unscale", "AdamW"):
        counts = {name: changed[f"{what}, results of 4,096 that {name} changes"] for name in VARIANTS}
        assert counts["no fmad"] == 0
        assert 100 < counts["ftz"] == counts["ftz, no fmad"] < 4096


def test_a_variant_that_gains_or_changes_is_told(
    cupy_on_strict: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: contraction that changes a result, and flushing that changes none: neither is as aimed at."""
    gpu = cupy_on_strict.gpu
    exchanged = {"ftz": gpu.variants["no fmad"], "no fmad": gpu.variants["ftz"]}
    monkeypatch.setattr(cupy_on_strict, "gpu", replace(gpu, variants=exchanged))
    found = run(cupy_on_strict, None, "options")
    assert len(found.counted) == 4
    assert not any(each.reached for each in found.counted)


def test_an_unknown_variant_offers_those_there_are(cupy_on_strict: Any) -> None:
    """Oracle: the list; outside of the block the kernels are as they were."""
    plain = cupy_on_strict.kernels_in_force()
    with pytest.raises(SettingError, match="did you mean 'ftz'"), cupy_on_strict.use_variant("fzt"):
        pass
    with cupy_on_strict.use_variant("ftz"):
        assert cupy_on_strict.kernels_in_force() is not plain
        with cupy_on_strict.use_route("arrays"):
            assert cupy_on_strict.kernels_in_force() is None
    assert cupy_on_strict.kernels_in_force() is plain
