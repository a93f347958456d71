"""What an optimizer may be given and told; oracle: the contracts in the docstrings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp import nn, optim
from minimp.errors import DeviceError, FormatError, GradientError, SettingError, ShapeError
from minimp.tensors import Tensor
from tests.optim.helpers import parameter, values
from tests.tolerances import assert_close

ONE = np.ones(1, np.float32)


def test_settings_left_open_are_plain_until_they_are_configured() -> None:
    """Oracle: None behaves as False and "fp32"; configure sets what it is told and leaves the rest."""
    optimizer = optim.SGD([parameter([1.0], "float16")])
    assert (optimizer.master_weights, optimizer.update) == (False, "fp32")
    optimizer.configure(master_weights=True)
    optimizer.configure()
    assert (optimizer.master_weights, optimizer.update) == (True, "fp32")
    optimizer.configure(master_weights=False, update="kahan")
    assert (optimizer.master_weights, optimizer.update) == (False, "kahan")


def test_an_explicit_choice_cannot_be_contradicted() -> None:
    """Oracle: the error; the same choice, and what was left open, may be configured."""
    optimizer = optim.SGD([parameter([1.0], "float16")], update="stochastic")
    with pytest.raises(
        SettingError, match="update='kahan' contradicts the optimizer's own update='stochastic'"
    ):
        optimizer.configure(update="kahan")
    optimizer.configure(update="stochastic", master_weights=False)
    masters = optim.SGD([parameter([1.0], "float16")], master_weights=False)
    with pytest.raises(SettingError, match="master_weights=True contradicts"):
        masters.configure(master_weights=True)
    assert masters.master_weights is False


def test_nothing_changes_after_the_first_step() -> None:
    """Oracle: the error; what is in force may be told again."""
    param = parameter([1.0], "bfloat16")
    optimizer = optim.SGD([param])
    optimizer.step(gradients={param: ONE})
    optimizer.configure(master_weights=False, update="fp32")
    for change in ({"master_weights": True}, {"update": "kahan"}):
        with pytest.raises(SettingError, match="after the first step"):
            optimizer.configure(**change)
    assert (optimizer.master_weights, optimizer.update) == (False, "fp32")


def test_a_setting_that_cannot_act_is_refused() -> None:
    """Oracle: update= needs 16-bit parameters without masters; nothing has changed then."""
    with pytest.raises(SettingError, match="cannot act beside master weights"):
        optim.Adam([parameter([1.0], "float16")], master_weights=True, update="kahan")
    optimizer = optim.Adam([parameter([1.0], "float16")], update="kahan")
    with pytest.raises(SettingError, match="cannot act beside master weights"):
        optimizer.configure(master_weights=True)
    wide = parameter([1.0])
    idle = optim.Adam([wide], update="stochastic")
    with pytest.raises(SettingError, match="no parameter is in float16 or bfloat16"):
        idle.step(gradients={wide: ONE})
    assert values(wide).tolist() == [1.0]
    assert idle.state == {}
    mixed = [parameter([1.0]), parameter([1.0], "bfloat16")]
    optim.SGD(mixed, lr=0.5, update="kahan").step(gradients=dict.fromkeys(mixed, ONE))
    assert [p.item() for p in mixed] == [0.5, 0.5]


LEAF, OTHER = parameter([1.0]), parameter([2.0])
MISTAKES: tuple[tuple[Callable[[], Any], type[Exception], str], ...] = (
    (lambda: optim.SGD(LEAF), SettingError, "expected an iterable of parameters"),
    (lambda: optim.SGD({"params": [LEAF]}), SettingError, "expected an iterable of parameters"),
    (lambda: optim.SGD([]), SettingError, "the list of parameters is empty"),
    (lambda: optim.SGD(nn.ReLU().parameters()), SettingError, "the list of parameters is empty"),
    (lambda: optim.SGD(["w"]), SettingError, "parameter 0 is a str"),
    (lambda: optim.SGD([{"params": {LEAF}}]), SettingError, "a set of parameters has no order"),
    (lambda: optim.SGD([{"lr": 1.0}]), SettingError, "a group has no 'params'"),
    (lambda: optim.SGD([{"params": LEAF, "momentun": 1.0}]), SettingError, "did you mean 'momentum'"),
    (lambda: optim.SGD([LEAF, LEAF]), SettingError, "a parameter comes twice"),
    (lambda: optim.SGD([{"params": [LEAF]}, {"params": [LEAF]}]), SettingError, "a parameter comes twice"),
    (lambda: optim.SGD([("a", LEAF), OTHER]), SettingError, "some have none"),
    (lambda: optim.SGD([LEAF * 2.0]), GradientError, "parameter 0 of shape (1,) is no leaf"),
    (lambda: optim.SGD([mp.tensor([1])]), FormatError, "not of a floating format"),
    (lambda: optim.SGD([LEAF], lr=-0.1), SettingError, "expected lr to be a finite number of at least 0"),
    (lambda: optim.SGD([LEAF], lr=float("nan")), SettingError, "got nan"),
    (lambda: optim.SGD([LEAF], lr="fast"), SettingError, "got 'fast'"),  # type: ignore[arg-type]  # the fault
    (lambda: optim.SGD([LEAF], nesterov=True), SettingError, "nesterov needs a momentum and no dampening"),
    (lambda: optim.SGD([{"params": [LEAF], "weight_decay": -1}]), SettingError, "expected weight_decay"),
    (lambda: optim.Adam([LEAF], betas=(0.9, 1.0)), SettingError, "of at least 0 and below 1, got 1.0"),
    (lambda: optim.Adam([LEAF], betas=(0.9,)), SettingError, "expected two betas"),  # type: ignore[arg-type]  # the fault
    (lambda: optim.AdamW([LEAF], eps=-1.0), SettingError, "expected eps"),
    (lambda: optim.RMSprop([LEAF], alpha=-0.1), SettingError, "expected alpha"),
    (lambda: optim.RMSprop([LEAF], momentum=-1), SettingError, "expected momentum"),
    (lambda: optim.RMSprop([LEAF], eps=float("inf")), SettingError, "expected eps"),
    (lambda: optim.Adagrad([LEAF], lr_decay=-1.0), SettingError, "expected lr_decay"),
    (lambda: optim.Adagrad([LEAF], initial_accumulator_value=-1), SettingError, "initial_accumulator_value"),
    (lambda: optim.Adagrad([{"params": [LEAF], "momentum": 0.9}]), SettingError, "unknown option 'momentum'"),
    (lambda: optim.Lion([LEAF], betas=(1.0, 0.9)), SettingError, "betas[0]"),
    (lambda: optim.Lion([LEAF], lr=-1e-4), SettingError, "expected lr"),
    (lambda: optim.LAMB([LEAF], betas=(0.9, 0.9, 0.9)), SettingError, "expected two betas"),  # type: ignore[arg-type]  # the fault
    (lambda: optim.LAMB([LEAF], weight_decay=True), SettingError, "expected weight_decay"),
    (lambda: optim.SGD([LEAF], update="khan"), SettingError, "unknown update 'khan'; did you mean 'kahan'"),
    (lambda: optim.SGD([LEAF], master_weights="yes"), SettingError, "master_weights to be True"),  # type: ignore[arg-type]  # the fault
    (lambda: optim.SGD([LEAF]).add_param_group([LEAF]), SettingError, "expected a dict"),  # type: ignore[arg-type]  # the fault
    (lambda: optim.SGD([{"params": [("a", LEAF)]}, {"params": OTHER}]), SettingError, "some groups have"),
)  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "message"), MISTAKES, ids=[message for _, _, message in MISTAKES])
def test_mistakes_are_named(make: Callable[[], Any], kind: type[Exception], message: str) -> None:
    """Oracle: the errors in the docstrings."""
    with pytest.raises(kind) as caught:
        make()
    assert message in str(caught.value)


def test_a_wrong_gradient_changes_nothing() -> None:
    """Oracle: the errors, and the bytes of all parameters and states before."""
    good, bad = parameter([1.0, 2.0]), parameter([3.0, 4.0])
    optimizer = optim.Adam([good, bad], lr=0.1)
    fine = np.ones(2, np.float32)
    cases: tuple[tuple[Any, type[Exception], str], ...] = (
        ({good: fine, bad: np.ones(3, np.float32)}, ShapeError, r"gradient of shape \(2,\), got \(3,\)"),
        ({good: fine, bad: np.ones(2)}, FormatError, "expected a gradient of float32, got float64"),
        ({good: fine, bad: np.ones(2, np.int64)}, FormatError, "expected a gradient of float32, got int64"),
        (
            {good: fine, parameter([1.0]): ONE},
            SettingError,
            "1 gradients are for parameters that this optimizer",
        ),
    )
    for gradients, kind, message in cases:
        with pytest.raises(kind, match=message):
            optimizer.step(gradients=gradients)
        assert values(good).tolist() == [1.0, 2.0]
        assert optimizer.state == {}


class Elsewhere(type(parameter([1.0]).backend)):  # type: ignore[misc]  # the class of the backend in use
    """A second backend: the same arrays, another object and name."""

    name = "elsewhere"


def test_a_gradient_of_another_backend_is_refused() -> None:
    """Oracle: the error names both."""
    param = parameter([1.0])
    with pytest.raises(DeviceError, match=f"a gradient on elsewhere, its parameter on {param.backend.name}"):
        optim.SGD([param]).step(gradients={param: Tensor(ONE, Elsewhere())})


def test_given_gradients_stand_in_the_place_of_the_tensors_own() -> None:
    """Oracle: w - lr g by hand; parameters without one stay, whatever their `.grad` says."""
    first, second, half = parameter([1.0]), parameter([1.0]), parameter([1.0], "float16")
    optimizer = optim.SGD([first, second, half], lr=0.5)
    for param in (first, second):
        param.grad = mp.tensor([100.0])
    optimizer.step(gradients={first: mp.tensor([1.0]), half: np.array([0.5], np.float16)})
    assert [p.item() for p in (first, second, half)] == [0.5, 1.0, 0.75]
    optimizer.step()
    assert [p.item() for p in (first, second, half)] == [-49.5, -49.0, 0.75]
    optimizer.step(gradients={second: [1.0]})
    assert second.item() == -49.5


def test_a_closure_is_run_with_gradients_and_its_loss_returned() -> None:
    """Oracle: d(3 w)/dw = 3, by hand."""
    param = parameter([1.0])
    optimizer = optim.SGD([param], lr=0.5)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (param * 3.0).sum()
        loss.backward()
        return loss

    with mp.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() == 3.0
    assert param.item() == -0.5
    optimizer.zero_grad(set_to_none=False)
    assert param.grad is not None
    assert param.grad.tolist() == [0.0]
    optimizer.zero_grad()
    assert param.grad is None


def test_options_may_change_between_steps() -> None:
    """Oracle: by hand; momentum switched on later begins with the gradient, as at a first step."""
    param = parameter([0.0])
    optimizer = optim.SGD([param], lr=1.0, dampening=0.5)
    optimizer.step(gradients={param: ONE})
    optimizer.param_groups[0].update(lr=2.0, momentum=0.5)
    optimizer.step(gradients={param: ONE})
    optimizer.step(gradients={param: ONE})
    assert param.item() == -1.0 - 2.0 * 1.0 - 2.0 * (0.5 + 0.5)


KINDS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("SGD", {}), ("Adam", {}), ("AdamW", {}), ("RMSprop", {"momentum": 0.5, "centered": True}),
    ("Adagrad", {}), ("Lion", {}), ("LAMB", {}),
)  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=[kind for kind, _ in KINDS])
def test_every_rule_runs_a_closure_and_climbs(kind: str, options: dict[str, Any]) -> None:
    """Oracle: minimising f and maximising -f are the same run, to the bit; the loss is the closure's."""
    ends = []
    for sign in (1.0, -1.0):
        param = parameter([1.0, -2.0, 0.5])
        optimizer = getattr(optim, kind)([param], lr=0.05, maximize=sign < 0, **options)

        def closure(param: Any = param, optimizer: Any = optimizer, sign: float = sign) -> Any:
            optimizer.zero_grad()
            loss = (param * param).sum() * sign
            loss.backward()
            return loss

        losses = [optimizer.step(closure).item() * sign for _ in range(20)]
        assert losses[0] == 5.25
        assert losses[-1] < losses[0]
        ends.append((param.array.tobytes(), losses))
    assert ends[0] == ends[1]


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=[kind for kind, _ in KINDS])
@pytest.mark.parametrize("way", [{}, {"master_weights": True}, {"update": "kahan"}, {"update": "stochastic"}])
def test_parameters_without_elements_or_axes(kind: str, options: dict[str, Any], way: Any) -> None:
    """Oracle: a parameter of no axes moves as one of one element does; none of no elements moves at all."""
    mp.manual_seed(3)
    params = [parameter(np.full(shape, 2.0), "bfloat16") for shape in ((), (0,), (3, 0), (1,))]
    optimizer = getattr(optim, kind)(params, lr=0.25, **options, **way)
    for _ in range(3):
        optimizer.step(gradients={p: np.full(p.shape, 0.5, np.float32) for p in params})
    assert [p.shape for p in params] == [(), (0,), (3, 0), (1,)]
    assert params[0].item() != 2.0
    if way.get("update") != "stochastic":
        assert params[0].item() == params[3].item()
    optimizer.measure_updates = True
    optimizer.step(gradients={p: np.full(p.shape, 0.5, np.float32) for p in params})
    assert optimizer.last_update.size == 2


def test_what_is_switched_on_later_begins_at_zero() -> None:
    """Oracle: RMSprop by hand: v = 1 and sqrt v = 1 at alpha = 0; b = 1, 1.5; a centered v - m^2 is 0."""
    param = parameter([0.0])
    optimizer = optim.RMSprop([param], lr=1.0, alpha=0.0, eps=1.0)
    optimizer.step(gradients={param: ONE})
    assert param.item() == -0.5
    optimizer.param_groups[0]["momentum"] = 0.5
    optimizer.step(gradients={param: ONE})
    optimizer.step(gradients={param: ONE})
    assert param.item() == -0.5 - 0.5 - 0.75
    optimizer.param_groups[0].update(momentum=0.0, centered=True)
    optimizer.step(gradients={param: ONE})
    assert param.item() == -1.75 - 1.0
    assert optimizer.state[param]["step"] == 4
    other = parameter([0.0])
    adagrad = optim.Adagrad([{"params": [other], "initial_accumulator_value": 7.0}], lr=1.0, eps=0.0)
    adagrad.step(gradients={other: ONE * 3})
    assert other.item() == -3 / 4
    adagrad.param_groups[0]["lr_decay"] = 1.0
    adagrad.step(gradients={other: ONE * 3})
    assert_close(values(other), [-3 / 4 - 3 / 5 / 2], "parity_optimizer")
