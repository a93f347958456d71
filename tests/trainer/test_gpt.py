"""The GPT and what it writes; oracles: closed forms, PyTorch's layers, probabilities by hand."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import minimp as mp
from minimp import models, nn, optim
from minimp.data import DataLoader, TextDataset, Vocabulary, split_text
from minimp.errors import DataError, SettingError, ShapeError
from minimp.evaluation import evaluate
from minimp.models.sampling import Drawing, sample
from minimp.recipe import recipes
from minimp.step import TrainStep
from tests.arrays import host
from tests.tolerances import assert_close

T, V, C, L = 12, 20, 32, 2
SIZES: dict[str, Any] = {"width": C, "layers": L, "heads": 4}
SONG = "abcdefghijklmnopqrstuvwxyz\n" * 60


def small(seed: int = 0, **changes: Any) -> Any:
    """Make a small GPT."""
    mp.manual_seed(seed)
    return models.build("gpt", ((T,), V), **{**SIZES, **changes})


def codes(*shape: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Draw characters."""
    return np.random.default_rng(seed).integers(0, V, shape)


# ---- the model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_counted(tied: bool) -> None:
    """Oracle: the closed form; a tied table is counted once, and stands under both of its names."""
    model = small(tied=tied)
    block = 4 * C + (3 * C * C + 3 * C) + (C * C + C) + (4 * C * C + 4 * C) + (4 * C * C + C)
    assert nn.count_parameters(model) == V * C + T * C + L * block + 2 * C + (0 if tied else V * C)
    state = model.state_dict()
    assert (state["head.weight"].array is state["tokens.weight"].array) is tied


def test_weights_are_drawn_as_gpt2s() -> None:
    """Oracle: n draws of N(0, v): mean 0 +- sqrt(v/n), variance v +- v sqrt(2/n); v = 0.02^2, ends v / 2L."""
    for path, parameter in small(7, width=64).named_parameters():
        values = host(parameter).astype(np.float64)
        if values.ndim == 1:
            assert np.all(values == (0.0 if path.endswith("bias") else 1.0)), path
            continue
        v = 0.02**2 / (2 * L if path.endswith(".out.weight") else 1)
        mean = values.mean() / math.sqrt(v / values.size)
        spread = (np.mean(values**2) / v - 1.0) / math.sqrt(2.0 / values.size)
        assert_close([mean, spread], [0.0, 0.0], "six_deviations")


@pytest.mark.parametrize("recipe", ["fp32", "fp16", "mixed-bf16"])
def test_no_position_sees_the_future(recipe: str) -> None:
    """Oracle: the scores before a character that was changed, bit for bit; those from it on differ."""
    model = small(1)
    chosen = recipes[recipe]
    model.to(chosen.param_dtype)
    before = codes(3, T)
    with mp.no_grad(), mp.autocast(chosen.compute_dtype if chosen.policy else "float16", bool(chosen.policy)):
        first = host(model(before))
        for at in (0, 5, T - 1):
            after = before.copy()
            after[:, at] = (after[:, at] + 1) % V
            second = host(model(after))
            assert np.array_equal(first[:, :at], second[:, :at])
            assert (first[:, at:] != second[:, at:]).any(axis=(0, 2)).all()


def test_a_short_text_is_a_beginning() -> None:
    """Oracle: the same positions of a longer text, to a rounding; one beyond the context is refused."""
    model = small(2).double()
    whole = host(model(codes(2, T)))
    assert_close(host(model(codes(2, T)[:, :5])), whole[:, :5], "fp64_same_maths")
    with pytest.raises(ShapeError, match="at most 12 characters, got 13"):
        model(codes(1, T + 1))


def test_dropout_acts_in_training_alone() -> None:
    """Oracle: two draws differ in training, none in evaluation."""
    model = small(dropout=0.3)
    x = codes(2, T)
    assert not np.array_equal(host(model(x)), host(model(x)))
    model.eval()
    assert np.array_equal(host(model(x)), host(model(x)))


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"heads": 5}, "heads must divide width"),
        ({"heads": 0}, "heads must divide width"),
        ({"layers": 0}, "layers must be a whole number"),
        ({"depth": 3}, "unknown size of model 'gpt'"),
        ({"dropout": 1.5}, "probability"),
    ],
)
def test_sizes_that_cannot_be(sizes: dict[str, Any], words: str) -> None:
    """Oracle: the kind of error, and its words."""
    with pytest.raises(SettingError, match=words):
        small(**sizes)


def test_the_first_loss_is_that_of_knowing_nothing() -> None:
    """Oracle: ln V nats, log2 V bits, a perplexity of V: a table of zeros scores all characters alike."""
    data = TextDataset(SONG, context=T)
    model: Any = models.build("gpt", data, **SIZES)
    weight = model.tokens.weight
    weight.array = weight.backend.xp.zeros_like(weight.array)
    found = evaluate(model, data, "fp32")
    v = data.num_classes
    assert set(found) == {"test_loss", "test_bits", "test_perplexity"}
    assert_close(found["test_loss"], math.log(v), "fp64_same_maths")
    assert_close(found["test_bits"], math.log2(v), "fp64_same_maths")
    assert_close(found["test_perplexity"], v, "fp64_same_maths")


def test_evaluation_is_the_mean_over_characters() -> None:
    """Oracle: NumPy in float64 over the model's scores, window by window; the batch does not matter."""
    data = TextDataset(SONG[:200], context=T, stride=T)
    mp.manual_seed(0)
    model = models.build("gpt", data, **SIZES).double()
    inputs, targets = data[:]
    scores = host(model(inputs))
    right = np.take_along_axis(scores, targets[..., None], -1)[..., 0]
    wanted = np.mean(np.log(np.exp(scores).sum(-1)) - right)
    wide = mp.Recipe("float64", "float64", "float64")
    for size in (1, 3, None):
        assert_close(evaluate(model, data, wide, batch_size=size)["test_loss"], wanted, "fp64_same_maths")


# ---- beside PyTorch -------------------------------------------------------------------------------------


def torch_gpt(torch: Any, weights: dict[str, Any], x: Any) -> Any:
    """Compute the scores by PyTorch's functions, from the definition of GPT-2."""
    f = torch.nn.functional

    def linear(y: Any, path: str) -> Any:
        return f.linear(y, weights[f"{path}.weight"], weights.get(f"{path}.bias"))

    def norm(y: Any, path: str) -> Any:
        return f.layer_norm(y, (C,), weights[f"{path}.weight"], weights[f"{path}.bias"])

    stream = f.embedding(x, weights["tokens.weight"]) + weights["positions.weight"][: x.shape[1]]
    for n in range(L):
        at = f"blocks.{n}"
        y = linear(norm(stream, f"{at}.before_attention"), f"{at}.attention.queries_keys_values")
        q, k, v = (part.reshape(*x.shape, 4, C // 4).transpose(1, 2) for part in y.split(C, dim=2))
        y = f.scaled_dot_product_attention(q, k, v, is_causal=True)
        stream = stream + linear(y.transpose(1, 2).reshape(*x.shape, C), f"{at}.attention.out")
        y = f.gelu(linear(norm(stream, f"{at}.before_mlp"), f"{at}.mlp.wide"), approximate="tanh")
        stream = stream + linear(y, f"{at}.mlp.out")
    return linear(norm(stream, "norm"), "head")


@pytest.mark.torch
@pytest.mark.parametrize("tied", [True, False])
def test_scores_and_gradients_are_pytorchs(tied: bool) -> None:
    """Oracle: PyTorch 2.13 in float64, written down once more; every gradient, that of a tied table too."""
    torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
    model = small(3, tied=tied).double()
    for parameter in model.parameters():  # larger than at the start, so that everything matters
        parameter.array = parameter.array * 4.0
    theirs = {
        name: torch.tensor(np.array(host(each)), requires_grad=True)
        for name, each in model.named_parameters()
    }
    x, y = codes(3, T), codes(3, T, seed=1)
    ours = models.MODELS["gpt"].loss_fn(model(x), y)
    ours.backward()
    weights = theirs | ({"head.weight": theirs["tokens.weight"]} if tied else {})
    scores = torch_gpt(torch, weights, torch.tensor(x))
    assert_close(host(model(x)), scores.detach().numpy(), "composite_gradient_fp64")
    torch.nn.functional.cross_entropy(scores.reshape(-1, V), torch.tensor(y).reshape(-1)).backward()
    for name, parameter in model.named_parameters():
        assert_close(host(parameter.grad), theirs[name].grad.numpy(), "composite_gradient_fp64")


# ---- training -------------------------------------------------------------------------------------------


def train(recipe: str, steps: int, seed: int = 0) -> tuple[Any, list[float], Any]:
    """Train a small GPT on a song; return it, the losses and the data."""
    parts = split_text(SONG, context=T)
    mp.manual_seed(seed)
    model = models.build("gpt", parts.train, **SIZES)
    step = TrainStep(
        model, models.MODELS["gpt"].loss_fn, optim.AdamW(model.parameters(), lr=3e-3), recipe, max_norm=1.0
    )
    batches = DataLoader(parts.train, 16, shuffle=True, seed=seed).cycle()
    return model, [step(*next(batches)).loss for _ in range(steps)], parts


@pytest.mark.parametrize("recipe", ["fp32", "mixed-fp16", "mixed-bf16", "bf16-kahan"])
def test_a_song_is_learnt(recipe: str) -> None:
    """Oracle: the alphabet itself; each character says what the next is, so the loss falls far."""
    model, losses, parts = train(recipe, 60)
    assert losses[-1] < losses[0] / 4
    found = evaluate(model, parts.test, recipe)
    assert found["test_loss"] < losses[0] / 4
    how = Drawing(temperature=0)
    written = sample(
        model, parts.train.vocabulary, recipe, length=30, context=T, prompt=SONG[:12], drawing=how
    )
    assert written == SONG[12:42]


# ---- what it writes -------------------------------------------------------------------------------------

SCORES = hnp.arrays(np.float64, 7, elements=st.floats(-30, 30))


@given(SCORES, st.floats(0.05, 5), st.integers(1, 9))
def test_probabilities_are_softmax_of_the_likeliest(scores: Any, temperature: float, top_k: int) -> None:
    """Oracle: e^(x/T) over those not below the k-th largest, in plain Python."""
    made = Drawing(temperature=temperature, top_k=top_k).probabilities(scores)
    least = sorted(scores, reverse=True)[: min(top_k, 7)][-1]
    top = max(scores)
    weights = [math.exp((x - top) / temperature) if x >= least else 0.0 for x in scores]
    assert_close(made, np.array(weights) / math.fsum(weights), "fp64_same_maths")
    assert Drawing(temperature=0).probabilities(scores).tolist() == [
        float(i == scores.argmax()) for i in range(7)
    ]


def test_draws_follow_the_probabilities() -> None:
    """Oracle: 4,000 draws; each count within six deviations of the binomial law."""
    scores = np.log([0.5, 0.3, 0.15, 0.05])
    drawing = Drawing(temperature=1.0, seed=3)
    counts = Counter(drawing.draw(scores) for _ in range(4000))
    for number, p in enumerate((0.5, 0.3, 0.15, 0.05)):
        assert_close((counts[number] - 4000 * p) / math.sqrt(4000 * p * (1 - p)), 0.0, "six_deviations")


def test_text_is_a_function_of_the_seed_and_changes_nothing() -> None:
    """Oracle: equal text for equal seeds; weights, modes and the engine's random state as before."""
    model, vocabulary = small(4, dropout=0.5), Vocabulary("abcdefghijklmnopqrst")
    before = [p.array for p in model.parameters()], model.training, mp.get_rng_state()

    def write(seed: int, **options: Any) -> str:
        how = Drawing(temperature=1.0, seed=seed, **options)
        return sample(model, vocabulary, "mixed-fp16", length=40, context=T, prompt="abc", drawing=how)

    assert write(1) == write(1) != write(2)
    assert len(write(1)) == 40
    assert write(1, top_k=1) == write(2, top_k=1)
    after = [p.array for p in model.parameters()], model.training, mp.get_rng_state()
    assert all(a is b for a, b in zip(before[0], after[0], strict=True))
    assert before[1:] == after[1:]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"prompt": ""}, SettingError, "the prompt is empty"),
        ({"prompt": "a1"}, DataError, "'1' at position 1 is not among the 20"),
        ({"length": -1}, SettingError, "length must be 0 or more"),
        ({"recipe": "fp61"}, SettingError, "unknown recipe"),
    ],
)
def test_what_cannot_be_written(options: dict[str, Any], error: type[Exception], words: str) -> None:
    """Oracle: the kind of error, and its words."""
    given = {"recipe": "fp32", "length": 3, "prompt": "a", **options}
    with pytest.raises(error, match=words):
        sample(small(), Vocabulary("abcdefghijklmnopqrst"), given.pop("recipe"), context=T, **given)


@pytest.mark.parametrize(
    "options", [{"temperature": -1}, {"temperature": math.nan}, {"top_k": 0}, {"top_k": 1.5}, {"seed": -1}]
)
def test_draws_that_cannot_be(options: dict[str, Any]) -> None:
    """Oracle: the stated ranges."""
    with pytest.raises(SettingError, match="must be"):
        Drawing(**options)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_write_nothing(bad: float) -> None:
    """Oracle: NaN is the largest of any scores; nothing can be drawn from it, or from an infinity."""
    with pytest.raises(DataError, match="scores are no numbers"):
        Drawing().draw(np.full(3, bad))
    assert Drawing(temperature=0).draw(np.array([-math.inf, 1.0, 0.0])) == 1
