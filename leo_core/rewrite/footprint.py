"""What a network costs where it runs: operators, multiplications, and the memory that its activations take at most.

An estimate by liveness, the same for every format: the values of an operator are there from when it runs until the last
operator that reads them has run. What works value by value, on values that nothing else reads, overwrites them, as a
ReLU built into the layer before it does; values laid out anew are taken for the same. Runtimes add what they need
themselves, and lose some memory to gaps between what they put into it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np

from leo_core.linear import Select
from leo_core.network import INPUT, Affine, Network, Node, Origin, Relu, sources_of


@final
@dataclass(frozen=True)
class Footprint:
    """What one input takes.

    Attributes
    ----------
    operators:
        Layers as runtimes run them: poolings and clips as one each, ReLUs built into what they read.
    multiplications:
        By a weight.
    activation_bytes:
        The most memory that values take at one time, the input and the outputs among them.
    """

    operators: int
    multiplications: int
    activation_bytes: int


def footprint(network: Network) -> Footprint:
    """That of a network, in the type that it runs in."""
    operators, outputs = _operators(network), _outputs(network)
    place = _places(network, operators)
    by_end = [*dict.fromkeys(reversed([*operators.values()]))]
    when = {operator: step for step, operator in enumerate(reversed(by_end))}  # in the order of their last nodes
    alive = [dict[str, int]() for _ in range(max(1, len(when)))]  # at each step, how many values lie where
    for name in (INPUT, *operators):
        begin = 0 if name == INPUT else when[operators[name]]
        ends = [when[operators[reader]] for reader in network.readers[name] if reader in operators]
        ends += [len(alive) - 1] if name in outputs else []
        if name != INPUT and max(ends, default=begin) == begin and name not in outputs:
            continue  # inside one operator, or read by none
        for step in range(begin, max(ends, default=begin) + 1):
            alive[step][place[name]] = max(alive[step].get(place[name], 0), network.size(name))
    peak = max(sum(step.values()) for step in alive)
    return Footprint(len(when), network.operations, peak * network.dtype.itemsize)


def _operators(network: Network) -> Mapping[str, str]:
    """For each node that is run, the operator it is part of: the name of the first of its nodes."""
    found: dict[str, str] = {}
    layers: dict[Origin, tuple[str, set[str]]] = {}  # the operator of a layer, its nodes and what they read
    for node in network.nodes:
        if _is_beside(network, node):
            continue
        (first, *_) = sources = sources_of(node)
        built_in = isinstance(node, Relu) and network.readers[first] == (node.name,)
        mine, around = layers.get(node.origin, (node.name, set())) if node.origin.layer else (node.name, set())
        if around.isdisjoint(sources):  # another call of the layer
            mine, around = node.name, set()
        if mine == node.name and first in found and (built_in or _is_laid_anew(node)):
            mine = found[first]
        found[node.name] = mine
        layers[node.origin] = mine, around | {node.name, *sources}
    return found


def _places(network: Network, operators: Mapping[str, str]) -> Mapping[str, str]:
    """For the input and each node that is run, where its values lie: the name of the first that had that place."""
    place = {INPUT: INPUT}
    for node in network.nodes:
        if node.name not in operators:
            continue
        (first, *more) = sources_of(node)
        mine = operators[node.name]
        others = {operators.get(reader, "") for reader in network.readers[first]} - {mine}
        alone = not others and first not in _outputs(network) and not more
        over = (alone and _is_by_value(node)) or _is_laid_anew(node)
        place[node.name] = place[first] if over and first in place else node.name
        if more and mine != node.name and all(operators.get(source) == mine for source in (first, *more)):
            place[node.name] = place[first]  # parts of one layer put together, as a clip's are
    return place


def _outputs(network: Network) -> tuple[str, ...]:
    """The nodes whose values leave the network."""
    last = network[network.output]
    return sources_of(last) if _is_beside(network, last) else (network.output,)


def _is_beside(network: Network, node: Node) -> bool:
    """Whether a node only puts several outputs side by side."""
    several = len(network.signature.outputs) > 1 and node.name == network.output
    return several and isinstance(node, Affine) and all(linear.places for linear in node.maps) and not node.bias.any()


def _is_by_value(node: Node) -> bool:
    return isinstance(node, Relu) or all(linear.scaling() is not None for linear in node.maps)


def _is_laid_anew(node: Node) -> bool:
    """Whether it holds the values that it reads, in some order."""
    if isinstance(node, Relu) or len(node.maps) > 1 or node.bias.any():
        return False
    (linear,) = node.maps
    if not isinstance(linear, Select) or linear.rows != linear.columns:
        return False
    return np.array_equal(np.sort(linear.indices), np.arange(linear.rows))
