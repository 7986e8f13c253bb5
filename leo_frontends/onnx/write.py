"""A network as an ONNX model: opset 18, weights inline, batch axis free, names and shapes as in the original.

A model in double computes in double. In one in float32, each affine node is computed in the dtype its weights are
stored in (double where any is float64), with casts between: stored weights keep their bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.linear import Diagonal, LinearMap, Select
from leo_core.network import INPUT, Affine, Network, Output, Relu, free_name
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


class _Writer:
    """The graph so far. ``_tensor[name]`` is the ONNX tensor of a node, flat per example, and its dtype."""

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
        at = self._input
        if len(self._shape_in) != 1:
            at = self._emit("Reshape", [at, self._constant(np.array([-1, network.input_size]), "flat")], "input_flat")
        self._tensor: dict[str, tuple[str, np.dtype[Any]]] = {INPUT: (at, self._dtype)}

    def affine(self, node: Affine) -> None:
        """Σ maps · sources + bias."""
        arrays = [a for linear in node.maps for a in linear.arrays().values() if a.dtype.kind == "f"]
        dtype = np.result_type(self._dtype, node.bias, *arrays)
        live = [(s, m) for s, m in node.reads if m.nonzeros and m.columns]
        bias: Array | None = node.bias.astype(dtype)
        terms = []
        for source, linear in live:
            term, took_bias = self._term(node.name, self._cast(source, dtype), linear, bias, dtype)
            terms.append(term)
            bias = None if took_bias else bias
        if not terms:
            terms = [self._spread(node, node.bias.astype(dtype))]
            bias = None
        total = terms[0]
        for term in terms[1:]:
            total = self._emit("Add", [total, term], node.name)
        if bias is not None and bias.any():
            total = self._emit("Add", [total, self._constant(bias, f"{node.name}.bias")], node.name)
        self._tensor[node.name] = (total, dtype)

    def relu(self, node: Relu) -> None:
        """ReLU, LeakyRelu or PRelu, by its slopes."""
        at, dtype = self._tensor[node.source]
        slopes = np.unique(node.slope)
        if len(slopes) <= 1 and not slopes.any():
            at = self._emit("Relu", [at], node.name)
        elif len(slopes) == 1 and float(np.float32(slopes[0])) == slopes[0]:
            at = self._emit("LeakyRelu", [at], node.name, alpha=float(slopes[0]))
        else:
            if (node.slope.astype(np.float32) != node.slope).any():
                at, dtype = self._cast(node.source, np.dtype(np.float64)), np.dtype(np.float64)
            at = self._emit("PRelu", [at, self._constant(node.slope.astype(dtype), f"{node.name}.slope")], node.name)
        self._tensor[node.name] = (at, dtype)

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
        at = self._cast(head, self._dtype)
        if output.axis is not None:  # along an axis of the shape; any other is of the flat vector
            shape = self._constant(np.array([-1, *output.shape]), f"{output.name}_shape")
            at = self._emit("Reshape", [at, shape], f"{output.name}_shaped")
            self._emit(TAIL_OPERATORS[output.tail], [at], "", output=output.name, axis=output.axis + 1)
            return
        if output.tail:
            axis: dict[str, Any] = {"axis": -1} if "softmax" in output.tail else {}
            at = self._emit(TAIL_OPERATORS[output.tail], [at], output.tail, **axis)
        if len(output.shape) != 1:
            shape = self._constant(np.array([-1, *output.shape]), f"{output.name}_shape")
            self._emit("Reshape", [at, shape], "", output=output.name)
        elif self._heads.count(head) == 1 and self._nodes and list(self._nodes[-1].output) == [at]:
            if any(at in node.input for node in self._nodes):
                self._emit("Identity", [at], "", output=output.name)
            else:
                self._nodes[-1].output[0] = output.name
        else:
            self._emit("Identity", [at], "", output=output.name)

    def _term(
        self, name: str, at: str, linear: LinearMap, bias: Array | None, dtype: np.dtype[Any]
    ) -> tuple[str, bool]:
        if isinstance(linear, Select):
            if linear.is_identity:
                return at, False
            return self._emit("Gather", [at, self._constant(linear.indices, f"{name}.index")], name, axis=1), False
        if isinstance(linear, Diagonal):
            diagonal = linear.arrays()["diagonal"].astype(dtype)
            return self._emit("Mul", [at, self._constant(diagonal, f"{name}.scale")], name), False
        inputs = [at, self._constant(matrix(linear, name, "an ONNX model").astype(dtype), f"{name}.weight")]
        if bias is not None:
            inputs.append(self._constant(bias, f"{name}.bias"))
        # alpha and beta have defaults, but some readers (OMLT) look for them
        return self._emit("Gemm", inputs, name, alpha=1.0, beta=1.0, transB=1), bias is not None

    def _spread(self, node: Affine, bias: Array) -> str:
        """A constant, once per example."""
        shape = self._emit("Shape", [self._input], f"{node.name}.shape", start=0, end=1)
        full = self._emit(
            "Concat", [shape, self._constant(np.array([len(bias)]), f"{node.name}.size")], f"{node.name}.full", axis=0
        )
        return self._emit("Expand", [self._constant(bias, f"{node.name}.bias"), full], node.name)

    def _cast(self, name: str, dtype: np.dtype[Any]) -> str:
        from onnx import helper

        at, have = self._tensor[name]
        if have == dtype:
            return at
        return self._emit("Cast", [at], f"{name}.cast", to=helper.np_dtype_to_tensor_dtype(dtype))

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
