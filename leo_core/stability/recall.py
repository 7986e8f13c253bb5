"""What earlier runs found of one affine node's units, in a checkpoint, and what of it still counts.

Nothing is believed. A witness is evaluated again, exactly; a tree of phases is proved again, one safe dual bound per
leaf (:mod:`leo_core.stability.recheck`), which is quick beside finding it. A bisection of the box would take as long to
check as to find: only its halvings are kept, and the search goes on from them (:mod:`leo_core.stability.boxes`). What
was tried in vain is not tried again while the bounds are the same; were that not true, a unit would stay undecided.
A solver's word counts where it always counts: as a hint, or under ``trust="solver"``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from leo_core.bounds.dual import Tilt
from leo_core.bounds.region import Region
from leo_core.execution.budget import Budget
from leo_core.stability.evidence import WHOLE, Bisection, Flat, Leaf, Split, Tree
from leo_core.stability.oracle import Hint, Oracle
from leo_core.stability.prover import Outcome, Prover
from leo_core.stability.recheck import proves
from leo_core.stability.verdict import Claim
from leo_core.stability.witness import sign_at
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
        """A tree of phases that proves a claim on a region."""

        def proof(value: Any, arrays: Arrays) -> Any:
            tree = _phases(value, arrays)
            return tree if proves(tree, self._network, self._target, claim, region, self._work.budget) else None

        known: Tree | None = self._known(proof, "tree", *claim)
        return known

    def keep(self, claim: Claim, tree: Tree | None, witness: Array | None) -> None:
        """Keep what was found of a claim by itself."""
        if witness is not None:
            self._put("witness", *claim, arrays={"point": witness})
        elif isinstance(tree, Leaf | Split):
            value, arrays = _of_phases(tree)
            self._put("tree", *claim, value=value, arrays=arrays)

    def tried(self, region: Region, *step: Any) -> bool:
        """Whether a step was tried in vain on this very region."""
        return bool(self._known(lambda value, _: value == _digest(region), "in vain", *step))

    def keep_tried(self, region: Region, *step: Any) -> None:
        """Keep that a step came to its own end, neither cut off by time nor by a failure, and found nothing."""
        self._put("in vain", *step, value=_digest(region))

    def halvings(self) -> Bisection:
        """How the box was halved so far."""

        def halvings(_: Any, arrays: Arrays) -> Bisection:
            tree = Bisection(arrays["axis"], arrays["at"], arrays["child"])
            if not tree.parts(self._work.box.lower, self._work.box.upper):
                raise ValueError("halvings that leave a part of the box out")
            return tree

        return self._known(halvings, "halvings") or WHOLE

    def keep_halvings(self, tree: Bisection) -> None:
        self._put("halvings", arrays={"axis": tree.axis, "at": tree.at, "child": tree.child})

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

    def _put(self, kind: str, *key: Any, value: Any = None, arrays: Arrays | None = None) -> None:
        self._checkpoint.put(kind, self._target, *key, value=value, arrays=arrays)


def _digest(region: Region) -> str:
    digest = hashlib.sha256()
    for name, (lower, upper) in sorted(region.intervals.items()):
        digest.update(name.encode() + np.ascontiguousarray(lower).tobytes() + np.ascontiguousarray(upper).tobytes())
    return digest.hexdigest()


def _of_phases(tree: Tree) -> tuple[dict[str, Any], Arrays]:
    """A tree of phases as a value and arrays."""
    flat = Flat.of(tree)
    arrays: Arrays = {"where": flat.where, "unit": flat.unit, "infeasible": flat.infeasible, "exact": flat.exact}
    arrays |= {f"multipliers {k}": values for k, values in enumerate(flat.multipliers.values())}
    tilts = [(leaf, name, tilt) for leaf, by_node in flat.tilts.items() for name, tilt in by_node.items()]
    for k, (_, _, tilt) in enumerate(tilts):
        arrays |= {f"units {k}": tilt.units, f"share {k}": tilt.share, f"slope {k}": tilt.slope}
    value = {"nodes": flat.nodes, "priced": list(flat.multipliers), "tilts": [[leaf, name] for leaf, name, _ in tilts]}
    return value, arrays


def _phases(value: Any, arrays: Arrays) -> Tree:
    tilts: dict[int, dict[str, Tilt]] = {}
    for k, (leaf, name) in enumerate(value["tilts"]):
        tilts.setdefault(leaf, {})[name] = Tilt(arrays[f"units {k}"], arrays[f"share {k}"], arrays[f"slope {k}"])
    multipliers = {name: arrays[f"multipliers {k}"] for k, name in enumerate(value["priced"])}
    where, unit, infeasible, exact = (arrays[name] for name in ("where", "unit", "infeasible", "exact"))
    return Flat(value["nodes"], where, unit, infeasible, exact, multipliers, tilts).tree()
