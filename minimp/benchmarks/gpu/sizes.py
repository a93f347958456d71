"""How large the jobs are: as they are measured, and as small as they can be tried."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FULL", "TINY", "Sizes"]


@dataclass(frozen=True, slots=True)
class Sizes:
    """The sizes of all jobs.

    Attributes:
        elements: of the arrays that are read once.
        squares: N of the N x N x N products.
        odd: (M, N, K) of a product whose sizes are no multiples of 8.
        batches: (matrices, M, N, K) of batched products.
        integers: N of the N x N x N products of int8.
        small: (least, most) bytes and the number of small tensors.
        rows: (rows, columns) of what is normalised.
        width, depth, batch: of the MLP.
        tokens: (batch, length, width, heads) of the transformer block.
        images, few_images: batches of the small CNN and of LeNet.
        repeats: calls between two stamps of the clock at most.
        rounds_seconds: seconds that the rounds of one job may take in all; 3 are done at least.
    """

    elements: int
    squares: tuple[int, ...]
    odd: tuple[int, int, int]
    batches: tuple[tuple[int, int, int, int], ...]
    integers: int
    small: tuple[int, int, int]
    rows: tuple[int, int]
    width: int
    depth: int
    batch: int
    tokens: tuple[int, int, int, int]
    images: int
    few_images: int
    repeats: int
    rounds_seconds: float


FULL = Sizes(
    elements=100_000_000,
    squares=(512, 1024, 2048, 4096, 8192, 16384),
    odd=(4095, 4097, 4099),
    batches=((256, 1024, 1024, 64), (256, 1024, 64, 1024)),  # attention: q kT, and weights v
    integers=4096,
    small=(1 << 10, 64 << 10, 1000),
    rows=(4096, 4096),
    width=4096,
    depth=4,
    batch=8192,
    tokens=(16, 1024, 1024, 16),
    images=256,
    few_images=32,
    repeats=32,
    rounds_seconds=2.0,
)
TINY = Sizes(
    elements=1000, squares=(8, 16), odd=(5, 7, 9), batches=((2, 4, 4, 8), (2, 4, 8, 4)), integers=8,
    small=(16, 64, 5), rows=(4, 8), width=8, depth=2, batch=4, tokens=(2, 4, 8, 2), images=2, few_images=2,
    repeats=2, rounds_seconds=0.0,
)  # fmt: skip
