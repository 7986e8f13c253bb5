"""The memory of a PyTorch program: which tensors share it, so that what changes one in place changes the others.

A tensor is a place: a storage, and an array that says where in it each element lies. Views of a tensor are other
places in the same storage. Those arrays are views of one another as the tensors are, so NumPy's strides tell what
PyTorch's would: whether ``reshape`` or ``contiguous`` gives a view or a copy. Where that is not known, the two storages
are linked, and changing either in place is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.network import Origin
from leo_frontends import lowering
from leo_frontends.graph import Graph, Refused, Tensor, Value, elements

Indices: TypeAlias = NDArray[np.int64]


@final
@dataclass(frozen=True, eq=False)
class Place:
    """A tensor: its element e is element ``at[e]`` of a storage."""

    storage: int
    at: Indices

    @property
    def in_order(self) -> bool:
        """Whether its elements lie one after the other, row by row (``is_contiguous``)."""
        return bool(self.at.flags.c_contiguous)


class Memory:
    """All storages. ``held`` are those of weights and buffers, which outlive a run."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._contents: list[Tensor] = []
        self._held: set[int] = set()
        self._laid_out: set[int] = set()
        self._linked: dict[int, set[int]] = {}

    def new(self, tensor: Tensor, *, laid_out: bool = True, held: bool = False) -> Place:
        """A storage of its own for a tensor; ``laid_out``: row by row, as far as is known."""
        number = len(self._contents)
        self._contents.append(tensor)
        if laid_out:
            self._laid_out.add(number)
        if held:
            self._held.add(number)
        array = elements(tensor)
        return Place(number, np.arange(array.size).reshape(array.shape))

    def read(self, place: Place) -> Tensor:
        """What is there now."""
        tensor = self._contents[place.storage]
        if isinstance(tensor, Value):
            return Value(tensor.node, tensor.index.ravel()[place.at])
        return np.asarray(np.asarray(tensor).ravel()[place.at])

    def known_layout(self, place: Place) -> bool:
        """Whether the strides of a tensor are known."""
        return place.storage in self._laid_out

    def reshaped(self, place: Place, shape: Sequence[int]) -> Place:
        """``reshape``: a view where strides allow it, else a copy."""
        at = place.at.reshape(tuple(shape))
        if not self.known_layout(place):
            return self.unsure(place, at)
        if np.may_share_memory(at, place.at):
            return Place(place.storage, at)
        return self.new(self.read(Place(place.storage, at)))

    def contiguous(self, place: Place) -> Place:
        """``contiguous``: the tensor itself, where its elements lie in order, else a copy."""
        if not self.known_layout(place):
            return self.unsure(place, place.at)
        return place if place.in_order else self.new(self.read(place))

    def unsure(self, place: Place, at: Indices) -> Place:
        """A tensor that may be a view of the elements ``at``, or a copy."""
        return self.beside([place], self.read(Place(place.storage, at)))

    def beside(self, places: Sequence[Place], tensor: Tensor) -> Place:
        """A tensor that may share memory with those at ``places``, none of which is changed in place from now on."""
        copy = self.new(tensor, laid_out=not places)
        storages = {place.storage for place in places}
        group = storages.union(*(self._linked.get(number, ()) for number in storages)) | {copy.storage}
        for number in group if places else ():
            self._linked.setdefault(number, set()).update(group)
        return copy

    def write(self, origin: Origin, place: Place, tensor: Tensor) -> None:
        """Change a tensor in place; ``tensor`` is broadcast to it."""
        if place.storage in self._held:
            raise Refused("it changes a weight or buffer of the model, so that the next run computes something else")
        if place.storage in self._linked:
            raise Refused(
                "it changes a tensor in place of which LEO cannot tell whether another shares its memory; write it "
                "without the underscore, or clone() before"
            )
        if np.unique(place.at).size != place.at.size:
            raise Refused("it changes a tensor in place whose elements share memory (expand)")
        array = np.broadcast_to(elements(tensor), place.at.shape)
        new: Tensor = Value(tensor.node, array) if isinstance(tensor, Value) else array
        old = self._contents[place.storage]
        self._contents[place.storage] = lowering.replaced(self._graph, origin, old, place.at, new)
