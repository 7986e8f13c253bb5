"""The disposer of DESIGN §5: proves or refutes 'this unit is never positive', by branch and bound on ReLU phases.

A node of the tree is a region cut out by phases. It is closed only by the safe dual bound
(:mod:`leo_core.bounds.dual`; Neumaier and Shcherbina, Math. Program. 99, 2004), whoever proposed the multipliers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.region import Region
from leo_core.checker.trees import Tree
from leo_core.execution.budget import Budget
from leo_core.milp.relaxation import Relaxation
from leo_core.milp.solver import Solver
from leo_core.network import Network
from leo_core.search.batch_tree import BatchTree
from leo_core.search.goal import Goal, crossing
from leo_core.search.lp_tree import LpTree

Array = NDArray[np.float64]

#: An LP is solved at every node when it has at most so many columns.
SMALL = 1000
#: The size of a tree that is not given up for its size.
NODES = 20_000


@final
@dataclass(frozen=True, eq=False)
class Outcome:
    """A claim proved (``tree``), refuted (``witness``, an input), or left open (neither)."""

    tree: Tree | None = None
    witness: Array | None = None
    nodes: int = 0


class Prover:
    """Proves claims about the units of one affine node over one region; ``close`` frees its LP."""

    def __init__(self, network: Network, target: str, region: Region, solver: Solver, seed: int = 0) -> None:
        self._network, self._target, self._region = network, target, region
        self._solver, self._seed = solver, seed
        self._relaxation: Relaxation | None = None

    def never_positive(self, unit: int, sign: int, budget: Budget, nodes: int = NODES) -> Outcome:
        """Decide whether sign·a_unit ≤ 0 on the whole region.

        Parameters
        ----------
        sign:
            +1 for 'never positive' (inactive), −1 for 'never negative' (active).
        nodes:
            A claim that looks as if it needed more stays open.
        """
        goal = Goal(self._network, self._target, self._region, unit, sign)
        open_units = sum(int(np.count_nonzero(crossing(self._region, name))) for name in goal.branching)
        small = self._network.input_size + 2 * open_units <= SMALL
        search = LpTree(goal, self._lp(), nodes) if small else BatchTree(goal, self._lp, nodes)
        growth = search.growth
        try:
            while search.open and goal.witness is None and not growth.stuck and not budget.expired:
                search.step(budget)
        finally:
            search.close()
        if goal.witness is not None:
            return Outcome(witness=goal.witness, nodes=growth.looked_at)
        done = not (search.open or growth.stuck)
        return Outcome(tree=growth.tree() if done else None, nodes=growth.looked_at)

    def close(self) -> None:
        """Free the LP."""
        if self._relaxation is not None:
            self._relaxation.close()
            self._relaxation = None

    def _lp(self) -> Relaxation:
        if self._relaxation is None:
            self._relaxation = Relaxation.of(self._network, self._target, self._region, self._solver, self._seed)
        return self._relaxation
