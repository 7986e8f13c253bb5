"""Results as plain values that :mod:`json` can write: the contract behind ``--json``."""

from __future__ import annotations

import contextlib
import hashlib
import math
import platform
import re
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np

from leo_core.compare import Comparison
from leo_core.domain import Box
from leo_core.network import INPUT, Affine, Network, sources_of
from leo_core.rewrite.footprint import footprint
from leo_core.stability.cross_check import CrossCheck
from leo_core.stability.verdict import LayerStability, Method, StabilityMap, State

_PLAIN = (str, int, float, type(None))
#: So many ranges of one layer are listed at most.
_RANGES = 64


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
    """The size of a network, and what it takes where it runs."""
    found = footprint(network)
    return {
        "widths": list(network.widths),
        "connections": network.connections,
        "nonzeros": network.nonzeros,
        "operations": network.operations,
        "parameters": network.parameters,
        "operators": found.operators,
        "activation_bytes": found.activation_bytes,
    }


def comparison_json(found: Comparison) -> dict[str, Any]:
    """The contract of ``leo verify --json``."""
    at = found.largest
    return {
        "upper": number_json(found.upper),
        "lower": found.lower,
        "witness": found.witness.tolist(),
        "within": found.within,
        "asked": None if found.asked is None else found.asked.numbers,
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


def layers_json(stability: StabilityMap) -> list[dict[str, Any]]:
    """What a drawing of the verdicts needs, layer by layer in the order of ``layers``: the report's source."""
    return [
        {
            "name": layer.relu,
            "constant": int(np.count_nonzero((layer.state == State.ACTIVE) & (layer.lower == layer.upper))),
            "how": {method.name.lower(): int(np.count_nonzero(layer.method == method)) for method in Method},
            "ranges": _ranges(layer),
        }
        for layer in stability.layers.values()
    ]


def _ranges(layer: LayerStability) -> dict[str, Any]:
    """Proved ranges of pre-activations, of channels where there are some; evenly chosen ones where there are many."""
    low, high = layer.lower, layer.upper
    kind = np.array([State(state).name.lower() for state in layer.state.tolist()], dtype=object)
    if masks := layer.channel_masks():
        channels = len(masks["inactive"])
        low, high = low.reshape(channels, -1).min(axis=1), high.reshape(channels, -1).max(axis=1)
        kind = np.empty(channels, dtype=object)
        for name, mask in masks.items():
            kind[mask] = name
    order = np.argsort(np.nan_to_num(low / 2 + high / 2), kind="stable")
    shown = order[np.linspace(0, len(order) - 1, min(len(order), _RANGES)).round().astype(np.int64)]
    return {
        "of": "channels" if masks else "units",
        "total": len(low),
        "lower": [_six_digits(value) for value in low[shown].tolist()],
        "upper": [_six_digits(value) for value in high[shown].tolist()],
        "state": kind[shown].tolist(),
    }


def _six_digits(value: float) -> float | None:
    return number_json(float(f"{value:.6g}"))


def nodes_json(network: Network) -> list[dict[str, Any]]:
    """The graph of a network, its input first, as it can be drawn: a channel is a unit where there are none."""
    shape = network.signature.input_shape
    ends = (shape[0], shape[-1]) if len(shape) > 1 and _reads_images(network) else ()
    channels = min(ends, default=0) or network.input_size
    nodes: list[dict[str, Any]] = [
        {"name": INPUT, "kind": "input", "layer": "", "type": "", "reads": [], "channels": channels,
         "units": network.input_size, "weights": 0}
    ]  # fmt: skip
    for node in network.nodes:
        affine = node if isinstance(node, Affine) else network.affine(node.source)
        nodes.append(
            {
                "name": node.name,
                "kind": type(node).__name__.lower(),
                "layer": node.origin.layer,
                "type": node.origin.kind,
                "reads": list(sources_of(node)),
                "channels": affine.groups,
                "units": node.size,
                "weights": sum(linear.weights for linear in node.maps) if isinstance(node, Affine) else 0,
            }
        )
    return nodes


def _reads_images(network: Network) -> bool:
    """Whether the first layers are of images: a dense one takes an image as a flat list, whatever its shape."""
    first = [network[name] for name in network.readers.get(INPUT, ())]
    return any(isinstance(node, Affine) and len(node.shape) > 1 for node in first)


def domain_json(box: Box, given: str = "") -> dict[str, Any]:
    """A domain in short: as it was given, the ends of all of its ranges, and what tells it from any other."""
    return {
        "given": given,
        "inputs": box.size,
        "lower": float(box.lower.min()),
        "upper": float(box.upper.max()),
        "sha256": hashlib.sha256(box.lower.tobytes() + box.upper.tobytes()).hexdigest(),
    }


def verdicts_json(stability: StabilityMap, model: str, domain: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What else there is to say of verdicts: more of each layer, and what was asked, with what."""
    return {
        "layer_details": layers_json(stability),
        "model": model,
        "domain": domain_json(stability.box, domain),
        "options": {name: value if isinstance(value, _PLAIN) else str(value) for name, value in options.items()},
        "versions": versions_json(),
    }


def versions_json() -> dict[str, str]:
    """Python's version, LEO's, and those of the packages it may use, where they are loaded."""
    found = {"leo-compress": metadata.version("leo-compress"), "python": platform.python_version()}
    named = (
        re.split(r"[^\w.-]", requirement, maxsplit=1)[0] for requirement in metadata.requires("leo-compress") or ()
    )
    for name in dict.fromkeys(named):
        if {name, name.removeprefix("python-")}.intersection(sys.modules):
            with contextlib.suppress(metadata.PackageNotFoundError):
                found[name] = metadata.version(name)
    return {**found, "machine": f"{platform.system()} {platform.machine()}"}


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
        "nodes": nodes_json(network),
    }


def number_json(value: float) -> float | None:
    """A number as JSON knows them: an infinite one (nothing proved) becomes null."""
    return value if math.isfinite(value) else None
