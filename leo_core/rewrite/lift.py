"""Units stand in the earliest layer they can: relu(V x + d) instead of relu of a layer that only passes V x + d on.

m relu(z) = ½ m z + ½ m |z|, so that a row Σ mᵢ relu(zᵢ) + c of what a layer's readers compute is a line in what the
layer reads, V x + d, where the units that are not lines cancel: Σ mᵢ |zᵢ| = 0, opposite or parallel units being
multiples of each other. A ReLU of that row can then stand in the layer itself, and the reader passes it on, since
relu(relu(a)) = relu(a). What nobody else reads of the layer goes; and where nothing else in the reader's own layer is
unstable, that layer is a line now and folds. So splitting a unit, z = τ + relu(z − τ) − relu(τ − z), is undone.

A row a that is off by at most e moves relu(a) by no more. With m relu(z) + n relu(w), m and n of opposite signs, the
line ½ (m z + n w) is off by ½ |m |z| + n |w|| ≤ ½ |m z − n w|. Where m > 0 and the row is not positive for z ≤ 0, the
line m z is right wherever relu(a) > 0: only rounding it costs anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from leo_core.arithmetic import TINY, Array, product_error, round_up, weigh_up
from leo_core.bounds.change import Change, Values, carry
from leo_core.network import Affine, Relu
from leo_core.rewrite.bends import Bends, beside_lines
from leo_core.rewrite.block import block_of
from leo_core.rewrite.facts import Indices, Lineage, Mask, Units
from leo_core.rewrite.fold import fold_linear
from leo_core.rewrite.form import Form, best_constants, change
from leo_core.rewrite.layer import ReluLayer, Rows, layer_of
from leo_core.rewrite.parallel import Pairs, pairs_of
from leo_core.rewrite.step import Ladder, Refusal, Rewrite
from leo_core.rewrite.view import View
from leo_core.stability.verdict import State

#: A row is looked at where all but this share of what its unstable units add to it cancels.
_NEAR = 1e-3


def lift(view: View, name: str) -> Ladder | Refusal | None:
    """Let as many units that read the ReLU ``name`` stand behind it as the tolerance allows."""
    layer = layer_of(view, name)
    if not isinstance(layer, ReluLayer):
        return layer
    nexts = _nexts(layer)
    rows = np.concatenate([after.rows for after in nexts], dtype=np.int64) if nexts else np.zeros(0, np.int64)
    if not len(rows):
        return None
    pairs = pairs_of(layer, sign=-1)
    rows = rows[_cancels(layer, pairs, rows)]
    unstable = np.isin(rows, [row for after in nexts for row in after.unstable])
    if not (unstable.any() or (layer.outgoing[np.ix_(rows, pairs.goes)] != 0).any()):
        return None  # nothing is gained by lines that already are some
    try:
        lifted = Lifted.of(layer, nexts, pairs, rows)
    except OverflowError:
        return None
    count = len(rows)
    refusal = Refusal(f"{count} unit(s) not lifted", "rounding their weights anew costs more than the tolerance leaves")
    return Ladder(count, lambda left: lifted.ladder(count - left), otherwise=refusal)


@final
@dataclass(frozen=True, eq=False)
class Next:
    """A reader of a layer with the ReLU that alone reads it.

    ``rows`` are its units that may be lifted, by their places in the stacked rows, ``first`` is the place of its first
    unit, and ``unstable`` are those that keep it from being a line.
    """

    reader: Affine
    relu: Relu
    first: int
    rows: Indices
    unstable: Indices


def _nexts(layer: ReluLayer) -> list[Next]:
    """The layers behind a layer whose units may be lifted; rows that read anything else are left out."""
    view, network = layer.view, layer.view.network
    found = []
    for reader, part, _ in layer.parts():
        behind = [network[name] for name in network.readers[reader.name]]
        if len(behind) != 1 or not isinstance(behind[0], Relu) or reader.name == network.output:
            continue
        relu = behind[0]
        twice = any(network.affine(name).sources.count(relu.name) > 1 for name in network.readers[relu.name])
        if relu.name == network.output or twice or not view.plain(relu.name):
            continue
        elsewhere = np.zeros(reader.size, dtype=bool)
        for source, linear in reader.reads:
            if source != layer.relu.name:
                elsewhere |= linear.absolute().apply(np.ones(linear.columns)) > 0
        units = view.facts.units[reader.name]
        usable = np.isin(units.state, (State.UNSTABLE, State.ACTIVE)) & (relu.slope == 0) & ~elsewhere
        bent = ~units.linear(relu.slope)
        first = part.start
        found.append(Next(reader, relu, first, first + np.flatnonzero(usable), first + np.flatnonzero(bent)))
    return found


def _cancels(layer: ReluLayer, pairs: Pairs, rows: Indices) -> Mask:
    """Whether rows may be lines: next to nothing is left of units that are not."""
    most = np.maximum(layer.units.upper, 0.0)
    outgoing = np.abs(layer.outgoing[rows])
    left = np.abs(beside_lines(layer, pairs, rows))
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(left @ most <= _NEAR * (outgoing @ most))


@final
@dataclass(frozen=True, eq=False)
class Lifted:
    """New units of a layer, one for each of some rows, the least harmful first.

    Attributes
    ----------
    rows:
        Their places in the stacked rows.
    weights, bias:
        V and d, as they are stored.
    rounded:
        How far V x + d is from a line that is near the row.
    bends:
        How far that line is from the row.
    paired:
        Which rows read units that are not lines by themselves: those may no longer be read.
    """

    layer: ReluLayer
    nexts: list[Next]
    pairs: Pairs
    rows: Indices
    weights: Array
    bias: Array
    rounded: Change
    bends: Bends
    paired: Mask

    @staticmethod
    def of(layer: ReluLayer, nexts: list[Next], pairs: Pairs, rows: Indices) -> Lifted:
        """Of the rows that are lines. Raises OverflowError."""
        block, known = block_of(layer), layer.incoming
        halves = np.concatenate([pairs.goes, np.unique(pairs.stays)])
        outgoing = layer.outgoing[rows]
        with np.errstate(under="ignore"):
            half = 0.5 * outgoing[:, halves]
        exact = 2.0 * half == outgoing[:, halves]  # of the smallest numbers, halving rounds
        cost = np.where(exact.all(axis=1), block.charge(outgoing[:, block.units]), np.inf)
        bends = Bends.of(layer, pairs, rows, cost)
        half[bends.sided] = np.maximum(outgoing[np.ix_(bends.sided, halves)], 0.0)
        old = Form(
            np.hstack([outgoing[:, block.units], half]),
            np.vstack([block.weights, known.weights[halves]]),
            np.concatenate([block.bias, known.bias[halves]]),
            layer.constants[rows],
        )
        weights = layer.stored_incoming(old.rounded(layer.dtype))
        new = Form(np.eye(len(rows)), weights, np.zeros(len(rows)), np.zeros(len(rows)))
        ends = known.lower, known.upper
        bias = best_constants(old, new, *ends, layer.node.bias.dtype).astype(layer.node.bias.dtype).astype(np.float64)
        if not np.isfinite(bias).all():
            raise OverflowError(f"a new bias of {layer.node.name} would overflow")
        paired = (outgoing[:, halves] != 0).any(axis=1)
        rounded = change(old, new.with_constants(bias), *ends).reading(layer.node.sources)
        return Lifted(layer, nexts, pairs, rows, weights, bias, rounded, bends, paired).by_harm()

    def by_harm(self) -> Lifted:
        """The same, the least harmful first."""
        harm = np.zeros(len(self.rows))
        for after in self.nexts:
            mine = np.isin(self.rows, after.rows)
            for _, weights in _weights(self.layer.view, after.relu):
                most = np.abs(weights).max(axis=0, initial=0.0)[self.rows[mine] - after.first]
                with np.errstate(invalid="ignore"):
                    harm[mine] = np.maximum(harm[mine], most * (self.rounded.most + self.bends.felt)[mine])
        return self.chosen(np.argsort(np.where(np.isnan(harm), np.inf, harm), kind="stable"))

    def chosen(self, at: Indices) -> Lifted:
        """Some of them."""
        parts = {name: getattr(self, name)[at] for name in ("rows", "weights", "bias", "paired")}
        return replace(self, **parts, rounded=self.rounded.rows(at), bends=self.bends.rows(at))

    def ladder(self, count: int) -> Ladder | None:
        """The first so many of them lifted, with what folds then folded, and without."""
        chosen = np.zeros(len(self.rows), dtype=bool)
        chosen[:count] = True
        folds = [after for after in self.nexts if np.isin(after.unstable, self.rows[:count]).all()]
        bare = chosen & self.paired
        needed = chosen & (self.paired | np.isin(self.rows, [row for after in folds for row in after.unstable]))
        # what is a line already may be rounded anew, too, where what folds would round more
        every = needed | (chosen & np.isin(self.rows, [row for after in folds for row in after.rows]))

        def made(rung: int) -> Rewrite | None:
            if rung < 2:
                taken = np.flatnonzero((needed, every)[rung])
                return _folded(self.chosen(taken).made(), folds) if folds and len(taken) else None
            return self.chosen(np.flatnonzero(bare)).made() if bare.any() else None

        return Ladder(3, made)

    def made(self) -> Rewrite:
        """All of them lifted: in the layer as new units, in the reader as what is passed on."""
        layer, rows = self.layer, self.rows
        with np.errstate(invalid="ignore"):
            bent = self.bends.bent
            moved = round_up(self.rounded.most + bent)
        moved = np.where((self.rounded.most > 0) | (bent > 0), moved, 0.0)
        changes: dict[str, Change] = {}
        units: dict[str, Units] = {}
        added = Units.new(np.zeros(0), np.zeros(0))
        order = np.zeros(0, np.int64)
        for after in self.nexts:
            places = np.flatnonzero(np.isin(rows, after.rows))
            if not len(places):
                continue
            at, known = rows[places] - after.first, layer.view.facts.units[after.reader.name]
            home = np.where(known.home[at] == "", after.relu.name, known.home[at])
            mine = replace(known.kept(at).moved(moved[places]), home=home)
            added, order = added.joined(mine), np.concatenate([order, places])
            units[after.reader.name] = _passed_on(known, at, moved[places])
            if moved[places].any():
                for reader, weights in _weights(layer.view, after.relu):
                    found = self._seen_by(weights[:, at], after.reader.name, at, places, moved[places])
                    changes[reader.name] = changes[reader.name].plus(found) if reader.name in changes else found
        outgoing = np.hstack([layer.outgoing, np.zeros((len(layer.outgoing), len(rows)))])
        outgoing[rows[order]] = 0.0
        outgoing[rows[order], layer.relu.size + np.arange(len(rows))] = 1.0
        constants = layer.constants.copy()
        constants[rows] = 0.0
        new = Rows(self.weights[order], self.bias[order], added)
        view = layer.replaced(np.arange(layer.relu.size), new, outgoing, constants).with_nodes(units=units)
        what = f"{len(rows)} unit(s) lifted into the layer before"
        return Rewrite(view.with_lineage(_told(layer, self.pairs, rows)), what, changes)

    def _seen_by(self, weights: Array, reader: str, at: Indices, places: Indices, moved: Array) -> Change:
        """What weights make of units ``places`` that were the units ``at`` of a reader; on parts of the box, too."""
        units, rounded, bends = (
            self.layer.view.facts.units[reader].kept(at),
            self.rounded.rows(places),
            self.bends.rows(places),
        )

        def within(values: Values) -> Change:
            lower, upper = (side[at] for side in values(reader))
            off = upper + moved <= 0  # before and after
            here = _felt(weights, *bends.on(values, rounded.on(values)), lower - moved >= 0, off)
            return replace(here, most=np.fmin(here.most, whole.most))

        whole = _felt(weights, rounded, bends.felt, units.lower - moved >= 0, units.upper + moved <= 0)
        return replace(whole, within=within)


def _passed_on(units: Units, at: Indices, error: Array) -> Units:
    """The units of a reader, of which some are what a ReLU before it gives, and so active."""
    state, lower, upper = units.state.copy(), units.lower.copy(), units.upper.copy()
    origin, home = units.origin.copy(), units.home.copy()
    state[at], lower[at], origin[at], home[at] = State.ACTIVE, 0.0, -1, ""
    upper[at] = np.maximum(units.kept(at).moved(error).upper, 0.0)
    return Units(state, lower, upper, origin, home)


def _felt(weights: Array, rounded: Change, felt: Array, active: Mask, off: Mask) -> Change:
    """What readers with some weights see of ReLUs whose pre-activations were rounded, and are off by ``felt`` besides.

    t · rounded, where t is 1 for active units, 0 for those that are off, else ½ ± ½; the ½ is linear, so that it may
    cancel.
    """
    middle, felt = np.where(off, 0.0, np.where(active, 1.0, 0.5)), np.where(off, 0.0, felt)
    sure = active | off
    with np.errstate(invalid="ignore", over="ignore"):
        unknown = round_up(np.where(sure, 0.0, 0.5) * rounded.most + felt)
        unknown = np.where((rounded.most > 0) & ~sure | (felt > 0), unknown, 0.0)
        passed, shift = middle[:, None] * rounded.matrix, middle * rounded.offset
        reach = np.maximum(np.abs(rounded.lower), np.abs(rounded.upper))
        size = np.abs(weights) @ (np.abs(passed) @ reach + np.abs(shift))
        lost = TINY * (1 + reach.sum())  # by each number that falls below all floats
        rest = np.abs(weights) @ (middle * rounded.rest + np.where(middle == 1, 0.0, lost))
        terms = weights.shape[1] + rounded.matrix.shape[1] + 8
        rest = round_up(rest + product_error(rest, terms) + product_error(size, terms) + terms * lost)
        most = weigh_up(weights, np.where(off, 0.0, rounded.most) + felt)
        return Change(
            np.hstack([weights @ passed, weights]),
            weights @ shift,
            np.where(np.isnan(rest), np.inf, rest),
            np.concatenate([rounded.lower, -unknown]),
            np.concatenate([rounded.upper, unknown]),
            np.where(np.isnan(most), np.inf, most),
        )


def _weights(view: View, relu: Relu) -> Iterator[tuple[Affine, Array]]:
    """What reads a ReLU, with its weights (units × units of the ReLU)."""
    for name in view.network.readers[relu.name]:
        reader = view.network.affine(name)
        yield reader, reader.weights_of(relu.name)


def _told(layer: ReluLayer, pairs: Pairs, rows: Indices) -> Lineage:
    """The lineage of the layer's units, of which pairs make lines of some rows: by factors for which they cancel."""
    used, factors = [], []
    for k, (goes, stays) in enumerate(zip(pairs.goes, pairs.stays, strict=True)):
        one, other = layer.outgoing[rows, stays], layer.outgoing[rows, goes]
        reading = np.flatnonzero(other != 0)
        if len(reading):
            first = reading[0]
            used.append(k)
            factors.append(one[first] / other[first] if one[first] * other[first] < 0 else pairs.factor[k])
    at = np.array(used, np.int64)
    found = Pairs(pairs.goes[at], pairs.stays[at], np.array(factors, np.float64), pairs.error[at])
    return found.told(layer)


def _folded(lifted: Rewrite, folds: list[Next]) -> Rewrite | None:
    """The same, with what is a line now folded into what reads it; None where nothing is."""
    view, changes, count = lifted.view, dict(lifted.changes), 0
    for after in folds:
        if after.reader.name in changes:
            continue  # a change of a node that is gone would be forgotten
        known = view.facts.moved(carry(view.network, view.facts.bounds, changes))  # what is active may not quite be so
        found = fold_linear(View(view.network, known), after.relu.name)
        made = found.make(0) if isinstance(found, Ladder) else None
        if not isinstance(made, Rewrite):
            continue
        units = {
            name: view.facts.units[name] if known.units.get(name) is of_node else of_node
            for name, of_node in made.view.facts.units.items()
        }
        view, count = View(made.view.network, replace(made.view.facts, units=units)), count + 1
        for reader, found_there in made.changes.items():
            more = replace(found_there, within=None)  # it is about a network that is none of the view's
            changes[reader] = changes[reader].plus(more) if reader in changes else more
    return Rewrite(view, f"{lifted.what}, of which {count} layer(s) fold", changes) if count else None
