"""Networks on images that fooled the rewriting engine once: layouts, sums, poolings and norms."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from passes import carried, made, view_of

from leo_core.domain import Box
from leo_core.linear import Conv, Dense, Select, Spacing, Sparse
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.rewrite.channels import fold_constant_channels, merge_dependent_channels, merge_parallel_channels
from leo_core.rewrite.constants import fold_constants
from leo_core.rewrite.fold_channels import fold_convolutions
from leo_core.rewrite.step import Ladder
from leo_core.testing.sown import Sown, constant

LOOKS = (fold_constants, fold_constant_channels, merge_parallel_channels, merge_dependent_channels, fold_convolutions)


def conv(name, source, kernel, bias, sizes, groups=1, **where):
    linear = Conv.of(np.array(kernel, dtype=np.float64), sizes, Spacing(**where), groups)
    shape = (linear.out_channels, *linear.geometry.output)
    return Affine(name, (source,), (linear,), np.repeat(np.array(bias, float), np.prod(shape[1:])), shape=shape)


def summed(source, size):
    return Affine("out", (source,), (Dense(np.arange(1.0, size + 1)[None]),), np.zeros(1))


def proposes_nothing_false(look, network, box=None) -> int:
    """No proposal of a pass is further away than is proved, at a few points; how many there were."""
    box, count = box or Box.uniform(0, 1, network.input_size), 0
    view = view_of(network, box)
    points = np.vstack([box.sample(np.random.default_rng(0), 4), box.corners(8)])
    for node in network.nodes:
        found = look(view, node.name)
        for proposal in made(found) if isinstance(found, Ladder) else ():
            proved, count = carried(proposal).get(network.output, np.zeros(network.output_size)), count + 1
            for x in points:
                was, now = (net.evaluate_exact(x)[net.output].fractions() for net in (network, proposal.view.network))
                assert all(abs(a - b) <= Fraction(p) for a, b, p in zip(was, now, proved.tolist(), strict=True))
    return count


@pytest.mark.parametrize(
    ("kernel", "sizes", "strides"),
    [
        ([[[[1]], [[1]]]], (4, 2), 2),  # turned: of each row the first, not of each column
        ([[[[1]], [[1]]]], (4, 2), 1),
        ([[[1], [1]]], (8,), 1),  # one axis instead of two
        ([[[1, 2]]], (16,), 2),  # one channel instead of two
        ([[[1], [2], [1], [3]]], (4,), 1),  # four
    ],
)
def test_a_convolution_may_read_another_layout_than_the_one_before_it_made(kernel, sizes, strides):
    nodes = (conv("a", INPUT, [[[[1]]], [[[0]]]], [1, 2], (2, 4)), Relu("h", "a", np.zeros(16)),
             conv("b", "h", kernel, [0], sizes, strides=strides))  # fmt: skip
    network = Network(8, (*nodes, summed("b", nodes[-1].size)), "out")
    for look in LOOKS:
        proposes_nothing_false(look, network)


def test_convolutions_of_one_layout_fold():
    nodes = (conv("a", INPUT, [[[[1]]], [[[2]]]], [1, 1], (2, 4)), Relu("h", "a", np.zeros(16)),
             conv("b", "h", [[[[1]], [[1]]]], [0], (2, 4), strides=2))  # fmt: skip
    assert proposes_nothing_false(fold_convolutions, Network(8, (*nodes, summed("b", 2)), "out")) == 1


def test_a_sum_of_channels_that_are_multiples_in_one_branch_only():
    """Behind ``d``, the one of two equal channels is no multiple of the other."""
    nodes = (
        conv("a", INPUT, [[[1]], [[1]]], [0.5, 0.5], (2,)),
        conv("b", INPUT, [[[1]], [[1]]], [0.25, 0.25], (2,)),
        conv("c", "a", [[[1, 0]], [[1, 0]]], [0, 0], (2,), groups=2),
        conv("d", "b", [[[1, 0]], [[0, -1]]], [0.2, 0.7], (2,), groups=2),
        Affine("sum", ("c", "d"), (Select.identity(2), Select.identity(2)), np.zeros(2), shape=(2, 1)),
        Relu("h", "sum", np.zeros(2)),
        conv("e", "h", [[[1], [1]]], [0], (1,)),
    )
    assert proposes_nothing_false(merge_parallel_channels, Network(2, (*nodes, summed("e", 1)), "out"))


def test_weights_whose_sums_are_the_same_as_floats_only():
    """What a channel is shifted by comes to something else where ``pool`` sums one weight more."""
    pool = np.kron(np.eye(2), [[1, 0], [2.0**-55, 1]])
    nodes = (
        conv("a", INPUT, [[[1]], [[1]]], [5, 0.75], (2,)),
        Affine("pool", ("a",), (Sparse.of(pool),), np.zeros(4), shape=(2, 2)),
        Relu("h", "pool", np.zeros(4)),
        conv("b", "h", [[[1], [1]]], [0], (2,)),
        Affine("out", ("b",), (Dense([[1.0, -1.0]]),), np.zeros(1)),
    )
    assert proposes_nothing_false(merge_dependent_channels, Network(2, nodes, "out"))


def test_a_constant_that_carries_others_is_known_up_to_rounding():
    """What a norm makes of 1000.3 − 1000 is known far less well than what it makes of nothing."""
    sown = Sown(3, (1, 1, 2)).convolve(3, 1, relu=False).change(constant(1, 1000.3)).change(constant(2, 0.5))
    numbers = {"gamma": [1, 3.3, 0], "beta": [0.2, 1.1, 0.9], "mean": [0.1, 1000, 0.3], "variance": [1, 0.7, 1]}
    sown.with_norm({name: np.array(values, np.float32) for name, values in numbers.items()}).rectify()
    at, shape = sown.at, sown.shape
    sown.convolve(2, 1, low=1, high=1, relu=False)
    first = sown.at
    sown.at, sown.shape = at, shape
    grown = sown.convolve(2, 1, low=1, high=1, relu=False).added(first).rectify().network(2)
    nodes = [doubled(node) if node.name.startswith("conv") and node.name != "conv0" else node for node in grown.nodes]
    assert proposes_nothing_false(fold_constant_channels, replace(grown, nodes=tuple(nodes)))


def doubled(node):
    """A convolution stored in float64, so that rounding new weights hides nothing."""
    (linear,) = node.maps
    return replace(node, maps=(Conv(linear.kernel.astype(np.float64), linear.arrays()["geometry"]),))
