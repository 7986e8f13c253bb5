"""A network as an ONNX model: opset 18, weights inline, batch axis free, names and shapes as in the original.

A model in double computes in double. In one in float32, each affine node is computed in the dtype its weights are
stored in (double where any is float64), with casts between: stored weights keep their bits. Layers of images are put
together again (:mod:`leo_frontends.layers`), batch norms and poolings with the numbers that they had.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from leo_core.linear import Conv, ConvTranspose, LinearMap
from leo_core.network import INPUT, Affine, Network, Output, Own, Relu, free_name
from leo_frontends import layers
from leo_frontends.heads import apart
from leo_frontends.matrices import matrix
from leo_frontends.onnx.lowerings import TAIL_OPERATORS

Array = NDArray[Any]

OPSET = 18
IR_VERSION = 8


def build_model(network: Network) -> Any:
    """The ``onnx.ModelProto`` of a network."""
    from onnx import helper

    writer = _Writer(network)
    for node in writer.nodes:
        if isinstance(node, Affine):
            writer.affine(node)
        else:
            writer.relu(node)
    graph = writer.finish()
    return helper.make_model(
        graph, producer_name="leo", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )


@final
@dataclass(frozen=True)
class _Tensor:
    """An ONNX tensor: its name, what it holds, and its shape behind the batch axis."""

    at: str
    dtype: np.dtype[Any]
    layout: layers.Layout


class _Writer:
    """The graph so far. ``_tensor[name]`` is the ONNX tensor of a node, as it lies behind the batch axis."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.nodes, self._heads = apart(network)
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        signature = network.signature
        self._taken = {signature.input_name, *signature.names}
        # an output that is the input has its name; ONNX wants two where it has a shape of its own
        self._input = signature.input_name
        if self._input in signature.names:
            self._input = self._unique("input")
        self._shape_in = signature.input_shape or (network.input_size,)
        self._dtype = np.dtype(network.dtype)
        self._tensor = {INPUT: _Tensor(self._input, self._dtype, self._shape_in)}
        self._pools = {**layers.pools(network), **layers.global_pools(network)}
        self._inside = {name for pool in self._pools.values() for name in pool.inside}

    def affine(self, node: Affine) -> None:
        """A pooling, a layer with numbers of its own, or Σ maps · sources + bias."""
        if node.name in self._inside:
            return
        norm, divisor = layers.norm_of(node), layers.divisor_of(node)
        if node.name in self._pools:
            self._tensor[node.name] = self._pool(node, self._pools[node.name])
        elif norm is not None:
            self._tensor[node.name] = self._norm(node, norm)
        elif divisor is not None:
            self._tensor[node.name] = self._divided(node, divisor)
        else:
            self._tensor[node.name] = self._sum(node)

    def relu(self, node: Relu) -> None:
        """ReLU, LeakyRelu or PRelu, by its slopes."""
        if node.name in self._inside:
            return
        at, dtype, layout = (tensor := self._tensor[node.source]).at, tensor.dtype, tensor.layout
        slopes = np.unique(node.slope)
        if len(slopes) <= 1 and not slopes.any():
            at = self._emit("Relu", [at], node.name)
        elif len(slopes) == 1 and float(np.float32(slopes[0])) == slopes[0]:
            at = self._emit("LeakyRelu", [at], node.name, alpha=float(slopes[0]))
        else:
            if (node.slope.astype(np.float32) != node.slope).any():
                at, dtype = self._cast(tensor, np.dtype(np.float64), node.source).at, np.dtype(np.float64)
            slope = layers.compact(node.slope.astype(dtype), layout)
            at = self._emit("PRelu", [at, self._constant(slope, f"{node.name}.slope")], node.name)
        self._tensor[node.name] = _Tensor(at, dtype, layout)

    def finish(self) -> Any:
        """The graph, with the outputs under their own names and shapes."""
        from onnx import helper

        outputs = self._network.signature.outputs
        for output, head in zip(outputs, self._heads, strict=True):
            self._finish(output, head)
        kind = helper.np_dtype_to_tensor_dtype(self._dtype)
        return helper.make_graph(
            self._nodes,
            "leo",
            [helper.make_tensor_value_info(self._input, kind, ["batch", *self._shape_in])],
            [helper.make_tensor_value_info(output.name, kind, ["batch", *output.shape]) for output in outputs],
            self._initializers,
        )

    def _finish(self, output: Output, head: str) -> None:
        """One output: its tail and its shape put on the node that it is."""
        given = self._cast(self._tensor[head], self._dtype, head)
        if output.axis is not None:  # along an axis of the shape; any other is of the flat vector
            at = self._laid(given, output.shape).at
            self._emit(TAIL_OPERATORS[output.tail], [at], "", output=output.name, axis=output.axis + 1)
            return
        if output.tail:
            size = math.prod(output.shape)
            axis: dict[str, Any] = {"axis": -1} if "softmax" in output.tail else {}
            at = self._emit(TAIL_OPERATORS[output.tail], [self._laid(given, (size,)).at], output.tail, **axis)
            given = _Tensor(at, self._dtype, (size,))
        if given.layout != output.shape:
            shape = self._constant(np.array([-1, *output.shape]), f"{output.name}_shape")
            self._emit("Reshape", [given.at, shape], "", output=output.name)
        elif self._heads.count(head) == 1 and self._nodes and list(self._nodes[-1].output) == [given.at]:
            if any(given.at in node.input for node in self._nodes):
                self._emit("Identity", [given.at], "", output=output.name)
            else:
                self._nodes[-1].output[0] = output.name
        else:
            self._emit("Identity", [given.at], "", output=output.name)

    def _sum(self, node: Affine) -> _Tensor:
        arrays = [a for linear in node.maps for a in linear.arrays().values() if a.dtype.kind == "f"]
        dtype = self._dtype if node.own is not None else np.result_type(self._dtype, node.bias, *arrays)
        live = [(s, m) for s, m in node.reads if m.nonzeros and m.columns]
        bias: Array | None = node.bias.astype(dtype)
        terms = []
        for source, linear in live:
            given = self._cast(self._tensor[source], dtype, source)
            term, took_bias = self._term(node, given, linear, bias)
            terms.append(term)
            bias = None if took_bias else bias
        if not terms:
            terms, bias = [self._spread(node, node.bias.astype(dtype))], None
        layout = node.shape or terms[0].layout
        total = self._laid(terms[0], layout)
        for term in terms[1:]:
            total = _Tensor(self._emit("Add", [total.at, self._laid(term, layout).at], node.name), dtype, layout)
        if bias is not None and bias.any():
            spread = self._constant(layers.compact(bias, layout), f"{node.name}.bias")
            total = _Tensor(self._emit("Add", [total.at, spread], node.name), dtype, layout)
        return total

    def _term(self, node: Affine, given: _Tensor, linear: LinearMap, bias: Array | None) -> tuple[_Tensor, bool]:
        """A map applied to a tensor, and whether it has taken the bias."""
        name, term, took = node.name, layers.term(linear, given.layout), False
        at = self._laid(given, term.layout).at
        match term.kind:
            case "scale":
                scale = layers.compact(term.numbers.astype(given.dtype), term.layout)
                at = self._emit("Mul", [at, self._constant(scale, f"{name}.scale")], name)
            case "transpose":
                at = self._emit("Transpose", [at], name, perm=[0, *(int(axis) + 1 for axis in term.numbers)])
            case "channels":
                at = self._emit("Gather", [at, self._constant(term.numbers, f"{name}.channels")], name, axis=1)
            case "sum":
                axes = self._constant(np.arange(2, len(term.layout) + 1), f"{name}.axes")
                at = self._emit("ReduceSum", [at, axes], name, keepdims=0)
            case "pick":
                if (term.numbers == linear.columns).any():  # zeros among them
                    pads = self._constant(np.array([0, 0, 0, 1]), f"{name}.pads")
                    at = self._emit("Pad", [at, pads], f"{name}.zero")
                at = self._emit("Gather", [at, self._constant(term.numbers, f"{name}.index")], name, axis=1)
            case "convolve":
                assert isinstance(linear, Conv | ConvTranspose)
                channels = layers.by_channel(bias, term.behind) if bias is not None else None
                at, took = self._convolved(name, at, linear, channels, given.dtype), channels is not None
            case "matrix":
                weights = matrix(linear, name, "an ONNX model").astype(given.dtype)
                inputs, took = [at, self._constant(weights, f"{name}.weight")], bias is not None
                if bias is not None:
                    inputs.append(self._constant(bias, f"{name}.bias"))
                # alpha and beta have defaults, but some readers (OMLT) look for them
                at = self._emit("Gemm", inputs, name, alpha=1.0, beta=1.0, transB=1)
        return _Tensor(at, given.dtype, term.behind), took

    def _convolved(
        self, name: str, at: str, linear: Conv | ConvTranspose, bias: Array | None, dtype: np.dtype[Any]
    ) -> str:
        conv = linear if isinstance(linear, Conv) else linear.conv
        geometry = conv.geometry
        inputs = [at, self._constant(conv.kernel.astype(dtype), f"{name}.weight")]
        if bias is not None and bias.any():
            inputs.append(self._constant(bias, f"{name}.bias"))
        beyond: dict[str, Any] = {}
        if isinstance(linear, ConvTranspose):
            beyond["output_padding"] = list(linear.output_padding)
        return self._emit(
            type(linear).__name__,
            inputs,
            name,
            kernel_shape=list(conv.kernel.shape[2:]),
            strides=list(geometry.strides),
            pads=[*geometry.low, *geometry.high],
            dilations=list(geometry.dilations),
            group=geometry.groups,
            **beyond,
        )

    def _norm(self, node: Affine, own: Own) -> _Tensor:
        layout = node.shape or (node.size,)
        given = self._laid(self._cast(self._tensor[node.sources[0]], self._dtype, node.sources[0]), layout)
        numbers = [
            self._constant(array.astype(self._dtype), f"{node.name}.{key}") for key, array in own.numbers.items()
        ]
        at = self._emit("BatchNormalization", [given.at, *numbers], node.name, epsilon=own.epsilon)
        return _Tensor(at, self._dtype, layout)

    def _divided(self, node: Affine, divisor: Array) -> _Tensor:
        given = self._cast(self._tensor[node.sources[0]], self._dtype, node.sources[0])
        layout = node.shape or given.layout
        by = self._constant(layers.compact(divisor.astype(self._dtype), layout), f"{node.name}.divisor")
        return _Tensor(self._emit("Div", [self._laid(given, layout).at, by], node.name), self._dtype, layout)

    def _pool(self, node: Affine, pool: layers.Pool) -> _Tensor:
        given = self._laid(self._tensor[pool.source], pool.layout)
        layout = (len(pool.channels), *node.shape[1:])
        at = given.at
        if not np.array_equal(pool.channels, np.arange(given.layout[0])):
            at = self._emit("Gather", [at, self._constant(pool.channels, f"{node.name}.channels")], node.name, axis=1)
        if pool.over_all:
            kind = "GlobalMaxPool" if pool.kind == "max" else "GlobalAveragePool"
            over = _Tensor(self._emit(kind, [at], node.name), given.dtype, (layout[0], *(1 for _ in pool.taps)))
            return self._laid(over, layout)
        more: dict[str, Any] = {"dilations": list(pool.dilations)} if max(pool.dilations) > 1 else {}
        more |= {"count_include_pad": 1} if pool.kind == "average" else {}
        at = self._emit(
            "MaxPool" if pool.kind == "max" else "AveragePool",
            [at],
            node.name,
            kernel_shape=list(pool.taps),
            strides=list(pool.strides),
            pads=[*pool.low, *pool.high],
            **more,
        )
        return _Tensor(at, given.dtype, layout)

    def _spread(self, node: Affine, bias: Array) -> _Tensor:
        """A constant, once per example."""
        layout = node.shape or (node.size,)
        shape = self._emit("Shape", [self._input], f"{node.name}.shape", start=0, end=1)
        size = self._constant(np.array(layout), f"{node.name}.size")
        full = self._emit("Concat", [shape, size], f"{node.name}.full", axis=0)
        at = self._emit("Expand", [self._constant(layers.compact(bias, layout), f"{node.name}.bias"), full], node.name)
        return _Tensor(at, bias.dtype, layout)

    def _laid(self, tensor: _Tensor, layout: layers.Layout) -> _Tensor:
        """The same values in the same order, in another layout."""
        if tensor.layout == layout:
            return tensor
        shape = self._constant(np.array([-1, *layout]), "layout")
        return _Tensor(self._emit("Reshape", [tensor.at, shape], f"{tensor.at}_reshaped"), tensor.dtype, layout)

    def _cast(self, tensor: _Tensor, dtype: np.dtype[Any], name: str) -> _Tensor:
        from onnx import helper

        if tensor.dtype == dtype:
            return tensor
        at = self._emit("Cast", [tensor.at], f"{name}.cast", to=helper.np_dtype_to_tensor_dtype(dtype))
        return _Tensor(at, dtype, tensor.layout)

    def _emit(self, kind: str, inputs: list[str], name: str, output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        made = output or self._unique(name)
        self._nodes.append(helper.make_node(kind, inputs, [made], name=made, **attributes))
        return made

    def _constant(self, array: Array, name: str) -> str:
        from onnx import numpy_helper

        made = self._unique(name)
        self._initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), made))
        return made

    def _unique(self, base: str) -> str:
        name = free_name(base, self._taken)
        self._taken.add(name)
        return name
