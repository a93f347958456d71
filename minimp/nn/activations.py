"""Activations as modules; the maths is in :mod:`minimp.ops` and :mod:`minimp.functional`."""

from __future__ import annotations

from typing import Any

from minimp import functional
from minimp.errors import SettingError
from minimp.nn import init as start
from minimp.nn.making import empty, lifted, whole
from minimp.nn.module import Module
from minimp.nn.parameter import Parameter
from minimp.tensors import Tensor

__all__ = [
    "CELU", "ELU", "GELU", "GLU", "SELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh",
    "LeakyReLU", "LogSigmoid", "Mish", "PReLU", "ReLU", "ReLU6", "SiLU", "Sigmoid", "Softplus",
    "Softshrink", "Softsign", "Tanh", "Tanhshrink", "Threshold", "refuse_inplace",
]  # fmt: skip

F = functional


def refuse_inplace(owner: str, inplace: bool) -> None:
    """Refuse a request that cannot be honoured: arrays are never changed in place."""
    if inplace:
        raise SettingError(
            "inplace=True cannot act: arrays are never changed in place", op=owner, help="leave it out"
        )


class _Elementwise(Module):
    """An activation whose settings are numbers, shown as ``name=value``, and `inplace`, which is refused."""

    def __init__(self, inplace: bool = False, **settings: Any) -> None:
        super().__init__()
        refuse_inplace(self._name(), inplace)
        self._shown = tuple(settings)
        for name, value in settings.items():
            setattr(self, name, value)
        self.inplace = False

    def extra_repr(self) -> str:
        """Show the settings."""
        return ", ".join(f"{name}={getattr(self, name)}" for name in self._shown)


class ReLU(_Elementwise):
    """max(x, 0), elementwise; `inplace` must stay False."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace)

    def forward(self, input: Any) -> Tensor:
        """Return max(x, 0)."""
        return F.relu(input)


class Threshold(_Elementwise):
    """x where x > threshold, else `value`; `inplace` must stay False."""

    threshold: float
    value: float

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__(inplace, threshold=threshold, value=value)

    def forward(self, input: Any) -> Tensor:
        """Return x or the value."""
        x = lifted(input)
        return F.where(x <= self.threshold, self.value, x)


class Hardtanh(_Elementwise):
    """min(max(x, min_val), max_val), elementwise; the gradient is 0 at and beyond the bounds.

    Raises:
        SettingError: bounds that are not in order, or in place.
    """

    min_val: float
    max_val: float

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace, min_val=min_val, max_val=max_val)
        if not min_val < max_val:
            raise SettingError(f"expected min_val < max_val, got {min_val} and {max_val}", op=self._name())

    def forward(self, input: Any) -> Tensor:
        """Return x between the bounds."""
        return F.hardtanh(input, self.min_val, self.max_val)


class ReLU6(Hardtanh):
    """min(max(x, 0), 6), elementwise; `inplace` must stay False."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(0.0, 6.0, inplace)
        self._shown = ()


class Tanh(Module):
    """The hyperbolic tangent, elementwise."""

    def forward(self, input: Any) -> Tensor:
        """Return tanh x."""
        return F.tanh(input)


class Sigmoid(Module):
    """1 / (1 + e^-x), elementwise."""

    def forward(self, input: Any) -> Tensor:
        """Return the logistic function of x."""
        return F.sigmoid(input)


class LogSigmoid(Module):
    """-ln(1 + e^-x), elementwise."""

    def forward(self, input: Any) -> Tensor:
        """Return the logarithm of the logistic function."""
        return F.logsigmoid(input)


class Hardsigmoid(_Elementwise):
    """min(max(x + 3, 0), 6) / 6, elementwise; `inplace` must stay False."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace)

    def forward(self, input: Any) -> Tensor:
        """Return the three pieces."""
        return F.hardsigmoid(input)


class Hardswish(_Elementwise):
    """x min(max(x + 3, 0), 6) / 6, elementwise (Howard et al. 2019); `inplace` must stay False."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace)

    def forward(self, input: Any) -> Tensor:
        """Return the three pieces."""
        return F.hardswish(input)


class SiLU(_Elementwise):
    """x / (1 + e^-x), elementwise (Elfwing et al. 2017); `inplace` must stay False."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace)

    def forward(self, input: Any) -> Tensor:
        """Return x times the logistic function of x."""
        return F.silu(input)


class Mish(_Elementwise):
    """x tanh(ln(1 + e^x)), elementwise (Misra 2019); `inplace` must stay False."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace)

    def forward(self, input: Any) -> Tensor:
        """Return x tanh(softplus x)."""
        return F.mish(input)


class LeakyReLU(_Elementwise):
    """x for x > 0, else negative_slope x; `inplace` must stay False."""

    negative_slope: float

    def __init__(self, negative_slope: float = 1e-2, inplace: bool = False) -> None:
        super().__init__(inplace, negative_slope=negative_slope)

    def forward(self, input: Any) -> Tensor:
        """Return x or a part of it."""
        return F.leaky_relu(input, self.negative_slope)


class ELU(_Elementwise):
    """x for x > 0, else alpha (e^x - 1) (Clevert et al. 2015); `inplace` must stay False."""

    alpha: float

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace, alpha=alpha)

    def forward(self, input: Any) -> Tensor:
        """Return the exponential linear unit."""
        return F.elu(input, self.alpha)


class CELU(ELU):
    """x for x > 0, else alpha (e^(x / alpha) - 1) (Barron 2017); `inplace` must stay False."""

    def forward(self, input: Any) -> Tensor:
        """Return the continuously differentiable exponential linear unit."""
        return F.celu(input, self.alpha)


class SELU(_Elementwise):
    """s x for x > 0, else s a (e^x - 1), which keeps mean 0 and variance 1 (Klambauer et al. 2017)."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__(inplace)

    def forward(self, input: Any) -> Tensor:
        """Return the scaled exponential linear unit."""
        return F.selu(input)


class GELU(_Elementwise):
    """x Phi(x), elementwise (Hendrycks and Gimpel 2016).

    Args:
        approximate: ``"none"``, by the error function, or ``"tanh"``.

    Raises:
        SettingError: another name.
    """

    approximate: str

    def __init__(self, approximate: str = "none") -> None:
        super().__init__(approximate=approximate)
        if approximate not in ("none", "tanh"):
            raise SettingError(f"expected approximate 'none' or 'tanh', got {approximate!r}", op="GELU")

    def forward(self, input: Any) -> Tensor:
        """Return x Phi(x)."""
        return F.gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        """Show the way it is computed."""
        return f"approximate={self.approximate!r}"


class Softplus(_Elementwise):
    """ln(1 + e^(beta x)) / beta, and x itself where beta x > threshold."""

    beta: float
    threshold: float

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__(beta=beta, threshold=threshold)

    def forward(self, input: Any) -> Tensor:
        """Return the smooth rectifier."""
        return F.softplus(input, self.beta, self.threshold)


class Hardshrink(_Elementwise):
    """0 where |x| <= lambd, else x."""

    lambd: float

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__(lambd=lambd)

    def forward(self, input: Any) -> Tensor:
        """Return x or 0."""
        x = lifted(input)
        return F.where(abs(x.detach()) <= self.lambd, 0.0, x)

    def extra_repr(self) -> str:
        """Show the bound."""
        return f"{self.lambd}"


class Softshrink(Hardshrink):
    """x moved towards 0 by lambd, 0 where |x| <= lambd.

    Raises:
        SettingError: lambd is below 0.
    """

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__(lambd)
        if not lambd >= 0:
            raise SettingError(f"expected lambd of at least 0, got {lambd}", op="Softshrink")

    def forward(self, input: Any) -> Tensor:
        """Return what is left of x."""
        x, by = lifted(input), self.lambd
        return F.where(x > by, x - by, F.where(x < -by, x + by, x * 0.0))


class Softsign(Module):
    """x / (1 + |x|), elementwise."""

    def forward(self, input: Any) -> Tensor:
        """Return x / (1 + |x|)."""
        return F.softsign(input)


class Tanhshrink(Module):
    """x - tanh x, elementwise."""

    def forward(self, input: Any) -> Tensor:
        """Return what tanh takes away."""
        x = lifted(input)
        return x - x.tanh()


class PReLU(Module):
    """x for x > 0, else w x, w learned (He et al. 2015).

    `weight` is (num_parameters,), all `init` at first. Under autocast it is in the lower precision.

    Args:
        num_parameters: 1, or the number of channels, axis 1 of the input.
        init: the first value of w.
        dtype: the format of w; None is float32.
        backend: the name of a backend; None takes the one in force.

    Raises:
        SettingError: a number that is no whole one of at least 1.
        ShapeError: on call, an input with another number of channels.
    """

    weight: Parameter

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, *, dtype: Any = None, backend: str | None = None
    ) -> None:
        super().__init__()
        object.__setattr__(self, "num_parameters", whole("num_parameters", num_parameters, "PReLU"))
        self.init = init
        self.weight = empty((num_parameters,), dtype, backend)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set w to its first value."""
        start.constant_(self.weight, self.init)

    def forward(self, input: Any) -> Tensor:
        """Return x or w x."""
        return F.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """Show the number of parameters."""
        return f"num_parameters={self.num_parameters}"


class GLU(Module):
    """a s(b) of the two halves of the input along an axis, s the logistic function (Dauphin et al. 2016).

    Raises:
        ShapeError: on call, the axis has an odd length.
    """

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Any) -> Tensor:
        """Return the first half, gated by the second."""
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        """Show the axis."""
        return f"dim={self.dim}"
