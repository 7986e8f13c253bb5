"""Deciding in one call, as most tests do it: the cascade, by HiGHS, unless they say otherwise."""

import math

from leo_backends.highs import HighsSolver
from leo_core.execution.budget import Budget, Limits
from leo_core.execution.events import Note, silent
from leo_core.milp.checked import CheckedSolver
from leo_core.stability import Work
from leo_core.stability import decide as _decide


def work(network, box, solver=None, *, budget=None, unit_seconds=math.inf, open_seconds=math.inf, listener=silent,
         **options):  # fmt: skip
    solver = CheckedSolver(solver or HighsSolver(), lambda text: listener(Note(text)))
    return Work(network, box, solver, limits=Limits(budget or Budget(), unit_seconds, open_seconds), **options)


def decide(network, box, solver=None, *, listener=silent, **options):
    return _decide(work(network, box, solver, listener=listener, **options), listener)
