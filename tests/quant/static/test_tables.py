"""Functions of one code as tables; oracles: mpmath, float64, torch's quantised ops, onnx.reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minimp import nn
from minimp.errors import DataError, FormatError, MinimpError, SettingError, ShapeError
from minimp.nn.module import Module
from minimp.quant import RULES, Affine, QTensor
from minimp.quant.modules import QuantizedTable
from minimp.quant.modules.conversions import CONVERSIONS, ELEMENTWISE, Place, function_of
from minimp.quant.modules.tables import TIES, codes_of, fixed_output, numbers_of
from minimp.quant.observers import MinMaxObserver
from minimp.quant.static import calibrate, convert
from tests.quant.static.samples import INT8, UINT8, Array

MODULES: dict[str, Module] = {
    "CELU": nn.CELU(0.7), "ELU": nn.ELU(1.3), "GELU": nn.GELU(), "GELU tanh": nn.GELU("tanh"),
    "Hardshrink": nn.Hardshrink(0.4), "Hardsigmoid": nn.Hardsigmoid(), "Hardswish": nn.Hardswish(),
    "Hardtanh": nn.Hardtanh(-1.1, 2.3), "LeakyReLU": nn.LeakyReLU(0.1), "LogSigmoid": nn.LogSigmoid(),
    "Mish": nn.Mish(), "ReLU6": nn.ReLU6(), "SELU": nn.SELU(), "SiLU": nn.SiLU(), "Sigmoid": nn.Sigmoid(),
    "Softplus": nn.Softplus(2.0), "Softshrink": nn.Softshrink(0.3), "Softsign": nn.Softsign(),
    "Tanh": nn.Tanh(), "Tanhshrink": nn.Tanhshrink(), "Threshold": nn.Threshold(0.3, -0.2),
    "PReLU": nn.PReLU(),
}  # fmt: skip

mp = mpmath.mp
A = mpmath.mpf("1.6732632423543772848170429916717")
CUBE = mpmath.mpf("0.044715")
S = mpmath.mpf("1.0507009873554804934193349852946")


def softplus(x: Any) -> Any:
    """ln(1 + e^x)."""
    return mpmath.log1p(mpmath.exp(x))


EXACT: dict[str, Callable[[Any], Any]] = {
    "CELU": lambda x: x if x > 0 else mpmath.mpf(0.7) * mpmath.expm1(x / mpmath.mpf(0.7)),
    "ELU": lambda x: x if x > 0 else mpmath.mpf(1.3) * mpmath.expm1(x),
    "GELU": lambda x: x * mpmath.ncdf(x),
    "GELU tanh": lambda x: x / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mp.pi) * (x + CUBE * x**3))),
    "Hardshrink": lambda x: 0 if abs(x) <= 0.4 else x,
    "Hardsigmoid": lambda x: min(max(x + 3, 0), 6) / 6,
    "Hardswish": lambda x: x * min(max(x + 3, 0), 6) / 6,
    "Hardtanh": lambda x: min(max(x, -1.1), 2.3),
    "LeakyReLU": lambda x: x if x > 0 else mpmath.mpf(0.1) * x,
    "LogSigmoid": lambda x: -softplus(-x),
    "Mish": lambda x: x * mpmath.tanh(softplus(x)),
    "ReLU6": lambda x: min(max(x, 0), 6),
    "SELU": lambda x: S * (x if x > 0 else A * mpmath.expm1(x)),
    "SiLU": lambda x: x / (1 + mpmath.exp(-x)),
    "Sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "Softplus": lambda x: softplus(2 * x) / 2,
    "Softshrink": lambda x: x - 0.3 if x > 0.3 else x + 0.3 if x < -0.3 else 0,
    "Softsign": lambda x: x / (1 + abs(x)),
    "Tanh": mpmath.tanh,
    "Tanhshrink": lambda x: x - mpmath.tanh(x),
    "Threshold": lambda x: x if x > 0.3 else -0.2,
    "PReLU": lambda x: x if x > 0 else x / 4,
}
NEVER_FALL = sorted(
    {"CELU", "ELU", "Hardshrink", "Hardsigmoid", "Hardtanh", "LeakyReLU", "LogSigmoid", "ReLU6", "SELU",
     "Sigmoid", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink", "Threshold", "PReLU"}
)  # fmt: skip


def table_of(name: str, into: Affine, out: Affine) -> QuantizedTable:
    """Return the table of a module by its row."""
    module = MODULES[name]
    built = CONVERSIONS[type(module)].build(module, Place((into,), out, MinMaxObserver, "float"))
    assert isinstance(built, QuantizedTable)
    return built


def entries(table: QuantizedTable) -> list[tuple[int, int]]:
    """Return (code, code) for all codes of a table."""
    into = table.kept("input_")
    codes = np.arange(into.quant_min, into.quant_max + 1).astype(into.storage)
    return list(zip(codes.tolist(), table(QTensor(codes, into)).codes.tolist(), strict=True))


def code_by(y: Any, out: Affine) -> int:
    """Return the code of an exact number: rounded once, ties by the rule."""
    steps = y / mpmath.mpf(float(out.scale))
    zero, whole = int(out.zero_point), int(mpmath.floor(steps))
    rest = steps - whole
    if rest == 0.5:
        even = {"onnx": whole, "torch": whole + zero}.get(out.rule.removesuffix("-dynamic"))
        whole += even % 2 if even is not None else int(steps > 0)
    else:
        whole += int(rest > 0.5)
    return max(out.quant_min, min(out.quant_max, whole + zero))


def test_every_elementwise_module_is_here() -> None:
    """Oracle: the rows of conversions."""
    assert {type(each) for each in MODULES.values()} == {*ELEMENTWISE, nn.PReLU}
    assert EXACT.keys() == MODULES.keys()


@pytest.mark.parametrize("name", MODULES)
def test_every_entry_is_rounded_once(name: str) -> None:
    """Oracle: mpmath with 40 digits, for all 256 codes, two dtypes and three rules: every code."""
    cases = [
        (Affine(0.037, 101, *UINT8), Affine(0.021, 40, *UINT8)),
        (Affine(0.0625, -7, *INT8), Affine(0.03125, -100, *INT8, rule="onnx")),
        (Affine(0.05, 0, *INT8), Affine(0.025, 11, *INT8, rule="tflite")),
        (Affine(0.2, 128, *UINT8), Affine(0.07, 0, -8, 7)),
    ]
    with mp.workdps(40):
        for into, out in cases:
            scale, zero = mpmath.mpf(float(into.scale)), int(into.zero_point)
            for code, found in entries(table_of(name, into, out)):
                assert found == code_by(EXACT[name](scale * (code - zero)), out), (code, into, out)


@pytest.mark.parametrize("name", NEVER_FALL)
@given(st.floats(2.0**-12, 4.0), st.integers(0, 255), st.floats(2.0**-12, 4.0), st.integers(-128, 127))
def test_what_never_falls_has_a_table_that_never_falls(
    name: str, scale: float, zero: int, out_scale: float, out_zero: int
) -> None:
    """Law: monotone functions have monotone tables."""
    found = [
        code for _, code in entries(table_of(name, Affine(scale, zero, *UINT8), Affine(out_scale, out_zero)))
    ]
    assert found == sorted(found)


@given(
    st.floats(-300, 300),
    st.floats(2.0**-10, 4.0, width=32),
    st.integers(-128, 127),
    st.sampled_from(sorted(TIES)),
)
@example(2.5, 1.0, 1, "torch")
@example(2.5, 1.0, 1, "onnx")
@example(-2.5, 1.0, 0, "tflite")
@example(-0.5, 1.0, 3, "torch")
@example(0.49999999999999994, 1.0, 0, "tflite")
def test_codes_of_float64(y: float, scale: float, zero: int, rule: str) -> None:
    """Oracle: exact fractions; ties to the even code, to the even step, and away from zero."""
    out = Affine(scale, zero, rule=rule)
    steps = Fraction(y) / Fraction(float(out.scale))
    if rule == "tflite":
        code = int(abs(steps) + Fraction(1, 2)) * (1 if steps > 0 else -1) + zero
    else:
        code = round(steps + zero) if rule.startswith("torch") else round(steps) + zero
    assert codes_of(np.float64([y]), out).tolist() == [max(-128, min(127, code))]


def test_beyond_all_codes() -> None:
    """Oracle: by hand: infinities are clamped, as all that is too large."""
    assert codes_of(np.float64([-np.inf, np.inf, 1e300, -1e300]), Affine(1e-30, 3)).tolist() == [
        -128,
        127,
        127,
        -128,
    ]
    assert set(RULES) == set(TIES)


def test_a_table_holds_what_it_needs() -> None:
    """Oracle: by hand: 256 bytes, two scales and zero points; another table takes over by a state dict."""
    into, out = Affine(0.1, 3, *UINT8), Affine(0.2, 4, *UINT8)
    table = table_of("SiLU", into, out)
    assert {name: (str(t.array.dtype), t.shape) for name, t in table.state_dict().items()} == {
        "table": ("uint8", (256,)), "input_scale": ("float32", ()), "input_zero_point": ("int32", ()),
        "scale": ("float32", ()), "zero_point": ("int32", ()),
    }  # fmt: skip
    other = table_of("Mish", Affine(0.3, 1, *UINT8), Affine(0.7, 200, *UINT8))
    other.load_state_dict(table.state_dict())
    assert entries(other) == entries(table)
    assert "SiLU()" in repr(table)


def test_shapes() -> None:
    """Oracle: element by element, of any shape and memory order, and of no elements."""
    into = Affine(0.05, 3)
    table = table_of("GELU", into, Affine(0.04, -100))
    by_code, x = dict(entries(table)), np.arange(-120, 120, dtype=np.int8).reshape(2, 3, 40)
    for codes in (x, x.T, x[:, ::2], x[:0], x[0, 0, 0]):
        found = table(QTensor(codes, into))
        assert found.shape == codes.shape
        assert found.codes.ravel().tolist() == [by_code[code] for code in codes.ravel().tolist()]


# ---- outputs that are fixed --------------------------------------------------------------------------------

FIXING = ("torch", "torch-dynamic", "tflite")
UNIT, BOTH = ((1 / 256, 0), (1 / 256, -128)), ((1 / 128, 128), (1 / 128, 0))


@pytest.mark.parametrize(
    ("kind", "rule", "expected"),
    [
        *((kind, rule, UNIT) for kind in (nn.Sigmoid, nn.Softmax) for rule in FIXING),
        *((nn.Tanh, rule, BOTH) for rule in FIXING),
        (nn.Hardsigmoid, "torch", UNIT), (nn.Hardsigmoid, "tflite", None), (nn.Sigmoid, "onnx", None),
        (nn.Tanh, "onnx", None), (nn.Softmax, "onnx", UNIT), (nn.Softmax2d, "torch", UNIT),
        (nn.SiLU, "torch", None),
    ],
)  # fmt: skip
def test_fixed_outputs(kind: type[Module], rule: str, expected: Any) -> None:
    """Oracle: torch 2.13's fixed qparams, and LiteRT's specification; as written there."""
    for codes, place in ((UINT8, 0), (INT8, 1)):
        seen = Affine(0.037, 5, *codes, rule=rule)
        made = fixed_output(kind, seen)
        want = seen if expected is None else Affine(*expected[place], *codes, rule=rule)
        assert made == want


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_fixed_outputs_are_torchs() -> None:
    """Oracle: the qconfig mapping of torch 2.13.0, the same classes and numbers."""
    torch = pytest.importorskip("torch")
    mapping = torch.ao.quantization.get_default_qconfig_mapping("qnnpack")
    for name in ("Sigmoid", "Tanh", "Hardsigmoid", "Softmax"):
        observer = mapping.object_type_qconfigs[getattr(torch.nn, name)].activation()
        scale, zero = observer.calculate_qparams()
        mine = fixed_output(getattr(nn, name), Affine(0.3, 3, *UINT8))
        assert (float(mine.scale), int(mine.zero_point)) == (float(scale), int(zero))


@pytest.mark.parametrize("rule", ["torch", "onnx"])
def test_fixed_outputs_in_a_model(rule: str) -> None:
    """Oracle: by hand: scales of converted modules; what is kept in floats has the same."""
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    model = nn.Sequential(nn.Linear(4, 4), nn.Sigmoid(), nn.Linear(4, 4), nn.Tanh(), nn.Softmax(1)).eval()
    seen = calibrate(model, [x], activation=lambda: MinMaxObserver(quant_min=0, quant_max=255, rule=rule))
    made: Any = convert(model, seen)
    outputs = [made.model[i].kept("") for i in (1, 3, 4)]
    if rule == "torch":
        assert [(float(each.scale), int(each.zero_point)) for each in outputs] == [
            (1 / 256, 0), (1 / 128, 128), (1 / 256, 0),
        ]  # fmt: skip
    else:
        assert outputs[:2] == [seen.affine("1"), seen.affine("3")]
        assert (float(outputs[2].scale), int(outputs[2].zero_point)) == (1 / 256, 0)
    assert made.model[2].kept("input_") == outputs[0]
    kept: Any = convert(model, seen, keep_float=["1"])
    assert kept.model[1].quantize.kept("") == made.model[1].kept("")


# ---- other engines -----------------------------------------------------------------------------------------


NEAR = 255 * 8 * 2.0**-24
"""Eight float32 roundings of a number of 255 steps: how near to a tie others may go the other way."""


def draws(count: int, rule: str) -> Iterator[tuple[Affine, Affine]]:
    """Yield numbers of what comes in and goes out."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        (a, b), (p, q) = np.exp(rng.uniform([-7, -7], [0, -1])), rng.integers(0, 256, 2)
        yield Affine(a, p, *UINT8, rule=rule), Affine(b, q, *UINT8, rule=rule)


def check_codes(mine: QuantizedTable, theirs: Array, name: str) -> int:
    """Return how many codes differ; each by one, where float64 is near a tie."""
    found = mine.table.array
    (at,) = np.nonzero(found != theirs)
    real = function_of(MODULES[name])(numbers_of(mine.kept("input_"))) / np.float64(mine.kept("").scale)
    assert (np.abs(found[at].astype(int) - theirs[at]) == 1).all()
    assert (np.abs(real[at] - np.floor(real[at]) - 0.5) < NEAR).all()
    return len(at)


TORCH: dict[str, tuple[str, Callable[[Any, Any, float, int], Any]]] = {
    "Sigmoid": ("fixed", lambda torch, q, s, z: torch.sigmoid(q)),
    "Tanh": ("fixed", lambda torch, q, s, z: torch.tanh(q)),
    "Hardsigmoid": ("fixed", lambda torch, q, s, z: torch.nn.functional.hardsigmoid(q)),
    "Hardswish": ("observed", lambda torch, q, s, z: torch.ops.quantized.hardswish(q, s, z)),
    "ELU": ("observed", lambda torch, q, s, z: torch.ops.quantized.elu(q, s, z, 1.3)),
    "CELU": ("observed", lambda torch, q, s, z: torch.ops.quantized.celu(q, s, z, 0.7)),
    "LeakyReLU": ("observed", lambda torch, q, s, z: torch.ops.quantized.leaky_relu(q, 0.1, False, s, z)),
    "ReLU6": ("input", lambda torch, q, s, z: torch.nn.functional.relu6(q)),
    "Hardtanh": ("input", lambda torch, q, s, z: torch.nn.functional.hardtanh(q, -1.1, 2.3)),
    "GELU": ("input", lambda torch, q, s, z: torch.nn.functional.gelu(q)),
    "GELU tanh": ("input", lambda torch, q, s, z: torch.nn.functional.gelu(q, approximate="tanh")),
    "Threshold": ("input", lambda torch, q, s, z: torch.nn.functional.threshold(q, 0.3, -0.2)),
}
"""Name -> (which numbers the output has, torch's op on quantised tensors)."""


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("engine", ["qnnpack", "x86"])
def test_tables_are_torchs(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: torch 2.13.0's quantised ops, all 256 codes of 60 pairs of scales and zero points.

    Of 184,320 codes of twelve ops, four differed with "x86" and none with "qnnpack" on an AVX2 processor: by
    one, where torch's float32 meets a tie. At most one in 10,000 may.
    """
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.backends.quantized, "engine", engine)
    differing = 0
    for into, seen in draws(60, "torch"):
        q = torch._make_per_tensor_quantized_tensor(
            torch.arange(256, dtype=torch.uint8), float(into.scale), int(into.zero_point)
        )
        for name, (which, op) in TORCH.items():
            its = op(torch, q, float(seen.scale), int(seen.zero_point))
            out = {"fixed": fixed_output(type(MODULES[name]), seen), "observed": seen, "input": into}[which]
            assert (its.q_scale(), its.q_zero_point()) == (float(out.scale), int(out.zero_point))
            differing += check_codes(table_of(name, into, out), its.int_repr().numpy(), name)
    assert differing <= 18


ONNX: dict[str, tuple[str, dict[str, float]]] = {
    "Sigmoid": ("Sigmoid", {}), "Tanh": ("Tanh", {}), "ELU": ("Elu", {"alpha": 1.3}),
    "CELU": ("Celu", {"alpha": 0.7}), "LeakyReLU": ("LeakyRelu", {"alpha": 0.1}), "SELU": ("Selu", {}),
    "Softsign": ("Softsign", {}), "Hardsigmoid": ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    "Hardswish": ("HardSwish", {}), "Mish": ("Mish", {}),
}  # fmt: skip
"""Name -> ONNX's operator and its attributes (opset 20)."""


def test_tables_are_onnxs() -> None:
    """Oracle: onnx.reference: the float operator between DequantizeLinear and QuantizeLinear, 6 draws.

    Of 15,360 codes of ten operators at most one in a thousand may differ, by one, where its float32 meets a
    tie.
    """
    onnx = pytest.importorskip("onnx", reason="needs the reference implementation of ONNX")
    reference = pytest.importorskip("onnx.reference")
    make, differing = onnx.helper, 0
    ends = [make.make_tensor_value_info(name, onnx.TensorProto.UINT8, None) for name in ("q", "z", "w", "r")]
    ends += [make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in ("s", "t")]
    for name, (op, attributes) in ONNX.items():
        nodes = [
            make.make_node("DequantizeLinear", ["q", "s", "z"], ["x"]),
            make.make_node(op, ["x"], ["y"], **attributes),
            make.make_node("QuantizeLinear", ["y", "t", "w"], ["r"]),
        ]
        graph = make.make_graph(nodes, "g", [*ends[:3], *ends[4:]], [ends[3]])
        run = reference.ReferenceEvaluator(
            make.make_model(graph, opset_imports=[make.make_opsetid("", 20)], ir_version=9)
        ).run
        for into, out in draws(6, "onnx"):
            fed = {"q": np.arange(256, dtype=np.uint8), "s": np.array(into.scale), "t": np.array(out.scale)}
            fed |= {"z": np.array(into.zero_point, np.uint8), "w": np.array(out.zero_point, np.uint8)}
            with np.errstate(all="ignore"):
                (theirs,) = run(None, fed)
            differing += check_codes(table_of(name, into, out), theirs, name)
    assert differing <= 15


# ---- what cannot be ----------------------------------------------------------------------------------------

ONE = Affine(0.1, 3, *UINT8)
FOUR = Affine(1.0, 0, -8, 7)
CHANNELS = Affine(np.full(2, 0.1), np.zeros(2, np.int32), *UINT8, axis=1)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: QuantizedTable(np.zeros(9, "u1"), ONE, ONE), ShapeError, r"each of 256 codes, got \(9,\)"),
        (lambda: QuantizedTable(np.zeros(256, "i1"), ONE, ONE), FormatError, "expected codes in uint8"),
        (lambda: QuantizedTable(np.full(256, 9, "i1"), ONE, FOUR), SettingError, "codes from -8 to 7"),
        (lambda: QuantizedTable.of(np.copy, CHANNELS, ONE), SettingError, "must have one scale"),
        (lambda: QuantizedTable.of(np.copy, ONE, CHANNELS), SettingError, "must have one scale"),
        (lambda: QuantizedTable.of(np.sqrt, ONE, ONE, "sqrt"), DataError, "sqrt is NaN at -0.3"),
        (lambda: table_of("SiLU", ONE, ONE)(np.zeros(3, "f4")), FormatError, "takes codes, got a ndarray of"),
        (
            lambda: table_of("SiLU", ONE, ONE)(QTensor(np.zeros(3, "u1"), Affine(0.2, 3, *UINT8))),
            SettingError, "was made for codes of uint8, scale 0.1",
        ),
        (
            lambda: CONVERSIONS[nn.PReLU].build(nn.PReLU(3), Place((ONE,), ONE, MinMaxObserver, "float")),
            SettingError, "a PReLU with 3 slopes",
        ),
    ],
)  # fmt: skip
def test_what_a_table_refuses(make: Any, error: type[MinimpError], says: str) -> None:
    """Oracle: the message, one for each fault."""
    with np.errstate(invalid="ignore"), pytest.raises(error, match=says):
        make()
