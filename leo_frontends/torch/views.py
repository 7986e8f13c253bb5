"""ATen operators that give views of a tensor, by what they do to an array of its elements; and those that may.

Each function takes the array and the operator's arguments and gives a view of it, as NumPy makes them: strides and all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from leo_frontends.graph import Array, Graph, Refused, Value
from leo_frontends.torch.memory import Memory, Place

Arguments = Mapping[str, Any]


def _expand(array: Array, given: Arguments) -> Array:
    sizes = list(given["size"])
    kept = array.reshape((1,) * (len(sizes) - array.ndim) + array.shape)
    return np.broadcast_to(kept, [have if d == -1 else d for d, have in zip(sizes, kept.shape, strict=True)])


def _squeeze(array: Array, given: Arguments) -> Array:
    dims = given.get("dim", range(array.ndim))
    dims = [d % max(1, array.ndim) for d in ([dims] if isinstance(dims, int) else dims)]
    return np.squeeze(array, tuple(d for d in dims if d < array.ndim and array.shape[d] == 1))


def _unsqueeze(array: Array, given: Arguments) -> Array:
    return np.expand_dims(array, given["dim"] % (array.ndim + 1))


def _unflatten(array: Array, given: Arguments) -> Array:
    dim = given["dim"] % array.ndim
    return array.reshape(*array.shape[:dim], *given["sizes"], *array.shape[dim + 1 :])


def _select(array: Array, given: Arguments) -> Array:
    dim, index = given.get("dim", 0) % array.ndim, given["index"]
    return np.moveaxis(array, dim, 0)[index]


def _swapped(first: str, second: str) -> Callable[[Array, Arguments], Array]:
    return lambda array, given: np.swapaxes(array, given[first], given[second])


def _narrow(array: Array, given: Arguments) -> Array:
    dim, start, length = given["dim"] % array.ndim, given["start"], given["length"]
    start = start + array.shape[dim] if start < 0 else start
    if not 0 <= start <= start + length <= array.shape[dim]:
        raise ValueError(f"narrow from {start}, {length} long, of {array.shape[dim]}")
    return np.moveaxis(np.moveaxis(array, dim, 0)[start : start + length], 0, dim)


#: Operators that always give a view.
VIEWS: dict[str, Callable[[Array, Arguments], Array]] = {
    "alias": lambda array, _given: array,
    "detach": lambda array, _given: array,
    "diagonal": lambda array, given: np.diagonal(
        array, given.get("offset", 0), given.get("dim1", 0), given.get("dim2", 1)
    ),
    "dropout": lambda array, _given: array,
    "expand": _expand,
    "expand_as": lambda array, given: np.broadcast_to(array, np.shape(given["other"])),
    "feature_dropout": lambda array, _given: array,
    "alpha_dropout": lambda array, _given: array,
    "feature_alpha_dropout": lambda array, _given: array,
    "lift_fresh": lambda array, _given: array,
    "movedim": lambda array, given: np.moveaxis(array, given["source"], given["destination"]),
    "moveaxis": lambda array, given: np.moveaxis(array, given["source"], given["destination"]),
    "mT": lambda array, _given: np.swapaxes(array, -1, -2),
    "narrow": _narrow,
    "positive": lambda array, _given: array,
    "numpy_T": lambda array, _given: array.T,
    "permute": lambda array, given: np.transpose(array, given["dims"]),
    "select": _select,
    "squeeze": _squeeze,
    "swapaxes": _swapped("axis0", "axis1"),
    "swapdims": _swapped("dim0", "dim1"),
    "t": lambda array, _given: array.T,
    "transpose": _swapped("dim0", "dim1"),
    "unflatten": _unflatten,
    "unsqueeze": _unsqueeze,
    "view": lambda array, given: array.reshape(tuple(given["size"])),
    "view_as": lambda array, given: array.reshape(np.shape(given["other"])),
    "_unsafe_view": lambda array, given: array.reshape(tuple(given["size"])),
}


def _parts(length: int, sizes: Sequence[int]) -> list[slice]:
    ends = np.cumsum([0, *sizes]).tolist()
    if ends[-1] != length:
        raise ValueError(f"parts of {list(sizes)} of {length}")
    return [slice(begin, end) for begin, end in itertools.pairwise(ends)]


def _chunk(length: int, given: Arguments) -> list[slice]:
    step = max(1, -(-length // given["chunks"]))
    return [slice(at, at + step) for at in range(0, max(1, length), step)]


def _split(length: int, given: Arguments) -> list[slice]:
    size = given.get("split_size", given.get("split_sizes"))
    if isinstance(size, int):
        return [slice(at, at + size) for at in range(0, max(1, length), max(1, size))]
    return _parts(length, size)


def _tensor_split(length: int, given: Arguments) -> list[slice]:
    if given.get("sections") is not None:
        count = given["sections"]
        return _parts(length, [length // count + (i < length % count) for i in range(count)])
    ends = [0, *given["indices"], length]
    return [slice(begin, end) for begin, end in itertools.pairwise(ends)]


#: Operators that cut a tensor along an axis into a list of views.
CUTS: dict[str, Callable[[int, Arguments], list[slice]]] = {
    "chunk": _chunk,
    "split": _split,
    "split_with_sizes": _split,
    "tensor_split": _tensor_split,
    "unbind": lambda length, _given: [slice(at, at + 1) for at in range(length)],
    "unsafe_chunk": _chunk,
    "unsafe_split": _split,
}


def viewed(operator: str, place: Place, given: Arguments) -> Place:
    """The view that an operator of :data:`VIEWS` gives."""
    if operator.endswith("dropout") and given.get("train"):
        raise Refused("it is in training mode; call eval() first, and training=self.training in functions")
    return Place(place.storage, VIEWS[operator](place.at, given))


def sliced(graph: Graph, memory: Memory, place: Place, given: Arguments) -> Place:
    """``x[:, a:b:c]``: a cut that may end beyond a tensor."""
    dim = given.get("dim", 0) % place.at.ndim
    part = slice(given.get("start"), given.get("end"), given.get("step", 1))
    _within(graph, memory, place, dim, part)
    return Place(place.storage, np.moveaxis(np.moveaxis(place.at, dim, 0)[part], 0, dim))


def cut(graph: Graph, memory: Memory, operator: str, place: Place, given: Arguments) -> list[Place]:
    """The views that an operator of :data:`CUTS` gives."""
    dim = given.get("dim", 0) % place.at.ndim
    length = place.at.shape[dim]
    front = np.moveaxis(place.at, dim, 0)
    parts = CUTS[operator](length, given)
    if isinstance(given.get("split_size"), int):
        _within(graph, memory, place, dim, slice(0, given["split_size"]))
    taken = [front[part][0] if operator == "unbind" else np.moveaxis(front[part], 0, dim) for part in parts]
    return [Place(place.storage, at) for at in taken]


def _within(graph: Graph, memory: Memory, place: Place, dim: int, part: slice) -> None:
    """Refuse a cut of the batch that takes all of a small one."""
    tensor = memory.read(place)
    if isinstance(tensor, Value):
        graph.sliced(tensor, dim, part)


def _flattened(shape: Sequence[int], given: Arguments) -> list[int]:
    if not shape:
        return [1]
    start, end = (at % len(shape) for at in (given.get("start_dim", 0), given.get("end_dim", -1)))
    return [*shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :]]


#: Operators that give a view where strides allow, else a copy; by the shape they give.
RESHAPES: dict[str, Callable[[Sequence[int], Arguments], Sequence[int]]] = {
    "flatten": _flattened,
    "ravel": lambda shape, _given: [int(np.prod(shape))],
    "reshape": lambda _shape, given: given["shape"],
    "reshape_as": lambda _shape, given: np.shape(given["other"]),
}
