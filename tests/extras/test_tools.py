"""The examples for other tools run, and the optima that the tools find are one; skipped where a tool is missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "docs" / "examples" / "digits" / "digits.onnx")


def example(name, *packages):
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is missing, or does not load beside what is installed",
                            exc_type=ImportError)  # fmt: skip
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "examples" / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("omlt_bounds", ("omlt", "pyomo", "onnx", "highspy")),
        ("gurobi_ml_bounds", ("gurobi_ml", "gurobipy", "onnx")),
        ("pyscipopt_ml_bounds", ("pyscipopt_ml", "pyscipopt", "torch")),
    ],
)
def test_the_optimum_is_the_same_whatever_is_given(name, packages, tmp_path, monkeypatch):
    module = example(name, *packages)
    monkeypatch.chdir(tmp_path)
    found = module.main(DIGITS)
    assert len(found) > 1
    assert max(found.values()) - min(found.values()) < 0.01
    assert found["bounds"] == pytest.approx(20.577, abs=0.01)


@pytest.mark.slow
def test_crown_is_tighter_with_bounds_that_are_given():
    module = example("auto_lirpa_bounds", "torch", "auto_LiRPA")
    found = module.main(DIGITS)
    assert (found["bounds"][0] >= found["crown"][0] - 1e-3).all()
    assert (found["bounds"][1] <= found["crown"][1] + 1e-3).all()
    assert (found["bounds"][1] < found["crown"][1]).any()
