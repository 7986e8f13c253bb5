"""Verdicts on real networks do not depend on which solver was asked."""

from __future__ import annotations

import pytest

import leo_core
from leo_core.plugins import registry
from leo_core.stability.verdict import State

pytestmark = [pytest.mark.real, pytest.mark.slow]

#: What every solver decides under the paper's strategy in seconds.
QUICK = (
    "hello_world/hello_world.onnx",
    "sb3/sac_MountainCarContinuous.onnx",
    "pyscipopt_ml/sk_3_42_0_0_relu.onnx",
    "gurobi_ml/diabetes.keras",
)


@pytest.mark.parametrize("strategy", ["cascade", "paper", "isa"])
@pytest.mark.parametrize("file", QUICK)
@pytest.mark.filterwarnings("ignore")
def test_solvers_agree(file, strategy, nets, index):
    if file not in index:
        pytest.skip(f"{file} is not in INDEX.json")
    names = [status.name for status in registry.listing() if status.kind == "solver" and status.state == "available"]
    first, *others = names
    for other in others:
        found = leo_core.cross_check(nets / file, nets / index[file]["domain"], (first, other), strategy=strategy)
        assert not found.disagreements
        assert found.first.count(State.UNDECIDED) == found.second.count(State.UNDECIDED) == 0
