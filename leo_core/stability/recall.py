"""What earlier runs found of one affine node's units, in a checkpoint, and what of it still counts.

Nothing is believed. A witness is evaluated again, exactly; a tree of cuts by sign is proved again, one safe dual bound
per leaf (:func:`leo_core.search.evidence.proves`), which is quick beside finding it. Halvings of the box would take
as long to check as to find: their tree is kept without claims, and the search goes on from it
(:mod:`leo_core.search.boxes`). What was tried in vain is not tried again while the bounds are the same; were that
not true, a unit would stay undecided. A solver's word counts where it always counts: as a hint, or under
``trust="solver"``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.region import Region
from leo_core.checker.trees import Tree, describe, tree_of
from leo_core.execution.budget import Budget
from leo_core.search.evidence import WHOLE, Claim, parts, proves
from leo_core.search.oracle import Hint, Oracle
from leo_core.search.prover import Outcome, Prover
from leo_core.search.witness import sign_at
from leo_core.stability.work import Work

Array = NDArray[np.float64]
Arrays = dict[str, NDArray[Any]]
Value = TypeVar("Value")


@final
class Recall:
    """Reads and writes ``work.checkpoint``; what does not hold is passed over, and ``note`` is told."""

    def __init__(self, work: Work, target: str, note: Callable[[str], None]) -> None:
        self._work, self._target, self._note = work, target, note
        self._network, self._checkpoint = work.network, work.checkpoint

    def witness(self, claim: Claim) -> Array | None:
        """An input that refutes a claim."""
        return self._known(lambda _, arrays: self._refuting(claim, arrays["point"]), "witness", *claim)

    def proof(self, claim: Claim, region: Region) -> Tree | None:
        """A tree of cuts by sign that proves a claim, and claims nothing else, on a region."""

        def proof(value: Any, arrays: Arrays) -> Tree | None:
            tree = tree_of(value, arrays)
            return tree if proves(tree, self._network, self._target, claim, region, self._work.budget) else None

        return self._known(proof, "tree", *claim)

    def keep(self, claim: Claim, tree: Tree | None, witness: Array | None) -> None:
        """Keep what was found of a claim by itself."""
        if witness is not None:
            self._put("witness", *claim, arrays={"point": witness})
        elif tree is not None:
            self._put_tree(tree, "tree", *claim)

    def tried(self, region: Region, *step: Any) -> bool:
        """Whether a step was tried in vain on this very region."""
        return bool(self._known(lambda value, _: value == _digest(region), "in vain", *step))

    def keep_tried(self, region: Region, *step: Any) -> None:
        """Keep that a step came to its own end, neither cut off by time nor by a failure, and found nothing."""
        self._put("in vain", *step, value=_digest(region))

    def halvings(self) -> Tree:
        """How the box was halved so far."""

        def halvings(value: Any, arrays: Arrays) -> Tree:
            tree = tree_of(value, arrays)
            parts(tree, self._work.box.lower, self._work.box.upper)  # raises where they leave a part of it out
            return tree

        return self._known(halvings, "halvings") or WHOLE

    def keep_halvings(self, tree: Tree) -> None:
        self._put_tree(tree, "halvings")

    def claimed(self, claim: Claim) -> bool:
        """Whether a solver's word is there, and counts."""
        return self._work.trust == "solver" and bool(self._known(lambda *_: True, "claimed", *claim))

    def keep_claimed(self, claim: Claim) -> None:
        self._put("claimed", *claim)

    def ask(self, oracle: Oracle, region: Region, claim: Claim, budget: Budget) -> Hint:
        """What the oracle said, or says now, of a claim on the region it was made for."""

        def hint(value: Any, arrays: Arrays) -> Hint | None:
            if value["region"] != _digest(region):
                return None
            point = self._refuting(claim, arrays["point"]) if arrays else None
            bound = None if value["bound"] is None else float(value["bound"])
            return Hint(value["claimed"] is True, point, bound)

        known = self._known(hint, "hint", *claim)
        if known is not None:
            return known
        failures = self._work.solver.failures
        found = oracle.ask(*claim, budget)
        if found.claimed or found.witness is not None or self._ended(budget, failures):
            self._put(
                "hint",
                *claim,
                value={"region": _digest(region), "claimed": found.claimed, "bound": found.bound},
                arrays={} if found.witness is None else {"point": found.witness},
            )
        return found

    def never_positive(self, prover: Prover, region: Region, claim: Claim, budget: Budget) -> Outcome:
        """What the prover found, or finds now, of a claim on the region it was made for."""
        if (point := self.witness(claim)) is not None:
            return Outcome(witness=point)
        if (tree := self.proof(claim, region)) is not None:
            return Outcome(tree=tree)
        if self.tried(region, "prover", *claim):
            return Outcome()
        failures = self._work.solver.failures
        outcome = prover.never_positive(*claim, budget)
        self.keep(claim, outcome.tree, outcome.witness)
        if outcome.tree is None and outcome.witness is None and self._ended(budget, failures):
            self.keep_tried(region, "prover", *claim)
        return outcome

    def _ended(self, budget: Budget, failures: int) -> bool:
        return not budget.expired and self._work.solver.failures == failures

    def _refuting(self, claim: Claim, point: Array) -> Array | None:
        unit, sign = claim
        point = np.array(point, dtype=np.float64)
        inside = point.shape == self._work.box.lower.shape and self._work.box.contains(point)
        return point if inside and sign * sign_at(self._network, self._target, unit, point) > 0 else None

    def _known(self, read: Callable[[Any, Arrays], Value | None], *key: Any) -> Value | None:
        """What is kept under a key, if it is there and holds."""
        try:
            kept = self._checkpoint.get(key[0], self._target, *key[1:])
            return None if kept is None else read(*kept)
        except Exception:  # whoever edits the file can make reading raise anything
            self._note("the checkpoint holds what LEO did not write there; it is not used")
            return None

    def _put_tree(self, tree: Tree, *key: Any) -> None:
        arrays: Arrays = {}
        self._put(*key, value=describe(tree, arrays), arrays=arrays)

    def _put(self, kind: str, *key: Any, value: Any = None, arrays: Arrays | None = None) -> None:
        self._checkpoint.put(kind, self._target, *key, value=value, arrays=arrays)


def _digest(region: Region) -> str:
    digest = hashlib.sha256()
    for name, (lower, upper) in sorted(region.intervals.items()):
        digest.update(name.encode() + np.ascontiguousarray(lower).tobytes() + np.ascontiguousarray(upper).tobytes())
    return digest.hexdigest()
