"""Every affine node's value at given points, and how far it may be off: a run in float64 that keeps track of its error.

Where a node sums N products and a bias, of values h that are off by at most e each, Higham (Accuracy and Stability of
Numerical Algorithms, section 3.1) gives

    error ≤ |A| e + γ (|A| (|h| + e) + |b|) = |A| (e + γ (|h| + e)) + γ |b|,

so that one product with |A| is enough, where bounds by centre and radius take two. A ReLU passes an error on, but of a
unit that is off no more than reaches above zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import TINY, gamma
from leo_core.bounds.interval import rounded_off
from leo_core.network import INPUT, Affine, Network, Relu, sources_of

Array = NDArray[np.float64]

#: What a few roundings of numbers from 0 on can cost, relative to what comes out.
_MORE = 1 + 2.0**-50


def values_at(network: Network, points: Array) -> Iterator[tuple[Affine, Array, Array]]:
    """Each affine node with (values, errors) at points (count, inputs), both of shape (count, units).

    The exact value of a unit is within its error, which may be infinite, of the finite value given; so it is for every
    network that stored numbers may stand for (:class:`~leo_core.network.Own`).
    """
    known: dict[str, tuple[Array, Array]] = {INPUT: (points, np.zeros_like(points))}
    readers = {name: len(found) for name, found in network.readers.items()}
    for node in network.nodes:
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            known[node.name] = _affine(node, known) if isinstance(node, Affine) else _relu(node, *known[node.source])
        if isinstance(node, Affine):
            yield node, *known[node.name]
        for source in set(sources_of(node)):
            readers[source] -= 1
        for name in (node.name, *sources_of(node)):  # what nobody reads any more takes no memory
            if name in known and not readers[name]:
                del known[name]


def _affine(node: Affine, known: Mapping[str, tuple[Array, Array]]) -> tuple[Array, Array]:
    value = node.apply({source: known[source][0] for source in node.sources})
    if len(node.maps) == 1 and node.maps[0].picks and not node.bias.any() and node.own is None:
        return value, node.maps[0].apply(known[node.sources[0]][1])
    terms = 2 + sum(linear.terms + 2 for linear in node.maps)
    factor = gamma(terms)
    error: Any = factor * np.abs(node.bias.astype(np.float64)) + (terms + 4) * TINY
    size: Any = np.abs(node.bias.astype(np.float64))
    for source, linear in node.reads:
        entering, off = known[source]
        reach = np.abs(entering) + off
        error = error + linear.absolute().apply(off + factor * reach + 4 * TINY)
        if node.own is not None:
            size = size + linear.absolute().apply(reach)
    error = error * (1 + gamma(terms + 16)) + rounded_off(node, size)
    finite = np.isfinite(value)
    return np.where(finite, value, 0.0), np.where(finite & ~np.isnan(error), error, np.inf)


def _relu(node: Relu, z: Array, error: Array) -> tuple[Array, Array]:
    above = np.minimum(error, np.maximum((z + error) * _MORE + TINY, 0.0))
    if not node.slope.any():
        return np.maximum(z, 0.0), above
    value = np.where(z >= 0, z, node.slope * z)
    leaks = (error + 2.0**-52 * np.abs(value)) * _MORE + TINY  # no slope is above 1
    finite = np.isfinite(value)
    error = np.where(node.slope == 0, above, leaks)
    return np.where(finite, value, 0.0), np.where(finite, error, np.inf)
