"""Settling one claim by itself: what is left to do when bounds, witnesses and boxes have had their turn.

Runs in a worker as well as here, so all that goes in and out can be pickled.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.region import Region
from leo_core.checker.trees import Tree
from leo_core.errors import EncodingError
from leo_core.execution.budget import Budget
from leo_core.milp.checked import CheckedSolver
from leo_core.milp.solver import Solver
from leo_core.network import Network
from leo_core.search.oracle import Oracle
from leo_core.search.prover import Prover


@final
@dataclass(frozen=True)
class Attempt:
    """At 'sign·a_unit is never positive': the prover's ``nodes``, whether to ``ask`` the MILP first, ``seconds``."""

    unit: int
    sign: int
    nodes: int
    ask: bool
    seconds: float


@final
@dataclass(frozen=True, eq=False)
class Finding:
    """A proof, or a witness, or a solver's claim alone, or nothing; ``notes`` are for the user.

    ``ended`` says that the attempt came to its own end, neither cut off by time nor by a failure.
    """

    tree: Tree | None = None
    witness: NDArray[np.float64] | None = None
    claimed: bool = False
    seconds: float = 0.0
    ended: bool = False
    notes: tuple[str, ...] = ()


class Settler:
    """Makes attempts at the claims of one affine node over one region."""

    def __init__(self, network: Network, target: str, region: Region, solver: Solver, trust: str, seed: int) -> None:
        self._notes: list[str] = []
        self._solver = checked = CheckedSolver(solver, self._notes.append)
        self._trust = trust
        self._prover = Prover(network, target, region, checked, seed)
        self._oracle = Oracle(network, target, region, checked, seed)

    def __call__(self, attempt: Attempt, budget: Budget) -> Finding:
        begun, failures = time.monotonic(), self._solver.failures
        budget = budget.at_most(attempt.seconds)
        try:
            tree, witness, claimed = self._settle(attempt, budget)
            ended = not budget.expired and self._solver.failures == failures
        except EncodingError as error:
            self._notes.append(str(error))
            tree, witness, claimed, ended = None, None, False, False
        notes = tuple(self._notes)
        self._notes.clear()
        return Finding(tree, witness, claimed, time.monotonic() - begun, ended, notes)

    def close(self) -> None:
        """Free the solver's sessions."""
        self._prover.close()
        self._oracle.close()

    def _settle(self, attempt: Attempt, budget: Budget) -> tuple[Tree | None, NDArray[np.float64] | None, bool]:
        if attempt.ask:
            hint = self._oracle.ask(attempt.unit, attempt.sign, budget)
            if hint.witness is not None or self._trust == "solver":
                return None, hint.witness, hint.claimed and hint.witness is None
        outcome = self._prover.never_positive(attempt.unit, attempt.sign, budget, attempt.nodes)
        return outcome.tree, outcome.witness, False
