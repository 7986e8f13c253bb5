"""What a network takes where it runs: counted by hand, and against the arena of a runtime for microcontrollers."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from leo_core import files
from leo_core.linear import Conv, Dense, Diagonal, Select, Spacing, Sparse
from leo_core.network import Affine, Network, Origin, Output, Relu, Signature
from leo_core.rewrite.footprint import footprint
from leo_core.testing.networks import chain


def layer(name: str, source: str, rows: int, columns: int) -> Affine:
    return Affine(name, (source,), (Dense(np.ones((rows, columns), np.float32)),), np.ones(rows, np.float32))


def relu(name: str, source: str, size: int) -> Relu:
    return Relu(name, source, np.zeros(size))


def test_a_chain_holds_two_layers_at_a_time():
    found = footprint(chain(3, 8, 5, 2))
    assert (found.operators, found.multiplications) == (3, 3 * 8 + 8 * 5 + 5 * 2)
    assert found.activation_bytes == (8 + 5) * chain(3, 8, 5, 2).dtype.itemsize


def test_what_is_read_again_stays():
    """x → a → b, then c of a and b: while b is made, a and b are there, and a is still when c is."""
    both = Affine("c", ("ra", "rb"), (Select.identity(4), Select.identity(4)), np.zeros(4, np.float32))
    nodes = (layer("a", "input", 4, 9), relu("ra", "a", 4), layer("b", "ra", 4, 4), relu("rb", "b", 4), both)
    assert footprint(Network(9, nodes, "c")).activation_bytes == max(9 + 4, 4 + 4, 4 + 4 + 4) * 4


def test_what_works_value_by_value_overwrites_what_nothing_else_reads():
    scale = Affine("s", ("a",), (Diagonal(np.full(6, 2.0, np.float32)),), np.ones(6, np.float32))
    nodes = (layer("a", "input", 6, 2), scale, relu("r", "s", 6), layer("out", "r", 1, 6))
    assert footprint(Network(2, nodes, "out")).activation_bytes == (2 + 6) * 4
    assert footprint(Network(2, nodes, "out")).operators == 3


def test_outputs_stay_and_putting_them_side_by_side_is_nothing():
    def beside(first: int, rows: int) -> Sparse:
        pointers = np.clip(np.arange(rows + 1) - first, 0, 3)
        return Sparse(np.ones(3, np.float32), np.arange(3), pointers, columns=3)

    last = Affine("all", ("a", "b"), (beside(0, 6), beside(3, 6)), np.zeros(6, np.float32))
    nodes = (layer("a", "input", 3, 5), layer("b", "a", 3, 3), last)
    outputs = (Output("first", (3,)), Output("second", (3,)))
    found = footprint(Network(5, nodes, "all", Signature(outputs=outputs)))
    assert (found.operators, found.activation_bytes) == (2, 8 * 4)


def test_a_pooling_is_one_operator_whatever_it_was_lowered_to():
    from leo_frontends.convolutions import Windows, max_pool
    from leo_frontends.graph import Graph

    graph = Graph(2 * 6 * 6)
    pooled = max_pool(graph, Origin("pool", "MaxPool"), graph.given((1, 2, 6, 6)), Windows.of((2, 2), (2, 2)))
    network = Network(72, tuple(graph.nodes), pooled.node)
    assert len(network.nodes) > 4
    assert footprint(network).operators == 1
    assert footprint(network).activation_bytes == (72 + 2 * 3 * 3) * 4


@pytest.mark.skipif(not find_spec("tflite_micro"), reason="tflite-micro, whose arena this is compared with, is missing")
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_arena_of_tflite_micro_but_for_gaps(seed, tmp_path):
    pytest.importorskip("ai_edge_litert")
    network = convolutional(seed)
    path = files.write(network, tmp_path / "net.tflite").path
    head = arena(path)
    assert head >= footprint(network).activation_bytes
    assert head <= 2 * footprint(network).activation_bytes + 4096


def convolutional(seed: int) -> Network:
    """Convolutions with ReLUs, a sum with what went into one of them, and a matrix."""
    rng, nodes, at, shape = np.random.default_rng(seed), [], "input", (3, 10, 8)
    first = ""
    for number in range(4):
        conv = Conv.of(rng.normal(size=(6, shape[0], 3, 3)).astype(np.float32), shape[1:], Spacing(low=1, high=1))
        shape = (6, *shape[1:])
        nodes += [Affine(f"c{number}", (at,), (conv,), np.zeros(conv.rows, np.float32), shape=shape)]
        nodes += [relu(f"r{number}", f"c{number}", conv.rows)]
        at, first = f"r{number}", first or f"r{number}"
    if seed % 2:
        both = (Select.identity(480), Select.identity(480))
        nodes.append(Affine("sum", (at, first), both, np.zeros(480, np.float32), shape=shape))
        at = "sum"
    nodes.append(layer("out", at, 2, 480))
    return Network(240, tuple(nodes), "out", Signature("x", (3, 10, 8)))


def arena(path: object) -> int:
    """The bytes that tflite-micro gives to activations; it says so on the error stream of its process."""
    script = (
        "import sys, numpy as np; from tflite_micro import runtime; ran = runtime.Interpreter.from_file(sys.argv[1]); "
        "ran.set_input(np.zeros(ran.get_input_details(0)['shape'], np.float32), 0); ran.invoke(); "
        "ran.print_allocations()"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    found = re.search(r"Arena allocation head (\d+) bytes", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def test_convolutions_count_their_positions():
    conv = Conv.of(np.ones((4, 3, 3, 3), np.float32), (8, 8), Spacing(low=1, high=1, strides=2))
    node = Affine("c", ("input",), (conv,), np.zeros(conv.rows, np.float32), shape=(4, 4, 4))
    found = footprint(Network(3 * 64, (node, relu("r", "c", conv.rows)), "r"))
    assert found.activation_bytes == (3 * 64 + 4 * 16) * 4
    assert found.multiplications == conv.products
