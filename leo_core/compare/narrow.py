"""Branch and bound on the difference of two networks: a proof that it is nowhere above t, or a point where it is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.interval import bound_affine
from leo_core.bounds.region import Region
from leo_core.compare.joint import DIFFERENCE, EXCESS, Seen, Side, exceeding, favoured_corners, sides
from leo_core.domain import Box
from leo_core.execution.budget import Budget
from leo_core.execution.pool import Pool
from leo_core.milp.checked import CheckedSolver
from leo_core.network import Network
from leo_core.search.boxes import split_box
from leo_core.search.settle import Attempt, Settler
from leo_core.stability.cascade import FEW_INPUTS

Array = NDArray[np.float64]

#: Both sides are near enough at this ratio.
_NEAR = 1.01
#: Thresholds tried, at most; and the nodes that the prover gets for one output.
_TRIES, _NODES = 40, 20_000


def narrowed(
    joint: Network, region: Region, solver: CheckedSolver, budget: Budget, seen: Seen, upper: float, seed: int
) -> Iterator[float]:
    """Ever lower upper bounds on |output| of a joint network, as near to what is ``seen`` as time allows.

    ``seen`` learns of every point found. Thresholds that resist proof and witness are passed over upwards.
    """
    seen.look_at(favoured_corners(joint, region))
    low, high = region.intervals[DIFFERENCE]
    rows = sides(joint)
    bounds = {row: min(upper, float(high[row[0]] if row[1] > 0 else -low[row[0]])) for row in rows}
    stuck = 0.0  # no threshold below this can be settled
    yield max(0.0, *bounds.values())
    for _ in range(_TRIES):
        top, bottom = max(bounds.values()), max(seen.largest, stuck)
        if budget.expired or top <= _NEAR * bottom or top <= 0 or not np.isfinite(top):
            break  # an infinite bound has no middle
        threshold = 0.5 * top + 0.5 * bottom if bottom > 0 else 0.25 * top
        asked = [row for row in rows if bounds[row] > threshold]
        before = seen.largest
        for row in _settled(joint, region, asked, threshold, solver, budget, seen, seed):
            bounds[row] = threshold
        if seen.largest <= max(before, threshold) and any(bounds[row] > threshold for row in asked):
            stuck = threshold
        yield max(0.0, *bounds.values())


def _settled(
    joint: Network,
    region: Region,
    rows: list[Side],
    threshold: float,
    solver: CheckedSolver,
    budget: Budget,
    seen: Seen,
    seed: int,
) -> list[Side]:
    """The (output, sign) whose sign·output is proved never to be above the threshold; stops at a point where one is."""
    network = exceeding(joint, rows, threshold)
    known = region.tightened(EXCESS, *bound_affine(network, network.affine(EXCESS), region))
    box = Box(region.lower, region.upper)
    proved: list[int] = []
    left = list(range(len(rows)))
    if int(np.count_nonzero(box.lower < box.upper)) <= FEW_INPUTS:
        share = budget.at_most(0.5 * budget.remaining) if np.isfinite(budget.remaining) else budget
        for cut in split_box(network, EXCESS, [(unit, 1) for unit in left], known, box, share, Pool(1)):
            proved += [unit for unit, _ in cut.proved]
            for point in cut.refuted.values():
                seen.look_at(point)
            if cut.refuted:
                return [rows[unit] for unit in proved]
        left = [unit for unit in left if unit not in proved]
    settler = Settler(network, EXCESS, known, solver.solver, "proved", seed)
    try:
        for unit in left:
            if budget.expired:
                break
            found = settler(Attempt(unit, 1, _NODES, True, budget.remaining), budget)
            if found.tree is not None:
                proved.append(unit)
            elif found.witness is not None:
                seen.look_at(found.witness)
                break
    finally:
        settler.close()
    return [rows[unit] for unit in proved]
