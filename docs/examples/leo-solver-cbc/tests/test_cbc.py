"""The kit that LEO ships, on this solver: three lines."""

import pytest
from leo_solver_cbc import CbcSolver

from leo_core.testing import solver_kit


@pytest.mark.parametrize("check", solver_kit.CHECKS, ids=lambda check: check.__name__)
def test_conformance(check):
    check(CbcSolver())
