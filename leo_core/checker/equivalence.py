"""Certificates of an equivalence: that no output of two networks differs by more than its limit, on a box.

Both stand side by side in one network, what one takes from the other (``shared``) only once; its last node has, for
each claim, sign · (old − new) − threshold, and trees bound that. Or the units that both have show it by themselves.
Before that, either may give way to another network that the certificate holds (``levelled``), as far from it as the
units that these two have show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from .bounds import all_bounded, limited
from .difference import Difference, Roles
from .errors import Refused
from .maps import Entries, Map, Matrix, integers
from .networks import Net, Node, network_of
from .proofs import proved_bounds
from .trees import tree_of

Array = Any
Shared = Mapping[
    str, tuple[str, Array]
]  # by ReLU of the new network: one of the old, and which unit each is (−1: none)

DIFFERENCE, EXCESS = "difference", "excess"


def proved_differences(
    f: Net, g: Net, box: tuple[Array, Array], content: Mapping[str, Any], arrays: Mapping[str, Array],
    note: Callable[[str], None],
) -> tuple[Array, int]:  # fmt: skip
    """(per output the most that |f − g| is proved to be, the leaves that show it); raises :class:`Refused`."""
    size = f.by_name[f.output].size
    if g.by_name[g.output].size != size or f.inputs != g.inputs:
        raise Refused("the networks have different inputs or outputs")
    apart = np.zeros(size)  # of f and g from those that stand for them
    if content.get("levelled"):
        given, (f, g) = (f, g), [network_of(described["network"], arrays) for described in content["levelled"]]
        for old, new, described in zip(given, (f, g), content["levelled"], strict=True):
            if new.inputs != old.inputs:
                raise Refused("the networks have different inputs or outputs")
            note("comparing a network with itself less some layers")
            apart = added_up(apart, deviations(paired(old, new, box, roles_of(described, arrays)), old, new))
    most, leaves = np.full((size, 2), np.inf), 0  # of f − g, and of g − f
    same: dict[bool, Difference] = {}
    for pairing in content["pairings"]:
        note("comparing units that both networks have")
        old, new = (g, f) if pairing["swapped"] else (f, g)
        same[bool(pairing["swapped"])] = found = paired(old, new, box, roles_of(pairing, arrays))
        most = np.minimum(most, deviations(found, old, new)[:, None])
    for proof in content["proofs"]:
        swapped = bool(proof["swapped"])
        old, new = (g, f) if swapped else (f, g)
        shared = {name: (of, integers(arrays[origin])) for name, (of, origin) in proof["shared"].items()}
        require_same(shared, same.get(swapped))
        rows, thresholds = arrays[proof["rows"]], arrays[proof["thresholds"]].astype(np.float64)
        net = joined(old, new, shared, rows, thresholds)
        region = all_bounded(net, box)
        note(f"checking {len(rows)} sides of the difference")
        tree = tree_of(proof["tree"], arrays)
        found_bounds = proved_bounds(net, EXCESS, region, tree)
        leaves += len(tree.closed)
        for unit, sign, bound in zip(tree.units.tolist(), tree.signs.tolist(), found_bounds.tolist(), strict=True):
            output, side = (int(part) for part in rows[unit])
            if sign == 1:
                way = int((side < 0) != swapped)
                value = thresholds[unit] if bound <= 0 else np.nextafter(thresholds[unit] + bound, np.inf)
                most[output, way] = min(most[output, way], np.inf if np.isnan(value) else value)
    return added_up(np.maximum(most.max(axis=1), 0.0), apart), leaves


def added_up(most: Array, more: Array) -> Array:
    """The sums of distances, rounded up."""
    return np.where(more == 0, most, np.where(most == 0, more, np.nextafter(most + more, np.inf)))


def require_within(found: Array, limits: Any) -> float:
    """The most of what is asked that is proved; raises :class:`Refused` where a limit is not."""
    if len(limits) != len(found) or all(limit is None for limit in limits):
        raise Refused("its limits do not fit the networks")
    for output, (most, limit) in enumerate(zip(found.tolist(), limits, strict=True)):
        if limit is not None and not (0 <= most <= limit < np.inf):
            raise Refused(f"output {output}: a difference of at most {limit:.6g} is claimed, {most:.6g} is proved")
    return max(float(most) for most, limit in zip(found.tolist(), limits, strict=True) if limit is not None)


def roles_of(content: Mapping[str, Any], arrays: Mapping[str, Array]) -> Roles:
    """What a certificate says became of the units of one network in another."""
    # as int64, whatever they are stored in: places of entries are worked out with them
    return Roles(
        {name: (of, integers(arrays[origin])) for name, (of, origin) in content["kept"].items()},
        {name: [(int(u), int(o), float(a)) for u, o, a in copies] for name, copies in content["copies"].items()},
        {
            name: (integers(arrays[units]), *(arrays[part].astype(np.float64) for part in (gain, offset)))
            for name, (units, gain, offset) in content["lines"].items()
        },
        {
            name: [(of, integers(arrays[origin])) for of, origin in parts]
            for name, parts in content.get("lifted", {}).items()
        },
    )


def paired(old: Net, new: Net, box: tuple[Array, Array], roles: Roles) -> Difference:
    """Both networks by the units that they share, on bounds of the old one."""
    return Difference(old, new, all_bounded(old, box), roles)


def deviations(found: Difference, old: Net, new: Net) -> Array:
    """How far each output can be apart; over the rationals where rounding may be all there is."""
    most = found.deviations()
    if 0 < most.max(initial=0.0) < 1e-6 and limited(found.region):
        most = np.minimum(most, Difference(old, new, found.region, found.roles, exact=True).deviations())
    return np.where(np.isnan(most), np.inf, most)


def require_same(shared: Shared, found: Difference | None) -> None:
    """Raises :class:`Refused` unless units that one network takes from the other are proved to compute the same."""
    for name, (of, origin) in shared.items():
        if found is None or name not in found.moved or name not in found.roles.kept:
            raise Refused(f"nothing shows that units of '{name}' are those of '{of}'")
        kept, known = found.roles.kept[name]
        taken = origin >= 0
        if kept != of or origin.shape != known.shape or (origin[taken] != known[taken]).any():
            raise Refused(f"units of '{name}' are not those of '{of}' that the pairing has")
        if (found.moved[name][taken] != 0).any():
            raise Refused(f"a unit of '{name}' is not proved to be the one of '{of}' that it is taken for")


def joined(old: Net, new: Net, shared: Shared, rows: Array, thresholds: Array) -> Net:
    """One network with sign · (old − new) − threshold for each of some rows (output, sign)."""
    size = old.by_name[old.output].size
    if rows.ndim != 2 or rows.shape[1] != 2 or rows.dtype.kind not in "iu" or thresholds.shape != (len(rows),):
        raise Refused("claims about the difference that are no rows of an output and a sign")
    outputs, signs = rows[:, 0], rows[:, 1].astype(np.float64)
    if (outputs < 0).any() or (outputs >= size).any() or (np.abs(signs) != 1).any():
        raise Refused("a claim about no output, or of no sign")
    if not np.isfinite(thresholds).all():
        raise Refused("a threshold that is not finite")
    nodes = [renamed(node, "first", {}) for node in old.nodes]
    merged = {f"second/{relu}": f"merged/{relu}" for relu in shared}
    for node in new.nodes:
        own = renamed(node, "second", merged)
        nodes += [own] if not node.relu or node.name not in shared else taken_from(old, own, nodes, shared[node.name])
    each = np.arange(size)
    last = f"second/{new.output}"
    maps: list[Map] = [Entries(np.full(size, sign), (each, each), size, size) for sign in (1.0, -1.0)]
    ends = (f"first/{old.output}", merged.get(last, last))
    nodes.append(Node(DIFFERENCE, ends, tuple(maps), np.zeros(size), np.zeros(size), False))
    matrix = np.zeros((len(rows), size))
    matrix[np.arange(len(rows)), outputs] = signs
    nodes.append(Node(EXCESS, (DIFFERENCE,), (Matrix(matrix),), -thresholds, -thresholds, False))
    whole = replace(old, nodes=tuple(nodes), output=EXCESS, digest="", outputs=())
    return replace(whole, nodes=tuple(whole.before([EXCESS])))


def renamed(node: Node, prefix: str, instead: Mapping[str, str]) -> Node:
    """A node under another name, and what it reads."""
    sources = [source if source == "input" else f"{prefix}/{source}" for source in node.sources]
    return replace(node, name=f"{prefix}/{node.name}", sources=tuple(instead.get(source, source) for source in sources))


def taken_from(old: Net, relu: Node, nodes: list[Node], known: tuple[str, Array]) -> list[Node]:
    """In the place of a ReLU: one of the units that are its own, and all its units again, some of them the other's."""
    of, origin = known
    if of not in old.by_name or not old.by_name[of].relu or origin.shape != (relu.size,):
        raise Refused(f"units of '{relu.name}' as those of '{of}'")
    width, taken, own = old.by_name[of].size, np.flatnonzero(origin >= 0), np.flatnonzero(origin < 0)
    if (origin >= width).any():
        raise Refused(f"units of '{relu.name}' that '{of}' has not")
    name = relu.name.removeprefix("second/")
    sources, picks = [f"first/{of}"], [placed(relu.size, taken, origin[taken], width)]
    made: list[Node] = []
    if len(own):
        before = next(node for node in nodes if node.name == relu.sources[0])
        rows = tuple(rows_of(linear, own) for linear in before.maps)
        bias = before.bias[own]
        made.append(Node(f"own/{name}", before.sources, rows, bias, bias, False))
        made.append(replace(relu, sources=(f"own/{name}",), bias=relu.slope[own], slope=relu.slope[own]))
        sources.append(relu.name)
        picks.append(placed(relu.size, own, np.arange(len(own)), len(own)))
    zero = np.zeros(relu.size)
    return [*made, Node(f"merged/{name}", tuple(sources), tuple(picks), zero, zero, False)]


def placed(rows: int, places: Array, columns: Array, width: int) -> Map:
    """The map that puts the given columns at places among ``rows``."""
    return Entries(np.ones(len(places)), (places, columns.astype(np.int64)), rows, width)


def rows_of(linear: Map, units: Array) -> Map:
    """Some rows of a map."""
    if isinstance(linear, Matrix):
        return Matrix(linear.values[units])
    row, column, values = linear.entries()
    place = np.full(linear.rows, -1)
    place[units] = np.arange(len(units))
    kept = place[row] >= 0
    return Entries(values[kept], (place[row[kept]], column[kept]), len(units), linear.columns)
