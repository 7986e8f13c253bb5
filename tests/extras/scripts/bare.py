"""No extra at all: LEO's own files and .nnet are compressed with SciPy, and what is missing is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import leo_core
from leo_core.errors import MissingExtraError


def leo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("leo"), *arguments], capture_output=True, text=True, check=False
    )


for source, target in (("net.nnet", "out.nnet"), ("net.leo", "out.leo")):
    done = leo("compress", source, target, "--domain", "-1,1", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["solver"] == "scipy"
    assert "scipy" in done.stderr, "that the fallback was taken is said aloud"
    assert json.loads(leo("verify", source, target, "--domain", "-1,1", "--json").stdout)["upper"] < 1e-3

plugins = {(p["kind"], p["name"]): p for p in json.loads(leo("plugins", "--json").stdout)["plugins"]}
for kind, name, extra in (
    ("solver", "highs", "highs"),
    ("solver", "scip", "scip"),
    ("frontend", "onnx", "onnx"),
    ("frontend", "torch", "torch"),
    ("frontend", "keras", "keras"),
    ("executor", "dask", "dask"),
    ("frontend", "tflite", "tflite"),
):
    assert plugins[kind, name]["state"] == "missing"
    assert f'pip install "leo-compress[{extra}]"' in plugins[kind, name]["detail"]
assert plugins["solver", "scipy"]["state"] == "available"
assert plugins["executor", "processes"]["state"] == "available"

sources = [(f"net{suffix}", extra) for suffix, extra in ((".onnx", "onnx"), (".pt", "torch"), (".pt2", "torch"))]
for source, extra in (*sources, ("net.keras", "keras"), ("edge/digits.tflite", "tflite")):
    done = leo("compress", source, "out.leo", "--domain", "-1,1")
    assert done.returncode == 1
    assert f'pip install "leo-compress[{extra}]"' in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def said_by(work: Callable[[], object]) -> str:
    try:
        work()
    except MissingExtraError as error:
        return str(error)
    return ""


for name in ("highs", "scip"):
    assert f"leo-compress[{name}]" in said_by(partial(leo_core.compress, "net.leo", (-1, 1), solver=name))
assert "leo-compress[dask]" in said_by(partial(leo_core.analyze, "net.leo", (-1, 1), cluster="tcp://127.0.0.1:9"))
smaller = leo_core.compress("net.leo", (-1, 1))
for suffix, extra in ((".onnx", "onnx"), (".pt2", "torch"), (".keras", "keras"), (".tflite", "tflite")):
    assert f"leo-compress[{extra}]" in said_by(partial(smaller.export, f"out{suffix}"))
