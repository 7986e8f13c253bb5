"""What a release rests on: one version, floors that can be read, a workflow that runs what is there."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from lowest import HEAVY, LIGHT, SCRIPTS, all_floors, floors

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_version_is_the_same_everywhere():
    citation = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    changes = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert citation[1] == changes[1] == PROJECT["version"]


def test_everything_leo_needs_has_a_floor_that_can_be_tried():
    held = all_floors(PROJECT)
    assert "numpy==1.26" in held
    assert len(held) == len({line.split("==")[0] for line in held}), "one floor for each package"
    with pytest.raises(ValueError, match="names no lowest version"):
        floors(["numpy"])
    for script in (LIGHT | HEAVY).values():
        assert (SCRIPTS / script).is_file()
    tried = {extra for extras in LIGHT | HEAVY for extra in extras.split(",") if extra}
    assert tried == set(PROJECT["optional-dependencies"]) - {"all"}, "each extra is tried at its floor"


def test_every_package_leo_names_is_pinned():
    pins = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    pinned = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    for line in all_floors(PROJECT):
        assert re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() in pinned, line


def test_the_workflow_runs_targets_that_are_there_on_every_python_named():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    called = set(re.findall(r"run: make ([a-z-]+)", workflow))
    assert called <= targets
    assert {"check", "test", "docs", "dist-check", "lowest"} <= called
    matrix = re.search(r"python: \[(.+)\]", workflow)
    named = {f'"{line.rsplit(" ", 1)[1]}"' for line in PROJECT["classifiers"] if "Python :: 3." in line}
    assert set(matrix[1].split(", ")) == named
