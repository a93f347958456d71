"""Checks of lab 08; oracle: the ledger of mp.memory.forecast, to the byte, for networks drawn in many shapes."""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import minimp as mp
from minimp.labs import exercise

NETS = ((64, 128, 10), (7, 5), (3, 4, 5, 6), (1, 1), (100, 20, 20, 20, 2))


def made(widths: tuple[int, ...], between: Any = mp.nn.ReLU) -> mp.nn.Module:
    """Return linear layers with something between them."""
    layers = [mp.nn.Linear(widths[0], widths[1])]
    for before, after in pairwise(widths[1:]):
        layers += [between(), mp.nn.Linear(before, after)]
    return mp.nn.Sequential(*layers)


def ledger(
    widths: tuple[int, ...], recipe: Any, rows: int, moments: int = 0, between: Any = mp.nn.ReLU
) -> Any:
    """Return the forecast of a step under cross-entropy."""
    make = (
        (lambda p: mp.optim.SGD(p, lr=0.1)), (lambda p: mp.optim.SGD(p, lr=0.1, momentum=0.9)), mp.optim.Adam,
    )[moments]  # fmt: skip
    return mp.memory.forecast(
        lambda: made(widths, between), recipe, make, (rows, widths[0]), (rows,), mp.functional.cross_entropy
    )


@exercise(
    "1a", hints=("a layer from a to b numbers has a * b weights and b biases", "4 bytes for each float32")
)
def check_1a(lab: Any) -> None:
    """Weights, gradients, optimizer state in float32."""
    for widths in NETS:
        for moments in (0, 1, 2):
            held = ledger(widths, "fp32", 1, moments)
            want = (held.logical.parameters, held.logical.gradients, held.logical.optimizer)
            got = tuple(lab.fp32_state(widths, moments))
            assert got == want, (
                f"fp32_state({widths}, {moments}): expected {want}, got {got}; {_hint_1a(widths, want, got)}"
            )


def _hint_1a(widths: tuple[int, ...], want: tuple[int, ...], got: tuple[int, ...]) -> str:
    products = sum(a * b for a, b in pairwise(widths))
    if got[0] == 4 * products:
        return "each number that a layer gives has a bias, too"
    if got[0] != want[0]:
        return "a bias for each number that comes out of a layer; 4 bytes for each parameter"
    if got[1] != want[1]:
        return "each parameter has a gradient, of its own format"
    return "`moments` numbers for each parameter, each in float32"


@exercise("1b", hints=("p.grad has the format of p, and p is the float32 master",
                       "the low copy is a cast: 2 bytes, for biases as for weights"))  # fmt: skip
def check_1b(lab: Any) -> None:
    """Masters, low copies, gradients, optimizer state in mixed precision."""
    names = ("masters", "low_copies", "gradients", "optimizer")
    hints = {
        "masters": "the parameters stay in float32 under autocast: they are the masters",
        "low_copies": "a float16 cast of each parameter, of biases too, stands beside the master",
        "gradients": "the cast's derivative casts back: p.grad has the format of the float32 master",
        "optimizer": "the update computes in float32, and so do its moments",
    }
    for widths in NETS:
        for moments in (0, 1, 2):
            held = ledger(widths, "mixed-fp16", 1, moments).logical
            got = dict(zip(names, lab.mixed_state(widths, moments), strict=True))
            for name in names:
                want = getattr(held, name)
                assert got[name] == want, (
                    f"mixed_state({widths}, {moments}), {name}: expected {want}, got {got[name]}; {hints[name]}"
                )


@exercise("1c", hints=("under autocast with float32 parameters, gradients are float32 as well",
                       "start from mp.recipes['mixed-fp16'] and change param_dtype"))  # fmt: skip
def check_1c(lab: Any) -> None:
    """The ledger of the recipe: 2 + 2 + 4 + 8 bytes for each parameter."""
    recipe = lab.zero_recipe
    held = ledger((64, 128, 10), recipe, 1, 2)
    got = {name: getattr(held.logical, name) / held.elements for name in
           ("parameters", "low_copies", "gradients", "masters", "optimizer")}  # fmt: skip
    want = {"parameters": 2, "low_copies": 0, "gradients": 2, "masters": 4, "optimizer": 8}
    hint = (
        "its sum may be right, but all of it is float32" if got["parameters"] == 4 else
        "here the float32 parameters are the masters: 18 bytes. The model itself must be 16-bit" if got["low_copies"]
        else "there is no master: small updates would be lost (lab 06)"
    )  # fmt: skip
    assert got == want, f"zero_recipe, bytes a parameter with Adam: expected {want}, got {got}; {hint}"


@exercise("2a", points=3, hints=(
    "go through the list of ops: the input of each linear layer, log_softmax's result, the labels",
    "ReLU's result and the next layer's input are one array; softmax runs in float32 under autocast",
))  # fmt: skip
def check_2a(lab: Any) -> None:
    """The ledger's activations, for many networks and rows."""
    for widths in NETS:
        for rows in (1, 32):
            for mixed, recipe in ((False, "fp32"), (True, "mixed-fp16")):
                want = ledger(widths, recipe, rows).activations
                got = lab.activation_bytes(widths, rows, mixed)
                assert got == want, (
                    f"activation_bytes({widths}, {rows}, mixed={mixed}): expected {want}, got {got}; "
                    f"{_hint_2a(widths, rows, mixed, got, want)}"
                )


def _hint_2a(widths: tuple[int, ...], rows: int, mixed: bool, got: Any, want: int) -> str:
    each, hidden, more = 2 if mixed else 4, sum(widths[1:-1]), (got - want) / rows
    if got * rows == want:
        return "that is kept for one row"
    if mixed and more == 2 * sum(widths[:-1]):
        return "under autocast a linear layer reads, and keeps, float16"
    table = {
        -8: "the labels are kept, 8 bytes each",
        -4: "labels are 64-bit integers",
        -6: "labels are 64-bit integers, under autocast too",
        -each * widths[0]: "the first layer keeps its input, too",
        each * widths[-1]: "log_softmax keeps its result alone, not the scores",
        -4 * widths[-1]: "the result of log_softmax is kept",
        -2 * widths[-1]: "log_softmax runs in float32, under autocast too",
    }
    if hidden and more == each * hidden:
        return "ReLU's result and the next layer's input are one memory: count it once"
    return table.get(int(more), "the input of each linear layer once, log_softmax's result, and the labels")


LAYERS = {
    "relu": mp.nn.ReLU, "tanh": mp.nn.Tanh, "gelu": mp.nn.GELU, "leaky_relu": mp.nn.LeakyReLU,
    "softmax": lambda: mp.nn.Softmax(dim=-1),
}  # fmt: skip


@exercise("2b", points=2, hints=("does the layer need an array beside its result, which the linear layer keeps anyway?",
                                 "softmax: 4 bytes for itself; what does the float16 product keep?"))  # fmt: skip
def check_2b(lab: Any) -> None:
    """The ledger, for hidden layers of two widths."""
    hints = {
        "relu": "its result is the next layer's input: one array serves both",
        "tanh": "its result is the next layer's input: one array serves both",
        "gelu": "its input is one array, its result, which the next layer reads, another",
        "leaky_relu": "a byte for the side, beside the result, which the next layer keeps",
        "softmax": "in float32 one array serves both; under autocast the product keeps a float16 copy of a "
        "float32 result, which is kept as well",
    }
    for name, between in LAYERS.items():
        want = []
        for recipe in ("fp32", "mixed-fp16"):
            small, large = (ledger((4, w, 3), recipe, 1, between=between).activations for w in (10, 30))
            want.append((large - small) // 20)
        got = tuple(lab.kept_per_number[name])
        assert got == tuple(want), (
            f"kept_per_number[{name!r}]: expected {tuple(want)} bytes, got {got}; {hints[name]}"
        )


@exercise("3a", points=3, hints=(
    "what is added for each parameter? what is saved for each number that a linear layer reads?",
    "2 P < 2 N s, with P parameters, N rows and s the sum of the widths that layers read",
))  # fmt: skip
def check_3a(lab: Any) -> None:
    """The ledger on both sides of the answer; for (1, 1) both recipes hold equally much at 2 rows."""
    for widths in (*NETS, (64, 64, 64), (30, 300, 30, 3)):
        saved = bisect_left(range(1, 4096), True, key=partial(_saves, widths)) + 1
        got = lab.break_even(widths)
        assert got == saved, f"break_even({widths}): expected {saved}, got {got}; {_hint_3a(widths, got)}"


def _saves(widths: tuple[int, ...], rows: int) -> bool:
    return bool(ledger(widths, "mixed-fp16", rows).total < ledger(widths, "fp32", rows).total)


def _hint_3a(widths: tuple[int, ...], got: Any) -> str:
    if not isinstance(got, int) or got < 1:
        return "a whole number of rows, from 1 on"
    plain, mixed = (ledger(widths, recipe, got).total for recipe in ("fp32", "mixed-fp16"))
    if plain == mixed:
        return f"at {got} rows both hold {plain} bytes, and fewer was asked for"
    if mixed > plain:
        return (
            f"at {got} rows mixed precision still holds {mixed - plain} bytes more: mind the low copies, and "
            "that log_softmax's result stays in float32"
        )
    return (
        f"at {got} rows {plain - mixed} bytes are saved, and fewer rows are enough: masters take no more than "
        "float32 weights do, only the low copies are new"
    )


@exercise("4a", points=3, hints=("size = len(layers) // segments, and a loop over range(0, len(layers), size)",
                                 "x = mp.recompute(nn.Sequential(*part), x)"))  # fmt: skip
def check_4a(lab: Any) -> None:
    """Bits of the result and of all gradients beside an ordinary run; what is kept after the forward."""
    for number, segments in ((6, 1), (6, 2), (6, 3), (6, 6), (1, 1)):
        layers, x = _problem(number)
        plain = mp.nn.Sequential(*layers)(x)
        plain.sum().backward()
        want = [p.grad.numpy() for layer in layers for p in layer.parameters()]
        layers, x = _problem(number)
        told = f"run_in_segments, {number} layers in {segments} segments"
        y = lab.run_in_segments(layers, x, segments)
        same = np.array_equal(y.detach().numpy(), plain.detach().numpy())
        assert same, f"{told}: expected the result of all layers, one after the other, and got another one"
        kept, again = _kept(y, layers)
        kept /= x.array.nbytes
        hint = (
            "nothing is recomputed" if not again else
            "`segments` says how many there are, not how long each one is" if kept == number else
            "one segment saves nothing: all of it comes back at once in backward" if kept == 1 else
            "cut into as many segments as were asked for"
        )  # fmt: skip
        assert kept == segments, (
            f"{told}: expected {segments} arrays kept after the forward, got {kept:g}; {hint}"
        )
        try:
            y.sum().backward()
        except mp.errors.GradientError as fault:
            raise AssertionError(
                f"{told}: expected a backward, got an error: {fault}; when backward runs a segment again, a "
                "function made in a loop sees the layers of the last one"
            ) from fault
        got = [p.grad.numpy() for layer in layers for p in layer.parameters() if p.grad is not None]
        assert len(got) == len(want), f"{told}: expected {len(want)} gradients, got {len(got)}"
        assert all(map(np.array_equal, got, want)), (
            f"{told}: expected the gradients of an ordinary run, got others; is every layer run once, in its order?"
        )


def _problem(number: int) -> tuple[list[Any], Any]:
    mp.manual_seed(8)
    layers = [mp.nn.Sequential(mp.nn.ReLU(), mp.nn.Linear(8, 8)) for _ in range(number)]
    x = np.random.default_rng(8).standard_normal((4, 8))
    return layers, mp.tensor(x, dtype="float32", requires_grad=True)


def _kept(y: Any, layers: list[Any]) -> tuple[float, bool]:
    """Return the bytes kept for backward, weights left out, and whether anything is to run again."""
    found, stack = {}, [y.node]
    while stack:
        node = stack.pop()
        if node is not None and id(node) not in found:
            found[id(node)] = node
            stack += [source for source in node.inputs if hasattr(source, "saved")]
    weights = {id(p.array) for layer in layers for p in layer.parameters()}
    arrays = mp.memory.saved_arrays(found.values())
    again = any(getattr(node, "rerun", None) is not None for node in found.values())
    return sum(float(array.nbytes) for key, array in arrays.items() if key not in weights), again


@exercise("4b", points=2, hints=("what is held for parameters is not divided by the number of parts",
                                 "try parts from 1 to rows, those that divide rows"))  # fmt: skip
def check_4b(lab: Any) -> None:
    """A search over all numbers of parts, written here once more."""
    for state, per_row, rows, budget in (
        (1000, 10, 96, 2000), (1000, 10, 96, 1320), (1000, 10, 96, 1250), (1000, 10, 96, 1009), (1000, 10, 96, 900),
        (0, 7, 30, 49), (500, 1, 97, 560), (1000, 10, 100, 1340),
    ):  # fmt: skip
        fitting = [n for n in range(1, rows + 1) if rows % n == 0 and state + per_row * (rows // n) <= budget]
        want = min(fitting, default=None)
        got = lab.parts_needed(state, per_row, rows, budget)
        hint = (
            "even one row at a time is too much: None" if want is None else
            f"{got} does not divide {rows}: parts are equal" if isinstance(got, int) and got > 0 and rows % got else
            "a smaller number of parts fits; exactly the budget is allowed" if isinstance(got, int) and got > want else
            "state is held whole, however small the parts"
        )  # fmt: skip
        assert got == want, (
            f"parts_needed(state={state}, per_row={per_row}, rows={rows}, budget={budget}): "
            f"expected {want}, got {got}; {hint}"
        )
