"""What 'smaller' means: networks are compared by these tuples, the first entry counting most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

from leo_core.network import Affine, Network

Size: TypeAlias = Callable[[Network], tuple[int, ...]]


def by_connections(network: Network) -> tuple[int, ...]:
    """For those who store or run the network."""
    return network.connections, network.units, *_rest(network)


def by_units(network: Network) -> tuple[int, ...]:
    """For those who verify it or optimise over it, where every ReLU may be a binary variable."""
    return network.units, network.connections, *_rest(network)


def by_parameters(network: Network) -> tuple[int, ...]:
    """Connections and biases together."""
    return network.parameters, network.units, *_rest(network)


def _rest(network: Network) -> tuple[int, ...]:
    nonzeros = sum(m.nonzeros for node in network.nodes if isinstance(node, Affine) for m in node.maps)
    return nonzeros, len(network.nodes)


OBJECTIVES: Mapping[str, Size] = MappingProxyType(
    {"connections": by_connections, "units": by_units, "parameters": by_parameters}
)
