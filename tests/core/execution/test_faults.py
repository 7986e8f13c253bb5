"""Kills, crashes, full disks and little memory: the result is valid or there is none, never half a file."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import leo_core
from leo_backends.highs import HighsSolver
from leo_core import State
from leo_core.errors import OutputError
from leo_core.execution.events import Note
from leo_core.milp.result import SolverResult
from leo_core.testing.networks import chain
from leo_core.testing.wrong import WrongSolver, crashes
from tests.core.execution.test_checkpoint import BOX, PHASES, undisturbed

CASES = {"boxes": chain(3, 20, 20, 1, seed=5), "phases": PHASES}
#: The command; the verdicts of each unit go to a file.
COMMAND = """
import json, sys
from pathlib import Path
from leo_core import api, cli
from leo_core.search import boxes

boxes.FIRST = 4
compress, verdicts = api.compress, Path(sys.argv.pop(1))

def told(*arguments, **options):
    result = compress(*arguments, **options)
    verdicts.write_text(json.dumps([layer.state.tolist() for layer in result.stability.layers.values()]))
    return result

api.compress = told
cli.main(prog_name="leo")
"""


class Run:
    """`leo compress --checkpoint` on a network, as a process."""

    def __init__(self, network, folder: Path, jobs: int = 1):
        self.model = leo_core.convert(network, folder / "in.leo")
        self.out, self.verdicts, self.checkpoint = folder / "out.leo", folder / "verdicts", folder / "checkpoint"
        self.right = [layer.state.tolist() for layer in undisturbed(network).layers.values()]
        self._command = [sys.executable, "-c", COMMAND, self.verdicts, "compress", self.model, self.out, "--domain",
                         "-1,1", "--solver", "highs", "--checkpoint", self.checkpoint, "--jobs", str(jobs),
                         "-q"]  # fmt: skip

    def start(self):
        return subprocess.Popen(list(map(str, self._command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def finish(self):
        process = self.start()
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
        assert json.loads(self.verdicts.read_text()) == self.right
        leo_core.analyze(self.out, BOX, time_limit=0)  # it is a whole file

    def kill_at(self, size: int) -> bool:
        """Kill it once its checkpoint has so many bytes; whether it got there before its end."""
        process = self.start()
        while process.poll() is None:
            if self.checkpoint.exists() and self.checkpoint.stat().st_size >= size:
                process.kill()
                process.communicate()
                return True
            time.sleep(0.001)
        process.communicate()
        return False


@pytest.mark.parametrize("name", CASES)
def test_a_killed_run_goes_on_to_the_same_verdicts(name, tmp_path):
    run = Run(CASES[name], tmp_path)
    run.finish()
    whole, size = run.out.read_bytes(), run.checkpoint.stat().st_size
    for share in (0.0, 0.5, 0.9):
        for path in (run.out, run.verdicts, run.checkpoint):
            path.unlink(missing_ok=True)
        run.kill_at(int(share * size))
        run.kill_at(int((share + 0.1) * size))
        assert not run.out.exists() or run.out.read_bytes() == whole
        run.finish()


def children(pid: int) -> list[int]:
    """The worker processes of a process."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for workers in /proc")
@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_a_killed_worker_costs_nothing_and_none_outlives_its_parent(victim, tmp_path):
    run = Run(CASES["phases"], tmp_path, jobs=2)
    process = run.start()
    found: list[int] = []
    while process.poll() is None and not found:
        try:
            found = children(process.pid)
        except OSError:
            break
        time.sleep(0.005)
    assert found, "it ended before it had any worker"
    os.kill(found[0] if victim == "worker" else process.pid, signal.SIGKILL)
    process.communicate(timeout=300)
    if victim == "worker":
        assert process.returncode == 0
        assert json.loads(run.verdicts.read_text()) == run.right
    for _ in range(3000):
        if not any(map(alive, found)):
            break
        time.sleep(0.01)
    assert not any(map(alive, found))
    run.finish()


def aborts(session, question) -> SolverResult:
    """A crash in compiled code."""
    del session, question
    os.abort()


@pytest.mark.parametrize(("fault", "jobs"), [(aborts, 2), (crashes, 1)], ids=["aborts in a worker", "raises"])
def test_a_solver_that_crashes_leaves_units_undecided_and_says_so(fault, jobs, monkeypatch):
    from leo_core.plugins import registry

    notes: list[str] = []
    network, box = chain(10, 20, 20, 1, seed=2), (-0.25, 0.25)
    right = leo_core.analyze(network, box, solver="highs")
    monkeypatch.setattr(registry, "solver", lambda *_: WrongSolver(HighsSolver(), fault))

    def listen(event):
        if isinstance(event, Note):
            notes.append(event.text)

    found = leo_core.analyze(network, box, jobs=jobs, time_limit=60, listener=listen)
    assert 0 < found.count(State.UNDECIDED) < 10
    assert any("undecided" in note for note in notes)
    for name, layer in found.layers.items():
        decided = layer.state != State.UNDECIDED
        assert (layer.state[decided] == right.layers[name].state[decided]).all()


def limited(kind: int, amount: int):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(kind, (amount, amount))

    return limit


def test_a_full_disk_leaves_no_half_file(tmp_path):
    model = leo_core.convert(chain(3, 40, 40, 2, seed=1), tmp_path / "in.leo")
    command = [sys.executable, "-m", "leo_core", "compress", model, tmp_path / "out.leo", "--domain", "-1,1"]
    done = subprocess.run([*map(str, command), "--checkpoint", str(tmp_path / "c")], capture_output=True, text=True,
                          preexec_fn=limited(resource.RLIMIT_FSIZE, 300),
                          env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, check=False)  # fmt: skip
    assert done.returncode == 1
    assert "out.leo: cannot be written (File too large)" in done.stderr
    assert "the checkpoint" in done.stderr
    assert "goes on without it" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "in.leo"]


def test_a_result_that_cannot_be_written_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    result = leo_core.compress(chain(3, 8, 8, 2, seed=2), BOX)
    path = result.export(tmp_path / "out.leo")
    before = path.read_bytes()
    monkeypatch.setattr(np.lib.format, "write_array", lambda *_a, **_k: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(OutputError, match="No space"):
        result.export(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.leo"]


@pytest.mark.parametrize("spare", [8, 32, 128, 512])
def test_little_memory_ends_in_a_valid_result_or_a_clear_error(spare, tmp_path):
    network = chain(9, 300, 300, 2, seed=1)
    model = leo_core.convert(network, tmp_path / "in.leo")
    script = (
        "import resource, sys\n"
        "import leo_core.api, leo_core.cli, leo_core.report.table, rich.progress, scipy.sparse, scipy.optimize\n"
        "import leo_core.plugins.registry as registry; registry.solver('highs'); registry.frontend('leo')\n"
        "from pathlib import Path\n"
        "import numpy; numpy.ones((200, 200)) @ numpy.ones((200, 200))\n"  # its buffer, without which it ends
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (used + {spare << 20},) * 2)\n"
        "leo_core.cli.main(prog_name='leo')\n"
    )
    arguments = ["compress", model, tmp_path / "out.leo", "--domain", "-1,1", "--solver", "highs", "--time-limit", "20"]
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert "leo: " in done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["in.leo"]
    else:
        assert leo_core.verify(model, tmp_path / "out.leo", BOX, time_limit=0).lower <= 1e-3
