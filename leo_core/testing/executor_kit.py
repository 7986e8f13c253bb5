"""What LEO relies on in an executor; see :mod:`leo_core.testing`. It takes a :class:`Place` to start one at.

All workers must be on this machine: tasks leave marks in a folder. Nothing is timed but what must end at all.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, final

from leo_core.execution.budget import Budget
from leo_core.execution.executor import LOST, Executor

#: What a task asks for, and a number.
Task: TypeAlias = tuple[str, float]

#: Seconds that a task hangs, and that anything may take which must happen some time.
HANG, SOON = 12.0, 120.0


@final
@dataclass(frozen=True)
class Place:
    """Where to start what is tested.

    Attributes
    ----------
    start:
        ``(workers, note) -> executor``, with so many workers, in a ``with``.
    join:
        ``(executor, version)``: one more worker joins, which says that it runs that version of LEO; the same as here
        where it is empty. None where workers cannot join.
    """

    start: Callable[[int, Callable[[str], None]], AbstractContextManager[Executor]]
    join: Callable[[Executor, str], None] | None = None


class Probe:
    """A handler whose tasks ask for trouble."""

    def __init__(self, folder: str, factor: float = 1.0) -> None:
        self._folder, self._factor = Path(folder), factor

    def __call__(self, task: Task, budget: Budget) -> Any:
        kind, number = task
        act = getattr(self, f"_{kind}", None)
        return number * self._factor if act is None else act(number, budget)

    def close(self) -> None:
        """Nothing to free."""

    def _who(self, seconds: float, _budget: Budget) -> int:
        time.sleep(seconds)
        return os.getpid()

    def _slow(self, seconds: float, _budget: Budget) -> bool:
        """Whether all else was handed out before so long."""
        mark = self._folder / "quick ones are in"
        _until(mark.exists, seconds)
        return mark.exists()

    def _kill(self, _number: float, _budget: Budget) -> None:
        _end_this_process()

    def _kill_once(self, number: float, _budget: Budget) -> float:
        mark = self._folder / f"killed {number}"
        if not mark.exists():
            mark.touch()
            _end_this_process()
        return number * self._factor

    def _raise(self, number: float, _budget: Budget) -> None:
        raise ValueError(f"no product of {number}")

    def _exhaust(self, _number: float, _budget: Budget) -> None:
        raise MemoryError

    def _hang(self, seconds: float, _budget: Budget) -> float:
        time.sleep(seconds)
        return seconds

    def _go_on(self, number: float, budget: Budget) -> float:
        """Until time is up, as a search does, leaving a mark again and again."""
        until = time.monotonic() + SOON
        while not budget.expired and time.monotonic() < until:
            (self._folder / "going on").touch()
            time.sleep(0.05)
        return number * self._factor


def does_every_task_once(place: Place) -> None:
    """Each task drawn comes back once, with its own result, and is drawn in the caller's thread."""
    threads = set()
    tasks = [("multiply", float(k)) for k in range(40)]
    waiting = tasks[::-1]

    def draw() -> Task | None:
        threads.add(threading.get_ident())
        return waiting.pop() if waiting else None

    with _Folder() as folder, place.start(2, _deaf) as executor:
        found = list(executor.map(Probe, (folder, 3.0), draw, Budget()))
    assert sorted(task for task, _ in found) == tasks, "a task is missing, or came twice"
    assert all(result == 3.0 * task[1] for task, result in found), "a result came with another task"
    assert threads == {threading.get_ident()}, "draw was called in another thread"


def hands_results_out_as_they_come(place: Place) -> None:
    """A slow task keeps no quick one waiting."""
    tasks = [("slow", HANG), *(("multiply", float(k)) for k in range(6))]
    found = dict[Task, Any]()
    with _Folder() as folder, place.start(2, _deaf) as executor:
        for task, result in executor.map(Probe, (folder,), _drawer(tasks), Budget()):
            found[task] = result
            if found.keys() == set(tasks[1:]):
                (Path(folder) / "quick ones are in").touch()
    assert found.pop(tasks[0]), "quick results were held back until a slow task was done"
    assert found == {task: task[1] for task in tasks[1:]}


def draws_again_after_each_result(place: Place) -> None:
    """What results lead to is drawn too; it ends when there is nothing to draw and nothing is out."""
    waiting, found = [("multiply", 1.0)], list[float]()

    def draw() -> Task | None:
        return waiting.pop() if waiting else None

    with _Folder() as folder, place.start(2, _deaf) as executor:
        for _, result in executor.map(Probe, (folder, 2.0), draw, Budget()):
            found.append(result)
            if result < 16:
                waiting += [("multiply", result), ("multiply", result)]
    assert sorted(found) == [2.0, *[4.0] * 2, *[8.0] * 4, *[16.0] * 8], "tasks that came up later were not done"


def works_with_the_arguments_given(place: Place) -> None:
    """The handlers of one kind of work do not answer for the next."""
    with _Folder() as folder, place.start(2, _deaf) as executor:
        for factor in (2.0, 5.0, 2.0):
            found = _results(executor, folder, [("multiply", 1.0), ("multiply", 2.0)], factor=factor)
            assert sorted(found.values()) == [factor, 2 * factor], "results of a handler made with other arguments"


def a_worker_killed_once_costs_nothing(place: Place) -> None:
    """Its task is done by another, and those waiting behind it too."""
    tasks = [("kill_once", 1.0), *(("multiply", float(k)) for k in range(2, 20))]
    with _Folder() as folder, place.start(2, _deaf) as executor:
        found = _results(executor, folder, tasks)
    assert found == {task: task[1] for task in tasks}, "a worker's death cost a result"


def a_task_that_kills_its_workers_is_lost_alone(place: Place) -> None:
    """LOST, and every other result is there."""
    tasks = [("kill", 0.0), *(("multiply", float(k)) for k in range(1, 20))]
    with _Folder() as folder, place.start(2, _deaf) as executor:
        found = _results(executor, folder, tasks)
    assert found.pop(tasks[0]) is LOST, "what kills its workers has a result"
    assert found == {task: task[1] for task in tasks[1:]}, "a worker's death cost the result of another task"


def what_exhausts_memory_is_lost_alone(place: Place) -> None:
    """A MemoryError is no error of the caller's."""
    tasks = [("exhaust", 0.0), *(("multiply", float(k)) for k in range(1, 8))]
    with _Folder() as folder, place.start(2, _deaf) as executor:
        found = _results(executor, folder, tasks)
    assert found.pop(tasks[0]) is LOST, "what exhausts memory has a result"
    assert found == {task: task[1] for task in tasks[1:]}


def raises_what_a_handler_raises(place: Place) -> None:
    """And can be used again."""
    with _Folder() as folder, place.start(2, _deaf) as executor:
        said, found = "", dict[Task, Any]()
        try:
            found = _results(executor, folder, [("raise", 7.0)])
        except ValueError as error:
            said = str(error)
        assert "no product of 7" in said, f"an exception in a handler became {said or found}"
        assert _results(executor, folder, [("multiply", 2.0)]) == {("multiply", 2.0): 2.0}


def gives_up_what_overruns_its_time(place: Place) -> None:
    """A task that does not look at its budget is LOST when that is over, and its worker comes back or is replaced."""
    with _Folder() as folder, place.start(2, _deaf) as executor:
        _results(executor, folder, [("multiply", 1.0)])  # workers are there
        found = _results(executor, folder, [("hang", HANG), ("hang", HANG + 1)], budget=Budget.of(1.0))
        assert set(found.values()) <= {LOST}, "it waited for a task that hung"
        tasks = [("multiply", float(k)) for k in range(8)]
        assert _results(executor, folder, tasks) == {task: task[1] for task in tasks}, "hung workers were not replaced"


def begins_nothing_without_time(place: Place) -> None:
    """A budget that is over: nothing is drawn."""
    drawn = list[Task]()

    def draw() -> Task | None:
        drawn.append(("multiply", 1.0))
        return drawn[-1] if len(drawn) < 5 else None

    with _Folder() as folder, place.start(2, _deaf) as executor:
        assert not list(executor.map(Probe, (folder,), draw, Budget.of(0.0))), "it worked without time"
    assert not drawn, "it drew a task without time"


def who_stops_listening_calls_off_the_rest(place: Place) -> None:
    """What is still being done ends soon."""
    with _Folder() as folder, place.start(2, _deaf) as executor:
        with closing(executor.map(Probe, (folder,), _drawer([("go_on", 1.0), ("multiply", 2.0)]), Budget())) as results:
            next(results)
            _until((Path(folder) / "going on").exists, SOON)
        _assert_still(folder)
        assert _results(executor, folder, [("multiply", 2.0)]) == {("multiply", 2.0): 2.0}


def ctrl_c_calls_off_the_rest(place: Place) -> None:
    """KeyboardInterrupt is raised here, and what is still being done ends soon."""
    with _Folder() as folder, place.start(2, _deaf) as executor:

        def interrupt() -> None:
            _until((Path(folder) / "going on").exists, SOON)
            os.kill(os.getpid(), signal.SIGINT)

        sender = threading.Thread(target=interrupt)
        heard = False
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            sender.start()
            _results(executor, folder, [("go_on", 1.0)])
        except KeyboardInterrupt:
            heard = True
        finally:
            sender.join()
            signal.signal(signal.SIGINT, before)
        assert heard, "Ctrl-C was not heard"
        _assert_still(folder)
        assert _results(executor, folder, [("multiply", 2.0)]) == {("multiply", 2.0): 2.0}


def a_late_worker_takes_part(place: Place) -> None:
    """One that joins while work goes on gets some of it."""
    if place.join is None:
        return
    with _Folder() as folder, place.start(1, _deaf) as executor:
        at_first = set(_results(executor, folder, [("who", k / 1000) for k in range(8)]).values())
        place.join(executor, "")
        seen = set(at_first)
        until = time.monotonic() + SOON
        for _, pid in executor.map(Probe, (folder,), _while(lambda: seen == at_first, until), Budget()):
            seen.add(pid)
    assert seen > at_first, "a worker that joined late got no task"


def a_worker_of_another_version_is_refused_by_name(place: Place) -> None:
    """It gets no task, and whoever started the work is told which worker it is and what it runs."""
    if place.join is None:
        return
    said: list[str] = []
    with _Folder() as folder, place.start(1, said.append) as executor:
        at_first = set(_results(executor, folder, [("who", k / 1000) for k in range(8)]).values())
        place.join(executor, "0.0.other")
        until = time.monotonic() + SOON
        waiting = _while(lambda: not _says(said, "0.0.other"), until)
        at_work = {pid for _, pid in executor.map(Probe, (folder,), waiting, Budget())}
        at_work |= set(_results(executor, folder, [("who", k / 1000) for k in range(20)]).values())
    assert _says(said, "0.0.other"), f"nothing was said of a worker of another version: {said}"
    assert at_work <= at_first, "a worker of another version was given work"


CHECKS = (
    does_every_task_once,
    hands_results_out_as_they_come,
    draws_again_after_each_result,
    works_with_the_arguments_given,
    a_worker_killed_once_costs_nothing,
    a_task_that_kills_its_workers_is_lost_alone,
    what_exhausts_memory_is_lost_alone,
    raises_what_a_handler_raises,
    gives_up_what_overruns_its_time,
    begins_nothing_without_time,
    who_stops_listening_calls_off_the_rest,
    ctrl_c_calls_off_the_rest,
    a_late_worker_takes_part,
    a_worker_of_another_version_is_refused_by_name,
)


class _Folder(tempfile.TemporaryDirectory[str]):
    """Where tasks leave marks; a worker that is being ended may still write there."""

    def __init__(self) -> None:
        super().__init__(ignore_cleanup_errors=True)


def _deaf(_text: str) -> None:
    """Hears no notes."""


def _drawer(tasks: list[Task]) -> Callable[[], Task | None]:
    waiting = tasks[::-1]
    return lambda: waiting.pop() if waiting else None


def _while(wanted: Callable[[], bool], until: float) -> Callable[[], Task | None]:
    """Tasks that say who does them, as long as something is wanted."""
    numbers: Iterator[int] = iter(range(1_000_000))
    return lambda: ("who", 0.05 + next(numbers) * 1e-9) if wanted() and time.monotonic() < until else None


def _results(
    executor: Executor, folder: str, tasks: list[Task], factor: float = 1.0, budget: Budget | None = None
) -> dict[Task, Any]:
    return dict(executor.map(Probe, (folder, factor), _drawer(tasks), budget or Budget()))


def _assert_still(folder: str) -> None:
    """No task leaves marks any more, or soon none will."""
    mark = Path(folder) / "going on"
    until = time.monotonic() + SOON / 2
    while time.monotonic() < until:
        with suppress(FileNotFoundError):
            mark.unlink()
        time.sleep(0.5)
        if not mark.exists():
            return
    raise AssertionError("a task that nobody waits for goes on")


def _says(notes: list[str], what: str) -> bool:
    return any(what in note for note in notes)


def _until(happened: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not happened() and time.monotonic() < until:
        time.sleep(0.01)


def _end_this_process() -> None:
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
