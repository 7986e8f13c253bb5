"""Small networks with every shape the IR can hold, for the frontend kit and for tests."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.linear import Conv, ConvTranspose, Dense, Diagonal, Select, Spacing, Sparse
from leo_core.network import INPUT, Affine, Network, Node, Output, Relu, Signature


def _weights(rng: np.random.Generator, rows: int, columns: int, dtype: Any) -> NDArray[Any]:
    return (rng.integers(-64, 65, (rows, columns)) / 32).astype(dtype)


def chain(*widths: int, seed: int = 0, dtype: Any = np.float32, relu_last: bool = False) -> Network:
    """A plain chain of dense layers with ReLUs between."""
    rng = np.random.default_rng(seed)
    nodes: list[Node] = []
    at = INPUT
    for number, (columns, rows) in enumerate(pairwise(widths), 1):
        matrix, bias = _weights(rng, rows, columns, dtype), _weights(rng, 1, rows, dtype)[0]
        nodes.append(Affine(f"dense{number}", (at,), (Dense(matrix),), bias))
        at = nodes[-1].name
        if relu_last or number < len(widths) - 1:
            nodes.append(Relu(f"relu{number}", at, np.zeros(rows)))
            at = nodes[-1].name
    return Network(widths[0], tuple(nodes), at)


def residual(dtype: Any = np.float32) -> Network:
    """relu(x W + b) added to x, twice, then a dense layer: two residual blocks."""
    rng = np.random.default_rng(1)
    nodes: list[Node] = []
    at = INPUT
    for block in (1, 2):
        nodes += [
            Affine(f"in{block}", (at,), (Dense(_weights(rng, 4, 4, dtype)),), _weights(rng, 1, 4, dtype)[0]),
            Relu(f"relu{block}", f"in{block}", np.zeros(4)),
            Affine(
                f"sum{block}", (f"relu{block}", at), (Dense(_weights(rng, 4, 4, dtype)), Select.identity(4)),
                np.zeros(4, dtype),
            ),
        ]  # fmt: skip
        at = f"sum{block}"
    nodes.append(Affine("out", (at,), (Dense(_weights(rng, 2, 4, dtype)),), _weights(rng, 1, 2, dtype)[0]))
    return Network(4, tuple(nodes), "out")


def skip(dtype: Any = np.float64) -> Network:
    """A skip connection from the input past two ReLU layers into the output, with a map of its own."""
    rng = np.random.default_rng(2)
    first = Affine("first", (INPUT,), (Dense(_weights(rng, 5, 3, dtype)),), _weights(rng, 1, 5, dtype)[0])
    second = Affine("second", ("relu1",), (Dense(_weights(rng, 4, 5, dtype)),), _weights(rng, 1, 4, dtype)[0])
    last = Affine(
        "last", ("relu2", INPUT, "relu1"),
        (Dense(_weights(rng, 2, 4, dtype)), Dense(_weights(rng, 2, 3, dtype)), Dense(_weights(rng, 2, 5, dtype))),
        _weights(rng, 1, 2, dtype)[0],
    )  # fmt: skip
    return Network(3, (first, Relu("relu1", "first", np.zeros(5)), second, Relu("relu2", "second", np.zeros(4)), last),
                   "last")  # fmt: skip


def leaky() -> Network:
    """Leaky ReLUs with the slope of most libraries, 0.01 as float32 knows it."""
    base = chain(3, 4, 2, seed=3)
    slope = np.full(4, float(np.float32(0.01)))
    nodes = [Relu(node.name, node.source, slope) if isinstance(node, Relu) else node for node in base.nodes]
    return Network(3, tuple(nodes), base.output)


def mixed_maps() -> Network:
    """A diagonal scaling first, then a sparse and a selecting map."""
    rng = np.random.default_rng(4)
    matrix = _weights(rng, 6, 4, np.float64) * (rng.random((6, 4)) < 0.5)
    nodes: tuple[Node, ...] = (
        Affine("scaled", (INPUT,), (Diagonal(np.array([0.5, 2.0, 0.25, -1.0])),), np.array([1.0, 0.0, -1.0, 2.0])),
        Affine("sparse", ("scaled",), (Sparse.of(matrix),), np.arange(6.0) - 3),
        Relu("relu", "sparse", np.zeros(6)),
        Affine("picked", ("relu",), (Select(np.array([5, 0, 0]), columns=6),), np.zeros(3)),
    )
    return Network(4, nodes, "picked")


def shaped() -> Network:
    """A model whose input has a shape of its own and whose tensors have names."""
    base = chain(12, 5, 3, seed=5)
    return Network(12, base.nodes, base.output, Signature("image", (1, 3, 4), (Output("scores", (3,)),)))


def constant() -> Network:
    """No weights left at all: the output is its bias."""
    return Network(
        2, (Affine("constant", (INPUT,), (Dense(np.zeros((3, 2))),), np.array([1.5, -2.0, 0.0])),), "constant"
    )


def narrow() -> Network:
    """Layers of width one."""
    return chain(2, 1, 3, 1, 1, seed=6, dtype=np.float64)


def two_heads() -> Network:
    """Two heads of one trunk, the scores of two boxes along an axis and a bounded value, and the trunk itself."""
    trunk = chain(4, 5, 5, seed=8, relu_last=True)
    rng = np.random.default_rng(9)
    heads = [
        Affine(f"head{rows}", (trunk.output,), (Dense(_weights(rng, rows, 5, np.float32)),),
               _weights(rng, 1, rows, np.float32)[0])
        for rows in (6, 1)
    ]  # fmt: skip
    sources, at = ("head6", "head1", trunk.output), np.cumsum([0, 6, 1, 5])
    maps = [
        Sparse.of(np.eye(12, size, -start, dtype=np.float32))
        for size, start in zip(np.diff(at), at[:-1], strict=True)
    ]  # fmt: skip
    outputs = (Output("scores", (2, 3), "softmax", 1), Output("value", (1,), "tanh"), Output("features", (5,)))
    last = Affine("outputs", sources, tuple(maps), np.zeros(12, np.float32))
    return Network(4, (*trunk.nodes, *heads, last), "outputs", Signature("input", (4,), outputs))


def convolutional() -> Network:
    """A convolution, a depthwise one with a stride, a transposed one with output padding; not among :data:`NETWORKS`,
    as most writers refuse it."""
    rng = np.random.default_rng(7)
    first = Conv.of(_weights(rng, 3, 18, np.float32).reshape(3, 2, 3, 3), (4, 4), Spacing(low=1, high=1))
    second = Conv.of(_weights(rng, 3, 4, np.float32).reshape(3, 1, 2, 2), (4, 4), Spacing(strides=2), groups=3)
    third = ConvTranspose.of(
        _weights(rng, 3, 2, np.float32).reshape(3, 1, 2, 1), (2, 2), Spacing(strides=2), output_padding=1
    )
    nodes: tuple[Node, ...] = (
        Affine("conv", (INPUT,), (first,), np.repeat(_weights(rng, 1, 3, np.float32)[0], 16), shape=(3, 4, 4)),
        Relu("relu1", "conv", np.zeros(48)),
        Affine("depthwise", ("relu1",), (second,), np.zeros(12, np.float32), shape=(3, 2, 2)),
        Relu("relu2", "depthwise", np.zeros(12)),
        Affine("up", ("relu2",), (third,), np.zeros(20, np.float32), shape=(1, 5, 4)),
    )
    return Network(32, nodes, "up", Signature("image", (2, 4, 4), (Output("output", (1, 5, 4)),)))


def lattice(inputs: int, functions: int, sets: int, seed: int = 0, dtype: Any = np.float32) -> Network:
    """A two-level lattice network: the largest, over ``sets``, of the least of some of ``functions`` affine ones.

    As in Ferlez and Shoukry (AReN, 2020): min(a, b) = (relu(s) − relu(−s) − relu(d) − relu(−d)) / 2 with s = a + b and
    d = a − b, pair by pair until one is left; a set with fewer functions repeats its last one. The maximum likewise.
    """
    rng = np.random.default_rng(seed)
    nodes: list[Node] = [
        Affine("functions", (INPUT,), (Dense(_weights(rng, functions, inputs, dtype)),),
               _weights(rng, 1, functions, dtype)[0])
    ]  # fmt: skip
    chosen = [np.sort(rng.permutation(functions)[: rng.integers(2, functions + 1)]) for _ in range(sets)]
    rows = np.eye(functions, dtype=dtype)  # the values so far, as rows over what the last node has
    groups = [[*at.tolist(), *[int(at[-1])] * (functions - len(at))] for at in chosen]
    least = True
    while len(groups) > 1 or len(groups[0]) > 1:
        if len(groups[0]) == 1:
            groups, least = [[value for group in groups for value in group]], False
        pairs = [[(group[k], group[min(k + 1, len(group) - 1)]) for k in range(0, len(group), 2)] for group in groups]
        flat = [pair for group in pairs for pair in group]
        signs = [[1, 1], [-1, -1], [1, -1], [-1, 1]]
        weights = np.vstack([np.array(signs, dtype) @ rows[list(pair)] for pair in flat])
        number = len(nodes) // 2 + 1
        nodes.append(Affine(f"pairs{number}", (nodes[-1].name,), (Dense(weights),), np.zeros(len(weights), dtype)))
        nodes.append(Relu(f"relu{number}", nodes[-1].name, np.zeros(len(weights))))
        half = 0.5 * np.array([1, -1, *((-1, -1) if least else (1, 1))], dtype)
        rows = np.kron(np.eye(len(flat), dtype=dtype), half[None]).astype(dtype)
        numbers = iter(range(len(flat)))
        groups = [[next(numbers) for _ in group] for group in pairs]
    nodes.append(Affine("value", (nodes[-1].name,), (Dense(rows),), np.zeros(1, dtype)))
    return Network(inputs, tuple(nodes), "value")


NETWORKS: tuple[Callable[[], Network], ...] = (
    lambda: chain(3, 5, 4, 2),
    lambda: chain(2, 4, 3, dtype=np.float64, relu_last=True),
    residual,
    skip,
    leaky,
    mixed_maps,
    shaped,
    constant,
    narrow,
    two_heads,
)
