"""The examples run as they stand, and what they say of themselves is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
#: By folder: what each needs, and what must be printed.
NEEDS = {
    "controller": (("torch",), r"largest difference of the angle on the way: (\S+) rad"),
    "keras_to_torch": (("torch", "keras", "sklearn"), r"digits: 0 changed\nlargest difference of a probability: (\S+)"),
    "images": (("torch", "sklearn"), r"largest difference of an output: (\S+)"),
}

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", NEEDS)
def test_it_runs_and_the_result_is_smaller_and_the_same(name, tmp_path):
    packages, printed = NEEDS[name]
    for package in (*packages, "jinja2"):
        pytest.importorskip(package)
    script = EXAMPLES / name / f"{name}.py"
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = re.search(r"^ connections +(\S+) +(\S+)", done.stdout, re.MULTILINE).groups()
    assert int(after.replace(",", "")) < 0.9 * int(before.replace(",", ""))
    assert float(re.search(printed, done.stdout)[1]) < 1e-4
    assert {f"{name}.html", "smaller.pt2"} <= {path.name for path in tmp_path.iterdir()}
    assert (EXAMPLES / name / "report.png").exists()
