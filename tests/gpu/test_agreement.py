"""A device beside the CPU: the same bits where nothing is summed, the bound of a sum where it is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import minimp as mp
from minimp import data, formats, functional, models, nn, ops, optim
from minimp.backend import get_backend
from minimp.errors import DeviceError
from minimp.formats.dice import Counter
from minimp_backends.cupy_convolution import ENGINES
from minimp_backends.kernels.registry import KERNELS
from tests.gpu.recording import launch_on
from tests.kernels.agreement import expected, mismatches
from tests.kernels.rungs import some
from tests.kernels.samples import SAMPLES
from tests.tolerances import assert_bound, assert_close, dot_bound

Array = npt.NDArray[Any]
HOST = get_backend("numpy")
LOW = ("float16", "bfloat16")
SIZE = 5000
REPEATS = 10


def numbers(shape: tuple[int, ...], name: str, seed: int = 0, spread: float = 3.0) -> Array:
    """Return numbers of many magnitudes."""
    rng = np.random.default_rng(seed)
    wide = rng.standard_normal(shape) * 2.0 ** rng.uniform(-spread, spread, shape)
    return wide.astype(formats.get(name).dtype)


def bits(array: Array) -> Array:
    """Return the bit patterns; each NaN the same."""
    kept = np.array(array)
    with np.errstate(all="ignore"):
        nan = np.isnan(kept.astype(np.float64)) if kept.dtype.kind in "fV" else np.zeros(kept.shape, bool)
    kept[nan] = 0 if kept.dtype.kind in "iub" else np.asarray(1.5, kept.dtype)
    return kept.view(f"u{kept.dtype.itemsize}")


# ---- one op ----------------------------------------------------------------------------------------------

ELEMENTWISE = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "relu": lambda a, b: functional.relu(a),
    "abs": lambda a, b: a.abs(),
    "maximum": lambda a, b: a.maximum(b),
    "where": lambda a, b: ops.where(a > b, a, b),
    "half": lambda a, b: a.half(),
    "bfloat16": lambda a, b: a.bfloat16(),
}


@pytest.mark.parametrize("name", ["float32", *LOW])
@pytest.mark.parametrize("op", ELEMENTWISE)
def test_elementwise_ops_give_the_bits_of_the_cpu(device: Any, op: str, name: str) -> None:
    """Oracle: the numpy backend, bit for bit: one rounding of IEEE 754 has no choice. No subnormals."""
    a, b = numbers((SIZE,), name, 1), numbers((SIZE,), name, 2)
    made = {}
    for backend in (device.name, "numpy"):
        x, y = (mp.tensor(each, dtype=name, backend=backend) for each in (a, b))
        made[backend] = ELEMENTWISE[op](x, y).numpy()
    np.testing.assert_array_equal(bits(made[device.name]), bits(made["numpy"]))


def test_casts_give_the_bits_of_the_cpu(device: Any) -> None:
    """Oracle: the numpy backend; every rounding, subnormals, ties, infinities and NaN among the numbers."""
    patterns = np.random.default_rng(3).integers(0, 1 << 32, SIZE, np.uint32).view(np.float32)
    values = np.concatenate([patterns, numbers((SIZE,), "float32", 4, 20.0), np.float32([0, -0.0, 1e-40])])
    there = device.from_host(values)
    for name in LOW:
        form = formats.get(name)
        for rounding in formats.ROUNDINGS:
            dice = (Counter(5), Counter(5)) if rounding.startswith("stochastic") else (None, None)
            made = device.to_host(device.cast(there, form, rounding, None, dice[0]))
            wanted = HOST.cast(values, form, rounding, None, dice[1])
            np.testing.assert_array_equal(bits(made), bits(wanted), err_msg=f"{name}, {rounding}")


@pytest.mark.parametrize("name", ["float32", *LOW])
@pytest.mark.parametrize(
    "shape", [((33, 65), (65, 17)), ((2, 3, 16, 40), (2, 3, 40, 24)), ((64, 1), (1, 64))]
)
def test_products_keep_their_bound(device: Any, shape: tuple[tuple[int, ...], ...], name: str) -> None:
    """Oracle: float64 products of the same numbers, and gamma_K sum |a||b| with float32 sums."""
    a, b = (numbers(each, name, seed) for seed, each in enumerate(shape))
    made = device.matmul(device.from_host(a), device.from_host(b), accumulate="float32")
    assert made.dtype == np.float32
    x, y = a.astype(np.float64), b.astype(np.float64)
    bound = dot_bound(x @ y, np.abs(x) @ np.abs(y), a.shape[-1], "float32", "float32")
    assert_bound(device.to_host(made), x @ y, bound, "dot_product")


# ---- convolutions ----------------------------------------------------------------------------------------

CONVOLUTIONS = {
    "padded": ((4, 16, 19, 17), (24, 16, 3, 3), {"padding": (1, 1)}),
    "strides": ((2, 8, 20, 21), (16, 8, 5, 3), {"stride": (2, 3), "padding": (2, 0)}),
    "dilated groups": ((2, 12, 15, 15), (18, 4, 3, 3), {"dilation": (2, 2), "groups": 3}),
    "each channel": ((2, 16, 12, 12), (16, 1, 3, 3), {"padding": (1, 1), "groups": 16}),
}


@pytest.mark.parametrize("name", ["float32", *LOW])
@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("engine", ENGINES)
def test_convolutions_keep_their_bound(kernel_device: Any, engine: str, case: str, name: str) -> None:
    """Oracle: float64, float32 sums and one rounding, by either engine; and the same bits each time."""
    image, kernel, geometry = CONVOLUTIONS[case]
    x0, w0, b0 = (numbers(each, name, seed, 1.0) for seed, each in enumerate((image, kernel, kernel[:1])))
    wide = [mp.tensor(each.astype(np.float64), requires_grad=True, backend="numpy") for each in (x0, w0, b0)]
    y64 = functional.conv2d(*wide, **geometry)
    g0 = numbers(y64.shape, name, 3, 1.0)
    y64.backward(mp.tensor(g0.astype(np.float64), backend="numpy"))
    sizes = [mp.tensor(np.abs(each).astype(np.float64), requires_grad=True, backend="numpy")
             for each in (x0, w0, b0)]  # fmt: skip
    reach = functional.conv2d(*sizes, **geometry)
    reach.backward(mp.tensor(np.abs(g0).astype(np.float64), backend="numpy"))
    terms = (w0[0].size + 1, w0[:, 0].size, g0[:, 0].size)
    seen: list[Array] = []
    for _ in range(3):
        made = convolved(kernel_device, engine, (x0, w0, b0, g0), geometry)
        exact, bounds = (y64, *(each.grad for each in wide[:2])), (reach, *(each.grad for each in sizes[:2]))
        for got, want, most, count in zip(made, exact, bounds, terms, strict=True):
            wanted, magnitude = want.detach().numpy(), most.detach().numpy()
            assert_bound(got, wanted, dot_bound(wanted, magnitude, count, "float32", name), "dot_product")
        seen.append(np.concatenate([bits(each).ravel() for each in made]))
    np.testing.assert_array_equal(seen[1:], [seen[0]] * 2)


def convolved(device: Any, engine: str, given: tuple[Array, ...], geometry: dict[str, Any]) -> list[Array]:
    """Return a convolution and its gradients by image and weight, by an engine."""
    x, w, b, g = (mp.tensor(each, requires_grad=i < 3, backend=device.name) for i, each in enumerate(given))
    with engine_of(device, engine):
        y = functional.conv2d(x, w, b, **geometry)
        y.backward(g)
    return [each.detach().numpy() for each in (y, x.grad, w.grad)]


def engine_of(device: Any, engine: str) -> AbstractContextManager[None]:
    """Return the engine's scope; a GPU without cuDNN leaves a test out, saying what is missing."""
    try:
        with device.convolving(engine):
            return device.convolving(engine)
    except DeviceError as missing:
        if device.memory is None:
            raise
        pytest.skip(str(missing))


# ---- kernels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_kernels_give_their_references_results(kernel_device: Any, name: str) -> None:
    """Oracle: each kernel's NumPy reference; every sample on a GPU, some of them on a stand-in."""
    device, kernel = kernel_device, KERNELS[name]
    for place, arguments in some(SAMPLES[name](), None if device.memory is not None else 3):
        made = launch_on(device, kernel, arguments)
        wrong = list(mismatches(kernel, arguments, made, expected(kernel, arguments)))
        assert wrong == [], f"sample {place}"


def test_again_and_again_the_same_bits(device: Any) -> None:
    """Oracle: the first of ten runs of a step's parts: product, norm, scatter, loss, and gradients."""
    x0, w0 = numbers((64, 96), "float16", 1, 1.0), numbers((50, 96), "float16", 2, 1.0)
    labels = np.random.default_rng(0).integers(0, 50, 64)

    def once() -> list[Array]:
        x, w = (mp.tensor(each, requires_grad=True, backend=device.name) for each in (x0, w0))
        scores = functional.layer_norm(functional.linear(x, w), (50,))
        table = functional.embedding(mp.tensor(labels % 7, backend=device.name), w)
        loss = functional.cross_entropy(scores, mp.tensor(labels, backend=device.name)) + table.float().mean()
        loss.backward()
        return [loss.detach().numpy(), x.grad.numpy(), w.grad.numpy()]

    first = [bits(each) for each in once()]
    for _ in range(REPEATS - 1):
        for again, was in zip(once(), first, strict=True):
            np.testing.assert_array_equal(bits(again), was)


def test_what_was_in_memory_before_does_not_show(device: Any) -> None:
    """Oracle: the same results when freed memory was full of NaN as when it was full of zeros."""
    x = numbers((40, 48), "float16", 1, 1.0)
    seen = []
    for fill in (np.nan, 0.0):
        dirt = [device.from_host(np.full(size, fill, np.float32)) for size in (40 * 48, 4096, 70_000, 10)]
        del dirt  # a pool gives this memory to the next arrays
        y = mp.tensor(x, requires_grad=True, backend=device.name)
        z = functional.softmax(functional.layer_norm(y, (48,)), -1)
        (z.float() @ z.float().transpose(0, 1)).sum().backward()
        seen.append(bits(y.grad.numpy()))
    np.testing.assert_array_equal(*seen)


# ---- training --------------------------------------------------------------------------------------------


def losses(backend: str, seed: int, steps: int) -> Array:
    """Return the losses of mixed-fp16 training on one backend."""
    with mp.use_backend(backend):
        mp.manual_seed(seed)
        model = models.mlp((64,), 10)
        step = mp.TrainStep(
            model, functional.cross_entropy, optim.AdamW(model.parameters(), lr=2e-3), "mixed-fp16",
            scaler=mp.GradScaler(init_scale=1024.0),
        )  # fmt: skip
        x, labels = data.digits()[:640]
        found = []
        for number in range(steps):
            part = slice(64 * (number % 10), 64 * (number % 10) + 64)
            found.append(step(x[part], labels[part]).loss)
    return np.array(found)


def test_a_hundred_steps_stay_within_what_seeds_do(device: Any) -> None:
    """Oracle: training on NumPy from five seeds, whose spread is what chance makes; the device's from one."""
    steps = 100
    host = np.array([losses("numpy", seed, steps) for seed in range(5)])
    apart = np.abs(losses(device.name, 0, steps) - host[0])
    assert np.isfinite(apart).all()
    assert apart.mean() <= host.std(axis=0).mean()
    assert_close(losses(device.name, 0, 1), host[0, :1], "parity_op_fp16")


class Deep(nn.Module):
    """Layers of which one is as wide as a product's tile, and one is not."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 33), nn.Tanh(), nn.Linear(33, 10)
        )

    def forward(self, x: mp.Tensor) -> mp.Tensor:
        """(N, 64) -> (N, 10)."""
        return self.layers(x)


def test_a_checkpoint_goes_from_one_to_the_other(device: Any, tmp_path: Any) -> None:
    """Oracle: the same weights, bit for bit, and outputs within a row's bound; both ways."""
    x = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    for source, target in ((device.name, "numpy"), ("numpy", device.name)):
        with mp.use_backend(source):
            model = Deep()
            mp.save(tmp_path / "weights.safetensors", model.state_dict())
            weights = {name: p.detach().numpy() for name, p in model.named_parameters()}
            wanted = model(mp.tensor(x)).detach().numpy()
        with mp.use_backend(target):
            other = Deep()
            other.load_state_dict(mp.load(tmp_path / "weights.safetensors"))
            for name, p in other.named_parameters():
                assert p.backend.name == target
                np.testing.assert_array_equal(p.detach().numpy(), weights[name])
            made = other(mp.tensor(x)).detach().numpy()
        assert_close(made, wanted, "parity_op_fp32")
