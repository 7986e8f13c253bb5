"""The example plug-in: found by its entry point, conforming, and solving a real network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import leo_core
from leo_core.stability.verdict import State


def leo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("leo"), *arguments], capture_output=True, text=True, check=False
    )


(cbc,) = (p for p in json.loads(leo("plugins", "--json").stdout)["plugins"] if p["name"] == "cbc")
assert cbc["state"] == "available", cbc
assert cbc["distribution"] == "leo-solver-cbc"

kit = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "leo-solver-cbc/tests"],
                     capture_output=True, text=True, check=False)  # fmt: skip
assert kit.returncode == 0, kit.stdout[-3000:]
assert " passed" in kit.stdout

for strategy in ("paper", "isa", "cascade"):
    asked = ("digits/digits.onnx", "--domain", "digits/digits.domain.json", "--solver", "cbc", "--strategy", strategy)
    done = leo("inspect", *asked, "--json", "-q")
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["solver"] == "cbc"
    other = leo_core.analyze("digits/digits.onnx", "digits/digits.domain.json", solver="scipy")
    for layer, states in zip(content["layers"], other.layers.values(), strict=True):
        assert layer["undecided"] == 0
        assert (layer["active"], layer["inactive"]) == (states.count(State.ACTIVE), states.count(State.INACTIVE))

drawn = subprocess.run([sys.executable, "leo-solver-cbc/compare.py"], capture_output=True, text=True, check=False)
assert drawn.returncode == 0, drawn.stderr
assert "bounds of CBC that the network exceeds" in drawn.stdout
assert "<svg" in Path("compare.svg").read_text(encoding="utf-8")
