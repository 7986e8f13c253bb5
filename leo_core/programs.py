"""A network over a domain as a mixed-integer program, written to a file for other tools: :func:`formulate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

import numpy as np

from leo_core.api import analyze
from leo_core.checker.environment import ieee, undisturbed
from leo_core.errors import EncodingError, UsageError
from leo_core.execution.events import Listener, silent
from leo_core.files import require_writable
from leo_core.milp.formulate import formulate as written_out
from leo_core.milp.problem import NamedProblem
from leo_core.options import Chosen, spelled_out
from leo_core.paths import replacing, require_apart
from leo_core.plugins import registry
from leo_core.report.live import shown
from leo_core.stability.outputs import known_region


@spelled_out()
@shown
@ieee()
def formulate(
    model: Any,
    path: str | Path,
    domain: Any,
    *,
    maximize: str | None = None,
    listener: Listener = silent,
    progress: bool = False,  # noqa: ARG001 - what a decorator reads
    **options: Unpack[Chosen],
) -> NamedProblem:
    """Write a network over a domain as a mixed-integer program, for other tools: a ``.mps`` or ``.lp`` file.

    Parameters
    ----------
    maximize:
        The output that is the program's objective: its column, such as ``"output_0"``; None for no objective.
    options:
        As of :func:`analyze`: the big-M are its bounds, and ``tight`` makes them tighter.

    Raises :class:`UsageError` for another suffix or an unknown output, :class:`OutputError` where it cannot be written,
    :class:`EncodingError` where the program would be too large.
    """
    if Path(path).suffix.lower() not in (".mps", ".lp"):
        raise UsageError(f"{path}: programs are written to files that end in .mps or .lp")
    require_writable(path)
    require_apart({"the network": model, "the domain": domain}, {"the program": path})
    write_problem = registry.problem_writer()
    stability = analyze(model, domain, listener=listener, **options)
    network = stability.network
    with np.errstate(all="ignore"):
        region = known_region(stability)
        outputs = stability.outputs.lower, stability.outputs.upper
        try:
            named = written_out(network, region, outputs, maximize)
        except EncodingError:
            raise EncodingError(
                "the network's program would be too large, or its numbers overflow; compress the network first, or "
                "give a smaller domain"
            ) from None
    with replacing(path) as temporary:
        undisturbed(lambda: write_problem(named, temporary))
    return named
