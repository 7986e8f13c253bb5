"""The live line on stderr: what is being done, time passed and, while units are decided, how many are and time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TextIO

from leo_core.execution.events import Event, Listener, Note


@contextmanager
def live(stream: TextIO) -> Iterator[Listener]:
    """A listener that shows events on a stream: a moving line on a terminal, else one line per layer."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
    from rich.text import Text

    class Decided(ProgressColumn):
        def render(self, task: Task) -> Text:
            if task.total is None:
                return Text()
            left = task.time_remaining
            decided = f"{task.completed:.0f}/{task.total:.0f} units decided"
            words = decided if left is None else f"{decided}, {timedelta(seconds=int(left))} left"
            return Text(words, no_wrap=True)

    console = Console(file=stream, highlight=False, markup=False, soft_wrap=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        TimeElapsedColumn(),
        Decided(),
    )
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("starting", total=None)
    last = ""

    def listen(event: Event) -> None:
        nonlocal last
        if isinstance(event, Note):
            if not event.passing:
                console.print(f"note: {event.text}")
            elif console.is_terminal:
                bar.update(task, description=event.text)
            return
        where = f"layer {event.number} of {event.layers}" if event.number else "bounds"
        bar.update(task, description=where, completed=event.decided, total=event.total)
        if not console.is_terminal and where != last and event.number:
            console.print(f"{where} ({event.layer}): {event.decided} of {event.total} units decided so far")
        last = where

    with bar:
        yield listen
