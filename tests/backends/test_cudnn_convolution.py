"""Convolution by cuDNN, its calls answered by a stand-in that checks them, beside float64 and the columns."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import backend as backends
from minimp import formats, functional
from minimp.errors import DeviceError, FormatError, SettingError, ShapeError
from minimp_backends import cudnn_convolution
from minimp_backends.columns import geometry_of
from minimp_backends.cudnn_loading import open_cudnn
from minimp_backends.numpy_backend import NumpyBackend
from minimp_backends.strict.counts import DEVICE
from tests.backends.cudnn_stand_in import NAMES, GraphNotSupportedError
from tests.tolerances import assert_bound, dot_bound

Array = np.ndarray[Any, Any]
HOST = NumpyBackend()
NUMBERS = ("float32", "float16", "bfloat16")
CASES = {
    "one pixel": ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (0, 0), (1, 1), 1),
    "padded": ((2, 3, 7, 6), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    "strides that leave an end": ((2, 4, 9, 8), (6, 4, 3, 2), (2, 3), (0, 1), (1, 1), 1),
    "dilated": ((1, 2, 9, 10), (3, 2, 2, 3), (1, 2), (2, 0), (3, 2), 1),
    "groups": ((2, 6, 5, 5), (9, 2, 3, 3), (1, 1), (1, 2), (1, 1), 3),
    "each channel": ((3, 4, 6, 6), (8, 1, 3, 3), (2, 2), (1, 1), (1, 1), 4),
}
"""Image, weight, stride, padding, dilation, groups."""


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return CuPy's backend on the strict device, under its name."""
    from tests.backends.cupy_on_strict import CupyOnStrict

    made = CupyOnStrict()
    monkeypatch.setitem(backends.MADE, "cupy", made)
    return made


def numbers(shape: tuple[int, ...], name: str, seed: int) -> Array:
    """Return numbers of some magnitudes."""
    rng = np.random.default_rng(seed)
    wide = rng.standard_normal(shape) * 2.0 ** rng.uniform(-3, 3, shape)
    return wide.astype(formats.get(name).dtype)


def sizes_of(case: str) -> tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]:
    """Return shapes and geometry of a case."""
    image, weight, stride, padding, dilation, groups = CASES[case]
    return image, weight, {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}


def three(case: str, name: str) -> tuple[Array, Array, Array, dict[str, Any]]:
    """Return an image, a weight, a gradient of the output, and the geometry."""
    image, weight, geometry = sizes_of(case)
    out = geometry_of("", (), image, weight, **geometry).out_shape
    return numbers(image, name, 1), numbers(weight, name, 2), numbers(out, name, 3), geometry


def run(backend: Any, kind: str, x: Any, w: Any, g: Any, geometry: dict[str, Any], how: str) -> Any:
    """Call one of the three kernels."""
    if kind == "conv2d":
        return backend.conv2d(x, w, None, geometry, accumulate=how)
    if kind == "conv2d_input":
        return backend.conv2d_input(g, w, x.shape, geometry, accumulate=how)
    return backend.conv2d_weight(x, g, w.shape, geometry, accumulate=how)


def exact(kind: str, x: Array, w: Array, g: Array, geometry: dict[str, Any]) -> tuple[Array, Array, int]:
    """Return results and sums of magnitudes in float64, and how many terms the longest sum has."""
    wide = [each.astype(np.float64) for each in (x, w, g)]
    found = run(HOST, kind, *wide, geometry, "float64")
    sums = run(HOST, kind, *(np.abs(each) for each in wide), geometry, "float64")
    terms = run(HOST, kind, *(np.ones(each.shape) for each in wide), geometry, "float64").max()
    return found, sums, int(terms)


@pytest.mark.parametrize("kind", ["conv2d", "conv2d_input", "conv2d_weight"])
@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("case", CASES)
def test_each_kernel_keeps_the_bound_of_its_sums(device: Any, case: str, name: str, kind: str) -> None:
    """Oracle: float64 by the columns of NumPy; float32 sums and one rounding to the format that comes."""
    x, w, g, geometry = three(case, name)
    there = [device.from_host(each) for each in (x, w, g)]
    with device.convolving("cudnn"):
        made = run(device, kind, *there, geometry, "float32")
    assert made.dtype.name == ("float32" if kind == "conv2d" else name)
    wanted, sums, terms = exact(kind, x, w, g, geometry)
    assert_bound(
        device.to_host(made), wanted, dot_bound(wanted, sums, terms, "float32", made.dtype), "dot_product"
    )
    assert device.gpu.cudnn().cudnn.graphs == 1


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("case", ["padded", "groups"])
def test_a_layer_forward_and_backward_is_within_the_bounds(
    device: Any, monkeypatch: pytest.MonkeyPatch, case: str, biased: bool, name: str
) -> None:
    """Oracle: float64; no product of the columns is called for."""
    x0, w0, g0, geometry = three(case, name)
    b0 = numbers((w0.shape[0],), name, 4)
    monkeypatch.setattr(device.gpu.cublas, "matmul", None)
    x, w, b = (mp.tensor(each, requires_grad=True, backend="cupy") for each in (x0, w0, b0))
    with device.convolving("cudnn"):
        y = functional.conv2d(x, w, b if biased else None, **geometry)
        y.backward(mp.tensor(g0, backend="cupy"))
    made = {"conv2d": y, "conv2d_input": x.grad, "conv2d_weight": w.grad}
    for kind, tensor in made.items():
        wanted, sums, terms = exact(kind, x0, w0, g0, geometry)
        if biased and kind == "conv2d":
            wide = b0.astype(np.float64)[:, None, None]
            wanted, sums, terms = wanted + wide, sums + np.abs(wide), terms + 1
        bound = dot_bound(wanted, sums, terms, "float32", name)
        assert tensor.dtype == formats.get(name)
        assert_bound(tensor.detach().numpy(), wanted, bound, "dot_product")


@pytest.mark.parametrize("spread", [False, True])
def test_sum_and_bias_are_rounded_once(device: Any, spread: bool) -> None:
    """Oracle: by hand. 2048 + 1 is no float16 number, and rounded before 1 is added it would stay 2048."""
    x = mp.tensor(np.ones((1, 2, 1, 1), np.float16), backend="cupy")
    weight = np.array([2048, 1], np.float16).reshape((2, 1, 1, 1) if spread else (1, 2, 1, 1))
    w, b = (mp.tensor(each, backend="cupy") for each in (weight, np.ones(1, np.float16)))
    convolve = functional.conv_transpose2d if spread else functional.conv2d
    with device.convolving("cudnn"):
        assert convolve(x, w, b).item() == 2050.0


def test_sums_stay_in_sight_of_a_recording(device: Any) -> None:
    """Oracle: the numpy backend's sums, beyond the range of float16; rounded before, they are infinite."""
    x, w, g = (np.full(shape, 200.0, np.float16) for shape in ((1, 2, 3, 3), (2, 2, 2, 2), (1, 2, 2, 2)))
    geometry = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    there = [device.from_host(each) for each in (x, w, g)]
    with device.convolving("cudnn"):
        assert np.isinf(device.to_host(run(device, "conv2d_input", *there, geometry, "float32"))).any()
        device.rounds_in_sight = True
        for kind in ("conv2d_input", "conv2d_weight"):
            made = device.to_host(run(device, kind, *there, geometry, "float32"))
            wanted = run(HOST, kind, x, w, g, geometry, "float32")
            assert made.dtype == np.float32
            np.testing.assert_array_equal(made, wanted)


def test_a_forward_gives_its_sums_where_they_are_asked_for(device: Any) -> None:
    """Oracle: 200 times 200, eight times: infinite in float16, and a bias of float32 is added before."""
    x, w = (np.full(shape, 200.0, np.float16) for shape in ((1, 2, 2, 2), (1, 2, 2, 2)))
    geometry = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    there, total = [device.from_host(each) for each in (x, w)], 8 * 200.0**2
    bias = device.from_host(np.array([-total + 1], np.float32))
    seen: list[np.dtype[Any]] = []

    def narrow(array: Any, format: Any) -> Any:
        seen.append(array.dtype)
        return type(device).narrow(device, array, format)

    def convolved(bias: Any, form: Any) -> float:
        with device.convolving("cudnn"):
            made = device.conv2d_with_bias(*there, bias, geometry, form, accumulate="float32")
        return float(device.to_host(made).item())

    assert convolved(None, None) == total
    assert convolved(None, formats.float32) == total
    assert convolved(bias, formats.float16) == 1.0
    device.narrow, device.rounds_in_sight = narrow, True
    assert convolved(None, formats.float16) == np.inf
    assert seen == [np.float32]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_note_that_is_refused_matters(device: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Oracle: the stand-in, whose plans show their notes: with one note let in, results leave the bound."""
    x, w, g, geometry = three("padded", name)
    there = [device.from_host(each) for each in (x, w, g)]
    wanted, sums, terms = exact("conv2d_weight", x, w, g, geometry)
    bound = dot_bound(wanted, sums, terms, "float32", name)
    refused, found = cudnn_convolution.REFUSED, {}
    for note in (None, *refused):
        rest = tuple(each for each in refused if each != note)
        monkeypatch.setattr(cudnn_convolution, "REFUSED", rest)
        device.gpu.cudnn()._plans.clear()
        with device.convolving("cudnn"):
            made = device.to_host(run(device, "conv2d_weight", *there, geometry, "float32"))
        found[note] = bool((np.abs(made.astype(np.float64) - wanted) <= bound).all())
    assert found == {None: True} | dict.fromkeys(refused, False)


def test_tf32_is_taken_where_it_is_allowed(device: Any) -> None:
    """Oracle: 1 + 2^-12 by 1, which 11 bits round to 1; float32 keeps it, and so does the next call."""
    x, w = (mp.tensor(np.full((1, 1, 1, 1), each, np.float32), backend="cupy") for each in (1 + 2**-12, 1))
    with device.convolving("cudnn"):
        assert functional.conv2d(x, w).item() == 1 + 2**-12
        with device.allowing(tf32=True):
            assert functional.conv2d(x, w).item() == 1
        assert functional.conv2d(x, w).item() == 1 + 2**-12


def test_plans_are_kept(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: how many graphs were made: one for each kernel, geometry and format, however often it runs."""
    made = {case: [device.from_host(each) for each in three(case, "float16")[:3]] for case in CASES}
    frontend = device.gpu.cudnn().cudnn

    def all_of(cases: list[str]) -> int:
        before = frontend.graphs
        with device.convolving("cudnn"):
            for case in cases:
                run(device, "conv2d_weight", *made[case], sizes_of(case)[2], "float32")
        return int(frontend.graphs - before)

    assert all_of(["padded", "groups", "padded", "groups"]) == 2
    monkeypatch.setattr(cudnn_convolution, "MOST_PLANS", 2)
    assert all_of(["dilated", "groups", "padded"]) == 2  # the oldest of two had to go, and was wanted again


def test_views_are_laid_out_before(device: Any) -> None:
    """Oracle: the bits of the same numbers laid out: turned, with gaps, and from an odd address on."""
    x, w, g, geometry = three("padded", "float16")
    plain = [device.from_host(each) for each in (x, w, g)]
    turned = device.from_host(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
    gaps = device.from_host(np.repeat(w, 2, axis=3))[..., ::2]
    late = device.from_host(np.concatenate([[1], g.ravel()]).astype(np.float16))[1:].reshape(g.shape)
    with device.convolving("cudnn"):
        for kind in ("conv2d", "conv2d_input", "conv2d_weight"):
            wanted, made = (
                device.to_host(run(device, kind, *three_, geometry, "float32"))
                for three_ in (plain, (turned, gaps, late))
            )
            np.testing.assert_array_equal(made, wanted)


def test_nothing_is_convolved_without_cudnn(device: Any) -> None:
    """Oracle: the shapes, and the bias alone where there is no channel to sum over."""
    x = mp.tensor(np.ones((0, 2, 5, 5), np.float16), requires_grad=True, backend="cupy")
    w = mp.tensor(np.ones((3, 2, 3, 3), np.float16), requires_grad=True, backend="cupy")
    with device.convolving("cudnn"):
        y = functional.conv2d(x, w)
        y.sum().backward()
    assert y.shape == (0, 3, 3, 3)
    assert not w.grad.numpy().any()
    assert device.gpu.cudnn().cudnn.graphs == 0


def test_nothing_waits(device: Any) -> None:
    """Oracle: the strict device's counts of a layer's forward and backward: no wait, no copy."""
    x0, w0, g0, geometry = three("padded", "float16")
    x, w, g = (mp.tensor(each, requires_grad=each is not g0, backend="cupy") for each in (x0, w0, g0))
    with device.convolving("cudnn"), DEVICE.counting() as counts:
        functional.conv2d(x, w, **geometry).backward(g)
    assert (counts.syncs, counts.to_host, counts.to_device) == (0, 0, 0)


# ---- what cannot be --------------------------------------------------------------------------------------


def test_what_cudnn_does_not_do_is_refused(device: Any) -> None:
    """Oracle: the error, and columns again behind the block."""
    x, w, g, geometry = three("padded", "float16")
    there = [device.from_host(each) for each in (x, w, g)]
    wide = [device.from_host(each.astype(np.float64)) for each in (x, w, g)]
    for kind in ("conv2d", "conv2d_input", "conv2d_weight"):
        with device.convolving("cudnn"):
            with pytest.raises(FormatError, match=r"(?s)not this with float64 sums.*columns"):
                run(device, kind, *there, geometry, "float64")
            with pytest.raises(FormatError, match="float32 sums") as told:
                run(device, kind, *wide, geometry, "float32")
            assert told.value.formats == ("float64", "float64")
        run(device, kind, *there, geometry, "float64")
    short = device.from_host(g[..., :-1])
    for kind in ("conv2d_input", "conv2d_weight"):
        with device.convolving("cudnn"), pytest.raises(ShapeError, match="the gradient of an output"):
            run(device, kind, there[0], there[1], short, geometry, "float32")
    with (
        pytest.raises(SettingError, match=r"(?s)'winograd'.*'columns' or 'cudnn'"),
        device.convolving("winograd"),
    ):
        pass


def test_what_has_no_plan_says_so_and_the_engine_is_put_back(device: Any) -> None:
    """Oracle: cuDNN's words, sizes and format in the error, a way out, and no plan kept."""
    x, w, g, geometry = three("padded", "float16")
    there = [device.from_host(each) for each in (x, w, g)]
    frontend = device.gpu.cudnn().cudnn
    pygraph = frontend.pygraph

    def refuse(**_: Any) -> Any:
        raise GraphNotSupportedError("No valid engine configs")

    frontend.pygraph = refuse
    refused = pytest.raises(DeviceError, match=r"gradient by the weights.*No valid engine")
    with refused as told, device.convolving("cudnn"):
        run(device, "conv2d_weight", *there, geometry, "float32")
    assert told.value.formats == ("float16",)
    assert told.value.shapes == (x.shape, g.shape, w.shape)
    assert "convolving('columns')" in str(told.value)
    run(device, "conv2d_weight", *there, geometry, "float32")  # the columns again
    frontend.pygraph = pygraph
    with device.convolving("cudnn"):
        run(device, "conv2d_weight", *there, geometry, "float32")
    assert frontend.graphs == 1


def cupy_for(version: int) -> Any:
    """Return what stands for CuPy with a CUDA of a version."""
    runtime = SimpleNamespace(runtimeGetVersion=lambda: version)
    return SimpleNamespace(cuda=SimpleNamespace(runtime=runtime))


def raising(fault: Exception) -> Any:
    """Return a function that raises."""

    def call(*_: Any) -> Any:
        raise fault

    return call


MISSING = {
    "no frontend": (raising(ImportError("No module named 'cudnn'")), "No module named 'cudnn'"),
    "no library": (
        lambda _: SimpleNamespace(backend_version=raising(RuntimeError("Unable to find symbol"))),
        "its library does not load: Unable to find symbol",
    ),
    "an old library": (
        lambda _: SimpleNamespace(backend_version=lambda: 8907, create_handle=object),
        "8907 is older than 90000",
    ),
}


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_cudnn_says_what_to_install(case: str) -> None:
    """Oracle: what was found and the extra for the CUDA that CuPy has."""
    load, found = MISSING[case]
    for version, extra in ((12090, "minimp[cudnn]"), (13000, "minimp[cudnn13]")):
        with pytest.raises(DeviceError, match=found) as told:
            open_cudnn(cupy_for(version), load)
        assert extra in str(told.value)
        assert "'columns'" in str(told.value)


def test_the_engine_is_refused_before_a_step_where_there_is_no_cudnn(device: Any) -> None:
    """Oracle: the error at the `with`, and nothing in force behind it."""
    object.__setattr__(device.gpu, "cudnn", raising(DeviceError("no cuDNN")))
    with pytest.raises(DeviceError, match="no cuDNN"), device.convolving("cudnn"):
        pytest.fail("ran")
    x, w, g, geometry = three("padded", "float16")
    run(device, "conv2d", *(device.from_host(each) for each in (x, w, g)), geometry, "float64")


def test_names_are_those_of_the_frontend(device: Any) -> None:
    """Oracle: the names kept from nvidia-cudnn-frontend, and the installed one's where it is there."""
    used = {
        "numerical_note": (*cudnn_convolution.REFUSED, cudnn_convolution.ON_MATRIX_UNITS),
        "data_type": cudnn_convolution.TYPES.values(), "heur_mode": ("A", "FALLBACK"),
    }  # fmt: skip
    for kind, names in used.items():
        assert set(names) <= set(NAMES[kind])
    frontend = device.gpu.cudnn().cudnn
    graph = frontend.pygraph(
        io_data_type="HALF", intermediate_data_type="FLOAT", compute_data_type="FLOAT", handle=frontend.handle
    )
    assert all(hasattr(frontend, name) for name in NAMES["module"])
    assert {name for name in dir(graph) if name in NAMES["pygraph"]} == set(NAMES["pygraph"])
    if importlib.util.find_spec("cudnn") is not None:
        cudnn = importlib.import_module("cudnn")
        assert cudnn.cudnnGraphNotSupportedError.__bases__ == GraphNotSupportedError.__bases__
        assert set(NAMES["module"]) <= set(dir(cudnn))
        assert set(NAMES["pygraph"]) <= set(dir(cudnn.pygraph))
        for kind in used:
            assert set(NAMES[kind]) <= set(dir(getattr(cudnn, kind)))
