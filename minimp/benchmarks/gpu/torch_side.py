"""PyTorch's side of each job, on the same device: what a user would write, eager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

__all__ = ["TorchSide"]

Call = Callable[[], object]
SCALE = 2.0**16


class TorchSide:
    """Makes contenders of PyTorch.

    Args:
        device: "cuda"; "cpu" where the calls are only tried.

    Raises:
        ImportError: torch is not installed.
    """

    def __init__(self, device: str = "cuda") -> None:
        import torch

        self.torch, self.device = torch, device

    @staticmethod
    def is_there() -> bool:
        """Tell whether torch is installed and sees a GPU."""
        try:
            import torch
        except ImportError:
            return False
        return bool(torch.cuda.is_available())

    def describe(self) -> str:
        """Return torch's version, and CUDA's that it was built with."""
        return f"torch {self.torch.__version__}, CUDA {self.torch.version.cuda or 'none'}"

    def forget(self) -> None:
        """Give back the memory that torch keeps for later."""
        if self.device == "cuda":
            self.torch.cuda.empty_cache()

    def random(self, *shape: int, dtype: str = "float32") -> Any:
        """Return normal numbers."""
        return self.torch.randn(*shape, device=self.device).to(getattr(self.torch, dtype))

    # ---- products ---------------------------------------------------------------------------------------

    def matmul(self, sizes: tuple[int, int, int], layout: str, dtype: str) -> Call:
        """`torch.matmul` of two matrices, or of their transposes."""
        m, n, k = sizes
        a = self.random(m, k, dtype=dtype) if layout[0] == "n" else self.random(k, m, dtype=dtype).T
        b = self.random(k, n, dtype=dtype) if layout[1] == "n" else self.random(n, k, dtype=dtype).T
        return lambda: self.torch.matmul(a, b)

    def bmm(self, sizes: tuple[int, int, int, int], dtype: str) -> Call:
        """`torch.bmm`."""
        batch, m, n, k = sizes
        a, b = self.random(batch, m, k, dtype=dtype), self.random(batch, k, n, dtype=dtype)
        return lambda: self.torch.bmm(a, b)

    def int_mm(self, n: int) -> Call:
        """`torch._int_mm`: int8 with int32 sums."""
        a, b = (
            self.torch.randint(-128, 128, (n, n), dtype=self.torch.int8, device=self.device) for _ in range(2)
        )
        return lambda: self.torch._int_mm(a, b)

    def eights(self, n: int) -> tuple[Any, Any]:
        """Two N x N matrices of `float8_e4m3fn`, the second by columns."""
        a, b = (self.random(n, n).to(self.torch.float8_e4m3fn) for _ in range(2))
        return a, b.T

    def scaled_mm(self, a: Any, b: Any, scale: float) -> Call:
        """`torch._scaled_mm` to float16, one scale a matrix."""
        one = self.torch.tensor(scale, device=self.device)
        return lambda: self.torch._scaled_mm(a, b, one, one, out_dtype=self.torch.float16)

    # ---- passes -----------------------------------------------------------------------------------------

    def copy(self, n: int) -> Call:
        """A copy of float32 numbers into memory that is there."""
        x = self.random(n)
        y = self.torch.empty_like(x)
        return lambda: y.copy_(x)

    def cast(self, n: int, source: str, target: str) -> Call:
        """`Tensor.to`."""
        x, dtype = self.random(n, dtype=source), getattr(self.torch, target)
        return lambda: x.to(dtype)

    def tally(self, n: int, dtype: str) -> Call:
        """Counts of what is 0, NaN and infinite and of each exponent, the ends, and the mean, on the host."""
        x = self.random(n, dtype=dtype)

        def run() -> Any:
            bad = [
                x.isnan().sum(),
                x.isinf().sum(),
                (x == 0).sum(),
                *x.aminmax(),
                x.mean(dtype=torch.float32),
            ]
            counts = torch.bincount(torch.frexp(x.float()).exponent + 150, minlength=300)
            return torch.cat([torch.stack([each.float() for each in bad]), counts.float()]).cpu()

        torch = self.torch
        return run

    def unscale(self, n: int) -> Call:
        """What `torch.amp.GradScaler.unscale_` calls, on float32 gradients, in place."""
        gradients, one = [self.random(n)], self.torch.ones(1, device=self.device)
        found = self.torch.zeros(1, device=self.device)
        return lambda: self.torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, one)

    def adamw(self, sizes: Sequence[int]) -> Call:
        """One step of `torch.optim.AdamW(fused=True)` on float32 parameters."""
        return self._adamw([self.random(size) for size in sizes]).step  # type: ignore[no-any-return]  # torch's

    def adamw_with_copy(self, n: int) -> Call:
        """Unscale, step and cast: three passes over float32 gradients, masters and their float16 copy."""
        master = self.random(n)
        optimizer = self._adamw([master])
        low = master.to(self.torch.float16)
        one, found = (make(1, device=self.device) for make in (self.torch.ones, self.torch.zeros))

        def run() -> None:
            self.torch._amp_foreach_non_finite_check_and_unscale_([master.grad], found, one)
            optimizer.step()
            low.copy_(master.detach())

        return run

    def _adamw(self, parameters: list[Any]) -> Any:
        for each in parameters:
            each.requires_grad_()
            each.grad = self.torch.full_like(each, 1e-3)
        return self.torch.optim.AdamW(parameters, lr=1e-3, fused=True)

    # ---- rows -------------------------------------------------------------------------------------------

    def row_op(self, name: str, count: int, width: int) -> Call:
        """Softmax, layer norm or cross-entropy of float16 numbers, forward and backward."""
        F = self.torch.nn.functional
        x = self.random(count, width, dtype="float16").requires_grad_()
        grad = self.random(count, width, dtype="float16")
        labels = self.torch.randint(0, width, (count,), device=self.device)

        def call() -> None:
            x.grad = None
            if name == "cross_entropy":
                F.cross_entropy(x, labels).backward()
            elif name == "softmax":
                F.softmax(x, -1).backward(grad)
            else:
                F.layer_norm(x, (width,)).backward(grad)

        return call

    # ---- steps ------------------------------------------------------------------------------------------

    def step(
        self, make: Callable[[Any, Any], Any], batch: tuple[Any, Any], recipe: str, *, tf32: bool = False
    ) -> Call:
        """One training step as PyTorch's recipe for AMP has it; nothing is read on the host.

        Args:
            make: from torch.nn and torch.nn.functional to the model.
            batch: NumPy inputs and labels.
            recipe: "fp32", "mixed-fp16" or "mixed-bf16".
            tf32: whether float32 products may round their factors to TF32.
        """
        torch = self.torch
        dtype = {"mixed-fp16": torch.float16, "mixed-bf16": torch.bfloat16}.get(recipe)
        model = make(torch.nn, torch.nn.functional).to(self.device)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, fused=self.device == "cuda" or None)
        scaler = torch.amp.GradScaler(self.device, enabled=recipe == "mixed-fp16")
        x, labels = (torch.tensor(each, device=self.device) for each in batch)

        def run() -> None:
            optimizer.zero_grad()
            with self._math_attention(), self._tf32(tf32):
                with torch.autocast(self.device, dtype=dtype or torch.bfloat16, enabled=dtype is not None):
                    scores = model(x)
                    loss = torch.nn.functional.cross_entropy(
                        scores.reshape(-1, scores.shape[-1]), labels.reshape(-1)
                    )
                scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

        return run

    def _math_attention(self) -> AbstractContextManager[object]:
        attention = self.torch.nn.attention
        return attention.sdpa_kernel(attention.SDPBackend.MATH)  # type: ignore[no-any-return]  # torch's

    def _tf32(self, on: bool) -> AbstractContextManager[object]:
        if self.device != "cuda":
            return nullcontext()
        return _Tf32(self.torch.backends.cuda.matmul, on)


class _Tf32:
    """Sets `allow_tf32` for a block."""

    def __init__(self, matmul: Any, on: bool) -> None:
        self.matmul, self.on, self.before = matmul, on, False

    def __enter__(self) -> None:
        self.before, self.matmul.allow_tf32 = self.matmul.allow_tf32, self.on

    def __exit__(self, *exc: object) -> None:
        self.matmul.allow_tf32 = self.before
