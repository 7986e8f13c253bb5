"""The compressed network beside the original: how far apart they can be, for any account of what became of units.

A unit that both have differs by what its input differs, times a t in [slope, 1]; any other is a line over its interval
[L, U], up to an error seen at L, 0 and U. So compressed − original is a linear form of the original's units and
inputs, traced from the outputs back, plus small terms. Before that, node by node from the inputs on, :mod:`.beside`
says how far a unit can be from what it was: exactly zero, where nothing is gone but what is always zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from .beside import Match, distance
from .bounds import (
    Bounded,
    Region,
    chunk,
    interval,
    one_hot,
    reach,
    rounding_weight,
    upper_bound,
    values_of,
)
from .errors import Refused
from .networks import Net, Node
from .numbers import TINY, gamma, rational, times, two_sum, upwards

Array = Any

EXACTLY = 1000  # times as long do rationals take


@dataclass(frozen=True, eq=False)
class Roles:
    """What became of the original's units; none of it is believed.

    ``kept``: by ReLU of the compressed network, the original's ReLU and, per unit, which of its units it is (−1: a new
    one); and so by affine node that no ReLU reads, unless all its units are those of the original's node of that name.
    ``lifted``: by ReLU of the compressed network, other ReLUs of the original that units of it stood behind, likewise.
    ``copies``: by ReLU of the original, (unit, of, factor), one after the other: z_unit ≈ factor · z_of.
    ``lines``: by ReLU of the original, (units, gain, offset) of units taken for a line though their sign is open.
    """

    kept: Mapping[str, tuple[str, Array]] = field(default_factory=dict)
    copies: Mapping[str, Sequence[tuple[int, int, float]]] = field(default_factory=dict)
    lines: Mapping[str, tuple[Array, Array, Array]] = field(default_factory=dict)
    lifted: Mapping[str, Sequence[tuple[str, Array]]] = field(default_factory=dict)

    def of(self, relu: Node) -> list[tuple[str, Array]]:
        """The ReLUs of the original that units of a compressed network's stood behind; each stood behind one."""
        found = [*([self.kept[relu.name]] if relu.name in self.kept else []), *self.lifted.get(relu.name, ())]
        if any(len(origin) != relu.size for _, origin in found):
            raise Refused(f"the units of '{relu.name}' are not as many as it is said")
        if found and (np.sum([origin >= 0 for _, origin in found], axis=0) > 1).any():
            raise Refused(f"a unit of '{relu.name}' cannot be two of the original's")
        return found


class Difference:
    """compressed − original on a region of the original; ``exact``: over the rationals, where all of it is bounded.

    ``step`` is called at every node that is passed; what it raises ends the work.
    """

    def __init__(
        self, original: Net, compressed: Net, region: Region, roles: Roles, *,
        exact: bool = False, step: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.step = step
        self.f, self.g, self.region, self.roles = original, compressed, region, roles
        self.number = rational if exact else lambda values: np.asarray(values, dtype=np.float64)
        self.rounded = not exact
        self.own: Region = {"input": region["input"]}  # of the compressed network
        self.old, self.new = Bounded(original, region), Bounded(compressed, self.own)
        self.lines = {node.name: self._lines(node) for node in original.nodes if node.relu}
        self.copies: dict[str, list[tuple[int, int, float, float]]] = {}
        for node in original.nodes:
            for unit, of, factor in roles.copies.get(node.name, ()):
                if unit == of or not 0 <= unit < node.size or not 0 <= of < node.size:
                    raise Refused(f"unit {unit} of '{node.name}' as a copy of unit {of}")
                price = one_hot(np.array([unit]), node.size)
                price[0, of] = -factor
                apart = self._most({node.sources[0]: self.number(price)}, {})[0]
                self.copies.setdefault(node.name, []).append((unit, of, factor, apart))
        if original.inputs != compressed.inputs:
            raise Refused("the networks have different inputs or outputs")
        inputs = np.arange(original.inputs)
        self.known = {"input": Match("input", inputs, np.zeros(len(inputs)))}  # by node of the compressed network
        self.moved: dict[str, Array] = {}  # by ReLU of the compressed network: how far a kept unit's input is
        self.line_error: dict[str, Array] = {}  # … how far a new unit is from its input
        for node in compressed.nodes:
            if not node.relu:
                self._enter(node)

    def deviation(self) -> float:
        """The most by which an output of the two differs."""
        return float(self.deviations().max())

    def deviations(self) -> Array:
        """The most by which each output of the two differs."""
        size = self.f.by_name[self.f.output].size
        if size != self.g.by_name[self.g.output].size:
            raise Refused("the networks have different inputs or outputs")
        match = self.known.get(self.g.output)
        if match is None or match.of != self.f.output or (match.origin != np.arange(size)).any():
            match = Match(self.f.output, np.arange(size), np.full(size, np.inf))
        return self._nearer(match, self.f.output, self.g.output)

    def _nearer(self, match: Match, old: str, new: str) -> Array:
        """How far each unit of ``new`` is from the one of ``old`` that it is, traced where that is affordable."""
        found = match.apart.copy()
        far = np.flatnonzero((match.origin >= 0) & (found > 0))
        step = min(chunk(self.f), chunk(self.g)) if self.f.products or self.g.products else max(1, len(far))
        if all(net.affords(len(far) * (1 if self.rounded else EXACTLY)) for net in (self.f, self.g)):
            for units in (far[start : start + step] for start in range(0, len(far), step)):
                here = one_hot(units, self.g.by_name[new].size)
                there = one_hot(match.origin[units], self.f.by_name[old].size, -1.0)
                found[units] = np.fmin(found[units], self._most({old: self.number(there)}, {new: self.number(here)}))
        return found

    def _lines(self, node: Node) -> tuple[Array, Array, Array, Array]:
        """(whether a unit is taken for a line, gain, offset, error)."""
        low, high = (side[0] for side in self.region[node.sources[0]])
        gain, offset = np.where(low >= 0, 1.0, node.slope), np.zeros(node.size)
        line = (low >= 0) | (high <= 0)
        units, given, shift = self.roles.lines.get(node.name, (np.zeros(0, np.int64), np.zeros(0), np.zeros(0)))
        line[units], gain[units], offset[units] = True, given, shift
        exactly = (offset == 0) & (((low >= 0) & (gain == 1)) | ((high <= 0) & (gain == node.slope)))
        ends = [low, np.clip(0.0, low, high), high]
        error = np.zeros(node.size)
        with np.errstate(invalid="ignore", over="ignore"):
            for end in ends:
                value = np.where(end >= 0, end, node.slope * end)
                off = np.abs(value - gain * end - offset) + gamma(8) * (
                    np.abs(gain * end) + np.abs(end) + np.abs(offset)
                )
                error = np.maximum(error, off + TINY)
        return line, gain, offset, np.where(exactly, 0.0, np.where(np.isnan(error), np.inf, error))

    def _enter(self, node: Node) -> None:
        """Bound an affine node of the compressed network, and how far its units are from the original's."""
        low, high, _ = (side[0] for side in interval(self.g, node, self.own))
        relus = self.g.rectified.get(node.name, ())
        for relu in relus:
            moved, unknown = np.zeros(relu.size), np.ones(relu.size, dtype=bool)
            for part, (name, origin) in enumerate(self.roles.of(relu)):
                kept = np.flatnonzero(origin >= 0)
                if not len(kept):
                    continue
                before, old = self.f.by_name[name], origin[kept]
                if not before.relu:
                    raise Refused(f"the units of '{relu.name}' are not those of '{name}'")
                if (before.slope[old] != relu.slope[kept]).any():
                    raise Refused(f"'{relu.name}' and '{name}' leak differently")
                source = before.sources[0]
                first = part == 0 and relu.name in self.roles.kept
                match = self._match(node, source, origin) if first else self._apart(source, origin)
                apart = self._nearer(match, source, node.name)
                ends = [side[0, old] for side in self.region[source]]
                for side, end, sign in zip((low, high), ends, (-1, 1), strict=True):
                    beyond = np.where(apart[kept] > 0, np.nextafter(end + sign * apart[kept], sign * np.inf), end)
                    side[kept] = sign * np.fmin(sign * side[kept], sign * beyond)
                moved[kept], unknown[kept] = apart[kept], False
                if first:
                    self.known.setdefault(node.name, Match(source, origin, apart))
                    far = apart.copy()
                    both_zero = (high[kept] <= 0) & (ends[1] <= 0) & (relu.slope[kept] == 0)
                    far[kept[both_zero]] = 0.0
                    self.known[relu.name] = Match(name, origin, far)
            new = np.flatnonzero(unknown & (low < 0))
            if len(new) and set(node.sources) != {"input"} and self.g.affords(len(new)):
                price, zero = one_hot(new, relu.size, -1.0), np.zeros(len(new), np.int64)
                region = {**self.own, node.name: (low[None], high[None])}
                low[new] = np.fmax(low[new], -upwards(upper_bound(self.g, node.name, price, region, zero)))
            self.moved[relu.name] = moved
            drop = np.where(relu.slope == 0, 1.0, np.nextafter(1 - relu.slope, 2))
            self.line_error[relu.name] = np.where(low < 0, np.nextafter(-drop * low, np.inf), 0.0)
        self.own[node.name] = (low[None], high[None])
        if not relus and (whose := self._whose(node)):
            self.known[node.name] = self._match(node, *whose)

    def _whose(self, node: Node) -> tuple[str, Array] | None:
        """The affine node of the original that one of the compressed network is, as far as is known, and its units."""
        if node.name in self.roles.kept:
            return self.roles.kept[node.name]
        name = self.f.output if node.name == self.g.output else node.name
        same = name in self.f.by_name and not self.f.by_name[name].relu and self.f.by_name[name].size == node.size
        return (name, np.arange(node.size)) if same else None

    def _apart(self, name: str, origin: Array) -> Match:
        """Units that are some of another node's, of which nothing more is known yet."""
        units = origin[origin >= 0]
        if (units >= self.f.by_name[name].size).any() or len(np.unique(units)) < len(units):
            raise Refused(f"units that are not those of '{name}', each once")
        return Match(name, origin, np.where(origin >= 0, np.inf, 0.0))

    def _match(self, node: Node, name: str, origin: Array) -> Match:
        """How far an affine node's units are from those of one of the original, by what both read."""
        old, units = self.f.by_name[name], origin[origin >= 0]
        if old.relu or len(origin) != node.size or len(np.unique(units)) < len(units):
            raise Refused(f"the units of '{node.name}' are not those of '{name}'")
        return Match(name, origin, distance(self.old, self.new, old, node, origin, self.known))

    def _most(self, of_f: dict[str, Array], of_g: dict[str, Array]) -> Array:
        """The same as :meth:`largest`; infinite where a bound is, which is no rational."""
        count = len(next(iter((of_f | of_g).values())))
        try:
            return self.largest(of_f, of_g)
        except (OverflowError, ValueError):
            return np.full(count, np.inf)

    def largest(self, of_f: dict[str, Array], of_g: dict[str, Array]) -> Array:
        """Per row, the most that |prices · values| is, for prices by node of the original and of the compressed."""
        count = len(next(iter((of_f | of_g).values())))
        trace = _Trace(self.number, self.rounded, count)
        for node in reversed(self.g.nodes):
            self.step()
            if not node.relu:
                trace.through(self.new, node, of_g)
            elif node.name in of_g:
                self._through_new(node, of_g.pop(node.name), of_f, of_g, trace)
        for node in reversed(self.f.nodes):
            self.step()
            if not node.relu:
                trace.through(self.old, node, of_f)
            elif node.name in of_f:
                self._through_old(node, of_f.pop(node.name), of_f, trace)
        for flows in (of_f, of_g):
            if "input" in flows:
                trace.add(self.old, trace.inputs, "input", flows["input"])
        if trace.inputs:
            trace.end(trace.inputs["input"], *self.region["input"])
        return trace.bound()

    def _through_new(
        self, node: Node, price: Array, of_f: dict[str, Array], of_g: dict[str, Array], trace: _Trace
    ) -> None:
        """A ReLU of the compressed network: a kept unit is the original's and t times how far its input has moved."""
        source = node.sources[0]
        new = np.ones(node.size, dtype=bool)
        parts = [(name, origin, np.flatnonzero(origin >= 0)) for name, origin in self.roles.of(node)]
        for _, _, kept in parts:
            new[kept] = False
        own = np.where(new, price, price * 0)
        trace.lose(np.abs(own), self.line_error[node.name])
        for name, origin, kept in parts:
            if not len(kept):
                continue
            before, old = self.f.by_name[name], origin[kept]
            moved = self.moved[node.name][kept]
            trace.add(self.old, of_f, name, spread(price[:, kept], old, before.size))
            low, high = (side[0, old] for side in self.region[before.sources[0]])
            own_low, own_high = (side[0, kept] for side in self.own[source])
            active, inactive = (low >= 0) & (own_low >= 0), (high <= 0) & (own_high <= 0)  # in both networks
            least, greatest = (
                np.where(active, 1.0, node.slope[kept]),
                np.where(inactive & ~active, node.slope[kept], 1.0),
            )
            middle = 0.5 * (least + greatest)
            radius = np.maximum(greatest - middle, middle - least)
            passed = price[:, kept] * self.number(np.where(moved > 0, middle, 0.0))
            uncertain = np.nextafter(np.nextafter(radius, 2) * moved, np.inf)
            trace.lose(np.abs(price[:, kept]), np.where((radius > 0) & (moved > 0), uncertain, 0.0))
            trace.lose_rounding(np.abs(price[:, kept]), gamma(4), np.where(middle == 1, 0.0, moved))
            own = own + spread(passed, kept, node.size)
            trace.add(self.old, of_f, before.sources[0], -spread(passed, old, before.size))
        trace.add(self.new, of_g, source, own)

    def _through_old(self, node: Node, price: Array, of_f: dict[str, Array], trace: _Trace) -> None:
        """A ReLU of the original: copies go to what they are copies of, lines to their input, the rest is bounded."""
        source = node.sources[0]
        limit, input_limit = reach(self.f, self.region, node.name), reach(self.f, self.region, source)
        for unit, of, factor, apart in self.copies.get(node.name, ()):
            flow = price[:, unit] * self.number(abs(factor))
            size = np.abs(price[:, unit : unit + 1])
            trace.lose(size, np.array([apart]))
            trace.lose_rounding(size, 2 * gamma(4) * abs(factor), np.array([limit[of] + input_limit[of]]))
            if factor < 0:  # relu(−z) = relu(z) − z
                if node.slope[of] or node.slope[unit]:
                    raise Refused("a leaky unit as the opposite of another")
                trace.add(self.old, of_f, source, -spread(flow[:, None], np.array([of]), node.size))
            elif node.slope[of] != node.slope[unit]:
                raise Refused("a unit as the copy of one that leaks differently")
            price = price.copy()
            price[:, unit] = price[:, unit] * 0
            there = {node.name: price}
            trace.add(self.old, there, node.name, spread(flow[:, None], np.array([of]), node.size))
            price = there[node.name]
        line, gain, offset, error = self.lines[node.name]
        as_line = np.where(line, price, price * 0)
        trace.lose(np.abs(as_line), np.where(line, error, 0.0))
        inexact = np.where(line & ~np.isin(gain, (0.0, 1.0)), input_limit, 0.0)
        trace.lose_rounding(np.abs(as_line), gamma(4) * np.abs(gain), inexact)
        trace.add(self.old, of_f, source, as_line * self.number(np.where(line, gain, 0.0)))
        trace.shift(as_line, np.where(line, offset, 0.0))
        trace.end(np.where(line, price * 0, price), *values_of(self.f, self.region, node.name))


class _Trace:
    """The sum of a backward pass: an interval that the linear part lies in, and a radius for all else."""

    def __init__(self, number: Callable[[Array], Array], rounded: bool, count: int) -> None:
        self.number, self.rounded = number, rounded
        self.total = number(np.zeros(count))
        self.low, self.high, self.slack = self.total, self.total, self.total
        self.inputs: dict[str, Array] = {}
        self.additions = 0

    def lose(self, size: Array, error: Array) -> None:
        """Prices of this size times an error, which is not negative."""
        used = np.flatnonzero(error != 0)
        if len(used):
            size = size[:, used]
            self._widen((size @ self.number(error[used])) * (1 + self._gamma(len(used))))
            self._underflow(size, np.ones(len(used)))

    def lose_rounding(self, size: Array, part: Array | float, limit: Array) -> None:
        """Prices of this size, rounded by such a part of them or by underflow, times what is at most the limit."""
        used = np.flatnonzero(limit != 0)
        if self.rounded and len(used):
            self.lose(size[:, used], np.broadcast_to(part, limit.shape)[used] * limit[used] + TINY)
            self._underflow(size[:, used], limit[used])

    def add(self, of: Bounded, flows: dict[str, Array], name: str, flow: Array) -> None:
        """Add to what a node collects; what the sum rounds is known exactly."""
        if name not in flows:
            flows[name] = flow
            return
        flows[name], error = two_sum(flows[name], flow)
        if self.rounded and error.any():
            terms = error.shape[1]
            self._widen((error @ (reach(of.net, of.region, name) + TINY)) * (1 + gamma(terms)) + terms * TINY)

    def through(self, of: Bounded, node: Node, flows: dict[str, Array]) -> None:
        """An affine node: its price goes to its bias and, times its weights, to what it reads."""
        if node.name not in flows:
            return
        price = flows.pop(node.name)
        if self.rounded:
            terms = node.size + node.terms
            weight, entering = rounding_weight(of.net, node, of.region)
            error = gamma(terms) * (np.abs(price) @ weight) + terms * TINY * (1 + entering)
            self._widen(np.where(copied(price), 0.0, error))
        self._shift(times(price, node.bias[:, None])[:, 0])
        for source, linear in node.reads:
            self.add(of, flows, source, linear.back(price))

    def shift(self, price: Array, constants: Array) -> None:
        """Prices times constants."""
        used = np.flatnonzero(constants != 0)
        if len(used):
            size = np.abs(price[:, used])
            self.lose_rounding(size, gamma(len(used)), np.abs(constants[used]))
            self._shift(times(price[:, used], constants[used, None])[:, 0])

    def end(self, price: Array, low: Array, high: Array) -> None:
        """Prices of what is known to lie between two bounds only."""
        used = np.flatnonzero((price != 0).any(axis=0))
        if len(used) == 0:
            return
        price = price[:, used]
        ends = [price * self.number(side[0, used]) for side in (low, high)]
        self.low = self.low + np.minimum(*ends).sum(axis=1)
        self.high = self.high + np.maximum(*ends).sum(axis=1)
        limit = np.maximum(np.abs(low), np.abs(high))[0, used]
        self.lose_rounding(np.abs(price), gamma(len(used) + 64), limit)

    def bound(self) -> Array:
        """Per row, the largest absolute value, rounded up."""
        top, bottom = self.total + self.high, self.total + self.low
        largest = np.maximum(np.abs(top), np.abs(bottom)) + self.slack
        if self.rounded:
            return np.where(np.isnan(largest), np.inf, largest * (1 + 2.0**-40 + gamma(self.additions)))
        return upwards(largest)

    def _shift(self, amount: Array) -> None:
        self.total, error = two_sum(self.total, amount)
        self._widen(error)

    def _widen(self, amount: Array) -> None:
        self.slack = self.slack + amount
        self.additions += 1

    def _underflow(self, size: Array, limit: Array) -> None:
        """What is lost where a product with a price that is not zero falls below all floats, times up to the limit."""
        if self.rounded:
            self._widen(np.where(size.any(axis=1), TINY * limit.sum(), 0.0))

    def _gamma(self, terms: int) -> Any:
        return gamma(terms) if self.rounded else 0


def copied(price: Array) -> Array:
    """Which rows hold nothing but one ±1: a product with such a row is not rounded."""
    return (np.count_nonzero(price, axis=1) <= 1) & ((price == 0) | (np.abs(price) == 1)).all(axis=1)


def spread(columns: Array, places: Array, size: int) -> Array:
    """Columns put at their places among ``size``."""
    result = np.zeros((len(columns), size), dtype=columns.dtype)
    if columns.dtype == object:
        result[:] = Fraction(0)
    result[:, places] = columns
    return result
