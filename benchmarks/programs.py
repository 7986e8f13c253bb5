"""What benchmarks do with programs: LEO's commands as a user gives them, and HiGHS on the files they write.

All times are seconds of CPU, of one thread, so that a busy machine changes little; limits are of the clock.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import highspy
import numpy as np


class Solved(NamedTuple):
    """What HiGHS found: a status in its words, the objective, its bound, columns by name, and its seconds."""

    status: str
    value: float
    bound: float
    columns: dict[str, float]
    seconds: float
    nodes: int

    @property
    def optimal(self) -> bool:
        return self.status == "Optimal"


def leo(*arguments: Any) -> tuple[dict[str, Any], float]:
    """What a command prints with ``--json``, and its seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    call = [sys.executable, "-m", "leo_core", *map(str, arguments), "--json", "-q"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(call)}: {done.stderr}")
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return json.loads(done.stdout), spent


def solve(
    path: Path,
    limit: float,
    rows: Sequence[tuple[dict[str, float], float]] = (),
    objective: Mapping[str, float] | None = None,
) -> Solved:
    """HiGHS on a file, with further rows Σ factors · columns ≤ side, and another objective to be maximised."""
    highs = highspy.Highs()
    for name, value in (("output_flag", False), ("threads", 1), ("mip_rel_gap", 1e-6), ("time_limit", float(limit))):
        highs.setOptionValue(name, value)
    highs.readModel(str(path))
    names = [highs.getColName(column)[1] for column in range(highs.getNumCol())]
    place = {name: column for column, name in enumerate(names)}
    for factors, side in rows:
        at = np.array([place[name] for name in factors], dtype=np.int32)
        highs.addRow(-np.inf, side, len(at), at, np.array(list(factors.values())))
    if objective is not None:
        highs.changeObjectiveSense(highspy.ObjSense.kMaximize)
        for name in names:
            highs.changeColCost(place[name], objective.get(name, 0.0))
    begun = time.process_time()
    highs.run()
    seconds = time.process_time() - begun
    info = highs.getInfo()
    status = highs.modelStatusToString(highs.getModelStatus())
    solution = highs.getSolution()
    columns = dict(zip(names, solution.col_value, strict=True)) if solution.value_valid else {}
    bound, nodes = float(info.mip_dual_bound), max(0, int(info.mip_node_count))
    return Solved(status, float(info.objective_function_value), bound, columns, seconds, nodes)
