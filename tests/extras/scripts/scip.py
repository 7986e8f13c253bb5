"""The extra scip alone: the solver is SCIP, without being asked for; HiGHS is missing, and said to be."""

from __future__ import annotations

import leo_core
from leo_core.errors import MissingExtraError

results = [leo_core.compress("net.nnet", (-1, 1), strategy=strategy) for strategy in ("cascade", "paper", "isa")]
for result in results:
    assert result.stability.solver == "scip"
    assert any("leo-compress[highs]" in note for note in result.notes), "why SCIP was taken is said"
assert len({result.network.connections for result in results}) == 1
try:
    leo_core.analyze("net.nnet", (-1, 1), solver="highs")
except MissingExtraError as error:
    said = str(error)
assert "leo-compress[highs]" in said
