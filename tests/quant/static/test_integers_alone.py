"""No float between codes: the processor's flag of rounding, and every array that a function holds.

Two witnesses. The processor notes each floating-point operation whose result it had to round (IEEE 754, the
inexact exception): inside the modules of a converted model that flag must stay down. A trace of both packages
looks at all local variables: an array of floats that is longer than a row of scales may stand in the exact
products alone, whose proof is in minimp_backends/integer_products.py. Excepted are functions of scales, and
in the mode ``"float"`` the way from sums to codes.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minimp
import minimp_backends
from minimp import nn
from minimp.nn.module import Module
from minimp.quant import QTensor, modules
from minimp.quant.fusion import fuse
from minimp.quant.modules import Add, Cat, FloatIsland, Mul, Sub
from minimp.quant.static import calibrate, convert
from minimp.tensors import Tensor, tensor
from minimp_backends import integer_layers, integer_pointwise, requantizing
from tests.quant.static.samples import MODES, Array

LIBM = ctypes.CDLL(ctypes.util.find_library("m"))
INEXACT = 0x20 if platform.machine() in ("x86_64", "AMD64", "i686") else 0x10
ROOTS = (*(str(Path(package.__file__).parent) for package in (minimp, minimp_backends)), __file__)

OF_SCALES = {"fixed_point", "multiplier", "_multipliers", "_check_scales"}
"""Functions that no code goes into."""
TO_CODES = {"_by_float", "integer_add"}
"""How sums become codes in the mode ``"float"``; a sum of two scales is such a way from its first step on."""
MOST_SCALES = 12
"""Channels of the widest layer here; any array of codes or sums is longer."""
EXACT = {"integer_products.py"}
FLOATS_TO_CODES = {"requantizing.py", "integer_layers.py"}


class Images(Module):
    """Images through each kind of module that has an integer form, softmax before the last layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(6, 6, 3, padding="same", groups=3), nn.ReLU6())
        self.add, self.sub, self.mul, self.cat = Add(relu=True), Sub(), Mul(), Cat(1)
        self.tanh, self.act, self.gate = nn.Tanh(), nn.GELU(), nn.Sigmoid()
        self.pool, self.means = nn.MaxPool2d(2), nn.AvgPool2d(3, 2, 1)
        self.up = nn.Sequential(nn.ConvTranspose2d(12, 8, 2, 2), nn.PixelShuffle(2), nn.ChannelShuffle(2))
        self.border = nn.Sequential(nn.ZeroPad2d(1), nn.ConstantPad2d(1, 1.5), nn.ReflectionPad2d(1))
        self.down = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Softmax2d(), nn.AdaptiveAvgPool2d((6, 5)),
            nn.AdaptiveMaxPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.end = nn.Sequential(nn.Linear(8, 5), nn.Dropout(0.5), nn.Softmax(-1), nn.Linear(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 2, 8, 8) -> (N, 3)."""
        h = self.first(x)
        h = self.add(h, self.second(h))
        h = self.sub(h, self.tanh(h))
        h = self.up(self.cat(self.pool(h), self.means(self.act(h))))  # (N, 12, 4, 4) -> (N, 2, 16, 16)
        h = self.border(self.mul(h, self.gate(h)))
        y: Tensor = self.end(self.down(h))
        return y


def signals() -> Module:
    """Return a model of signals, (N, 12) -> (N, 4)."""
    return nn.Sequential(
        nn.Unflatten(1, (2, 6)), nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(),
        nn.ConvTranspose1d(4, 2, 3, 2), nn.LeakyReLU(0.1), nn.MaxPool1d(2, 1), nn.AvgPool1d(2, 1),
        nn.AdaptiveMaxPool1d(8), nn.AdaptiveAvgPool1d(5), nn.ZeroPad1d(1), nn.ReplicationPad1d((1, 0)),
        nn.Flatten(), nn.Linear(16, 4), nn.Softmax(),
    )  # fmt: skip


NETS: dict[str, tuple[Callable[[], Module], tuple[int, ...]]] = {
    "images": (Images, (2, 8, 8)),
    "signals": (signals, (12,)),
}


def converted(name: str, mode: str, **rest: Any) -> tuple[Any, Module, Array]:
    """Return a net on codes, the net in floats, and its inputs."""
    make, shape = NETS[name]
    rng = np.random.default_rng(0)
    model = make()
    for param in model.parameters():
        param.array = (rng.normal(size=param.shape) * 0.4).astype(np.float32)
    x = rng.normal(size=(16, *shape)).astype(np.float32)
    for _ in range(2):
        model(tensor(x))  # statistics for the batch norm
    model, _ = fuse(model.eval(), tensor(x[:4]))
    return convert(model, calibrate(model, [x]), mode=mode, **rest), model, x


def leaves(net: Module) -> list[tuple[str, Module]]:
    """Return the modules that compute, by path."""
    return [(path, each) for path, each in net.named_modules() if not any(True for _ in each.children())]


# ---- the processor's flag ----------------------------------------------------------------------------------


def rounded() -> bool:
    """Tell whether the processor has rounded a floating-point result since the flag was last put down."""
    return bool(LIBM.fetestexcept(INEXACT))


def put_down() -> None:
    """Put the flag down."""
    LIBM.feclearexcept(INEXACT)


def unseen(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that leaves the flag as it was."""

    def quiet(*args: Any, **rest: Any) -> Any:
        before = rounded()
        made = function(*args, **rest)
        if not before:
            put_down()
        return made

    return quiet


def except_for(monkeypatch: pytest.MonkeyPatch, names: set[str]) -> None:
    """Let functions of these names round."""
    kinds = [each for each in vars(modules).values() if isinstance(each, type)]
    owners: dict[int, Any] = {id(each): each for kind in kinds for each in kind.__mro__[:-1]}
    for owner in (requantizing, integer_layers, *owners.values()):
        for name in names & set(vars(owner)):
            monkeypatch.setattr(owner, name, unseen(getattr(owner, name)))


def rounding_modules(net: Any, x: Array) -> set[str]:
    """Return the paths of the modules in which a floating-point result was rounded.

    No garbage is collected meanwhile: hypothesis takes the time of that, in floats.
    """
    found: set[str] = set()

    def note(path: str) -> Callable[..., None]:
        def hook(module: Module, args: Any, output: Any) -> None:
            if rounded():
                found.add(path)

        return hook

    hooks = []
    for path, each in leaves(net.model):
        hooks += [
            each.register_forward_pre_hook(lambda *_: put_down()),
            each.register_forward_hook(note(path)),
        ]
    collecting = gc.isenabled()
    gc.disable()
    try:
        net(tensor(x))
    finally:
        if collecting:
            gc.enable()
        for hook in hooks:
            hook.remove()
    return found


def test_the_flag_sees() -> None:
    """Oracle: by hand: what is exact, and what is not, in NumPy's loops and in its BLAS."""
    third, ones, tenths = np.float32([1, 2, 4]), np.ones((32, 32), "f4"), np.full((32, 32), 0.1, "f4")
    cases: list[tuple[Callable[[], Any], bool]] = [
        (lambda: third * np.float32(3), False), (lambda: third / np.float32(3), True),
        (lambda: ones @ ones, False), (lambda: tenths @ tenths, True),
        (lambda: np.arange(9) // 2, False), (lambda: np.exp(third), True),
        (lambda: unseen(np.exp)(third), False),
    ]  # fmt: skip
    for call, expected in cases:
        put_down()
        call()
        assert rounded() is expected


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_rounded_in_floats(name: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the processor: no module rounds a float, but in functions of scales, and to codes."""
    net, _, x = converted(name, mode)
    bare = rounding_modules(net, x)
    assert bare  # multipliers are worked out from scales on the way
    names = OF_SCALES | (TO_CODES if mode == "float" else set())
    except_for(monkeypatch, names)
    assert rounding_modules(net, x) == set()


def by_floats(codes: Array, table: Array, axis: int = -1, **_: Any) -> Array:
    """Return a softmax as it must not be."""
    terms = np.exp(codes * 0.01)
    return np.rint(terms / terms.sum(axis=axis, keepdims=True) * 255).astype(np.uint8)


@pytest.mark.parametrize("mode", MODES)
def test_a_float_between_is_noticed(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: planted: a module that stays in floats, and a softmax by floats; each is named."""
    net, _, x = converted("images", mode, keep_float=["tanh"])
    assert isinstance(net.model.tanh, FloatIsland)
    except_for(monkeypatch, OF_SCALES | TO_CODES)
    found = rounding_modules(net, x)
    assert found
    assert all(path.startswith("tanh.") for path in found), found
    net, _, x = converted("images", mode)
    monkeypatch.setattr(integer_pointwise, "integer_softmax", by_floats)
    assert rounding_modules(net, x) == {"down.1", "end.2"}


# ---- all arrays --------------------------------------------------------------------------------------------


@contextmanager
def arrays_of_floats() -> Iterator[set[tuple[str, str, str]]]:
    """Note (file, function, variable) of each array of floats longer than a row of scales."""
    found: set[tuple[str, str, str]] = set()

    def look(frame: Any, event: str, value: Any) -> Any:
        for name, each in [*frame.f_locals.items(), ("returned", value)]:
            array = each.codes if isinstance(each, QTensor) else getattr(each, "array", each)
            wide = isinstance(array, np.ndarray) and array.size > MOST_SCALES
            if wide and array.dtype.kind not in "biu":
                found.add((Path(frame.f_code.co_filename).name, frame.f_code.co_name, name))
        return look

    def begin(frame: Any, event: str, value: Any) -> Any:
        return look if frame.f_code.co_filename.startswith(ROOTS) else None

    before = sys.gettrace()
    sys.settrace(begin)
    try:
        yield found
    finally:
        sys.settrace(before)


def arrays_on_the_way(net: Any, x: Array) -> set[tuple[str, str, str]]:
    """Return the arrays of floats between Quantize and DeQuantize."""
    codes = net.quantize[0](tensor(x))
    with arrays_of_floats() as found:
        net.model(codes)
    return found


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("mode", MODES)
def test_no_array_is_of_floats(name: str, mode: str) -> None:
    """Oracle: all variables of all functions; the exact products have floats, which shows that it looks."""
    net, _, x = converted(name, mode)
    found = {file for file, _, _ in arrays_on_the_way(net, x)}
    assert EXACT <= found <= EXACT | (FLOATS_TO_CODES if mode == "float" else set())


def test_the_trace_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: planted: a module that stays in floats, and a softmax that computes in floats."""
    mode = "fixed-point"
    net, _, x = converted("images", mode, keep_float=["tanh"])
    assert ("stubs.py", "forward", "made") in arrays_on_the_way(net, x)
    net, _, x = converted("images", mode)
    monkeypatch.setattr(integer_pointwise, "integer_softmax", by_floats)
    assert (Path(__file__).name, "by_floats", "terms") in arrays_on_the_way(net, x)
