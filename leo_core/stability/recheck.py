"""Evidence checked again: whether a tree of phases proves its claim. What it says is used, and nothing believed.

The way down is the one that :mod:`leo_core.stability.evidence` describes.
"""

from __future__ import annotations

import numpy as np

from leo_core.bounds.descend import descend, parts_at_once
from leo_core.bounds.dual import bound_above, bound_above_exact, given
from leo_core.bounds.region import Region
from leo_core.bounds.upto import upto
from leo_core.execution.budget import Budget
from leo_core.network import Network
from leo_core.stability.evidence import Leaf, Split, Tree
from leo_core.stability.verdict import Claim

#: Parts bounded at once, at most.
BATCH = 32


def proves(tree: Tree, network: Network, target: str, claim: Claim, region: Region, budget: Budget) -> bool:
    """Whether a tree of splits on phases proves sign·a_unit ≤ 0 for a unit of an affine node on a region.

    The region has intervals for the nodes up to that one. Not proved in time is not proved. A tree that does not fit
    the network makes numpy raise; whoever read it from a file expects that.
    """
    way = upto(network, target)
    whole = Region(region.lower, region.upper, {name: region.intervals[name] for name in way.positions})
    at_once, first = parts_at_once(network, target, BATCH), np.zeros(1, dtype=np.int64)
    pending: list[tuple[Tree, Region, int]] = [(tree, whole, len(way.steps))]  # of the whole nothing has changed
    while pending:
        if budget.expired:
            return False
        batch, pending = pending[-at_once:], pending[:-at_once]
        stack = Region.joined([part.take(first) for _, part, _ in batch])
        stack, _ = descend(network, target, stack, np.array([since for _, _, since in batch]))
        for row, (at, _, _) in enumerate(batch):
            part = stack.one(row)
            if isinstance(at, Split):
                for half, active in ((at.on, True), (at.off, False)):
                    pending.append((half, part.split(at.node, at.unit, active=active), way.positions[at.node]))
            elif not (isinstance(at, Leaf) and (part.empty or _closes(at, network, target, claim, part))):
                return False
    return True


def _closes(leaf: Leaf, network: Network, target: str, claim: Claim, region: Region) -> bool:
    unit, sign = claim
    objective = np.zeros((1, network.size(target)))
    if not leaf.infeasible:
        objective[0, unit] = sign
    bound = bound_above(network, target, objective, region, given(leaf.multipliers), tilts=leaf.tilts)
    upper, rounding = float(bound.upper[0]), float(bound.rounding[0])
    if leaf.infeasible:
        return upper < 0
    if upper <= 0:
        return True
    near = upper <= 2 * rounding  # all that is missing may be rounding
    return near and bound_above_exact(network, target, objective[0], region, leaf.multipliers, leaf.tilts) <= 0
