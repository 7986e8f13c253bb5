"""How tensors of a format with its channels last hold the values of a network's nodes, which have them first.

A tensor need not lie as its node does: so the order of axes costs a layer only where one, or who reads the output,
needs another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.linear import Conv, ConvTranspose
from leo_core.network import Affine, Network, Relu
from leo_frontends import layers
from leo_frontends.layers import Layout

Array = NDArray[Any]


@final
@dataclass(frozen=True)
class Laid:
    """A tensor of a format that holds the values of a node.

    Attributes
    ----------
    at:
        The tensor, as the writer knows it.
    layout:
        How the node lays its values out.
    order:
        The axes of the layout in the order in which the tensor has them, behind that of the batch.
    """

    at: Any
    layout: Layout
    order: Layout

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """Which of the node's values each of the tensor's is."""
        return places(self.layout, self.order)

    @property
    def shape(self) -> Layout:
        """That of the tensor, behind the batch."""
        return shape(self.layout, self.order)

    def axis(self, axis: int) -> int:
        """Where the tensor has an axis of the layout."""
        return self.order.index(axis) + 1

    def spread(self, array: Array) -> Array:
        """One number for each of the node's values, to be broadcast to the tensor."""
        return layers.compact(array, self.layout).transpose(self.order)


def straight(layout: Layout) -> Layout:
    """The order of the layout itself."""
    return tuple(range(len(layout)))


def channels_last(layout: Layout) -> Layout:
    """The order of images in frameworks that have their channels last."""
    return (*range(1, len(layout)), 0)


def kept_order(given: Laid, layout: Layout) -> Layout:
    """That of the tensor where it has this layout."""
    return given.order if given.layout == layout else channels_last(layout)


def shape(layout: Layout, order: Layout) -> Layout:
    """That of a tensor with its axes in an order."""
    return tuple(layout[axis] for axis in order)


def places(layout: Layout, order: Layout) -> NDArray[np.int64]:
    """Which of a node's values each of a tensor's is."""
    return np.arange(math.prod(layout)).reshape(layout).transpose(order).ravel()


def wanted_layout(network: Network, node: Affine) -> Layout:
    """How a node lays images out, or how a convolution that reads it or its ReLU sees it; empty where none does."""
    names = [node.name]
    if node.name not in network:  # an output that stood among others
        return node.shape
    names += [name for name in network.readers[node.name] if isinstance(network[name], Relu)]
    for reader in (network[name] for source in names for name in network.readers[source] if not node.shape):
        for source, linear in reader.reads if isinstance(reader, Affine) else ():
            if source in names and isinstance(linear, Conv | ConvTranspose):
                return layers.term(linear, ()).layout
    return node.shape
