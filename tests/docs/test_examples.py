"""The examples run as they stand, from a copy, and draw the pictures that their pages show."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
RLV = EXAMPLES / "leo-frontend-rlv"
SVG = "{http://www.w3.org/2000/svg}"
#: The script, what it needs, the files it writes, and what it says where nothing has changed.
SCRIPTS = {
    "controller/controller.py": (("torch",), "controller.pt2", r"torque, anywhere on the box: \S+ N·m, proved"),
    "convolution/convolution.py": (("torch",), "smaller.pt2", r"predictions changed: 0;"),
    "leo-frontend-rlv/wave.py": ((), "smaller.rlv", r"units: 32 before, 8 after"),
    "keras-to-pytorch/keras_to_pytorch.py": (("torch", "keras"), "smaller.pt2", r"the same class: 100 of 100;"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_runs_from_a_copy(name, tmp_path):
    packages, written, unchanged = SCRIPTS[name]
    missing = [package for package in ("matplotlib", *packages) if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    shutil.copytree(EXAMPLES, tmp_path / "docs" / "examples", ignore=shutil.ignore_patterns("*.svg"))
    script = tmp_path / "docs" / "examples" / name
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
    }  # threads that wait for each other cost more than they give here
    command = [sys.executable, script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(unchanged, done.stdout), done.stdout
    left = re.search(r"^ connections .* ([\d.]+)%", done.stdout, re.MULTILINE)
    assert left is not None, done.stdout
    assert float(left[1]) < 80, "the example shows nothing"
    assert (tmp_path / written).is_file()
    drawn = ElementTree.parse(tmp_path / f"{script.stem}.svg").getroot()
    shown = ElementTree.parse((EXAMPLES / name).with_suffix(".svg")).getroot()
    assert {e.text for e in drawn.iter(f"{SVG}text")} & {e.text for e in shown.iter(f"{SVG}text")}


def test_the_frontend_passes_the_kit():
    path = os.pathsep.join([str(RLV), str(EXAMPLES.parents[1])])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", RLV / "tests"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


def test_the_tutorial_is_the_script():
    script = (EXAMPLES / "keras-to-pytorch" / "keras_to_pytorch.py").read_text(encoding="utf-8")
    page = (EXAMPLES.parent / "tutorial" / "keras-to-pytorch.md").read_text(encoding="utf-8")
    block = re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert script.split("# tutorial begins\n")[1].split("# tutorial ends")[0].strip() == block[1].strip()


def test_every_example_has_a_page_with_its_picture():
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for folder in filter(Path.is_dir, EXAMPLES.iterdir()):
        assert f"({folder.name}/README.md)" in index
        pictures = [path for suffix in ("svg", "png") for path in folder.glob(f"*.{suffix}")]
        assert pictures or folder.name == "tools", (
            f"{folder.name} has no picture"
        )  # those are scripts for others' tools
        for picture in pictures:
            page = (folder / "README.md").read_text(encoding="utf-8")
            alt = re.search(rf"!\[([^]]+)\]\({picture.name}\)", page)
            assert alt is not None, f"{folder.name}/README.md does not show {picture.name}"
            assert len(alt[1]) > 40
