"""What trees of cuts and witnesses show of a network's units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .bounds import Duals, Region, chunk, interval, one_hot, tightened, upper_bound
from .errors import Refused
from .networks import Net, Node
from .numbers import rational, upwards
from .trees import EMPTY, EXACT, LEAF, PLAIN, Tree

Array = Any

BATCH = 256  # regions bounded at once


def proved_bounds(net: Net, target: str, region: Region, tree: Tree) -> Array:
    """Per claim of a tree, the upper bound on sign·unit that its leaves prove on the one region; infinite for none."""
    require_fitting(net, target, tree)
    plan = net.before([target])
    affine = [node for node in plan if not node.relu]
    cut = tree.where != LEAF
    by_node: dict[int, list[int]] = {}
    for k, node in enumerate(tree.closed[:, 0].tolist()):
        by_node.setdefault(node, []).append(k)
    found = np.full(len(tree.units), -np.inf)
    start = {name: region[name] for name in ("input", *(node.name for node in affine))}
    waiting = [(np.zeros(1, np.int64), start, np.full(1, len(affine)), np.ones((1, len(found)), dtype=bool))]
    while waiting:
        ids, regions, since, is_open = waiting.pop()
        if len(ids) > BATCH:
            waiting.append((ids[BATCH:], take(regions, slice(BATCH, None)), since[BATCH:], is_open[BATCH:]))
            ids, regions, since, is_open = ids[:BATCH], take(regions, slice(BATCH)), since[:BATCH], is_open[:BATCH]
        for position, node in enumerate(affine):
            if (since < position).any():
                regions = tightened(net, node, regions, since < position)
        for low, high in regions.values():
            is_open &= ~(low > high).any(axis=1)[:, None]  # nothing is in it
        closing = [(row, k) for row, node in enumerate(ids.tolist()) for k in by_node.get(node, ())]
        closing = [(row, k) for row, k in closing if is_open[row, tree.closed[k, 1]]]
        for row, k, bound in zip(*zip(*closing), closings(net, target, regions, tree, closing)) if closing else ():
            found[tree.closed[k, 1]] = max(found[tree.closed[k, 1]], bound)
            is_open[row, tree.closed[k, 1]] = False
        found[(is_open & ~cut[ids][:, None]).any(axis=0)] = np.inf
        going = np.flatnonzero(is_open.any(axis=1) & cut[ids])
        if len(going):
            waiting.append(halves(affine, tree, ids[going], take(regions, going), is_open[going]))
    return found


def require_fitting(net: Net, target: str, tree: Tree) -> None:
    """Raises :class:`Refused` where arrays of a tree do not fit the network or each other."""
    size, claims, closings = net.by_name[target].size, len(tree.units), len(tree.closed)
    whole = [
        (tree.units, (claims,)), (tree.signs, (claims,)), (tree.where, (len(tree.where),)),
        (tree.unit, (len(tree.where),)), (tree.closed, (closings, 3)), (tree.row, (closings,)),
    ]  # fmt: skip
    real: list[tuple[Array, tuple[int, ...]]] = [
        (values, (len(values), net.by_name[name].size)) for name, values in tree.y.items()
    ]
    for of_node in tree.tilts.values():
        for name, (units, share, slope) in of_node.items():
            columns = sum(net.by_name[name].columns)
            whole.append((units, (len(units),)))
            if (units < 0).any() or (units >= net.by_name[name].size).any():
                raise Refused(f"a tilt of units that '{name}' has not")  # a sparse map has no row −1: it reads zeros
            real += [(share, (len(units),)), (slope, (len(units), columns))]
    for kinds, arrays in (("iu", whole), ("f", real)):
        if any(array.dtype.kind not in kinds or array.shape != shape for array, shape in arrays):
            raise Refused(f"a tree of '{target}' with arrays that do not fit")
    if claims > 2 * size or not (np.abs(tree.signs) == 1).all():
        raise Refused(f"a tree of '{target}' that claims nothing, or one thing twice")


def take(regions: Region, rows: Any) -> Region:
    """Some of the regions."""
    return {name: (low[rows], high[rows]) for name, (low, high) in regions.items()}


def halves(affine: Sequence[Node], tree: Tree, ids: Array, regions: Region, is_open: Array) -> Any:
    """Both halves of regions that are cut, beside each other."""
    twice = np.repeat(np.arange(len(ids)), 2)
    regions = {name: (low[twice], high[twice]) for name, (low, high) in regions.items()}
    for k, node in enumerate(ids.tolist()):
        where, unit = int(tree.where[node]), int(tree.unit[node])
        low, high = regions["input" if where == 0 else affine[where - 1].name]
        if where == 0:
            high[2 * k, unit] = low[2 * k + 1, unit] = 0.5 * low[2 * k, unit] + 0.5 * high[2 * k, unit]
        else:
            low[2 * k, unit], high[2 * k + 1, unit] = max(low[2 * k, unit], 0.0), min(high[2 * k + 1, unit], 0.0)
    since = np.repeat(np.where(tree.where[ids] == 0, -1, tree.where[ids] - 1), 2)
    return np.stack([tree.first[ids], tree.first[ids] + 1], axis=1).ravel(), regions, since, is_open[twice]


def closings(net: Net, target: str, regions: Region, tree: Tree, closing: Sequence[tuple[int, int]]) -> Array:
    """The bound that each closing (row of the regions, number) gives."""
    size, bounds = net.by_name[target].size, np.full(len(closing), np.inf)
    rows, numbers = (np.array(part) for part in zip(*closing, strict=True))
    claims, how, row = tree.closed[numbers, 1], tree.closed[numbers, 2], tree.row[numbers]
    units, signs = tree.units[claims], tree.signs[claims].astype(np.float64)
    alone = (how != PLAIN) | np.isin(numbers, list(tree.tilts))
    for group in (np.flatnonzero(~alone & (row < 0)), np.flatnonzero(~alone & (row >= 0))):
        for start in range(0, len(group), step := chunk(net)):
            at = group[start : start + step]
            duals = None if row[at[0]] < 0 else Duals({name: values[row[at]] for name, values in tree.y.items()})
            price = one_hot(units[at], size, signs[at])
            bounds[at] = upwards(upper_bound(net, target, price, regions, rows[at], duals))
    for k in np.flatnonzero(alone).tolist():
        price = one_hot(units[k : k + 1], size, 0.0 if how[k] == EMPTY else signs[k])
        y = {name: values[row[k] : row[k] + 1] for name, values in tree.y.items()} if row[k] >= 0 else {}
        price = rational(price) if how[k] == EXACT else price
        one = {name: (low[rows[k]][None], high[rows[k]][None]) for name, (low, high) in regions.items()}
        duals = Duals(y, tree.tilts.get(numbers[k], {}))
        bounds[k] = upwards(upper_bound(net, target, price, one, np.zeros(1, np.int64), duals))[0]
        if how[k] == EMPTY:
            bounds[k] = -np.inf if bounds[k] < 0 else np.inf
    low, high = (side[rows, units] for side in regions[target])
    return np.fmin(bounds, np.where(signs > 0, high, -low))


def signs_at(net: Net, target: str, units: Array, points: Array) -> Array:
    """The sign of unit ``units[k]`` of a node at ``points[k]``: 0 where it is zero."""
    region: Region = {"input": (points, points)}
    plan = net.before([target])
    for node in plan:
        if not node.relu:
            region[node.name] = interval(net, node, region)[:2]
    each = np.arange(len(units))
    signs = (region[target][0][each, units] > 0).astype(int) - (region[target][1][each, units] < 0)
    for k in np.flatnonzero(signs == 0).tolist():
        values = {"input": rational(points[k : k + 1])}
        for node in plan:
            if not node.relu:
                parts = (linear.apply(values[s]) for s, linear in node.reads)
                values[node.name] = sum(parts, rational(node.bias)[None])
            else:
                z = values[node.sources[0]]
                values[node.name] = np.where(z > 0, z, z * rational(node.slope))
        value = values[target][0, units[k]]
        signs[k] = (value > 0) - (value < 0)
    return signs
