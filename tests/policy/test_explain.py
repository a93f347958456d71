"""policy.explain and minimp.policy.explain: what they tell is what happens when the op runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import minimp as mp
from minimp.door import OPS, Op, op
from minimp.errors import FormatError, MinimpError, SettingError
from minimp.frameworks.cases import CASES, Case, minimp_library
from minimp.frameworks.ops.torch_formats import LOW, MIXES, formats_of
from minimp.modes import listen
from minimp.policy import CastClass, explain, format_of
from minimp.tape import Event

CUDA = mp.policies["torch-cuda"]
ONES = np.ones((2, 2))
INPUTS: dict[str, Callable[[], Any]] = {
    **{name: (lambda name=name: mp.tensor(ONES, dtype=name))
       for name in ("float32", "float16", "bfloat16", "float64")},
    "leaf": lambda: mp.tensor(ONES, dtype="float32", requires_grad=True),
    "low leaf": lambda: mp.tensor(ONES, dtype="float16", requires_grad=True),
    "activation": lambda: mp.tensor(ONES, dtype="float32", requires_grad=True) * 1.0,
    "no axes": lambda: mp.tensor(1.0, dtype="float16"),
    "wide, no axes": lambda: mp.tensor(1.0, dtype="float32"),
    "integers": lambda: mp.tensor([[1, 0], [0, 1]]),
    "array": lambda: ONES.astype(np.float32),
    "wide array": lambda: ONES,
    "list": lambda: [[1.0, 2.0], [3.0, 4.0]],
    "NumPy number": lambda: np.float32(2.0),
    "float": lambda: 1.5,
    "whole number": lambda: 2,
}  # fmt: skip
"""What an op may be given."""
DIM = {"dim": 0}
CALLS: dict[str, tuple[int, dict[str, Any]]] = {
    "add": (2, {}), "div": (2, {}), "pow": (2, {}), "atan2": (2, {}), "eq": (2, {}), "exp": (1, {}),
    "addcmul": (3, {}), "addcdiv": (3, {}), "lerp": (3, {}), "matmul": (2, {}), "linear": (2, {}),
    "prelu": (2, {}), "mse_loss": (2, {}), "stack": (2, DIM), "cat": (2, DIM), "softmax": (1, DIM),
    "sum": (1, DIM), "cumsum": (1, DIM), "layer_norm": (2, {"normalized_shape": (2, 2)}), "mean": (1, DIM),
    "relu": (1, {}), "reshape": (1, {"shape": (4,)}), "binary_cross_entropy": (2, {}), "maximum": (2, {}),
}  # fmt: skip
"""Op -> how many inputs it gets, and which options."""


def computed(call: Callable[[], object], name: str) -> tuple[Any, ...]:
    """Return the formats of the arrays that reached an op's kernel, None for numbers and integers."""
    events: list[Event] = []
    with listen(events.append):
        call()
    (event,) = [each for each in events if each.phase == "forward" and each.node.op.name == name]
    return tuple(format_of(x.dtype) if hasattr(x, "dtype") else None for x in event.inputs)


@given(
    call=st.sampled_from(sorted(CALLS)).flatmap(
        lambda name: st.tuples(
            st.just(name), st.lists(st.sampled_from(sorted(INPUTS)), min_size=3, max_size=3)
        )
    ),
    policy=st.sampled_from(sorted(mp.policies)),
    low=st.sampled_from(LOW),
    dtype=st.sampled_from([None, None, "float16", "bfloat16", "float32", "float64"]),
    where=st.sampled_from(["region", "disabled", "outside"]),
)
@example(
    call=("softmax", ["float16"] * 3), policy="torch-cuda", low="bfloat16", dtype="float16", where="region"
)
@example(call=("addcmul", ["bfloat16"] * 3), policy="torch-cuda", low="float16", dtype=None, where="region")
@example(
    call=("add", ["integers", "float", "float"]),
    policy="torch-cuda",
    low="float16",
    dtype=None,
    where="region",
)
@example(call=("add", ["no axes", "float32", "float"]), policy="torch-cuda", low="float16", dtype=None,
         where="outside")  # fmt: skip
def test_what_is_told_is_what_happens(
    call: tuple[str, list[str]], policy: str, low: str, dtype: str | None, where: str
) -> None:
    """Oracle: the op itself, run with a listener: the arrays that reach its kernel, or its refusal."""
    name, kinds = call
    count, options = CALLS[name]
    inputs = [INPUTS[kind]() for kind in kinds[:count]]
    if dtype is not None and name in {"softmax", "sum", "cumsum"}:
        options = {**options, "dtype": mp.formats.get(dtype)}
    told = mp.policies[policy].explain(name, inputs, low=low, **options)
    with mp.autocast(low, policy=policy, enabled=where == "region"):
        here = explain(name, inputs, **options)
    if where == "region":
        assert here == told
    else:
        told = explain(name, inputs, **options)
        assert (here, told.rule, told.policy) == (told, None, "")
    assert max(map(len, str(told).splitlines())) <= 100
    around = (
        nullcontext() if where == "outside" else mp.autocast(low, policy=policy, enabled=where == "region")
    )
    refused, found = "", None
    try:
        with around:
            found = computed(lambda: OPS[name](*inputs, **options), name)
    except FormatError as fault:
        refused = str(fault)
    except MinimpError:  # of what the kernel takes, as sums of integers in float16: no rule of autocast
        return
    assert told.refused == refused
    assert refused or told.formats == found


def ran(case: Case, names: list[str], low: str, policy: str) -> list[Event]:
    """Return the events of one call in a region, refused or not."""
    inputs = [mp.tensor(np.ones(shape), dtype=name) for shape, name in zip(case.shapes, names, strict=True)]
    events: list[Event] = []
    try:
        with listen(events.append), mp.autocast(low, policy=policy):
            case.call(minimp_library(), *inputs)
    except (MinimpError, TypeError):
        pass
    return [each for each in events if each.phase == "forward" and each.node.op.name != "cast"]


def as_given(event: Event) -> list[Any]:
    """Return the inputs of an op as they were before autocast cast them."""
    return [
        np.ones(x.shape, form.name) if form is not None and form.name != "bfloat16"
        else mp.tensor(np.ones(x.shape), dtype="bfloat16") if form is not None else x
        for x, form in zip(event.inputs, event.given, strict=True)
    ]  # fmt: skip


@pytest.mark.parametrize("policy", mp.policies)
def test_every_op_is_explained_as_it_runs(policy: str) -> None:
    """Oracle: the events of the calls by which ops are compared with PyTorch, in every mix of formats."""
    seen = set()
    for number, case in enumerate(CASES):
        for mix in MIXES:
            low = LOW[number % 2]
            for event in ran(case, formats_of(mix, len(case.shapes), low), low, policy):
                name, region = event.node.op.name, event.modes.autocast
                seen.add(name)
                options = dict(event.node.options)
                if region is not None and region.enabled:
                    told = mp.policies[policy].explain(event.node.op, as_given(event), low=low, **options)
                else:  # within an op of PyTorch that is several here, and has been ruled
                    told = explain(event.node.op, as_given(event), **options)
                found = tuple(format_of(x.dtype) if hasattr(x, "dtype") else None for x in event.inputs)
                assert told.formats == found, str(told)
                (made,) = event.outputs
                assert made is not None
                if told.result is not None:
                    assert format_of(made.dtype) is told.result, str(told)
    assert len(seen) > 120


def test_a_report_reads_well() -> None:
    """Oracle: the words by hand; a float32 leaf is cast once per region."""
    w = mp.tensor(ONES, dtype="float32", requires_grad=True)
    with mp.autocast("bfloat16"):
        told = explain("matmul", [w, mp.tensor(ONES, dtype="float64")])
    assert str(told) == (
        "matmul in a bfloat16 region of torch-cuda: lower_precision_fp (inputs to the region's format), as\n"
        "  its table says\n"
        "  1. float32 leaf -> bfloat16: the rule asks for the region's format; a leaf's cast, which the\n"
        "     region's cache makes once and keeps\n"
        "  2. float64: autocast never touches float64\n"
        "  raises: matmul: expected inputs of one format, got bfloat16 and float64; cast one with .to(...),\n"
        "     or run inside mp.autocast()\n"
        "  rules: PyTorch 2.13.0, CUDA"
    )
    assert [each.cached for each in told.inputs] == [True, False]
    assert not CUDA.explain("exp", [w], low="float16").inputs[0].cached


@pytest.mark.parametrize(
    ("name", "inputs", "options", "formats", "reason"),
    [
        ("matmul", ["float32", "float16"], {}, ["float16", "float16"], "asks for the region's format, which"),
        ("exp", ["float16"], {}, ["float32"], "the rule asks for float32"),
        ("softmax", ["float16"], {}, ["float32"], "the rule asks for float32"),
        ("softmax", ["float16"], {"dtype": "float16"}, ["float16"], "dtype= was given, and wins"),
        ("addcmul", ["float16", "float32", 2], {}, ["float32", "float32", None], "float32 is among the"),
        ("addcmul", ["float16", "float16", 2], {}, ["float16", "float16", None], "no input is float32"),
        ("relu", ["float16"], {}, ["float16"], "the op computes in the formats it is given"),
        ("exp", ["float64"], {}, ["float64"], "autocast never touches float64"),
        ("add", ["int64", "bool"], {}, [None, None], "autocast casts floating tensors only"),
        ("add", ["float16", "float32"], {}, ["float32", "float32"], "the common format of the inputs"),
        ("layer_norm", [mp.float16, None, None], {}, ["float32", None, None], "it has no format to change"),
    ],
)  # fmt: skip
def test_reasons(
    name: str, inputs: list[Any], options: dict[str, Any], formats: list[str | None], reason: str
) -> None:
    """Oracle: PyTorch 2.13.0's classes, by hand; formats may be given by name."""
    told = CUDA.explain(name, inputs, low="float16", **options)
    assert [each and each.name for each in told.formats] == formats
    assert reason in str(told).replace("\n     ", " ")
    assert told.source == CUDA.source


def test_what_is_refused_is_told_with_the_advice() -> None:
    """Oracle: the errors that the calls raise."""
    told = CUDA.explain("binary_cross_entropy", ["float32", "float32"])
    assert "unsafe inside autocast" in told.refused
    assert "binary_cross_entropy_with_logits" in told.refused
    assert told.result is None
    third = CUDA.explain("addcmul", ["bfloat16", "float16", "float16"], low="float16")
    assert "promotes float32 and float16 only" in third.refused


def test_of_an_op_that_minimp_lacks_no_more_is_told_than_is_known() -> None:
    """Oracle: PyTorch 2.13.0's mm, which refuses float16 beside the float64 that autocast leaves alone."""
    assert CUDA.explain("mm", ["float32", "float16"]).result is mp.float16
    told = CUDA.explain("mm", ["float32", "float64"])
    assert [each and each.name for each in told.formats] == ["float16", "float64"]
    assert told.result is None


def test_rules_come_from_the_table_the_default_or_the_op() -> None:
    """Oracle: the three places of which Policy's contract speaks."""

    @op(cast=CastClass.FP32)
    def house_exp(ctx, x):  # type: ignore[no-untyped-def]  # as an op is written
        """Return x."""
        return x

    own: Op = OPS.pop("house_exp")
    assert CUDA.explain("exp", ["float16"]).origin == "as its table says"
    assert mp.policies["jmp"].explain("exp", ["float32"]).origin == "by default"
    told = mp.policies["jmp"].explain(own, ["float16"])
    assert (told.origin, told.formats) == ("as the op declares", (mp.float32,))
    lacking = CUDA.explain("bmm", ["float32", "float32"])
    assert (lacking.origin, lacking.formats) == (
        "as its table says; minimp has no op of this name", (mp.float16, mp.float16),
    )  # fmt: skip
    with pytest.raises(SettingError, match="unknown op 'house_exp'"):
        CUDA.explain("house_exp", ["float32"])
    with pytest.raises(SettingError, match="unknown op 'sotfmax'; did you mean 'softmax'"):
        explain("sotfmax", ["float32"])
    with pytest.raises(FormatError, match="flaot32"):
        CUDA.explain("exp", ["flaot32"])


def test_nothing_runs() -> None:
    """Oracle: no event is told, and no cast enters the region's cache."""
    events: list[Event] = []
    w = mp.tensor(ONES, dtype="float32", requires_grad=True)
    with mp.autocast("float16"), listen(events.append):
        explain("matmul", [w, w])
        region = mp.modes.MODES.get().autocast
        assert region is not None
        assert not region.cache
    assert not events
