"""A network over a box as a program of its own, for other tools: named columns, real units, proved big-M.

It is the encoding of :mod:`leo_core.milp.encode` with its scales taken out (they are powers of two, so nothing is
rounded by that), and a column y for every output, y = E·(columns) + e. Its columns are the inputs, then p = max(a, 0)
and a binary z for every ReLU whose state is open, then the outputs. Every point with whole z is the network at its
inputs, but for the rounding of sums in float64 and what a solver tolerates.
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from leo_core.bounds.region import Interval, Region
from leo_core.errors import UsageError
from leo_core.linear import Select
from leo_core.milp.encode import encode
from leo_core.milp.problem import MilpProblem, NamedProblem
from leo_core.network import Affine, Network, free_name

Array = NDArray[np.float64]


def formulate(network: Network, region: Region, outputs: Interval, objective: str | None = None) -> NamedProblem:
    """The program of a network; ``objective`` names the output that is to be largest.

    Parameters
    ----------
    region:
        With proved intervals for all affine nodes.
    outputs:
        Proved bounds of the network's value, (outputs,) each.
    objective:
        A column's name, or the name of an output with a single value; None for none.

    Raises :class:`EncodingError` where it would be too large, :class:`UsageError` where there is no such output.
    """
    network, target = _ending_affine(network)
    found = encode(network, target, region)
    scale, problem = found.column_scale, found.problem
    count, size = problem.columns, len(found.target_offset)
    matrix = sp.csr_array(problem.matrix.multiply(1.0 / found.row_scale[:, None]).multiply(1.0 / scale[None, :]))
    ends = sp.hstack([sp.csr_array(found.target_rows / scale), -sp.eye_array(size)])
    whole = MilpProblem(
        matrix=sp.vstack([sp.hstack([matrix, sp.csr_array((problem.rows, size))]), ends]),
        row_lower=np.concatenate([problem.row_lower / found.row_scale, -found.target_offset]),
        row_upper=np.concatenate([problem.row_upper / found.row_scale, -found.target_offset]),
        lower=np.concatenate([problem.lower * scale, outputs[0]]),
        upper=np.concatenate([problem.upper * scale, outputs[1]]),
        integer=np.concatenate([problem.integer, np.zeros(size, dtype=bool)]),
    )
    names, rows = [""] * count, [""] * problem.rows
    names[: found.inputs] = _numbered(network.signature.input_name, found.inputs)
    for name, group in found.open_units.items():
        layer = network.affine(name).origin.layer or name
        for place, unit in enumerate(group.units.tolist()):
            names[group.p_column + place] = f"{layer}_{unit}_p"
            names[group.z_column + place] = f"{layer}_{unit}_z"
            for kind, what in enumerate(("over", "on", "off")):
                rows[group.first_row + kind * len(group.units) + place] = f"{layer}_{unit}_{what}"
    last = [name for output in network.signature.outputs for name in _numbered(output.name, output.size)]
    columns = _apart([*names, *last])
    maximised = np.zeros(count + size)
    if objective is not None:
        maximised[count + _asked(network, objective, columns[count:])] = 1.0
    named = _apart([*rows, *(f"{name}_is" for name in last)])
    return NamedProblem(whole, columns, named, maximised, columns[: found.inputs], columns[count:])


def _ending_affine(network: Network) -> tuple[Network, str]:
    """The network with an affine node for its output."""
    if isinstance(network[network.output], Affine):
        return network, network.output
    name = free_name("value", {node.name for node in network.nodes})
    size = network.output_size
    same = Affine(name, (network.output,), (Select.identity(size),), np.zeros(size))
    return replace(network, nodes=(*network.nodes, same), output=name), name


def _numbered(name: str, count: int) -> list[str]:
    return [f"{name}_{place}" for place in range(count)]


def _apart(names: list[str]) -> tuple[str, ...]:
    """Names that both formats take, no two alike: letters, digits and underscores, no digit and no e in front."""
    taken: dict[str, None] = {}
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
        taken[free_name(plain if re.match(r"[A-DF-Za-df-z_]", plain) else f"_{plain}", taken)] = None
    return tuple(taken)


def _asked(network: Network, objective: str, columns: tuple[str, ...]) -> int:
    """The output that a name means."""
    if objective in columns:
        return columns.index(objective)
    places = zip(network.signature.outputs, network.signature.slices, strict=True)
    single = {output.name: part.start for output, part in places if output.size == 1}
    if objective not in single:
        known = ", ".join(columns[:8]) + (", …" if len(columns) > 8 else "")
        raise UsageError(f"there is no output '{objective}' to maximise; there are: {known}")
    return int(single[objective])
