"""The exact truth about small networks, by a method of its own.

It reads the engine's data (nodes, maps written out, boxes), and uses none of its bounds, evaluation or proofs.
The box of a network with one or two inputs is cut, over the rationals, into convex pieces on which every
ReLU has one state; on a piece every node is affine, so its extremes sit at the piece's corners.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from leo_core.domain import Box
from leo_core.network import INPUT, Affine, Network
from leo_core.stability import State

Point = tuple[Fraction, ...]
Form = list[tuple[Fraction, ...]]  # one row per unit: coefficients of the inputs, then the constant
Extremes = dict[str, list[tuple[Fraction, Fraction]]]  # by node: (min, max) of each unit


def extremes(network: Network, box: Box) -> Extremes:
    """For every node, (min, max) of each unit over the box, exactly."""
    return extremes_within(network, corners_of(box))


def extremes_within(network: Network, outline: list[Point]) -> Extremes:
    """The same over the segment or the convex polygon with these corners, which need not be floats."""
    found: Extremes = {}
    for corners, forms in pieces(network, outline):
        for node in network.nodes:
            values = [[at(row, corner) for corner in corners] for row in forms[node.name]]
            seen = [(min(v), max(v)) for v in values]
            old = found.get(node.name)
            found[node.name] = seen if old is None else [
                (min(a, c), max(b, d)) for (a, b), (c, d) in zip(old, seen, strict=True)
            ]  # fmt: skip
    return found


def states(network: Network, box: Box) -> dict[str, list[State]]:
    """The true state of every ReLU."""
    values = extremes(network, box)
    return {relu.name: [state_of(*pair) for pair in values[relu.source]] for relu in network.relus}


def state_of(low: Fraction, high: Fraction) -> State:
    if high <= 0:
        return State.INACTIVE
    return State.ACTIVE if low >= 0 else State.UNSTABLE


def contained(bounds, network: Network, box: Box) -> None:
    """Every bound holds, and every state is the true one, or open."""
    truth = extremes(network, box)
    groups = [(bounds.layers[relu.name], truth[relu.source]) for relu in network.relus]
    places = zip(network.signature.outputs, network.signature.slices, strict=True)
    groups += [(bounds.outputs[output.name], truth[network.output][part]) for output, part in places]
    for values, exact in groups:
        flat = {name: array.ravel() for name, array in values.arrays().items()}
        assert len(exact) == flat["lower"].size
        for unit, (low, high) in enumerate(exact):
            assert Fraction(flat["lower"][unit]) <= low
            assert high <= Fraction(flat["upper"][unit])
            assert flat["state"][unit] in (State.UNDECIDED, state_of(low, high))
            assert (flat["state"][unit] == State.UNDECIDED) == (flat["method"][unit] == 0)
            if "least" in flat:
                assert low <= Fraction(flat["least"][unit])
                assert Fraction(flat["most"][unit]) <= high


def largest_difference(first: Network, second: Network, box: Box) -> Fraction:
    """max |first − second| over the box and all outputs, exactly."""
    from leo_core.compare import side_by_side

    joint = side_by_side(first, second)
    return max(max(abs(low), abs(high)) for low, high in extremes(joint, box)[joint.output])


def corners_of(box: Box) -> list[Point]:
    """The ends of a box with one input, or the corners of one with two, in order."""
    assert box.size <= 2, "the truth is known for one or two inputs"
    lower, upper = ([Fraction(float(v)) for v in side] for side in (box.lower, box.upper))
    if box.size == 1:
        return [(lower[0],), (upper[0],)]
    return [(lower[0], lower[1]), (upper[0], lower[1]), (upper[0], upper[1]), (lower[0], upper[1])]


def pieces(network: Network, outline: list[Point]) -> Iterator[tuple[list[Point], dict[str, Form]]]:
    """(corners, the affine form of every node on it) for each piece of the set with these corners."""
    size = network.input_size
    identity = [tuple(Fraction(i == j) for j in range(size)) + (Fraction(0),) for i in range(size)]
    yield from _refine(network, 0, outline, {INPUT: identity})


def at(row: tuple[Fraction, ...], point: Point) -> Fraction:
    return sum((c * x for c, x in zip(row, point, strict=False)), row[-1])


def _refine(
    network: Network, position: int, corners: list[Point], forms: dict[str, Form]
) -> Iterator[tuple[list[Point], dict[str, Form]]]:
    if position == len(network.nodes):
        yield corners, forms
        return
    node = network.nodes[position]
    if isinstance(node, Affine):
        yield from _refine(network, position + 1, corners, {**forms, node.name: _affine(node, forms)})
        return
    for piece in _cut(corners, forms[node.source]):
        rows = []
        for row, slope in zip(forms[node.source], node.slope, strict=True):
            values = [at(row, corner) for corner in piece]
            gain = Fraction(1) if max(values) > 0 else Fraction(float(slope))
            rows.append(tuple(gain * c for c in row))
        yield from _refine(network, position + 1, piece, {**forms, node.name: rows})


def _affine(node: Affine, forms: dict[str, Form]) -> Form:
    width = len(forms[INPUT][0])
    rows = []
    for unit in range(node.size):
        total = [Fraction(0)] * (width - 1) + [Fraction(float(node.bias[unit]))]
        for source, linear in zip(node.sources, node.maps, strict=True):
            for j, weight in enumerate(linear.dense()[unit]):
                if weight:
                    total = [t + Fraction(float(weight)) * c for t, c in zip(total, forms[source][j], strict=True)]
        rows.append(tuple(total))
    return rows


def _cut(corners: list[Point], rows: Form) -> list[list[Point]]:
    """The parts of a convex piece on which no row changes its sign."""
    parts = [corners]
    for row in rows:
        parts = [part for piece in parts for part in _halves(piece, row)]
    return parts


def _halves(piece: list[Point], row: tuple[Fraction, ...]) -> list[list[Point]]:
    values = [at(row, corner) for corner in piece]
    if max(values) <= 0 or min(values) >= 0:
        return [piece]
    above: list[Point] = []
    below: list[Point] = []
    count = len(piece)
    edges = [(i, (i + 1) % count) for i in range(count)] if count > 2 else [(0, 1), (1, 1)]
    for i, j in edges:
        if values[i] >= 0:
            above.append(piece[i])
        if values[i] <= 0:
            below.append(piece[i])
        if values[i] * values[j] < 0:
            t = values[i] / (values[i] - values[j])
            crossing = tuple(p + t * (q - p) for p, q in zip(piece[i], piece[j], strict=True))
            above.append(crossing)
            below.append(crossing)
    return [above, below]
