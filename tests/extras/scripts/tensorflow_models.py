"""The extra tensorflow: Keras on TensorFlow, which says nothing that nobody asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

import leo_core

leo, domain = Path(sys.executable).with_name("leo"), ("--domain", "-1,1", "-q")
# A file of this Keras, as an older one does not read a newer one's; then the same again from the file.
for command in (
    [leo, "compress", "net.leo", "net.keras", *domain],
    [leo, "compress", "net.keras", "out.keras", *domain],
):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr

result = leo_core.compress("net.keras", (-1, 1))
import keras  # noqa: E402 - LEO has chosen the backend by now

assert keras.backend.backend() == "tensorflow"
points = np.load("points.npy").astype(np.float32)
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(2, "softmax")])
result = leo_core.compress(model, (-1, 1))
want = np.asarray(model.predict(points, verbose=0))
assert np.allclose(np.asarray(result.model.predict(points, verbose=0)), want, atol=1e-4)
