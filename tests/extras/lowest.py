"""The lowest versions that pyproject.toml allows, for real: ``make lowest``.

    python tests/extras/lowest.py [EXTRAS …]

makes an environment for each list of extras (by default the light ones), with every package that LEO names held at its
floor and all others as pip chooses, and runs the script of those extras in it. ``heavy`` stands for the others, which
take gigabytes, unless PIP_EXTRA_INDEX_URL names PyTorch's index of builds without CUDA.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

from dist_check import ROOT, build, run

SCRIPTS = Path(__file__).parent / "scripts"
#: By extras: the script that must succeed with them.
LIGHT = {
    "": "bare.py",
    "highs": "highs.py",
    "scip": "scip.py",
    "highs,onnx": "onnx_files.py",
    "highs,dask": "dask_cluster.py",
    "highs,tflite": "tflite_files.py",
    "exact,report": "exact_report.py",
}
HEAVY = {
    "highs,torch": "torch_models.py",
    "highs,keras,torch": "keras_models.py",
    "highs,tensorflow": "tensorflow_models.py",
}
SUFFIXES = (".nnet", ".leo", ".onnx", ".pt2", ".pt", ".keras")


def floors(requirements: Iterable[str]) -> list[str]:
    """``numpy>=1.26`` as ``numpy==1.26``, which is 1.26.0; raises :class:`ValueError` where there is no floor."""
    held = []
    for requirement in requirements:
        found = re.fullmatch(r"([A-Za-z0-9_.-]+)>=([0-9.]+)", requirement)
        if found is None:
            raise ValueError(f"'{requirement}' names no lowest version; write NAME>=VERSION")
        held.append(f"{found[1]}=={found[2]}")
    return held


def all_floors(project: dict[str, object]) -> list[str]:
    """Of everything that a ``[project]`` table depends on, extras included."""
    extras = {name: needs for name, needs in project["optional-dependencies"].items() if name != "all"}
    return sorted({*floors(project["dependencies"]), *floors(need for needs in extras.values() for need in needs)})


def make_files(folder: Path) -> None:
    """What the scripts read, made with the versions that are installed here."""
    import numpy as np

    import leo_core
    from leo_core.testing.networks import chain

    for suffix in SUFFIXES:
        leo_core.convert(chain(3, 8, 8, 2, seed=2), folder / f"net{suffix}")
    np.save(folder / "points.npy", np.random.default_rng(0).uniform(-1, 1, (50, 3)))
    for name in ("digits", "edge"):
        shutil.copytree(ROOT / "docs" / "examples" / name, folder / name)


def try_out(wheel: Path, extras: str, constraints: Path, files: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        environment, work = Path(folder, "environment"), Path(folder, "work")
        run(sys.executable, "-m", "venv", environment)
        python = environment / "bin" / "python"
        wanted = f"{wheel}[{extras}]" if extras else str(wheel)
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", constraints, wanted)
        shutil.copytree(files, work)
        run(python, "-P", SCRIPTS / (LIGHT | HEAVY)[extras], cwd=work)
        print(f"works at its lowest versions: {extras or 'no extra'}", flush=True)


def main(chosen: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    with tempfile.TemporaryDirectory() as folder:
        constraints, files, built = Path(folder, "floors.txt"), Path(folder, "files"), Path(folder, "built")
        constraints.write_text("\n".join(all_floors(project)) + "\n", encoding="utf-8")
        files.mkdir()
        make_files(files)
        wheel, _ = build(built)
        for extras in HEAVY if chosen == ["heavy"] else chosen or LIGHT:
            try_out(wheel, extras, constraints, files)


if __name__ == "__main__":
    main(sys.argv[1:])
