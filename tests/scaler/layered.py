"""Models for layer-wise loss scaling: a tangle of branches, a deep network, and one that overflows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import minimp as mp
from minimp import functional as F  # noqa: N812 - torch's habit
from minimp import nn
from minimp.scaler.layerwise import LayerwiseScaler
from minimp.tensors import Tensor
from tests.arrays import host

Arrays = Mapping[str, np.ndarray[Any, Any]]
CODES = np.array([0, 3, 1, 4, 3, 2, 0])
TARGETS = np.array([0, 1, 2, 3, 0, 1, 2])


class TwoWays(mp.Function):
    """(x, 3 x), with a gradient for each."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        """Return both."""
        del ctx
        return x * 1.0, x * 3.0

    @staticmethod
    def backward(ctx: Any, once: Any, thrice: Any) -> Any:
        """Add both up."""
        del ctx
        return once + thrice * 3.0


class Tangle(nn.Module):
    """All that gradients of different scales can meet in.

    A residual connection, a layer used twice, slices that overlap, a Function with two results, a product of
    two activations, a convolution, an embedding, and a tensor used by several ops.
    """

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 6)
        self.first = nn.Linear(6, 6)
        self.shared = nn.Linear(6, 6)
        self.conv = nn.Conv2d(2, 3, 2, padding=1)
        self.head = nn.Linear(6, 4)

    def forward(self, codes: Any) -> Tensor:
        """Codes (N,) to scores (N, 4)."""
        x = self.table(codes)  # (N, 6)
        h = self.first(x)
        h = h + self.shared(F.tanh(h))  # a branch
        h = x + self.shared(h)  # the same weights, and the embedding again
        left, right = h[:, :4], h[:, 2:]  # slices that meet
        once, thrice = TwoWays.apply(self.conv((left * right).reshape(-1, 2, 1, 2)).mean((1, 2, 3)))
        mixed = (h @ h.T) @ h  # both operands are activations
        return self.head(mixed + once[:, None]) + thrice[:, None]


def tangle() -> Tangle:
    """Return the model, the same each time."""
    mp.manual_seed(3)
    return Tangle()


def gradients(model: nn.Module) -> dict[str, np.ndarray[Any, Any]]:
    """Return the gradients by name, and drop them."""
    found = {name: np.array(host(p.grad)) for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def assert_same_bits(actual: Arrays, expected: Arrays) -> None:
    """Compare all gradients."""
    assert actual.keys() == expected.keys()
    for name, array in actual.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def loss_of(model: nn.Module, dtype: str = "float32") -> Tensor:
    """Run the model, in the format of its parameters or under autocast to float16."""
    if dtype == "float16":
        with mp.autocast("float16"):
            return F.cross_entropy(model(CODES), TARGETS)
    return F.cross_entropy(model(CODES), TARGETS)


def deep(depth: int = 20, width: int = 32) -> nn.Module:
    """Return a network of sigmoids: each layer's gradients are about 7 times smaller than the next one's."""
    mp.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(64, width)]
    for _ in range(depth - 2):
        layers += [nn.Sigmoid(), nn.Linear(width, width)]
    return nn.Sequential(*layers, nn.Sigmoid(), nn.Linear(width, 10))


def deep_loss(model: nn.Module) -> Tensor:
    """Return the loss of 128 digits in mixed precision."""
    digits = mp.data.digits("train")
    with mp.autocast("float16"):
        return F.cross_entropy(model(mp.tensor(digits.inputs[:128])), digits.targets[:128])


def trap(scaler: LayerwiseScaler) -> tuple[Tensor, Tensor, Callable[[], Tensor]]:
    """Return two weights, and the loss of a network between whose layers the gradient grows by 2^28."""
    first, second = (mp.tensor(np.full((8, 8), v, np.float32), requires_grad=True) for v in (2.0**-13, 0.5))
    scaler.name_parameters([("first.weight", first), ("second.weight", second)])

    def loss() -> Tensor:
        with mp.autocast("float16"):
            hidden = F.linear(mp.tensor(np.full((4, 8), 2.0**-10, np.float32)), first)
            return F.linear(hidden * 2.0**14 * 2.0**14, second).float().sum() * 2.0**-24

    return first, second, loss
