"""The parts, in their order, and how they are run: the roof first, one job at a time, memory given back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from minimp.benchmarks.figure import Figure
from minimp.benchmarks.gpu import eights, passes, products, rows, steps, variants
from minimp.benchmarks.gpu.jobs import FAULTS, Bench, Job, Timed, in_words, run_job
from minimp.benchmarks.gpu.sizes import TINY
from minimp.benchmarks.timing import quiet_collector

__all__ = ["PARTS", "Part", "Roof", "Run", "run_parts"]

Jobs = Callable[[Bench], Iterator[Job]]
Figures = Callable[[Bench], list[Figure]]


@dataclass(frozen=True, slots=True)
class Part:
    """One part.

    Attributes:
        about: what is measured, for help texts.
        seconds: what it takes on a GPU of 2023, about.
        jobs: makes what is timed, one after the other.
        figures: returns what is counted, not timed.
    """

    about: str
    seconds: int
    jobs: Jobs | None = None
    figures: Figures | None = None


PARTS: Mapping[str, Part] = MappingProxyType(
    {
        "gemm": Part("products of 512^3 to 16384^3: fp16, bf16, transposed, odd sizes", 60, products.gemm),
        "batched": Part("the products of attention, batched, in fp16 and bf16", 20, products.batched),
        "unscale": Part("unscaling 10^8 gradients and looking for infinities", 10, passes.unscale),
        "adamw": Part("AdamW on 10^8 FP32 masters with their fp16 copy", 10, passes.adamw),
        "small": Part("AdamW on 1000 tensors of 1 to 64 KiB", 10, passes.small),
        "rows": Part("softmax, layer norm, cross-entropy, forward and backward", 10, rows.rows),
        "casts": Part("casts of 10^8 numbers: 16 bits, FP8, stochastic", 20, passes.casts),
        "tally": Part("statistics of 10^8 numbers for a trace, as small tables", 10, passes.tallies),
        "options": Part(
            "kernels compiled with ftz, without fmad: times and bits",
            20,
            variants.variants,
            variants.variant_figures,
        ),
        "mlp": Part("a step of 4 x 4096, batch 8192: fp16, bf16, TF32, fp32", 20, steps.mlp_step),
        "block": Part("a step of a transformer block, B16 T1024 d1024", 10, steps.block_step),
        "cnn": Part("a step of a small CNN, batch 256", 10, steps.cnn_step),
        "latency": Part("a step of LeNet, and its waits", 10, steps.lenet_step, steps.sync_figures),
        "int8": Part("a product of int8 with int32 sums, 4096^3", 10, products.codes),
        "fp8": Part("a product of FP8 by nvmath-python, where it is installed, 8192^3", 10, eights.eights),
        "memory": Part("the ledger beside the memory pool", 10, figures=steps.memory_figures),
    }
)
"""Name -> part; in this order."""
ROOF = "roof"
SEEN = MappingProxyType({"H100": 700.0, "H200": 700.0})
"""Part of a GPU's name -> TFLOP/s that large fp16 products should reach on it (798 were seen)."""


@dataclass(frozen=True, slots=True)
class Roof:
    """What the GPU gives at best: a contender's best rate at a copy and at a large product.

    Attributes:
        rates: unit -> amount a second.
    """

    rates: Mapping[str, float]

    @classmethod
    def of(cls, timed: Sequence[Timed]) -> Roof:
        """Return the best rates among what was timed."""
        best: dict[str, float] = {}
        for each in timed:
            for name in each.seconds:
                best[each.unit] = max(best.get(each.unit, 0.0), each.rate(name) or 0.0)
        return cls(best)


@dataclass(slots=True)
class Run:
    """What a run came to.

    Attributes:
        roof: the GPU's.
        timed: every job, those of the roof first.
        counted: figures that are counted.
        faults: part -> why it ended early.
        tiny: whether the sizes were such that times say nothing.
    """

    roof: Roof
    timed: list[Timed]
    counted: list[Figure] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    tiny: bool = False

    def figures(self) -> list[Figure]:
        """Return every figure that has an aim; of tiny sizes those that are counted."""
        if self.tiny:
            return self.counted
        return [figure for each in self.timed for figure in each.figures(self.roof.rates)] + self.counted

    def all_faults(self) -> list[str]:
        """Return a line for each contender and each part that failed."""
        lines = [
            f"{each.part}: {each.what}, {name}: {why}"
            for each in self.timed
            for name, why in each.faults.items()
        ]
        return lines + [f"{part}: {why}" for part, why in self.faults.items()]

    def all_left_out(self) -> list[str]:
        """Return a line for each contender that is not there, and no fault of the run's."""
        return [
            f"{each.part}: {each.what}, {name}: {why}"
            for each in self.timed
            for name, why in each.left_out.items()
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON has of it."""
        return {
            "roof": dict(self.roof.rates), "jobs": [each.as_dict() for each in self.timed],
            "figures": [each.as_dict() for each in self.figures()], "faults": self.all_faults(),
        }  # fmt: skip


def run_parts(
    bench: Bench, names: Sequence[str], on_job: Callable[[str, str], object] = "{}: {}".format
) -> Run:
    """Measure the roof, then the parts; what fails is kept in words, and the rest goes on.

    Args:
        bench: what to measure with.
        names: of the parts, in the order wanted.
        on_job: called with part and job before each job.
    """
    with quiet_collector():
        return _run_parts(bench, names, on_job)


def _run_parts(bench: Bench, names: Sequence[str], on_job: Callable[[str, str], object]) -> Run:
    roofs = []
    for make in (passes.roof_copy, products.roof_product):
        job = make(bench)
        on_job(ROOF, job.what)
        roofs.append(run_job(bench, ROOF, job))
        del job
        _tidy(bench)
    run = Run(Roof.of(roofs), roofs, tiny=bench.sizes == TINY)
    if not run.tiny:
        run.counted += _of_this_chip(bench, roofs[-1])
    for name in names:
        try:
            _run_part(bench, name, run, on_job)
        except FAULTS as fault:
            run.faults[name] = in_words(fault)
        _tidy(bench)
    return run


def _of_this_chip(bench: Bench, product: Timed) -> list[Figure]:
    """Return the rate of our largest product, on GPUs of which it is known what they can do."""
    name, rate = bench.backend.describe().get("GPU", ""), product.rate()
    return [
        Figure(f"roof: TFLOP/s of our largest fp16 product on an {chip}", rate / 1e12, least, at_most=False)
        for chip, least in SEEN.items()
        if chip in name and rate
    ]


def _run_part(bench: Bench, name: str, run: Run, on_job: Callable[[str, str], object]) -> None:
    part = PARTS[name]
    jobs = iter(()) if part.jobs is None else part.jobs(bench)
    while (job := next(jobs, None)) is not None:
        on_job(name, job.what)
        run.timed.append(run_job(bench, name, job))
        del job  # its arrays go before the next ones are made
        _tidy(bench)
    if part.figures is not None:
        on_job(name, "counting")
        run.counted += part.figures(bench)


def _tidy(bench: Bench) -> None:
    """Give back to the GPU what no array uses, ours and torch's: each keeps a pool."""
    memory = getattr(bench.backend, "memory", None)
    if memory is not None:
        memory.release()
    if bench.torch is not None:
        bench.torch.forget()
