"""The error bounds of sums by name: honest kernels keep them, and wrong ones are found by them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import formats, functional
from minimp.backend import default_backend
from minimp.checks import check_events
from minimp.checks.accumulation import edge_of, sum_of
from minimp.checks.running import arithmetic_of
from minimp.errors import SettingError
from minimp.modes import listen
from minimp.tape import Event
from minimp_backends.rows import RowKernels
from tests.arrays import flushes_subnormals
from tests.ops.samples import FLOATS, SAMPLES, Sample, run
from tests.ops.sums import WAYS

NAMES = ("exact", "kahan", "float16", "chunked:4", "tensorcore:ampere")
MORE = (
    "float64", "float32:sequential", "pairwise", "splitk:3", "float16:fma", "bfloat16", "tensorcore:volta",
    "tensorcore:hopper",
)  # fmt: skip
SUMMING = {
    "matmul", "linear", "conv2d", "sum", "mean", "softmax", "log_softmax", "mse_loss", "nll_loss", "getitem",
    "avg_pool2d", "max_pool2d", "layer_norm", "rms_norm", "linalg_vector_norm", "mul", "expand",
}  # fmt: skip


@pytest.mark.parametrize("sample", [s for s in SAMPLES if s.op in SUMMING and s.options != "wider"], ids=str)
@pytest.mark.parametrize("name", [*NAMES, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)])
def test_every_sum_keeps_its_bound_by_every_name(name: str, sample: Sample) -> None:
    """Oracle: float64 references and gammas, for every format that the name takes; forward and backward."""
    ran = 0
    for fmt in FLOATS[1:]:
        for kind in ("normal", "large", "subnormal"):
            if kind != "normal" and fmt in ("float32", "bfloat16") and flushes_subnormals():
                continue  # they are subnormal, or products of theirs are
            try:
                with mp.accumulate(name):
                    events = run(sample, fmt, kind)
            except SettingError:
                assert name.startswith("tensorcore:")
                continue
            ran += 1
            found = check_events(events)
            assert found, f"{name}, {fmt}, {kind} numbers\n{found}"
    assert ran


def recorded(call: Any) -> list[Event]:
    """The events of a call."""
    events: list[Event] = []
    with listen(events.append):
        call()
    return events


def _narrow_matmul(self: Any, a: Any, b: Any, *, accumulate: str) -> Any:
    a, b = (self.to_host(self.wide(each)) for each in (a, b))
    made = formats.matmul(a, b, fmt="float32", accumulate="float16", output="float32")
    return self.from_host(made)


def test_a_product_summed_in_float16_is_found_where_float32_was_asked(monkeypatch: Any) -> None:
    """Fault: a kernel that sums in float16 whatever the name; each name that promises more finds it."""
    random = np.random.default_rng(2)
    a, b = (mp.tensor(random.standard_normal(s), dtype="float16") for s in ((16, 64), (64, 16)))
    for name in ("float32", "float64", "exact", "pairwise", "kahan", "tensorcore:ampere"):
        with mp.accumulate(name):
            assert check_events(recorded(lambda: a @ b)), name
            with monkeypatch.context() as planted:
                planted.setattr(type(default_backend()), "matmul", _narrow_matmul)
                events = recorded(lambda: a @ b)
        assert not check_events(events), name
    with mp.accumulate("float16"):
        assert check_events(events := recorded(lambda: a @ b))
    assert events[0].node.accumulate == "float16"


OPS = {
    "sum": lambda x: x.sum(1),
    "mean": lambda x: x.mean(1),
    "softmax": functional.softmax,
    "log_softmax": functional.log_softmax,
    "mse_loss": lambda x: functional.mse_loss(x, x * 0.5),
    "layer_norm": lambda x: functional.layer_norm(x, 200),
    "rms_norm": lambda x: functional.rms_norm(x, 200),
    "linalg_vector_norm": lambda x: functional.vector_norm(x, 2, 1),
}


@pytest.mark.parametrize("op", list(OPS))
def test_a_sum_in_float16_is_found_where_float32_was_asked(op: str, monkeypatch: Any) -> None:
    """Fault: sums of 200 float32 terms kept in float16; under "float16" itself they are right."""
    x = mp.tensor(np.random.default_rng(3).uniform(0.5, 1.5, (4, 200)), dtype="float32")
    honest = type(default_backend()).sum

    def narrow(self: Any, array: Any, *given: Any, accumulate: str, **options: Any) -> Any:
        del accumulate
        return honest(self, array, *given, accumulate="float16", **options)

    assert check_events(recorded(lambda: OPS[op](x)))
    with mp.accumulate("float16"):
        assert check_events(recorded(lambda: OPS[op](x)))
    monkeypatch.setattr(type(default_backend()), "sum", narrow)
    for faster in ("along_axis", "layer_norm", "rms_norm"):  # which sum by BLAS, or in a kernel
        monkeypatch.setattr(type(default_backend()), faster, getattr(RowKernels, faster))
    assert not check_events(recorded(lambda: OPS[op](x)))


@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_the_forward_stage_finds_a_kernel_that_sums_in_float16(kind: str, monkeypatch: Any) -> None:
    """Fault: float32 was asked for in a mixed step, and the kernels of products sum in float16."""
    mp.manual_seed(1)
    body = [mp.nn.Linear(48, 32)] if kind == "mlp" else [mp.nn.Conv2d(3, 8, 3), mp.nn.Flatten()]
    model = mp.nn.Sequential(*body, mp.nn.ReLU(), mp.nn.Linear(32, 4))
    x = np.random.default_rng(4).standard_normal((32, 48) if kind == "mlp" else (32, 3, 4, 4))
    sgd = mp.optim.SGD(model.parameters(), lr=0.1)
    step = mp.TrainStep(model, functional.cross_entropy, sgd, "mixed-fp16")

    def forward() -> Any:
        stages = step.stages(x.astype(np.float32), np.arange(32) % 4)
        return next(stage for stage in stages if stage.name == "forward").check()

    assert forward()
    for kernel in ("matmul", "conv2d"):
        honest = getattr(type(default_backend()), kernel)

        def planted(self: Any, *given: Any, accumulate: str, honest: Any = honest) -> Any:
            del accumulate
            return honest(self, *given, accumulate="float16")

        monkeypatch.setattr(type(default_backend()), kernel, planted)
    assert not forward()


def test_a_loss_that_overflows_in_its_sum_is_no_fault() -> None:
    """Oracle: 64 squares of about 10^4 pass 65504 in float16, though their mean does not: no claim."""
    mp.manual_seed(2)
    model = mp.nn.Linear(4, 8)
    sgd = mp.optim.SGD(model.parameters(), lr=0.1)
    recipe = mp.recipes["mixed-fp16"].with_(accumulate="float16")
    step = mp.TrainStep(model, functional.mse_loss, sgd, recipe)
    x, y = np.ones((8, 4), np.float32), np.full((8, 8), 100.0, np.float32)
    stage = next(stage for stage in step.stages(x, y) if stage.name == "loss")
    assert np.isposinf(stage.tensors["loss"].item())
    assert stage.check()


def test_one_term_may_overflow_a_narrower_sum() -> None:
    """Oracle: 70000 is a float32, and infinite as a float16 term: nothing is claimed; in float32 it is."""
    x = np.array([[7e4], [6e4]])
    error = {n: arithmetic_of(formats.float32, n).number(x).sum(1).error for n in ("float16", "float32")}
    assert np.isposinf(error["float16"][0])
    assert np.isfinite(error["float16"][1])
    assert (error["float32"] < 1e-2).all()


def test_chunks_of_small_terms_are_cut_at_float16s_smallest() -> None:
    """Oracle: formats.matmul: 2^-26 a chunk is lost whole in float16; the floor allows for each chunk."""
    small = np.full((1, 12), 2.0**-28)
    got = formats.matmul(small, np.ones((12, 1)), fmt="float32", accumulate="chunked:4", output="float32")
    assert got.item() == 0.0
    rule = sum_of("chunked:4", 12, formats.float32)
    assert small.sum() <= rule.gamma * small.sum() + rule.floor
    assert rule.floor < 4 * 2.0**-24


def test_edges_are_those_of_the_running_sum() -> None:
    """Oracle: 65520 is the first number that rounds to infinity in float16."""
    for name in WAYS:
        narrow = name.startswith(("float16", "chunked"))
        if name not in ("exact", "bfloat16"):
            wanted = 65520.0 if narrow else edge_of(formats.float32)
            assert sum_of(name, 8, formats.float32, formats.float16).edge == wanted, name
