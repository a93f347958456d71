"""torch's engines for integers: choosing one for a while, in this process or in one that is kept from VNNI.

Run as a script, with two files as arguments, it is that other process: it makes layers of the arrays in the
first file and writes the codes that FBGEMM gave into the second. FBGEMM reads its limits when torch is
loaded, so that they cannot be changed later.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LIMIT", "Limited", "engine", "has_engine", "product_of"]

Array = npt.NDArray[Any]
LIMIT = {"FBGEMM_ENABLE_INSTRUCTIONS": "AVX2", "OMP_NUM_THREADS": "1"}
"""Environment of the other process: no instructions beyond AVX2, of which VNNI is one."""
SCALES = {"x": 2.0**-5, "w": 2.0**-6, "y": 1.0}
"""Powers of two, so that nothing but the sums of products can differ."""
ZEROS = {"x": 100, "w": 0, "y": 120}
TIMEOUT = 120.0


def has_engine(name: str) -> bool:
    """Tell whether torch was built with an engine."""
    import torch

    return name in torch.backends.quantized.supported_engines


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Let torch compute with an engine, in one thread, and put everything back."""
    import torch

    before, threads = torch.backends.quantized.engine, torch.get_num_threads()
    torch.backends.quantized.engine = name
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.backends.quantized.engine = before
        torch.set_num_threads(threads)


def product_of(x: Array, w: Array, bias: Array) -> Array:
    """Return the codes of torch's linear layer (two axes) or convolution, scales and zero points as above.

    A convolution is padded by 1 and has as many groups as its shapes say.
    """
    import torch

    ops: Any = torch.ops.quantized
    q, weight = (
        torch._make_per_tensor_quantized_tensor(torch.from_numpy(each), SCALES[name], ZEROS[name])
        for name, each in (("x", x), ("w", w))
    )
    out = SCALES["y"], ZEROS["y"]
    if x.ndim == 2:
        y = ops.linear(q, ops.linear_prepack(weight, torch.from_numpy(bias)), *out)
    else:
        how = (1, 1), (1, 1), (1, 1), x.shape[1] // w.shape[1]
        y = ops.conv2d(q, ops.conv2d_prepack(weight, torch.from_numpy(bias), *how), *out)
    return np.asarray(y.int_repr().numpy())


class Limited:
    """A process in which FBGEMM has AVX2 and nothing beyond; it works while this one goes on.

    Args:
        given: arrays x, w and bias by the name of a layer.
    """

    def __init__(self, given: Mapping[str, tuple[Array, Array, Array]]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name, f"{name}.npz") for name in ("given", "made")]
        arrays = {f"{part} {name}": each for name, three in given.items()
                  for part, each in zip(("x", "w", "b"), three, strict=True)}  # fmt: skip
        np.savez(self._files[0], **arrays)  # type: ignore[arg-type]  # arrays by name
        command = [sys.executable, "-P", "-W", "ignore", __file__, *map(str, self._files)]
        self._process = subprocess.Popen(
            command, env=os.environ | LIMIT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def codes(self) -> dict[str, Array]:
        """Wait, and return the codes by the name of a layer.

        Raises:
            RuntimeError: the process failed, with what it said last.
        """
        try:
            _, said = self._process.communicate(timeout=TIMEOUT)
            if self._process.returncode:
                raise RuntimeError(f"torch in a process of its own failed: {said.strip()[-300:]}")
            with np.load(self._files[1]) as made:
                return {name: made[name] for name in made.files}
        finally:
            self.close()

    def close(self) -> None:
        """End the process, if it has not ended, and take its files away; once more does nothing."""
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._folder.cleanup()


def _main(given: str, made: str) -> None:
    arrays = dict(np.load(given))
    names = {key[2:] for key in arrays}
    with engine("fbgemm"):
        found = {name: product_of(*(arrays[f"{part} {name}"] for part in "xwb")) for name in names}
    np.savez(made, **found)  # type: ignore[arg-type]  # arrays by name


if __name__ == "__main__":
    _main(*sys.argv[1:])
