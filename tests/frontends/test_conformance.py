"""The shipped kit on every frontend there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from leo_core.plugins import registry
from leo_core.testing import frontend_kit


@pytest.mark.parametrize("spec", registry.frontends(), ids=lambda spec: spec.name)
@pytest.mark.parametrize("check", frontend_kit.CHECKS, ids=lambda check: check.__name__)
def test_conformance(spec, check, tmp_path):
    registry.frontend(spec.name)
    check(spec, tmp_path)


@pytest.mark.parametrize("spec", [spec for spec in registry.frontends() if spec.extra], ids=lambda spec: spec.name)
def test_an_extra_installs_what_its_frontend_needs_and_no_more(spec):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {
        re.split(r"[<>=]", requirement)[0].replace("-", "_")
        for requirement in project["optional-dependencies"][spec.extra]
    }
    assert wanted == set(spec.packages)
