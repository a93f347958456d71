"""Layers with rounded weights: what they compute with a batch norm folded in, beside torch's too."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from minimp import functional, nn
from minimp.nn.module import Module
from minimp.quant.fusion import fold_batch_norm
from minimp.quant.observers import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)
from minimp.quant.qat import FakeQuantize, freeze_bn_stats, prepare_qat, update_bn_stats
from minimp.quant.qat.kinds import LAYERS as TWINS
from minimp.quant.qat.layers import Folded, Weighted
from minimp.quant.static import convert
from minimp.rng import manual_seed
from minimp.tensors import tensor
from tests.quant.qat.samples import LAYERS, batch, trained
from tests.tolerances import assert_close

NOTHING = 1e-5
"""What is left of a gradient that is 0, of terms about 1."""
NORMED = [name for name in LAYERS if "Bn" in name]


def twin_of(name: str, **widths: Any) -> tuple[Any, Any]:
    """Return a twin, and the float modules that it stands for."""
    make, shape = LAYERS[name]
    manual_seed(0)
    model: Any = make()
    for each in model.modules():
        if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d):
            rng = np.random.default_rng(1)
            each.weight.array = rng.uniform(0.5, 2, each.weight.shape).astype(np.float32)
            each.bias.array = rng.normal(size=each.bias.shape).astype(np.float32)
            each.running_mean.array = rng.normal(size=each.bias.shape).astype(np.float32)
            each.running_var.array = rng.uniform(0.5, 2, each.weight.shape).astype(np.float32)
    prepared = prepare_qat(model, tensor(batch(shape)), **widths)
    twin = next(each for each in prepared.modules() if isinstance(each, Weighted))
    return twin, model


def unrounded(twin: Any) -> Any:
    """Return a copy whose places let all pass."""
    made = copy.deepcopy(twin)
    for each in made.modules():
        if isinstance(each, FakeQuantize):
            each.switch(observer=False, fake_quant=False)
    return made


@pytest.mark.parametrize("name", [name for name in LAYERS if name.split(",")[0] in
                                  {each.__name__ for each in TWINS.values()}])  # fmt: skip
@pytest.mark.parametrize("training", [True, False])
def test_without_rounding_it_is_the_float_layer(name: str, training: bool) -> None:
    """Oracle: the float modules in float32, in training with the batch's statistics, which move alike."""
    twin, model = twin_of(name)
    x = tensor(batch(LAYERS[name][1], 5))
    got, want = unrounded(twin).train(training), model.train(training)
    assert_close(got(x).detach().array, want(x).detach().array, "parity_op_fp32")
    for path, each in model.named_buffers():
        ours = dict(got.named_buffers())["bn." + path.rpartition(".")[2]]
        assert_close(ours.array, each.array, "parity_op_fp32")


@pytest.mark.parametrize("name", NORMED)
def test_fixed_statistics_make_it_one_layer(name: str) -> None:
    """Oracle: fold_batch_norm in float64, and the layer's own two forms: division and norm, or one term."""
    twin, model = twin_of(name)
    layer, norm = model[0], model[1]
    made = twin.to_float()
    inner = made[0] if isinstance(made, nn.Sequential) else made
    folded = fold_batch_norm(layer, norm)
    assert_close(inner.weight.array, folded.weight.array, "parity_op_fp32")
    assert_close(inner.bias.array, folded.bias.array, "parity_op_fp32")
    assert type(inner) is type(layer)
    x = tensor(batch(LAYERS[name][1], 6))
    twin.source = ()  # with it the bias is rounded in the second form
    twin.train()(x)
    twin.eval()
    s = twin.factor()
    rows = twin.rounded(twin.weight * twin._beside(s, 0))
    y = twin.multiplied(x, rows, None) / twin._beside(s, 1)
    y = y if twin.bias is None else y + twin._beside(twin.bias, 1)
    apart, term = twin.bn(y), twin.summed(x)
    assert_close(apart.detach().array, term.detach().array, "parity_op_fp32")


def test_frozen_statistics() -> None:
    """Oracle: by hand: frozen they stay in training, and the layer computes as in evaluation; then move."""
    prepared = trained(LAYERS["ConvBnReLU2d"][0](), batch(LAYERS["ConvBnReLU2d"][1]))
    twin = next(each for each in prepared.modules() if isinstance(each, Folded))
    x = tensor(batch(LAYERS["ConvBnReLU2d"][1], 7))
    freeze_bn_stats(prepared)
    still = [each.array for each in twin.bn.buffers()]
    inside = prepared.train().model(x).detach().array
    assert all(a is b.array for a, b in zip(still, twin.bn.buffers(), strict=True))
    twin.weight_fake_quant.switch(observer=False)
    np.testing.assert_array_equal(prepared.eval().model(x).detach().array, inside)
    update_bn_stats(prepared.train())
    prepared(x)
    assert all((a != b.array).any() for a, b in zip(still, twin.bn.buffers(), strict=True))
    other = prepare_qat(LAYERS["ConvBnReLU2d"][0](), x)
    freeze_bn_stats(prepared)
    other.load_state_dict(prepared.state_dict())
    assert next(each for each in other.modules() if isinstance(each, Folded)).frozen


def test_a_channel_whose_gamma_is_0_learns() -> None:
    """Oracle: finite numbers and gradients, of gamma above all; and the converted model gives beta there."""
    manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))
    model[1].weight.array = np.float32([0, 1, 0])
    model[1].bias.array = np.float32([0.5, 0, -0.25])
    x = tensor(batch((8, 2, 6, 6)))
    prepared = prepare_qat(model, x)
    y = prepared(x)
    (y * tensor(batch(y.shape, 1))).sum().backward()
    twin = prepared.model[0]
    assert np.isfinite(y.detach().array).all()
    assert all(np.isfinite(each.grad.array).all() for each in prepared.parameters())
    assert (np.abs(twin.bn.weight.grad.array) > 0.1).all()
    codes = convert(prepared)(x)
    step = float(twin.activation_post_process.scale.array)
    for channel, beta in ((0, 0.5), (2, -0.25)):
        assert np.abs(codes.array[:, channel] - beta).max() <= step / 2


@pytest.mark.parametrize("name", ["LinearReLU", "ConvBn2d", "ConvBnReLU2d", "ConvTranspose1d"])
def test_what_asks_for_no_gradient(name: str) -> None:
    """Oracle: the float layer: what was frozen there is frozen in what comes of it, nothing else."""
    make, shape = LAYERS[name]
    for frozen in ("weight", "bias"):
        model: Any = make()
        layer = model[0] if isinstance(model, nn.Sequential) else model
        if getattr(layer, frozen) is None:
            continue
        getattr(layer, frozen).requires_grad = False
        prepared = prepare_qat(model, tensor(batch(shape)))
        twin = next(each for each in prepared.modules() if isinstance(each, Weighted))
        prepared(tensor(batch(shape))).sum().backward()
        assert getattr(twin, frozen).grad is None
        made = dict(prepared.to_float().named_parameters())
        asking = {path.rpartition(".")[2]: each.requires_grad for path, each in made.items()}
        other = "bias" if frozen == "weight" else "weight"
        assert asking == {frozen: False, other: layer.bias is not None}


def test_a_mean_of_numbers_beyond_the_codes() -> None:
    """Oracle: the range of the codes that came in: dropout makes numbers of up to four times that of them."""
    manual_seed(0)
    model = nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Dropout(0.75), nn.AvgPool1d(1))
    prepared = prepare_qat(model, tensor(batch((16, 3, 12))))
    y = prepared(tensor(batch((16, 3, 12)))).detach().array
    top = float(prepared.model[0].activation_post_process.affine().high)
    assert (y.min(), y.max()) == (0, np.float32(top))


# ---- torch -------------------------------------------------------------------------------------------------


def torchs(torch: Any, twin: Any, name: str) -> Any:
    """Return torch's module of the same name and numbers."""
    from torch.ao.nn import qat
    from torch.ao.nn.intrinsic import qat as fused
    from torch.ao.quantization import FakeQuantize as Theirs
    from torch.ao.quantization import QConfig, observer

    weight = Theirs.with_args(
        observer=observer.MovingAveragePerChannelMinMaxObserver, quant_min=-8, quant_max=7,
        dtype=torch.qint8, qscheme=torch.per_channel_symmetric, averaging_constant=0.01,
    )  # fmt: skip
    config = QConfig(weight=weight, activation=torch.nn.Identity)
    kind = getattr(fused, name, None) or getattr(qat, name)
    if "Linear" in name:
        made = kind(twin.in_features, twin.out_features, bias=twin.bias is not None, qconfig=config)
    else:
        made = kind(
            twin.in_channels, twin.out_channels, twin.kernel_size, stride=twin.stride, padding=twin.padding,
            dilation=twin.dilation, bias=twin.bias is not None, qconfig=config,
        )  # fmt: skip
    mine = {path: torch.from_numpy(each.array.copy()) for path, each in twin.named_parameters()}
    mine |= {path: torch.from_numpy(np.array(each.array)) for path, each in twin.bn.named_buffers("bn")} if (
        isinstance(twin, Folded)
    ) else {}  # fmt: skip
    made.load_state_dict(mine, strict=False)
    return made.train()


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.*(deprecated|reduce_range|_aminmax)")
@pytest.mark.parametrize(
    "name",
    ["LinearBn1d", "ConvBnReLU2d"]
    + [pytest.param(name, marks=pytest.mark.slow)
       for name in ("Linear", "LinearReLU", "Conv1d", "ConvReLU1d", "ConvBn1d", "ConvBnReLU1d", "Conv2d",
                    "ConvReLU2d", "ConvBn2d")],
)  # fmt: skip
def test_layers_are_torchs(name: str) -> None:
    """Oracle: torch.ao's module, 4 bits: outputs, gradients, scales and statistics over three updates."""
    torch = pytest.importorskip("torch")
    twin, _ = twin_of(name)
    count = twin.weight.shape[0]
    twin.weight_fake_quant = FakeQuantize(
        MovingAveragePerChannelMinMaxObserver, -8, 7, channels=count, symmetric=True
    )
    twin.activation_post_process, twin.source = nn.Identity(), ()  # torch leaves the bias as it is
    theirs = torchs(torch, twin, name)
    if name == "Conv2d":
        theirs.padding = (1, 1)
    for step in range(3):
        x = batch(LAYERS[name][1], step)
        y, want = twin(tensor(x)), theirs(torch.from_numpy(x))
        assert_close(y.detach().array, want.detach().numpy(), "parity_gradient_fp32")
        target = np.random.default_rng(step).normal(size=y.shape).astype(np.float32)
        functional.mse_loss(y, tensor(target)).backward()
        torch.nn.functional.mse_loss(want, torch.from_numpy(target)).backward()
        other = dict(theirs.named_parameters())
        for path, each in twin.named_parameters():
            if path == "bias" and isinstance(twin, Folded):  # the norm takes it away
                assert max(np.abs(each.grad.array).max(), other[path].grad.abs().max()) < NOTHING
            else:
                assert_close(each.grad.array, other[path].grad.numpy(), "parity_gradient_fp32")
            each.array = each.array - np.float32(0.1) * each.grad.array
            other[path].data = torch.from_numpy(each.array.copy())
            each.grad = other[path].grad = None
        assert_close(twin.weight_fake_quant.scale.array, theirs.weight_fake_quant.scale.numpy(),
                     "parity_trajectory_weights")  # fmt: skip
        if isinstance(twin, Folded):
            assert_close(twin.bn.running_var.array, theirs.bn.running_var.numpy(), "parity_op_fp32")
            assert_close(twin.bn.running_mean.array, theirs.bn.running_mean.numpy(), "parity_op_fp32")


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.*(deprecated|reduce_range|_aminmax)")
@pytest.mark.parametrize("kind", [MinMaxObserver, MovingAverageMinMaxObserver])
def test_places_are_torchs(kind: Any) -> None:
    """Oracle: torch.ao.quantization.FakeQuantize, bit for bit: outputs, gradients, scales, zero points."""
    torch = pytest.importorskip("torch")
    from torch.ao.quantization import FakeQuantize as Theirs
    from torch.ao.quantization import observer

    rest = {"averaging_constant": 0.1} if kind is MovingAverageMinMaxObserver else {}
    for bits in (8, 4, 2):
        ours = FakeQuantize(kind, 0, 2**bits - 1, **rest)
        theirs = Theirs(observer=getattr(observer, kind.__name__), quant_min=0, quant_max=2**bits - 1, **rest)
        for step in range(4):
            a = tensor(batch((5, 30), step), requires_grad=True)
            b = torch.from_numpy(batch((5, 30), step)).requires_grad_()
            y, want = ours(a), theirs(b)
            np.testing.assert_array_equal(y.detach().array, want.detach().numpy())
            (y * y).sum().backward()
            (want * want).sum().backward()
            np.testing.assert_array_equal(a.grad.array, b.grad.numpy())
            assert ours.scale.array == theirs.scale.numpy()
            assert ours.zero_point.array == theirs.zero_point.numpy()


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_a_prepared_model_is_torchs() -> None:
    """Oracle: torch.ao's fuse_modules_qat and prepare_qat on the same network: results, gradients, scales.

    No biases behind the norm: torch leaves them as they are.
    """
    torch = pytest.importorskip("torch")
    from torch.ao import quantization as theirs

    manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64, 5, bias=False),
    )  # fmt: skip
    t = torch.nn
    other = t.Sequential(
        theirs.QuantStub(),
        t.Sequential(t.Conv2d(3, 4, 3, padding=1, bias=False), t.BatchNorm2d(4), t.ReLU()),
        t.MaxPool2d(2), t.Flatten(), t.Linear(64, 5, bias=False),
    )  # fmt: skip
    paths = {"0.weight": "1.0.weight", "5.weight": "4.weight"}
    state = {paths[path]: torch.from_numpy(each.array.copy()) for path, each in model.named_parameters()
             if path in paths}  # fmt: skip
    other.load_state_dict(state, strict=False)
    weight = theirs.FakeQuantize.with_args(
        observer=theirs.PerChannelMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
    )  # fmt: skip
    other.qconfig = theirs.QConfig(
        weight=weight,
        activation=theirs.FakeQuantize.with_args(
            observer=theirs.MovingAverageMinMaxObserver, quant_min=0, quant_max=255
        ),
    )
    other = theirs.prepare_qat(theirs.fuse_modules_qat(other.train(), [["1.0", "1.1", "1.2"]]))
    prepared = prepare_qat(model, tensor(batch((2, 3, 8, 8))))
    x, target = batch((8, 3, 8, 8), 1), batch((8, 5), 2)
    y, want = prepared(tensor(x)), other(torch.from_numpy(x))
    (y * tensor(target)).sum().backward()
    (want * torch.from_numpy(target)).sum().backward()
    assert_close(y.detach().array, want.detach().numpy(), "parity_op_fp32")
    for ours, its in (
        (prepared.inputs[0], other[0].activation_post_process),
        (prepared.model[0].activation_post_process, other[1][0].activation_post_process),
        (prepared.model[5].activation_post_process, other[4].activation_post_process),
        (prepared.model[0].weight_fake_quant, other[1][0].weight_fake_quant),
    ):
        assert_close(ours.scale.array.reshape(-1), its.scale.numpy(), "parity_op_fp32")
        np.testing.assert_array_equal(ours.zero_point.array.reshape(-1), its.zero_point.numpy())
    for mine, its in ((prepared.model[0], other[1][0]), (prepared.model[5], other[4])):
        assert_close(mine.weight.grad.array, its.weight.grad.numpy(), "parity_gradient_fp32")
    assert_close(prepared.model[0].bn.weight.grad.array, other[1][0].bn.weight.grad.numpy(),
                 "parity_gradient_fp32")  # fmt: skip


def test_every_layer_has_a_row() -> None:
    """Oracle: the patterns of fusion that end in a layer with an integer form: each has its twin."""
    names = {each.__name__ for each in TWINS.values()}
    assert names == {name.split(",")[0] for name in LAYERS if name.split(",")[0] in names}
    assert all(issubclass(each, Weighted) and issubclass(each, Module) for each in TWINS.values())
