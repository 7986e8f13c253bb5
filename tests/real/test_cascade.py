"""The cascade on the real networks: what is known of them, and what was not before."""

from __future__ import annotations

import numpy as np
import pytest

import leo_core
from leo_backends.highs import HighsSolver
from leo_core import Affine, Box, State
from leo_core.bounds.interval import bound_network
from leo_core.execution.budget import Budget
from leo_core.files import read
from leo_core.search.prover import Prover

pytestmark = pytest.mark.real

ACAS, MNIST = "acasxu/ACASXU_experimental_v2a_1_1", "mnist_l1/mnist_"
#: (active, inactive) of networks that the cascade decides completely in seconds, by domain. Where INDEX.json has no
#: complete counts, these rest on our proofs and witnesses, all evaluated exactly.
COMPLETE = {
    "hello_world/hello_world": (8, 13),
    "sb3/sac_MountainCarContinuous": (33, 49),
    "sb3/dqn_MountainCar": (29, 348),
    "gurobi_ml/diabetes": (5, 9),
    "gurobi_ml/diabetes_v2": (8, 10),
    "pyscipopt_ml/sk_3_42_0_0_relu": (9, 4),
    "overt/tora_smallest_controller": (0, 3),
    "overt/single_pendulum_small_controller": (1, 1),
    "overt/car_smallest_controller": (1, 3),
    "horizontalcas/HCAS_rect_v6_pra0_tau00_25HU_3000": (5, 14),
    "horizontalcas/HCAS_rect_v6_pra0_tau60_25HU_3000": (17, 27),
    "coav/reluBenchmark0.00491881370544s_UNSAT": (41, 82),
    "coav/reluBenchmark0.0658059120178s_UNSAT": (46, 74),
    "twinstream/twin_ladder-10_inp-4_layers-5_width-1_margin": (4, 6),
    f"{ACAS}.prop_1": (28, 161),
    f"{ACAS}.prop_3": (75, 158),
    f"{MNIST}100-100_0.0005": (81, 36),
    f"{MNIST}400-400_0.0002": (403, 250),
    f"{MNIST}800-800_0.0001": (776, 618),
    f"{MNIST}100-100-100-100-100_0.0001": (53, 148),
    "arm_kws/DNN_S": (0, 0),
    "eran_mnist/mnist_relu_3_50": (0, 0),
    "eran_mnist/mnist_relu_6_100": (0, 0),
}


@pytest.fixture(scope="session")
def by_domain(index):
    return {entry["domain"].removesuffix(".domain.json"): entry for entry in index.values()} | {
        f"{ACAS}.prop_1": index.get(f"{ACAS}.nnet"),
        f"{ACAS}.prop_3": index.get(f"{ACAS}.nnet"),
    }


def analyze(nets, name, entry, **options):
    path = nets / entry["file"]
    if path.suffix in (".keras", ".pt"):
        onnx = path.with_suffix(".onnx")
        path = onnx if onnx.exists() else path
    model = path
    return leo_core.analyze(model, nets / f"{name}.domain.json", **options)


def assert_within(found, known):
    """Nothing contradicts what INDEX.json knows."""
    counts = (found.count(State.ACTIVE), found.count(State.INACTIVE))
    if known.get("complete") and not found.count(State.UNDECIDED):
        assert counts == (known["active"], known["inactive"])
    if "at_most" in known:
        assert all(got <= most for got, most in zip(counts, known["at_most"], strict=True))
        if not found.count(State.UNDECIDED):
            assert all(got >= least for got, least in zip(counts, known["at_least"], strict=True))


@pytest.mark.parametrize("name", COMPLETE)
def test_decided_completely(name, nets, by_domain, index):
    entry = by_domain.get(name)
    if entry is None:
        pytest.skip(f"{name} is not in INDEX.json")
    found = analyze(nets, name, entry)
    assert found.count(State.UNDECIDED) == 0
    assert (found.count(State.ACTIVE), found.count(State.INACTIVE)) == COMPLETE[name]
    if name.startswith(ACAS):
        return  # INDEX.json lists one file with three domains; the index by file keeps one of them
    assert_within(found, entry["expect"])


@pytest.mark.parametrize("name", ["verticalcas/VertCAS_pra01_v4_45HU_200", "marabou_mnist/mnist10x10"])
def test_what_stays_open_contradicts_nothing(name, nets, by_domain):
    entry = by_domain.get(name)
    if entry is None:
        pytest.skip(f"{name} is not in INDEX.json")
    assert_within(analyze(nets, name, entry, time_limit=10), entry["expect"])


def test_nothing_is_stable_in_ad01(nets, index):
    entry = index["mlperf_tiny/ad01.h5"]
    found = leo_core.analyze(nets / entry["file"], nets / entry["domain"])
    assert found.count(State.UNSTABLE) == found.units == 1032


def test_a_hard_claim_keeps_no_easy_one_waiting(nets):
    found = leo_core.analyze(nets / f"{ACAS}.nnet", nets / f"{ACAS}.domain.json", time_limit=8)
    undecided = [layer.count(State.UNDECIDED) for layer in found.layers.values()]
    assert sum(undecided) < 50  # layer 4 alone takes longer; layers 5 and 6 have 50 units each


def test_the_lp_closes_at_the_root_what_takes_bounds_a_large_tree(nets, monkeypatch):
    network = read(nets / "gurobi_ml" / "diabetes_v2.keras")[0].network
    box = Box.of(str(nets / "gurobi_ml" / "diabetes_v2.domain.json"), network.input_size)
    region = bound_network(network, box)
    target = [node.name for node in network.nodes if isinstance(node, Affine)][1]
    prover = Prover(network, target, region, HighsSolver())
    for unit in (10, 13):
        outcome = prover.never_positive(unit, -1, Budget.of(60))
        assert outcome.tree is not None
        assert outcome.nodes == 1
    monkeypatch.setattr("leo_core.search.prover.SMALL", 0)
    by_bounds = prover.never_positive(10, -1, Budget.of(60), nodes=1000)
    assert by_bounds.tree is None
    assert by_bounds.nodes > 500
    prover.close()


def test_workers_find_the_same(nets, by_domain):
    name = f"{ACAS}.prop_1"
    one, two = (analyze(nets, name, by_domain[name], jobs=jobs) for jobs in (1, 2))
    for layer, other in zip(one.layers.values(), two.layers.values(), strict=True):
        assert (layer.state == other.state).all()


@pytest.mark.slow
def test_acas_xu_on_its_whole_input_box(nets):
    found = leo_core.analyze(nets / f"{ACAS}.nnet", nets / f"{ACAS}.domain.json", jobs=2, unit_time_limit=0)
    assert [found.count(state) for state in (State.ACTIVE, State.INACTIVE, State.UNDECIDED)] == [0, 9, 0]


def test_a_run_can_be_repeated(nets, by_domain):
    name = f"{ACAS}.prop_3"
    first, second = (analyze(nets, name, by_domain[name], seed=3) for _ in range(2))
    for layer, other in zip(first.layers.values(), second.layers.values(), strict=True):
        assert (layer.state == other.state).all()
        assert np.array_equal(layer.lower, other.lower)
        assert np.array_equal(layer.upper, other.upper)
