"""What nothing reads is dropped, unit by unit, exactly."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from passes import dense, relu, true_view
from strategies import networks_and_boxes
from truth import largest_difference

from leo_core.domain import Box
from leo_core.linear import Dense
from leo_core.network import INPUT, Affine, Network
from leo_core.rewrite.unread import drop_unread

BOX = Box.uniform(-1, 1, 1)


@given(networks_and_boxes())
def test_it_is_exact_and_never_larger(case):
    network, box = case
    dropped = drop_unread(true_view(network, box))
    assert largest_difference(network, dropped.network, box) == 0
    assert dropped.network.connections <= network.connections
    for node in dropped.network.relus:
        assert len(dropped.facts.units[node.source].state) == node.size


def test_a_column_of_zeros_takes_its_unit_along_and_what_it_alone_read():
    network = Network(1, (dense("z", INPUT, [[1], [2]], [0, 0]), relu("h", "z", 2),
                          dense("y", "h", [[1, 0], [0, 1]], [0, 0]), relu("g", "y", 2),
                          dense("out", "g", [[3, 0]], [1])), "out")  # fmt: skip
    dropped = drop_unread(true_view(network, BOX)).network
    assert [node.size for node in dropped.relus] == [1, 1]


def test_a_pre_activation_read_elsewhere_keeps_its_unit():
    network = Network(1, (dense("z", INPUT, [[1], [2]], [0, 0]), relu("h", "z", 2),
                          Affine("out", ("h", "z"), (Dense([[1.0, 0.0]]), Dense([[0.0, 1.0]])), np.zeros(1))),
                      "out")  # fmt: skip
    dropped = drop_unread(true_view(network, BOX)).network
    assert dropped.size("z") == 2
    assert [node.size for node in dropped.relus] == [1]
    assert largest_difference(network, dropped, BOX) == 0


def test_an_output_that_reads_nothing_is_a_constant():
    network = Network(1, (dense("z", INPUT, [[1]], [0]), relu("h", "z", 1), dense("out", "h", [[0]], [4])), "out")
    dropped = drop_unread(true_view(network, BOX)).network
    assert not dropped.relus
    assert dropped.evaluate([[0.5]]).tolist() == [[4.0]]
