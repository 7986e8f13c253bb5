"""Work over processes: what is killed, raised, late or cut off costs its own task only."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing, contextmanager

import pytest

from leo_core.execution import pool as pools
from leo_core.execution.budget import Budget
from leo_core.execution.executor import LOST
from leo_core.execution.pool import Pool
from leo_core.testing import executor_kit
from leo_core.testing import wrong_executors as wrong
from leo_core.testing.executor_kit import Place


class Square:
    """Squares numbers; some tasks ask for trouble."""

    def __call__(self, task, budget):
        kind, number = task
        if kind == "raise":
            raise ValueError(f"no square of {number}")
        if kind == "run out of memory":
            raise MemoryError
        if kind == "hang":
            time.sleep(60)
        return number * number

    def close(self):
        pass


def run(tasks, jobs, budget=Budget()):
    pool, waiting = Pool(jobs), list(reversed(tasks))
    try:
        return dict(pool.map(Square, (), lambda: waiting.pop() if waiting else None, budget))
    finally:
        pool.close()


@contextmanager
def processes(workers, _note):
    with closing(Pool(max(2, workers))) as pool:  # one is this process itself, which the kit would kill
        yield pool


@contextmanager
def one_process(_workers, _note):
    """That begins with one worker, so that one can join."""
    with closing(Pool(2)) as pool:
        pool.jobs = 1
        yield Spread(pool)


class Spread:
    """Never here, even with one job."""

    def __init__(self, pool):
        self.pool, self.map, self.close = pool, pool.spread, pool.close


def joined(executor, version):
    executor.pool.jobs += 1


PLACE, ALONE = Place(processes), Place(one_process, joined)


@pytest.mark.parametrize("check", executor_kit.CHECKS, ids=lambda check: check.__name__)
def test_conformance(check):
    check(PLACE)


#: The check that catches each fault.
CAUGHT = {
    wrong.forgets_one: executor_kit.does_every_task_once,
    wrong.tells_one_twice: executor_kit.does_every_task_once,
    wrong.mixes_results_up: executor_kit.does_every_task_once,
    wrong.waits_for_all: executor_kit.hands_results_out_as_they_come,
    wrong.draws_all_at_first: executor_kit.draws_again_after_each_result,
    wrong.keeps_the_first_handlers: executor_kit.works_with_the_arguments_given,
    wrong.calls_a_death_a_result: executor_kit.a_task_that_kills_its_workers_is_lost_alone,
    wrong.loses_all_with_one: executor_kit.what_exhausts_memory_is_lost_alone,
    wrong.hides_errors: executor_kit.raises_what_a_handler_raises,
    wrong.waits_for_what_hangs: executor_kit.gives_up_what_overruns_its_time,
    wrong.begins_without_time: executor_kit.begins_nothing_without_time,
    wrong.goes_on_unheard: executor_kit.who_stops_listening_calls_off_the_rest,
    wrong.swallows_ctrl_c: executor_kit.ctrl_c_calls_off_the_rest,
}


@pytest.mark.parametrize("fault", wrong.FAULTS, ids=lambda fault: fault.__name__)
def test_the_kit_catches_every_wrong_executor(fault, monkeypatch):
    monkeypatch.setattr(executor_kit, "SOON", 6.0)
    monkeypatch.setattr(executor_kit, "HANG", 4.0)

    @contextmanager
    def place(workers, note):
        with processes(workers, note) as pool:
            yield wrong.WrongExecutor(pool, fault)

    with pytest.raises(AssertionError):
        CAUGHT[fault](Place(place))


def test_the_kit_tells_who_may_join(monkeypatch):
    executor_kit.a_late_worker_takes_part(ALONE)
    monkeypatch.setattr(executor_kit, "SOON", 3.0)
    with pytest.raises(AssertionError, match="joined late"):
        executor_kit.a_late_worker_takes_part(Place(one_process, lambda *_: None))
    with pytest.raises(AssertionError, match="nothing was said"):
        executor_kit.a_worker_of_another_version_is_refused_by_name(ALONE)


def test_one_job_is_this_process():
    tasks = [("square", number) for number in range(20)] + [("run out of memory", 4)]
    found = run(tasks, 1)
    assert found.pop(tasks[-1]) is LOST
    assert found == {task: task[1] ** 2 for task in tasks[:-1]}
    with pytest.raises(ValueError, match="no square of 7"):
        run([("raise", 7)], 1)
    assert run([("square", 1)], 1, budget=Budget.of(0)) == {}


def test_who_stops_listening_leaves_no_process_behind():
    pool = Pool(2)
    waiting = [("hang", 1), ("square", 2)]
    for _ in pool.map(Square, (), lambda: waiting.pop() if waiting else None, Budget()):
        workers = [worker.process for worker in pool._workers]
        break
    pool.close()
    assert workers
    assert not any(process.is_alive() for process in workers)


@pytest.mark.parametrize(("kind", "grace"), [("square", 30.0), ("hang", 0.1)])
def test_who_stops_listening_keeps_the_processes_that_are_done_in_a_moment(kind, grace, monkeypatch):
    monkeypatch.setattr(pools, "GRACE", grace)

    def results(*tasks):
        waiting = list(tasks)
        return closing(pool.map(Square, (), lambda: waiting.pop() if waiting else None, Budget()))

    with closing(Pool(2)) as pool:
        with results(("square", 1), ("square", 2)) as both:
            assert len(list(both)) == 2
        before = {worker.process.pid for worker in pool._workers}
        with results((kind, 1), ("square", 2)) as one:
            next(one)
        after = {worker.process.pid for worker in pool._workers}
        assert not any(worker.busy for worker in pool._workers)
        assert len(before) == 2
        assert after == before if kind == "square" else after < before
        with results(("square", 3), ("square", 4)) as again:
            assert dict(again) == {("square", 3): 9, ("square", 4): 16}


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
