"""Text for people, without colour: tables, lines that are wrapped at the ends of words, short numbers."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

#: Columns of text where no terminal says otherwise, and at most.
WIDTH = 100
#: What a line begins with that is not broken.
_COMMAND = "    "
#: A narrower terminal is not believed.
_NARROWEST = 20


def columns() -> int:
    """How many columns the terminal has, :data:`WIDTH` at most; that many where there is none."""
    return max(_NARROWEST, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


def table(*headings: tuple[str, str]) -> Table:
    """An empty table with these columns: a heading, and the side that it keeps to ("left", "right")."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading, side in headings:
        made.add_column(heading, justify=side, overflow="fold")  # type: ignore[arg-type]
    return made


def counts_table(first: str, *others: str) -> Table:
    """One that has a column of names, and others of numbers."""
    return table((first, "left"), *((heading, "right") for heading in others))


def as_text(*parts: RenderableType, width: int | None = None) -> str:
    """Rich things, and lines, as plain text of so many columns, or as many as the terminal has."""
    import io

    from rich.console import Console

    width = columns() if width is None else width
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False, color_system=None, highlight=False, markup=False)
    for part in parts:
        console.print(wrapped(part, width) if isinstance(part, str) else part, soft_wrap=isinstance(part, str))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join(line for i, line in enumerate(lines) if line or (i and lines[i - 1])).strip("\n")


def wrapped(text: str, width: int) -> str:
    """Each line of a text broken at the ends of words, never within one: a path stays what can be copied.

    So does a line that is indented by four spaces, which is a command.
    """
    return "\n".join(
        textwrap.fill(
            line,
            width,
            subsequent_indent=" " * (len(line) - len(line.lstrip())) + "  ",
            break_long_words=False,
            break_on_hyphens=False,
            replace_whitespace=False,
        )
        if len(line) > width and not line.startswith(_COMMAND)
        else line
        for line in text.splitlines()
    )


def scientific(value: float) -> str:
    """A deviation or a tolerance, short."""
    return "0" if value == 0 else f"{value:.2g}"
