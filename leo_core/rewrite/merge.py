"""Linearly dependent active units merge (LEO; Serra et al. 2020, section 3).

If h_j = Σ c_ji h_i + d_j over a basis B of a layer's linear block, the outgoing weights become
M'_i = M_i + Σ_j M_j c_ji, with Σ_j M_j d_j in the bias, and unit j goes. A column-pivoted QR of the rows,
scaled by the inputs' ranges, proposes B and c; whatever it proposes is kept only for what it provably changes.
The basis keeps its own rows, so nothing before the outgoing weights is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import Array
from leo_core.rewrite.block import LARGEST_COEFFICIENT, Block, block_of, old_form, realised
from leo_core.rewrite.form import Form
from leo_core.rewrite.layer import ReluLayer, Rows, layer_of
from leo_core.rewrite.step import Ladder, Refusal, Rewrite
from leo_core.rewrite.view import View

#: A pivot this small, relative to the first, is rounding.
_NEGLIGIBLE = 1e-13
#: So often may a row enter the basis for another; pivoting alone is nearly always enough.
_SWAPS = 32


def merge_dependent(view: View, name: str) -> Ladder | Refusal | None:
    """Merge the units of the ReLU ``name``'s linear block that depend on others, up to the rounding of float64."""
    layer = layer_of(view, name)
    if not isinstance(layer, ReluLayer):
        return layer
    merging = Merging.of(layer)
    rank = merging.pivoted.rank
    if rank == len(merging.block.units):
        return None
    refusal = Refusal("dependent active units not merged", "the new weights would round too much")
    return Ladder(1, lambda _: merging.to(rank), otherwise=refusal)


@final
@dataclass(frozen=True, eq=False)
class Merging:
    """A block of a layer, and which of its rows nearly depend on which."""

    layer: ReluLayer
    block: Block
    old: Form
    pivoted: Pivoted

    @staticmethod
    def of(layer: ReluLayer) -> Merging:
        """Of the layer's linear block; worked out once for a view."""
        block = block_of(layer)
        return layer.view.once(
            ("merging", layer.relu.name),
            lambda: Merging(layer, block, old_form(layer, block), Pivoted.of(block.weights * block.radius)),
        )

    def to(self, rank: int) -> Rewrite | None:
        """The block's units expressed by ``rank`` of them; None where that needs large coefficients or overflows."""
        found = self.pivoted.expressed(rank)
        if found is None:
            return None
        basis, dependent, coefficients = found
        places = np.argsort(basis)  # the units stay in their order
        basis, coefficients = basis[places], coefficients[:, places]
        outgoing = self.layer.outgoing[:, self.block.units]
        new = outgoing[:, basis] + outgoing[:, dependent] @ coefficients
        try:
            view, change = realised(self.layer, self.block, self.old, basis, Rows.none(self.layer.columns), new)
        except OverflowError:
            return None
        what = f"{len(dependent)} dependent active unit(s) merged into {rank}"
        return Rewrite(view, what, self.layer.by_reader(change))


@final
@dataclass(frozen=True, eq=False)
class Pivoted:
    """A column-pivoted QR of rows: ``order`` by importance, and the triangular factor in that order."""

    rows: Array
    order: NDArray[np.int64]
    triangle: Array

    @staticmethod
    def of(rows: Array) -> Pivoted:
        """Of a matrix (rows × columns); where it holds infinities, no row depends on another."""
        count = len(rows)
        if rows.size == 0:
            return Pivoted(rows, np.arange(count), np.zeros((0, count)))
        if not np.isfinite(rows).all():
            return Pivoted(np.eye(count), np.arange(count), np.eye(count))
        return Pivoted(rows, *_pivoted_qr(rows.tobytes(), rows.shape))

    @cached_property
    def rank(self) -> int:
        """Up to the rounding of float64."""
        diagonal = np.abs(np.diag(self.triangle))
        large = diagonal > _NEGLIGIBLE * diagonal.max(initial=0.0)
        return int(np.logical_and.accumulate(large).sum())  # denormal pivots need not fall

    def expressed(self, rank: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Array] | None:
        """(basis, dependent, c): rows[dependent] ≈ c · rows[basis], with ``rank`` rows in the basis and small c.

        Where pivoting alone leaves a large coefficient, its row changes places with the one it multiplies, which
        makes the basis span more (Gu and Eisenstat 1996). None where that does not end.
        """
        from scipy.linalg import LinAlgError, qr, solve_triangular

        if rank == 0:
            return self.order[:0], self.order, np.zeros((len(self.order), 0))
        if rank > self.rank:
            return None
        order, triangle = self.order, self.triangle
        for _ in range(_SWAPS):
            try:
                solved = solve_triangular(triangle[:rank, :rank], triangle[:rank, rank:], check_finite=False).T
            except LinAlgError:
                return None
            if not np.isfinite(solved).all():
                return None
            if np.abs(solved).max(initial=0.0) <= LARGEST_COEFFICIENT:
                # Exact dependences have coefficients with few digits: meet them exactly.
                short = np.round(solved * 2.0**24) * 2.0**-24
                return order[:rank], order[rank:], np.where(np.abs(solved - short) <= 1e-11, short, solved)
            worst, into = np.unravel_index(int(np.argmax(np.abs(solved))), solved.shape)
            order = order.copy()
            order[[into, rank + worst]] = order[[rank + worst, into]]
            (changed,) = qr(self.rows[order].T, mode="r", check_finite=False)
            triangle = np.asarray(changed[: len(triangle)], dtype=np.float64)
        return None


@lru_cache(maxsize=8)
def _pivoted_qr(rows: bytes, shape: tuple[int, int]) -> tuple[NDArray[np.int64], Array]:
    """(order, triangle) of rows; kept, since most rewrites leave the rows of other layers as they were."""
    from scipy.linalg import qr

    matrix = np.frombuffer(rows, dtype=np.float64).reshape(shape)
    triangle, order = qr(matrix.T, mode="r", pivoting=True, check_finite=False)
    return order.astype(np.int64), np.ascontiguousarray(triangle[: min(shape)], dtype=np.float64)
