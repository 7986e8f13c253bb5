"""Networks of different depth: split at random they are proved to be what they were, and nothing false is said."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import boxes, networks
from tampering import mutated
from truth import largest_difference

import leo_core
from leo_core import Affine, Box, Network, Relu, checker, deciding, storage
from leo_core.checker.equivalence import added_up
from leo_core.compare import Pair
from leo_core.compare.depth import Levelled, levelled
from leo_core.execution.budget import Budget
from leo_core.linear import Dense
from leo_core.testing.networks import chain
from leo_core.within import Within


def split(network, layer, middle, scales, passed=()):
    """A chain in which each unit of a ReLU layer but those ``passed`` on is split, in the network's own numbers."""
    node = network.affine(network.relus[layer].source)
    dtype, size = node.bias.dtype, node.size
    weights, bias = node.dense().astype(np.float64), node.bias.astype(np.float64)
    rest, (up, down) = np.array(sorted(passed), np.int64), scales
    halves = np.setdiff1d(np.arange(size), rest)
    each = np.arange(len(halves))
    rows = np.vstack([up * weights[halves], -down * weights[halves], weights[rest]])
    offsets = [up * (bias[halves] - middle[halves]), down * (middle[halves] - bias[halves]), bias[rest]]
    merge, constants = np.zeros((size, len(rows))), np.zeros(size)
    merge[halves, each], merge[halves, len(halves) + each] = 1 / up, -1 / down
    merge[rest, 2 * len(halves) + np.arange(len(rest))] = 1
    constants[halves] = middle[halves]
    name = f"{node.name}.split"
    before = Affine(name, node.sources, (Dense(rows.astype(dtype)),), np.concatenate(offsets).astype(dtype))
    relu = Relu(f"{name}.relu", name, np.zeros(len(rows)))
    after = Affine(node.name, (relu.name,), (Dense(merge.astype(dtype)),), constants.astype(dtype))
    nodes = [new for old in network.nodes for new in ((before, relu, after) if old.name == node.name else (old,))]
    return Network(network.input_size, tuple(nodes), network.output, network.signature)


@st.composite
def split_at_random(draw, network):
    layer = draw(st.integers(0, len(network.relus) - 1))
    size = network.relus[layer].size
    middle = np.array(draw(st.lists(st.sampled_from([0.0, -0.5, 0.3, 1.0]), min_size=size, max_size=size)))
    scales = draw(st.lists(st.sampled_from([1.0, 0.5, 3.0]), min_size=2, max_size=2))
    return split(network, layer, middle, scales, draw(st.sets(st.integers(0, size - 1), max_size=size - 1)))


def moved(network, name, by):
    """The network with a bias moved."""
    node = network.affine(name)
    return network.with_nodes(replace(node, bias=node.bias + np.asarray(by, node.bias.dtype)))


def answered(first, second, box, limit, **options):
    """The answer, after a look at whether it contradicts the truth."""
    found = leo_core.verify(first, second, box, within=limit, solver="scipy", **options)
    truth = largest_difference(first, second, box)
    assert found.within in (truth <= Fraction(limit), None)
    assert Fraction(found.lower) <= truth
    assert not np.isfinite(found.upper) or truth <= Fraction(found.upper)
    if found.within is False:
        values = [net.evaluate_exact(found.witness)[net.output].fractions() for net in (first, second)]
        assert box.contains(found.witness)
        assert max(abs(a - b) for a, b in zip(*values, strict=True)) > Fraction(limit)
    return found


@settings(max_examples=20)
@given(st.data())
def test_what_was_split_is_what_it_was(data):
    network = data.draw(networks(plain=True, layers=st.integers(1, 2), width=st.integers(1, 3)))
    first = data.draw(st.sampled_from([network, data.draw(split_at_random(network))]))
    second = data.draw(split_at_random(network))
    box = data.draw(boxes(network.input_size))
    assert answered(first, second, box, 1e-3, time_limit=20.0).within is True


@settings(max_examples=20)
@given(st.data())
def test_what_was_altered_as_well_is_not(data):
    network = data.draw(networks(plain=True, layers=st.integers(1, 2), width=st.integers(1, 3)))
    second = data.draw(split_at_random(network))
    node = data.draw(st.sampled_from([node for node in second.nodes if isinstance(node, Affine)]))
    second = moved(second, node.name, data.draw(st.sampled_from([1e-6, 0.01, 1.0])))
    box = data.draw(boxes(network.input_size))
    truth = float(largest_difference(network, second, box))
    factor = data.draw(st.sampled_from([0.5, 0.999, 1.001, 2.0]))
    found = answered(network, second, box, factor * truth, time_limit=3.0)
    assert found.within is False or factor > 0.5 or truth < 1e-3


@settings(max_examples=20)
@given(st.data())
def test_how_far_both_are_from_what_was_given_is_proved(data):
    network = data.draw(networks(plain=True, layers=st.integers(1, 2), width=st.integers(1, 3)))
    second, box = data.draw(split_at_random(network)), data.draw(boxes(network.input_size))
    level = levelled(pair_of(network, second, box), None, Budget.of(5.0))
    for given_, found in zip((network, second), level.rewritten, strict=False):
        assert largest_difference(given_, found.network, box) <= Fraction(found.deviation)
    bound = leo_core.verify(network, second, box, time_limit=2.0, solver="scipy").upper
    assert largest_difference(network, second, box) <= Fraction(bound)


def pair_of(first, second, box):
    return Pair(first, second, box, deciding.solver_of(deciding.options_of({}), lambda event: None))


def halves(network, layer, seed=0, scales=(1.0, 1.0)):
    rng, size = np.random.default_rng(seed), network.relus[layer].size
    return split(network, layer, np.round(rng.normal(0, 0.3, size), 3), scales, set(range(0, size, 3)))


NETWORK, BOX = chain(5, 10, 10, 10, 2, seed=4), Box.uniform(-0.5, 0.5, 5)
PAIRS = {
    "one split": (NETWORK, halves(NETWORK, 1)),
    "of random scales": (halves(NETWORK, 2, scales=(1.7, 0.6)), NETWORK),
    "twice": (NETWORK, halves(halves(NETWORK, 2), 0, seed=1, scales=(0.3, 2.0))),
    "both, elsewhere": (halves(NETWORK, 0), halves(NETWORK, 2)),
    "both, as wide": (halves(NETWORK, 1, seed=1), halves(NETWORK, 1, seed=2)),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    return PAIRS[request.param]


def certified(folder, first, second, within):
    paths = [folder / name for name in ("it.cert", "a.leo", "b.leo")]
    for network, path in zip((first, second), paths[1:], strict=True):
        storage.save(network, path)
    found = leo_core.verify(*paths[1:], BOX, within=within, certificate=paths[0], solver="scipy", time_limit=60.0)
    return found, paths


def test_wider_ones_are_proved_and_certified(pair, tmp_path):
    found, paths = certified(tmp_path, *pair, 1e-4)
    assert found.within is True
    assert found.upper <= 1e-4
    assert found.certified
    assert found.lower <= checker.check(*paths).deviation <= 1e-4
    with pytest.raises(checker.OfAnother):
        checker.check(paths[0], paths[1], paths[1])


def test_wider_ones_that_differ_are_refuted(pair):
    first, second = pair
    found = leo_core.verify(first, moved(second, second.output, 2e-4), BOX, within=1e-4, solver="scipy")
    assert found.within is False
    values = [net.evaluate_exact(found.witness)[net.output].fractions()
              for net in (first, moved(second, second.output, 2e-4))]  # fmt: skip
    assert max(abs(a - b) for a, b in zip(*values, strict=True)) > Fraction(1e-4)


def test_what_lies_between_counts(tmp_path):
    """Both are said to be something that is further from them than they are from each other."""
    _, paths = certified(tmp_path, *PAIRS["one split"], 1e-4)

    def lie(content, arrays):
        for described in content["levelled"]:
            last = next(n for n in described["network"]["nodes"] if n["name"] == described["network"]["output"])
            arrays[last["bias"]] = arrays[last["bias"]] + 1e-3

    content, _ = checker.open_certificate(paths[0])
    assert len(content["levelled"]) == 2
    mutated(paths[0], lie)
    with pytest.raises(checker.Refused, match=r"a difference of at most 0.0001 is claimed, 0.00200\d* is proved"):
        checker.check(*paths)
    assert added_up(np.array([0.0, 1.0, 1.0]), np.array([1.0, 0.0, 2.0**-60])).tolist() == [1, 1, 1 + 2.0**-52]


def test_a_changed_one_is_refused_or_true(tmp_path):
    _, paths = certified(tmp_path, *PAIRS["one split"], 1e-4)
    written, rng, accepted = paths[0].read_bytes(), np.random.default_rng(3), 0

    def change(content, arrays):
        described = content["levelled"][rng.integers(2)]
        what = rng.integers(5)
        if what == 0:
            content["levelled"].pop()
        elif what == 1:
            content["levelled"].reverse()
        elif what == 2:
            node = described["network"]["nodes"][rng.integers(len(described["network"]["nodes"]))]
            node["name"] = str(rng.choice(["input", "out", "x"]))
        else:
            name = str(rng.choice(sorted(arrays)))
            array = arrays[name] = arrays[name].copy()
            if array.size and name not in ("lower", "upper"):
                at = tuple(int(rng.integers(0, n)) for n in array.shape)
                array[at] = rng.choice([0, 1, 7, -1] if array.dtype.kind == "i" else [0, np.nan, np.inf, 1.5, -1])

    for _ in range(30):
        paths[0].write_bytes(written)
        mutated(paths[0], change)
        try:
            assert checker.check(*paths).deviation <= 1e-4
            accepted += 1
        except checker.Refused:
            pass
    assert accepted < 30


def test_nothing_is_rewritten_where_no_layer_goes():
    other = chain(5, 10, 9, 2, seed=4)
    assert levelled(pair_of(NETWORK, other, BOX), None, Budget()).rewritten == ()
    assert levelled(pair_of(NETWORK, moved(NETWORK, NETWORK.output, 0.1), BOX), None, Budget()).rewritten == ()


def test_what_was_set_aside_counts_against_the_proof_alone():
    level = levelled(pair_of(*PAIRS["of random scales"], BOX), None, Budget())
    assert 0 < level.apart < 1e-4
    asked = Within.of(0.5, 2)
    assert level.within(asked).slack >= level.apart
    assert level.farther(1.0) > 1.0
    assert Levelled(level.given).within(asked) == asked


def test_interrupted(monkeypatch):
    def interrupt(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("leo_core.compare.depth.rewrite", interrupt)
    found = leo_core.verify(*PAIRS["one split"], BOX, within=1e-4)
    assert found.interrupted
    assert found.within is None
