"""The extras keras and torch: Keras on PyTorch, and a Keras model that leaves for PyTorch."""

from __future__ import annotations

import sys

import numpy as np

import leo_core

leo_core.convert("net.leo", "net.keras")  # of this Keras: an older one does not read a newer one's file
result = leo_core.compress("net.keras", (-1, 1))
import keras  # noqa: E402 - LEO has chosen the backend by now

assert keras.backend.backend() == "torch"
points = np.load("points.npy").astype(np.float32)
live = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")])
for model in (keras.models.load_model("net.keras"), live):
    result = leo_core.compress(model, (-1, 1))
    want = np.asarray(model.predict(points, verbose=0))
    assert np.allclose(np.asarray(result.model.predict(points, verbose=0)), want, atol=1e-4)
    again = keras.models.load_model(result.export("out.keras"))
    assert np.allclose(np.asarray(again.predict(points, verbose=0)), want, atol=1e-4)

    import torch

    module = torch.export.load(result.export("out.pt2")).module()
    assert np.allclose(module(torch.from_numpy(points)).detach().numpy(), want, atol=1e-4)
assert "tensorflow" not in sys.modules
