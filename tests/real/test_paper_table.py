"""The paper's table as a benchmark: a short run from MNIST to the table, and nothing done twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MNIST = ROOT.parent / "shared" / "data" / "mnist.npz"

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.mark.skipif(not MNIST.exists(), reason="MNIST (../shared/data/mnist.npz) is not on this machine")
def test_a_quick_run(tmp_path):
    pytest.importorskip("torch")
    command = [sys.executable, ROOT / "benchmarks" / "paper_table.py", "--quick", "--results", tmp_path / "table",
               "--cache", tmp_path / "cache"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / "table.json").read_text())
    assert len(records) == 3
    for record in records:
        assert record["accuracy"] > 85
        assert record["leo"]["undecided"] == record["leo"]["predictions_changed"] == 0
        if not record["recipe"]["strength"]:
            assert record["all"]["units"] == 50
    text = (tmp_path / "table.md").read_text()
    assert "| 25 | 0.001 | trained alike |" in text
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")
    stamp = (tmp_path / "table.json").stat().st_mtime_ns
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert (tmp_path / "table.json").stat().st_mtime_ns == stamp, "networks that were there were measured again"


def test_without_mnist_it_says_what_to_do(tmp_path):
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-c",
         "import sys; sys.modules['torchvision'] = None; sys.modules['leo_frontends.keras'] = None\n"
         f"sys.path.insert(0, {str(ROOT / 'benchmarks')!r})\n"
         "import paper_table; from pathlib import Path\n"
         f"paper_table.find_data(Path('none.npz'), Path({str(tmp_path)!r}))"],
        capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 1
    assert "--data" in done.stderr
    assert "Traceback" not in done.stderr
