"""One pass by itself: what it proposes at the nodes of a network of which the exact truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np
from truth import extremes, largest_difference, state_of

from leo_core.arithmetic import float_down, float_up
from leo_core.bounds.change import carry
from leo_core.bounds.interval import bound_network
from leo_core.domain import Box
from leo_core.execution.budget import Budget
from leo_core.linear import Dense
from leo_core.network import Affine, Network, Relu
from leo_core.rewrite.climb import Climbed, Tolerance, climb
from leo_core.rewrite.facts import Facts, Units
from leo_core.rewrite.step import Ladder, Pass, Refusal, Rewrite
from leo_core.rewrite.view import View
from leo_core.stability.verdict import State

INFINITE = 1e300


def dense(name, source, matrix, bias, dtype=np.float64):
    return Affine(name, (source,), (Dense(np.array(matrix, dtype)),), np.array(bias, dtype))


def relu(name, source, size, slope=0.0):
    return Relu(name, source, np.full(size, slope))


def true_view(network: Network, box: Box) -> View:
    """A network of one or two inputs with what is true of its units, over the rationals."""
    found, units = extremes(network, box), {}
    for node in network.relus:
        ends = found[node.source]
        states = np.array([state_of(low, high) for low, high in ends], dtype=np.int8)
        lower, upper = np.array([float_down(low) for low, _ in ends]), np.array([float_up(high) for _, high in ends])
        units[node.source] = Units(states, lower, upper, np.arange(node.size))
    return View(network, Facts(box, units))


def view_of(network: Network, box: Box) -> View:
    """The same by intervals alone, for more inputs."""
    region, units = bound_network(network, box), {}
    for node in network.relus:
        lower, upper = region.intervals[node.source]
        state = np.where(upper <= 0, State.INACTIVE, np.where(lower >= 0, State.ACTIVE, State.UNSTABLE))
        units[node.source] = Units(state.astype(np.int8), lower, upper, np.arange(node.size))
    return View(network, Facts(box, units))


def kept(look: Pass, view: View, name: str, tolerance: float = INFINITE) -> Climbed | Refusal | None:
    """What the pipeline would take of what a pass proposes."""
    found = look(view, name)
    if not isinstance(found, Ladder):
        return found
    allowed = Tolerance(np.zeros(view.network.output_size), tolerance, tolerance)
    climbed = climb(view, found, allowed, Budget())
    return found.otherwise if climbed is None else climbed


def made(ladder: Ladder) -> Iterator[Rewrite]:
    """All proposals, of every rung."""
    for rung in range(ladder.rungs):
        found = ladder.make(rung)
        if isinstance(found, Ladder):
            yield from made(found)
        elif found is not None:
            yield found


def carried(proposal: Rewrite) -> dict[str, np.ndarray]:
    """How far each node moves by a proposal."""
    return carry(proposal.view.network, proposal.view.facts.bounds, proposal.changes)


def proposes_only_what_is_proved(look: Pass, network: Network, box: Box) -> int:
    """No proposal of a pass, at any node and on any rung, is further away than its δ; how many there were.

    δ is the least that is proved: on the whole box, and on parts of it.
    """
    view, count = true_view(network, box), 0
    for node in network.nodes:
        found = look(view, node.name)
        for proposal in made(found) if isinstance(found, Ladder) else ():
            moved = carried(proposal)
            added = moved.get(proposal.view.network.output, np.zeros(network.output_size))
            allowed = Tolerance(np.zeros(network.output_size), INFINITE, INFINITE)
            narrowed = allowed.narrowed(view, Climbed(proposal, added, moved)).added
            assert (narrowed <= added).all()
            deviation = float(narrowed.max())
            assert not np.isnan(deviation)
            if np.isfinite(deviation):
                assert largest_difference(network, proposal.view.network, box) <= Fraction(deviation)
            count += 1
    return count
