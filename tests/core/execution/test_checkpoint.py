"""A checkpoint: what is kept survives any cut, nothing in it is believed, and nothing found is looked for twice."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import leo_core
from leo_core import Affine, Box, Dense, Network, Relu, State
from leo_core.bounds.interval import bound_network
from leo_core.checker.trees import EMPTY, LEAF, describe
from leo_core.errors import CheckpointError
from leo_core.execution.budget import Budget
from leo_core.execution.checkpoint import Checkpoint
from leo_core.execution.executor import Here
from leo_core.search import boxes
from leo_core.search.evidence import WHOLE, parts, proves, uncut
from leo_core.search.oracle import Oracle
from leo_core.search.prover import Prover
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
    return leo_core.analyze(network, BOX, solver="highs", unit_time_limit=0)


def same(found, network):
    right = undisturbed(network)
    assert right.count(State.UNDECIDED) == 0
    return all((layer.state == right.layers[name].state).all() for name, layer in found.layers.items())


def never(*_arguments, **_options):
    raise AssertionError("this was found before")


@pytest.mark.parametrize("strategy", ["cascade", "isa", "paper"])
def test_what_was_found_is_not_looked_for_again(strategy, tmp_path, monkeypatch):
    network = PHASES if strategy == "cascade" else rarely_on(9, 12, 8, seed=0)
    options = {"solver": "highs", "strategy": strategy, "checkpoint": tmp_path / "c", "unit_time_limit": 0}
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
        assert same(leo_core.analyze(HALVED, BOX, checkpoint=tmp_path / "c", solver="highs", unit_time_limit=0), HALVED)
    first, second = "".join(map(str, steps)).split("0")[1:]
    assert 0 < len(second) < len(first)


def test_a_cut_short_search_hands_out_a_tree_that_parts_the_box(monkeypatch):
    monkeypatch.setattr(boxes, "FIRST", 2)
    region, box = bound_network(HALVED, Box.uniform(-1, 1, 4)), Box.uniform(-1, 1, 4)
    claims = [(unit, sign) for unit in range(30) for sign in (1, -1)]
    pool = Here()
    cuts = list(boxes.split_box(HALVED, "dense2", claims, region, box, Budget(), pool))
    assert len(cuts) > 2
    settled = [claim for cut in cuts for claim in (*cut.proved, *cut.refuted)]
    assert len(settled) == len(set(settled))
    known = set()
    for cut in cuts:
        known |= cut.proved
        assert (set() if cut.tree is None else set(cut.tree.claims)) == (known if cut.proved else set())
        lower, upper, _ = parts(cut.halvings, box.lower, box.upper)
        leaf = cut.halvings.where == LEAF
        assert (upper - lower)[leaf].prod(axis=1).sum() == 2**4
        again = boxes.split_box(HALVED, "dense2", claims, region, box, Budget(), pool, cut.halvings)
        proved = {claim for part in again for claim in part.proved}
        assert proved == {claim for part in cuts for claim in part.proved}


def forged(kind, inputs, key):
    """What someone puts in the place of an entry."""
    if kind == "witness":
        return {"arrays": {"point": np.full(inputs, 25.0)}}
    if kind == "nonsense":
        return {"value": [[None]], "arrays": {"point": np.zeros((2, 2)), "axis": np.zeros(1)}}
    claim = (int(key[2]), int(key[3])) if len(key) == 4 else (0, 1)
    arrays = {}
    tree = {
        "tree": uncut([claim], {}, how=EMPTY),
        "tree that claims more": uncut([claim, (claim[0], -claim[1])], {}, how=EMPTY),
        "halvings": replace(WHOLE, where=np.array([0, -1]), unit=np.array([0, 0])),
    }[kind]
    return {"value": describe(tree, arrays), "arrays": arrays}


@pytest.mark.parametrize("kind", ["tree", "tree that claims more", "witness", "halvings", "in vain", "nonsense"])
def test_an_edited_checkpoint_makes_no_verdict_wrong(kind, tmp_path, monkeypatch):
    network = HALVED if kind == "halvings" else PHASES
    inputs, put = network.input_size, Checkpoint.put
    with monkeypatch.context() as patch:
        if kind != "in vain":
            patch.setattr(Checkpoint, "put", lambda self, *key, **_: put(self, *key, **forged(kind, inputs, key)))
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
                        key = (name, node, unit, sign)
                        checkpoint.put(*key, **forged(kind, inputs, key))
            checkpoint.put("halvings", node, **({} if kind == "in vain" else forged(kind, inputs, ())))
    found = leo_core.analyze(network, BOX, solver="highs", checkpoint=tmp_path / "c")
    assert same(found, network)


def test_a_tree_proves_its_own_claim_and_no_other():
    found = undisturbed(PHASES)
    region = bound_network(PHASES, Box.uniform(-1, 1, 9))
    proved = [(name, unit, tree) for name, layer in found.layers.items() for unit, tree in layer.trees.items()]
    assert any((tree.where > 0).any() for _, _, tree in proved)
    for relu, unit, tree in proved:
        target = PHASES[relu].source
        sign = 1 if found.layers[relu].state[unit] == State.INACTIVE else -1
        holding = region
        for name, layer in found.layers.items():  # what the tree was grown on
            if name < relu or name == relu:
                holding = holding.tightened(PHASES[name].source, layer.lower, layer.upper)
        assert proves(tree, PHASES, target, (unit, sign), holding, Budget())
        assert not proves(tree, PHASES, target, (unit, -sign), region, Budget())
        other = replace(tree, signs=-tree.signs)
        assert not proves(other, PHASES, target, (unit, -sign), region, Budget())
        more = replace(tree, units=np.append(tree.units, unit), signs=np.append(tree.signs, -sign))
        assert not proves(more, PHASES, target, (unit, sign), holding, Budget())
        assert not proves(tree, PHASES, target, (unit, sign), holding, Budget.of(0))


@pytest.mark.parametrize(
    ("where", "unit"),
    [
        ([], []),
        ([0, -1], [0, 0]),  # half a half
        ([0, 0, -1, -1], [0, 1, 0, 0]),
        ([0, -1, -1, -1], [0, 0, 0, 0]),  # a part twice
        ([-1, 0, -1], [0, 0, 0]),  # a cut of what is not there
        ([0, -1, -1], [2, 0, 0]),  # an input that is fixed
        ([0, -1, -1], [5, 0, 0]),  # no such input
        ([0, -1, -1], [-1, 0, 0]),
        ([0, -1, -1], [0.5, 0, 0]),
        ([1, -1, -1], [0, 0, 0]),  # a cut by sign
        ([np.nan, -1, -1], [0, 0, 0]),
    ],
)
def test_halvings_that_do_not_part_the_box_are_known(where, unit):
    lower, upper = np.zeros(3), np.array([1.0, 1.0, 0.0])
    with pytest.raises((ValueError, IndexError)):
        parts(replace(WHOLE, where=np.array(where), unit=np.array(unit)), lower, upper)
    assert parts(WHOLE, lower, upper)[1].tolist() == [[1, 1, 0]]
    halved = replace(WHOLE, where=np.array([0, -1, -1]), unit=np.array([1, 0, 0]))
    assert parts(halved, lower, upper)[1].tolist() == [[1, 1, 0], [1, 0.5, 0], [1, 1, 0]]


def test_a_checkpoint_of_another_version_is_refused_by_number(tmp_path):
    filled(tmp_path / "c")
    older = (tmp_path / "c").read_bytes().replace(b"LEO checkpoint 2", b"LEO checkpoint 1", 1)
    (tmp_path / "c").write_bytes(older)
    with pytest.raises(CheckpointError, match="of version 1, but this release reads version 2; choose another file"):
        opened(tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == older
