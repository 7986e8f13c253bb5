"""Flags that stand with several commands or belong together, and what is to be read before any work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from leo_core.errors import DomainError, UsageError

if TYPE_CHECKING:
    from leo_core.properties import Property

Command = TypeVar("Command", bound=Callable[..., Any])


def property_options(command: Command) -> Command:
    """A property whose inputs are the domain, and where its like for the result goes."""
    for option in (
        click.option(
            "--property-out",
            "moved",
            metavar="Q.vnnlib",
            help="Write the property for OUT, its constraints on outputs moved by what may have changed: what is "
            "proved of OUT with it is proved of IN with P. A counterexample is to be looked at on IN.",
        ),
        click.option(
            "--property",
            "prop",
            metavar="P.vnnlib",
            help="A VNN-LIB 1.0 property: its inputs are the domain, several boxes by their hull.",
        ),
    ):
        command = option(command)
    return command


def tight_option(command: Command) -> Command:
    """How near to the true extremes bounds are to come."""
    return click.option(
        "--tight",
        type=float,
        metavar="GAP",
        help="Narrow each bound, of units and outputs, to within GAP of the true extreme, as --time-limit allows.",
    )(command)


def read_property(source: str, domain: str | None, prop: str | None, moved: str | None, trust: str) -> Property | None:
    """The property that a compression is for, before any work, so that a bad one costs none."""
    from leo_core import files
    from leo_core.domain import Box
    from leo_core.properties import Property

    if prop is None:
        if domain is None:
            raise UsageError("give the domain: --domain D, or --property P.vnnlib, whose inputs are one")
        if moved is not None:
            raise UsageError("--property-out needs the property that is to be moved: --property P.vnnlib")
        return None
    if moved is not None and trust == "solver":
        raise UsageError("with --trust solver no deviation is proved, and a moved property would prove nothing")
    if moved is not None:
        files.require_writable(moved)
    read = Property.read(prop)
    read.require_outputs(files.lower(source)[0].network.output_size)
    if domain is not None:
        box = Box.of(domain, read.box.size)
        if not (box.contains(read.box.lower) and box.contains(read.box.upper)):
            raise DomainError(f"{prop}: its inputs are not within the domain {domain}")
    return read


def sharing_options(command: Command) -> Command:
    """Who shares the work."""
    jobs = click.option(
        "--jobs",
        type=int,
        default=1,
        show_default=True,
        metavar="N",
        help="Processes that share the work (cascade and verify).",
    )
    cluster = click.option(
        "--cluster",
        metavar="ADDRESS",
        help="Share the work over a Dask cluster instead: tcp://HOST:PORT or tls://HOST:PORT, a scheduler's .json "
        "file, or local:N for N workers started here.",
    )
    return jobs(cluster(command))
