"""Hypothesis strategies: networks of every shape the IR holds, and boxes for them."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from hypothesis import strategies as st

from leo_core.domain import Box
from leo_core.linear import Conv, Dense, Diagonal, Select, Spacing, Sparse
from leo_core.network import INPUT, Affine, Network, Relu

#: A coarse grid makes ties, zeros and dependent rows common; free floats make everything else.
GRID = st.integers(-8, 8).map(lambda k: k / 4)
FREE = st.floats(-3, 3, width=32)


@st.composite
def matrices(draw, rows, columns, entries, dtype):
    kind = draw(st.sampled_from(["free", "low rank", "repeated"]))
    values = draw(st.lists(entries, min_size=rows * columns, max_size=rows * columns))
    matrix = np.array(values, dtype=np.float64).reshape(rows, columns)
    if kind == "low rank" and rows > 1:
        mix = np.array(draw(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]), min_size=rows, max_size=rows)))
        matrix = np.outer(mix, matrix[0])
    if kind == "repeated" and rows > 1:
        matrix[-1] = matrix[0]
    return matrix.astype(dtype)


@st.composite
def networks(draw, inputs=st.integers(1, 2), layers=st.integers(1, 3), width=st.integers(1, 4), plain=False):
    """A network; unless ``plain``, maybe leaky, residual, with a skip, or with other linear maps."""
    entries = draw(st.sampled_from([GRID, FREE]))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    size = draw(inputs)
    shape = "chain" if plain else draw(st.sampled_from(["chain", "residual", "skip"]))
    slope = 0.0 if plain else draw(st.sampled_from([0.0, 0.0, 0.0, 0.25, 0.1]))
    nodes, at, columns = [], INPUT, size
    count = draw(layers)
    for number in range(1, count + 1):
        rows = columns if shape == "residual" and number > 1 else draw(width)
        nodes += [
            Affine(f"z{number}", (at,), (draw(maps(rows, columns, entries, dtype, plain)),),
                   draw(biases(rows, entries, dtype))),
            Relu(f"h{number}", f"z{number}", np.full(rows, slope)),
        ]  # fmt: skip
        before, at, columns = at, f"h{number}", rows
        if shape == "residual" and number > 1:
            nodes.append(Affine(f"sum{number}", (at, before), (Select.identity(rows),) * 2, np.zeros(rows, dtype)))
            at = f"sum{number}"
    if not plain and draw(st.integers(0, 9)) == 0:
        return Network(size, tuple(nodes), at)
    rows = draw(st.integers(1, 2))
    sources, linears = [at], [Dense(draw(matrices(rows, columns, entries, dtype)))]
    if shape == "skip":
        sources.append(INPUT)
        linears.append(Dense(draw(matrices(rows, size, entries, dtype))))
    nodes.append(Affine("out", tuple(sources), tuple(linears), draw(biases(rows, entries, dtype))))
    return Network(size, tuple(nodes), "out")


@st.composite
def maps(draw, rows, columns, entries, dtype, plain):
    matrix = draw(matrices(rows, columns, entries, dtype))
    kind = "dense" if plain else draw(st.sampled_from(["dense", "dense", "sparse", "diagonal", "select"]))
    if kind == "sparse":
        return Sparse.of(matrix)
    if kind == "diagonal" and rows == columns:
        return Diagonal(matrix[0] if rows else matrix)
    if kind == "select":
        picked = draw(st.lists(st.integers(0, columns - 1), min_size=rows, max_size=rows))
        return Select(np.array(picked), columns=columns)
    return Dense(matrix)


@st.composite
def convolutions(draw, entries, dtype, sizes=st.integers(0, 4)):
    """Over one axis or two; some with pads, strides, dilations, groups. ``sizes`` is what the input has to spare."""
    axes, groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 1, 2, 3]))
    each = partial(st.lists, min_size=axes, max_size=axes)
    taps, strides, dilations = (
        draw(each(st.integers(1, 3))),
        draw(each(st.integers(1, 3))),
        draw(each(st.integers(1, 2))),
    )
    low, high, spare = draw(each(st.integers(0, 2))), draw(each(st.integers(0, 2))), draw(each(sizes))
    reaches = (np.array(taps) - 1) * dilations + 1
    shape = (groups * draw(st.integers(1, 2)), draw(st.integers(1, 2)), *taps)
    values = draw(st.lists(entries, min_size=math.prod(shape), max_size=math.prod(shape)))
    kernel = np.array(values, dtype).reshape(shape)
    inputs = tuple(np.maximum(reaches - low - high, 1) + spare)
    return Conv.of(kernel, inputs, Spacing(strides=strides, low=low, high=high, dilations=dilations), groups=groups)


def biases(size, entries, dtype):
    return st.lists(entries, min_size=size, max_size=size).map(lambda values: np.array(values, dtype=dtype))


@st.composite
def boxes(draw, size):
    """A box, often with negative bounds, sometimes with a fixed input."""
    centre = draw(st.lists(st.integers(-8, 8).map(lambda k: k / 4), min_size=size, max_size=size))
    radius = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.7]), min_size=size, max_size=size))
    return Box(np.array(centre) - np.array(radius), np.array(centre) + np.array(radius))


@st.composite
def networks_and_boxes(draw, **options):
    network = draw(networks(**options))
    return network, draw(boxes(network.input_size))
