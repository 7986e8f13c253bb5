"""Small models on which LEO was wrong once: each script beside the project is run, and says what is right now."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

CASES = ROOT.parent / "shared" / "cases"
SMALL = r"\d(\.\d+)?(e-\d+)?"
#: By case: what its script prints, one pattern for each line or error that matters, and how many fit at least.
RIGHT = {
    "affine-operators-said-to-be-none": (r"^.*<CompressionResult", 6),
    "batch-size-as-a-number": (r"UnsupportedModelError: Divided.*\n.*every example of a batch", 1),
    "flush-denormals": (r"(?s)result units 1|differ by at least 0\.918|MachineError", 1),
    "keras-channels-first": (r"seen \d(\.\d+)?e-0[78]", 2),
    "keras-quantized": (r"it is quantised \(int8\)", 1),
    "nnet-more-means-than-inputs": (r"FormatError: .*line \d: .* numbers for 2 inputs.*expected", 1),
    "onnx-axis-0-without-a-batch": (r"^\w+ <CompressionResult", 5),
    "onnx-batchnorm-five-outputs": (r"node 1 .*\(BatchNormalization\): it is in training mode", 1),
    "onnx-cast-of-constant": (r"^\w+ proved \S+ seen (0\.0|\d(\.\d+)?e-0[67])$", 3),
    "onnx-nodes-not-sorted": (r"^<CompressionResult", 1),
    "onnx-opset6-broadcast": (r"opset 6 is older than what is read", 1),
    "onnx-reshape-allowzero": (r"^<CompressionResult", 1),
    "onnx-tail-then-nothing": (r"^\w+ <CompressionResult", 4),
    "straighten-overflow": (r"^hits 0$", 1),
    "torch-inplace-alias": (r"seen 0\.000 \(from \.pt2: 0\.000\)", 5),
    "torch-no-grad-and-lists": (r"^\S+ <CompressionResult", 4),
    "torch-pruned-module": (r"^\w[\w ]* (ok|LeoError: )", 5),
    "verify-crash": (r"^\d\w? .*->", 7),
    "verify-ignores-tail": (r"cannot be compared: the first model ends in a softmax", 1),
}


@pytest.mark.real
@pytest.mark.parametrize("name", RIGHT)
def test_a_case_is_right_now(name, tmp_path):
    if not (CASES / name / "make.py").exists():
        pytest.skip("the cases (../shared/cases) are not on this machine")
    folder = shutil.copytree(CASES / name, tmp_path / name, copy_function=shutil.copyfile)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "make.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    said = ran.stdout + ran.stderr
    pattern, count = RIGHT[name]
    assert len(re.findall(pattern, said, re.MULTILINE)) >= count, said[-3000:]
    assert "Traceback" not in said or "leo_core.errors." in said, said[-3000:]
