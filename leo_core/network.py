"""The IR: an immutable acyclic graph of two node kinds, :class:`Affine` and :class:`Relu`.

Every piecewise-linear network is affine maps and ReLUs if the graph may branch: flatten, batch
norm, a residual sum and input normalisation are all affine. A ReLU always reads one affine node,
its *pre-activation*; so unit i of a ReLU is row i of that affine node.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Container, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from leo_core.arithmetic import ExactVector, add_exact
from leo_core.checker.environment import own_thread
from leo_core.checker.networks import ending_digest
from leo_core.errors import NetworkError
from leo_core.linear import FloatArray, LinearMap, frozen_array, kind_of
from leo_core.signature import TAILS as TAILS
from leo_core.signature import Output as Output
from leo_core.signature import Signature as Signature


@final
@dataclass(frozen=True)
class Origin:
    """Where a node came from, for reports and for writing back: the layer's name and kind.

    A ReLU also knows the ``shape`` that the model gives one example of its values, and which axis of the node's own
    shape each axis of that is: (1, 2, 0) where channels, first in a node of images, come last in the model.
    """

    layer: str = ""
    kind: str = ""
    shape: tuple[int, ...] = field(default=(), compare=False, repr=False)
    axes: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if sorted(self.axes) != list(range(len(self.shape))) or min(self.shape, default=0) < 0:
            raise NetworkError(f"the axes {self.axes} are not those of a shape {self.shape}")

    def as_in_model(self, values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Values of a node of images of this shape, or a flat one's, laid out as the model has them.

        Where the model's shape is not known, or units have gone from a flat node, they stay as they are.
        """
        if shape and len(shape) == len(self.axes):
            return values.reshape(shape).transpose(self.axes)
        if not shape and self.shape and values.size == math.prod(self.shape):
            inner = [self.shape[self.axes.index(axis)] for axis in range(len(self.axes))]
            return values.reshape(inner).transpose(self.axes)
        return values.reshape(shape or values.shape)


@final
@dataclass(frozen=True, eq=False)
class Rounding:
    """How far the stored numbers of one affine node may be from what the model means.

    Every stored weight w stands for some w' with |w' − w − v| ≤ ``weights`` · |w|, every bias b for some
    b' with |b' − b − d| ≤ ``bias``. Both bounds are one number or one per unit.

    ``known`` are v, a map per source, and d, a number per unit: by how much the model means more than is stored, as
    far as that is known; without them nothing is. What is known can cancel on its way, what is only bounded cannot.
    """

    weights: float | FloatArray
    bias: FloatArray
    known: tuple[tuple[LinearMap, ...], FloatArray] | None = None


@final
@dataclass(frozen=True, eq=False)
class Own:
    """What a layer says of itself where that comes to no exact floats: a batch norm's statistics, a mean's count.

    Its node works value by value, y = s x + b, and stores what they come to, rounded; a writer puts them back as they
    are. So the node may stand for any that is within the rounding: verdicts hold for each, and while the layer stays
    what it is, rounding it costs nothing.

    Attributes
    ----------
    rounding:
        How far the node's numbers may be from those meant; without anything known of it.
    loose:
        How far they may be, as a framework runs the layer, from the stored ones, in units of roundoff.
    numbers:
        By name, one number for each channel, or unit where there are none, as the layer stores them.
    epsilon:
        What a batch norm adds to its variance.
    """

    rounding: Rounding
    loose: Rounding
    numbers: Mapping[str, FloatArray] = field(default_factory=dict)
    epsilon: float = 0.0

    def kept(self, rows: NDArray[np.bool_]) -> Own:
        """Of some units, whole channels."""
        numbers = {
            name: array[rows.reshape(len(array), -1).any(axis=1)] if len(array) else array
            for name, array in self.numbers.items()
        }
        rounding, loose = (
            Rounding(np.broadcast_to(found.weights, rows.shape)[rows], np.broadcast_to(found.bias, rows.shape)[rows])
            for found in (self.rounding, self.loose)
        )
        return Own(rounding, loose, numbers, self.epsilon)


@final
@dataclass(frozen=True, eq=False)
class Affine:
    """y = Σ maps[i] · sources[i] + bias.

    Attributes
    ----------
    sources:
        Names of earlier nodes or of the input, each at most once per position in ``maps``.
    maps:
        One linear map per source, all with ``len(bias)`` rows.
    bias:
        Shape (units,).
    shape:
        How the units are laid out, as (channels, height, width) or (channels, length), last index fastest; empty where
        they are a plain list. It says what belongs together; what is computed does not depend on it.
    own:
        The layer's own numbers, where ``maps`` and ``bias`` are those rounded.
    """

    name: str
    sources: tuple[str, ...]
    maps: tuple[LinearMap, ...]
    bias: FloatArray
    origin: Origin = Origin()
    shape: tuple[int, ...] = ()
    own: Own | None = None

    def __post_init__(self) -> None:
        bias = np.asarray(self.bias)
        if bias.dtype not in (np.float32, np.float64):
            bias = bias.astype(np.float64)
        object.__setattr__(self, "bias", frozen_array(bias))
        object.__setattr__(self, "sources", tuple(self.sources))
        object.__setattr__(self, "maps", tuple(self.maps))
        object.__setattr__(self, "shape", tuple(map(int, self.shape)))
        if self.bias.ndim != 1:
            raise NetworkError(f"node '{self.name}': the bias must be a list, not of shape {self.bias.shape}")
        if self.shape and (math.prod(self.shape) != self.size or min(self.shape) < 0):
            raise NetworkError(f"node '{self.name}': the shape {self.shape} does not hold {self.size} units")
        if len(self.sources) != len(self.maps) or not self.maps:
            raise NetworkError(
                f"node '{self.name}': {len(self.sources)} source(s) but {len(self.maps)} linear map(s); "
                "give one map per source"
            )
        for source, linear in self.reads:
            if linear.rows != self.size:
                raise NetworkError(
                    f"node '{self.name}': the map from '{source}' has {linear.rows} rows, the bias {self.size} entries"
                )
            for what, array in linear.arrays().items():
                if array.dtype.kind == "f":
                    _require_finite(array, f"node '{self.name}': weight ({what} of the map from '{source}')")
        if self.own is not None and (len(self.maps) > 1 or self.maps[0].scaling() is None):
            raise NetworkError(f"node '{self.name}': a layer with numbers of its own must work value by value")
        _require_finite(self.bias, f"node '{self.name}': bias")

    @property
    def size(self) -> int:
        return int(self.bias.shape[0])

    @property
    def reads(self) -> tuple[tuple[str, LinearMap], ...]:
        """Each source with the map that is applied to it."""
        return tuple(zip(self.sources, self.maps, strict=True))

    @property
    def groups(self) -> int:
        """How many channels it has; units count as such where there are none."""
        return self.shape[0] if self.shape else self.size

    def apply(self, values: Mapping[str, FloatArray]) -> FloatArray:
        """Σ A x + b of the sources' values (…, columns), in their dtype: summed from left to right, the bias last."""
        total: Any = 0
        for position, (source, linear) in enumerate(self.reads):
            flow = linear.apply(values[source])
            total = flow if not position else total + flow
        return np.asarray(total + self.bias.astype(total.dtype))

    def push(self, price: FloatArray, flows: MutableMapping[str, FloatArray]) -> None:
        """Add Aᵀ price, of prices (…, units), to the flow that has arrived at each source."""
        for source, linear in self.reads:
            flow = linear.apply_transposed(price)
            flows[source] = flows[source] + flow if source in flows else flow

    def dense(self) -> FloatArray:
        """The maps written out side by side, (units, all columns), in float64; see :meth:`LinearMap.dense`."""
        return np.hstack([_written_out(linear) for linear in self.maps])

    def weights_of(self, source: str) -> FloatArray:
        """(units, units of the source): what it multiplies a node by that it reads once, in float64."""
        return _written_out(self.maps[self.sources.index(source)])

    def rows_at(self, units: NDArray[np.int64]) -> FloatArray:
        """All of them, side by side, of some units."""
        return np.hstack([linear.rows_at(units) for linear in self.maps])

    @property
    def weights(self) -> list[NDArray[Any]]:
        """The float arrays it stores, its bias last."""
        arrays = [a for linear in self.maps for a in linear.arrays().values() if a.dtype.kind == "f"]
        return [*arrays, self.bias]

    def __reduce__(self) -> tuple[Any, ...]:
        return Affine, (self.name, self.sources, self.maps, self.bias, self.origin, self.shape, self.own)


@final
@dataclass(frozen=True, eq=False)
class Relu:
    """y = x where x ≥ 0, slope · x elsewhere, unit by unit, reading the affine node ``source``.

    ``slope`` has shape (units,) with entries in [0, 1); it is zero for a plain ReLU.
    """

    name: str
    source: str
    slope: FloatArray
    origin: Origin = Origin()

    def __post_init__(self) -> None:
        object.__setattr__(self, "slope", frozen_array(self.slope, np.float64))
        if self.slope.ndim != 1:
            raise NetworkError(f"node '{self.name}': the slope must be a list, one entry per unit")
        _require_finite(self.slope, f"node '{self.name}': slope")
        if len(self.slope) and (self.slope.min() < 0 or self.slope.max() >= 1):
            raise NetworkError(f"node '{self.name}': slopes must lie in [0, 1)")

    @property
    def size(self) -> int:
        return int(self.slope.shape[0])

    def __reduce__(self) -> tuple[Any, ...]:
        return Relu, (self.name, self.source, self.slope, self.origin)


Node: TypeAlias = Affine | Relu

#: The name by which nodes refer to the network's input.
INPUT = "input"


@final
@dataclass(frozen=True)
class Layer:
    """One step of a chain: an affine node and the ReLU that reads it, if any."""

    affine: Affine
    relu: Relu | None


@final
@dataclass(frozen=True, eq=False)
class Network:
    """A function of one input vector: nodes in topological order, the last-named ``output`` its value.

    The value of a model with several outputs is these one after the other, as its signature has them.

    Equality and hashing are by :attr:`digest`: input size, nodes (not their origins and shapes), output and what
    follows it, outputs' names only where there are several.
    Raises :class:`NetworkError`, naming the node, when shapes, order or values do not fit.
    """

    input_size: int
    nodes: tuple[Node, ...]
    output: str
    signature: Signature = field(default_factory=Signature)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", tuple(self.nodes))
        if self.input_size < 1:
            raise NetworkError(f"a network needs at least one input, not {self.input_size}")
        sizes: dict[str, int] = {INPUT: self.input_size}
        affine: set[str] = set()
        for node in self.nodes:
            if node.name in sizes:
                raise NetworkError(f"node '{node.name}': the name is used twice")
            if isinstance(node, Affine):
                for source, linear in node.reads:
                    if source not in sizes:
                        raise NetworkError(f"node '{node.name}': its source '{source}' is not an earlier node")
                    if linear.columns != sizes[source]:
                        raise NetworkError(
                            f"node '{node.name}': the map from '{source}' takes {linear.columns} values, "
                            f"'{source}' has {sizes[source]}"
                        )
                affine.add(node.name)
            else:
                if node.source not in affine:
                    raise NetworkError(f"node '{node.name}': a ReLU reads an earlier affine node, not '{node.source}'")
                if node.size != sizes[node.source]:
                    raise NetworkError(
                        f"node '{node.name}': {node.size} slopes, but '{node.source}' has {sizes[node.source]} units"
                    )
            sizes[node.name] = node.size
        if self.output not in sizes or self.output == INPUT:
            raise NetworkError(f"the output '{self.output}' is not a node of the network")
        object.__setattr__(self, "signature", self.signature.fitted(self.output_size))
        shape = self.signature.input_shape or (self.input_size,)
        if int(np.prod(shape)) != self.input_size:
            raise NetworkError(f"the input shape {shape} does not hold {self.input_size} values")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        widths = " → ".join(map(str, self.widths))
        return f"<Network: {widths}, {self.connections:,} connections>"

    def __reduce__(self) -> tuple[Any, ...]:
        return Network, (self.input_size, self.nodes, self.output, self.signature)

    @cached_property
    def _by_name(self) -> Mapping[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def memo(self) -> dict[Any, Any]:
        """What others have worked out about this network, by what they ask, so that it is done once."""
        return {}

    def __getitem__(self, name: str) -> Node:
        return self._by_name[name]

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def affine(self, name: str) -> Affine:
        node = self._by_name[name]
        if not isinstance(node, Affine):
            raise NetworkError(f"node '{name}' is not affine")
        return node

    def size(self, name: str) -> int:
        """How many values the input or a node has."""
        return self.input_size if name == INPUT else self._by_name[name].size

    def layout(self, name: str) -> tuple[int, ...]:
        """How the values of the input or a node are laid out as images; empty where they are a plain list."""
        node = self._by_name.get(name)
        node = self._by_name[node.source] if isinstance(node, Relu) else node
        return node.shape if isinstance(node, Affine) else ()

    @property
    def output_size(self) -> int:
        return self.size(self.output)

    @property
    def relus(self) -> tuple[Relu, ...]:
        """The ReLU nodes, in topological order."""
        return tuple(node for node in self.nodes if isinstance(node, Relu))

    @cached_property
    def readers(self) -> Mapping[str, tuple[str, ...]]:
        """For the input and every node, the nodes that read it."""
        readers: dict[str, list[str]] = {INPUT: [], **{node.name: [] for node in self.nodes}}
        for node in self.nodes:
            for source in sources_of(node):
                readers[source].append(node.name)
        return {name: tuple(dict.fromkeys(found)) for name, found in readers.items()}

    @property
    def dtype(self) -> np.dtype[Any]:
        """What the model runs in: as its signature says, else the widest stored dtype."""
        return np.dtype(self.signature.dtype) if self.signature.dtype else self._widest

    @property
    def exact_dtype(self) -> np.dtype[Any]:
        """The narrowest in which every weight, bias and slope is exact."""
        if any((relu.slope.astype(np.float32) != relu.slope).any() for relu in self.relus):
            return np.dtype(np.float64)
        return self._widest

    @property
    def _widest(self) -> np.dtype[Any]:
        affine = (node for node in self.nodes if isinstance(node, Affine) and node.own is None)
        kinds = [array.dtype for node in affine for array in node.weights]
        return np.result_type(np.float32, *kinds)

    @property
    def _weighed(self) -> Iterator[tuple[Affine, LinearMap]]:
        """The maps that a model stores, each with its node: sums, differences and divisions by a count are none."""
        for node in self.nodes:
            if isinstance(node, Affine) and not (node.own is not None and "divisor" in node.own.numbers):
                yield from ((node, linear) for linear in node.maps if not linear.adds)

    @property
    def connections(self) -> int:
        """How many weights the network stores, biases apart."""
        return sum(linear.weights for _, linear in self._weighed)

    @property
    def parameters(self) -> int:
        """How many weights and biases the network stores; a channel has one bias, a mere selection none."""
        storing = {node.name for node, linear in self._weighed if linear.weights}
        nodes = [node for node in self.nodes if isinstance(node, Affine)]
        return self.connections + sum(node.groups for node in nodes if node.bias.any() or node.name in storing)

    @property
    def nonzeros(self) -> int:
        """How many of the stored weights are not zero."""
        arrays = (array for _, linear in self._weighed for array in linear.arrays().values() if array.dtype.kind == "f")
        return sum(int(np.count_nonzero(array)) for array in arrays)

    @property
    def operations(self) -> int:
        """How many multiplications by a weight one input takes."""
        return sum(linear.products for _, linear in self._weighed)

    @property
    def inner_connections(self) -> int:
        """Connections behind the first ReLU, since papers differ in whether they count the input layer."""
        behind: set[str] = set()
        for node in self.nodes:
            if isinstance(node, Relu) or behind.intersection(sources_of(node)):
                behind.add(node.name)
        return sum(linear.weights for node, linear in self._weighed if node.name in behind)

    @property
    def units(self) -> int:
        """How many ReLUs there are."""
        return sum(relu.size for relu in self.relus)

    @property
    def largest_weight(self) -> float:
        """The largest absolute value of a stored weight, biases apart; 1 where entries are merely picked."""
        return max((m.largest for node in self.nodes if isinstance(node, Affine) for m in node.maps), default=0.0)

    @property
    def widths(self) -> tuple[int, ...]:
        """Input, every hidden ReLU layer, output: channels where a layer has them, else units; all outputs together."""
        hidden = (self.affine(relu.source).groups for relu in self.relus if relu.name != self.output)
        return (self.input_size, *hidden, self.output_size)

    def with_nodes(self, *changed: Node) -> Network:
        """The network with other nodes of the same names in the place of its own."""
        instead = {node.name: node for node in changed}
        return replace(self, nodes=tuple(instead.get(node.name, node) for node in self.nodes))

    def layers(self) -> tuple[Layer, ...]:
        """The steps of a plain chain.

        Raises :class:`NetworkError` when the network branches.
        """
        steps: list[Layer] = []
        at = INPUT
        for position, node in enumerate(self.nodes):
            if sources_of(node) != (at,):
                raise NetworkError(f"the network is not a plain chain: '{node.name}' does not read just '{at}'")
            if isinstance(node, Affine):
                following = self.nodes[position + 1] if position + 1 < len(self.nodes) else None
                steps.append(Layer(node, following if isinstance(following, Relu) else None))
            at = node.name
        if at != self.output:
            raise NetworkError("the network is not a plain chain: its output is not its last node")
        return tuple(steps)

    @property
    def is_chain(self) -> bool:
        try:
            self.layers()
        except NetworkError:
            return False
        return True

    @cached_property
    def digest(self) -> str:
        """SHA-256 over everything that determines the function and its storage."""
        digest = hashlib.sha256()
        digest.update(json.dumps([self.input_size, self.output]).encode())
        for node in self.nodes:
            digest.update(json.dumps([type(node).__name__, node.name, *sources_of(node), node.size]).encode())
            arrays: Iterable[NDArray[Any]]
            if isinstance(node, Relu):
                arrays = (node.slope,)
            else:
                for linear in node.maps:
                    digest.update(json.dumps([kind_of(linear), linear.rows, linear.columns]).encode())
                    for name, array in sorted(linear.arrays().items()):
                        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
                        digest.update(np.ascontiguousarray(array).tobytes())
                arrays = (node.bias,)
            for array in arrays:
                digest.update(array.dtype.str.encode() + np.ascontiguousarray(array).tobytes())
        digest.update(ending_digest([output.described for output in self.signature.outputs]))
        return digest.hexdigest()

    def evaluate(self, x: Any, dtype: Any = np.float64) -> FloatArray:
        """The network's value on a batch (…, input_size) → (…, output_size), all sums in ``dtype``."""
        return self.evaluate_nodes(x, dtype)[self.output]

    @own_thread()
    def evaluate_nodes(
        self, x: Any, dtype: Any = np.float64, only: Container[str] | None = None
    ) -> dict[str, FloatArray]:
        """Every node's value on a batch, by name.

        ``only`` names the nodes wanted; it must hold whatever they depend on.
        """
        points = np.asarray(x, dtype=dtype)
        if points.shape[-1:] != (self.input_size,):
            raise NetworkError(f"the network takes {self.input_size} inputs, the data has shape {points.shape}")
        values: dict[str, FloatArray] = {INPUT: points}
        for node in self.nodes:
            if only is not None and node.name not in only:
                continue
            if isinstance(node, Relu):
                z = values[node.source]
                values[node.name] = np.where(z >= 0, z, node.slope.astype(dtype) * z)
            else:
                values[node.name] = node.apply(values)
        return values

    @own_thread()
    def evaluate_exact(self, x: Any, only: Container[str] | None = None) -> dict[str, ExactVector]:
        """Every node's exact rational value at one point (floats or Fractions), by name.

        ``only`` names the nodes wanted; it must hold whatever they depend on.
        """
        values = {INPUT: x if isinstance(x, ExactVector) else ExactVector.of(x)}
        for node in self.nodes:
            if only is not None and node.name not in only:
                continue
            if isinstance(node, Relu):
                values[node.name] = relu_exact(values[node.source], node.slope)
            else:
                terms = [linear.apply_exact(values[source]) for source, linear in node.reads]
                values[node.name] = add_exact([*terms, ExactVector.of(node.bias)])
        return values


def free_name(name: str, taken: Container[str], separator: str = "_") -> str:
    """The name itself, or with the first number from 2 behind it that makes it one not taken."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}{separator}{count}"
    return free


def sources_of(node: Node) -> tuple[str, ...]:
    """The names a node reads."""
    return node.sources if isinstance(node, Affine) else (node.source,)


def reachable(nodes: Iterable[Node], output: str) -> tuple[Node, ...]:
    """The nodes, in their topological order, that ``output`` depends on."""
    ordered, needed = tuple(nodes), {output}
    for node in reversed(ordered):
        if node.name in needed:
            needed.update(sources_of(node))
    return tuple(node for node in ordered if node.name in needed)


def relu_exact(z: ExactVector, slope: FloatArray) -> ExactVector:
    """What a ReLU of these slopes makes of exact values."""
    if not slope.any():
        return ExactVector(np.where(z.numerators > 0, z.numerators, 0), z.denominator)
    slopes = ExactVector.of(slope)
    numerators = np.where(z.numerators > 0, z.numerators * slopes.denominator, z.numerators * slopes.numerators)
    return ExactVector(numerators, z.denominator * slopes.denominator)


def _require_finite(array: NDArray[Any], where: str) -> None:
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        at = tuple(int(i) for i in bad[0])
        raise NetworkError(
            f"{where}[{', '.join(map(str, at))}] is {array[at]}; LEO needs finite weights (is the file damaged?)"
        )


def _written_out(linear: LinearMap) -> FloatArray:
    return linear.dense().astype(np.float64)
