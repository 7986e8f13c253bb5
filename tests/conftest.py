"""Settings for every test, and the folder of real networks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# CI draws the same examples each time, so that a commit that passed passes again; elsewhere they are new ones
settings.register_profile(
    "leo",
    derandomize=bool(os.environ.get("CI")),
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("leo")

ROOT = Path(__file__).parent.parent
NETS = ROOT.parent / "shared" / "nets"


@pytest.fixture(scope="session")
def nets() -> Path:
    """The real networks kept beside the project."""
    if not (NETS / "INDEX.json").exists():
        pytest.skip("the real networks (../shared/nets) are not on this machine")
    return NETS


@pytest.fixture(scope="session")
def index(nets):
    """INDEX.json by file name."""
    return {entry["file"]: entry for entry in json.loads((nets / "INDEX.json").read_text())["networks"]}


@pytest.fixture(scope="session")
def digits() -> Path:
    """The folder of the demo's network."""
    return ROOT / "docs" / "examples" / "digits"
