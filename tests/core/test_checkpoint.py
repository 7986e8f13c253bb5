"""A checkpoint: what is kept survives any cut, nothing in it is believed, and nothing found is looked for twice."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import leo_core
from leo_core import Affine, Box, Dense, Network, Relu, State
from leo_core.bounds.interval import bound_network
from leo_core.errors import CheckpointError
from leo_core.execution.budget import Budget
from leo_core.execution.checkpoint import Checkpoint
from leo_core.stability import boxes
from leo_core.stability.evidence import WHOLE, Bisection, Leaf, Split
from leo_core.stability.oracle import Oracle
from leo_core.stability.prover import Prover
from leo_core.stability.recall import _of_phases
from leo_core.stability.recheck import proves
from leo_core.testing.networks import chain

ABOUT = {"network": "a", "seed": "0"}


def opened(path, notes=None, about=ABOUT):
    return Checkpoint.open(path, about, [].append if notes is None else notes.append)


def filled(path):
    """A file with three entries, and where each of its frames ends."""
    ends = []
    with opened(path) as checkpoint:
        for k in range(3):
            checkpoint.put("key", k, value={"k": k}, arrays={"x": np.arange(k, dtype=np.float64)})
            ends.append(path.stat().st_size)
    return ends


def entries(checkpoint):
    found = [checkpoint.get("key", k) for k in range(3)]
    return [(value["k"], arrays["x"].tolist()) for value, arrays in (kept for kept in found if kept is not None)]


ALL = [(k, [float(i) for i in range(k)]) for k in range(3)]


def test_entries_outlive_the_process_and_the_last_counts(tmp_path):
    filled(tmp_path / "c")
    with opened(tmp_path / "c") as checkpoint:
        assert entries(checkpoint) == ALL
        checkpoint.put("key", 0, value={"k": 7}, arrays={"x": np.zeros(0)})
    size = (tmp_path / "c").stat().st_size
    with opened(tmp_path / "c") as checkpoint:
        assert [k for k, _ in entries(checkpoint)] == [7, 1, 2]
        checkpoint.put("key", 0, value={"k": 7}, arrays={"x": np.zeros(0)})
    assert (tmp_path / "c").stat().st_size == size


@given(share=st.floats(0, 1))
def test_a_file_cut_anywhere_keeps_every_whole_entry(tmp_path_factory, share):
    path = tmp_path_factory.mktemp("cut") / "c"
    ends = filled(path)
    whole = path.read_bytes()
    cut = int(share * len(whole))
    path.write_bytes(whole[:cut])
    notes = []
    with opened(path, notes) as checkpoint:
        assert entries(checkpoint) == ALL[: sum(end <= cut for end in ends)]
        checkpoint.put("key", 2, value={"k": 2}, arrays={"x": np.arange(2.0)})
    with opened(path) as checkpoint:
        assert entries(checkpoint)[-1] == ALL[2]


@given(share=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_is_noticed(tmp_path_factory, share, flip):
    path = tmp_path_factory.mktemp("flip") / "c"
    filled(path)
    damaged = bytearray(path.read_bytes())
    damaged[int(share * len(damaged))] ^= flip
    path.write_bytes(damaged)
    try:
        with opened(path) as checkpoint:
            found = entries(checkpoint)
    except CheckpointError:
        assert path.read_bytes() == damaged  # left as it was
    else:
        assert found == ALL[: len(found)]
        assert len(found) < 3


def test_other_work_is_refused_by_name_and_the_file_left_alone(tmp_path):
    filled(tmp_path / "c")
    before = (tmp_path / "c").read_bytes()
    with pytest.raises(CheckpointError, match=r"differs in: seed \(there 0, here 1\)"):
        opened(tmp_path / "c", about={**ABOUT, "seed": "1"})
    (tmp_path / "model").write_bytes(b"a model, say")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        opened(tmp_path / "model")
    assert (tmp_path / "c").read_bytes() == before
    assert (tmp_path / "model").read_bytes() == b"a model, say"


def test_one_run_at_a_time(tmp_path):
    with opened(tmp_path / "c"), pytest.raises(CheckpointError, match="another run"):
        opened(tmp_path / "c")
    opened(tmp_path / "c").close()


def test_a_full_disk_is_said_once_and_work_goes_on():
    notes = []
    with open("/dev/full", "ab", buffering=0) as full:  # noqa: PTH123 - as the checkpoint has it
        checkpoint = Checkpoint(full, notes.append)
        for k in range(3):
            checkpoint.put("key", k)
        assert checkpoint.get("key", 0) is None
    assert len(notes) == 1
    assert "goes on without" in notes[0]


def rarely_on(*widths: int, seed: int) -> Network:
    """Every other unit behind the first layer is never on, or hardly ever, which bounds alone do not show."""
    rng = np.random.default_rng(seed)
    nodes: list[Affine | Relu] = []
    h, at = rng.uniform(-1, 1, (2000, widths[0])), "input"
    for k, (columns, rows) in enumerate(itertools.pairwise(widths), 1):
        matrix = rng.integers(-64, 65, (rows, columns)) / 32
        a = h @ matrix.T
        bias = -np.round(np.median(a, axis=0) * 32) / 32
        if k > 1:
            bias[::2] = -np.round(a.max(axis=0) * 1.3 * 32)[::2] / 32
        nodes += [Affine(f"z{k}", (at,), (Dense(matrix),), bias), Relu(f"h{k}", f"z{k}", np.zeros(rows))]
        h, at = np.maximum(a + bias, 0), f"h{k}"
    return Network(widths[0], tuple(nodes), at)


PHASES, BOX = rarely_on(9, 12, 12, 10, seed=0), (-1.0, 1.0)
HALVED = chain(4, 30, 30, 30, 1, seed=1)


@functools.cache
def undisturbed(network):
    return leo_core.analyze(network, BOX, solver="highs")


def same(found, network):
    right = undisturbed(network)
    assert right.count(State.UNDECIDED) == 0
    return all((layer.state == right.layers[name].state).all() for name, layer in found.layers.items())


def never(*_arguments, **_options):
    raise AssertionError("this was found before")


@pytest.mark.parametrize("strategy", ["cascade", "isa", "paper"])
def test_what_was_found_is_not_looked_for_again(strategy, tmp_path, monkeypatch):
    network = PHASES if strategy == "cascade" else rarely_on(9, 12, 8, seed=0)
    options = {"solver": "highs", "strategy": strategy, "checkpoint": tmp_path / "c"}
    assert same(leo_core.analyze(network, BOX, **options), network)
    monkeypatch.setattr(Prover, "never_positive", never)
    monkeypatch.setattr(Oracle, "ask", never)
    assert same(leo_core.analyze(network, BOX, **options), network)


def test_box_splitting_goes_on_from_its_halvings(tmp_path, monkeypatch):
    steps = []
    step = boxes._Search.step
    monkeypatch.setattr(boxes._Search, "step", lambda self: (steps.append(1), step(self)))
    for _ in range(2):
        steps.append(0)
        assert same(leo_core.analyze(HALVED, BOX, checkpoint=tmp_path / "c", solver="highs"), HALVED)
    first, second = "".join(map(str, steps)).split("0")[1:]
    assert 0 < len(second) < len(first)


def test_a_cut_short_search_hands_out_a_tree_that_parts_the_box(monkeypatch):
    monkeypatch.setattr(boxes, "FIRST", 2)
    region, box = bound_network(HALVED, Box.uniform(-1, 1, 4)), Box.uniform(-1, 1, 4)
    claims = [(unit, sign) for unit in range(30) for sign in (1, -1)]
    pool = boxes.Pool()
    cuts = list(boxes.split_box(HALVED, "dense2", claims, region, box, Budget(), pool))
    assert len(cuts) > 2
    settled = [claim for cut in cuts for claim in (*cut.proved, *cut.refuted)]
    assert len(settled) == len(set(settled))
    for cut in cuts:
        assert cut.tree.parts(box.lower, box.upper)
        again = boxes.split_box(HALVED, "dense2", claims, region, box, Budget(), pool, cut.tree)
        proved = {claim for part in again for claim in part.proved}
        assert proved == {claim for part in cuts for claim in part.proved}


@pytest.mark.parametrize("kind", ["tree", "witness", "halvings", "in vain", "nonsense"])
def test_an_edited_checkpoint_makes_no_verdict_wrong(kind, tmp_path, monkeypatch):
    network = HALVED if kind == "halvings" else PHASES
    put = Checkpoint.put
    leaf, arrays = _of_phases(Leaf({}, infeasible=True))
    point = np.full(network.input_size, 0.25)
    forged = {
        "tree": {"value": leaf, "arrays": arrays},
        "witness": {"arrays": {"point": 100 * point}},
        "halvings": {"arrays": {"axis": np.array([0, -1, -1], np.int32), "at": np.array([-1.0, 0, 0]),
                                "child": np.array([1, 0, 0])}},
        "nonsense": {"value": [[None]], "arrays": {"point": np.zeros((2, 2)), "axis": np.zeros(1)}},
    }  # fmt: skip
    with monkeypatch.context() as patch:
        if kind != "in vain":
            patch.setattr(Checkpoint, "put", lambda self, *key, **_: put(self, *key, **forged[kind]))
        leo_core.analyze(network, BOX, solver="highs", checkpoint=tmp_path / "c")
    about = {}
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "open", lambda _path, known, _tell: about.update(known) or Checkpoint())
        leo_core.analyze(network, BOX, solver="highs", checkpoint=tmp_path / "c", time_limit=0)
    with opened(tmp_path / "c", about=about) as checkpoint:
        for node in ("z1", "z2", "z3", "dense1", "dense2", "dense3"):
            for unit in range(30):
                for sign in (1, -1):
                    for name in ("tree", "witness", "hint") if kind != "in vain" else ():
                        checkpoint.put(name, node, unit, sign, **forged[kind])
            checkpoint.put("halvings", node, **forged.get(kind, {}))
    found = leo_core.analyze(network, BOX, solver="highs", checkpoint=tmp_path / "c")
    assert same(found, network)


def test_a_tree_proves_its_own_claim_and_no_other():
    found = undisturbed(PHASES)
    region = bound_network(PHASES, Box.uniform(-1, 1, 9))
    proved = [(name, unit, tree) for name, layer in found.layers.items() for unit, tree in layer.trees.items()]
    assert any(isinstance(tree, Split) for _, _, tree in proved)
    for relu, unit, tree in proved:
        target = PHASES[relu].source
        sign = 1 if found.layers[relu].state[unit] == State.INACTIVE else -1
        holding = region
        for name, layer in found.layers.items():  # what the tree was grown on
            if name < relu or name == relu:
                holding = holding.tightened(PHASES[name].source, layer.lower, layer.upper)
        assert proves(tree, PHASES, target, (unit, sign), holding, Budget())
        assert not proves(tree, PHASES, target, (unit, -sign), region, Budget())
        assert not proves(tree, PHASES, target, (unit, sign), holding, Budget.of(0))


@pytest.mark.parametrize(
    ("axis", "at", "child"),
    [
        ([0, -1, -1], [0.5, 0, 0], [0, 0, 0]),  # a cycle
        ([0, -1], [0.5, 0], [1, 0]),  # half a half
        ([0, 0, -1, -1], [0.5, 0.25, 0, 0], [1, 1, 0, 0]),  # a part twice
        ([0, -1, -1], [1.5, 0, 0], [1, 0, 0]),  # cut outside
        ([0, -1, -1], [np.nan, 0, 0], [1, 0, 0]),
        ([5, -1, -1], [0.5, 0, 0], [1, 0, 0]),  # no such input
    ],
)
def test_halvings_that_do_not_part_the_box_are_known(axis, at, child):
    tree = Bisection(np.array(axis, np.int32), np.array(at, float), np.array(child))
    assert not tree.parts(np.zeros(2), np.ones(2))
    assert WHOLE.parts(np.zeros(2), np.ones(2))
    assert Bisection(np.array([0, -1, -1]), np.array([0.5, 0, 0]), np.array([1, 0, 0])).parts(np.zeros(2), np.ones(2))
