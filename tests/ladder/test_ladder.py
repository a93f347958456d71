"""The debug ladder: what it writes is counted again here, and off it writes nothing and changes nothing."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import numpy as np
import pytest

import minimp as mp
from minimp.backend import get_backend
from minimp.errors import SettingError
from minimp.ladder import LEVELS, lines
from minimp.modes import MODES, listen
from minimp.nn.hooks import ALL
from minimp.step import STAGES

HUGE = 2.0**24


def make_step(recipe: str = "mixed-fp16", **options: Any) -> mp.TrainStep:
    """A step of a small model."""
    model = mp.nn.Sequential(mp.nn.Linear(8, 16), mp.nn.ReLU(), mp.nn.Linear(16, 4))
    optimizer = mp.optim.SGD(model.parameters(), lr=0.1)
    return mp.TrainStep(model, mp.functional.cross_entropy, optimizer, recipe, **options)


def batch() -> tuple[np.ndarray, np.ndarray]:
    """Inputs (32, 8) and labels (32,)."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(32, 8)).astype(np.float32), rng.integers(0, 4, 32)


def written(capsys: pytest.CaptureFixture[str], *starts: str) -> list[str]:
    """The lines on stderr so far, those that begin with one of `starts`; stdout must be empty."""
    found = capsys.readouterr()
    assert found.out == ""
    told = found.err.splitlines()
    assert all(line.startswith("minimp ") and len(line) <= 100 for line in told)
    return [line for line in told if not starts or line.startswith(starts)]


def assert_clean() -> None:
    """Nothing of a ladder is left in the engine."""
    assert MODES.get().listeners == MODES.get().watchers == ()
    assert not ALL.forward_pre
    assert not ALL.forward
    assert "narrow" not in vars(get_backend("numpy"))


# ---- off ---------------------------------------------------------------------------------------------------


def test_off_writes_nothing_and_leaves_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: no line before, after and within `debug(0)`; listeners, watchers, hooks, kernels as before."""
    step = make_step()
    step(*batch())
    with mp.debug(0):
        assert_clean()
        step(*batch())
    for level in LEVELS:
        with mp.debug(level):
            pass
        assert_clean()
    step(*batch())
    assert written(capsys) == []


@pytest.mark.parametrize("recipe", ["mixed-fp16", "mixed-bf16", "fp16", "mixed-layerwise", "mixed-fp8"])
def test_no_level_changes_a_bit(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: two steps without the ladder: reports, weights and the next random number."""
    results = []
    for level in LEVELS:
        mp.manual_seed(3)
        step = make_step(recipe)
        with mp.debug(level):
            told = [repr(step(*batch())) for _ in range(2)]
        results.append(
            (told, [np.array(p.array).tobytes() for p in step.model.parameters()], mp.rand(1).item())
        )
    assert all(each == results[0] for each in results)
    written(capsys)


def test_each_level_writes_what_the_one_below_it_writes(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the lines of a level, less those with its number, are those of the level below."""
    told = []
    for level in LEVELS:
        mp.manual_seed(3)
        step = make_step()
        with mp.debug(level):
            step(*batch())
        told.append(written(capsys))
    for level in range(1, len(LEVELS)):
        own = f"minimp {level} "
        assert [line for line in told[level] if not line.startswith(own)] == told[level - 1]
        assert any(line.startswith(own) for line in told[level])


def test_what_is_no_level_is_refused() -> None:
    """Oracle: the documented range of whole numbers."""
    for level in (-1, 5, 2.0, "x", None, True):
        with pytest.raises(SettingError, match="debug: expected a level from 0 to 4"):
            mp.debug(level)  # type: ignore[arg-type]  # that is the point


# ---- 1: steps and scales -----------------------------------------------------------------------------------


def test_a_skipped_step_names_its_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the step's own report, and infinities and NaNs counted by NumPy in the gradients."""
    step = make_step(scaler=mp.GradScaler(init_scale=HUGE))
    with mp.debug(1):
        report = step(*batch())
    assert report.skipped
    told = written(capsys)
    count = len(report.nonfinite)
    assert told[0].endswith(f"loss scale {int(HUGE)}: SKIPPED, {count} of 4 gradients not finite")
    assert told[1].startswith("minimp 1 why   1 ")
    assert told[1].endswith("made in backward")
    grads = {name: np.asarray(p.grad.array, np.float32) for name, p in step.model.named_parameters()}
    for name, line in zip(report.nonfinite, told[2:-1], strict=True):
        inf, nan = int(np.isinf(grads[name]).sum()), int(np.isnan(grads[name]).sum())
        counts = ", ".join(f"{n} {word}" for n, word in ((inf, "inf"), (nan, "nan")) if n)
        assert line.split(maxsplit=4)[4].split("  ")[0] == f"{counts} of {grads[name].size} values"
        assert line.endswith(f" {name}")
    assert told[-1] == f"minimp 1 scale {int(HUGE)} -> {int(HUGE) // 2}, after 1 bad step"


@pytest.mark.parametrize(
    ("inputs", "scale", "words"),
    [
        (
            np.full((32, 8), np.inf, np.float32),
            1024.0,
            "the loss itself is nan: the loss scale is not the cause",
        ),
        (batch()[0] * 100.0, 2.0**127, "times the loss scale 1.701411835e+38 is not finite"),
    ],
)
def test_why_tells_a_bad_loss_from_a_scale_too_large(
    inputs: np.ndarray, scale: float, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Oracle: planted: an infinite input; a scale that takes the loss out of float32."""
    step = make_step(scaler=mp.GradScaler(init_scale=scale))
    with mp.debug(1):
        step(inputs, batch()[1])
    assert written(capsys, "minimp 1 why")[0].endswith(words)


def test_a_good_step_says_loss_norm_and_growth(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the step's own report; the rule: two good steps double the scale."""
    step = make_step(scaler=mp.GradScaler(init_scale=8.0, growth_interval=2))
    with mp.debug(1):
        reports = [step(*batch()) for _ in range(2)]
    told = written(capsys)
    for number, (report, line) in enumerate(zip(reports, told, strict=False), 1):
        words = f"loss scale 8: updated, gradient norm {report.grad_norm:.4g}"
        assert line == f"minimp 1 step  {number:<5} loss {report.loss:<10.5g} {words}"
    assert told[2:] == ["minimp 1 scale 8 -> 16, after 2 good steps in a row"]


def test_a_loop_of_ones_own_is_heard_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the ScalerStep that the scaler returns, and the gradient that was planted."""
    weight = mp.tensor([1.0, 2.0, 3.0], requires_grad=True)
    optimizer, scaler = mp.optim.SGD([weight], lr=0.1), mp.GradScaler(init_scale=4.0)
    scaler.name_parameters([("gain", weight)])
    with mp.debug(1):
        scaler.scale((weight * weight).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
        weight.grad = None
        scaler.scale((weight * mp.tensor([np.inf, 1.0, np.nan])).sum()).backward()
        assert scaler.step(optimizer).skipped
        scaler.update()
    assert written(capsys) == [
        "minimp 1 step  1     SGD, loss scale 4: updated",
        "minimp 1 step  2     SGD, loss scale 4: SKIPPED, 1 of 1 gradients not finite",
        "minimp 1 skip  2     1 inf, 1 nan of 3 values         gain",
        "minimp 1 scale 4 -> 2, after 1 bad step",
    ]


def test_a_step_that_raises_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: a loss function that raises in stage loss."""

    def broken(output: Any, targets: Any) -> Any:
        raise RuntimeError("planted")

    step = make_step()
    step.loss_fn = broken
    with pytest.raises(RuntimeError, match="planted"), mp.debug(1):
        step(*batch())
    assert written(capsys) == ["minimp 1 step  1     ended by an error in stage loss"]
    assert_clean()


def test_a_layers_own_scale_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the scaler's own list of layers that overflowed, with a factor that overflows."""
    step = make_step("mixed-layerwise", scaler=mp.LayerwiseScaler(fixed={"2": 2.0**24}))
    with mp.debug(1):
        step(*batch())
    assert step.scaler.overflowed
    told = written(capsys, "minimp 1 scale")
    assert told == [
        f"minimp 1 scale of layer {name} halved, unless fixed: it overflowed"
        for name in step.scaler.overflowed
    ]


# ---- 2: casts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["float16", "bfloat16"])
def test_a_cast_counts_what_it_made(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: zeros, infinities and extremes counted by NumPy before and after, in both directions."""
    fmt = mp.formats.get(form)
    rng = np.random.default_rng(1)
    values = np.float32(rng.choice([-1, 1], 4000) * np.exp2(rng.uniform(-149, 128, 4000)))
    values[:5] = [0.0, np.inf, -np.inf, np.nan, 1.0]
    x = mp.tensor(values, requires_grad=True)
    with mp.debug(2), np.errstate(all="ignore"):
        low = x.to(fmt)
        low.backward(mp.tensor(np.ones(4000, np.float32), dtype=fmt))
        there = np.asarray(low.array, np.float32)
    zeros = int((there == 0).sum() - (values == 0).sum())
    infs = int(np.isinf(there).sum() - np.isinf(values).sum())
    assert zeros > 100
    assert infs > (100 if form == "float16" else -1)
    amax = f"{np.abs(there[np.isfinite(there)]).max():.4g}"
    flow = f"float32->{form}"
    assert written(capsys) == [
        f"minimp 2 fwd cast {flow:17} [4000]       |max| {amax:9} made {zeros:,} zeros {infs:,} infs",
        *ones(form),
    ]


def ones(form: str) -> list[str]:
    """The lines of a gradient of ones that is cast on its way in and back."""
    into, out = f"float32->{form}", f"{form}->float32"
    ends = "[4000]       |max| 1         made 0 zeros 0 infs"
    return [f"minimp 2 {phase} cast {flow:17} {ends}" for phase, flow in (("fwd", into), ("bwd", out))]


def test_casts_of_a_step_name_parameters_and_modules(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the recipe: each parameter cast once and its gradient back; the input cast in layer 0."""
    step = make_step()
    with mp.debug(2):
        step(*batch())
    told = written(capsys, "minimp 2")
    names = [name for name, _ in step.model.named_parameters()]
    forward = [line.split()[-1] for line in told if " fwd " in line]
    assert forward[:4] == names
    assert told[4].endswith("  in 0")
    backward = [line.split()[-1] for line in told if " bwd cast float16->float32 " in line]
    assert sorted(backward) == sorted(names)


# ---- 3 and 4: ops and values -------------------------------------------------------------------------------


def test_ops_come_in_the_order_in_which_they_ran(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: a listener of the test's own: op and phase of each event; the stages of the step."""
    step, seen = make_step(), []
    with mp.debug(3), listen(lambda event: seen.append((event.phase, event.node.op.name))):
        step(*batch())
    told = written(capsys, "minimp 2", "minimp 3")
    ops = [line.split() for line in told if " stage " not in line]
    short = {"forward": "fwd", "backward": "bwd"}
    assert [(words[2], words[3]) for words in ops] == [(short[phase], op) for phase, op in seen]
    stages = [line.split()[3] for line in told if " stage " in line]
    assert stages == list(STAGES)
    first = next(i for i, line in enumerate(told) if " bwd " in line)
    assert told[:first][-1] == "minimp 3 stage backward"


def test_an_op_says_formats_shapes_magnitude_and_module(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the product computed by NumPy; the names of the modules."""

    class Outer(mp.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mp.nn.Linear(8, 16)

        def forward(self, x: Any) -> Any:
            return self.inner(x) * 2.0

    model, x = Outer(), mp.tensor(batch()[0])
    with mp.debug(3):
        out = model(x)
    host = out.detach().numpy()
    ends = (
        "[32,8][16,8][16]->[32,16]",
        f"|max| {np.abs(host).max() / 2:.4g}",
        f"|max| {np.abs(host).max():.4g}",
    )
    first, second = written(capsys)
    assert first.split() == [
        "minimp",
        "3",
        "fwd",
        "linear",
        "float32",
        ends[0],
        *ends[1].split(),
        "in",
        "inner",
    ]
    assert second.split() == [
        "minimp",
        "3",
        "fwd",
        "mul",
        "float32",
        "[32,16]",
        *ends[2].split(),
        "in",
        "(Outer)",
    ]


def test_an_op_counts_what_its_rounding_made(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the products in float64, rounded by NumPy: which became 0, which infinite."""
    a = mp.tensor([1e-4, 300.0, 2.0, 0.0, np.inf, np.nan], dtype="float16")
    exact = np.asarray(a.array, np.float64) ** 2
    with np.errstate(all="ignore"):
        low = exact.astype(np.float16)
    flushed = int(((low == 0) & (exact != 0)).sum())
    burst = int((np.isinf(low) & np.isfinite(exact)).sum())
    with mp.debug(3), np.errstate(all="ignore"):
        _ = a * a
        assert not MODES.get().watchers[-1]._roundings.found
    (line,) = written(capsys)
    assert line.endswith(f" [6] |max| 4 made {flushed} zeros {burst} infs, holds 2 inf, 1 nan")
    assert (flushed, burst) == (1, 1)


def test_a_gradient_that_nobody_needs_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: an op whose rule returns two gradients, of which the second input needs none."""

    @mp.op()
    def both(ctx: Any, a: Any, b: Any) -> Any:
        return a + b.sum()

    both.gradient(lambda ctx, grad: (grad, np.full((7,), 9.0, np.float32)))
    try:
        with mp.debug(3):
            both(mp.tensor([1.0], requires_grad=True), mp.tensor(np.ones(7, np.float32))).backward()
    finally:
        del mp.OPS["both"]
    told = [line.split() for line in written(capsys)]
    assert told[0][3:6] == ["both", "float32", "[1][7]->[1]"]
    assert told[1][3:] == ["both", "float32", "[1]", "|max|", "1"]


def test_values_and_lines_of_code(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the values by hand; this file and the line of the product, also of its gradient."""
    x = mp.tensor(np.arange(40.0, dtype=np.float32), requires_grad=True)
    with mp.debug(4):
        y = (x * 0.5).sum()
        y.backward()
    told = written(capsys, "minimp 4")
    assert told[0].startswith("minimp 4 fwd mul         [0, 0.5, 1, 1.5, 2, ")
    assert ", ...]  at " in told[0]
    assert told[1].startswith("minimp 4 fwd sum         [390]  at ")
    assert told[3].startswith("minimp 4 bwd mul         [0.5, 0.5, 0.5, ")
    sources = [line.rpartition("  at ")[2] for line in told]
    assert len(set(sources)) == 1
    file, _, number = sources[0].rpartition(":")
    assert __file__.endswith(file.removeprefix(".."))
    with open(__file__, encoding="utf-8") as own:
        assert "y = (x * 0.5).sum()" in own.readlines()[int(number) - 1]


def test_a_forward_that_runs_again_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: mp.recompute: the op runs forward, then again before its gradient."""
    x = mp.tensor([1.0, 2.0], requires_grad=True)
    with mp.debug(3):
        mp.recompute(lambda v: v.exp(), x).sum().backward()
    phases = [line.split()[2] for line in written(capsys) if " exp " in line]
    assert phases == ["fwd", "re", "bwd"]


# ---- blocks, decorators, threads ---------------------------------------------------------------------------


def test_blocks_nest_and_end_by_exceptions(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the inner block alone decides; after it the outer one goes on, also after an exception."""
    x = mp.tensor([1.0])
    with mp.debug(3):
        _ = x + x
        with mp.debug(0):
            _ = x * x
        with mp.debug(2):
            _ = x - x
            _ = x.half()
        with pytest.raises(KeyError), mp.debug(4):
            raise KeyError
        _ = x / x
    assert_clean()
    assert [line.split()[3] for line in written(capsys)] == ["add", "cast", "div"]


def test_a_decorated_function_writes_whenever_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: two calls, one line each; one within itself; nothing between them; a generator stepwise."""

    @mp.debug(3)
    def double(x: Any, again: bool = False) -> Any:
        return double(x) if again else x + x

    @mp.debug(3)
    def pieces(x: Any) -> Any:
        yield x * x
        yield x / x

    x = mp.tensor([1.0])
    double(x)
    _ = x - x
    double(x, again=True)
    for _ in pieces(x):
        _ = x - x
    assert [line.split()[3] for line in written(capsys)] == ["add", "add", "mul", "div"]
    assert_clean()


def test_a_block_is_of_its_thread(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: a plain thread writes nothing; one in a copy of the context does, with its module."""
    model, x = mp.nn.Linear(2, 2), mp.tensor([[1.0, 2.0]])

    def in_thread(target: Any) -> None:
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()

    with mp.debug(3):
        in_thread(lambda: model(x))
        assert written(capsys) == []
        context = contextvars.copy_context()
        in_thread(lambda: context.run(model, x))
        (line,) = written(capsys)
    assert line.endswith("in (Linear)")


def test_a_block_within_a_block_writes_each_step_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: one line of level 1 for a good step, however many ladders there would be."""
    step = make_step(scaler=mp.GradScaler(init_scale=8.0))
    with mp.debug(1), mp.debug(2), mp.debug(1):
        step(*batch())
    assert len(written(capsys)) == 1


def test_a_decorated_function_runs_in_several_threads_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: one thread ends while another is within: the latter's lines still name the module."""
    model, x = mp.nn.Linear(2, 2), mp.tensor([[1.0, 2.0]])
    within, ended = threading.Event(), threading.Event()

    @mp.debug(3)
    def run(first: bool) -> None:
        if first:
            assert within.wait(60)
            return
        within.set()
        assert ended.wait(60)
        model(x)

    threads = [threading.Thread(target=run, args=(first,)) for first in (True, False)]
    for thread in threads:
        thread.start()
    threads[0].join()
    ended.set()
    threads[1].join()
    (line,) = written(capsys)
    assert line.endswith("in (Linear)")
    assert_clean()


# ---- lines -------------------------------------------------------------------------------------------------


def test_no_line_is_too_long_or_breaks(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: 100 columns; the ends of names stay; a line break in a name is no line break of ours."""
    long, shapes = "encoder." * 20 + "weight", "[8,8,128,64]" * 3 + "->[8,8,128,64]"
    told = [
        lines.cast_line("fwd", "float32->float16", "[1024,1024]", 1.25e-7, (10**3, 10**3, 0), long),
        lines.op_line("bwd", "scaled_dot_product_attention", "float16", shapes, 1.0, ["holds 3 inf"], long),
        lines.values_line("fwd", "add", "", np.float64([np.pi] * 99), long),
    ]
    for line in told:
        assert len(line) <= 100
        assert line.endswith("weight")
    full = lines.cast_line("fwd", "float32->float16", "[1024,1024]", 1.25e-7, (10**6, 10**6, 0), long)
    assert len(full) <= 100
    assert full.endswith("made 1,000,000 zeros 1,000,000 infs")
    lines.write("minimp 1 skip  a\nb\x1b[31m" + "x" * 200)
    (line,) = written(capsys)
    assert line.startswith("minimp 1 skip  a?b?[31mxx")
    assert line.endswith("xx...")


@pytest.mark.parametrize(
    ("came", "made", "words"),
    [
        (["float32"], ["float16"], "float32->float16"),
        (["float16", "float16"], ["float16"], "float16"),
        (["float16", "float32", "float16"], ["float32"], "float16,float32->float32"),
        ([], ["float32"], "float32"),
    ],
)
def test_formats_are_told_once(came: list[str], made: list[str], words: str) -> None:
    """Oracle: by hand."""
    assert lines.flow(came, made) == words


def test_a_program_without_stderr_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: sys.stderr None, and closed: the sum is there, nothing is raised."""
    x = mp.tensor([1.0])
    monkeypatch.setattr("sys.stderr", None)
    with mp.debug(4):
        assert (x + x).item() == 2.0
    with open("/dev/null", "w", encoding="ascii") as gone:
        pass
    monkeypatch.setattr("sys.stderr", gone)
    with mp.debug(4):
        assert (x + x).item() == 2.0


def test_a_name_is_worth_more_than_shapes() -> None:
    """Oracle: by hand: there is not room for shapes and the name of a module that overflowed."""
    shapes, where = "[8,5,8][8,8][8]->[8,5,8]", "in attention.value"
    line = lines.op_line(
        "fwd", "linear", "float16", shapes, 65340.0, ["made 7 zeros 224 infs", "holds 3 nan"], where
    )
    assert line == f"minimp 3 fwd linear float16 |max| 6.534e+04 made 7 zeros 224 infs, holds 3 nan {where}"
    roomy = lines.op_line("fwd", "linear", "float16", shapes, 1.0, [], where)
    assert "[8,5,8]" in roomy
    assert roomy.endswith(where)


def test_infinities_that_rounding_made_are_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: by hand: 300 x 300 is beyond 65504; infinity x 1 was infinite before."""
    big = mp.tensor([300.0, 1.0], dtype="float16")
    with mp.debug(3):
        worse = big * big
        worse * 1.0
    first, second = capsys.readouterr().err.splitlines()
    assert first.rstrip().endswith("made 0 zeros 1 infs")
    assert second.rstrip().endswith("holds 1 inf")
