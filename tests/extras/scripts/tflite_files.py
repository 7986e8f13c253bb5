"""The extras highs and tflite: a float file for a chip in, a smaller one out, run by LiteRT; the edge example."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import leo_core


def leo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("leo"), *arguments], capture_output=True, text=True, check=False
    )


done = leo("compress", "edge/digits.tflite", "small.tflite", "--domain", "0,1", "--json")
assert done.returncode == 0, done.stderr
report = json.loads(done.stdout)
assert report["solver"] == "highs"
assert report["door"] == {"read": "agrees", "written": "agrees"}
assert report["after"]["connections"] < report["before"]["connections"]
leo_core.convert("small.tflite", "small.leo")
leo_core.convert("small.leo", "again.tflite")

shown = subprocess.run([sys.executable, "edge/edge.py"], capture_output=True, text=True, check=False)
assert shown.returncode == 0, shown.stderr
assert "classes that changed: 0" in shown.stdout

whole = Path("edge/digits.tflite").read_bytes()
for name, data in (("cut", whole[:1000]), ("other", Path("net.leo").read_bytes())):
    Path(f"{name}.tflite").write_bytes(data)
    done = leo("compress", f"{name}.tflite", "out.leo", "--domain", "0,1")
    assert done.returncode == 1
    assert f"{name}.tflite" in done.stderr
    assert "Traceback" not in done.stderr
for other in ("torch", "keras", "tensorflow", "onnx", "tflite_micro"):
    assert other not in sys.modules
