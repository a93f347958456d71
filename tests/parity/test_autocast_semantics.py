"""What autocast does beyond its op tables, against PyTorch 2.13.0: regions, eligibility, caches, defects.

Programs run on both sides, on the CPU for real; what only CUDA does, on fake CUDA tensors (formats alone).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import minimp as mp
from minimp.errors import FormatError
from minimp.policy import caches, defects
from tests.policy.defect_programs import CASES, Ours

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch


class Theirs:
    """PyTorch, with the names of tests.policy.defect_programs.Ours."""

    refusals = (RuntimeError, TypeError)
    no_grad = torch.no_grad
    Function = torch.autograd.Function

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def region(self, low: str = "bfloat16", **options: Any) -> Any:
        """Return an autocast region."""
        return torch.autocast(self.device, getattr(torch, low), **options)

    def custom_fwd(self, cast_inputs: str) -> Any:
        """Return the decorator of a Function's forward."""
        return torch.amp.custom_fwd(device_type=self.device, cast_inputs=getattr(torch, cast_inputs))

    def custom_bwd(self, backward: Any) -> Any:
        """Decorate a Function's backward."""
        return torch.amp.custom_bwd(backward, device_type=self.device)

    def leaf(self, value: float) -> Any:
        """Return a 1 x 1 float32 weight."""
        return torch.tensor([[value]], requires_grad=True, device=self.device)

    def const(self, value: float, low: str = "float32") -> Any:
        """Return a 1 x 1 constant."""
        return torch.tensor([[value]], dtype=getattr(torch, low), device=self.device)

    def change(self, weight: Any, value: float) -> None:
        """Give a weight another value, as an optimizer does."""
        weight.fill_(value)

    def format(self, x: Any) -> str:
        """Return the name of a tensor's format."""
        return str(x.dtype).removeprefix("torch.")

    def promoted(self, *inputs: Any) -> Any:
        """Run an op that promotes."""
        return torch.cat(inputs) if self.device == "cpu" else torch.atan2(*inputs)

    def grad(self, y: Any, x: Any, create_graph: bool = False) -> Any:
        """Return dy/dx."""
        return torch.autograd.grad(y, x, create_graph=create_graph)[0]

    def enabled(self) -> bool:
        """Tell whether autocast acts."""
        return bool(torch.is_autocast_enabled(self.device))

    def reset(self) -> None:
        """Leave every region."""
        torch.set_autocast_enabled(self.device, False)
        torch.set_autocast_dtype(self.device, torch.bfloat16)
        torch.clear_autocast_cache()


LIBS = (Ours, Theirs)


@pytest.fixture(autouse=True)
def _torch_is_left_as_it_was() -> Iterator[None]:
    """Fail a test that leaves PyTorch's autocast on."""
    yield
    left = (Theirs().enabled(), torch.get_autocast_dtype("cpu"), torch.is_autocast_cache_enabled())
    Theirs().reset()
    assert left == (False, torch.bfloat16, True)


@pytest.fixture
def _fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a CPU build open CUDA regions, on fake tensors."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    with FakeTensorMode():
        yield


# ---- defects ----------------------------------------------------------------------------------------------

CPU_DEFECTS = [name for name, row in defects.items() if "torch-cpu" in row.policies]


@pytest.mark.filterwarnings("ignore:.*was never awaited:RuntimeWarning")
@pytest.mark.parametrize("name", CPU_DEFECTS)
def test_torch_has_the_defect(name: str) -> None:
    """Oracle: PyTorch run for real must give what the table of programs calls wrong; ours beside it."""
    case = CASES[name]
    assert case.program(Theirs()) == case.wrong
    assert case.program(Ours(faithful=True)) == (case.wrong if defects[name].reproduced else case.right)
    assert case.program(Ours()) == case.right


@pytest.mark.usefixtures("_fake_cuda")
def test_torchs_cuda_regions_take_any_format() -> None:
    """Oracle: PyTorch's CUDA autocast on fake tensors; integers are what ours cannot follow."""
    (name,) = set(defects) - set(CPU_DEFECTS)
    assert CASES[name].program(Theirs("cuda")) == CASES[name].wrong
    assert CASES[name].program(Ours("torch-cuda", faithful=True)) == CASES[name].wrong
    with Theirs("cuda").region("int8"):
        assert (torch.ones(2, 2, device="cuda") @ torch.ones(2, 2, device="cuda")).dtype is torch.int8


# ---- eligibility, promotion, what is no op of ours ---------------------------------------------------------

KINDS = ("float32", "float64", "float16", "bfloat16", "int64")


def outcome(lib: Any, compute: Callable[[], Any]) -> str:
    """Return the format of a result, or "refused"."""
    try:
        return str(lib.format(compute())) if not isinstance(lib, Ours) else compute().dtype.name
    except lib.refusals:
        return "refused"


@pytest.mark.parametrize("low", ["float16", "bfloat16"])
@pytest.mark.parametrize("left", KINDS)
@pytest.mark.parametrize("right", KINDS)
def test_which_formats_a_product_takes(left: str, right: str, low: str) -> None:
    """Oracle: PyTorch's CPU autocast run for real; ours also multiplies integers by floats, everywhere."""
    found = []
    for lib in (Ours(), Theirs()):
        with lib.region(low):
            found.append(outcome(lib, lambda lib=lib: lib.const(1, left) @ lib.const(1, right)))
    ours, theirs = found
    if (left == "int64") != (right == "int64"):
        assert theirs == "refused"
        assert outcome(Ours(), lambda: Ours().const(1, left) @ Ours().const(1, right)) != "refused"
    else:
        assert ours == theirs


@pytest.mark.parametrize("low", ["float16", "bfloat16"])
@pytest.mark.parametrize("left", KINDS[:-1])
@pytest.mark.parametrize("right", KINDS[:-1])
def test_which_formats_promotion_takes(left: str, right: str, low: str) -> None:
    """Oracle: PyTorch's CPU autocast of cat run for real: float32, the low format, and float64 pass."""
    found = []
    for lib in (Ours(faithful=True), Theirs(), Ours()):
        with lib.region(low):
            found.append(outcome(lib, lambda lib=lib: lib.promoted(lib.const(1, left), lib.const(1, right))))
    faithful, theirs, ours = found
    other = {"float16", "bfloat16"} - {low}
    assert faithful == theirs
    assert ours == (theirs if (left, right) != ("float32", *other) else "refused")


def test_a_banned_op_is_refused_in_every_format() -> None:
    """Oracle: PyTorch's CUDA autocast on fake tensors: float64 is refused too."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    for low in KINDS[:-1]:
        with FakeTensorMode():
            x = torch.full((1,), 0.5, dtype=getattr(torch, low), device="cuda")
            torch.set_autocast_enabled("cuda", True)
            try:
                with pytest.raises(RuntimeError, match="unsafe to autocast"):
                    torch.nn.functional.binary_cross_entropy(x, x)
            finally:
                torch.set_autocast_enabled("cuda", False)
        y = mp.tensor([0.5], dtype=low)
        with mp.autocast(), pytest.raises(FormatError, match="unsafe inside autocast"):
            mp.functional.binary_cross_entropy(y, y)


def assigned(lib: Any) -> list[str]:
    """Use the assigning operators on a float32 and a low tensor."""
    with lib.region():
        high, low = lib.const(1.0), lib.const(1.0) @ lib.const(1.0)
        a, b, c = high, low, high
        a += low
        b += high
        c @= low
        return [lib.format(each) for each in (a, b, c)]


def test_assigning_operators_make_new_tensors() -> None:
    """Oracle: PyTorch, whose `low += high` stays low in place; ours is a sum, float32. `@=` is a product."""
    assert assigned(Theirs()) == ["float32", "bfloat16", "bfloat16"]
    assert assigned(Ours()) == ["float32", "float32", "bfloat16"]


# ---- regions ----------------------------------------------------------------------------------------------

Plan = tuple[tuple[str, bool], ...]


def formats_inside(lib: Any, plan: Plan) -> list[str]:
    """Enter regions one inside the other; return the format of a product before, between and after them."""
    found = []
    product = lambda: lib.format(lib.const(1.0) @ lib.const(1.0))  # noqa: E731 - it belongs to `lib`
    with contextlib.ExitStack() as stack:
        for low, enabled in plan:
            found.append(product())
            stack.enter_context(lib.region(low, enabled=enabled))
        while True:
            found.append(product())
            if not stack._exit_callbacks:  # type: ignore[attr-defined]  # no public way to ask
                return found
            stack._exit_callbacks.pop()[1](None, None, None)  # type: ignore[attr-defined]  # one by one


@given(
    plan=st.lists(st.tuples(st.sampled_from(["float16", "bfloat16"]), st.booleans()), max_size=5).map(tuple)
)
def test_regions_nest_as_torchs(plan: Plan) -> None:
    """Oracle: PyTorch's CPU autocast: formats before, inside, and after each of the nested regions."""
    assert formats_inside(Ours(), plan) == formats_inside(Theirs(), plan)


def in_a_thread(lib: Any) -> list[str]:
    """Look from a new thread, which opens a region of its own, while this one is inside a region."""
    found = []

    def look() -> None:
        found.append(lib.format(lib.const(1.0) @ lib.const(1.0)))
        with lib.region("float16"):
            found.append(lib.format(lib.const(1.0) @ lib.const(1.0)))

    with lib.region():
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(timeout=60)
        found.append(lib.format(lib.const(1.0) @ lib.const(1.0)))
    return found


def in_a_decorated_function(lib: Any) -> list[str]:
    """Look inside a decorated function, and after it raised."""

    @lib.region()
    def look(fail: bool) -> str:
        if fail:
            raise KeyError("on purpose")
        return str(lib.format(lib.const(1.0) @ lib.const(1.0)))

    with contextlib.suppress(KeyError):
        look(True)
    return [look(False), lib.format(lib.const(1.0) @ lib.const(1.0))]


def in_a_waiting_generator(lib: Any) -> list[str]:
    """Look from outside while a generator waits inside of a region that it opened."""

    def steps() -> Iterator[None]:
        with lib.region():
            yield

    generator = steps()
    next(generator)
    found = [lib.format(lib.const(1.0) @ lib.const(1.0))]
    generator.close()
    return [*found, lib.format(lib.const(1.0) @ lib.const(1.0))]


def in_a_task(lib: Any) -> list[str]:
    """Look from the only task that there is, inside and after a region."""

    async def look() -> list[str]:
        found = []
        with lib.region():
            await asyncio.sleep(0)
            found.append(lib.format(lib.const(1.0) @ lib.const(1.0)))
        return [*found, lib.format(lib.const(1.0) @ lib.const(1.0))]

    return asyncio.run(look())


def after_a_region(lib: Any) -> list[str]:
    """Use outside what a region made."""
    with lib.region():
        low = lib.const(1.0) @ lib.const(1.0)
    return [lib.format(low), lib.format(low @ low), outcome(lib, lambda: low @ lib.const(1.0))]


def entered_again(lib: Any) -> list[str]:
    """Enter one object twice, one after the other."""
    region, found = lib.region(), []
    for _ in range(2):
        with region:
            found.append(lib.format(lib.const(1.0) @ lib.const(1.0)))
        found.append(lib.format(lib.const(1.0) @ lib.const(1.0)))
    return found


@pytest.mark.parametrize(
    "program",
    [in_a_thread, in_a_decorated_function, in_a_waiting_generator, in_a_task, after_a_region, entered_again],
)
def test_where_a_region_is_in_force(program: Callable[[Any], list[str]]) -> None:
    """Oracle: PyTorch's CPU autocast run for real."""
    assert program(Ours()) == program(Theirs())


@pytest.mark.parametrize("enabled", [True, False])
def test_a_region_that_names_no_format_takes_that_in_force(enabled: bool) -> None:
    """Oracle: PyTorch's dtype=None: of the region where the object is made, the device's own outside."""
    found = []
    for make, name in (
        (lambda **o: mp.autocast(o.pop("dtype", None), policy="torch-cpu", **o), str),
        (lambda **o: torch.autocast("cpu", **o), lambda x: str(x).removeprefix("torch.")),
    ):
        low = mp.float16 if name is str else torch.float16
        outside = make()
        with make(dtype=low, enabled=enabled):
            inside = make()
        read = (lambda x: x.format) if name is str else (lambda x: x.fast_dtype)
        found.append([name(read(each)) for each in (outside, inside)])
    assert found == [["bfloat16", "float16"]] * 2
    assert mp.autocast(None).format is mp.autocast().format is mp.float16
    assert mp.autocast(None, policy="torch-cpu@2.11").format is mp.bfloat16
    assert mp.autocast(policy="torch-cpu").format is mp.float16  # a default of its own


def test_the_switch_of_the_cache_is_inherited_as_torchs() -> None:
    """Oracle: PyTorch's cache_enabled=None: what is in force where the object is made."""
    with torch.autocast("cpu", cache_enabled=False):
        theirs = torch.autocast("cpu")._cache_enabled
    with mp.autocast(cache_enabled=False):
        ours = mp.autocast(cache_enabled=None)
    assert (theirs, ours.cache_enabled, ours.casts) == (False, False, caches["none"])


# ---- gradients --------------------------------------------------------------------------------------------


@given(
    values=st.lists(st.sampled_from([256.0, 1.0, 3.0, 0.5, 2.0**-9]), min_size=1, max_size=6),
    quiet=st.lists(st.booleans(), min_size=6, max_size=6),
    cached=st.booleans(),
)
def test_gradients_of_a_weight_used_often(values: list[float], quiet: list[bool], cached: bool) -> None:
    """Oracle: PyTorch, bit for bit: one cast or many, some of the uses under no_grad."""
    found = []
    for lib in (Ours(), Theirs()):
        w = lib.leaf(1.0 + 2.0**-7)
        y = w * 0.0
        with lib.region(cache_enabled=cached):
            for value, silent in zip(values, quiet, strict=False):
                with lib.no_grad() if silent else contextlib.nullcontext():
                    part = lib.const(value) @ w
                y = y + part
        y.sum().backward()
        found.append((y.item(), w.grad.item(), lib.format(w.grad)))
    assert found[0] == found[1]


def test_the_old_rule_loses_what_the_new_one_keeps() -> None:
    """Oracle: PyTorch 2.13.0, which keeps the gradient: ours by its own rule, None by the rule before."""

    def gradient(lib: Any, **options: Any) -> float | None:
        w = lib.leaf(2.0)
        with lib.region(**options):
            with lib.no_grad():
                lib.const(1.0) @ w
            y = lib.const(3.0) @ w + lib.leaf(0.0)
        y.sum().backward()
        return None if w.grad is None else float(w.grad.item())

    assert gradient(Theirs()) == gradient(Ours(), cache="torch") == 3.0
    assert gradient(Ours(), cache="torch-before-2.13") is None


def test_two_steps_in_one_region_and_a_penalty_on_a_gradient() -> None:
    """Oracle: PyTorch, value and format: a second backward through the kept cast, and d|dy/dw|^2/dw."""
    found = []
    for lib in (Ours(), Theirs()):
        w = lib.leaf(1.5)
        with lib.region():
            for _ in range(2):
                ((lib.const(2.0) @ w) @ w).sum().backward()
        first = (w.grad.item(), lib.format(w.grad))
        w.grad = None
        with lib.region():
            y = (lib.const(2.0) @ w) @ w
        slope = lib.grad(y.sum(), w, create_graph=True)
        with lib.region():
            penalty = (slope * slope).sum()
        penalty.backward()
        found.append((first, lib.format(slope), lib.format(penalty), w.grad.item(), lib.format(w.grad)))
    assert found[0] == found[1]
    assert found[0][1:3] == ("float32", "float32")


def test_what_is_saved_for_backward_is_low() -> None:
    """Oracle: torch.autograd.graph.saved_tensors_hooks of a product in a region; our node's `saved`."""
    theirs: list[str] = []

    def note(x: Any) -> Any:
        theirs.append(str(x.dtype).removeprefix("torch."))
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x), torch.autocast("cpu", torch.bfloat16):
        Theirs().leaf(1.0) @ Theirs().leaf(2.0)
    with mp.autocast("bfloat16"):
        y = Ours().leaf(1.0) @ Ours().leaf(2.0)
    assert y.node is not None
    assert [array.dtype.name for array in y.node.saved] == theirs == ["bfloat16", "bfloat16"]
