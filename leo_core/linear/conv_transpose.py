"""A transposed convolution by the kernel of the convolution that it is the transpose of."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import ExactVector
from leo_core.linear.base import FloatArray, LinearMap, Mask, Units, require_apart
from leo_core.linear.conv import Conv
from leo_core.linear.geometry import CLOSE, Geometry, Spacing
from leo_core.linear.sparse import Sparse


@final
class ConvTranspose(LinearMap):
    """The transpose of the :class:`~leo_core.linear.conv.Conv` with the same arrays: x → Aᵀ x.

    Its input is that one's output, and the other way round. So its kernel is (in, out/groups, *taps), as PyTorch and
    ONNX store it, and the input sizes in its geometry are those of its own output, output padding and all.
    """

    def __init__(self, kernel: Any, geometry: Any) -> None:
        self.conv = Conv(kernel, geometry)
        self.rows, self.columns, self.dtype = self.conv.columns, self.conv.rows, self.conv.dtype

    @staticmethod
    def of(
        kernel: Any,
        input: tuple[int, ...],
        spacing: Spacing = CLOSE,
        groups: int = 1,
        output_padding: int | Sequence[int] = 0,
    ) -> ConvTranspose:
        """Over an input of the given spatial sizes."""
        taps, strides = np.array(np.shape(kernel)[2:]), spacing.strides
        spread = (np.array(input) - 1) * strides + (taps - 1) * spacing.dilations + 1
        output = spread + output_padding - spacing.low - spacing.high
        if (np.greater_equal(output_padding, strides) | np.less(output_padding, 0)).any():
            raise ValueError(f"the output padding {output_padding} must be from 0 to below the stride {strides}")
        conv = Conv.of(kernel, tuple(output), spacing, groups)
        return ConvTranspose(**conv.arrays())

    @property
    def geometry(self) -> Geometry:
        """That of the convolution it is the transpose of."""
        return self.conv.geometry

    @property
    def output_padding(self) -> tuple[int, ...]:
        """How much longer the output is, along each axis, than the last window of the input's reaches."""
        geometry = self.conv.geometry
        spans = [slide.span for slide in geometry.windows]
        sizes = zip(geometry.input, geometry.low, geometry.high, spans, strict=True)
        return tuple(size + low + high - span for size, low, high, span in sizes)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return self.conv.arrays()

    @property
    def nonzeros(self) -> int:
        return self.conv.nonzeros

    @property
    def weights(self) -> int:
        return self.conv.weights

    @property
    def products(self) -> int:
        """Each weight once at each input position, with those whose result is cut off, as is usual."""
        return self.conv.products

    @property
    def terms(self) -> int:
        return self.conv.terms_transposed

    @property
    def largest(self) -> float:
        return self.conv.largest

    def apply(self, x: FloatArray) -> FloatArray:
        return self.conv.apply_transposed(x)

    def apply_transposed(self, y: FloatArray) -> FloatArray:
        return self.conv.apply(y)

    @cached_property
    def _absolute(self) -> ConvTranspose:
        return ConvTranspose(**self.conv.absolute().arrays())

    def absolute(self) -> ConvTranspose:
        return self._absolute

    @cached_property
    def _sides(self) -> tuple[ConvTranspose, ConvTranspose]:
        above, below = self.conv.sides()
        return ConvTranspose(**above.arrays()), ConvTranspose(**below.arrays())

    def sides(self) -> tuple[ConvTranspose, ConvTranspose]:
        return self._sides

    def support(self) -> ConvTranspose:
        return ConvTranspose(**self.conv.support().arrays())

    def apply_exact(self, x: ExactVector) -> ExactVector:
        return self.conv.apply_transposed_exact(x)

    def apply_transposed_exact(self, y: ExactVector) -> ExactVector:
        return self.conv.apply_exact(y)

    def sparse(self) -> Sparse:
        return self.conv.columns_alone(np.arange(self.rows))

    def _entries(self) -> FloatArray:
        return self.sparse().dense()

    def row(self, unit: int) -> tuple[Units, FloatArray]:
        return self.conv.column(unit)

    def column(self, unit: int) -> tuple[Units, FloatArray]:
        return self.conv.row(unit)

    def rows_at(self, units: Units) -> FloatArray:
        return self.conv.columns_alone(units).rows_at(np.arange(len(units)))

    def select(self, rows: Units, columns: Units) -> LinearMap:
        return self._narrowed(rows, columns) or self.conv.columns_alone(rows).select_columns(columns)

    def select_rows(self, units: Units) -> LinearMap:
        return self._narrowed(units, np.arange(self.columns)) or self.conv.columns_alone(units)

    def select_columns(self, units: Units) -> LinearMap:
        return self._narrowed(np.arange(self.rows), units) or self.sparse().select_columns(units)

    def spread_columns(self, units: Units, columns: int) -> LinearMap:
        require_apart(units)
        same = columns == self.columns and np.array_equal(units, np.arange(columns))
        return self if same else self.sparse().spread_columns(units, columns)

    def without(self, rows: Mask, columns: Mask) -> LinearMap:
        return self._of(self.conv.cleared(columns, rows)) or super().without(rows, columns)

    def _narrowed(self, rows: Units, columns: Units) -> ConvTranspose | None:
        return self._of(self.conv.narrowed(columns, rows))

    def _of(self, conv: Conv | None) -> ConvTranspose | None:
        return self if conv is self.conv else None if conv is None else ConvTranspose(**conv.arrays())
