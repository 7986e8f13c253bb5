"""Which backend Keras gets, and what is imported before what: in processes of their own, with empty packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOTH = ("torch", "tensorflow", "triton", "keras")
TOLD = """
import os, sys
{before}
from leo_frontends.keras.backend import import_keras
try:
    import_keras()
except Exception as error:
    print(type(error).__name__, error)
else:
    import_torch = __import__("leo_frontends.torch", fromlist=["import_torch"]).import_torch
    import_torch()
    print(os.environ["KERAS_BACKEND"], [name for name in sys.modules["order"] if name != "keras"])
    print("triton" in sys.modules and sys.modules["triton"] is None)
"""


def told(tmp_path, packages=BOTH, settings=None, before="", **environment):
    """What a process says that imports Keras, then PyTorch; each package only notes that it was imported.

    Keras imports its backend.
    """
    note = "import sys; sys.modules.setdefault('order', []).append(__name__)\n"
    for name in packages:
        if name != "keras":
            (tmp_path / f"{name}.py").write_text(note)
    if "keras" in packages:
        (tmp_path / "keras.py").write_text(f"{note}import os\n__import__(os.environ['KERAS_BACKEND'])\n")
    if settings is not None:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "keras.json").write_text(settings)
    kept = {name: value for name, value in os.environ.items() if name not in ("KERAS_BACKEND", "PYTHONPATH")}
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    hidden = [name for name in ("torch", "tensorflow", "jax", "triton", "keras") if name not in packages]
    hide = f"""
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name in {hidden!r} else real(name, *more)
{before}"""
    done = subprocess.run(
        [sys.executable, "-c", TOLD.format(before=hide)],
        env={**kept, "PYTHONPATH": path, "KERAS_HOME": str(tmp_path / "home"), **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


def test_pytorch_is_taken_where_both_are_there(tmp_path):
    assert told(tmp_path) == ["torch ['torch']", "False"]


def test_what_keras_writes_into_its_settings_by_itself_is_no_choice(tmp_path):
    assert told(tmp_path, settings=json.dumps({"backend": "tensorflow"}))[0].startswith("torch")


def test_what_the_user_wrote_there_is_one(tmp_path):
    packages = (*BOTH, "jax")
    assert told(tmp_path, packages, settings=json.dumps({"backend": "jax"}))[0].startswith("jax")


@pytest.mark.parametrize("settings", ["", "[]", "{", json.dumps({"backend": "jax"})])
def test_settings_that_say_nothing_or_what_is_not_there_are_passed_over(settings, tmp_path):
    assert told(tmp_path, settings=settings)[0].startswith("torch")


def test_triton_comes_before_a_tensorflow_that_is_asked_for(tmp_path):
    assert told(tmp_path, KERAS_BACKEND="tensorflow") == ["tensorflow ['triton', 'tensorflow', 'torch']", "False"]


def test_pytorch_goes_without_triton_where_tensorflow_is_there_already(tmp_path):
    assert told(tmp_path, before="import tensorflow") == ["torch ['tensorflow', 'torch']", "True"]


def test_a_backend_that_is_not_there_is_named(tmp_path):
    (said, *_) = told(tmp_path, KERAS_BACKEND="cuneiform")
    assert said.startswith("MissingExtraError")
    assert "cuneiform" in said


def test_no_backend_at_all(tmp_path):
    said = " ".join(told(tmp_path, ("keras",)))
    assert said.startswith("MissingExtraError")
    assert "torch, tensorflow or jax" in said
