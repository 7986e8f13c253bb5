"""Verdicts against the exact truth, and against solvers that lie."""

from __future__ import annotations

import math
import warnings
from contextlib import closing
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import networks_and_boxes
from truth import extremes, states

from leo_backends.highs import HighsSolver
from leo_core.bounds.descend import descend
from leo_core.bounds.dual import bound_above, bound_above_exact
from leo_core.bounds.dual import given as given_multipliers
from leo_core.bounds.interval import bound_network
from leo_core.bounds.region import Region
from leo_core.bounds.upto import upto
from leo_core.checker.trees import EMPTY
from leo_core.domain import Box
from leo_core.errors import MissingExtraError
from leo_core.execution.budget import LEAST, Budget, Patience
from leo_core.execution.events import Note, Progress
from leo_core.execution.pool import Pool
from leo_core.linear import Dense
from leo_core.milp.solver import Capability
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.options import OPEN_SECONDS, UNIT_SECONDS, Options
from leo_core.plugins import registry
from leo_core.search.attack import Climb
from leo_core.search.evidence import parts
from leo_core.stability import Method, State
from leo_core.stability import isa as isa_module
from leo_core.testing.networks import chain, leaky, residual, skip
from leo_core.testing.reference import ReferenceSolver
from leo_core.testing.wrong import FAULTS, WrongSolver, hangs, kills_its_process
from tests.deciding import decide


def installed(name):
    """A solver, or the test is skipped with how to get it."""
    try:
        return registry.solver(name)
    except MissingExtraError as error:
        pytest.skip(str(error))


def paper(network, box, solver=None, **options):
    return decide(network, box, strategy="paper", solver=solver or HighsSolver(), **options)


def isa(network, box, solver=None, **options):
    return decide(network, box, strategy="isa", solver=solver or HighsSolver(), **options)


def cascade(network, box, solver=None, **options):
    return decide(network, box, solver=solver or HighsSolver(), **options)


def assert_sound(network, box, found, *, complete=True):
    """No verdict contradicts the truth; bounds hold; witnesses are what they say."""
    truth, values = states(network, box), extremes(network, box)
    for relu in network.relus:
        layer = found.layers[relu.name]
        for unit, state in enumerate(layer.state):
            low, high = values[relu.source][unit]
            assert layer.lower[unit] <= low, (relu.name, unit, "lower bound")
            assert high <= layer.upper[unit], (relu.name, unit, "upper bound")
            if state != State.UNDECIDED:
                assert State(state) is truth[relu.name][unit], (relu.name, unit)
            if complete and state == State.UNDECIDED:
                # only a sign that hangs on less than rounding, in numbers that are no quarters, may stay open
                assert not in_quarters(network), (relu.name, unit)
                assert min(abs(low), abs(high)) < 1e-9, (relu.name, unit)
        for unit, (negative, positive) in layer.witnesses.items():
            assert box.contains([negative, positive])
            assert network.evaluate_exact(negative)[relu.source].fractions()[unit] < 0
            assert network.evaluate_exact(positive)[relu.source].fractions()[unit] > 0
        for unit, tree in layer.trees.items():
            assert layer.state[unit] in (State.ACTIVE, State.INACTIVE)
            recheck(network, relu.source, unit, layer.state[unit], tree, box)


def in_quarters(network):
    return all(
        (4 * array == np.round(4 * array)).all()
        for node in network.nodes
        for array in ([node.slope] if isinstance(node, Relu) else [node.bias, *(m.dense() for m in node.maps)])
    )


def recheck(network, target, unit, state, tree, box):
    """The evidence alone, put through exact arithmetic on plain intervals cut by the tree's splits."""
    objective = np.zeros(network.size(target))
    objective[unit] = -1.0 if state == State.ACTIVE else 1.0
    truth = extremes(network, box)

    claim = tree.claims.index((unit, int(objective[unit])))
    closing = {node: k for k, (node, of, _) in enumerate(tree.closed.tolist()) if of == claim}
    empty = tree.closed[:, 2] == EMPTY
    if not (tree.where > 0).any() and not tree.y and not empty.any():  # halvings of the box
        lower, upper, _ = parts(tree, box.lower, box.upper)
        boxes = [(lower[node], upper[node]) for node in closing]
        assert sum(volume(*ends) for ends in boxes) == volume(box.lower, box.upper)
        for ends in boxes[:20]:
            low, high = extremes(network, Box(*ends))[target][unit]
            assert high <= 0 if objective[unit] > 0 else low >= 0
        return

    def walk(node, region):
        at = tree.where[node] - 1
        if at < 0:
            k = closing[node]
            y = {name: values[tree.row[k]] for name, values in tree.y.items()} if tree.row[k] >= 0 else {}
            zero = objective * 0 if empty[k] else objective
            bound = bound_above_exact(network, target, zero, region, y, tree.tilts.get(k, {}))
            assert region.empty or (bound < 0 if empty[k] else bound <= 0)
            return
        plan = list(upto(network, target).positions)
        for half, active in ((tree.first[node], True), (tree.first[node] + 1, False)):
            part = region.split(plan[at], tree.unit[node], active=active)
            if not part.empty:
                known = Region(part.lower, part.upper, {name: part.intervals[name] for name in plan})
                first = np.zeros(1, np.int64)
                part = descend(network, target, known.take(first), first + at)[0].one(0)
            walk(half, part)

    region = Region.of(box)
    for node in network.nodes:
        if isinstance(node, Affine):
            low, high = zip(*truth[node.name], strict=True)
            region = region.tightened(node.name, np.array([down(v) for v in low]), np.array([up(v) for v in high]))
    walk(0, region)


def volume(lower, upper) -> Fraction:
    """Of a box, in its inputs that are not fixed."""
    ends = [(Fraction(float(a)), Fraction(float(b))) for a, b in zip(lower, upper, strict=True) if a < b]
    return math.prod((b - a for a, b in ends), start=Fraction(1))


def up(value: Fraction) -> float:
    near = float(value)
    return near if Fraction(near) >= value else float(np.nextafter(near, np.inf))


def down(value: Fraction) -> float:
    return -up(-value)


@pytest.mark.parametrize("strategy", [paper, isa, cascade], ids=lambda strategy: strategy.__name__)
@given(case=networks_and_boxes())
def test_verdicts_agree_with_the_truth(strategy, case):
    network, box = case
    assert_sound(network, box, strategy(network, box))


CASCADE = "stability.cascade"
#: What makes the cascade go a certain way: settings of its modules.
WAYS = {
    "phase trees by LP": {f"{CASCADE}.FEW_INPUTS": 0},
    "phase trees in batches": {f"{CASCADE}.FEW_INPUTS": 0, "search.prover.SMALL": 0},
    "boxes in small parts": {"search.boxes.BATCH": 2, "search.boxes.BROAD": 6, "search.boxes.STEPS": 2},
    "no slopes, no climbing": {f"{CASCADE}.SLOPES": 0, f"{CASCADE}.CLIMB": Climb(0), f"{CASCADE}.FEW_INPUTS": 0},
    "given up early": {f"{CASCADE}.QUICK_NODES": 1, "search.lp_tree.TRIAL": 1, f"{CASCADE}.FEW_INPUTS": 0},
}


@pytest.fixture(params=WAYS)
def way(request):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in WAYS[request.param].items():
            patch.setattr(f"leo_core.{name}", value)
        yield request.param


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=networks_and_boxes(layers=st.integers(2, 4)))
def test_every_way_of_the_cascade_agrees_with_the_truth(way, case):
    network, box = case
    assert_sound(network, box, cascade(network, box), complete=False)


def test_a_unit_gets_no_more_than_its_own_time():
    network, box = chain(4, 20, 20, 20, 1, seed=4), Box.uniform(-0.3, 0.3, 4)
    free, none = cascade(network, box), cascade(network, box, unit_seconds=0.0)
    assert none.count(State.UNDECIDED) > free.count(State.UNDECIDED) == 0
    for name, layer in none.layers.items():
        decided = layer.state != State.UNDECIDED
        assert (layer.state[decided] == free.layers[name].state[decided]).all()


def test_units_that_are_given_up_are_told_with_the_limits():
    network, box, notes = chain(4, 20, 20, 20, 1, seed=4), Box.uniform(-0.3, 0.3, 4), []
    cascade(network, box, unit_seconds=1e-6, open_seconds=1.0,
            listener=lambda event: notes.append(event.text) if isinstance(event, Note) else None)  # fmt: skip
    told = [note for note in notes if "given up" in note]
    assert len(told) == 1
    assert "1e-06 s, those that stay open about 1 s in all" in told[0]


def test_what_is_lost_leaves_less_for_the_next():
    patience, given = Patience(100.0), []
    for _ in range(200):
        given.append(patience.each)
        patience.lose(patience.each)
    assert given == sorted(given, reverse=True)
    assert given[0] == 10.0
    assert sum(given) <= 100 + 200 * LEAST
    assert Patience().each == float("inf")


def test_no_limit_for_a_unit_is_zero_and_none_is_the_default():
    assert Options().unit_limits == (UNIT_SECONDS, OPEN_SECONDS)
    assert Options(unit_time_limit=0).unit_limits == (float("inf"), float("inf"))
    assert Options(unit_time_limit=3).unit_limits == (3, float("inf"))


@pytest.mark.parametrize("fault", [kills_its_process, hangs], ids=lambda fault: fault.__name__)
def test_a_solver_that_kills_or_hangs_its_worker_costs_the_units_it_was_asked_about(fault):
    network, box = chain(10, 20, 20, 1, seed=2), Box.uniform(-0.25, 0.25, 10)
    right, notes = cascade(network, box), []
    with closing(Pool(2)) as pool:
        wrong = WrongSolver(HighsSolver(), fault)
        listener = lambda event: notes.append(event.text) if isinstance(event, Note) else None  # noqa: E731
        found = cascade(network, box, wrong, executor=pool, budget=Budget.of(8), listener=listener)
    assert 0 < found.count(State.UNDECIDED) < 10
    assert notes
    for name, layer in found.layers.items():
        decided = layer.state != State.UNDECIDED
        assert (layer.state[decided] == right.layers[name].state[decided]).all()


def test_a_large_tree_without_any_relu_before_its_unit_ends():
    # out = 10¹⁶ s + s − 10¹⁶ s: its slope in floats is 0, so no witness is found, and there is nothing to split on
    size = 1200
    nodes = (
        Affine("z1", (INPUT,), (Dense(np.ones((3, size))),), np.full(3, 0.5 - size)),
        Affine("out", ("z1",), (Dense([[1e16, 1.0, -1e16]]),), np.zeros(1)),
        Relu("h", "out", np.zeros(1)),
    )
    found = cascade(Network(size, nodes, "h"), Box.uniform(0, 1, size))
    assert found.layers["h"].state[0] in (State.UNSTABLE, State.UNDECIDED)


@pytest.mark.parametrize("strategy", [paper, isa, cascade], ids=lambda strategy: strategy.__name__)
@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e150, 1e300])
def test_overflow_and_underflow_end_in_verdicts_or_none_but_never_in_a_traceback(strategy, scale):
    rng = np.random.default_rng(0)
    nodes, at, columns = [], INPUT, 2
    for number in (1, 2, 3):
        matrix = np.round(4 * rng.standard_normal((4, columns))) * scale
        nodes += [
            Affine(f"z{number}", (at,), (Dense(matrix),), np.round(rng.standard_normal(4))),
            Relu(f"h{number}", f"z{number}", np.zeros(4)),
        ]
        at, columns = f"h{number}", 4
    network, box = Network(2, tuple(nodes), at), Box.uniform(-1, 1, 2)
    truth = states(network, box)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = strategy(network, box)
    for name, layer in found.layers.items():
        for state, true in zip(layer.state, truth[name], strict=True):
            assert state in (State.UNDECIDED, true)


@given(networks_and_boxes(inputs=st.integers(3, 5), width=st.integers(3, 6)))
def test_cascade_agrees_with_paper_where_inputs_are_more(case):
    network, box = case
    found, other = cascade(network, box), paper(network, box)
    for name, layer in found.layers.items():
        assert layer.state.tolist() == other.layers[name].state.tolist() or not in_quarters(network)
        both = (layer.state != State.UNDECIDED) & (other.layers[name].state != State.UNDECIDED)
        assert (layer.state[both] == other.layers[name].state[both]).all()


@pytest.mark.parametrize("name", ["scipy", "scip"])
@given(case=networks_and_boxes(layers=st.just(2)))
def test_other_solvers_find_the_same_as_highs(name, case):
    network, box = case
    found, other = paper(network, box), paper(network, box, installed(name))
    for name, layer in found.layers.items():
        assert layer.state.tolist() == other.layers[name].state.tolist() or not in_quarters(network)
        both = (layer.state != State.UNDECIDED) & (other.layers[name].state != State.UNDECIDED)
        assert (layer.state[both] == other.layers[name].state[both]).all()


@given(networks_and_boxes())
def test_trusting_the_solver_agrees_on_networks_this_small(case):
    network, box = case
    found, proved = paper(network, box, trust="solver"), paper(network, box)
    assert found.trusted
    reached = extremes(network, box)
    for relu in network.relus:
        layer, truth = found.layers[relu.name], proved.layers[relu.name]
        decided = (layer.state != State.UNDECIDED) & (truth.state != State.UNDECIDED)
        # a solver's tolerance hides what is smaller than that: it may well be wrong there
        decided &= np.array([min(abs(low), abs(high)) > 1e-5 for low, high in reached[relu.source]])
        assert (layer.state[decided] == truth.state[decided]).all()


@pytest.mark.parametrize("strategy", [paper, isa, cascade], ids=lambda strategy: strategy.__name__)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@given(case=networks_and_boxes(layers=st.integers(1, 2)))
def test_a_wrong_solver_costs_verdicts_but_never_truth(fault, strategy, case):
    network, box = case
    found = strategy(network, box, WrongSolver(ReferenceSolver(), fault))
    assert_sound(network, box, found, complete=False)


def test_a_maximum_of_exactly_zero_is_inactive_and_a_minimum_of_zero_active():
    nodes = (
        Affine("z", (INPUT,), (Dense([[1.0], [-1.0], [0.0], [1.0]]),), np.array([-1.0, 1.0, 0.0, 0.0])),
        Relu("h", "z", np.zeros(4)),
    )
    found = paper(Network(1, nodes, "h"), Box.uniform(0, 1, 1))
    assert found.layers["h"].state.tolist() == [State.INACTIVE, State.ACTIVE, State.INACTIVE, State.ACTIVE]


@pytest.mark.parametrize("strategy", [paper, isa], ids=lambda strategy: strategy.__name__)
def test_zero_behind_a_layer_needs_the_prover_and_is_found(strategy):
    # h1 + h2 − 1 = |x| − 1 on [−1, 1]: its maximum is exactly 0, an interval says 1
    nodes = (
        Affine("z1", (INPUT,), (Dense([[1.0], [-1.0]]),), np.zeros(2)),
        Relu("h1", "z1", np.zeros(2)),
        Affine("z2", ("h1",), (Dense([[1.0, 1.0]]),), np.array([-1.0])),
        Relu("h2", "z2", np.zeros(1)),
    )
    found = strategy(Network(1, nodes, "h2"), Box.uniform(-1, 1, 1))
    assert found.layers["h2"].state.tolist() == [State.INACTIVE]
    assert found.layers["h2"].method[0] in (Method.BOUND, Method.TREE)


@pytest.mark.parametrize("strategy", [paper, isa], ids=lambda strategy: strategy.__name__)
def test_a_positive_sliver_is_not_called_inactive(strategy):
    # the same, raised by 2**-40: positive at both ends, by less than any solver's tolerance
    nodes = (
        Affine("z1", (INPUT,), (Dense([[1.0], [-1.0]]),), np.zeros(2)),
        Relu("h1", "z1", np.zeros(2)),
        Affine("z2", ("h1",), (Dense([[1.0, 1.0]]),), np.array([-1.0 + 2.0**-40])),
        Relu("h2", "z2", np.zeros(1)),
    )
    found = strategy(Network(1, nodes, "h2"), Box.uniform(-1, 1, 1))
    assert found.layers["h2"].state[0] in (State.UNSTABLE, State.UNDECIDED)


@pytest.mark.parametrize("strategy", [paper, isa], ids=lambda strategy: strategy.__name__)
@pytest.mark.parametrize("make", [residual, skip, leaky, lambda: chain(2, 4, 4, 1)])
def test_residual_skip_and_leaky_networks_are_decided(make, strategy):
    network = make()
    box = Box.uniform(-0.5, 0.5, network.input_size)
    found = strategy(network, box)
    assert found.count(State.UNDECIDED) == 0
    points = np.vstack([box.sample(np.random.default_rng(0), 500), box.corners()])
    values = network.evaluate_nodes(points)
    for relu in network.relus:
        layer, z = found.layers[relu.name], values[relu.source]
        assert (z[:, layer.state == State.ACTIVE] >= -1e-12).all()
        assert (z[:, layer.state == State.INACTIVE] <= 1e-12).all()
        assert (z >= layer.lower - 1e-12).all()
        assert (z <= layer.upper + 1e-12).all()


@given(networks_and_boxes())
def test_any_multipliers_bound_the_truth(case):
    network, box = case
    region = bound_network(network, box)
    rng = np.random.default_rng(0)
    truth = extremes(network, box)
    target = [node.name for node in network.nodes if isinstance(node, Affine)][-1]
    size = network.size(target)
    for scale in (0.1, 1.0, 10.0):
        y = {node.name: scale * rng.standard_normal(node.size) for node in network.nodes if isinstance(node, Affine)}
        bound = bound_above(network, target, np.eye(size), region, given_multipliers(y)).upper
        for unit in range(size):
            exact = bound_above_exact(network, target, np.eye(size)[unit], region, y)
            assert truth[target][unit][1] <= exact <= bound[unit]


@pytest.mark.parametrize("strategy", [paper, isa], ids=lambda strategy: strategy.__name__)
def test_an_expired_budget_leaves_units_undecided_and_bounds_sound(strategy):
    network, box = chain(2, 6, 6, 1), Box.uniform(-1, 1, 2)
    found = strategy(network, box, budget=Budget.of(0))
    assert found.count(State.UNDECIDED) > 0
    assert_sound(network, box, found, complete=False)


def test_ctrl_c_keeps_what_was_found():
    network, box = chain(2, 6, 6, 1, seed=9), Box.uniform(-1, 1, 2)
    seen = []

    def listener(event):
        seen.append(event)
        if isinstance(event, Progress) and event.number == 2:
            raise KeyboardInterrupt

    found = paper(network, box, listener=listener)
    assert found.interrupted
    assert_sound(network, box, found, complete=False)
    first, second = found.layers.values()
    assert first.count(State.UNDECIDED) == 0 < second.count(State.UNDECIDED)


@pytest.mark.parametrize("strategy", [paper, isa], ids=lambda strategy: strategy.__name__)
def test_a_crashing_solver_is_reported_once(strategy):
    notes = []
    crash = next(fault for fault in FAULTS if fault.__name__ == "crashes")
    strategy(chain(2, 5, 5, 1, seed=4), Box.uniform(-1, 1, 2), WrongSolver(ReferenceSolver(), crash),
          listener=lambda event: notes.append(event.text) if isinstance(event, Note) else None)  # fmt: skip
    assert [note for note in notes if "failed" in note] == [note for note in notes if "licence expired" in note]
    assert sum("failed" in note for note in notes) == 1


@given(networks_and_boxes(inputs=st.integers(3, 5)))
def test_verdicts_hold_on_samples_of_larger_boxes(case):
    network, box = case
    found = paper(network, box)
    points = np.vstack([box.sample(np.random.default_rng(0), 200), box.corners(64)])
    values = network.evaluate_nodes(points)
    for relu in network.relus:
        layer, z = found.layers[relu.name], values[relu.source]
        slack = 1e-9
        assert (z[:, layer.state == State.ACTIVE] >= -slack).all()
        assert (z[:, layer.state == State.INACTIVE] <= slack).all()


@pytest.mark.parametrize("strategy", [paper, isa, cascade], ids=lambda strategy: strategy.__name__)
def test_a_node_with_two_relus_and_one_that_no_output_needs_are_decided(strategy):
    # z is read by a ReLU and a leaky one; nothing needs 'beside', whose unit |x| − 2 is never positive on [−1, 1]
    nodes = (
        Affine("z", (INPUT,), (Dense([[1.0], [-1.0]]),), np.zeros(2)),
        Relu("plain", "z", np.zeros(2)),
        Relu("leaky", "z", np.full(2, 0.25)),
        Affine("beside", ("plain",), (Dense([[1.0, 1.0], [1.0, -1.0]]),), np.array([-2.0, 0.0])),
        Relu("unread", "beside", np.zeros(2)),
        Affine("top", ("plain", "leaky"), (Dense([[1.0, 1.0]]), Dense([[1.0, 1.0]])), np.array([0.0])),
        Relu("last", "top", np.zeros(1)),
    )
    network, box = Network(1, nodes, "last"), Box.uniform(-1, 1, 1)
    found = strategy(network, box)
    assert_sound(network, box, found)
    assert found.layers["unread"].state.tolist() == [State.INACTIVE, State.UNSTABLE]
    assert found.layers["last"].state.tolist() == [State.ACTIVE]


class CountingSolver:
    """A solver that knows how many programs with integer columns it was asked to solve."""

    def __init__(self, inner):
        self._inner, self.solves = inner, 0
        self.name, self.capabilities = inner.name, inner.capabilities

    def load(self, problem, *, seed=0):
        session = self._inner.load(problem, seed=seed)

        def maximize(question):
            self.solves += bool(problem.integer.any())
            return session.maximize(question)

        return SimpleNamespace(maximize=maximize, close=session.close, interrupt=lambda: None)


@pytest.fixture
def sample_of_one(monkeypatch):
    """isa sees the centre of the box only, so that all else is left to its MILP."""
    monkeypatch.setattr(isa_module, "scatter", lambda box, *_: 0.5 * (box.lower + box.upper)[None])


ONCE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("name", ["reference", "scip"])  # one objective after the other; lazy rows in one solve
@ONCE
@given(case=networks_and_boxes())
def test_isa_claims_and_finds_what_is_true_on_networks_this_small(name, case, sample_of_one):
    network, box = case
    solver = ReferenceSolver() if name == "reference" else installed(name)
    found, truth = isa(network, box, solver, trust="solver"), states(network, box)
    for name, layer in found.layers.items():
        decided = layer.state != State.UNDECIDED
        assert not in_quarters(network) or (layer.state == truth[name])[decided].all()


@pytest.mark.parametrize("fault", [None, *FAULTS], ids=lambda fault: fault.__name__ if fault else "right")
@ONCE
@given(case=networks_and_boxes(layers=st.integers(1, 2)))
def test_isa_solves_at_most_once_per_unit_and_once_more(fault, case, sample_of_one):
    network, box = case
    inner = ReferenceSolver()
    solver = CountingSolver(inner if fault is None else WrongSolver(inner, fault))
    found = isa(network, box, solver, trust="solver")
    assert solver.solves <= sum(network.size(name) for name in {relu.source for relu in network.relus}) + 1
    assert found.trusted


@pytest.mark.parametrize("name", ["highs", "scip"])
def test_isa_asks_again_until_nothing_new_is_to_be_seen(name, sample_of_one):
    # at the centre all is off, and no input turns units 0 and 2 on at once; 'far' is never positive
    nodes = (
        Affine("z", (INPUT,), (Dense([[1.0], [1.0], [-1.0], [-1.0]]),), np.array([-0.25, -0.75, -0.25, -0.75])),
        Relu("h", "z", np.zeros(4)),
        Affine("far", ("h",), (Dense([[1.0, 0.0, 1.0, 0.0]]),), np.array([-0.875])),
        Relu("last", "far", np.zeros(1)),
    )
    solver = CountingSolver(installed(name))
    found = isa(Network(1, nodes, "last"), Box.uniform(-1, 1, 1), solver, trust="solver")
    assert found.layers["h"].state.tolist() == [State.UNSTABLE] * 4
    assert found.layers["last"].state.tolist() == [State.INACTIVE]
    assert found.layers["last"].method.tolist() == [Method.SOLVER]
    lazy = Capability.LAZY_ROWS in solver.capabilities
    assert solver.solves == 1 if lazy else 3 <= solver.solves <= 6
