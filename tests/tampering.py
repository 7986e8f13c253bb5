"""Certificates changed by someone who mends the checksum."""

from __future__ import annotations

import numpy as np

from leo_core import checker
from leo_core.checker import networks as archives
from leo_core.storage import write_archive


def mutated(path, change):
    """The certificate at ``path``, changed by someone who mends the checksum."""
    content, arrays = checker.open_certificate(path)
    arrays = {name: array.copy() for name, array in arrays.items()}
    change(content, arrays)
    header = {"format": "leo certificate", "version": 1, "sha256": archives.checksum(content, arrays)}
    write_archive(path, {**header, "content": content}, arrays)
    return content, arrays


def call_stable(content, arrays, rng):
    """Call one unstable unit stable, with a bound to match and without its witness; whether there is such a unit."""
    layers = [layer for layer in content["layers"].values() if (arrays[layer["state"]] == 0).any()]
    if not layers:
        return False
    layer = layers[rng.integers(len(layers))]
    units = np.flatnonzero(arrays[layer["state"]] == 0)
    at = rng.integers(len(units))
    side, state = (("lower", 1), ("upper", -1))[rng.integers(2)]
    arrays[layer[side]][units[at]], arrays[layer["state"]][units[at]] = 0.0, state
    arrays[layer["witnesses"]] = np.delete(arrays[layer["witnesses"]], at, axis=0)
    return True
