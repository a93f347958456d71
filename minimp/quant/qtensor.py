"""Quantised numbers with all that is needed to read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn, Self

import numpy as np
import numpy.typing as npt

from minimp.displays.quantised import qtensor_html
from minimp.errors import FormatError, SettingError
from minimp.quant.affine import Affine, dequantize, quantize

__all__ = ["QTensor"]

Floats = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int8 | np.uint8]


@dataclass(frozen=True, eq=False)
class QTensor:
    """Codes, and the scale and zero point by which they are read.

    >>> import numpy as np
    >>> from minimp.quant import Affine, QTensor
    >>> print(QTensor.of(np.float32([-0.5, 0.0, 0.26]), Affine(0.02, 3)))
    QTensor (3,) int8, scale 0.02, zero point 3, codes -128..127, rule torch
    codes  [-22   3  16]
    values [-0.5   0.    0.26]
    11 bytes: 3 of codes, 8 of scale and zero point; 12 in float32

    Attributes:
        codes: (...) int8 or uint8, as `affine.storage` says; read-only.
        affine: what they mean.

    Raises:
        FormatError: codes of another dtype.
        SettingError: a code that is not among those of `affine`.
        ShapeError: codes without the channels of `affine`.
    """

    codes: Codes
    affine: Affine

    def __post_init__(self) -> None:
        codes, affine = np.asarray(self.codes), self.affine
        if codes.dtype != affine.storage:
            raise FormatError(
                f"expected codes in {np.dtype(affine.storage)}, got {codes.dtype}", op="QTensor",
                formats=[str(codes.dtype)],
            )  # fmt: skip
        if codes.size and (codes.min() < affine.quant_min or codes.max() > affine.quant_max):
            raise SettingError(
                f"expected codes from {affine.quant_min} to {affine.quant_max}, got {codes.min()} to "
                f"{codes.max()}",
                op="QTensor",
            )  # fmt: skip
        affine.layout(codes.shape, "QTensor")
        codes = codes.view()
        codes.flags.writeable = False
        object.__setattr__(self, "codes", codes)

    @classmethod
    def of(cls, x: Any, affine: Affine) -> Self:
        """Quantise numbers (:func:`minimp.quant.quantize`)."""
        return cls(quantize(x, affine), affine)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the codes."""
        return self.codes.shape

    @property
    def nbytes(self) -> int:
        """Bytes of the codes, one each, and of their scales and zero points, four each."""
        return self.codes.nbytes + self.affine.scale.nbytes + self.affine.zero_point.nbytes

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        """Refuse to be taken for an array: its numbers are those of `dequantize`, its codes `codes`.

        Raises:
            FormatError: always.
        """
        raise FormatError(
            f"codes came where numbers are computed with: a {self._head()}", op="QTensor",
            formats=[str(self.codes.dtype)],
            help="q.dequantize() gives the numbers; modules such as mp.quant.Add compute on codes",
        )  # fmt: skip

    __array__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __matmul__ = __rmatmul__ = __truediv__ = __rtruediv__ = __neg__ = _refuse

    def int_repr(self) -> Codes:
        """Return the codes (torch's name)."""
        return self.codes

    def dequantize(self) -> Floats:
        """Return the numbers in float32 (:func:`minimp.quant.dequantize`)."""
        return dequantize(self.codes, self.affine)

    def __repr__(self) -> str:
        """Show the head alone."""
        return f"<{self._head()}>"

    def _repr_html_(self) -> str:
        return qtensor_html(self)

    def __str__(self) -> str:
        """Show codes, values and bytes."""
        with np.printoptions(threshold=64, edgeitems=3, precision=6, suppress=True, linewidth=92):
            codes, values = (str(each).replace("\n", "\n       ") for each in (self.codes, self.dequantize()))
        rest = self.nbytes - self.codes.nbytes
        return (
            f"{self._head()}\ncodes  {codes}\nvalues {values}\n{self.nbytes:,} bytes: {self.codes.nbytes:,} "
            f"of codes, {rest:,} of scale and zero point; {4 * self.codes.size:,} in float32"
        )

    def _head(self) -> str:
        return f"QTensor {self.shape} {self.affine}"
