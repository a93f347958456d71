"""Functions of one's own: torch's protocol, several results, second derivatives, autocast, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.errors import FormatError, GradientError, SettingError, ShapeError
from minimp.function_casts import once_differentiable
from minimp.memory import saved_arrays
from minimp.modes import listen
from minimp.tape import Event
from tests.tolerances import assert_close


def written_for(lib: Any, function: Any) -> dict[str, Any]:
    """Return the same Functions, written once, for minimp or torch."""

    class Cube(function):  # type: ignore[misc]  # a base that is passed in
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            (x,) = ctx.saved_tensors
            return grad * 3 * x * x

    class Exp(function):  # type: ignore[misc]  # a base that is passed in
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            y = x.exp()
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad * ctx.saved_tensors[0]

    class SumAndProduct(function):  # type: ignore[misc]  # a base that is passed in
        @staticmethod
        def forward(a: Any, b: Any, k: float) -> Any:
            return a + b * k, a * b

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            a, b, k = inputs
            ctx.save_for_backward(a, b, output[1])
            ctx.k = k

        @staticmethod
        def backward(ctx: Any, by_sum: Any, by_product: Any) -> Any:
            a, _, product = ctx.saved_tensors
            return by_sum + by_product * product / a, by_sum * ctx.k + by_product * a, None

    return {"Cube": Cube, "Exp": Exp, "SumAndProduct": SumAndProduct}


def _grad(lib: Any) -> Any:
    return lib.grad if lib is mp else lib.autograd.grad


def _square_and_add(s: Any, p: Any) -> Any:
    return (s * s + p).sum()


CASES = {
    "Cube": (lambda f, a, b: f["Cube"].apply(a).sum()),
    "Exp": (lambda f, a, b: (f["Exp"].apply(a) * b).sum()),
    "twice": (lambda f, a, b: f["Cube"].apply(f["Exp"].apply(a * 0.1) * b).sum()),
    "both": (lambda f, a, b: _square_and_add(*f["SumAndProduct"].apply(a, b, 0.5))),
    "one of two": (lambda f, a, b: (f["SumAndProduct"].apply(a, b, 2.0)[1] ** 2).sum()),
    "first of two": (lambda f, a, b: (f["SumAndProduct"].apply(a, b, 2.0)[0] ** 3).sum()),
}


@pytest.mark.torch
@pytest.mark.parametrize("case", list(CASES))
def test_values_gradients_and_second_derivatives_are_torchs(case: str) -> None:
    """Oracle: torch.autograd.Function of torch 2.13.0 in float64, the same class bodies."""
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    arrays = [random.uniform(0.5, 2.0, (3, 4)) for _ in range(2)]
    found = []
    for lib, function in ((mp, mp.Function), (torch, torch.autograd.Function)):
        leaves = [lib.tensor(a, requires_grad=True) for a in arrays]
        y = CASES[case](written_for(lib, function), *leaves)
        first = _grad(lib)(y, leaves, create_graph=True, allow_unused=True)
        total = sum((g * g).sum() for g in first if g is not None)
        second = _grad(lib)(total, leaves, retain_graph=True, allow_unused=True)
        results = [y, *first, *second]
        found.append([None if t is None else t.detach().numpy() for t in results])
        y.backward()
        found[-1] += [None if leaf.grad is None else leaf.grad.numpy() for leaf in leaves]
    for ours, theirs in zip(*found, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert_close(ours, theirs, "fp64_same_maths")


def test_only_what_depends_on_an_input_gets_a_gradient() -> None:
    """Oracle: needs_input_grad, True for leaves that require one and results of such, False elsewhere."""
    seen: list[tuple[bool, ...]] = []

    class F(mp.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            seen.append(ctx.needs_input_grad)
            return args[0] * 1.0

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad

    x, plain = mp.tensor([1.0], requires_grad=True), mp.tensor([1.0])
    F.apply(x, plain, 3, "text", x * 2.0)
    assert not F.apply(plain, x.detach()).requires_grad
    with mp.no_grad():
        assert not F.apply(x).requires_grad
    assert seen == [(True, False, False, False, True), (False, False), (False,)]


def test_outputs_without_a_gradient() -> None:
    """Oracle: integers, marked outputs and what is no tensor are constants; backward gets zeros or None."""
    given: list[Any] = []

    class Split(mp.Function):
        zeros = True

        @classmethod
        def made(cls, zeros: bool) -> Any:
            cls.zeros = zeros
            return cls

        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.set_materialize_grads(Split.zeros)
            kept = x * 2.0
            ctx.mark_non_differentiable(kept)
            return x + 1.0, kept, x.argmax(), "note", x * 3.0

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            given.append(grads)
            return grads[0]

    for zeros in (True, False):
        x = mp.tensor([1.0, 5.0], requires_grad=True)
        first, kept, index, note, third = Split.made(zeros).apply(x)
        assert (note, index.item(), kept.requires_grad, third.requires_grad) == ("note", 1, False, True)
        first.sum().backward()
        grads = given.pop()
        assert grads[0].tolist() == [1.0, 1.0]
        assert grads[3] is None
        if zeros:
            assert [grads[1].tolist(), grads[2].tolist(), grads[4].tolist()] == [[0.0, 0.0], 0, [0.0, 0.0]]
        else:
            assert grads[1:] == (None,) * 4


def test_what_is_saved_is_counted_and_freed() -> None:
    """Oracle: the arrays given to save_for_backward, on the node; none after backward."""
    x = mp.tensor(np.ones((10, 10)), dtype="float32", requires_grad=True)
    y = written_for(mp, mp.Function)["Cube"].apply(x)
    assert [a.nbytes for a in saved_arrays([y.node]).values()] == [400]
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    assert x.grad.numpy()[0, 0] == 6.0
    assert y.node.saved == ()
    with pytest.raises(GradientError, match="freed by an earlier backward"):
        y.sum().backward()


def test_listeners_are_told() -> None:
    """Oracle: one forward event of the Function after those of its body, one backward event."""
    events: list[Event] = []
    x = mp.tensor([1.0, 2.0], requires_grad=True)
    functions = written_for(mp, mp.Function)
    with listen(events.append):
        s, p = functions["SumAndProduct"].apply(x, x, 2.0)
        (s + p).sum().backward()
    names = [(e.phase, e.node.op.name, len(e.inputs), len(e.outputs)) for e in events]
    assert names.count(("forward", "SumAndProduct", 3, 2)) == 1
    assert names.count(("backward", "SumAndProduct", 2, 3)) == 1
    assert all(name != "pick" for _, name, *_ in names)


class Product(mp.Function):
    """A matrix product that notes what it sees."""

    seen: list[Any] = []  # noqa: RUF012 - the test empties it

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        """Multiply."""
        ctx.save_for_backward(a, b)
        y = a @ b
        Product.seen.append((a.dtype.name, y.dtype.name, mp.is_autocast_enabled()))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        """Multiply by the other factor."""
        a, b = ctx.saved_tensors
        by_a = grad @ b.T
        Product.seen.append((grad.dtype.name, by_a.dtype.name, mp.is_autocast_enabled()))
        return by_a, a.T @ grad


def decorated(cast_inputs: Any) -> type[mp.Function]:
    """Return the product with custom_fwd and custom_bwd around its methods."""
    forward = mp.custom_fwd(Product.forward) if cast_inputs is None else mp.custom_fwd(
        Product.forward, cast_inputs=cast_inputs
    )  # fmt: skip
    methods = {"forward": staticmethod(forward), "backward": staticmethod(mp.custom_bwd(Product.backward))}
    return type("Decorated", (mp.Function,), methods)


# cast_inputs, in a region: what forward sees, what backward sees (dtype in, dtype out, autocast on)
SEEN = {
    (None, True): [("float32", "float16", True), ("float16", "float16", True)],
    (None, False): [("float32", "float32", False), ("float32", "float32", False)],
    ("float32", True): [("float32", "float32", False), ("float32", "float32", False)],
    ("float16", True): [("float16", "float16", False), ("float16", "float16", False)],
    ("bfloat16", True): [("bfloat16", "bfloat16", False), ("bfloat16", "bfloat16", False)],
    ("float16", False): [("float32", "float32", False), ("float32", "float32", False)],
}


@pytest.mark.parametrize(("cast_inputs", "inside"), list(SEEN))
def test_custom_fwd_and_bwd_set_the_autocast_state(cast_inputs: Any, inside: bool) -> None:
    """Oracle: torch.amp.custom_fwd of PyTorch 2.13 by its documentation and as measured; float32 leaves."""
    random = np.random.default_rng(0)
    a, b = (
        mp.tensor(random.standard_normal(s), dtype="float32", requires_grad=True) for s in [(3, 4), (4, 2)]
    )
    Product.seen.clear()
    with mp.autocast("float16", enabled=inside):
        y = decorated(cast_inputs).apply(a, b)
    y.backward(np.ones((3, 2)))
    assert Product.seen == SEEN[cast_inputs, inside]
    assert (a.grad.format, b.grad.format) == (mp.float32, mp.float32)


@pytest.mark.torch
@pytest.mark.parametrize(("cast_inputs", "inside"), [key for key in SEEN if key[0] != "float16"])
def test_the_autocast_state_is_torchs(cast_inputs: Any, inside: bool) -> None:
    """Oracle: torch 2.13.0's own custom_fwd and custom_bwd on the CPU, in bfloat16 regions."""
    torch = pytest.importorskip("torch")
    from torch.amp import custom_bwd, custom_fwd

    seen: list[Any] = []

    class Theirs(torch.autograd.Function):  # type: ignore[misc,name-defined]  # torch is optional
        @staticmethod
        @custom_fwd(
            device_type="cpu", cast_inputs=None if cast_inputs is None else getattr(torch, cast_inputs)
        )
        def forward(ctx: Any, a: Any, b: Any) -> Any:
            ctx.save_for_backward(a, b)
            y = a @ b
            seen.append((str(a.dtype)[6:], str(y.dtype)[6:], torch.is_autocast_enabled("cpu")))
            return y

        @staticmethod
        @custom_bwd(device_type="cpu")
        def backward(ctx: Any, grad: Any) -> Any:
            a, b = ctx.saved_tensors
            by_a = grad @ b.T
            seen.append((str(grad.dtype)[6:], str(by_a.dtype)[6:], torch.is_autocast_enabled("cpu")))
            return by_a, a.T @ grad

    x, w = (torch.ones(s, requires_grad=True) for s in [(3, 4), (4, 2)])
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=inside):
        y = Theirs.apply(x, w)
    y.sum().backward()
    Product.seen.clear()
    a, b = (mp.tensor(np.ones(s), dtype="float32", requires_grad=True) for s in [(3, 4), (4, 2)])
    with mp.autocast("bfloat16", enabled=inside):
        z = decorated(cast_inputs).apply(a, b)
    z.sum().backward()
    assert Product.seen == seen
    assert str(x.grad.dtype)[6:] == a.grad.dtype.name


def test_inputs_in_containers_are_cast_and_float64_is_not() -> None:
    """Oracle: torch's _cast: lists, tuples, named tuples and dicts; float64 and integers stay."""
    seen: list[Any] = []

    @mp.custom_fwd(cast_inputs="float16")
    def forward(ctx: Any, *args: Any) -> None:
        seen.extend(args)

    x, d, n = mp.tensor([1.0]), mp.tensor([1.0], dtype="float64"), mp.tensor([1])
    with mp.autocast("float16"):
        forward(type("Ctx", (), {})(), [x, (x, 3)], {"a": x}, d, n, "text")
    first, second, third, fourth, text = seen
    assert (first[0].dtype, first[1][0].dtype, first[1][1]) == (np.float16, np.float16, 3)
    assert (second["a"].dtype, third.dtype, fourth.dtype, text) == (np.float16, np.float64, np.int64, "text")


def test_what_cannot_be_is_refused() -> None:
    """Oracle: type and words of each error."""

    class Odd(mp.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * 2.0

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad.sum()

    class Wordy(Odd):
        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad, grad, grad

    class Once(Odd):
        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad: Any) -> Any:
            return grad * 2.0

    class Early(Odd):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return ctx.saved_tensors

    class Text(Odd):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return "text"

    class Keeps(Odd):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(3)

    x = mp.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(
        ShapeError, match=r"Odd.backward: expected the gradient of argument 0 in shape \(2,\)"
    ):
        Odd.apply(x).sum().backward()
    with pytest.raises(GradientError, match="Wordy: expected 1 gradients, got 3"):
        Wordy.apply(x).sum().backward()
    assert mp.grad(Once.apply(x).sum(), x)[0].tolist() == [2.0, 2.0]
    with pytest.raises(GradientError, match="marked as once differentiable"):
        mp.grad(Once.apply(x).sum(), x, create_graph=True)
    with pytest.raises(GradientError, match="in backward only"):
        Early.apply(x)
    with pytest.raises(SettingError, match="Text: expected forward to return tensors, got str"):
        Text.apply(x)
    with pytest.raises(SettingError, match="expected tensors or None, got int"):
        Keeps.apply(x)
    with pytest.raises(SettingError, match=r"call Odd.apply\(...\)"):
        Odd()
    with pytest.raises(SettingError, match="needs a forward"):
        mp.Function.apply(x)
    with pytest.raises(FormatError, match="cast_inputs cannot be float8_e4m3fn"):
        mp.custom_fwd(cast_inputs="float8_e4m3fn")


# ---- where second derivatives go ---------------------------------------------------------------------------


def output_as_attribute(lib: Any, function: Any) -> Any:
    """Keep an output on ctx; in setup_context too."""

    class Exp(function):  # type: ignore[misc]  # a base that is passed in
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.x, ctx.y, ctx.nothing = x, x.exp(), None
            return ctx.y, None

        @staticmethod
        def backward(ctx: Any, grad: Any, _: Any) -> Any:
            return grad * ctx.y + 0 * ctx.x

    class Set(function):  # type: ignore[misc]  # a base that is passed in
        @staticmethod
        def forward(x: Any) -> Any:
            return x.exp()

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.y = output

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad * ctx.y

    return lambda x, z: Exp.apply(x)[0] * Set.apply(z)


def saved_from_outside(lib: Any, function: Any) -> Any:
    """Save a tensor that is neither argument nor output."""

    def call(x: Any, z: Any) -> Any:
        factor = z * z

        class Scaled(function):  # type: ignore[misc]  # a base that is passed in
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                ctx.save_for_backward(x, factor, z)
                return x * factor

            @staticmethod
            def backward(ctx: Any, grad: Any) -> Any:
                _, factor, z = ctx.saved_tensors
                return grad * factor + 0 * z

        return Scaled.apply(x * x)

    return call


def a_saved_output_of_several(lib: Any, function: Any) -> Any:
    """Save one output of several, one that is marked as constant, and hook an output."""

    class Several(function):  # type: ignore[misc]  # a base that is passed in
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            a, b, c = x.exp(), x * x, x * 2.0
            ctx.mark_non_differentiable(c)
            ctx.save_for_backward(x, a, c)
            return a, b, c

        @staticmethod
        def backward(ctx: Any, by_a: Any, by_b: Any, _: Any) -> Any:
            x, a, c = ctx.saved_tensors
            return by_a * a + by_b * 2 * x + by_b * c * 0.5 - by_b * x

    def call(x: Any, z: Any) -> Any:
        a, b, c = Several.apply(x * z)
        a.register_hook(lambda g: g * 3.0)
        return a * b * c + a

    return call


def reversed_gradient(lib: Any, function: Any) -> Any:
    """Return the argument itself, with another gradient than that of an identity."""

    class Reversed(function):  # type: ignore[misc]  # a base that is passed in
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.view_as(x) if lib is not mp else x

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return -grad

    return lambda x, z: Reversed.apply(x) * x * Reversed.apply(z) * z


def nothing_in_the_middle(lib: Any, function: Any) -> Any:
    """Return no gradient from the middle of a graph; the first argument is an integer."""

    class Silent(function):  # type: ignore[misc]  # a base that is passed in
        @staticmethod
        def forward(ctx: Any, n: Any, x: Any, z: Any) -> Any:
            ctx.save_for_backward(n, z)
            return x * z * n

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            n, z = ctx.saved_tensors
            return None, None, grad * n * z

    return lambda x, z: Silent.apply(lib.tensor([2, 3, 4]), x * x, z) * x


WAYS = [
    output_as_attribute, saved_from_outside, a_saved_output_of_several, reversed_gradient,
    nothing_in_the_middle,
]  # fmt: skip


@pytest.mark.torch
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_backward_reads_is_on_the_tape_as_in_torch(way: Any) -> None:
    """Oracle: torch 2.13.0 in float64, the same lines: first and second derivatives by both leaves."""
    torch = pytest.importorskip("torch")
    found = []
    for lib, function in ((mp, mp.Function), (torch, torch.autograd.Function)):
        x, z = (lib.tensor(np.array([0.5, 1.0, 1.5]) + i, requires_grad=True) for i in range(2))
        y = way(lib, function)(x, z).sum()
        first = _grad(lib)(y, [x, z], create_graph=True, allow_unused=True)
        total = sum((g * g).sum() for g in first if g is not None)
        second = _grad(lib)(total, [x, z], allow_unused=True)
        found.append([None if t is None else t.detach().numpy() for t in (*first, *second)])
    for ours, theirs in zip(*found, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert_close(ours, theirs, "fp64_same_maths")


def test_an_output_that_is_saved_is_the_one_that_was_given_out() -> None:
    """Oracle: the slope of e^x is e^x, an output: its derivative by that output is 1."""
    functions = written_for(mp, mp.Function)
    x = mp.tensor([0.5, 1.0], dtype="float64", requires_grad=True)
    total, product = functions["SumAndProduct"].apply(x, x.detach() * 2.0, 1.0)
    (slope,) = mp.grad(product.sum(), x, create_graph=True)  # product / x
    assert_close(mp.grad(slope.sum(), product)[0].numpy(), 1 / x.detach().numpy(), "fp64_same_maths")
    assert total.requires_grad


def test_marks_last_until_the_call_is_recorded() -> None:
    """Oracle: what was marked and not returned marks nothing else, whatever address comes next."""

    class Marks(mp.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.mark_non_differentiable(x * 2.0)
            return x * 3.0

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad * 3.0

    x = mp.tensor([1.0], requires_grad=True)
    assert all(Marks.apply(x).requires_grad for _ in range(50))


def test_second_derivatives_go_through_the_casts_of_custom_fwd() -> None:
    """Oracle: d2/dadb of a b = 1, where torch's is silently missing; bodies saw float16."""
    a, b = (mp.tensor([[v]], requires_grad=True) for v in (2.0, 3.0))
    with mp.autocast("bfloat16"):
        y = decorated("float16").apply(a, b)
    (slope,) = mp.grad(y.sum(), a, create_graph=True)
    assert slope.format is mp.float32
    assert mp.grad(slope.sum(), b)[0].tolist() == [[1.0]]
    with mp.no_grad(), mp.autocast("float16"):
        assert not decorated("float16").apply(a, b).requires_grad


def test_a_backward_inside_a_backward() -> None:
    """Oracle: by hand: the same node is differentiated while it is being differentiated."""
    log: list[Any] = []

    class Nested(mp.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            if not log:
                log.append(1)
                log.append(mp.grad(y, x, mp.tensor([1.0]), retain_graph=True)[0].tolist())
            return grad * 2 * ctx.saved_tensors[0]

    x = mp.tensor([3.0], requires_grad=True)
    y = Nested.apply(x)
    y.backward()
    assert (log, x.grad.tolist()) == ([1, [6.0]], [6.0])


def test_a_plain_array_is_a_gradient_once() -> None:
    """Oracle: NumPy in backward gives the first derivative; the second would be 0, and is refused."""

    class Outside(mp.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return np.cos(ctx.saved_tensors[0].detach().numpy()) * grad.detach().numpy()

    x = mp.tensor([0.0], requires_grad=True)
    assert mp.grad(Outside.apply(x), x)[0].tolist() == [1.0]
    with pytest.raises(GradientError, match=r"Outside.backward: .*is no tensor \(ndarray\).*no second deriv"):
        mp.grad(Outside.apply(x), x, create_graph=True)


def test_custom_bwd_needs_its_custom_fwd() -> None:
    """Oracle: type and words of the error."""
    methods = {
        "forward": staticmethod(Product.forward),
        "backward": staticmethod(mp.custom_bwd(Product.backward)),
    }
    half = type("Half", (mp.Function,), methods)
    a = mp.tensor([[1.0]], requires_grad=True)
    with pytest.raises(GradientError, match="decorate forward with custom_fwd"):
        half.apply(a, a).sum().backward()


@pytest.mark.parametrize("fmt", ["float16", "bfloat16", "float64"])
def test_a_gradient_of_another_format_is_cast_to_the_arguments(fmt: str) -> None:
    """Oracle: torch's rule; a float32 gradient of 1 + 2^-20 rounded once to the argument's format."""

    class Wide(mp.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.float()

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad * (1 + 2.0**-20)

    x = mp.tensor([1.0, 2.0], dtype=fmt, requires_grad=True)
    Wide.apply(x).sum().backward()
    assert x.grad.format.name == fmt
    assert x.grad.tolist() == [1 + 2.0**-20 if fmt == "float64" else 1.0] * 2


def test_regions_inside_functions_and_parts() -> None:
    """Oracle: the ordinary run, bit for bit: a Function in a part, a part in a Function, regions in both."""

    def inner(x: Any, w: Any) -> Any:
        with mp.autocast("bfloat16"):
            y = x @ w
            with mp.autocast("bfloat16", enabled=False):
                y = y.float() @ w
        return y

    def made(way: Any) -> type[mp.Function]:
        class Holds(mp.Function):
            @staticmethod
            def forward(ctx: Any, x: Any, w: Any) -> Any:
                ctx.save_for_backward(x, w)
                return way(inner, x, w)

            @staticmethod
            def backward(ctx: Any, grad: Any) -> Any:
                x, w = ctx.saved_tensors
                with mp.enable_grad():
                    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
                    return mp.grad(way(inner, x, w), [x, w], grad)

        return Holds

    found = []
    for outer in (lambda f, *a: f(*a), mp.recompute):
        for way in (lambda f, *a: f(*a), mp.recompute):
            random = np.random.default_rng(0)
            x, w = (
                mp.tensor(random.standard_normal((4, 4)), dtype="float32", requires_grad=True) for _ in "xw"
            )
            with mp.autocast("float16"):
                y = outer(lambda x, w, way=way: (made(way).apply(x @ w, w) @ w).tanh(), x, w)
            y.float().sum().backward()
            assert not mp.is_autocast_enabled()
            found.append([y.detach().numpy(), x.grad.numpy(), w.grad.numpy()])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)
