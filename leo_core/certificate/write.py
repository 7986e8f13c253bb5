"""Writes a certificate: a zip archive of ``header.json`` and plain ``.npy`` arrays (docs/reference/certificate.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.certificate.archive import write_certificate
from leo_core.certificate.evidence import Evidence
from leo_core.checker import networks
from leo_core.checker.bounds import limited
from leo_core.checker.difference import Difference, Roles
from leo_core.checker.trees import describe
from leo_core.errors import NetworkError, OutputError
from leo_core.network import Affine, Network
from leo_core.rewrite import Rewritten
from leo_core.storage import as_checked
from leo_core.tails import named

Indices = NDArray[np.int64]

#: A claimed deviation is this much larger than proved: another machine rounds differently.
_SPARE = 2.0**-30


@final
@dataclass(frozen=True, eq=False)
class Certificate:
    """What is written: evidence about ``original``, what became of its units in ``compressed``, and the deviation."""

    original: Network
    compressed: Network
    evidence: Evidence
    roles: Roles
    deviation: float


@final
@dataclass(frozen=True, eq=False)
class Account:
    """All that a certificate of a compression rests on.

    ``origins`` says, by affine node of the rewritten network that no ReLU reads, which units of the original's node of
    that name its own are; where it says nothing, they are all of them, or those that a map of one to one leads to.
    """

    original: Network
    evidence: Evidence
    rewritten: Rewritten
    origins: Mapping[str, Indices] = field(default_factory=dict)

    def certificate(self, compressed: Network) -> Certificate:
        """The certificate for the rewritten network as it was read from a file.

        It claims the deviation that was proved when rewriting, or what more the checker needs.

        Raises :class:`OutputError` where the ReLU layers of ``compressed`` are not those of the rewritten network.
        """
        known = _roles(self.rewritten, compressed, _affine_origins(self.original, self.rewritten, self.origins))
        nets = as_checked(self.original), as_checked(compressed)
        claimed = self.rewritten.deviation
        with np.errstate(all="ignore"):
            proved = Difference(*nets, self.evidence.region, known).deviation()
            if claimed < proved < math.inf and limited(self.evidence.region):
                exact = Difference(*nets, self.evidence.region, known, exact=True).deviation()
                proved = min(proved, exact)
        deviation = claimed if proved <= claimed else proved * (1 + _SPARE)
        return Certificate(self.original, compressed, self.evidence, known, deviation)


def _affine_origins(original: Network, rewritten: Rewritten, given: Mapping[str, Indices]) -> dict[str, Indices]:
    """By affine node that the rewritten network shares with the original: which of its units each unit is, where known.

    A node that reads another one to one has the same units: a batch norm those of its convolution.
    """
    nodes = [node for node in rewritten.network.nodes if isinstance(node, Affine) and node.name in original]
    known = rewritten.facts.units
    found = {**given, **{node.name: np.where(known[node.name].home == "", known[node.name].origin, -1)
                         for node in nodes if node.name in known}}  # fmt: skip
    for node in nodes:
        if node.size == original.size(node.name):
            found.setdefault(node.name, np.arange(node.size))
    pairs = [
        (node.name, source)
        for node in nodes
        for source, linear in node.reads
        if source in original and original.size(source) == original.size(node.name) and linear.scaling() is not None
    ]
    for one, other in [*pairs[::-1], *((source, name) for name, source in pairs)]:
        if one in found:
            found.setdefault(other, found[one])
    return found


def _roles(rewritten: Rewritten, compressed: Network, origins: Mapping[str, Indices]) -> Roles:
    facts = rewritten.facts
    sizes = [[relu.size for relu in network.relus] for network in (rewritten.network, compressed)]
    if sizes[0] != sizes[1]:
        raise OutputError(
            f"no certificate: the file's ReLU layers, {sizes[1]}, are not those of the rewritten network, {sizes[0]}; "
            "write a .leo file"
        )
    signatures = rewritten.network.signature, compressed.signature
    try:
        signatures[0].require_same_outputs(signatures[1])
    except NetworkError as error:
        raise OutputError(f"no certificate: {error}; write a .leo file") from None
    if signatures[0].functions != signatures[1].functions:
        was, now = (named(signature.ending) for signature in signatures)
        raise OutputError(f"no certificate: the file ends in {now}, the original in {was}; write a .leo file")
    pairs = zip(rewritten.network.relus, compressed.relus, strict=True)
    lines = {
        name: tuple(np.array(part, kind) for part, kind in zip(zip(*found, strict=True), (np.int64, float, float)))
        for name, found in facts.lineage.lines.items()
    }
    kept: dict[str, tuple[str, Indices]] = {}
    lifted: dict[str, list[tuple[str, Indices]]] = {}
    for old, new in pairs:
        units, each = facts.units[old.source], np.arange(old.size)
        stood = {home: np.where(np.isin(each, at), units.origin, -1) for home, at in units.homes(old.name, each)}
        main = max(stood, key=lambda home: int((stood[home] >= 0).sum()), default=old.name)
        kept[new.name] = (main, stood.pop(main, units.origin))
        lifted[new.name] = [(home, origin) for home, origin in stood.items() if (origin >= 0).any()]
    nodes = [[node for node in net.nodes if isinstance(node, Affine)] for net in (rewritten.network, compressed)]
    if [node.size for node in nodes[0]] == [node.size for node in nodes[1]]:
        read = {relu.source for relu in rewritten.network.relus}
        kept |= {
            now.name: (old.name, origins[old.name])
            for old, now in zip(*nodes, strict=True)
            if old.name in origins and old.name not in read
        }
    return Roles(
        kept,
        facts.lineage.copies,
        lines,  # type: ignore[arg-type]
        {name: parts for name, parts in lifted.items() if parts},
    )


def roles_of(original: Network, rewritten: Rewritten) -> Roles:
    """What became of a network's units in the one that it was rewritten to."""
    return _roles(rewritten, rewritten.network, _affine_origins(original, rewritten, {}))


def described(roles: Roles, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """What a certificate says of roles; their arrays are added to its own."""
    keep = partial(networks.keep, arrays=arrays)
    return {
        "kept": {name: [of, keep(origin)] for name, (of, origin) in roles.kept.items()},
        "lifted": {name: [[of, keep(origin)] for of, origin in parts] for name, parts in roles.lifted.items()},
        "copies": roles.copies,
        "lines": {name: [keep(part) for part in parts] for name, parts in roles.lines.items()},
    }


def write(path: Path, certificate: Certificate, told: Mapping[str, Any]) -> None:
    """Write the certificate; the caller renames a temporary file into place. ``told`` is for readers, not checked."""
    evidence = certificate.evidence
    arrays: dict[str, NDArray[Any]] = {}
    keep = partial(networks.keep, arrays=arrays)

    box = evidence.stability.box
    points: dict[bytes, int] = {}
    rows: list[NDArray[np.float64]] = []

    def number(point: NDArray[np.float64]) -> int:
        if point.tobytes() not in points:
            points[point.tobytes()] = len(rows)
            rows.append(point)
        return points[point.tobytes()]

    layers = {}
    for name, layer in evidence.layers.items():
        found = layer.stability
        pairs = [[number(point) for point in found.witnesses[unit]] for unit in sorted(found.witnesses)]
        layers[name] = {
            "trees": [describe(tree, arrays) for tree in layer.trees],
            **{what: keep(getattr(found, what)) for what in ("lower", "upper", "state", "method")},
            "witnesses": keep(np.array(pairs, dtype=np.int64).reshape(-1, 2)),
        }
    content = {
        "original": certificate.original.digest,
        "compressed": certificate.compressed.digest,
        "tail": certificate.original.signature.ending,
        "deviation": certificate.deviation,
        "layers": layers,
        **described(certificate.roles, arrays),
        "told": told,
    }
    arrays |= {"lower": box.lower, "upper": box.upper, "points": np.array(rows).reshape(-1, box.size)}
    write_certificate(path, content, arrays)
