"""The example for microcontrollers runs, on the network that ships with it, and shows that nothing changed."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

EDGE = Path(__file__).parents[2] / "docs" / "examples" / "edge"
pytest.importorskip("ai_edge_litert", reason="LiteRT (ai-edge-litert) is not installed")


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """(what the example says, the folder it wrote to)."""
    folder = tmp_path_factory.mktemp("edge")
    done = subprocess.run(
        [sys.executable, EDGE / "edge.py", "--out", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, folder


def test_the_file_is_smaller_and_no_class_changed(shown):
    said, folder = shown
    assert "classes that changed: 0" in said
    assert (folder / "small_digits.tflite").stat().st_size < (EDGE / "digits.tflite").stat().st_size
    apart = re.search(r"largest difference on \d+ inputs in LiteRT: (\S+)", said)
    assert apart is not None
    assert float(apart[1]) < 1e-5


def test_the_c_array_is_the_file(shown):
    _, folder = shown
    text = (folder / "small_digits.cc").read_text()
    numbers = bytes(int(word, 16) for word in re.findall(r"0x[0-9a-f]{2}", text))
    assert numbers == (folder / "small_digits.tflite").read_bytes()
    assert f"_len = {len(numbers)};" in text


@pytest.mark.skipif(not find_spec("tflite_micro"), reason="tflite-micro, which measures arenas, is not installed")
def test_the_arena_is_measured(shown):
    before, after = re.findall(r"([\d,]+) bytes of arena", shown[0])
    assert int(after.replace(",", "")) < int(before.replace(",", ""))


@pytest.mark.slow
@pytest.mark.skipif(not find_spec("tensorflow"), reason="TensorFlow, whose converter quantises, is not installed")
def test_the_result_is_quantised_by_tensorflow(tmp_path):
    import leo_core

    small, images, target = tmp_path / "small.keras", tmp_path / "images.npy", tmp_path / "small_int8.tflite"
    leo_core.compress(EDGE / "digits.keras", (0, 1)).export(small)
    np.save(images, np.load(EDGE / "digits.npz")["images"].astype(np.float32) / 16)
    done = subprocess.run([sys.executable, EDGE / "to_int8.py", small, images, target],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    changed = re.search(r"classes that changed: (\d+) of (\d+)", done.stdout)
    assert changed is not None
    assert int(changed[1]) <= 0.03 * int(changed[2])
    with pytest.raises(leo_core.errors.UnsupportedModelError, match="quantised"):
        leo_core.compress(target, (0, 1))
