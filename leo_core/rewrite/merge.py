"""Linearly dependent active units merge (LEO; Serra et al. 2020, section 3).

If h_j = Σ c_ji h_i + d_j over a basis B of a layer's linear block, the outgoing weights become
M'_i = M_i + Σ_j M_j c_ji, with Σ_j M_j d_j in the bias, and unit j goes. A column-pivoted QR of the rows,
scaled by the inputs' ranges, proposes B and c; whatever it proposes is kept only for what it provably changes.
The basis keeps its own rows, so nothing before the outgoing weights is rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import Array
from leo_core.network import Network
from leo_core.rewrite.block import LARGEST_COEFFICIENT, Block, fewest, linear_block, realised
from leo_core.rewrite.facts import Facts
from leo_core.rewrite.layer import ReluLayer, Rows, layer_of
from leo_core.rewrite.step import Fits, Refusal, Rewrite

#: A pivot this small, relative to the first, is rounding.
_NEGLIGIBLE = 1e-13


def merge_dependent(network: Network, facts: Facts, name: str, fits: Fits) -> Rewrite | Refusal | None:
    """Merge the units of the ReLU ``name``'s linear block that depend on others, up to the rounding of float64."""
    layer = layer_of(network, name)
    if not isinstance(layer, ReluLayer):
        return layer
    block = linear_block(network, facts, layer.node, layer.relu)
    rank = Pivoted.of(block.weights * block.radius).rank
    if rank == len(block.units):
        return None
    merged = merged_to(network, facts, layer, block, rank)
    if merged is None or not fits(merged):
        return Refusal("dependent active units not merged", "the new weights would round too much")
    return merged


def merge_nearly_dependent(
    network: Network, facts: Facts, layer: ReluLayer, block: Block, fits: Fits
) -> Rewrite | None:
    """Merge as many units of the block as the tolerance allows, dependent or nearly so."""

    def attempt(rank: int) -> Rewrite | None:
        found = merged_to(network, facts, layer, block, rank, pivoted)
        return found if found is not None and fits(found) else None

    pivoted = Pivoted.of(block.weights * block.radius)
    return fewest(len(block.units), attempt, likely=pivoted.rank)


def merged_to(
    network: Network, facts: Facts, layer: ReluLayer, block: Block, rank: int, pivoted: Pivoted | None = None
) -> Rewrite | None:
    """The block's units expressed by ``rank`` of them; None where that needs large coefficients."""
    pivoted = Pivoted.of(block.weights * block.radius) if pivoted is None else pivoted
    coefficients = pivoted.coefficients(rank)
    if coefficients is None:
        return None
    basis, dependent = np.sort(pivoted.order[:rank]), pivoted.order[rank:]
    places = np.argsort(pivoted.order[:rank])
    outgoing = layer.outgoing[:, block.units]
    new = outgoing[:, basis] + outgoing[:, dependent] @ coefficients[:, places]
    old = block.form(outgoing, layer.constants)
    rows = Rows.none(block.weights.shape[1])
    try:
        changed, left, error = realised(network, facts, layer, block, old, basis, rows, new)
    except OverflowError:
        return None
    what = f"{len(dependent)} dependent active unit(s) merged into {rank}"
    return Rewrite(changed, left, what, layer.by_reader(error))


@final
@dataclass(frozen=True, eq=False)
class Pivoted:
    """A column-pivoted QR of rows: ``order`` by importance, and the triangular factor in that order."""

    order: NDArray[np.int64]
    triangle: Array

    @staticmethod
    def of(rows: Array) -> Pivoted:
        """Of a matrix (rows × columns); where it holds infinities, no row depends on another."""
        from scipy.linalg import qr

        count = len(rows)
        if rows.size == 0:
            return Pivoted(np.arange(count), np.zeros((0, count)))
        if not np.isfinite(rows).all():
            return Pivoted(np.arange(count), np.eye(count))
        _, triangle, order = qr(rows.T, mode="economic", pivoting=True, check_finite=False)
        return Pivoted(order.astype(np.int64), np.asarray(triangle, dtype=np.float64))

    @cached_property
    def rank(self) -> int:
        """Up to the rounding of float64."""
        diagonal = np.abs(np.diag(self.triangle))
        return int(np.count_nonzero(diagonal > _NEGLIGIBLE * diagonal.max(initial=0.0)))

    def coefficients(self, rank: int) -> Array | None:
        """c (dependent rows × basis) from the first ``rank`` pivots; None where it is large."""
        from scipy.linalg import solve_triangular

        columns = self.triangle.shape[1]
        if rank == 0:
            return np.zeros((columns, 0))
        if rank > self.rank:
            return None
        solved = solve_triangular(self.triangle[:rank, :rank], self.triangle[:rank, rank:], check_finite=False).T
        if not np.isfinite(solved).all() or np.abs(solved).max(initial=0.0) > LARGEST_COEFFICIENT:
            return None
        # Exact dependences are mostly small numbers: meet them exactly.
        simple = np.round(solved * 4096.0) / 4096.0
        return np.where(np.abs(solved - simple) <= 1e-11, simple, solved)
