"""Which ReLUs never change state on the domain: :class:`Work` in, a :class:`StabilityMap` out."""

from __future__ import annotations

import time

import numpy as np

from leo_core.bounds.interval import bound_network
from leo_core.checker.environment import ieee
from leo_core.domain import Box
from leo_core.execution.budget import Budget
from leo_core.execution.events import Listener, silent
from leo_core.network import Network, Relu
from leo_core.search.witness import signs_at
from leo_core.stability.cascade import decide_by_cascade
from leo_core.stability.isa import decide_by_one_milp
from leo_core.stability.outputs import proved_of_outputs
from leo_core.stability.paper import decide_by_milp
from leo_core.stability.tally import Tally
from leo_core.stability.verdict import LayerStability, Method, StabilityMap, State
from leo_core.stability.work import Work

__all__ = ["LayerStability", "Method", "StabilityMap", "State", "Work", "decide"]


_STRATEGIES = {"cascade": decide_by_cascade, "isa": decide_by_one_milp, "paper": decide_by_milp}


@ieee()
def decide(work: Work, listener: Listener = silent) -> StabilityMap:
    """Decide the state of every ReLU on a box; of the outputs, what intervals say.

    Whatever ends the work early (the budget, Ctrl-C, the end of memory), the map returned is valid: what is not shown
    is undecided.
    """
    network, box = work.network, work.box
    begun = time.monotonic()
    tally = Tally(network, listener)
    outputs = _unknown(network)
    interrupted = False
    try:
        with np.errstate(all="ignore"):  # an overflow makes a bound infinite or NaN, and the unit stays undecided
            outputs = _intervals(network, box, tally)
            _recall(work, tally)
            _STRATEGIES[work.strategy](work, tally)
    except KeyboardInterrupt:
        interrupted = True
    except MemoryError:
        interrupted = True
        tally.note(
            "the memory was not enough; what was not decided by then is kept as it is; fewer jobs or "
            "a tighter domain take less"
        )
    return StabilityMap(
        network=network,
        box=box,
        layers=tally.layers(),
        outputs=outputs,
        strategy=work.strategy,
        solver=work.solver.name,
        seconds=time.monotonic() - begun,
        trusted=work.trust == "solver",
        interrupted=interrupted,
    )


def _recall(work: Work, tally: Tally) -> None:
    """What is known before: bounds, and witnesses, each evaluated again."""
    for name, layer in work.known.items():
        relu = work.network[name]
        assert isinstance(relu, Relu)
        tally.bound(relu.source, layer.lower, layer.upper)
        units = np.repeat(np.array(list(layer.witnesses), dtype=np.int64), 2)
        if not len(units):
            continue
        points = np.concatenate(list(layer.witnesses.values()))
        signs = signs_at(work.network, relu.source, units, points)
        for unit, sign, point in zip(units.tolist(), signs.tolist(), points, strict=True):
            if sign:
                tally.refute(relu.source, unit, sign, point)


def _unknown(network: Network) -> LayerStability:
    """Of outputs of which nothing is known."""
    nothing, size = np.zeros(network.output_size), network.output_size
    state, method = np.full(size, State.UNDECIDED), np.full(size, Method.NONE)
    return LayerStability(network.output, state, method, nothing - np.inf, nothing + np.inf)


def _intervals(network: Network, box: Box, tally: Tally) -> LayerStability:
    """Interval bounds for every layer first, so that an early end still has a bound for each unit; and for outputs."""
    region = bound_network(network, box)
    for name, interval in region.intervals.items():
        if tally.follows(name):
            tally.bound(name, *interval)
    return proved_of_outputs(network, region, Budget.of(0.0))
