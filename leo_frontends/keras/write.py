"""A network as a Keras model: Sequential where it is a chain of layers, Functional otherwise.

Stored weights keep their bits. A model runs in one dtype, the widest that a weight is stored in. Layers of images are
put together again (:mod:`leo_frontends.layers`), with channels last: a tensor need not lie as its node does, so the
order of axes costs a Permute only where a layer, or who reads the output, needs another.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from leo_core.errors import UnsupportedModelError
from leo_core.linear import Conv, ConvTranspose, LinearMap, Select
from leo_core.network import INPUT, Affine, Network, Output, Own, Relu, free_name
from leo_frontends import laid, layers
from leo_frontends.channels_last import Writer, ordered, picked
from leo_frontends.graph import Array
from leo_frontends.heads import returned
from leo_frontends.keras import windows
from leo_frontends.laid import Laid, channels_last, wanted_layout
from leo_frontends.layers import Layout, Pairs, Pool, Term


def build_model(network: Network) -> Any:
    """The model of a network; inputs have the network's input shape behind a batch axis."""
    return _Writer(network).model()


class _Writer(Writer):
    """``_tensor`` holds the values of each node, ``_held`` are the weights each layer gets once the model is built."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self._dtype = str(network.exact_dtype)
        self._held: list[tuple[Any, list[Array]]] = []
        self._taken: set[str] = set()
        self._moved: dict[tuple[Any, ...], Any] = {}
        found = {**layers.pools(network), **layers.global_pools(network)}
        self.pools = {name: pool for name, pool in found.items() if self._is_a_layer(pool)}
        maps = [linear for node in network.nodes if isinstance(node, Affine) for linear in node.maps]
        # without images all is Dense layers: Keras reads no functions back from .h5
        self._convolves = any(isinstance(linear, Conv | ConvTranspose) for linear in maps)
        self._separable = _separable(network)
        self.inside = {name for pool in self.pools.values() for name in pool.inside}
        self.inside |= {first.name for first in self._separable.values()}

    def model(self) -> Any:
        network, signature = self.network, self.network.signature
        shape = signature.input_shape or (network.input_size,)
        given = keras.Input(shape, dtype=str(network.dtype), name=self._name(signature.input_name))
        heads = self.heads(given, shape)
        results = [self._finished(head, output) for output, head in zip(signature.outputs, heads, strict=True)]
        # a Sequential of an Input alone does not run
        results = [self._layer("Identity", "identity", given) if result is given else result for result in results]
        result = returned(signature.outputs, results)
        model = keras.Model(given, [*result] if isinstance(result, tuple) else result, name="leo")
        if len(results) == 1 and _is_chain(model):
            model = keras.Sequential([given, *model.layers[1:]], name="leo")
        for layer, arrays in self._held:
            layer.set_weights([array.astype(self._dtype) for array in arrays])
        return model

    def _finished(self, result: Laid, output: Output) -> Any:
        """An output with its tail and its shape."""
        tail, shape = output.tail, output.shape or (math.prod(result.layout),)
        if not tail:
            return self.laid(result, shape).at
        if output.axis is None:  # of the flat vector, so before it gets a shape
            flat = self.laid(result, (math.prod(shape),)).at
            return self._shaped(self._layer("Activation", tail, flat, activation=tail), shape)
        if tail == "softmax":
            return self._layer("Softmax", tail, self.laid(result, shape).at, axis=output.axis + 1)
        # there is no such layer for others, and the activation is along the last axis
        last = (*(axis for axis in range(len(shape)) if axis != output.axis), output.axis)
        at = self._layer("Activation", tail, self.laid(result, shape, last).at, activation=tail)
        return self.laid(Laid(at, shape, last), shape).at

    def affine(self, node: Affine) -> Laid:
        first = self._separable.get(node.name)
        return super().affine(node) if first is None else self._separated(node, first)

    def constant(self, node: Affine) -> Laid:
        source, linear = node.reads[0]
        return self._dense(node.name, self.tensor[source], linear, node.bias, wanted_layout(self.network, node))

    def added(self, name: str, terms: Sequence[Laid], *, less: bool) -> Laid:
        at = self._layer("Subtract" if less else "Add", name, [term.at for term in terms])
        return Laid(at, terms[0].layout, terms[0].order)

    def concatenated(self, name: str, terms: Sequence[Laid], axis: int) -> Any:
        return self._layer("Concatenate", name, [term.at for term in terms], axis=terms[0].axis(axis))

    def applied(
        self, node: Affine, given: Laid, linear: LinearMap, term: Term, bias: Array | None, layout: Layout
    ) -> tuple[Laid, Array | None]:
        name = node.name
        if not self._convolves and term.kind in ("channels", "pick", "scale", "sum") and not _is_one_factor(term):
            return self._dense(name, given, linear, bias, layout), None
        match term.kind:
            case "scale" if _is_one_factor(term):
                offset = 0.0 if bias is None else _one_number(bias)
                at = self._layer("Rescaling", name, given.at, scale=float(term.numbers[0]), offset=offset or 0.0)
                return Laid(at, given.layout, given.order), bias if offset is None else None
            case "scale":
                at = self._call(keras.ops.multiply, name, given.at, self._constant(given.spread(term.numbers)))
                return Laid(at, given.layout, given.order), bias
            case "channels":
                at = self._call(keras.ops.take, name, given.at, term.numbers.tolist(), axis=given.axis(0))
                return Laid(at, term.behind, given.order), bias
            case "sum":
                axes = [given.axis(axis) for axis in range(1, len(term.layout))]
                return Laid(self._call(keras.ops.sum, name, given.at, axis=axes), term.behind, (0,)), bias
            case "pick":
                return self._picked(name, given, term.numbers, layout), bias
            case "matrix":
                return self._dense(name, given, linear, bias, layout), None
        assert isinstance(linear, Conv | ConvTranspose)
        channels = layers.by_channel(bias, term.behind) if bias is not None else None
        at = self._convolved(node, self.image(given, term.layout).at, linear, channels)
        return Laid(at, term.behind, channels_last(term.behind)), bias if channels is None else None

    def _picked(self, name: str, given: Laid, index: NDArray[np.int64], layout: Layout) -> Laid:
        """Values by their number, or a zero where there is none of that number."""
        layout = layout or (len(index),)
        order, none, wanted = channels_last(layout), len(given.places), picked(index, given, layout)
        if np.array_equal(wanted, np.arange(none)):
            return Laid(self._shaped(given.at, laid.shape(layout, order)), layout, order)
        frame, times = layers.framed(index, given.layout, layout), layers.repeated(index, given.layout, layout)
        if frame is not None and len(layout) > 1:
            cut, around = frame
            at = self._with_zeros(self._cut(self.image(given, given.layout).at, cut), around)
        elif times is not None and len(layout) > 1:
            options = _of_axes("size", times)
            at = self._layer(f"UpSampling{len(times)}D", name, self.image(given, given.layout).at, **options)
        else:
            at = self._shaped(given.at, (none,))
            if (wanted == none).any():
                at = self._call(keras.ops.pad, f"{name}_zero", at, [[0, 0], [0, 1]])
            at = self._call(keras.ops.take, name, at, wanted.tolist(), axis=1)
        return Laid(self._shaped(at, laid.shape(layout, order)), layout, order)

    def _dense(self, name: str, given: Laid, linear: LinearMap, bias: Array | None, layout: Layout) -> Laid:
        """A matrix with rows and columns in the order in which tensors have their values."""
        layout = layout or (linear.rows,)
        order = channels_last(layout)
        weights, rows = ordered(linear, name, "a Keras model", given, layout)
        held = [np.ascontiguousarray(weights.T), *([] if bias is None else [bias[rows]])]
        flat = self._shaped(given.at, (weights.shape[1],))
        at = self._layer("Dense", name, flat, held, units=linear.rows, use_bias=bias is not None)
        return Laid(self._shaped(at, laid.shape(layout, order)), layout, order)

    def _convolved(self, node: Affine, at: Any, linear: Conv | ConvTranspose, bias: Array | None) -> Any:
        """A tensor with its channels last, convolved."""
        name, geometry, biases = node.name, linear.geometry, [bias] if bias is not None and bias.any() else []
        if isinstance(linear, ConvTranspose):
            if geometry.groups > 1:
                problem = f"'{name}' is a transposed convolution in groups, which Keras does not have"
                raise UnsupportedModelError("a Keras model", [f"{problem}; write .onnx or .pt2"])
            words = windows.of_transposed(linear)
            kind, options = f"Conv{words.rank}DTranspose", self._options(words, biases)
            at = self._layer(kind, name, at, [words.kernel, *biases], filters=words.kernel.shape[-2], **options)
            return self._cut(at, words.cut)
        words = windows.of_convolution(linear)
        if node.origin.kind == "Dense" and geometry.groups == 1 and windows.is_of_points(geometry):
            held = [words.kernel.reshape(words.kernel.shape[-2:]), *biases]
            return self._layer("Dense", name, at, held, units=linear.out_channels, use_bias=bool(biases))
        at, options = self._with_zeros(at, words.around), self._options(words, biases)
        each = linear.kernel.shape[1] == 1 and (geometry.groups > 1 or node.origin.kind.startswith("Depthwise"))
        if each and len(set(words.strides)) == 1:  # TensorFlow has one stride for all axes
            kernel = words.by_channel(geometry.groups)
            options["depth_multiplier"] = kernel.shape[-1]
            return self._layer(f"DepthwiseConv{words.rank}D", name, at, [kernel, *biases], **options)
        options |= {"filters": linear.out_channels, "groups": geometry.groups}
        return self._layer(f"Conv{words.rank}D", name, at, [words.kernel, *biases], **options)

    def _separated(self, node: Affine, first: Affine) -> Laid:
        """A convolution of each channel and, behind it, one of single points, as one layer."""
        each, points = first.maps[0], node.maps[0]
        assert isinstance(each, Conv)
        assert isinstance(points, Conv)
        words, layout = windows.of_convolution(each), (points.out_channels, *points.geometry.output)
        at = self.image(self.tensor[first.sources[0]], (each.in_channels, *each.geometry.input)).at
        bias = layers.by_channel(node.bias, layout)
        biases = [bias] if bias is not None and bias.any() else []
        kernel = words.by_channel(each.in_channels)
        options = {"filters": points.out_channels, "depth_multiplier": kernel.shape[-1], **self._options(words, biases)}
        held = [kernel, windows.of_convolution(points).kernel, *biases]
        at = self._layer(f"SeparableConv{words.rank}D", node.name, self._with_zeros(at, words.around), held, **options)
        result = Laid(at, layout, channels_last(layout))
        return result if bias is not None else self.shifted(node.name, result, node.bias)

    def norm(self, node: Affine, own: Own) -> Laid:
        given, axis, numbers = self.own_layout(node), 0, own.numbers
        if not node.shape:
            axis, numbers = _along_one_axis(numbers, given)
            if len(numbers["gamma"]) == node.size:
                given = self.laid(given, (node.size,))
        held = [numbers[name] for name in ("gamma", "beta", "mean", "variance")]
        options = {"axis": given.axis(axis), "epsilon": own.epsilon}
        at = self._layer("BatchNormalization", node.name, given.at, held, **options)
        return Laid(at, given.layout, given.order)

    def divided(self, node: Affine, divisor: Array) -> Laid:
        given, number = self.own_layout(node), _one_number(divisor)
        by = self._constant(given.spread(divisor)) if number is None else number
        return Laid(self._call(keras.ops.divide, node.name, given.at, by), given.layout, given.order)

    def shifted(self, name: str, given: Laid, bias: Array | None) -> Laid:
        if bias is None or not bias.any():
            return given
        number = _one_number(bias)
        if number is not None:
            at = self._layer("Rescaling", name, given.at, scale=1.0, offset=number)
        elif not self._convolves:
            return self._dense(name, given, Select.identity(len(bias)), bias, ())
        else:
            at = self._call(keras.ops.add, name, given.at, self._constant(given.spread(bias)))
        return Laid(at, given.layout, given.order)

    def _is_a_layer(self, pool: Pool) -> bool:
        """Whether Keras has it: without dilations, with the pads of 'same', or with zeros that change no maximum."""
        source = self.network[pool.source] if pool.source != INPUT else None
        positive = isinstance(source, Relu) and not source.slope.any()
        fits = pool.kind == "average" or positive or bool(windows.padding_of(windows.of_pool(pool)))
        return max(pool.dilations) == 1 and fits

    def pool(self, node: Affine, pool: Pool) -> Laid:
        at, geometry, rank = self.image(self.tensor[pool.source], pool.layout).at, windows.of_pool(pool), len(pool.taps)
        if not np.array_equal(pool.channels, np.arange(pool.layout[0])):
            at = self._call(keras.ops.take, f"{node.name}_channels", at, pool.channels.tolist(), axis=rank + 1)
        kind = f"{'Max' if pool.kind == 'max' else 'Average'}Pooling{rank}D"
        if pool.over_all:
            layout = node.shape if len(node.shape) == rank + 1 else (node.size,)
            at = self._layer(f"Global{kind}", node.name, at, keepdims=len(layout) > 1, **_LAST)
            return Laid(at, layout, channels_last(layout))
        padding = windows.padding_of(geometry)
        if not padding or (pool.kind == "average" and padding == "same"):  # pads count here, and not in Keras
            at, padding = self._with_zeros(at, windows.zeros_around(geometry)), "valid"
        options: dict[str, Any] = {"pool_size": pool.taps, "strides": pool.strides, "padding": padding, **_LAST}
        layout = (len(pool.channels), *node.shape[1:])
        return Laid(self._layer(kind, node.name, at, **options), layout, channels_last(layout))

    def relu(self, node: Relu) -> Laid:
        given = self.tensor[node.source]
        slope = _one_number(node.slope) if node.size else 0.0
        if slope is None:
            alpha = given.spread(node.slope)
            shared = [axis for axis, length in enumerate(alpha.shape, 1) if length < given.at.shape[axis]]
            at = self._layer("PReLU", node.name, given.at, [alpha], shared_axes=shared or None)
        elif slope:
            at = self._layer("LeakyReLU", node.name, given.at, negative_slope=slope)
        else:
            at = self._layer("ReLU", node.name, given.at)
        return Laid(at, given.layout, given.order)

    def permuted(self, given: Laid, order: Layout) -> Laid:
        dims = tuple(given.axis(axis) for axis in order)
        return Laid(self._once("Permute", given.at, dims=dims), given.layout, order)

    def reshaped(self, given: Laid, layout: Layout, order: Layout) -> Laid:
        return Laid(self._shaped(given.at, laid.shape(layout, order)), layout, order)

    def _shaped(self, at: Any, shape: Layout) -> Any:
        if at.shape[1:] == shape:
            return at
        return self._once("Flatten", at, **_LAST) if len(shape) == 1 else self._once("Reshape", at, target_shape=shape)

    def _once(self, kind: str, at: Any, **options: Any) -> Any:
        """What a layer without weights makes of a tensor; it is there already where another node has needed it."""
        key = (kind, id(at), *options.values())
        if key not in self._moved:
            self._moved[key] = self._layer(kind, kind.lower(), at, **options)
        return self._moved[key]

    def _with_zeros(self, at: Any, around: Pairs) -> Any:
        kind, options = f"ZeroPadding{len(around)}D", _of_axes("padding", around)
        return self._layer(kind, "zero_padding", at, **options) if np.any(around) else at

    def _cut(self, at: Any, pairs: Pairs) -> Any:
        kind, options = f"Cropping{len(pairs)}D", _of_axes("cropping", pairs)
        return self._layer(kind, "cropping", at, **options) if np.any(pairs) else at

    def _options(self, words: windows.Words, biases: Sequence[Array]) -> dict[str, Any]:
        where = {"kernel_size": words.taps, "strides": words.strides, "dilation_rate": words.dilations}
        return {**where, "padding": words.padding, "use_bias": bool(biases), **_LAST}

    def _layer(self, kind: str, name: str, at: Any, held: Sequence[Array] = (), **options: Any) -> Any:
        """What a layer of Keras makes of a tensor, or several; ``held`` are its weights."""
        layer = getattr(keras.layers, kind)(name=self._name(name), dtype=self._dtype, **options)
        if held:
            self._held.append((layer, [*held]))
        return layer(at)

    def _call(self, function: Callable[..., Any], name: str, *args: Any, **options: Any) -> Any:
        """What a function of Keras makes of a tensor, under a name that no layer has."""
        at = function(*args, **options)
        at._keras_history.operation.name = self._name(name)
        return at

    def _constant(self, array: Array) -> Array:
        return np.ascontiguousarray(array.astype(self._dtype))

    def _name(self, name: str) -> str:
        base = re.sub(r"\W", "_", name) or "layer"
        made = free_name(base, self._taken)
        self._taken.add(made)
        return made


#: Said, as the settings of the machine would decide otherwise.
_LAST: dict[str, Any] = {"data_format": "channels_last"}


def _of_axes(what: str, each: Sequence[Any]) -> dict[str, Any]:
    """An option with something for each axis; over one axis, not all versions of Keras have a data format."""
    return {what: each[0]} if len(each) == 1 else {what: each, **_LAST}


def _one_number(array: Array) -> float | None:
    """The number that all of an array are, if they are."""
    return float(array[0]) if len(array) and (array == array[0]).all() else None


def _is_one_factor(term: Term) -> bool:
    return term.kind == "scale" and len(np.unique(term.numbers)) == 1


def _along_one_axis(numbers: Mapping[str, Array], given: Laid) -> tuple[int, Mapping[str, Array]]:
    """(an axis, one number of each kind for each place along it), or (0, the numbers) where they vary along several."""
    shaped = {name: layers.compact(array, given.layout) for name, array in numbers.items()}
    varying = {axis for array in shaped.values() for axis, length in enumerate(array.shape) if length > 1}
    if len(varying) > 1:
        return 0, numbers
    axis = min(varying, default=given.order[-1])
    return axis, {name: np.broadcast_to(array.ravel(), given.layout[axis]) for name, array in shaped.items()}


def _is_chain(model: Any) -> bool:
    """Whether a model is layers, each of which takes what the one before makes."""
    steps = model.operations
    alone = all(isinstance(step, keras.Layer) for step in steps)
    return alone and all(after.input is before.output for before, after in itertools.pairwise(steps))


def _separable(network: Network) -> dict[str, Affine]:
    """By the name of the node that ends one, the first half of each separable convolution of Keras."""
    affine = (node for node in network.nodes if isinstance(node, Affine))
    found = {node.name: _first_half(network, node) for node in affine if node.origin.kind.startswith("SeparableConv")}
    return {name: first for name, first in found.items() if first is not None}


def _first_half(network: Network, node: Affine) -> Affine | None:
    first = network[node.sources[0]] if node.sources[0] != INPUT else None
    if not isinstance(first, Affine) or first.origin.layer != f"{node.origin.layer}_depthwise":
        return None
    each, points = first.maps[0], node.maps[0]
    if len(first.maps) + len(node.maps) > 2 or not (isinstance(each, Conv) and isinstance(points, Conv)):
        return None
    alone = network.readers[first.name] == (node.name,) and network.output != first.name and not first.bias.any()
    by_channel = each.kernel.shape[1] == 1 and len(set(each.geometry.strides)) == 1
    whole = points.geometry.groups == 1 and windows.is_of_points(points.geometry)
    return first if alone and by_channel and whole else None
