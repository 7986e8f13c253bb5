"""Flags that stand with several commands or belong together, and what is to be read before any work."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from leo_core.errors import DomainError, UsageError
from leo_core.options import OPEN_SECONDS, STRATEGIES, TRUST, UNIT_SECONDS, Options
from leo_core.terminal import VERBOSE, complete_file, complete_one_of

if TYPE_CHECKING:
    from leo_core.properties import Property

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULTS = Options()


def domain_value(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """A domain as given; LO,HI that is none is wrong usage, what a file holds is not."""
    from leo_core.domain import FILES, Box

    if value is not None and not value.lower().endswith(FILES):
        try:
            Box.of(value, 1)
        except DomainError as error:
            raise UsageError(str(error)) from None
    return value


def within_value(_context: click.Context, _option: click.Parameter, value: str | None) -> list[str] | None:
    """Numbers between commas, each as it is written."""
    return None if value is None else [part.strip() for part in value.split(",")]


def domain_option(command: Command, required: bool = True) -> Command:
    """The box that inputs come from."""
    return click.option(
        "--domain",
        required=required,
        metavar="D",
        shell_complete=complete_file,
        callback=domain_value,
        help="The box inputs come from, on the model's own input before any normalisation: LO,HI for "
        'every input; a JSON file {"lower": …, "upper": …} (numbers or lists), as "leo box" writes; a '
        ".vnnlib file; or a .npy or .npz file of examples, for the box around them.",
    )(command)


def json_option(command: Command) -> Command:
    """One JSON object in place of text."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object on stdout; all else goes to stderr."
    )(command)


def report_option(command: Command) -> Command:
    """A page that shows the result."""
    return click.option(
        "--report",
        "shown",
        metavar="FILE.html",
        shell_complete=complete_file,
        help="Write a page that shows the result, for a browser or paper; it needs nothing else.",
    )(command)


def quiet_option(command: Command) -> Command:
    """Less, or more, of what is told."""

    def remember(context: click.Context, _option: click.Parameter, value: bool) -> None:
        context.meta[VERBOSE] = value

    more = click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=remember,
        help="More: each step of the work, and what was left as it was and why.",
    )
    less = click.option(
        "-q", "--quiet", is_flag=True, help="Less: no progress, no notes, no summary of what is written; only errors."
    )
    return less(more(command))


def complete_solver(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """For the shell: a solver's name goes here."""
    from leo_core.plugins import registry

    names = [status.name for status in registry.listing() if status.kind == "solver"]
    return [name for name in ("auto", *names) if name.startswith(begun)]


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


def solving_options(command: Command) -> Command:
    """How stability is decided, by what, and for how long."""
    for option in reversed(
        (
            click.option(
                "--solver",
                default=DEFAULTS.solver,
                show_default=True,
                metavar="NAME",
                shell_complete=complete_solver,
                help="A MILP solver; 'leo plugins' lists them.",
            ),
            click.option(
                "--strategy",
                default=DEFAULTS.strategy,
                show_default=True,
                metavar="NAME",
                shell_complete=complete_one_of(*STRATEGIES),
                help=f"How stability is decided: {', '.join(STRATEGIES)}.",
            ),
            click.option(
                "--time-limit",
                type=float,
                metavar="S",
                help="Seconds for everything; what is undecided by then is kept.",
            ),
            click.option(
                "--unit-time-limit",
                type=float,
                metavar="S",
                help="Seconds that any one ReLU may take by itself; then it is left undecided; 0: no limit.  "
                f"[default: {UNIT_SECONDS:g}, and about {OPEN_SECONDS:g} for all that stay open]",
            ),
            sharing_options,
            click.option(
                "--trust",
                default=DEFAULTS.trust,
                show_default=True,
                metavar="|".join(TRUST),
                shell_complete=complete_one_of(*TRUST),
                help="'proved': no verdict rests on a solver's word. 'solver': as in the papers.",
            ),
            click.option(
                "--seed",
                type=click.IntRange(min=0),
                default=DEFAULTS.seed,
                show_default=True,
                metavar="N",
                help="For everything random.",
            ),
            click.option(
                "--checkpoint",
                metavar="FILE",
                shell_complete=complete_file,
                help="Keep what is found in FILE, and go on from what is there, should a run have been cut off.",
            ),
        )
    ):
        command = option(command)
    return command


def property_options(command: Command) -> Command:
    """A property whose inputs are the domain, and where its like for the result goes."""
    for option in (
        click.option(
            "--property-out",
            "moved",
            metavar="Q.vnnlib",
            shell_complete=complete_file,
            help="Write the property for OUT, its constraints on outputs moved by what may have changed: what is "
            "proved of OUT with it is proved of IN with P. A counterexample is to be looked at on IN.",
        ),
        click.option(
            "--property",
            "prop",
            metavar="P.vnnlib",
            shell_complete=complete_file,
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
