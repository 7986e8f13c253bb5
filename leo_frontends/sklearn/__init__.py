"""scikit-learn's multi-layer perceptrons, fitted and live. Their arrays are read; the package is never imported."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import UnsupportedModelError
from leo_core.linear import Dense
from leo_core.network import INPUT, Affine, Network, Node, Origin, Output, Relu, Signature
from leo_core.plugins import FrontendSpec, Imported, hookimpl

_KINDS = ("MLPClassifier", "MLPRegressor")
_TAILS = {"identity": "", "softmax": "softmax", "logistic": "sigmoid", "tanh": "tanh"}


@hookimpl
def leo_frontend() -> FrontendSpec:
    """Describe scikit-learn's perceptrons."""
    return FrontendSpec(
        name="sklearn",
        summary="scikit-learn's MLPClassifier and MLPRegressor with ReLUs, live, to read",
        model_modules=("sklearn",),
        read_model=read_live_model,
    )


def read_live_model(model: Any, _input_shape: tuple[int, ...] | None = None) -> Imported:
    """Read a fitted perceptron with ``activation="relu"``.

    A classifier's network computes what enters its softmax or, for two classes, its sigmoid.
    Raises :class:`UnsupportedModelError` for any other estimator.
    """
    where = type(model).__name__
    problems = []
    if where not in _KINDS or not type(model).__module__.startswith("sklearn."):
        problems.append(
            f"LEO reads {' and '.join(_KINDS)}; of a pipeline, pass the perceptron and transform the domain"
        )
    elif not hasattr(model, "coefs_"):
        problems.append("it is not fitted")
    elif model.activation != "relu":
        problems.append(f"its activation is '{model.activation}', not 'relu'")
    elif model.out_activation_ not in _TAILS:
        problems.append(f"its output goes through '{model.out_activation_}'")
    if problems:
        raise UnsupportedModelError(where, problems)
    nodes: list[Node] = []
    at = INPUT
    for number, (weight, bias) in enumerate(zip(model.coefs_, model.intercepts_, strict=True), 1):
        nodes.append(Affine(f"layer{number}", (at,), (Dense(weight.T),), bias, Origin(f"layer{number}", "Linear")))
        at = nodes[-1].name
        if number < len(model.coefs_):
            nodes.append(Relu(f"relu{number}", at, np.zeros(len(bias)), Origin(f"relu{number}", "ReLU")))
            at = nodes[-1].name
    inputs, outputs = model.coefs_[0].shape[0], model.coefs_[-1].shape[1]
    dtype = str(np.result_type(np.float32, *model.coefs_))
    tail = _TAILS[model.out_activation_]
    notes = (f"the {tail} at the end is kept outside; the change is of what enters it",) if tail else ()
    signature = Signature("input", (inputs,), (Output("output", (outputs,), tail),), dtype)
    network = Network(inputs, tuple(nodes), at, signature)
    return Imported(network, notes, run=lambda examples: _run(model, examples))


def _run(model: Any, examples: NDArray[Any]) -> NDArray[Any]:
    """What scikit-learn computes, (count, outputs): of two classes the probability of the second."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model fitted on a data frame misses the names of its columns
        if not hasattr(model, "predict_proba"):
            return np.asarray(model.predict(examples)).reshape(len(examples), -1)
        found = np.asarray(model.predict_proba(examples))
    return found[:, 1:] if model.n_outputs_ == 1 else found
