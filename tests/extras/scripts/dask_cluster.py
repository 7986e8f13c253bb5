"""With the extra dask: the verdicts of one process, from workers that are started for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import leo_core
from leo_core.testing.networks import chain

if __name__ == "__main__":
    network = chain(3, 20, 20, 1, seed=5)
    one, shared = (leo_core.analyze(network, (-1, 1), **options) for options in ({}, {"cluster": "local:2"}))
    for name, layer in one.layers.items():
        assert (layer.state == shared.layers[name].state).all()
    command = [Path(sys.executable).with_name("leo"), "inspect", "net.leo", "--domain", "-1,1", "--cluster"]
    assert subprocess.run([*command, "local:1"], capture_output=True, check=False).returncode == 0
    dead = subprocess.run([*command, "tcp://127.0.0.1:9"], capture_output=True, text=True, check=False)
    assert dead.returncode == 1
    assert "no Dask scheduler answers" in dead.stderr
