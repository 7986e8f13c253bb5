"""The extra highs: the solver is HiGHS, without being asked for."""

from __future__ import annotations

import numpy as np

import leo_core

result = leo_core.compress("net.nnet", (-1, 1))
assert result.stability.solver == "highs"
result.export("out.nnet")
points = np.load("points.npy")
assert np.abs(result.network.evaluate(points) - result.original.evaluate(points)).max() <= result.deviation + 1e-12
