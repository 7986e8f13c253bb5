from __future__ import annotations

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import networks

from leo_core.errors import NetworkError
from leo_core.linear import Conv, Dense, Sparse
from leo_core.network import INPUT, Affine, Network, Relu, Signature
from leo_core.testing.networks import NETWORKS, chain, convolutional, residual, skip


@given(networks(inputs=st.integers(1, 4)))
def test_float_evaluation_is_near_the_exact_one(network):
    x = np.random.default_rng(0).standard_normal(network.input_size)
    exact = [float(v) for v in network.evaluate_exact(x)[network.output].fractions()]
    assert np.allclose(network.evaluate(x), exact, rtol=1e-9, atol=1e-9)
    assert np.allclose(network.evaluate(x, np.float32), exact, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("make", [*NETWORKS, convolutional])
def test_batches_of_any_shape(make):
    network = make()
    x = np.random.default_rng(0).standard_normal((2, 3, network.input_size))
    values = network.evaluate(x)
    assert values.shape == (2, 3, network.output_size)
    assert np.allclose(values[1, 2], network.evaluate(x[1, 2]))
    assert network.evaluate(x.astype(np.float32), np.float32).dtype == np.float32


def test_the_residual_network_adds_its_input():
    network = residual()
    x = np.array([0.5, -1, 0.25, 2])
    h = x
    for block in (1, 2):
        inner, outer = network.affine(f"in{block}"), network.affine(f"sum{block}")
        h = h + outer.maps[0].dense() @ np.maximum(inner.maps[0].dense() @ h + inner.bias, 0)
    out = network.affine("out")
    assert np.allclose(network.evaluate(x), out.maps[0].dense() @ h + out.bias)
    assert not network.is_chain
    with pytest.raises(NetworkError, match="not a plain chain"):
        network.layers()


def test_the_skip_connection_reaches_the_output():
    network = skip()
    values = network.evaluate_nodes(np.array([0.5, -1, 0.25]))
    last = network.affine("last")
    want = sum(m.dense() @ values[s] for m, s in zip(last.maps, last.sources, strict=True)) + last.bias
    assert np.allclose(values["last"], want)


def test_convolutions_evaluate_like_their_matrices():
    network, x = convolutional(), np.random.default_rng(0).standard_normal((3, 32))
    nodes = (replace(n, maps=(Dense(n.maps[0].dense()),)) if isinstance(n, Affine) else n for n in network.nodes)
    matrices = network.with_nodes(*nodes)
    assert np.allclose(network.evaluate(x), matrices.evaluate(x))
    exact, wanted = network.evaluate_exact(x[0]), matrices.evaluate_exact(x[0])
    assert exact["up"].fractions() == wanted["up"].fractions()
    kernels = [network.affine(name).maps[0].arrays()["kernel"] for name in ("conv", "depthwise", "up")]
    assert network.nonzeros == sum(map(np.count_nonzero, kernels))
    assert network.operations == 54 * 16 + 12 * 4 + 6 * 4


def test_a_chain_reads_like_one():
    network = chain(3, 5, 4, 2)
    layers = network.layers()
    assert [layer.affine.size for layer in layers] == [5, 4, 2]
    assert [layer.relu is None for layer in layers] == [False, False, True]
    assert network.widths == (3, 5, 4, 2)
    assert network.connections == 15 + 20 + 8
    assert network.parameters == network.connections + 11


@pytest.mark.parametrize("copy_of", [lambda n: pickle.loads(pickle.dumps(n)), copy.deepcopy, copy.copy])
@pytest.mark.parametrize("make", [*NETWORKS, convolutional])
def test_copies_are_equal_and_still_frozen(make, copy_of):
    network = make()
    other = copy_of(network)
    assert other == network
    assert hash(other) == hash(network)
    for node in other.nodes:
        arrays = [node.slope] if isinstance(node, Relu) else [node.bias, *node.maps[0].arrays().values()]
        for array in arrays:
            with pytest.raises(ValueError, match="read-only"):
                array[...] = 0


def test_a_layout_stays_with_its_node_and_is_no_part_of_the_function():
    network = convolutional()
    node = network.affine("conv")
    assert node.shape == (3, 4, 4)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), network.with_nodes(replace(node))):
        assert other.affine("conv").shape == node.shape
    flat = network.with_nodes(replace(node, shape=()))
    assert flat == network
    assert np.array_equal(flat.evaluate(np.arange(32.0)), network.evaluate(np.arange(32.0)))


@pytest.mark.parametrize("change", ["kernel", "geometry"])
def test_the_digest_sees_kernel_and_geometry(change):
    network = convolutional()
    arrays = {name: array.copy() for name, array in network.affine("conv").maps[0].arrays().items()}
    if change == "kernel":
        arrays["kernel"][0, 0, 0, 0] += 1
    else:  # the pads of the first axis at one end
        arrays["geometry"][[4, 6]] = 0, 2
    other = network.with_nodes(replace(network.affine("conv"), maps=(Conv(**arrays),)))
    assert other != network
    assert other == other.with_nodes(replace(other.affine("conv"), maps=(Conv(**arrays),)))


def test_arrays_are_copied_in():
    weights, bias = np.ones((2, 2)), np.zeros(2)
    network = Network(2, (Affine("y", (INPUT,), (Dense(weights),), bias),), "y")
    weights[:], bias[:] = 7, 7
    assert network.evaluate([1.0, 1.0]).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("change", ["weight", "bias", "dtype", "slope", "name"])
def test_the_digest_sees_every_change(change):
    def build(w=1.0, b=0.0, dtype=np.float32, slope=0.0, name="z"):
        return Network(1, (Affine(name, (INPUT,), (Dense(np.array([[w]], dtype)),), np.array([b], dtype)),
                           Relu("h", name, np.array([slope]))), "h")  # fmt: skip

    other = {"weight": {"w": 1.5}, "bias": {"b": 1.0}, "dtype": {"dtype": np.float64}, "slope": {"slope": 0.5},
             "name": {"name": "q"}}[change]  # fmt: skip
    assert build() == build()
    assert build() != build(**other)


def affine(name="z", sources=(INPUT,), maps=None, bias=None):
    return Affine(name, sources, maps or (Dense(np.ones((2, 3))),), np.zeros(2) if bias is None else bias)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: affine(bias=np.zeros(3)), "node 'z'.*2 rows.*3 entries"),
        (lambda: affine(bias=np.array([0, np.nan])), r"node 'z': bias\[1\] is nan"),
        (lambda: affine(maps=(Dense(np.array([[0, np.inf, 0], [0, 0, 0]])),)), r"node 'z': weight.*\[0, 1\] is inf"),
        (lambda: affine(sources=(INPUT, "h")), "node 'z': 2 source.*1 linear"),
        (lambda: replace(affine(), shape=(3, 1)), r"node 'z': the shape \(3, 1\) does not hold 2 units"),
        (lambda: replace(affine(), shape=(-2, -1)), r"node 'z': the shape \(-2, -1\) does not hold 2 units"),
        (lambda: Relu("h", "z", np.array([1.0])), r"node 'h': slopes must lie in \[0, 1\)"),
        (lambda: Relu("h", "z", np.array([np.nan])), "node 'h': slope"),
        (lambda: Network(4, (affine(),), "z"), "node 'z'.*takes 3 values.*has 4"),
        (lambda: Network(3, (affine(), affine()), "z"), "node 'z': the name is used twice"),
        (lambda: Network(3, (affine(sources=("later",)),), "z"), "its source 'later' is not an earlier node"),
        (lambda: Network(3, (affine(),), "nowhere"), "the output 'nowhere' is not a node"),
        (lambda: Network(3, (affine(),), INPUT), "the output 'input'"),
        (lambda: Network(3, (Relu("h", INPUT, np.zeros(3)),), "h"), "node 'h': a ReLU reads an earlier affine node"),
        (lambda: Network(3, (affine(), Relu("h", "z", np.zeros(5))), "h"), "node 'h': 5 slopes.*2 units"),
        (lambda: Network(0, (), "z"), "at least one input"),
        (lambda: Network(3, (affine(),), "z", Signature("x", (2, 2))), "does not hold 3 values"),
        (lambda: Network(3, (affine(),), "z").evaluate(np.zeros(4)), "takes 3 inputs"),
    ],
)
def test_malformed_networks_are_refused_by_name(build, said):
    with pytest.raises(NetworkError, match=said):
        build()


def test_two_entries_in_one_place_of_a_sparse_map_are_refused():
    # their sum, 1 + 2**-60, is no float: a bound computed from the rounded one called such a unit inactive
    with pytest.raises(ValueError, match="one place"):
        Sparse([1.0, 2.0**-60], [0, 0], [0, 2], columns=1)
    Sparse([1.0, 2.0, 3.0], [0, 1, 0], [0, 2, 3], columns=2)


def test_single_units_are_picked_as_they_would_be_multiplied():
    linear, rng = Dense(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)), np.random.default_rng(1)
    picked = np.zeros((6, 4))
    picked[[0, 2, 3, 5], [3, 1, 1, 0]] = rng.standard_normal(4)
    assert np.array_equal(linear.apply_transposed(picked), picked @ linear.dense().astype(np.float64))
    one = np.vstack([picked[0] + [0, 1, 0, 0], np.zeros((3, 4))])  # two units in one row
    assert np.array_equal(linear.apply_transposed(one), one @ linear.dense().astype(np.float64))
