"""Narrowed bounds: they hold whatever a solver says and whenever the work ends, and come near the true extremes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.optimize
from click.testing import CliRunner
from hypothesis import given, settings
from strategies import networks_and_boxes
from truth import contained

import leo_core
from leo_backends.highs import HighsSolver
from leo_core import Affine, Box, Network, Relu, State
from leo_core.bounds.interval import bound_network
from leo_core.cli import main
from leo_core.errors import UsageError
from leo_core.execution.budget import Budget
from leo_core.execution.events import Progress
from leo_core.linear import Dense
from leo_core.milp.encode import encode
from leo_core.network import INPUT
from leo_core.stability.narrow import narrow
from leo_core.testing.networks import chain, convolutional
from leo_core.testing.reference import ReferenceSolver
from leo_core.testing.wrong import (
    WrongSolver,
    bound_far_too_low,
    crashes,
    limit_reported_as_optimal,
    random_duals,
    wrong_sense,
    zeros,
)
from tests.deciding import decide, work

WRONG = (bound_far_too_low, crashes, limit_reported_as_optimal, random_duals, wrong_sense, zeros)


@settings(max_examples=10)
@given(networks_and_boxes())
def test_narrowed_bounds_contain_the_exact_extremes(network_and_box):
    network, box = network_and_box
    contained(leo_core.analyze(network, box, solver="scipy", tight=0.01, time_limit=2).bounds, network, box)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.__name__)
def test_a_solver_that_is_wrong_makes_no_bound_false(wrong, monkeypatch):
    monkeypatch.setattr("leo_core.stability.narrow.FEW_INPUTS", 0)  # else it would hardly be asked
    network, box = chain(2, 6, 6, 2, seed=5), Box.uniform(-1, 1, 2)
    stability = decide(network, box, solver=ReferenceSolver(), budget=Budget.of(0.0))
    found = narrow(work(network, box, WrongSolver(HighsSolver(), wrong), budget=Budget.of(2.0)), stability, 0.01)
    contained(found.bounds, network, box)


def test_few_inputs_come_within_the_gap():
    network, box = chain(2, 6, 6, 2, seed=3), Box.uniform(-1, 1, 2)
    found = leo_core.analyze(network, box, solver="scipy", tight=1e-3).bounds
    contained(found, network, box)
    assert found.gap <= 1e-3
    assert found.within(1e-3) == (28, 28)


def optimum(network, target, box, unit, sign):
    """The largest sign·a, by another way: SciPy's MILP over plain intervals."""
    found = encode(network, target, bound_network(network, box))
    objective, factor, offset = found.objective(unit, sign)
    p = found.problem
    rows = scipy.optimize.LinearConstraint(p.matrix, p.row_lower, p.row_upper)
    answer = scipy.optimize.milp(-objective, constraints=rows, integrality=p.integer.astype(int),
                                 bounds=scipy.optimize.Bounds(p.lower, p.upper))  # fmt: skip
    return -answer.fun / factor + offset


def test_many_inputs_come_within_the_gap_of_the_exact_optimum():
    network, box, gap = chain(10, 6, 5, 2, seed=1), Box.uniform(-1, 1, 10), 0.01
    found = leo_core.analyze(network, box, tight=gap).bounds
    assert found.gap <= gap
    pairs = [(found.layers["relu2"], "dense2"), (found.outputs["output"], "dense3")]
    for values, target in pairs:
        for unit in range(values.lower.size):
            most, least = optimum(network, target, box, unit, 1), -optimum(network, target, box, unit, -1)
            assert most - 1e-6 <= values.upper[unit] <= most + gap + 1e-6
            assert least - gap - 1e-6 <= values.lower[unit] <= least + 1e-6


def test_a_relu_on_the_output_and_channels():
    found = leo_core.analyze(chain(2, 5, 3, seed=4, relu_last=True), (-1, 1), solver="scipy", tight=0.01).bounds
    assert (found.outputs["output"].lower >= 0).all()
    assert found.gap <= 0.01
    found = leo_core.analyze(convolutional(), (-1, 1), tight=0.5, time_limit=2).bounds
    assert all((values.lower <= values.upper).all() for values in found.layers.values())


def test_an_output_behind_a_leaky_relu():
    """Bounds of what enters the ReLU and of what leaves it are not mixed: below zero, one is ten times the other."""
    relu = Relu("h", "z", np.full(1, 0.1))
    network = Network(1, (Affine("z", (INPUT,), (Dense(np.ones((1, 1))),), np.zeros(1)), relu), "h")
    box = Box.uniform(-1, 1, 1)
    found = leo_core.analyze(network, box, solver="scipy", tight=1e-3).bounds
    contained(found, network, box)
    assert found.gap <= 1e-3


def test_what_was_undecided_may_be_settled():
    network, box = chain(2, 6, 6, 2, seed=3), Box.uniform(-1, 1, 2)
    stability = decide(network, box, solver=ReferenceSolver(), budget=Budget.of(0.0))
    assert stability.count(State.UNDECIDED)
    found = narrow(work(network, box, ReferenceSolver()), stability, 0.01)
    contained(found.bounds, network, box)
    assert not found.count(State.UNDECIDED)
    for layer in found.layers.values():
        assert set(layer.witnesses) == set(np.flatnonzero(layer.state == State.UNSTABLE).tolist())


def test_an_early_end_leaves_bounds_that_hold():
    network, box = chain(2, 6, 6, 2, seed=3), Box.uniform(-1, 1, 2)
    assert leo_core.analyze(network, box, solver="scipy", tight=0.01, time_limit=0).bounds.gap == np.inf
    stability = decide(network, box, solver=ReferenceSolver())
    heard = []

    def stop(event):
        heard.append(event)
        if isinstance(event, Progress) and len(heard) > 4:
            raise KeyboardInterrupt

    found = narrow(work(network, box, ReferenceSolver()), stability, 1e-6, stop)
    assert found.interrupted
    contained(found.bounds, network, box)


def test_what_is_too_large_is_left_as_it_was(monkeypatch):
    monkeypatch.setattr("leo_core.stability.narrow._HELD", 40)
    heard = []
    found = leo_core.analyze(chain(2, 12, 3, 1), (-1, 1), solver="scipy", tight=0.01, listener=heard.append).bounds
    assert found.layers["relu1"].least is None
    assert found.layers["relu2"].gaps.max() <= 0.01
    assert [event.text for event in heard if "too many units" in getattr(event, "text", "")] == [
        "the bounds of 'dense1' are as they were: it has too many units and inputs to be narrowed"
    ]


@pytest.mark.parametrize("gap", [0, -1, float("nan"), float("inf"), "near"])
def test_gaps_that_are_none(gap):
    with pytest.raises(UsageError, match="above 0"):
        leo_core.analyze(chain(2, 3, 1), (-1, 1), tight=gap)


def test_who_narrows_nothing_says_so():
    with pytest.raises(UsageError, match="analyze"):
        leo_core.compress(chain(2, 3, 1), (-1, 1), tight=0.1)
    with pytest.raises(UsageError, match="cross-check"):
        leo_core.cross_check(chain(2, 3, 1), (-1, 1), ("scipy", "highs"), tight=0.1)


def test_the_command_says_how_near(tmp_path):
    net = leo_core.convert(chain(2, 6, 2, seed=2), tmp_path / "net.leo")
    arguments = ["inspect", str(net), "--domain", "-1,1", "--tight", "0.01", "-q"]
    text = CliRunner().invoke(main, arguments, catch_exceptions=False).stdout
    assert "16 of 16 bounds are within 0.01 of the true extreme" in text
    assert "output 'output'[1]: between" in text
    content = json.loads(CliRunner().invoke(main, [*arguments, "--json"], catch_exceptions=False).stdout)
    assert content["tight"]["within"] == content["tight"]["of"] == 16
    assert content["tight"]["largest"] <= 0.01
    assert CliRunner().invoke(main, [*arguments[:5], "-1"]).exit_code == 2
