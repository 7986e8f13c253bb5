"""Cutting planes that make the triangle relaxation of a unit its hull over the box that it reads.

With h the values a unit reads, each in [l, u], a = w·h + b, and for each j  l̆_j the end of h_j at which w_j h_j
is least and ŭ_j the other: for every set I and j' ∉ I with  s = Σ_I w l̆ + Σ_{not I} w ŭ + b ≥ 0  that adding j'
to I would make negative,

    max(a, 0) ≤ Σ_{j in I} w_j (h_j − l̆_j) + s / (ŭ_j' − l̆_j') · (h_j' − l̆_j').

Of these exponentially many, the one that a point violates most is found by sorting. They are what a MILP solver's
own cuts are after. Source: Tjandraatmadja et al., NeurIPS 2020, Theorem 1 and Proposition 3; Anderson et al. 2020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.region import Region
from leo_core.milp.encode import Encoding, power_of_two
from leo_core.network import Affine, Network

Array = NDArray[np.float64]

#: A cut is worth a row when it cuts the point off by more than this share of the unit's range.
_WORTH = 1e-4


@final
@dataclass(frozen=True, eq=False)
class Cut:
    """max(a_unit, 0) ≤ slope·h + constant for one unit of ``node``, and as a row ≤ side over scaled columns.

    ``slope`` has one entry per column of the node's maps; ``row_scale`` is the power of two that is in the row.
    """

    node: str
    unit: int
    slope: Array
    row: Array
    side: float
    row_scale: float


def separate(network: Network, region: Region, encoding: Encoding, point: Array) -> list[Cut]:
    """The cuts that cut off a point of the encoding, the most violated one of each unit."""
    found = []
    for name, group in encoding.open_units.items():
        node = network.affine(name)
        matrix, offset = encoding.entering[name]
        columns = group.p_column + np.arange(len(group.units))
        p = point[columns] * encoding.column_scale[columns]
        slopes, constants = hull_lines(node, network, region, group.units, matrix @ point + offset)
        values = slopes @ (matrix @ point + offset) + constants
        worth = _WORTH * region.intervals[name][1][group.units]
        for k in np.flatnonzero(p - values > worth):
            row = -(slopes[k] @ matrix)
            row[columns[k]] += encoding.column_scale[columns[k]]
            scale = 1.0 / power_of_two(float(np.abs(row).max()))
            side = float(constants[k] + slopes[k] @ offset) * scale
            found.append(Cut(name, int(group.units[k]), slopes[k], row * scale, side, scale))
    return found


def hull_lines(
    node: Affine, network: Network, region: Region, units: NDArray[np.int64], h: Array
) -> tuple[Array, Array]:
    """(slopes, constants): for each unit the linear function above max(a, 0) that is least at ``h``.

    Infinite constants where there is none: the unit is settled on the box of h, or the box is not finite.
    """
    ends = [region.value(network, source) for source in node.sources]
    lower, upper = np.concatenate([low for low, _ in ends]), np.concatenate([high for _, high in ends])
    weight = node.rows_at(units)
    bias = node.bias[units].astype(np.float64)
    rows = np.arange(len(units))
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        width = upper - lower
        drop = np.abs(weight) * width  # by how much h_j at its lesser end lowers a
        most = bias + np.maximum(weight * lower, weight * upper).sum(axis=1)
        share = np.clip((h - lower) / width, 0.0, 1.0)
        share = np.where(weight >= 0, share, 1.0 - share)
        share = np.where(drop > 0, share, np.inf)
        order = np.argsort(share, axis=1, kind="stable")
        left = most[:, None] - np.cumsum(np.take_along_axis(drop, order, axis=1), axis=1)
        last = np.argmax(left < 0, axis=1)
        there = (left[rows, last] < 0) & (most > 0) & np.isfinite(drop).all(axis=1)
        inside = np.zeros(weight.shape, dtype=bool)
        np.put_along_axis(inside, order, np.arange(weight.shape[1]) < last[:, None], axis=1)
        slope = np.where(inside, weight, 0.0)
        pivot = order[rows, last]
        remaining = np.where(last > 0, left[rows, last - 1], most)
        signed = np.where(weight[rows, pivot] >= 0, width[pivot], -width[pivot])
        slope[rows, pivot] = np.where(there, remaining / signed, 0.0)
        least = np.where(weight >= 0, lower, upper)
        constant = np.where(there, -(slope * least).sum(axis=1), np.inf)
    return np.where(there[:, None], slope, 0.0), constant
