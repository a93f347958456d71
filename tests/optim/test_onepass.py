"""Many parameters in one pass; oracle: the same run with each parameter by itself, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import optim
from minimp.backend import default_backend
from minimp.optim import onepass
from minimp.optim.work import jobs_of
from tests.arrays import host
from tests.optim.helpers import SEED, parameter

SHAPES = [(3,), (), (0,), (4, 5), (0, 2), (60, 50), (1,), (7, 1, 2), (33,), (2100,), (9,), (5, 5), (2,)]
KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1}),
    ("AdamW", {"lr": 0.01, "amsgrad": True}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    ("Lion", {"lr": 0.01, "weight_decay": 0.1}),
    ("LAMB", {"lr": 0.01}),
)
WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("float32", {}),
    ("float64", {}),
    ("float16", {"master_weights": True}),
    ("bfloat16", {"update": "fp32"}),
    ("bfloat16", {"update": "stochastic"}),
    ("float16", {"update": "stochastic"}),
    ("bfloat16", {"update": "kahan"}),
    ("float16", {"update": "kahan"}),
)


def train(kind: str, dtype: str, options: dict[str, Any]) -> tuple[list[Any], optim.Optimizer]:
    """Take six steps over two groups; some parameters miss some gradients, some gradients are views."""
    mp.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    params = [parameter(rng.standard_normal(shape), dtype) for shape in SHAPES]
    groups = [{"params": params[::2]}, {"params": params[1::2], "lr": 0.03}]
    optimizer: optim.Optimizer = getattr(optim, kind)(groups, **options)
    wide = "float64" if dtype == "float64" else "float32"
    for number in range(6):
        grads = {p: rng.standard_normal(p.shape[::-1]).astype(wide).T for p in params}
        for index in range(number % 3):
            del grads[params[3 * index + number % 2]]
        if number == 4:
            optimizer.param_groups[1]["lr"] = 0.07
        optimizer.step(gradients=grads)
    return params, optimizer


def everything(params: list[Any], optimizer: optim.Optimizer) -> list[Any]:
    """Return all bits of parameters and state."""
    kept = []
    for param in params:
        assert type(param.array) is default_backend().xp.ndarray
        state = optimizer.state.get(param, {})
        arrays = {
            k: (v.shape, v.dtype, host(v).tobytes()) if hasattr(v, "shape") else v for k, v in state.items()
        }
        kept.append((param.shape, host(param).tobytes(), dict(sorted(arrays.items()))))
    return kept


@pytest.mark.parametrize(("small", "most"), [(16384, 65536), (64, 100), (3000, 2500)])
@pytest.mark.parametrize(("dtype", "way"), WAYS, ids=[f"{d}-{'-'.join(map(str, w))}" for d, w in WAYS])
@pytest.mark.parametrize(("kind", "options"), KINDS, ids=[f"{k}-{len(o)}" for k, o in KINDS])
def test_bundles_give_the_bits_of_one_by_one(
    kind: str, options: dict[str, Any], dtype: str, way: dict[str, Any], small: int, most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Oracle: the run in which every parameter goes through the kernel by itself; the draws too."""
    monkeypatch.setattr(onepass, "SMALL", 0)
    alone = everything(*train(kind, dtype, {**options, **way}))
    drawn = mp.get_rng_state()
    monkeypatch.setattr(onepass, "SMALL", small)
    monkeypatch.setattr(onepass, "MOST", most)
    assert everything(*train(kind, dtype, {**options, **way})) == alone
    assert mp.get_rng_state() == drawn


def sizes_of(optimizer: optim.Optimizer, grads: dict[Any, Any]) -> list[list[int]]:
    """Return the sizes of the parameters in each bundle."""
    jobs = jobs_of(optimizer, grads)
    return [[job.grad.size for job in bundle] for bundle in onepass.bundles(jobs, together=True)]


def test_what_is_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: by hand: large ones alone, at most MOST elements; one group, format and age."""
    monkeypatch.setattr(onepass, "SMALL", 10)
    monkeypatch.setattr(onepass, "MOST", 12)
    sizes = [5, 6, 10, 2, 3]
    crowded = optim.SGD([parameter(np.ones(size)) for size in (5, 6, 10, 7, 5, 1)])
    crowd = {p: np.ones(p.shape, np.float32) for p in crowded.param_groups[0]["params"]}
    assert sizes_of(crowded, crowd) == [[10], [5, 6], [7, 5], [1]]
    params = [parameter(np.ones(size)) for size in sizes] + [parameter(np.ones(4), "bfloat16")]
    grads = {p: np.ones(p.shape, np.float32) for p in params}
    optimizer = optim.Adam([{"params": params[:3]}, {"params": params[3:], "lr": 0.1}])
    assert sizes_of(optimizer, grads) == [[10], [5, 6], [2, 3], [4]]
    optimizer.step(gradients={params[0]: grads[params[0]], params[3]: grads[params[3]]})
    assert sizes_of(optimizer, grads) == [[10], [5], [6], [2], [3], [4]]
    in_order = optim.SGD([parameter(np.ones(size), "bfloat16") for size in sizes], update="stochastic")
    drawn = {p: np.ones(p.shape, np.float32) for p in in_order.param_groups[0]["params"]}
    assert sizes_of(in_order, drawn) == [[5, 6], [10], [2, 3]]


@pytest.mark.host("numpy() copies from a device")
def test_arrays_of_a_bundle_are_the_parameters_own() -> None:
    """Oracle: `.numpy()` shares the memory of a parameter after a step; its neighbours stay as they are."""
    params = [parameter(np.zeros(3)) for _ in range(3)]
    optimizer = optim.Adam(params, lr=0.5)
    optimizer.step(gradients={p: np.ones(3, np.float32) for p in params})
    shared = params[1].detach().numpy()
    before = [p.array.tobytes() for p in params]
    shared[:] = 7.0
    assert params[1].array.tolist() == [7.0] * 3
    assert [params[i].array.tobytes() for i in (0, 2)] == [before[0], before[2]]
    assert all(p.array.base is None for p in params)


def test_state_pieces_are_of_one_memory_but_apart() -> None:
    """Oracle: a second run that was saved and loaded between any two steps, which cuts every piece apart."""
    params = [parameter(np.ones(5), "float16") for _ in range(4)]
    other = [parameter(np.ones(5), "float16") for _ in range(4)]
    first, second = (optim.AdamW(each, lr=0.1, master_weights=True) for each in (params, other))
    for number in range(4):
        grads = np.random.default_rng(number).standard_normal((4, 5)).astype(np.float32)
        first.step(gradients=dict(zip(params, grads, strict=True)))
        second.step(gradients=dict(zip(other, grads, strict=True)))
        second.load_state_dict(second.state_dict())
    assert everything(params, first) == everything(other, second)


def test_low_copies_of_a_bundle_have_wide_twins_where_they_pay() -> None:
    """Oracle: the float32 twin holds the values of the 16-bit array, whichever way it was made."""
    param, small = parameter(np.ones(3000), "float16"), parameter(np.ones(3), "float16")
    optimizer = optim.SGD([param, small], lr=0.3, master_weights=True)
    optimizer.step(gradients={p: np.full(p.shape, 0.37, np.float32) for p in (param, small)})
    for each in (param, small):
        wide = each.backend.wide(each.array)
        assert wide.dtype == np.float32
        assert np.array_equal(host(wide), host(each).astype(np.float32))
