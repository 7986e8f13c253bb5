"""The LP relaxation of an encoding with cuts, asked for many units and many parts of the region."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from leo_core.bounds.dual import Tilt
from leo_core.bounds.region import Region
from leo_core.milp.cuts import Cut, separate
from leo_core.milp.encode import encode
from leo_core.milp.linprog import LinprogSolver
from leo_core.milp.problem import MilpProblem
from leo_core.milp.result import Stop
from leo_core.milp.solver import Capability, Solver, SolverSession
from leo_core.network import Network

Array = NDArray[np.float64]


@final
@dataclass(frozen=True, eq=False)
class RelaxedAnswer:
    """A hint: nothing in it is proved.

    Attributes
    ----------
    infeasible:
        The solver found no point; ``multipliers`` and ``tilts`` then price the empty objective.
    multipliers, tilts:
        For :mod:`leo_core.bounds.dual`; None when the solver gave no duals.
    point:
        The optimal point, or None.
    """

    infeasible: bool
    multipliers: dict[str, Array] | None
    tilts: dict[str, Tilt] = field(default_factory=dict)
    point: Array | None = None


class Relaxation:
    """One LP, which cuts make tighter for all units. ``close`` frees it."""

    def __init__(self, network: Network, target: str, region: Region, solver: Solver, seed: int = 0) -> None:
        self._able = solver if Capability.ROW_DUALS in solver.capabilities else LinprogSolver()
        self._network, self._region, self._seed = network, region, seed
        self.encoding = encode(network, target, region)
        self._cuts: list[Cut] = []
        self._session: SolverSession | None = None

    def maximize(self, unit: int, sign: int, part: Region, time_limit: float | None) -> RelaxedAnswer:
        """The relaxed maximum of sign·a_unit on a part of the region."""
        if self._session is None:
            self._session = self._able.load(self._program(), seed=self._seed)
        objective, factor, _ = self.encoding.objective(unit, sign)
        lower, upper = self.encoding.bounds_in(part)
        answer = self._session.maximize(objective, time_limit=time_limit, lower=lower, upper=upper)
        infeasible = answer.stop is Stop.INFEASIBLE
        if answer.row_duals is None:
            return RelaxedAnswer(infeasible, None, point=answer.point)
        rows = self.encoding.problem.rows
        multipliers = self.encoding.multipliers(answer.row_duals[:rows], factor)
        return RelaxedAnswer(infeasible, multipliers, self._tilts(answer.row_duals[rows:], factor), answer.point)

    def cut_off(self, point: Array) -> bool:
        """Add the cuts that a point violates; whether there are any."""
        found = separate(self._network, self._region, self.encoding, point)
        if found:
            self.close()
            self._cuts += found
        return bool(found)

    def inputs_of(self, point: Array) -> Array:
        """The network input that a point stands for."""
        return self.encoding.inputs_of(point)

    def close(self) -> None:
        """Free the LP; it is loaded anew when asked again."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _program(self) -> MilpProblem:
        problem = self.encoding.problem.relaxed()
        if not self._cuts:
            return problem
        return replace(
            problem,
            matrix=sp.vstack([problem.matrix, sp.csr_array(np.array([cut.row for cut in self._cuts]))]),
            row_lower=np.concatenate([problem.row_lower, np.full(len(self._cuts), -np.inf)]),
            row_upper=np.concatenate([problem.row_upper, [cut.side for cut in self._cuts]]),
        )

    def _tilts(self, duals: Array, factor: float) -> dict[str, Tilt]:
        """The cuts' duals, added up by unit."""
        priced: dict[str, dict[int, tuple[float, Array]]] = {}
        for cut, dual in zip(self._cuts, duals.tolist(), strict=True):
            if dual > 0:
                share = dual * cut.row_scale / factor
                units = priced.setdefault(cut.node, {})
                before, slope = units.get(cut.unit, (0.0, 0.0 * cut.slope))
                units[cut.unit] = before + share, slope + share * cut.slope
        return {
            name: Tilt(
                np.array(sorted(units), dtype=np.int64),
                np.array([units[unit][0] for unit in sorted(units)]),
                np.array([units[unit][1] for unit in sorted(units)]),
            )
            for name, units in priced.items()
        }
