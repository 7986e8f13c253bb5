"""How far two networks can be apart on a box: a proved upper bound, and an input that shows a lower one.

The lower side is what exact evaluation gives at the best point found. The upper side is the least of three: the trace
of what differs between units that both have (:mod:`.pairing`), bounds that run backward through both networks side by
side, what is proved to be the same taken once (:mod:`.joint`), and branch and bound on their difference
(:mod:`.narrow`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.compare.joint import DIFFERENCE, Seen, joint_region, side_by_side
from leo_core.compare.narrow import narrowed
from leo_core.compare.pairing import DUST, paired
from leo_core.domain import Box
from leo_core.environment import ieee
from leo_core.errors import NetworkError
from leo_core.execution.budget import Budget
from leo_core.execution.events import Listener, Note, silent
from leo_core.milp.checked import CheckedSolver
from leo_core.network import Network

__all__ = ["Comparison", "compare", "side_by_side"]

Array = NDArray[np.float64]

#: Where pairing units brings the bound below this share of the joint one, splitting the joint network is hopeless; it
#: is tried all the same where no more than this share of the bound was seen.
_PAIRED = 0.01


@final
@dataclass(frozen=True, eq=False)
class Comparison:
    """max |A − B| over the box and all outputs lies in [lower, upper], both proved.

    ``witness`` is the input at which ``lower`` was evaluated exactly.
    """

    lower: float
    upper: float
    witness: Array

    @property
    def verdict(self) -> str:
        """In words, for people."""
        if self.upper == 0:
            return "equal over the reals"
        within = f"within {self.upper:.3g}" if np.isfinite(self.upper) else "no bound was found"
        if self.lower == 0:
            return f"{within}; no difference was found"
        apart = f"they differ by at least {self.lower:.3g}"
        if self.upper <= 1.02 * self.lower:
            return f"{within}; {apart}"
        return f"{within}; {apart}; what is between the two is open"


@ieee()
def compare(
    first: Network,
    second: Network,
    box: Box,
    solver: CheckedSolver,
    *,
    budget: Budget | None = None,
    seed: int = 0,
    listener: Listener = silent,
) -> Comparison:
    """Bound max |first − second| on a box.

    ``solver`` solves the LPs of proofs. When the budget ends, what is proved by then stands.

    Raises :class:`NetworkError` when inputs or outputs do not match.
    """
    budget = budget or Budget()
    for what in ("input_size", "output_size"):
        sizes = getattr(first, what), getattr(second, what)
        if sizes[0] != sizes[1]:
            raise NetworkError(f"the networks cannot be compared: {what.replace('_', ' ')} {sizes[0]} and {sizes[1]}")
    if first == second:
        return Comparison(0.0, 0.0, box.center)
    seen = Seen(first, second, box, listener)
    with np.errstate(all="ignore"):  # an overflow makes a bound infinite
        seen.look_around(seed, budget)
        listener(Note("pairing units that both networks have", passing=True))
        pair = paired(first, second, box, solver, budget, seed, seen=seen.largest)
        upper = pair.bound
        if upper > seen.largest:
            listener(Note("bounding both networks side by side", passing=True))
            joint = side_by_side(pair.old, pair.new, pair.shared)
            region = joint_region(joint, box, budget)
            low, high = region.intervals[DIFFERENCE]
            beside = float(np.maximum(np.abs(low), np.abs(high)).max(initial=0.0))
            upper = min(upper, beside)
            reach = float(region.reach(joint, joint.affine(DIFFERENCE).sources[0]).max(initial=0.0))
            unseen = seen.largest < _PAIRED * upper and upper > DUST * max(1.0, reach)
            if unseen or upper >= _PAIRED * beside:
                upper = narrowed(joint, region, solver, budget, seen, upper, seed)
    return Comparison(seen.largest, upper, seen.witness)
