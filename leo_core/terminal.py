"""How the command talks: errors as one message and an exit code, progress on stderr, JSON on stdout, nothing else."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem

from leo_core.errors import LeoError, UsageError
from leo_core.signals import Stop, stopping
from leo_core.text import columns, wrapped

if TYPE_CHECKING:
    from leo_core.execution.events import Listener

#: Exit codes: done; the work cannot be done, or what was asked is refuted; the command was used wrongly; what was asked
#: is open. A signal has its own (:mod:`.signals`).
DONE, CANNOT, WRONG_USAGE, OPEN = 0, 1, 2, 3
#: Where a command's context says that more is to be told.
VERBOSE = "leo.verbose"
#: Options that change nothing but how the command talks.
_TALK = ("as_json", "quiet")


class Group(click.Group):
    """Turns every error of ours, and every signal, into one message on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        with stopping() as stop:
            ctx.obj = stop
            try:
                done = super().invoke(ctx)
            except UsageError as error:
                fail(error, WRONG_USAGE)
            except LeoError as error:
                fail(error, CANNOT)
            except MemoryError:
                fail("out of memory; use a smaller network or domain", CANNOT)
            except KeyboardInterrupt:
                fail("interrupted before there was a result; nothing was written", stop.exit_code)
            except OSError:
                if not stop.heard:
                    raise
                sys.exit(stop.exit_code)  # the terminal is gone
            if stop.heard:
                sys.exit(stop.exit_code)
            return done


def current_stop() -> Stop:
    """The signal of the command that is running, should one come."""
    stop: Stop = click.get_current_context().obj
    return stop


@contextmanager
def progress(quiet: bool, as_json: bool = False) -> Iterator[Listener]:
    """A listener that shows on stderr where the work stands. A signal that leaves no result leaves one JSON object."""
    from leo_core.execution.events import silent
    from leo_core.report.live import live

    stop, line = current_stop(), ExitStack()
    try:
        with stdout_kept(as_json):
            with stop.writing():  # a line half begun, or half ended, would leave the terminal without its cursor
                listener = silent if quiet else line.enter_context(live(sys.stderr, verbose()))
            try:
                if stop.heard:
                    raise KeyboardInterrupt
                yield listener
            finally:
                with stop.writing():
                    line.close()
    except KeyboardInterrupt:
        if as_json:
            print_json({"interrupted": True})
        raise


@contextmanager
def stdout_kept(kept: bool) -> Iterator[None]:
    """What a plug-in's compiled code prints goes to stderr: only our JSON object is for stdout."""
    if not kept:
        yield
        return
    sys.stdout.flush()
    own = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        sys.stdout.flush()
        os.dup2(own, 1)
        os.close(own)


def command_line() -> str:
    """The running command as it can be given again: what was chosen, without what only says how to talk."""
    context = click.get_current_context()
    words = ["leo", str(context.info_name)]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif parameter.name not in _TALK and value not in (None, False, parameter.default):
            words += [parameter.opts[0]] if value is True else [parameter.opts[0], str(value)]
    return shlex.join(words)


def complete_file(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """For the shell: a file's name goes here."""
    return [CompletionItem(begun, type="file")]


def complete_one_of(*values: str) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """For the shell: one of these goes here."""
    return lambda _context, _parameter, begun: [value for value in values if value.startswith(begun)]


def say(*lines: str, err: bool = False) -> None:
    """Print lines; on a terminal they are broken at the ends of words, and where none is they stay as they are."""
    stream = sys.stderr if err else sys.stdout
    for line in lines:
        click.echo(wrapped(line, columns()) if stream.isatty() else line, err=err)


def verbose() -> bool:
    """Whether the running command was asked to tell more."""
    return bool(click.get_current_context().meta.get(VERBOSE))


def print_json(content: dict[str, Any]) -> None:
    """The one object of ``--json``."""
    click.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def fail(error: object, code: int) -> NoReturn:
    """End with a message on stderr."""
    say(f"leo: {error}", err=True)
    sys.exit(code)
