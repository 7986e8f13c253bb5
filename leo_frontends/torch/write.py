"""A network as a PyTorch module: an ``nn.Sequential`` where it is a chain of layers, a ``GraphModule`` otherwise.

Stored weights keep their bits. A module runs in one dtype, the widest that a weight is stored in; where the
network runs in another, its input and output are cast.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import fx, nn

from leo_core.errors import UnsupportedModelError
from leo_core.linear import Conv, ConvTranspose, Dense, LinearMap
from leo_core.network import INPUT, Affine, Network, Output, Own, Relu, free_name
from leo_frontends import layers
from leo_frontends.graph import Array
from leo_frontends.heads import apart, require_one, returned
from leo_frontends.matrices import matrix

_TAILS: dict[str, Callable[[int], nn.Module]] = {
    "softmax": lambda axis: nn.Softmax(dim=axis),
    "log_softmax": lambda axis: nn.LogSoftmax(dim=axis),
    "sigmoid": lambda _axis: nn.Sigmoid(),
    "tanh": lambda _axis: nn.Tanh(),
}


def build_module(network: Network) -> nn.Module:
    """The module of a network, in eval mode; inputs have the network's input shape behind a batch axis."""
    layers = _sequence(network)
    module = _GraphWriter(network).module() if layers is None else nn.Sequential(layers)
    return module.eval()


def save_program(network: Network, path: Path) -> None:
    """A ``.pt2`` file with the batch axis free; ``torch.export.load(path).module()`` runs it."""
    module = build_module(network)
    shape = network.signature.input_shape or (network.input_size,)
    example = torch.zeros(2, *shape, dtype=_torch_dtype(network.dtype))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.export.save(exported, path)


def save_state_dict(network: Network, path: Path) -> None:
    """A state dict of a plain chain. Raises :class:`UnsupportedModelError` for anything else."""
    require_one(network, str(path), "a state dict holds one; write a .pt2 file")
    layers = _sequence(network)
    kinds = [] if layers is None else [type(layer) for layer in layers.values()]
    expected = [nn.Linear if position % 2 == 0 else nn.ReLU for position in range(len(kinds))]
    if layers is None or kinds != expected or kinds[-1] is not nn.Linear:
        raise UnsupportedModelError(
            str(path), ["a state dict holds plain chains of Linear and ReLU layers only; write a .pt2 file"]
        )
    renamed = OrderedDict((str(number), layer) for number, layer in enumerate(layers.values()))
    torch.save(nn.Sequential(renamed).state_dict(), path)


def _sequence(network: Network) -> OrderedDict[str, nn.Module] | None:
    """The layers of a chain; None where there is no chain of Linear and ReLU layers in one dtype."""
    outputs = network.signature.outputs
    if not network.is_chain or network.exact_dtype != network.dtype or len(outputs) > 1:
        return None
    made: OrderedDict[str, nn.Module] = OrderedDict()
    if len(network.signature.input_shape) > 1:
        made["flatten"] = nn.Flatten()
    for step in network.layers():
        linear, bias = step.affine.maps[0], step.affine.bias
        if not isinstance(linear, Dense):
            return None
        weights = matrix(linear, step.affine.name, "a PyTorch model")
        made[_key(step.affine.name, made)] = _linear(weights, bias, network.dtype)
        if step.relu is not None:
            slopes = np.unique(step.relu.slope)
            if len(slopes) > 1:
                return None
            slope = float(slopes[0]) if len(slopes) else 0.0
            made[_key(step.relu.name, made)] = nn.LeakyReLU(slope) if slope else nn.ReLU()
    (output,) = outputs
    if output.tail and output.axis is None:  # of the flat vector, so before it gets a shape
        made[output.tail] = _TAILS[output.tail](1)
    if len(output.shape) > 1:
        made["unflatten"] = nn.Unflatten(1, output.shape)
    if output.axis is not None:
        made[output.tail] = _TAILS[output.tail](output.axis + 1)
    return made


@final
@dataclass(frozen=True)
class _Tensor:
    """An fx node, and the shape of its value behind the batch axis."""

    at: Any
    layout: layers.Layout


class _GraphWriter:
    """Builds a ``GraphModule``; ``_tensor`` holds the value of each network node."""

    def __init__(self, network: Network) -> None:
        self._network, self._dtype = network, network.exact_dtype
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._tensor: dict[str, _Tensor] = {}
        self._pools = {**layers.pools(network), **layers.global_pools(network)}
        self._inside = {name for pool in self._pools.values() for name in pool.inside}

    def module(self) -> nn.Module:
        network, signature = self._network, self._network.signature
        at = self._graph.placeholder("input")
        if self._dtype != network.dtype:
            at = self._graph.call_method("to", (at, _torch_dtype(self._dtype)))
        self._tensor[INPUT] = _Tensor(at, signature.input_shape or (network.input_size,))
        nodes, heads = apart(network)
        for node in nodes:
            if node.name not in self._inside:
                self._tensor[node.name] = self._affine(node) if isinstance(node, Affine) else self._relu(node)
        results = [
            self._finished(self._tensor[head], output) for output, head in zip(signature.outputs, heads, strict=True)
        ]
        self._graph.output(returned(signature.outputs, results))
        return fx.GraphModule(self._root, self._graph)

    def _finished(self, result: _Tensor, output: Output) -> Any:
        """An output with its tail and its shape."""
        axis, size = 1, math.prod(output.shape)
        if output.axis is not None:  # along an axis of the shape; any other is of the flat vector
            result, axis = self._laid(result, output.shape), output.axis + 1
        elif output.tail:
            result = self._laid(result, (size,))
        at = result.at
        if output.tail:
            along = (axis,) if "softmax" in output.tail else ()
            at = self._graph.call_function(getattr(torch, output.tail), (at, *along))
        at = self._laid(_Tensor(at, result.layout), output.shape).at
        if self._dtype != self._network.dtype:
            at = self._graph.call_method("to", (at, _torch_dtype(self._network.dtype)))
        return at

    def _affine(self, node: Affine) -> _Tensor:
        pool, norm, divisor = self._pools.get(node.name), layers.norm_of(node), layers.divisor_of(node)
        if pool is not None:
            return self._pool(node, pool)
        given = self._tensor[node.sources[0]]
        if norm is not None:
            layout = node.shape or (node.size,)
            return _Tensor(
                self._module(node.name, _norm(norm, len(layout), self._dtype), self._laid(given, layout).at), layout
            )
        if divisor is not None:
            layout = node.shape or given.layout
            by = self._buffer(layers.compact(divisor, layout), f"{node.name}_divisor")
            return _Tensor(self._graph.call_function(torch.div, (self._laid(given, layout).at, by)), layout)
        return self._sum(node)

    def _sum(self, node: Affine) -> _Tensor:
        bias: Array | None = node.bias
        terms = []
        for source, linear in node.reads:
            if linear.nonzeros:
                term, bias = self._term(node.name, self._tensor[source], linear, bias)
                terms.append(term)
        layout = node.shape or (terms[0].layout if terms else (node.size,))
        if not terms:  # the same for every example
            rows = self._graph.call_method("size", (self._tensor[INPUT].at, 0))
            constant = self._buffer(layers.compact(node.bias, layout)[None], f"{node.name}_bias")
            return _Tensor(self._graph.call_method("expand", (constant, rows, *layout)), layout)
        total = self._laid(terms[0], layout).at
        for term in terms[1:]:
            total = self._graph.call_function(torch.add, (total, self._laid(term, layout).at))
        if bias is not None and bias.any():
            spread = self._buffer(layers.compact(bias, layout), f"{node.name}_bias")
            total = self._graph.call_function(torch.add, (total, spread))
        return _Tensor(total, layout)

    def _term(self, name: str, given: _Tensor, linear: LinearMap, bias: Array | None) -> tuple[_Tensor, Array | None]:
        """A map applied to a tensor, and the bias that is left to be added."""
        term = layers.term(linear, given.layout)
        at = self._laid(given, term.layout).at
        call = self._graph.call_function
        match term.kind:
            case "scale":
                at = call(torch.mul, (at, self._buffer(layers.compact(term.numbers, term.layout), f"{name}_scale")))
            case "transpose":
                at = call(torch.permute, (at, (0, *(int(axis) + 1 for axis in term.numbers))))
            case "sum":
                at = call(torch.sum, (at, tuple(range(2, len(term.layout) + 1))))
            case "channels" | "pick":
                if (term.numbers == linear.columns).any():  # zeros among them
                    at = call(nn.functional.pad, (at, (0, 1)))
                at = call(torch.index_select, (at, 1, self._buffer(term.numbers, f"{name}_index")))
            case "convolve":
                assert isinstance(linear, Conv | ConvTranspose)
                channels = layers.by_channel(bias, term.behind) if bias is not None else None
                bias = bias if channels is None else None
                at = self._convolved(name, at, linear, channels)
            case "matrix":
                at = self._module(name, _linear(matrix(linear, name, "a PyTorch model"), bias, self._dtype), at)
                bias = None
        return _Tensor(at, term.behind), bias

    def _convolved(self, name: str, at: Any, linear: Conv | ConvTranspose, bias: Array | None) -> Any:
        conv = linear if isinstance(linear, Conv) else linear.conv
        geometry = conv.geometry
        pads: tuple[int, ...] = geometry.low
        if geometry.low != geometry.high:
            if isinstance(linear, ConvTranspose):
                problem = f"'{name}' is a transposed convolution with other pads before than behind"
                raise UnsupportedModelError("a PyTorch model", [f"{problem}, which PyTorch does not have; write .onnx"])
            around = [pad for pair in zip(geometry.low[::-1], geometry.high[::-1], strict=True) for pad in pair]
            at, pads = self._graph.call_function(nn.functional.pad, (at, tuple(around))), (0,) * len(pads)
        kind = getattr(nn, f"{type(linear).__name__}{len(pads)}d")
        ends = (conv.in_channels, conv.out_channels)[:: 1 if isinstance(linear, Conv) else -1]
        more = {} if isinstance(linear, Conv) else {"output_padding": linear.output_padding}
        layer = nn.utils.skip_init(
            kind, *ends, conv.kernel.shape[2:], stride=geometry.strides, padding=pads, dilation=geometry.dilations,
            groups=geometry.groups, bias=bias is not None and bool(bias.any()), dtype=_torch_dtype(self._dtype), **more,
        )  # fmt: skip
        _fill(layer.weight, conv.kernel)
        if bias is not None and layer.bias is not None:
            _fill(layer.bias, bias)
        return self._module(name, layer, at)

    def _pool(self, node: Affine, pool: layers.Pool) -> _Tensor:
        given = self._laid(self._tensor[pool.source], pool.layout)
        at, call = given.at, self._graph.call_function
        if not np.array_equal(pool.channels, np.arange(given.layout[0])):
            at = call(torch.index_select, (at, 1, self._buffer(pool.channels, f"{node.name}_channels")))
        if pool.over_all:
            return self._pool_over_all(node, pool.kind, at, len(pool.taps))
        pads: tuple[int, ...] = pool.low
        if pool.low != pool.high or any(2 * low > taps for low, taps in zip(pool.low, pool.taps, strict=True)):
            around = [pad for pair in zip(pool.low[::-1], pool.high[::-1], strict=True) for pad in pair]
            value = 0.0 if pool.kind == "average" else -math.inf
            at, pads = call(nn.functional.pad, (at, tuple(around), "constant", value)), (0,) * len(pads)
        axes = len(pool.taps)
        if pool.kind == "max":
            layer = getattr(nn, f"MaxPool{axes}d")(pool.taps, pool.strides, pads, pool.dilations)
        else:
            layer = getattr(nn, f"AvgPool{axes}d")(pool.taps, pool.strides, pads)
        return _Tensor(self._module(node.name, layer, at), (len(pool.channels), *node.shape[1:]))

    def _pool_over_all(self, node: Affine, kind: str, at: Any, axes: int) -> _Tensor:
        """Over all positions, which are kept as axes of one where the node has such."""
        kept, positions = len(node.shape) > 1, tuple(range(2, axes + 2))
        if kind == "max":
            at = self._graph.call_function(torch.amax, (at, positions, kept))
        elif kept:
            at = self._module(node.name, getattr(nn, f"AdaptiveAvgPool{axes}d")(1), at)
        else:
            at = self._graph.call_function(torch.mean, (at, positions))
        return _Tensor(at, node.shape or (node.size,))

    def _relu(self, node: Relu) -> _Tensor:
        given = self._tensor[node.source]
        slopes = np.unique(node.slope)
        if not node.slope.any():
            return _Tensor(self._graph.call_function(torch.relu, (given.at,)), given.layout)
        if len(slopes) == 1:
            at = self._graph.call_function(nn.functional.leaky_relu, (given.at, float(slopes[0])))
            return _Tensor(at, given.layout)
        channels = layers.by_channel(node.slope, given.layout)
        slope = self._buffer(node.slope if channels is None else channels, f"{node.name}_slope")
        flat = given if channels is not None else self._laid(given, (node.size,))
        return self._laid(_Tensor(self._graph.call_function(torch.prelu, (flat.at, slope)), flat.layout), given.layout)

    def _laid(self, tensor: _Tensor, layout: layers.Layout) -> _Tensor:
        """The same values in the same order, in another layout."""
        if tensor.layout == layout:
            return tensor
        if len(layout) == 1:
            return _Tensor(self._graph.call_function(torch.flatten, (tensor.at, 1)), layout)
        return _Tensor(self._graph.call_method("reshape", (tensor.at, -1, *layout)), layout)

    def _module(self, name: str, layer: nn.Module, at: Any) -> Any:
        key = self._name(name)
        self._root.add_module(key, layer)
        return self._graph.call_module(key, (at,))

    def _buffer(self, array: Array, name: str) -> Any:
        key = self._name(name)
        if array.dtype.kind == "f":
            array = array.astype(self._dtype)
        self._root.register_buffer(key, torch.from_numpy(np.array(array)))
        return self._graph.get_attr(key)

    def _name(self, name: str) -> str:
        return _key(name, {**self._root._modules, **self._root._buffers})


def _norm(own: Own, axes: int, dtype: np.dtype[Any]) -> nn.Module:
    kind = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d}[axes]
    layer = kind(len(own.numbers["gamma"]), eps=own.epsilon, dtype=_torch_dtype(dtype))
    places = {"gamma": "weight", "beta": "bias", "mean": "running_mean", "variance": "running_var"}
    for name, place in places.items():
        _fill(getattr(layer, place), own.numbers[name])
    return layer


def _fill(tensor: torch.Tensor, array: Array) -> None:
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.array(array)))


def _linear(weights: Array, bias: Array | None, dtype: np.dtype[Any]) -> nn.Linear:
    rows, columns = weights.shape
    layer = nn.utils.skip_init(nn.Linear, columns, rows, bias=bias is not None, dtype=_torch_dtype(dtype))
    _fill(layer.weight, weights)
    if bias is not None:
        _fill(layer.bias, bias)
    return layer


def _key(name: str, taken: Any) -> str:
    """A module's name: letters, digits and underscores."""
    base = re.sub(r"\W", "_", name) or "layer"
    return free_name(base, taken)


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.float64 if dtype == np.float64 else torch.float32
