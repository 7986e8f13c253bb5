"""A few of the random networks with planted structure; `benchmarks/planted.py` takes hundreds through the door."""

from fractions import Fraction

import numpy as np
import pytest

import leo_core
from leo_core import Box
from leo_core.storage import save
from leo_core.testing.planted import planted


@pytest.mark.parametrize(("seed", "certify"), [(3, False), (8, True), (21, False)])
def test_each_plant_is_found_and_no_output_is_further_away_than_proved(seed, certify, tmp_path):
    pytest.importorskip("onnxruntime")
    case = planted(seed)
    box = Box.uniform(0, 1, case.network.input_size)
    points = np.vstack([box.sample(np.random.default_rng(seed), 2), box.corners(2)])
    model, small = tmp_path / "model.leo", tmp_path / "small.onnx"
    save(case.network, model)
    tolerance = 1e-3 * float(np.abs(case.network.evaluate(points)).max())
    found = leo_core.compress(model, box, tolerance=tolerance, evidence=certify)
    left = case.left(found.network)
    assert all(left[name] <= most for name, most in case.most.items()), (case.plants, case.around, left, case.most)
    for x in points:
        was, now = (net.evaluate_exact(x)[net.output].fractions() for net in (case.network, found.network))
        assert max(abs(a - b) for a, b in zip(was, now, strict=True)) <= Fraction(found.deviation)
    assert found.written(small).door == "agrees"
    if certify:
        found.certify(tmp_path / "certificate", small)
        leo_core.check(tmp_path / "certificate", model, small, box)
