"""Writes a certificate that two networks are within limits; the checker accepts it before it is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core import checker
from leo_core.bounds.region import Region
from leo_core.certificate.archive import write_certificate
from leo_core.certificate.write import described, roles_of
from leo_core.checker import bounds, networks
from leo_core.checker.equivalence import proved_differences, require_within
from leo_core.checker.trees import describe
from leo_core.compare.depth import Levelled
from leo_core.compare.pair import Pair
from leo_core.compare.pairing import Paired
from leo_core.compare.work import Evidence, decided_on
from leo_core.domain import Box
from leo_core.errors import OutputError
from leo_core.execution.budget import Budget
from leo_core.network import INPUT, Network
from leo_core.storage import as_checked
from leo_core.storage import described as network_described
from leo_core.within import Within

_Arrays = dict[str, NDArray[Any]]


def content_of(pair: Pair, within: Within, evidence: Evidence, budget: Budget) -> tuple[dict[str, Any], _Arrays]:
    """(description, arrays) of a certificate that the checker accepts.

    The checker's bounds are wider than the engine's in places: where it does not come as far, proofs are looked for
    anew on its own. Raises :class:`OutputError` where there are none.
    """
    level = Levelled(pair, evidence.rewritten)
    try:
        return _accepted(level, within, evidence)
    except checker.Refused as refused:
        pair.note("looking for proofs on the checker's own bounds")
        refusal = refused
    with np.errstate(all="ignore"):
        region_of = partial(_checkers_region, box=pair.box)
        again = decided_on(region_of, level.pair, level.within(within), evidence, budget)
    try:
        if again.complete:
            return _accepted(level, within, again)
    except checker.Refused as refused:
        refusal = refused
    raise OutputError(f"no certificate: the checker, on bounds of its own, does not come as far: {refusal}") from None


def _checkers_region(network: Network, box: Box) -> Region:
    """The checker's bounds of every affine node, as the engine takes them."""
    region = bounds.all_bounded(as_checked(network), (box.lower[None], box.upper[None]))
    known = {name: (low[0], high[0]) for name, (low, high) in region.items() if name != INPUT}
    return Region(box.lower, box.upper, known)


def _accepted(level: Levelled, within: Within, evidence: Evidence) -> tuple[dict[str, Any], _Arrays]:
    """The same of this evidence. Raises :class:`checker.Refused` where the checker does not accept it."""
    first, second, box = level.given.first, level.given.second, level.given.box
    arrays: _Arrays = {}
    keep = partial(networks.keep, arrays=arrays)
    pairings = [] if evidence.pairing is None else [_pairing(evidence.pairing, level.pair.first, arrays)]
    proofs = [
        {
            "swapped": proof.arrangement.swapped,
            "shared": {name: [of, keep(origin)] for name, (of, origin) in proof.arrangement.shared.items()},
            "rows": keep(np.array([[unit, int(sign)] for unit, sign in proof.rows], dtype=np.int64).reshape(-1, 2)),
            "thresholds": keep(np.asarray(proof.thresholds, dtype=np.float64)),
            "tree": describe(proof.tree, arrays),
        }
        for proof in evidence.proofs
    ]
    content = {
        "kind": checker.EQUIVALENCE,
        "original": first.digest,
        "compressed": second.digest,
        "tail": first.signature.ending,
        "limits": [float(limit) if limit < np.inf else None for limit in within.provable],
        "levelled": [
            {"network": network_described(found.network, arrays), **described(roles_of(network, found), arrays)}
            for network, found in zip((first, second), level.rewritten, strict=False)
        ],
        "pairings": pairings,
        "proofs": proofs,
    }
    content = json.loads(json.dumps(content, allow_nan=False))
    arrays |= {"lower": box.lower, "upper": box.upper}
    with np.errstate(all="ignore"):
        sides, nets = (box.lower[None], box.upper[None]), (as_checked(first), as_checked(second))
        found, _ = proved_differences(*nets, sides, content, arrays, level.given.note)
        require_within(found, content["limits"])
    return content, arrays


def write(path: Path, content: Mapping[str, Any], arrays: _Arrays, told: Mapping[str, Any]) -> None:
    """Write it; the caller renames a temporary file into place. ``told`` is for readers, not checked."""
    write_certificate(path, {**content, "told": told}, arrays)


def _pairing(pairing: Paired, first: Network, arrays: _Arrays) -> dict[str, Any]:
    return {"swapped": pairing.old is not first, **described(pairing.roles, arrays)}
