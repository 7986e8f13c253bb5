"""The extras exact and report: products in FLINT are those of Python's integers, and a result is a page."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

import leo_core
from leo_core.arithmetic import fast_integers, integer_product

drawn = random.Random(0)
left, right = (
    np.array([[drawn.getrandbits(900) - 2**899 for _ in range(columns)] for _ in range(rows)], dtype=object)
    for rows, columns in ((20, 30), (30, 25))
)
assert fast_integers()
assert (integer_product(left, right) == left @ right).all()

result = leo_core.compress("net.leo", (0, 1), tolerance="exact")
assert result.deviation == 0
result.report("net.html")
assert "<svg" in Path("net.html").read_text(encoding="utf-8")
