"""Each extra alone is enough for what it is for: the built package in fresh environments, and a script in each."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np
import pytest

import leo_core
from leo_core.testing.networks import chain

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "scripts"
EXAMPLE = ROOT / "docs" / "examples" / "leo-solver-cbc"
RLV = ROOT / "docs" / "examples" / "leo-frontend-rlv"
#: Which extras are installed, what else, and the scripts that must then succeed.
ENVIRONMENTS = {
    "": ([], "bare.py"),
    "highs": ([], "highs.py"),
    "scip": ([], "scip.py"),
    "highs,dask": ([], "dask_cluster.py"),
    "highs,onnx": ([str(EXAMPLE), "pytest", "matplotlib"], "onnx_files.py", "cbc.py"),
    "highs,torch": ([], "torch_models.py"),
    "highs,keras,torch": ([], "keras_models.py"),
    "exact": ([str(RLV), "pytest"], "rlv.py"),
    "highs,tflite": ([], "tflite_files.py"),
}

pytestmark = pytest.mark.slow


def pip(python: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", *arguments]
    done = subprocess.run([*command, "--quiet"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def wheel():
    """The package, built from a copy: a tree that was built in before may hold stale files."""
    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder, "source"), Path(folder, "built")
        source.mkdir()
        for name in ("leo_core", "leo_backends", "leo_frontends"):
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, source)
        constraints = str(ROOT / "constraints.txt")
        pip(
            Path(sys.executable), "wheel", "--no-deps", "--build-constraint", constraints, "-w", str(built), str(source)
        )
        yield next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def files(digits):
    """A file of every format, for environments that may not be able to write it."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        network = chain(3, 8, 8, 2, seed=2)
        for suffix in (".nnet", ".leo", ".onnx", ".pt2", ".pt", ".keras"):
            leo_core.convert(network, made / f"net{suffix}")
        for example in (EXAMPLE, RLV):  # without the module, which is to be the installed one
            shutil.copytree(example / "tests", made / example.name / "tests")
        shutil.copy(EXAMPLE / "compare.py", made / EXAMPLE.name)
        np.save(made / "points.npy", np.random.default_rng(0).uniform(-1, 1, (50, 3)))
        shutil.copytree(digits, made / "digits")
        shutil.copytree(digits.parent / "edge", made / "edge")
        yield made


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("extras", ENVIRONMENTS, ids=lambda extras: extras or "none")
def test_extras_alone_are_enough(extras, wheel, files):
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=False, symlinks=True)
        python = Path(folder, "bin", "python")
        wanted = f"{wheel}[{extras}]" if extras else str(wheel)
        others, *scripts = ENVIRONMENTS[extras]
        constraints = str(ROOT / "constraints.txt")
        pip(python, "install", "--constraint", constraints, "--build-constraint", constraints, wanted, *others)
        work = Path(folder, "work")
        shutil.copytree(files, work)
        for script in scripts:
            command = [python, "-P", SCRIPTS / script]
            done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
