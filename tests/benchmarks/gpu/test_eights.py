"""Products of FP8; oracles: `torch._scaled_mm` on the CPU, and what is said where something is missing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Self

import pytest
from rich.console import Console

from minimp.backend import get_backend
from minimp.benchmarks.gpu import TINY, Bench, Roof, Run, TorchSide, clock_of, run_job
from minimp.benchmarks.gpu.eights import SCALE, eights
from minimp.cli.bench_gpu import show
from tests.tolerances import assert_close


def bench(torch: TorchSide | None) -> Bench:
    """Return a bench on the strict device."""
    backend = get_backend("strict")
    return Bench(backend, clock_of(backend), TINY, 3, torch)


class Nvmath:
    """nvmath-python 1.0 as far as it is used: its `Matmul` checks what cuBLASLt demands of FP8."""

    CudaDataType = SimpleNamespace(CUDA_R_16F=2)

    def __init__(self, torch: Any) -> None:
        self.torch, self.steps = torch, list[str]()

    def load(self, name: str) -> Any:
        """Import one of its modules."""
        return {"nvmath": self, "nvmath.linalg.advanced": SimpleNamespace(Matmul=self.make)}[name]

    def make(self, a: Any, b: Any, /, *, quantization_scales: Any, options: Any) -> Nvmath:
        """Return itself as the `Matmul`."""
        assert {each.dtype for each in (a, b)} == {self.torch.float8_e4m3fn}
        assert a.stride(1) == b.stride(0) == 1, "by rows, and by columns"
        assert all(size % 16 == 0 for size in (*a.shape, *b.shape))
        assert quantization_scales.keys() == {"a", "b"}
        assert options == {"result_type": self.CudaDataType.CUDA_R_16F}
        self.factors, self.scales = (a, b), quantization_scales
        return self

    def __enter__(self) -> Self:
        self.steps.append("made")
        return self

    def __exit__(self, *_: object) -> None:
        self.steps.append("freed")

    def plan(self) -> None:
        """Choose an algorithm."""
        self.steps.append("planned")

    def execute(self) -> Any:
        """Multiply."""
        assert self.steps == ["made", "planned"]
        a, b = (each.double() * self.scales[name] for each, name in zip(self.factors, "ab", strict=True))
        return (a @ b).half()


@pytest.mark.torch
def test_both_multiply_the_same_numbers() -> None:
    """Oracle: each other, within one rounding to float16; freed behind, and an aim beside torch."""
    torch = pytest.importorskip("torch")
    nvmath = Nvmath(torch)
    jobs = eights(bench(TorchSide("cpu")), nvmath.load)
    job = next(jobs)
    ours, theirs = (job.contenders[name]() for name in ("minimp", "torch"))
    assert ours.dtype == theirs.dtype == torch.float16
    assert SCALE != 1
    assert_close(ours.numpy(), theirs.numpy(), "parity_op_fp16")
    timed = run_job(bench(None), "fp8", job)
    assert [each.name for each in timed.figures({})] == ["fp8: 16^3 e4m3 to fp16, speed over torch"]
    assert next(jobs, None) is None
    assert nvmath.steps == ["made", "planned", "freed"]


@pytest.mark.torch
def test_without_nvmath_torch_is_timed_alone() -> None:
    """Oracle: the reason, and what to install; no fault, and no figure."""
    pytest.importorskip("torch")

    def load(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    (job,) = eights(bench(TorchSide("cpu")), load)
    timed = run_job(bench(None), "fp8", job)
    assert list(timed.seconds) == ["torch"]
    assert "No module named 'nvmath'" in timed.left_out["minimp"]
    assert "pip install 'nvmath-python[cu12]'" in timed.left_out["minimp"]
    assert (timed.faults, timed.figures({})) == ({}, [])


def test_what_is_left_out_is_shown() -> None:
    """Oracle: the screen and the JSON, which name the part, the contender and the reason; it is no fault."""
    (job,) = eights(bench(None))
    run = Run(Roof({}), [run_job(bench(None), "fp8", job)])
    assert run.all_faults() == []
    assert run.as_dict()["jobs"][0]["left_out"].keys() == {"minimp"}
    out = Console(width=100, record=True, quiet=False)
    with out.capture() as shown:
        show(out, run)
    text = " ".join(shown.get().split())
    assert "LEFT OUT fp8: 16^3 e4m3 to fp16, minimp: nvmath takes FP8 numbers of torch's alone" in text
