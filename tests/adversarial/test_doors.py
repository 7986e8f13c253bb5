"""A sample of ``benchmarks/doors.py``: random models are read right with the door left out; it catches faults."""

from __future__ import annotations

import warnings

import door_cases
import pytest
from door_cases import faults

#: By framework, the seeds tried here: others than the benchmark begins with.
SEEDS = {
    "onnx": range(100_000, 100_150),
    "torch": range(100_000, 100_030),
    "images": range(100_000, 100_040),
    "keras": range(100_000, 100_060),
}
if "tflite" in faults.FRAMEWORKS:
    SEEDS["tflite"] = range(100_000, 100_060)


@pytest.mark.parametrize("framework", SEEDS)
def test_random_models_are_read_right_or_refused(framework, tmp_path):
    kinds = set()
    for seed in SEEDS[framework]:
        folder = tmp_path / str(seed)
        folder.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case = door_cases.make(framework, seed, folder)
            found = door_cases.outcome(case, seed)
        assert found.kind in ("equal", "refused", "not run"), f"seed {seed}: {found.why}"
        kinds.add(found.kind)
    assert {"equal", "refused"} <= kinds


def test_thirty_faults_are_planted():
    assert len(faults.planted()) >= 30
    assert len({(fault.framework, fault.name) for fault in faults.planted()}) == len(faults.planted())


#: By framework, how many of the faults are tried here: PyTorch's export takes its time. The benchmark tries all.
TRIED = {"onnx": 3, "torch": 2, "keras": 2, **({"tflite": 6} if "tflite" in faults.FRAMEWORKS else {})}


@pytest.mark.slow
@pytest.mark.parametrize("framework", TRIED)
def test_the_door_catches_planted_faults(framework):
    for fault in faults.planted([framework])[: TRIED[framework]]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            misread, found = faults.caught(fault, range(600), enough=1)
        assert misread, f"'{fault.name}' makes LEO misread none of the models"
        assert found == misread, f"the door did not see '{fault.name}'"
