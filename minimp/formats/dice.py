"""Random numbers for stochastic rounding that belong to an element, not to a moment.

A :class:`Counter` hashes (seed, place of the element) into the element's random bits, so the same array is
rounded to the same bits however it is cut into blocks, by however many threads, on whatever backend; and any
single element can be rounded again alone.

The hash is SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA,
figure 15; it passes BigCrush): word j of key k is mix(k + (j + 1) · 0x9e3779b97f4a7c15 mod 2^64). One word
serves two neighbours: the element at an even place takes its low half, the next one its high half.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minimp.errors import DataError, SettingError, ShapeError

__all__ = ["Counter", "Dice", "Source", "mix64", "roll"]

Words = npt.NDArray[np.uint32]
GOLDEN = 0x9E37_79B9_7F4A_7C15
_FIRST, _SECOND = 0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB
_MASK = (1 << 64) - 1
SECOND_KEY = 0xD6E8_FEB8_6659_FD93
"""What tells the key of the further bits from the key of the first 32."""


def mix64(z: Any) -> Any:
    """SplitMix64's finaliser: z in [0, 2^64), a Python integer or a uint64 array (changed in place)."""
    if isinstance(z, int):
        z = ((z ^ (z >> 30)) * _FIRST) & _MASK
        z = ((z ^ (z >> 27)) * _SECOND) & _MASK
        return z ^ (z >> 31)
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    z ^= z >> np.uint64(31)
    return z


@dataclass(frozen=True)
class Counter:
    """A source of random bits in which each element of an array has its own.

    Attributes:
        seed: 0 <= seed < 2^64.
        start: the place of the first element; element i of an array (in C order) has place start + i.

    Raises:
        SettingError: seed or start is no whole number, or out of range.
    """

    seed: int
    start: int = 0

    def __post_init__(self) -> None:
        given: dict[str, Any] = {"seed": self.seed, "start": self.start}
        for name, value in given.items():
            whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
            if not whole or not 0 <= int(value) <= _MASK:
                raise SettingError(
                    f"expected {name} to be a whole number in [0, 2^64), got {value!r}",
                    op="Counter",
                    help="a seed is any such number; the start is the place of the first element, mostly 0",
                )
            object.__setattr__(self, name, int(value))  # NumPy's integers would overflow in the hash

    def advance(self, places: int) -> Counter:
        """Return the counter whose first element has the place `places` further on."""
        return Counter(self.seed, self.start + places)

    def key(self, *, further: bool = False) -> int:
        """Return the key of the hash, for the 32 random bits of an element or for the 32 further ones."""
        key: int = mix64(int(self.seed))
        return int(mix64(key ^ SECOND_KEY)) if further else key

    def words(self, count: int, *, further: bool = False) -> Words:
        """Return the 32 random bits of each of `count` elements, or 32 further ones."""
        start = int(self.start)
        first, stop = start // 2, (start + count + 1) // 2
        z = np.arange(stop - first, dtype=np.uint64)
        z *= np.uint64(GOLDEN)
        z += np.uint64((self.key(further=further) + (first + 1) * GOLDEN) & _MASK)
        halves = mix64(z).view(np.uint32)
        if sys.byteorder == "big":
            halves = halves.reshape(-1, 2)[:, ::-1].reshape(-1)
        skip = start - 2 * first
        words: Words = halves[skip : skip + count]
        return words

    @np.errstate(over="ignore")  # everything here is modulo 2^64; single numbers would warn of it
    def words_at(self, places: npt.NDArray[np.integer[Any]], *, further: bool = False) -> Words:
        """Return ``words(n)[places]`` for scattered places, as whole numbers >= 0, without the others."""
        first, odd = divmod(int(self.start), 2)
        place = np.asarray(places, np.uint64) + np.uint64(odd)
        z = (place >> np.uint64(1)) + np.uint64(first + 1)
        z *= np.uint64(GOLDEN)
        z += np.uint64(self.key(further=further))
        upper = (place & np.uint64(1)) << np.uint64(5)
        words: Words = (mix64(z) >> upper).astype(np.uint32)  # the low 32 bits of what is left
        return words

    def dice_at(self, places: npt.NDArray[np.integer[Any]]) -> Dice:
        """Return the dice that ``roll`` throws for these elements."""
        return Dice(_throw(self.words_at(places), self.words_at(places, further=True)), 53)


Source = np.random.Generator | Counter | int | None
"""What stochastic rounding draws from; an integer seeds a :class:`Counter`, None takes fresh entropy."""


@dataclass(frozen=True)
class Dice:
    """One random whole number an element.

    Attributes:
        throw: uniform in [0, 2^bits), as float64, of the shape of what is rounded.
        bits: how many bits it has.
    """

    throw: npt.NDArray[np.float64]
    bits: int

    def lifts(self, part: Any) -> Any:
        """Tell whether a residue of `part` ulps, in [0, 1), goes up: round(part 2^bits) + throw >= 2^bits.

        The residue is itself rounded to `bits` bits, to nearest: cutting it would make few-bit dice prefer
        zero (Fitzgibbon and Felix 2025, "On Stochastic Rounding with Few Random Bits", arXiv:2504.20634).
        """
        whole = 2.0**self.bits
        return np.rint(part * whole) >= whole - self.throw


def roll(shape: tuple[int, ...], rng: Source, bits: Any = None) -> Dice:
    """Throw the dice for an array of `shape`.

    Args:
        shape: of what is rounded.
        rng: a Counter or a seed of one (53 bits an element, by place), a Generator (53 bits), or None.
        bits: the random bits themselves: unsigned integers of `shape`, all bits of their type being random.

    Raises:
        SettingError: `rng` and `bits` are both given, or `rng` is none of these.
        DataError: `bits` are not unsigned integers of at most 32 bits. ShapeError: they are of another shape.
    """
    if bits is not None:
        return _given(shape, rng, np.asarray(bits))
    if isinstance(rng, int | np.integer):
        rng = Counter(rng)
    if isinstance(rng, Counter):
        count = int(np.prod(shape, dtype=np.int64))
        return Dice(_throw(rng.words(count), rng.words(count, further=True)).reshape(shape), 53)
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise SettingError(
            f"expected rng to be a seed, a Counter or a NumPy Generator, got {rng!r}",
            op="round",
            help="pass rng=seed, rng=Counter(seed) or rng=numpy.random.default_rng(seed)",
        )
    generator = np.random.default_rng() if rng is None else rng
    return Dice(np.ldexp(generator.random(shape), 53), 53)


def _throw(words: Words, further: Words) -> npt.NDArray[np.float64]:
    """53 bits: all of the first words, and the upper 21 of the further ones."""
    throw: npt.NDArray[np.float64] = words * 2.0**21 + (further >> np.uint32(11))
    return throw


def _given(shape: tuple[int, ...], rng: Source, bits: npt.NDArray[Any]) -> Dice:
    if rng is not None:
        raise SettingError("expected rng or bits, got both", op="round", help="leave one of them out")
    if bits.dtype.kind != "u" or bits.dtype.itemsize > 4:
        raise DataError(
            f"expected random bits as uint8, uint16 or uint32, got {bits.dtype}",
            op="round",
            help="for example rng.integers(0, 2**16, x.shape, np.uint16)",
        )
    if bits.shape != shape:
        raise ShapeError(
            f"expected random bits of shape {shape}, got {bits.shape}", op="round", shapes=(shape, bits.shape)
        )
    return Dice(bits.astype(np.float64), 8 * bits.dtype.itemsize)
