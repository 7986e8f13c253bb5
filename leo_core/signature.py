"""How a model looks from outside: its input, and its outputs, each with what it ends in.

A network has one value, a flat vector: its outputs one after the other, each before its tail (:mod:`leo_core.tails`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core import tails
from leo_core.checker.networks import ending, function_of
from leo_core.errors import NetworkError

Array: TypeAlias = NDArray[Any]

#: What may follow a network: outside its nodes, but part of what the model computes.
TAILS = tuple(name for name in tails.TAILS if name)


@final
@dataclass(frozen=True)
class Output:
    """One output: its name, the shape of one example of it, and the function in :data:`TAILS` that it ends in, if any.

    A softmax is taken along ``axis`` of the shape; None: over all its values. An empty shape is a flat list of all
    values of the network, or, beside other outputs, a single one.
    """

    name: str = "output"
    shape: tuple[int, ...] = ()
    tail: str = ""
    axis: int | None = None

    def __post_init__(self) -> None:
        shape = tuple(map(int, self.shape))
        object.__setattr__(self, "shape", shape)
        if self.tail not in ("", *TAILS):
            raise NetworkError(f"the tail '{self.tail}' is unknown; there are: {', '.join(TAILS)}")
        if min(shape, default=0) < 0:
            raise NetworkError(f"output '{self.name}': {shape} is no shape")
        if self.axis is None:
            return
        if not -len(shape) <= self.axis < len(shape):
            raise NetworkError(f"output '{self.name}': the shape {shape} has no axis {self.axis}")
        axis = self.axis % len(shape)
        whole = shape[axis] == self.size or "softmax" not in self.tail  # then it says nothing
        object.__setattr__(self, "axis", None if whole else axis)

    @property
    def size(self) -> int:
        """How many values one example has."""
        return math.prod(self.shape)

    @property
    def function(self) -> tuple[Any, ...]:
        """What it does to its values, whatever its name and its shape."""
        return function_of(self.described)

    @property
    def described(self) -> tuple[str, list[int], str, int | None]:
        """As files have it."""
        return self.name, list(self.shape), self.tail, self.axis

    @property
    def together(self) -> NDArray[np.int64]:
        """Which of its values its tail takes together: (groups, values of each)."""
        places = np.arange(self.size)
        if self.axis is None:
            return places.reshape(1, -1)
        return np.moveaxis(places.reshape(self.shape), self.axis, -1).reshape(-1, self.shape[self.axis])


@final
@dataclass(frozen=True)
class Signature:
    """Names and per-example shapes of a model's input and outputs, and what it runs in.

    ``dtype`` ('float32', 'float64') is empty where the widest stored dtype says it all. ``told`` are pairs (format,
    text): what a file of a format says that no network needs, for whoever writes one of that format again.
    """

    input_name: str = "input"
    input_shape: tuple[int, ...] = ()
    outputs: tuple[Output, ...] = (Output(),)
    dtype: str = ""
    told: tuple[tuple[str, str], ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", tuple(self.outputs))
        names = self.names
        if not names:
            raise NetworkError("a model needs at least one output")
        if len(set(names)) < len(names):
            raise NetworkError(f"two outputs have one name: {', '.join(names)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the outputs."""
        return tuple(output.name for output in self.outputs)

    @property
    def functions(self) -> tuple[tuple[Any, ...], ...]:
        """What is done to the network's value, output by output; models that differ in it are different."""
        return tuple(output.function for output in self.outputs)

    @property
    def ending(self) -> str:
        """What the outputs end in, in words; empty where that is nothing."""
        return ending([output.described for output in self.outputs])

    def fitted(self, size: int) -> Signature:
        """With all shapes filled in, of a network of so many values. Raises :class:`NetworkError` where they differ."""
        free = (size,) if len(self.outputs) == 1 else (1,)
        outputs = tuple(output if output.shape else replace(output, shape=free) for output in self.outputs)
        held = sum(output.size for output in outputs)
        if held != size:
            shapes = ", ".join(f"'{output.name}' {output.shape}" for output in outputs)
            raise NetworkError(f"the outputs ({shapes}) hold {held} values, the network gives {size}")
        return replace(self, outputs=outputs)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Where each output is in the network's value."""
        ends = np.cumsum([0, *(output.size for output in self.outputs)]).tolist()
        return tuple(map(slice, ends[:-1], ends[1:]))

    @cached_property
    def ends(self) -> tuple[tuple[Output, NDArray[np.int64]], ...]:
        """Each output, and where in the network's value its tail takes values together: (groups, values of each)."""
        places = zip(self.outputs, self.slices, strict=True)
        return tuple((output, output.together + part.start) for output, part in places)

    def finished(self, values: Array) -> list[Array]:
        """The outputs behind their tails, each (…, size), of the network's value (…, all outputs)."""
        result = np.array(values)
        for output, at in self.ends:
            result[..., at] = tails.TAILS[output.tail].apply(values[..., at])
        return [result[..., part] for part in self.slices]

    def called(self, unit: int) -> str:
        """One number of the network's value in words: 'output 3', or "output 'boxes'[3]" where there are several."""
        if len(self.outputs) == 1:
            return f"output {unit}"
        output, part = next(found for found in zip(self.outputs, self.slices, strict=True) if unit < found[1].stop)
        return f"output '{output.name}'" + (f"[{unit - part.start}]" if output.size > 1 else "")

    def require_same_outputs(self, other: Signature) -> None:
        """Raise :class:`NetworkError` where outputs of two models are no counterparts: of other sizes, or order."""
        sizes = [[output.size for output in signature.outputs] for signature in (self, other)]
        if sizes[0] != sizes[1]:
            first, second = (" + ".join(map(str, found)) for found in sizes)
            raise NetworkError(f"the networks cannot be compared: output size {first} and {second}")
        if self.names != other.names and sorted(self.names) == sorted(other.names):
            raise NetworkError(
                f"the networks cannot be compared: the outputs are in another order, {', '.join(self.names)} in the "
                f"first model and {', '.join(other.names)} in the second"
            )
