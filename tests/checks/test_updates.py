"""The contract of the weight update; oracle: torch 2.13.0's optimizers, and formulas spelled out by hand."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from minimp.checks import check_update
from minimp.errors import SettingError

RULES: list[tuple[str, str, dict[str, Any]]] = [
    ("sgd", "SGD", {"lr": 0.1}),
    ("sgd", "SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}),
    ("sgd", "SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "maximize": True}),
    ("adam", "Adam", {"lr": 1e-3, "weight_decay": 0.1}),
    ("adam", "Adam", {"lr": 1e-3, "amsgrad": True, "betas": (0.8, 0.99), "eps": 1e-6}),
    ("adamw", "AdamW", {"lr": 1e-3, "weight_decay": 0.1}),
    ("adamw", "AdamW", {"lr": 1e-2, "maximize": True, "amsgrad": True}),
]


@pytest.mark.torch
@pytest.mark.parametrize(("rule", "name", "options"), RULES)
def test_torch_keeps_the_contract_and_a_wrong_setting_does_not(
    rule: str, name: str, options: dict[str, Any]
) -> None:
    """Oracle: torch's own steps pass; the same steps fail with another lr, decay, beta, sign or count."""
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(1)
    w = torch.tensor(random.standard_normal(300).astype(np.float32), requires_grad=True)
    optimizer = getattr(torch.optim, name)([w], **options)
    settings = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    wrong = {"lr": settings["lr"] * 1.001, "maximize": not settings["maximize"]}
    wrong |= {"weight_decay": settings["weight_decay"] + 1e-2}
    later = {"betas": (0.7, 0.95)} if rule != "sgd" else {}  # at the first step, m^ = g whatever they are
    later |= {"momentum": settings["momentum"] - 0.01} if settings.get("momentum") else {}
    wrong |= {"eps": 1e-2} if rule != "sgd" else {}
    for number in range(4):
        grad = (random.standard_normal(300) * 10.0 ** random.integers(-6, 1, 300)).astype(np.float32)
        before, state = w.detach().numpy().copy(), _copies(optimizer.state[w])
        w.grad = torch.from_numpy(grad)
        optimizer.step()
        after, state_after = w.detach().numpy(), _copies(optimizer.state[w])
        found = check_update(rule, before, grad, state, settings, after, state_after)
        assert found, str(found)
        for key, value in (wrong | later if number else wrong).items():
            faulty = check_update(rule, before, grad, state, {**settings, key: value}, after)
            assert not faulty, f"step {number}, {key}"
        if "exp_avg" in state_after:
            bias = check_update(rule, before, grad, {**state, "step": np.array(number + 3)}, settings, after)
            assert not bias
            spoiled = {**state_after, "exp_avg_sq": state_after["exp_avg_sq"] * np.float32(1.00001)}
            assert not check_update(rule, before, grad, state, settings, after, spoiled)


def _copies(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value.numpy().copy() for key, value in state.items() if value is not None}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_weights_without_masters_are_rounded_once(dtype: type) -> None:
    """Oracle: w - lr g in float64, rounded to the weights' format; 2 ulps off is caught."""
    random = np.random.default_rng(2)
    w, g = random.standard_normal(200).astype(dtype), random.standard_normal(200).astype(dtype)
    exact = w.astype(np.float64) - 0.1 * g.astype(np.float64)
    after = exact.astype(dtype)
    assert check_update("sgd", w, g, {}, {"lr": 0.1}, after)
    for index in (0, 77):
        wrong = after.copy()
        wrong.view(np.uint16)[index] += 2
        found = check_update("sgd", w, g, {}, {"lr": 0.1}, wrong)
        assert [each.where for each in found] == [f"weight[{index}]"]


def test_stochastic_rounding_may_take_either_neighbour() -> None:
    """Oracle: the two float16 numbers around w - lr g; the one beyond them is a fault."""
    w, g = np.full(2, 1.0, np.float16), np.full(2, 0.003, np.float16)
    exact = float(w[0]) - 0.1 * float(g[0])
    below, above = np.float16(exact), np.nextafter(np.float16(exact), np.float16(2))
    assert float(below) < exact < float(above)
    after = np.array([below, above], np.float16)
    assert check_update("sgd", w, g, {}, {"lr": 0.1}, after, rounding="stochastic")
    assert not check_update("sgd", w, g, {}, {"lr": 0.1}, after)
    for wrong in ([np.nextafter(below, np.float16(0)), above], [below, np.nextafter(above, np.float16(2))]):
        found = check_update("sgd", w, g, {}, {"lr": 0.1}, np.array(wrong, np.float16), rounding="stochastic")
        assert len(found) == 1


def test_a_swallowed_update_and_a_skipped_one_are_caught() -> None:
    """Oracle: float32 weights that did not move, and moved twice, though lr g is far above their ulp."""
    w, g = np.ones(3, np.float32), np.full(3, 1e-3, np.float32)
    right = w - np.float32(0.1) * g
    assert check_update("sgd", w, g, {}, {"lr": 0.1}, right)
    for wrong in (w, w - np.float32(0.2) * g, w + np.float32(0.1) * g, right.astype(np.float64), right[:2]):
        assert not check_update("sgd", w, g, {}, {"lr": 0.1}, wrong)


def test_an_unknown_rule_is_refused_with_the_nearest() -> None:
    """Oracle: the message of SettingError."""
    with pytest.raises(SettingError, match="unknown update rule 'adamv'; did you mean 'adam'"):
        check_update("adamv", np.ones(1), np.ones(1), {}, {"lr": 0.1}, np.ones(1))
