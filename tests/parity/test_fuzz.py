"""Functions with random shapes and options beside torch 2.13.0: what GPT, ResNet, U-Net, LSTM and VAE are of.

Values and gradients in float32; then once more under autocast on the CPU, where the formats must be torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minimp as mp
from minimp.errors import MinimpError
from tests.tolerances import assert_close

torch = pytest.importorskip("torch", reason="needs torch==2.13.0")
pytestmark = pytest.mark.torch
Shape = tuple[int, ...]
LENGTH, FEW = st.integers(1, 6), st.integers(1, 3)


@dataclass(frozen=True)
class Call:
    """A function of both libraries, on inputs of these shapes.

    Attributes:
        name: of the function, in torch.nn.functional or torch, and in minimp.functional.
        shapes: of the floating inputs, which come first.
        rest: further positional arguments: NumPy arrays become tensors for torch.
        options: keyword arguments.
        positive: inputs that are to lie between 0 and 1.
        after: how many of the inputs come before `rest`; all if None.
    """

    name: str
    shapes: tuple[Shape, ...]
    rest: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    positive: tuple[int, ...] = ()
    after: int | None = None

    def arrays(self) -> list[np.ndarray[Any, Any]]:
        """Return the inputs."""
        random = np.random.default_rng(7)
        drawn = [random.standard_normal(shape).astype(np.float32) for shape in self.shapes]
        return [1 / (1 + np.exp(-x)) if i in self.positive else x for i, x in enumerate(drawn)]

    def ours(self, inputs: list[Any]) -> Any:
        """Call minimp."""
        rest = [mp.tensor(x) if isinstance(x, np.ndarray) else x for x in self.rest]
        arguments = self._in_order(inputs, rest)
        return getattr(mp.functional, self.name)(*arguments, **self.options)

    def theirs(self, inputs: list[Any]) -> Any:
        """Call torch."""
        home = torch.nn.functional if hasattr(torch.nn.functional, self.name) else torch
        rest = [torch.tensor(x) if isinstance(x, np.ndarray) else x for x in self.rest]
        options = {
            key: torch.tensor(x) if isinstance(x, np.ndarray) else x for key, x in self.options.items()
        }
        return getattr(home, self.name)(*self._in_order(inputs, rest), **options)

    def _in_order(self, inputs: list[Any], rest: list[Any]) -> list[Any]:
        count = len(inputs) if self.after is None else self.after
        return [*inputs[:count], *rest, *inputs[count:]]


# ---- what is drawn ----------------------------------------------------------------------------------------


@st.composite
def convolutions(draw: st.DrawFn) -> Call:
    """Convolutions, plain and transposed, of signals and images."""
    axes, groups = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    transposed = draw(st.booleans())
    size = draw(st.tuples(*[st.integers(1, 7)] * axes))
    kernel = draw(st.tuples(*[FEW] * axes))
    into, out = groups * draw(FEW), groups * draw(FEW)
    stride = draw(st.integers(1, 3))
    options: dict[str, Any] = {"stride": stride, "dilation": draw(st.integers(1, 2)), "groups": groups}
    options["padding"] = draw(st.integers(0, 2))
    if transposed and max(stride, options["dilation"]) > 1:
        options["output_padding"] = draw(st.integers(0, max(stride, options["dilation"]) - 1))
    weight = (into, out // groups, *kernel) if transposed else (out, into // groups, *kernel)
    shapes: tuple[Shape, ...] = ((draw(FEW), into, *size), weight)
    shapes += ((out,),) if draw(st.booleans()) else ()
    return Call(f"conv{'_transpose' * transposed}{axes}d", shapes, options=options)


@st.composite
def pools(draw: st.DrawFn) -> Call:
    """Pools of images: maxima, means, and to a size."""
    shape = (draw(FEW), draw(FEW), draw(st.integers(3, 8)), draw(st.integers(3, 8)))
    name = draw(st.sampled_from(["max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"]))
    if name.startswith("adaptive"):
        return Call(name, (shape,), (draw(st.tuples(LENGTH, LENGTH)),))
    kernel = draw(st.tuples(FEW, FEW))
    options = {
        "stride": draw(st.none() | FEW),
        "padding": draw(st.tuples(*[st.integers(0, k // 2) for k in kernel])),
        "ceil_mode": draw(st.booleans()),
    }
    if name == "avg_pool2d":
        options["count_include_pad"] = draw(st.booleans())
    else:
        options["dilation"] = draw(st.integers(1, 2))
    return Call(name, (shape,), (kernel,), options)


@st.composite
def resizings(draw: st.DrawFn) -> Call:
    """Interpolation and borders, as in a U-Net."""
    shape = (draw(FEW), draw(FEW), draw(st.integers(2, 6)), draw(st.integers(2, 6)))
    if draw(st.booleans()):
        mode = draw(st.sampled_from(["constant", "reflect", "replicate", "circular"]))
        most = 1 if mode == "reflect" else 2
        return Call("pad", (shape,), (draw(st.tuples(*[st.integers(0, most)] * 4)),), {"mode": mode})
    mode = draw(st.sampled_from(["nearest", "nearest-exact", "bilinear", "bicubic"]))
    options: dict[str, Any] = {"mode": mode}
    if draw(st.booleans()):
        options["size"] = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    else:
        options["scale_factor"] = draw(st.sampled_from([0.5, 1.5, 2.0, (2.0, 3.0)]))
    if not mode.startswith("nearest"):
        options["align_corners"] = draw(st.booleans())
    return Call("interpolate", (shape,), options=options)


@st.composite
def norms(draw: st.DrawFn) -> Call:
    """Normalisation, with weights and without."""
    name = draw(st.sampled_from(["layer_norm", "rms_norm", "group_norm", "batch_norm", "instance_norm"]))
    if name in ("layer_norm", "rms_norm"):
        shape = draw(st.tuples(LENGTH, FEW, st.integers(3, 6)))
        normed = shape[-draw(st.integers(1, 2)) :]
        count = draw(st.integers(0, 2 if name == "layer_norm" else 1))
        return Call(name, (shape, *[normed] * count), (normed,), after=1)
    groups = draw(st.integers(1, 2))
    channels = groups * draw(FEW)
    shape = (draw(st.integers(2, 4)), channels, draw(st.integers(2, 5)), 3)
    options: dict[str, Any] = {"eps": draw(st.sampled_from([1e-5, 1e-2]))}
    rest: tuple[Any, ...] = (groups,)
    if name != "group_norm":
        ones = np.linspace(0.5, 1.5, channels, dtype=np.float32)
        rest = (ones * 0, ones)
        options["training" if name == "batch_norm" else "use_input_stats"] = draw(st.booleans())
    return Call(name, (shape, *[(channels,)] * (2 * draw(st.booleans()))), rest, options, after=1)


@st.composite
def attentions(draw: st.DrawFn) -> Call:
    """Attention: causal, masked, biased, of grouped heads."""
    groups, batch = draw(st.integers(1, 2)), draw(FEW)
    heads, asks, keys, width = groups * draw(FEW), draw(LENGTH), draw(LENGTH), draw(LENGTH)
    kv = heads // groups
    options: dict[str, Any] = {"enable_gqa": True} if groups > 1 else {}
    kind = draw(st.sampled_from(["plain", "causal", "masked", "biased"]))
    random = np.random.default_rng(3)
    if kind == "causal":
        options["is_causal"] = True
    elif kind == "masked":
        options["attn_mask"] = np.tril(np.ones((asks, keys), bool)) | (random.random((asks, keys)) < 0.5)
        options["attn_mask"][:, 0] = True
    elif kind == "biased":
        options["attn_mask"] = random.standard_normal((heads, asks, keys)).astype(np.float32)
    options["scale"] = draw(st.none() | st.just(0.25))
    shapes = ((batch, heads, asks, width), (batch, kv, keys, width), (batch, kv, keys, draw(LENGTH)))
    return Call("scaled_dot_product_attention", shapes, options=options)


@st.composite
def losses(draw: st.DrawFn) -> Call:
    """Losses, with weights and every reduction."""
    shape = draw(st.tuples(LENGTH, st.integers(2, 5)))
    options: dict[str, Any] = {"reduction": draw(st.sampled_from(["mean", "sum", "none"]))}
    name = draw(
        st.sampled_from(
            ["cross_entropy", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div",
             "binary_cross_entropy_with_logits"]
        )
    )  # fmt: skip
    if name == "cross_entropy":
        labels = np.random.default_rng(5).integers(0, shape[1], shape[0])
        options["label_smoothing"] = draw(st.sampled_from([0.0, 0.1]))
        if draw(st.booleans()):
            options["weight"] = np.linspace(0.5, 2, shape[1], dtype=np.float32)
        options["ignore_index"] = draw(st.sampled_from([-100, 1]))
        return Call(name, (shape,), (labels,), options)
    if name.startswith("binary"):
        options["pos_weight"] = np.linspace(0.5, 2, shape[1], dtype=np.float32)
    if name == "kl_div":
        options["log_target"] = draw(st.booleans())
    return Call(name, (shape, shape), options=options, positive=(1,))


@st.composite
def others(draw: st.DrawFn) -> Call:
    """Activations, products, softmax and the like, embeddings."""
    shape = draw(st.tuples(FEW, LENGTH, st.integers(1, 4)))
    dim = {"dim": draw(st.integers(-3, 2))}
    plain = ["silu", "relu", "leaky_relu", "elu", "softplus", "tanh", "sigmoid"]
    calls = [
        *(Call(name, (shape,)) for name in plain),
        *(Call("gelu", (shape,), options={"approximate": how}) for how in ("none", "tanh")),
        *(Call(name, (shape,), options=dim) for name in ("softmax", "log_softmax", "cumsum", "logsumexp")),
        Call("linear", (shape, (5, shape[-1]), *[(5,)] * draw(st.integers(0, 1)))),
        Call("bmm", (shape, (shape[0], shape[2], draw(LENGTH)))),
        Call("glu", ((*shape[:2], 2 * shape[2]),)),
        Call("embedding", (shape[1:],), (np.arange(8).reshape(2, 4) % shape[1],), after=0),
    ]
    return draw(st.sampled_from(calls))


FAMILIES = {
    "convolutions": convolutions(), "pools": pools(), "resizings": resizings(), "norms": norms(),
    "attentions": attentions(), "losses": losses(), "others": others(),
}  # fmt: skip


# ---- the comparison ---------------------------------------------------------------------------------------


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (MinimpError, RuntimeError, ValueError) as fault:
        return fault


def _values(x: Any) -> np.ndarray[Any, Any]:
    if isinstance(x, torch.Tensor):
        return np.asarray(x.detach().double().numpy())
    return np.asarray(x.detach().numpy()).astype(np.float64)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("family", list(FAMILIES))
@settings(max_examples=60)
@given(data=st.data())
def test_random_calls_are_torchs(family: str, data: st.DataObject) -> None:
    """Oracle: torch in float32: the result, every gradient, and what is refused; formats under autocast."""
    call = data.draw(FAMILIES[family])
    own = [mp.tensor(a, requires_grad=True) for a in call.arrays()]
    other = [torch.from_numpy(a.astype(np.float32)).requires_grad_() for a in call.arrays()]
    z, y = _outcome(lambda: call.theirs(other)), _outcome(lambda: call.ours(own))
    if isinstance(y, MinimpError) and not isinstance(z, Exception) and not z.numel():
        return  # of a result without elements we say so; torch's transposed convolutions return it
    if isinstance(z, Exception) or isinstance(y, Exception):
        assert isinstance(z, Exception), y
        assert isinstance(y, MinimpError), z
        return
    assert tuple(y.shape) == tuple(z.shape)
    assert_close(_values(y), _values(z), "parity_op_fp32")
    if y.requires_grad:
        grad = np.random.default_rng(2).uniform(0.5, 1.5, y.shape).astype(np.float32)
        y.backward(grad)
        z.backward(torch.from_numpy(np.asarray(grad)))
        for x, u in zip(own, other, strict=True):  # beside a 1: terms may cancel to nothing
            assert_close(*(np.append(_values(each.grad), 1.0) for each in (x, u)), "parity_gradient_fp32")
    with mp.autocast("bfloat16", policy="torch-cpu"):
        low = call.ours([x.detach() for x in own])
    with torch.autocast("cpu", torch.bfloat16):
        theirs = call.theirs([u.detach() for u in other])
    assert low.dtype.name == str(theirs.dtype).removeprefix("torch.")
