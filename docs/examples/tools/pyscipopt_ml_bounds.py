"""PySCIPOpt-ML: the compressed network handed over, and LEO's proved bounds on what its ReLUs give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyscipopt
from pyscipopt_ml.add_predictor import add_predictor_constr

import leo_core
from leo_core import Bounds, Box


def largest(module: Any, box: Box, bounds: Bounds | None, output: int) -> float:
    """The optimum over a torch.nn.Sequential; with ``bounds``, they stand on the values behind its ReLUs."""
    model = pyscipopt.Model()
    model.hideOutput()
    ends = zip(box.lower.tolist(), box.upper.tolist(), strict=True)
    inputs = np.array([[model.addVar(lb=low, ub=high) for low, high in ends]], dtype=object)
    predictor = add_predictor_constr(model, module, inputs, output_type="regression", formulation="bigm")
    if bounds is not None:
        relus = [layer for layer in predictor if layer.activation == "relu"]
        for layer, known in zip(relus, bounds.layers.values(), strict=True):
            for variable, low, high in zip(np.ravel(layer.output), known.lower, known.upper, strict=True):
                model.chgVarLb(variable, max(0.0, float(low)))
                model.chgVarUb(variable, max(0.0, float(high)))
    model.setObjective(np.ravel(predictor.output)[output], "maximize")
    model.optimize()
    return float(model.getObjVal())


def main(path: str = "docs/examples/digits/digits.onnx", output: int = 3) -> dict[str, float]:
    box = leo_core.Box.uniform(0, 16, 64)
    result = leo_core.compress(path, box, objective="units")
    module = result.to("torch")
    return {
        "smaller": largest(module, box, None, output),
        "bounds": largest(module, box, result.bounds_after, output),
    }


if __name__ == "__main__":
    print(main())
