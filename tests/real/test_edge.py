"""MLPerf Tiny's visual-wake-words network as it is shipped to a chip: from Keras to TensorFlow Lite, and smaller."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

import leo_core
from leo_core import door, files

pytest.importorskip("ai_edge_litert", reason="LiteRT (ai-edge-litert) is not installed")

from leo_frontends.tflite.run import runner

pytestmark = [pytest.mark.real, pytest.mark.slow]

CONVERT = """
import sys
import keras
import tensorflow as tf
model = keras.models.load_model(sys.argv[1], compile=False)
open(sys.argv[2], "wb").write(tf.lite.TFLiteConverter.from_keras_model(model).convert())
"""
ARENA = """
import sys
import numpy as np
from tflite_micro import runtime
ran = runtime.Interpreter.from_file(sys.argv[1])
given = ran.get_input_details(0)
ran.set_input(np.load(sys.argv[2]), 0)
ran.invoke()
np.save(sys.argv[2], ran.get_output(0))
ran.print_allocations()
"""


@pytest.fixture(scope="module")
def keras_file(nets, tmp_path_factory):
    """The network's Keras 2 file as Keras 3 has it."""
    pytest.importorskip("keras", reason="Keras is not installed")
    path = tmp_path_factory.mktemp("edge") / "vww_96.keras"
    return leo_core.convert(nets / "mlperf_tiny" / "vww_96.h5", path)


@pytest.fixture(scope="module")
def converted(keras_file):
    """The float file that TensorFlow's converter makes of it."""
    if find_spec("tensorflow") is None:
        pytest.skip("TensorFlow, whose converter makes the file, is not installed")
    path = keras_file.with_suffix(".tflite")
    environment = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, "-c", CONVERT, keras_file, path], check=True, env={**_environment(), **environment})
    return path


def _environment():
    import os

    return dict(os.environ)


def test_one_line_leaves_a_seventh_of_the_weights_and_the_same_outputs(converted):
    small = converted.with_name("small.tflite")
    call = [sys.executable, "-m", "leo_core", "compress", converted, small, "--domain", "0,1", "--json"]
    report = json.loads(subprocess.run(call, capture_output=True, text=True, check=True).stdout)
    assert report["door"] == {"read": door.AGREES, "written": door.AGREES}
    assert report["after"]["connections"] <= 0.15 * report["before"]["connections"]
    assert small.stat().st_size <= 0.20 * converted.stat().st_size
    points = np.random.default_rng(0).random((300, 96, 96, 3)).astype(np.float32)
    before, after = (runner(path.read_bytes(), 0)(points) for path in (converted, small))
    noise = report["float_noise"] + report["float_noise_after"]
    assert np.abs(before - after).max() <= report["deviation"] + noise
    if find_spec("tflite_micro") is not None:
        (was, first), (now, second) = (in_arena(path, points[0]) for path in (converted, small))
        assert now < was
        assert report["before"]["activation_bytes"] <= was
        assert np.abs(first - second).max() <= report["deviation"] + noise
        assert np.abs(first - before[0]).max() <= 1e-5


def in_arena(path, point):
    """(bytes of tflite-micro's arena, what it computes)."""
    held = path.with_suffix(".npy")
    np.save(held, point[None])
    done = subprocess.run([sys.executable, "-c", ARENA, path, held], capture_output=True, text=True, check=True)
    found = re.search(r"Arena allocation total (\d+) bytes", done.stderr)
    assert found is not None
    return int(found[1]), np.load(held)


def test_leo_writes_the_keras_file_as_tflite_itself(nets, tmp_path):
    pytest.importorskip("keras", reason="Keras is not installed")
    imported, _ = files.read(nets / "mlperf_tiny" / "vww_96.h5", domain=(0, 1))
    path = tmp_path / "own.tflite"
    points = np.random.default_rng(1).random((10, 27648)).astype(np.float32)
    assert files.write(imported.network, path, points).door == door.AGREES
    images = points.reshape(-1, 96, 96, 3)
    assert np.abs(np.asarray(imported.run(images)) - runner(path.read_bytes(), 0)(images)).max() <= 1e-5


def test_hello_world_makes_the_round_trip(nets, tmp_path):
    pytest.importorskip("onnx", reason="ONNX is not installed")
    source = nets / "hello_world" / "hello_world.onnx"
    first, small, back = (tmp_path / name for name in ("first.tflite", "small.tflite", "back.onnx"))
    leo_core.convert(source, first)
    result = leo_core.compress(first, nets / "hello_world" / "hello_world.domain.json")
    assert result.network.connections < result.original.connections
    assert result.written(small).door == door.AGREES
    leo_core.convert(first, back)
    was, now = (files.lower(path)[0].network for path in (source, back))
    points = result.stability.box.sample(np.random.default_rng(0), 50)
    assert np.array_equal(was.evaluate(points), now.evaluate(points))
    domain = result.stability.box.lower[0], result.stability.box.upper[0]
    given = np.linspace(*domain, 300, dtype=np.float32)[:, None]
    apart = np.abs(runner(first.read_bytes(), 0)(given) - runner(small.read_bytes(), 0)(given)).max()
    assert apart <= result.deviation + result.float_noise + result.float_noise_after
