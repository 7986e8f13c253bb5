"""Work over processes: what is killed, raised, late or cut off costs its own task only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from leo_core.execution.budget import Budget
from leo_core.execution.pool import LOST, Pool


class Square:
    """Squares numbers; some tasks ask for trouble."""

    def __init__(self, folder: str = "") -> None:
        self._folder = folder

    def __call__(self, task, budget):
        kind, number = task
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "die once":
            mark = os.path.join(self._folder, str(number))  # noqa: PTH118 - nothing else is needed of the path
            if not os.path.exists(mark):  # noqa: PTH110
                open(mark, "w").close()  # noqa: PTH123
                os.kill(os.getpid(), signal.SIGKILL)
        if kind == "raise":
            raise ValueError(f"no square of {number}")
        if kind == "run out of memory":
            raise MemoryError
        if kind == "hang":
            time.sleep(60)
        return number * number

    def close(self):
        pass


def run(tasks, jobs, *arguments, budget=Budget()):
    pool, waiting = Pool(jobs), list(reversed(tasks))
    try:
        return dict(pool.map(Square, arguments, lambda: waiting.pop() if waiting else None, budget))
    finally:
        pool.close()


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_every_task_is_done_once(jobs):
    tasks = [("square", number) for number in range(20)]
    assert run(tasks, jobs) == {task: task[1] ** 2 for task in tasks}


def test_a_task_that_kills_its_workers_is_lost_and_no_other():
    tasks = [("square", 1), ("die", 2), ("square", 3), ("run out of memory", 4), ("square", 5)]
    found = run(tasks, 2)
    assert [found[task] for task in tasks] == [1, LOST, 9, LOST, 25]


def test_a_task_whose_worker_is_killed_once_is_done_by_another(tmp_path):
    tasks = [("die once", number) for number in range(3)]
    assert run(tasks, 2, str(tmp_path)) == {task: task[1] ** 2 for task in tasks}


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_exception_is_raised_here(jobs):
    with pytest.raises(ValueError, match="no square of 7"):
        run([("raise", 7)], jobs)


def test_a_hanging_worker_is_stopped_when_time_is_up():  # else this does not end
    assert run([("hang", 1)], 2, budget=Budget.of(1.0)) == {("hang", 1): LOST}


def test_nothing_is_begun_without_time():
    assert run([("square", 1)], 2, budget=Budget.of(0)) == {}


def test_who_stops_listening_leaves_no_process_behind():
    pool = Pool(2)
    waiting = [("hang", 1), ("square", 2)]
    for _ in pool.map(Square, (), lambda: waiting.pop() if waiting else None, Budget()):
        workers = [worker.process for worker in pool._workers]
        break
    pool.close()
    assert workers
    assert not any(process.is_alive() for process in workers)


def test_a_script_without_a_main_guard_is_not_run_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\n"
        "import leo_core\n"
        "from leo_core.search import boxes\n"
        "boxes.BROAD = 4\n"
        "print('begun')\n"
        "from leo_core.testing.networks import chain\n"
        "found = leo_core.analyze(chain(3, 20, 20, 1, seed=5), (-1.0, 1.0), jobs=2)\n"
        "print(found.count(leo_core.State.UNDECIDED))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["begun", "0"], done.stderr
