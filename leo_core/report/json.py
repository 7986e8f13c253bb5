"""Results as plain values that :mod:`json` can write: the contract behind ``--json``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from leo_core.compare import Comparison
from leo_core.domain import Box
from leo_core.network import Network
from leo_core.stability.cross_check import CrossCheck
from leo_core.stability.verdict import StabilityMap, State


def stability_json(stability: StabilityMap) -> dict[str, Any]:
    """Counts per ReLU layer, and how they came about."""
    return {
        "layers": [
            {
                "name": layer.relu,
                "units": layer.units,
                "active": layer.count(State.ACTIVE),
                "inactive": layer.count(State.INACTIVE),
                "unstable": layer.count(State.UNSTABLE),
                "undecided": layer.count(State.UNDECIDED),
                **({"channels": counts} if (counts := layer.channel_counts()) else {}),
            }
            for layer in stability.layers.values()
        ],
        "asked": "groups" if stability.by_channels else "units",
        "seconds": round(stability.seconds, 6),
        "strategy": stability.strategy,
        "solver": stability.solver,
        "trust": "solver" if stability.trusted else "proved",
        "interrupted": stability.interrupted,
    }


def narrowed_json(stability: StabilityMap, gap: float) -> dict[str, Any]:
    """How many bounds were narrowed to within a gap of the true extremes, and how far any may be from it."""
    near, total = stability.bounds.within(gap)
    return {"gap": gap, "within": near, "of": total, "largest": number_json(stability.bounds.gap)}


def cross_check_json(found: CrossCheck) -> dict[str, Any]:
    """The first decision as ``inspect`` has it, and how the second compares."""
    return {
        **stability_json(found.first),
        "interrupted": found.first.interrupted or found.second.interrupted,
        "cross_check": {
            "solvers": [found.first.solver, found.second.solver],
            "seconds": [round(one.seconds, 6) for one in (found.first, found.second)],
            "asked": list(found.asked),
            "failed": list(found.failed),
            "compared": found.compared,
            "contradictions": [
                {"question": item.question, "solvers": list(item.solvers), "what": item.what}
                for item in found.contradictions
            ],
            "decided_by_one": found.decided_by_one,
            "disagreements": [
                {
                    "layer": item.relu,
                    "unit": item.unit,
                    "states": [item.first.name.lower(), item.second.name.lower()],
                }
                for item in found.disagreements
            ],
        },
    }


def network_json(network: Network) -> dict[str, Any]:
    """The size of a network."""
    return {
        "widths": list(network.widths),
        "connections": network.connections,
        "nonzeros": network.nonzeros,
        "operations": network.operations,
        "parameters": network.parameters,
    }


def comparison_json(found: Comparison) -> dict[str, Any]:
    """The contract of ``leo verify --json``."""
    at = found.largest
    return {
        "upper": number_json(found.upper),
        "lower": found.lower,
        "witness": found.witness.tolist(),
        "verdict": found.verdict,
        "largest": None
        if at is None
        else {
            "output": at,
            "name": found.signature.called(at),
            "first": number_json(found.first[at]),
            "second": number_json(found.second[at]),
        },
        "tail": found.tail,
        "outputs_upper": number_json(found.outputs_upper),
        "interrupted": found.interrupted,
    }


def outside(points: Any, box: Box) -> int:
    """How many of some inputs (examples × inputs) lie outside a box."""
    values = np.asarray(points, dtype=np.float64)
    return int(np.count_nonzero(((values < box.lower) | (values > box.upper)).any(axis=1)))


def details_json(network: Network) -> dict[str, Any]:
    """What else is said of a network's size."""
    return {
        "units": network.units,
        "inner_connections": network.inner_connections,
        "largest_weight": network.largest_weight,
    }


def number_json(value: float) -> float | None:
    """A number as JSON knows them: an infinite one (nothing proved) becomes null."""
    return value if math.isfinite(value) else None
