"""OMLT: its big-M from LEO's proved bounds, then the compressed network in its place."""

from __future__ import annotations

import numpy as np
import onnx
import pyomo.environ as pyo
from omlt import OmltBlock
from omlt.io import load_onnx_neural_network
from omlt.neuralnet import ReluBigMFormulation

import leo_core
from leo_core import Bounds


def formulated(path: str, lower: np.ndarray, upper: np.ndarray, bounds: Bounds | None) -> pyo.ConcreteModel:
    """The network as a Pyomo model; with ``bounds``, those of its ReLUs instead of OMLT's intervals."""
    network = load_onnx_neural_network(
        spelled_out(onnx.load(path)), input_bounds=list(zip(lower.tolist(), upper.tolist()))
    )
    model = pyo.ConcreteModel()
    model.net = OmltBlock()
    model.net.build_formulation(ReluBigMFormulation(network))
    if bounds is None:
        return model
    relus = [layer for layer in network.layers if layer.activation == "relu"]
    for layer, known in zip(relus, bounds.layers.values(), strict=True):
        block = model.net.layer[id(layer)]
        for index, low, high in zip(block.zhat, known.lower.ravel(), known.upper.ravel(), strict=True):
            block._big_m_lb_relu[index], block._big_m_ub_relu[index] = float(low), float(high)  # they can be changed
            block.zhat[index].setlb(float(low))
            block.zhat[index].setub(float(high))
            block.z[index].setub(max(0.0, float(high)))
    return model


def spelled_out(model: onnx.ModelProto) -> onnx.ModelProto:
    """OMLT reads no Identity, and no Gemm without its alpha and beta, which are 1 in ONNX where they are left out."""
    nodes = model.graph.node
    for node in [node for node in nodes if node.op_type == "Identity"]:
        before = next(other for other in nodes if node.input[0] in other.output)
        before.output[0] = node.output[0]
        nodes.remove(node)
    for node in nodes:
        given = {attribute.name for attribute in node.attribute}
        missing = [name for name in ("alpha", "beta") if node.op_type == "Gemm" and name not in given]
        node.attribute.extend(onnx.helper.make_attribute(name, 1.0) for name in missing)
    return model


def largest(model: pyo.ConcreteModel, output: int) -> float:
    """The optimum, by HiGHS."""
    model.objective = pyo.Objective(expr=model.net.outputs[output], sense=pyo.maximize)
    pyo.SolverFactory("appsi_highs").solve(model)
    return float(pyo.value(model.objective))


def main(
    path: str = "docs/examples/digits/digits.onnx", output: int = 3, small: str = "small.onnx"
) -> dict[str, float]:
    box = leo_core.Box.uniform(0, 16, 64)
    result = leo_core.compress(path, box, objective="units")
    result.export(small)
    return {
        "intervals": largest(formulated(path, box.lower, box.upper, None), output),
        "bounds": largest(formulated(path, box.lower, box.upper, result.bounds), output),
        "smaller": largest(formulated(small, box.lower, box.upper, result.bounds_after), output),
    }


if __name__ == "__main__":
    print(main())
