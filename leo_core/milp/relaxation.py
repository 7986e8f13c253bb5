"""The LP relaxation of an encoding, perhaps with cuts, asked for many units and many parts of the region."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from leo_core.bounds.region import Region
from leo_core.checker.trees import Tilt
from leo_core.milp.cuts import Cut, separate
from leo_core.milp.encode import Encoding, encode
from leo_core.milp.linprog import LinprogSolver
from leo_core.milp.problem import MilpProblem
from leo_core.milp.question import Question
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
    binding:
        The cuts that have a price.
    """

    infeasible: bool
    multipliers: dict[str, Array] | None
    tilts: dict[str, Tilt] = field(default_factory=dict)
    point: Array | None = None
    binding: tuple[Cut, ...] = ()


class Relaxation:
    """One LP, loaded when first asked; ``close`` frees it."""

    def __init__(
        self, network: Network, region: Region, encoding: Encoding, solver: Solver, seed: int, cuts: tuple[Cut, ...]
    ) -> None:
        self._network, self._region, self.encoding = network, region, encoding
        self._solver, self._seed, self._cuts = solver, seed, cuts
        self._session: SolverSession | None = None

    @staticmethod
    def of(network: Network, target: str, region: Region, solver: Solver, seed: int = 0) -> Relaxation:
        """The triangle relaxation of everything up to ``target``; scipy's LP where the solver gives no duals."""
        able = solver if Capability.ROW_DUALS in solver.capabilities else LinprogSolver()
        return Relaxation(network, region, encode(network, target, region), able, seed, ())

    def maximize(self, unit: int, sign: int, part: Region, time_limit: float | None) -> RelaxedAnswer:
        """The relaxed maximum of sign·a_unit on a part of the region."""
        if self._session is None:
            self._session = self._solver.load(self._program(), seed=self._seed)
        objective, factor, _ = self.encoding.objective(unit, sign)
        lower, upper = self.encoding.bounds_in(part)
        answer = self._session.maximize(Question(objective, time_limit=time_limit, lower=lower, upper=upper))
        infeasible = answer.stop is Stop.INFEASIBLE
        if answer.row_duals is None:
            return RelaxedAnswer(infeasible, None, point=answer.point)
        rows = self.encoding.problem.rows
        multipliers = self.encoding.multipliers(answer.row_duals[:rows], factor)
        priced = [(cut, dual) for cut, dual in zip(self._cuts, answer.row_duals[rows:], strict=True) if dual > 0]
        binding = tuple(cut for cut, _ in priced)
        shares = [float(dual) * cut.row_scale / factor for cut, dual in priced]
        return RelaxedAnswer(infeasible, multipliers, _tilts(binding, shares), answer.point, binding)

    def tighter(self, answer: RelaxedAnswer, part: Region) -> Relaxation | None:
        """An LP for ``part`` with the answer's binding cuts and those that cut off its point; None without any."""
        if answer.point is None:
            return None
        found = separate(self._network, part, self.encoding, answer.point)
        if not found:
            return None
        cuts = (*answer.binding, *found)
        return Relaxation(self._network, part, self.encoding, self._solver, self._seed, cuts)

    def inputs_of(self, point: Array) -> Array:
        """The network input that a point stands for."""
        return self.encoding.inputs_of(point)

    def gaps(self, name: str, units: NDArray[np.int64], point: Array) -> Array:
        """p − max(a, 0) at a point, for open units of a node."""
        if len(units) == 0:  # a node without open units has no columns
            return np.zeros(0)
        group = self.encoding.open_units[name]
        columns = group.p_column + np.searchsorted(group.units, units)
        node = self._network.affine(name)
        matrix, offset = self.encoding.entering[name]
        weight = node.rows_at(units)
        a = weight @ (matrix @ point + offset) + node.bias[units]
        return np.asarray(point[columns] * self.encoding.column_scale[columns] - np.maximum(a, 0.0))

    def close(self) -> None:
        """Free the LP."""
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


def _tilts(cuts: tuple[Cut, ...], shares: list[float]) -> dict[str, Tilt]:
    """The cuts' prices, added up by unit."""
    priced: dict[str, dict[int, tuple[float, Array]]] = {}
    for cut, share in zip(cuts, shares, strict=True):
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
