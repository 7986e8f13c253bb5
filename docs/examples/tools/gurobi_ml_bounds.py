"""gurobi-machinelearning: LEO's proved bounds on what its ReLUs read, then the compressed network in its place.

The licence that comes with gurobipy takes models of up to 2,000 variables, which the digits network is within.
"""

from __future__ import annotations

import gurobipy
import numpy as np
import onnx
from gurobi_ml import add_predictor_constr

import leo_core
from leo_core import Bounds


def largest(path: str, lower: np.ndarray, upper: np.ndarray, bounds: Bounds | None, output: int) -> float:
    """The optimum; with ``bounds``, they stand on the values before the ReLUs, which Gurobi would have to find."""
    with gurobipy.Env(params={"OutputFlag": 0}) as environment, gurobipy.Model(env=environment) as model:
        inputs = model.addMVar((1, len(lower)), lb=lower[None], ub=upper[None])
        network = onnx.load(path)
        size = network.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
        outputs = model.addMVar((1, size), lb=-gurobipy.GRB.INFINITY)
        predictor = add_predictor_constr(model, network, inputs, outputs)
        if bounds is not None:
            relus = [layer for layer in predictor if hasattr(layer, "mixing")]
            for layer, known in zip(relus, bounds.layers.values(), strict=True):
                layer.mixing.LB, layer.mixing.UB = known.lower.reshape(1, -1), known.upper.reshape(1, -1)
        model.setObjective(outputs[0, output], gurobipy.GRB.MAXIMIZE)
        model.optimize()
        return float(model.ObjVal)


def main(
    path: str = "docs/examples/digits/digits.onnx", output: int = 3, small: str = "small.onnx"
) -> dict[str, float]:
    box = leo_core.Box.uniform(0, 16, 64)
    result = leo_core.compress(path, box, objective="units")
    result.export(small)
    return {
        "intervals": largest(path, box.lower, box.upper, None, output),
        "bounds": largest(path, box.lower, box.upper, result.bounds, output),
        "smaller": largest(small, box.lower, box.upper, result.bounds_after, output),
    }


if __name__ == "__main__":
    print(main())
