"""The function up to one affine node, over a region, as a MILP: LEO's encoding (Serra et al. 2020, section 3).

Columns: the inputs x; for every unit of unknown sign p = max(a, 0) and a binary z, one when the unit
is on. Settled units are substituted (p = a, or p = 0), so the columns are the inputs and what is
really open. With a = E·(columns) + e and proved or claimed L < 0 < U, the rows of a unit are

    p − a ≥ 0,      p − a − L z ≤ −L,      p − U z ≤ 0,      p ≥ 0,   0 ≤ z ≤ 1.

Dropping 'z whole' gives exactly the triangle relaxation. Inputs, p and rows are scaled by powers of two
so that bounds are near one; nothing is rounded by that, and it removes most of a solver's false
claims (DESIGN §5). The rows themselves are float64 sums: a MILP only proposes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from leo_core.bounds.region import Region
from leo_core.bounds.upto import upto
from leo_core.errors import EncodingError
from leo_core.milp.problem import MilpProblem
from leo_core.network import INPUT, Affine, Network

Array = NDArray[np.float64]


#: Entries of the largest matrix that is written, rows times columns (400 MB).
_ENTRIES = 50_000_000


@final
@dataclass(frozen=True, eq=False)
class OpenUnits:
    """The units of one affine node whose sign is open: where their columns and rows begin."""

    units: NDArray[np.int64]
    p_column: int
    z_column: int
    first_row: int


@final
@dataclass(frozen=True, eq=False)
class Encoding:
    """A MILP whose columns are scaled: real value = ``column_scale`` · column.

    ``target_rows`` (units × columns, in scaled columns) and ``target_offset`` give the target's units;
    ``entering`` likewise, for each node with open units, the values that its maps read, one after the other.
    """

    problem: MilpProblem
    inputs: int
    column_scale: Array
    row_scale: Array
    open_units: Mapping[str, OpenUnits]
    target_rows: Array
    target_offset: Array
    sizes: Mapping[str, int]
    entering: Mapping[str, tuple[Array, Array]]

    def objective(self, unit: int, sign: int) -> tuple[Array, float, float]:
        """(objective, factor, offset): sign·a_unit = objective·columns / factor + offset."""
        row = sign * self.target_rows[unit]
        factor = 1.0 / power_of_two(float(np.abs(row).max(initial=0.0)))
        return row * factor, factor, sign * float(self.target_offset[unit])

    def inputs_of(self, point: Array) -> Array:
        """The network input a point of the MILP stands for."""
        return point[: self.inputs] * self.column_scale[: self.inputs]

    def multipliers(self, row_duals: Array, factor: float) -> dict[str, Array]:
        """The y of :mod:`leo_core.bounds.dual` that row duals of an objective scaled by ``factor`` give."""
        real = row_duals * self.row_scale / factor
        result = {}
        for name, group in self.open_units.items():
            y = np.full(self.sizes[name], np.nan)
            count = len(group.units)
            y[group.units] = real[group.first_row :][:count] + real[group.first_row + count :][:count]
            result[name] = y
        return result

    def bounds_in(self, region: Region) -> tuple[Array, Array]:
        """Column bounds for a part of the region: p within the unit's interval there, z fixed where it is settled."""
        lower, upper = self.problem.lower.copy(), self.problem.upper.copy()
        for name, group in self.open_units.items():
            count = len(group.units)
            p, z = (slice(first, first + count) for first in (group.p_column, group.z_column))
            low, high = (side[group.units] for side in region.intervals[name])
            scale = self.column_scale[p]
            lower[p] = np.maximum(lower[p], low / scale)
            upper[p] = np.minimum(upper[p], np.maximum(high, 0.0) / scale)
            lower[z][low >= 0] = 1.0
            upper[z][(high <= 0) & (low < 0)] = 0.0
        return lower, upper


def encode(network: Network, target: str, region: Region) -> Encoding:
    """The MILP of everything up to ``target``; the region needs an interval for every node before it.

    Raises :class:`EncodingError` when it would be too large, or its numbers overflow.
    """
    plan = upto(network, target).steps
    binaries = sum(len(_open(node, region)) for node, relus in plan if relus)
    total = network.input_size + 2 * binaries
    if 3 * binaries * total > _ENTRIES:
        raise EncodingError(
            f"the MILP up to '{target}' would have {3 * binaries:,} rows and {total:,} columns, too many to try; "
            "what bounds and witnesses leave open there stays undecided"
        )
    columns = _Columns(total, region.lower, region.upper)
    values: dict[str, tuple[Array, Array]] = {INPUT: (np.eye(network.input_size, total), np.zeros(network.input_size))}
    blocks: list[Array] = []
    row_lower: list[Array] = []
    row_upper: list[Array] = []
    groups: dict[str, OpenUnits] = {}
    entering: dict[str, tuple[Array, Array]] = {}
    rows = 0
    for node, relus in plan:
        matrix, offset = _affine(node, values, total)
        values[node.name] = (matrix, offset)
        if not relus:
            continue
        low, high = region.intervals[node.name]
        units = _open(node, region)
        count = len(units)
        p_column, z_column = columns.add(np.zeros(count), high[units]), columns.add_binary(count)
        p = np.zeros((node.size, total))
        p_offset = np.zeros(node.size)
        on = low >= 0
        p[on], p_offset[on] = matrix[on], offset[on]
        p[units, p_column + np.arange(count)] = 1.0
        if count:
            groups[node.name] = OpenUnits(units, p_column, z_column, rows)
            read = [values[source] for source in node.sources]
            entering[node.name] = np.vstack([m for m, _ in read]), np.concatenate([o for _, o in read])
            unit_p, unit_a, unit_e = p[units], matrix[units], offset[units]
            z = np.zeros((count, total))
            z[np.arange(count), z_column + np.arange(count)] = 1.0
            lift, cap = -low[units], high[units]
            blocks += [unit_p - unit_a, unit_p - unit_a + lift[:, None] * z, unit_p - cap[:, None] * z]
            row_lower += [unit_e, np.full(2 * count, -np.inf)]
            row_upper += [np.full(count, np.inf), unit_e + lift, np.zeros(count)]
            rows += 3 * count
        for relu in relus:
            slope = relu.slope
            values[relu.name] = (
                slope[:, None] * matrix + (1.0 - slope)[:, None] * p,
                slope * offset + (1.0 - slope) * p_offset,
            )
    sizes = {node.name: node.size for node, _ in plan}
    stacked = np.vstack(blocks) if blocks else np.zeros((0, total))
    ends = (np.concatenate([*row_lower, np.zeros(0)]), np.concatenate([*row_upper, np.zeros(0)]))
    matrix, offset = values[target]
    problem, column_scale, row_scale = _equilibrated(stacked, ends, columns, (matrix, offset))
    return Encoding(
        problem,
        network.input_size,
        column_scale,
        row_scale,
        groups,
        matrix * column_scale,
        offset,
        sizes,
        {name: (matrix * column_scale, offset) for name, (matrix, offset) in entering.items()},
    )


def power_of_two(value: float) -> float:
    """The power of two nearest below a positive value; 1 for zero and for what is not finite."""
    if not (np.isfinite(value) and value > 0):
        return 1.0
    return float(2.0 ** np.clip(np.floor(np.log2(value)), -500, 500))


class _Columns:
    """Columns in the order they are added."""

    def __init__(self, total: int, lower: Array, upper: Array) -> None:
        self.lower, self.upper = np.zeros(total), np.zeros(total)
        self.integer = np.zeros(total, dtype=bool)
        self.used = 0
        self.add(lower, upper)

    def add(self, lower: Array, upper: Array) -> int:
        start, self.used = self.used, self.used + len(lower)
        self.lower[start : self.used], self.upper[start : self.used] = lower, upper
        return start

    def add_binary(self, count: int) -> int:
        start = self.add(np.zeros(count), np.ones(count))
        self.integer[start : self.used] = True
        return start


def _open(node: Affine, region: Region) -> NDArray[np.int64]:
    low, high = region.intervals[node.name]
    return np.flatnonzero((low < 0) & (high > 0))


def _affine(node: Affine, values: Mapping[str, tuple[Array, Array]], total: int) -> tuple[Array, Array]:
    matrix, offset = np.zeros((node.size, total)), node.bias.astype(np.float64)
    for source, linear in node.reads:
        inner, inner_offset = values[source]
        matrix = matrix + linear.apply(np.ascontiguousarray(inner.T)).T
        offset = offset + linear.apply(inner_offset)
    return matrix, offset


def _equilibrated(
    rows: Array, ends: tuple[Array, Array], columns: _Columns, targets: tuple[Array, Array]
) -> tuple[MilpProblem, Array, Array]:
    """(the problem with columns and rows scaled, the scale of each column, and of each row)."""
    reach = np.maximum(np.abs(columns.lower), np.abs(columns.upper))
    column_scale = np.array([power_of_two(value) for value in reach])
    column_scale[columns.integer] = 1.0
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = rows * column_scale
        numbers = (scaled, targets[0] * column_scale, targets[1], np.nan_to_num(ends[0], posinf=0.0, neginf=0.0))
    if not all(np.isfinite(array).all() for array in (*numbers, reach)):
        raise EncodingError("numbers of the MILP overflow; what bounds and witnesses leave open stays undecided")
    row_scale = np.array([1.0 / power_of_two(value) for value in np.abs(scaled).max(axis=1, initial=0.0)])
    problem = MilpProblem(
        matrix=sp.csr_array(scaled * row_scale[:, None]),
        row_lower=ends[0] * row_scale,
        row_upper=ends[1] * row_scale,
        lower=columns.lower / column_scale,
        upper=columns.upper / column_scale,
        integer=columns.integer,
    )
    return problem, column_scale, row_scale
