"""A network as a PyTorch module: an ``nn.Sequential`` where it is a chain of layers, a ``GraphModule`` otherwise.

Stored weights keep their bits. A module runs in one dtype, the widest that a weight is stored in; where the
network runs in another, its input and output are cast.
"""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from leo_core.errors import UnsupportedModelError
from leo_core.linear import Dense, Diagonal, LinearMap, Select
from leo_core.network import INPUT, Affine, Network, Output, Relu, free_name
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
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if len(network.signature.input_shape) > 1:
        layers["flatten"] = nn.Flatten()
    for step in network.layers():
        linear, bias = step.affine.maps[0], step.affine.bias
        if not isinstance(linear, Dense):
            return None
        weights = matrix(linear, step.affine.name, "a PyTorch model")
        layers[_key(step.affine.name, layers)] = _linear(weights, bias, network.dtype)
        if step.relu is not None:
            slopes = np.unique(step.relu.slope)
            if len(slopes) > 1:
                return None
            slope = float(slopes[0]) if len(slopes) else 0.0
            layers[_key(step.relu.name, layers)] = nn.LeakyReLU(slope) if slope else nn.ReLU()
    (output,) = outputs
    if output.tail and output.axis is None:  # of the flat vector, so before it gets a shape
        layers[output.tail] = _TAILS[output.tail](1)
    if len(output.shape) > 1:
        layers["unflatten"] = nn.Unflatten(1, output.shape)
    if output.axis is not None:
        layers[output.tail] = _TAILS[output.tail](output.axis + 1)
    return layers


class _GraphWriter:
    """Builds a ``GraphModule``; ``_value`` holds the fx node of each network node, flat per example."""

    def __init__(self, network: Network) -> None:
        self._network, self._dtype = network, network.exact_dtype
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._value: dict[str, Any] = {}

    def module(self) -> nn.Module:
        network, signature = self._network, self._network.signature
        given = self._graph.placeholder("input")
        at = given
        if len(signature.input_shape) > 1:
            at = self._graph.call_function(torch.flatten, (at, 1))
        if self._dtype != network.dtype:
            at = self._graph.call_method("to", (at, _torch_dtype(self._dtype)))
        self._value[INPUT] = at
        nodes, heads = apart(network)
        for node in nodes:
            self._value[node.name] = self._affine(node) if isinstance(node, Affine) else self._relu(node)
        results = [
            self._finished(self._value[head], output) for output, head in zip(signature.outputs, heads, strict=True)
        ]
        self._graph.output(returned(signature.outputs, results))
        return fx.GraphModule(self._root, self._graph)

    def _finished(self, result: Any, output: Output) -> Any:
        """An output with its tail and its shape."""
        axis = 1
        if output.axis is not None:  # along an axis of the shape; any other is of the flat vector
            result, axis = self._shaped(result, output), output.axis + 1
        if output.tail:
            along = (axis,) if "softmax" in output.tail else ()
            result = self._graph.call_function(getattr(torch, output.tail), (result, *along))
        if self._dtype != self._network.dtype:
            result = self._graph.call_method("to", (result, _torch_dtype(self._network.dtype)))
        return self._shaped(result, output) if output.axis is None and len(output.shape) > 1 else result

    def _shaped(self, result: Any, output: Output) -> Any:
        return self._graph.call_method("reshape", (result, -1, *output.shape))

    def _affine(self, node: Affine) -> Any:
        bias: Array | None = node.bias
        total = None
        for source, linear in node.reads:
            if not linear.nonzeros:
                continue
            term, bias = self._term(node.name, self._value[source], linear, bias)
            total = term if total is None else self._graph.call_function(torch.add, (total, term))
        if total is None:  # the same for every example
            rows = self._graph.call_method("size", (self._value[INPUT], 0))
            return self._graph.call_method("expand", (self._buffer(node.bias[None], f"{node.name}_bias"), rows, -1))
        if bias is not None and bias.any():
            total = self._graph.call_function(torch.add, (total, self._buffer(bias, f"{node.name}_bias")))
        return total

    def _term(self, name: str, at: Any, linear: LinearMap, bias: Array | None) -> tuple[Any, Array | None]:
        if isinstance(linear, Select):
            if linear.is_identity:
                return at, bias
            index = self._buffer(linear.indices, f"{name}_index")
            return self._graph.call_function(torch.index_select, (at, 1, index)), bias
        if isinstance(linear, Diagonal):
            scale = self._buffer(linear.arrays()["diagonal"], f"{name}_scale")
            return self._graph.call_function(torch.mul, (at, scale)), bias
        key = self._name(name)
        self._root.add_module(key, _linear(matrix(linear, name, "a PyTorch model"), bias, self._dtype))
        return self._graph.call_module(key, (at,)), None

    def _relu(self, node: Relu) -> Any:
        at = self._value[node.source]
        if not node.slope.any():
            return self._graph.call_function(torch.relu, (at,))
        slope = self._buffer(node.slope, f"{node.name}_slope")
        return self._graph.call_function(torch.prelu, (at, slope))

    def _buffer(self, array: Array, name: str) -> Any:
        key = self._name(name)
        if array.dtype.kind == "f":
            array = array.astype(self._dtype)
        self._root.register_buffer(key, torch.from_numpy(np.array(array)))
        return self._graph.get_attr(key)

    def _name(self, name: str) -> str:
        return _key(name, {**self._root._modules, **self._root._buffers})


def _linear(weights: Array, bias: Array | None, dtype: np.dtype[Any]) -> nn.Linear:
    rows, columns = weights.shape
    layer = nn.utils.skip_init(nn.Linear, columns, rows, bias=bias is not None, dtype=_torch_dtype(dtype))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.array(weights, dtype=dtype)))
        if bias is not None:
            layer.bias.copy_(torch.from_numpy(np.array(bias, dtype=dtype)))
    return layer


def _key(name: str, taken: Any) -> str:
    """A module's name: letters, digits and underscores."""
    base = re.sub(r"\W", "_", name) or "layer"
    return free_name(base, taken)


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.float64 if dtype == np.float64 else torch.float32
