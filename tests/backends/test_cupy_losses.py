"""Cross-entropy by kernels of ours, beside log_softmax and nll_loss one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import formats, functional, nn, optim
from minimp.errors import DataError, FormatError, ShapeError
from minimp.modes import listen
from minimp_backends.strict.counts import DEVICE
from tests.tolerances import assert_close

Array = np.ndarray[Any, Any]
STORED = {"float32": "float", "float16": "half", "bfloat16": "bfloat16"}
PARITY = {"float32": "parity_op_fp32", "float16": "parity_op_fp16", "bfloat16": "parity_op_bf16"}
BACKWARD = {
    "float32": "parity_gradient_fp32", "float16": "parity_gradient_fp16", "bfloat16": "parity_gradient_bf16",
}  # fmt: skip
ROWS, CLASSES = 9, 13
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "another label left out": {"ignore_index": 3},
    "smoothed": {"label_smoothing": 0.1},
    "smoothed rows": {"label_smoothing": 0.3, "reduction": "none"},
    "all smooth": {"label_smoothing": 1.0},
}


def numbers(shape: tuple[int, ...], name: str, seed: int = 0) -> Array:
    """Return numbers of many magnitudes."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * 2.0 ** rng.uniform(-3, 3, shape)).astype(formats.get(name).dtype)


def labels(rows: int = ROWS, classes: int = CLASSES, left_out: int = -100) -> Array:
    """Return labels, some of which are left out."""
    made = np.random.default_rng(3).integers(0, classes, rows)
    made[1::4] = left_out
    return made


def labels_for(how: str) -> Array:
    """Return labels for a row of OPTIONS."""
    return labels(left_out=OPTIONS[how].get("ignore_index", -100))


def run(
    x: Array, target: Array, weight: Array | None = None, backend: str = "cupy", *, apart: bool = False,
    **options: Any,
) -> list[Array]:  # fmt: skip
    """Return the loss and the gradient of the scores; `apart`: by the two ops, as when somebody listens."""
    name = formats.get(x.dtype).name
    scores = mp.tensor(x, requires_grad=True, dtype=name, backend=backend)
    weights = (
        None if weight is None else mp.tensor(weight, dtype=formats.get(weight.dtype).name, backend=backend)
    )
    where = mp.tensor(target, backend=backend)

    def loss() -> mp.Tensor:
        return functional.cross_entropy(scores, where, weights, **options)

    if apart:
        with listen(lambda event: None):
            made = loss()
    else:
        made = loss()
    made.backward(mp.tensor(numbers(made.shape, name, 7), dtype=name, backend=backend))
    return [made.detach().numpy(), scores.grad.numpy()]


def ran_of(device: Any) -> set[str]:
    """Return the kernels that ran, and forget them."""
    ran = set(device.ran)
    device.ran.clear()
    return ran


@pytest.mark.parametrize("weighted", [False, True], ids=["bare", "weighted"])
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("how", OPTIONS)
def test_losses_are_those_of_the_two_ops(device: Any, how: str, stored: str, weighted: bool) -> None:
    """Oracle: log_softmax and nll_loss on the device, to the bit; smoothed rows are summed in one order."""
    x, weight = numbers((ROWS, CLASSES), stored), abs(numbers((CLASSES,), stored, 1)) if weighted else None
    made = run(x, labels_for(how), weight, **OPTIONS[how])
    kind = STORED[stored]
    assert ran_of(device) == {f"cross_entropy_{kind}", f"cross_entropy_gradient_{kind}"}
    wanted = run(x, labels_for(how), weight, apart=True, **OPTIONS[how])
    assert f"softmax_{kind}" in ran_of(device)
    for one, other in zip(made, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one.astype(np.float64), other.astype(np.float64), strict=True)


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("how", OPTIONS)
def test_losses_are_those_of_the_cpu(device: Any, how: str, stored: str) -> None:
    """Oracle: the numpy backend, within the tolerances of an op and of its gradient."""
    x, weight = numbers((ROWS, CLASSES), stored, 2), abs(numbers((CLASSES,), stored, 1))
    made, wanted = (run(x, labels_for(how), weight, backend, **OPTIONS[how]) for backend in ("cupy", "numpy"))
    for one, other, row in zip(made, wanted, (PARITY, BACKWARD), strict=True):
        assert_close(one, other, row[stored])
    assert f"cross_entropy_{STORED[stored]}" in ran_of(device)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16", "uint32", "uint64"])
def test_labels_of_any_integers_may_be_left_out(device: Any, dtype: str) -> None:
    """Oracle: int64 labels; where there is no -1, the mark of what is left out must not become a class."""
    x, left_out = numbers((ROWS, CLASSES), "float32"), 3
    wanted = run(x, labels(left_out=left_out), ignore_index=left_out)
    got = run(x, labels(left_out=left_out).astype(dtype), ignore_index=left_out)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_numbers_that_are_odd(device: Any) -> None:
    """Oracle: the two ops: NaN, infinities, rows of -inf alone, labels of probability 0, none that counts."""
    x = numbers((8, 6), "float32", 4)
    x[0, 2], x[1, 3], x[2, 1], x[3], x[4, 0] = np.nan, np.inf, -np.inf, -np.inf, 3e38
    for target in (np.array([2, 3, 1, 0, 1, 5, -100, 0]), np.full(8, -100)):
        for options in ({}, {"reduction": "none"}, {"label_smoothing": 0.5, "reduction": "none"}):
            with np.errstate(all="ignore"):
                made, wanted = (run(x, target, apart=apart, **options) for apart in (False, True))
            for one, other in zip(made, wanted, strict=True):
                assert_close(one, other, "parity_gradient_fp32")
    assert "cross_entropy_float" in ran_of(device)


def test_scores_of_any_layout(device: Any) -> None:
    """Oracle: the two ops: images of scores, one sample, labels of 32 bits, rows that lie apart."""
    x = numbers((2, 5, 3, 4), "float16", 5)
    target = np.random.default_rng(6).integers(0, 5, (2, 3, 4))
    one = numbers((7,), "float32", 6)
    for scores, where in ((x, target), (x, target.astype(np.int32)), (one, np.array(4))):
        made, wanted = (run(scores, where, apart=apart) for apart in (False, True))
        for first, second in zip(made, wanted, strict=True):
            np.testing.assert_array_equal(first, second, strict=True)
    assert {"cross_entropy_half", "cross_entropy_float"} <= ran_of(device)


def test_autocast_asks_for_float32(device: Any) -> None:
    """Oracle: the two ops under the same policy, to the bit; weights in 16 bits go through them."""
    x = numbers((ROWS, CLASSES), "float16", 8)
    for weight in (None, np.ones(CLASSES, np.float32), np.ones(CLASSES, np.float16)):
        with mp.autocast("float16"):
            made, wanted = (run(x, labels(), weight, apart=apart) for apart in (False, True))
        assert made[0].dtype == np.float32
        for one, other in zip(made, wanted, strict=True):
            np.testing.assert_array_equal(one, other, strict=True)
        fused = weight is None or weight.dtype == np.float32
        assert ("cross_entropy_float" in ran_of(device)) == fused


def test_a_policy_that_parts_the_two_is_obeyed(device: Any) -> None:
    """Oracle: the two ops, of which one computes in float16 and one in float32."""
    x, policy = (
        numbers((ROWS, CLASSES), "float16", 9),
        mp.policies["torch-cuda"].with_(log_softmax="unlisted"),
    )
    with mp.autocast("float16", policy=policy):
        made, wanted = (run(x, labels(), apart=apart) for apart in (False, True))
    for one, other in zip(made, wanted, strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
    assert not {name for name in ran_of(device) if name.startswith("cross_entropy")}


def test_what_the_kernels_do_not_take(device: Any) -> None:
    """Oracle: the kernels that ran; float64, sums by another name, no rows, array functions, a recording."""
    half, double = (numbers((ROWS, CLASSES), name) for name in ("float16", "float64"))
    made, wanted = (run(double, labels(), None, backend) for backend in ("cupy", "numpy"))
    for one, other in zip(made, wanted, strict=True):
        assert_close(one, other, "fp64_same_maths")
    with mp.accumulate("float16"):
        run(half, labels())
    run(half[:0], labels(0), reduction="sum")
    with device.use_route("arrays"):
        run(half, labels())
    device.rounds_in_sight = True
    run(half, labels())
    assert not {name for name in ran_of(device) if name.startswith("cross_entropy")}


def test_probabilities_stay_with_array_functions(device: Any) -> None:
    """Oracle: the numpy backend; the target is one distribution for each row."""
    x, target = numbers((4, 5), "float32", 1), np.full((4, 5), 0.2, np.float32)
    made, wanted = (run(x, target, None, backend) for backend in ("cupy", "numpy"))
    for one, other in zip(made, wanted, strict=True):
        assert_close(one, other, "parity_gradient_fp32")
    assert "cross_entropy_float" not in ran_of(device)


def test_bad_labels_and_settings_are_refused_as_before(device: Any) -> None:
    """Oracle: the texts of nll_loss; no kernel ran."""
    x = mp.tensor(numbers((3, 4), "float32"), requires_grad=True, backend="cupy")

    def ask(target: Any, *more: Any, **options: Any) -> Any:
        return functional.cross_entropy(x, mp.tensor(target, backend="cupy"), *more, **options)

    with pytest.raises(DataError, match="labels from 0 to 3, got 4 in row 1"):
        ask(np.array([0, 4, 1]))
    with pytest.raises(ShapeError, match=r"labels \(N,\), got \(3, 4\) and \(2,\)"):
        ask(np.array([0, 1]))
    with pytest.raises(FormatError):
        ask(np.array([0, 1, 2]), mp.tensor(np.ones(4, np.float16), backend="cupy"))
    assert not {name for name in ran_of(device) if name.startswith("cross_entropy")}


@pytest.mark.parametrize("how", ["plain", "smoothed", "none"])
def test_second_derivatives(device: Any, how: str) -> None:
    """Oracle: those on NumPy."""
    x, second = numbers((4, 5), "float32", 3), []
    for backend in ("cupy", "numpy"):
        scores = mp.tensor(x, requires_grad=True, backend=backend)
        loss = functional.cross_entropy(
            scores, mp.tensor(labels(4, 5), backend=backend),
            mp.tensor(np.arange(1, 6, dtype=np.float32), backend=backend), **OPTIONS[how],
        )  # fmt: skip
        (slope,) = mp.grad((loss * loss).sum(), scores, create_graph=True)
        second.append(mp.grad((slope * slope).sum(), scores)[0].numpy())
    assert_close(*second, "parity_gradient_fp32")
    assert "cross_entropy_float" in ran_of(device)


def test_recomputing_gives_the_same(device: Any) -> None:
    """Oracle: the gradient without it, bit for bit."""
    x, found = numbers((4, 5), "float32", 3), []
    target = mp.tensor(labels(4, 5), backend="cupy")
    for again in (False, True):
        scores = mp.tensor(x, requires_grad=True, backend="cupy")
        loss = (
            mp.recompute(functional.cross_entropy, scores, target)
            if again
            else functional.cross_entropy(scores, target)
        )
        loss.backward()
        found.append(scores.grad.numpy())
    np.testing.assert_array_equal(*found)
    assert "cross_entropy_gradient_float" in ran_of(device)


def test_the_host_waits_for_nothing_and_little_is_kept(device: Any) -> None:
    """Oracle: the device's counts: no copy and no wait in backward, one array of the scores' size in all."""
    rows, classes = 50, 400
    x = mp.tensor(numbers((rows, classes), "float16"), requires_grad=True, dtype="float16", backend="cupy")
    target = mp.tensor(labels(rows, classes), backend="cupy")
    with DEVICE.counting() as forward:
        loss = functional.cross_entropy(x, target)
    with DEVICE.counting() as backward:
        loss.backward()
    assert (backward.syncs, backward.to_host, backward.to_device) == (0, 0, 0)
    assert forward.to_device == 0
    assert forward.allocated_bytes < rows * classes  # less than half of the scores' own
    assert backward.allocated_bytes < 1.5 * 2 * rows * classes
    assert ran_of(device) == {"cross_entropy_half", "cross_entropy_gradient_half"}


def test_a_training_step_runs_them(device: Any) -> None:
    """Oracle: the kernels that ran in a mixed-precision step, and the loss of the step on NumPy."""
    x, target, found = numbers((6, 8), "float32", 5), np.array([0, 1, 2, 0, 1, 2]), []
    for backend in ("cupy", "numpy"):
        with mp.use_backend(backend):
            mp.manual_seed(0)
            model = nn.Linear(8, 3)
            step = mp.TrainStep(
                model, functional.cross_entropy, optim.SGD(model.parameters(), lr=0.1), "mixed-fp16"
            )
            found.append([step(x, target).loss for _ in range(3)])
    assert_close(*found, "parity_op_fp16")
    assert {"cross_entropy_float", "cross_entropy_gradient_float"} <= ran_of(device)


def test_models_of_matrix_units_leave_sums_to_the_kernels(device: Any) -> None:
    """Oracle: the kernels that ran; such a name says how products are summed, and there are none here."""
    with mp.accumulate("tensorcore:hopper"):
        made = run(numbers((ROWS, CLASSES), "float16"), labels())
    assert "cross_entropy_half" in ran_of(device)
    for one, other in zip(made, run(numbers((ROWS, CLASSES), "float16"), labels()), strict=True):
        np.testing.assert_array_equal(one, other, strict=True)
