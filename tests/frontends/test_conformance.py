"""The shipped kit on every frontend there is."""

from __future__ import annotations

import pytest

from leo_core.plugins import registry
from leo_core.testing import frontend_kit


@pytest.mark.parametrize("spec", registry.frontends(), ids=lambda spec: spec.name)
@pytest.mark.parametrize("check", frontend_kit.CHECKS, ids=lambda check: check.__name__)
def test_conformance(spec, check, tmp_path):
    registry.frontend(spec.name)
    check(spec, tmp_path)
