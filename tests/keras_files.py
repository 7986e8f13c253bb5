"""Keras files as networks, by their weights and without Keras: what the tests need until there is a frontend."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from leo_core import Affine, Dense, Network, Relu


def read(path) -> Network:
    """A Sequential of Dense, BatchNormalization and ReLU layers, from ``.keras`` or ``.h5``."""
    h5py = pytest.importorskip("h5py")
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            layers = json.loads(archive.read("config.json"))["config"]["layers"]
            weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
        names = {"Dense": "dense", "BatchNormalization": "batch_normalization"}
        found = [_variables(weights, f"layers/{stem}{k}/vars") for stem, k in _numbered(layers, names)]
    else:
        weights = h5py.File(path)
        layers = json.loads(weights.attrs["model_config"])["config"]["layers"]
        found = [
            _variables(weights, f"model_weights/{layer['config']['name']}/{layer['config']['name']}")
            for layer in layers
            if layer["class_name"] in ("Dense", "BatchNormalization")
        ]
    return _chain(layers, found)


def _numbered(layers, names):
    counts: dict[str, int] = {}
    for layer in layers:
        stem = names.get(layer["class_name"])
        if stem:
            count = counts.get(stem, 0)
            counts[stem] = count + 1
            yield stem, f"_{count}" if count else ""


def _variables(weights, group):
    return {name.partition(":")[0]: np.array(values) for name, values in weights[group].items()}


def _chain(layers, found) -> Network:
    nodes, at, stored = [], "input", iter(found)
    for number, layer in enumerate(layers):
        kind, config = layer["class_name"], layer["config"]
        if kind == "Dense":
            values = next(stored)
            kernel, bias = values.get("kernel", values.get("0")), values.get("bias", values.get("1"))
            nodes.append(Affine(f"z{number}", (at,), (Dense(kernel.T),), bias))
        elif kind == "BatchNormalization":
            values = {name: array.astype(np.float64) for name, array in next(stored).items()}
            scale = values["gamma"] / np.sqrt(values["moving_variance"] + config["epsilon"])
            last = nodes.pop()
            bias = (last.bias - values["moving_mean"]) * scale + values["beta"]
            nodes.append(Affine(last.name, last.sources, (Dense(last.maps[0].matrix() * scale[:, None]),), bias))
        at = nodes[-1].name if nodes else at
        if kind == "ReLU" or config.get("activation") == "relu":
            nodes.append(Relu(f"relu{number}", at, np.zeros(nodes[-1].size)))
            at = nodes[-1].name
    return Network(nodes[0].maps[0].columns, tuple(nodes), at)
