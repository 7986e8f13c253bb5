"""The command ``leo``. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from leo_core.errors import LeoError, UsageError
from leo_core.options import OBJECTIVES, PASSES, STRATEGIES, TRUST, VERIFY_SECONDS, Options

if TYPE_CHECKING:
    from leo_core.api import CompressionResult
    from leo_core.execution.events import Listener

Command = TypeVar("Command", bound=Callable[..., Any])

#: Exit codes: done; the work cannot be done; the command was used wrongly.
DONE, CANNOT, WRONG_USAGE = 0, 1, 2

_DEFAULTS = Options()


class _Group(click.Group):
    """Turns every error of ours into one message on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as error:
            _fail(error, WRONG_USAGE)
        except LeoError as error:
            _fail(error, CANNOT)
        except MemoryError:
            _fail("out of memory; use a smaller network or domain", CANNOT)
        except KeyboardInterrupt:
            _fail("interrupted before there was a result; nothing was written", CANNOT)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="leo-compress", prog_name="leo")
def main() -> None:
    """Make a trained ReLU network smaller without changing what it computes, and prove it.

    \b
    leo compress controller.onnx smaller.onnx --domain -1,1
    """


def _domain_option(command: Command) -> Command:
    return click.option(
        "--domain",
        required=True,
        metavar="D",
        help="The box inputs come from, on the model's own input before any normalisation: LO,HI for "
        'every input, a JSON file {"lower": …, "upper": …} (numbers or lists), or a .vnnlib file.',
    )(command)


def _json_option(command: Command) -> Command:
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object on stdout; all else goes to stderr."
    )(command)


def _quiet_option(command: Command) -> Command:
    return click.option("-q", "--quiet", is_flag=True, help="No progress, no notes.")(command)


def _solving_options(command: Command) -> Command:
    for option in reversed(
        (
            click.option(
                "--solver",
                default=_DEFAULTS.solver,
                show_default=True,
                metavar="NAME",
                help="A MILP solver; 'leo plugins' lists them.",
            ),
            click.option(
                "--strategy",
                default=_DEFAULTS.strategy,
                show_default=True,
                metavar="NAME",
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
                help="Seconds that any one ReLU may take by itself; then it is left undecided.",
            ),
            click.option(
                "--jobs",
                type=int,
                default=_DEFAULTS.jobs,
                show_default=True,
                metavar="N",
                help="Processes that share the work (cascade only).",
            ),
            click.option(
                "--trust",
                default=_DEFAULTS.trust,
                show_default=True,
                metavar="|".join(TRUST),
                help="'proved': no verdict rests on a solver's word. 'solver': as in the papers.",
            ),
            click.option(
                "--seed",
                type=click.IntRange(min=0),
                default=_DEFAULTS.seed,
                show_default=True,
                metavar="N",
                help="For everything random.",
            ),
            click.option(
                "--checkpoint",
                metavar="FILE",
                help="Keep what is found in FILE, and go on from what is there, should a run have been cut off.",
            ),
        )
    ):
        command = option(command)
    return command


@main.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@_domain_option
@click.option(
    "--tolerance",
    default=str(_DEFAULTS.tolerance),
    show_default=True,
    metavar="exact|float|NUMBER",
    help="The largest proved change of any output: none; what the original's own arithmetic was seen "
    "to err by; or a number.",
)
@click.option(
    "--passes",
    default=_DEFAULTS.passes,
    show_default=True,
    metavar="|".join(PASSES),
    help="What may be rewritten: everything; what LEO as published does; or that and active units passed "
    "through the narrower side of a layer.",
)
@click.option(
    "--objective",
    default=_DEFAULTS.objective,
    show_default=True,
    metavar="|".join(OBJECTIVES),
    help="What to make small: connections to store and run; ReLUs to verify or optimise over; parameters.",
)
@_solving_options
@click.option(
    "--inputs",
    metavar="FILE",
    help="Inputs as a .npy or .npz file (examples × inputs): report the share of them whose class is certain to "
    "stay when both networks are run in floats.",
)
@click.option(
    "--certificate",
    metavar="FILE",
    help="Write all that is needed to re-check the result without a solver; see 'leo check'.",
)
@_json_option
@_quiet_option
def compress(
    source: str,
    target: str,
    domain: str,
    inputs: str | None,
    certificate: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Make the network in IN smaller and write it to OUT (format by suffix).

    Ctrl-C stops early and still writes a valid result: what is not decided is kept.
    """
    from leo_core import api, files
    from leo_core.domain import input_shape
    from leo_core.inputs import read_inputs
    from leo_core.report.table import certain_line

    Options(**options)
    if Path(source).exists() and Path(target).exists() and Path(source).samefile(target):
        raise UsageError(f"{target}: OUT is the same file as IN; choose another name")
    if options["checkpoint"] is not None and Path(options["checkpoint"]).resolve() == Path(target).resolve():
        raise UsageError(f"{target}: OUT is the same file as the checkpoint; choose another name")
    if certificate is not None:
        files.require_writable(certificate)
        if Path(certificate).resolve() in (Path(source).resolve(), Path(target).resolve()):
            raise UsageError(f"{certificate}: the certificate needs a file of its own; choose another name")
    files.output_frontend(target)
    claimed = None
    with _progress(quiet, as_json) as listener:
        points = None
        if inputs is not None:  # before the work, so that a bad file costs none
            network = files.lower(source, input_shape(domain))[0].network
            points = read_inputs(inputs, network.input_size)
        result = api.compress(source, domain, listener=listener, evidence=certificate is not None, **options)
        written = result.written(target)
        report = {} if points is None else _certain(result, points)
        if certificate is not None:
            claimed = result.certify(certificate, target)
    sizes = Path(source).stat().st_size, Path(target).stat().st_size
    if as_json:
        bytes_ = dict(zip(("before", "after"), sizes, strict=True))
        proof = {} if certificate is None else {"certificate": {"file": certificate, "deviation": claimed}}
        found = result.as_json(written.door)
        _print_json({**found, **report, "file_bytes": bytes_, "output": target, **proof})
        return
    click.echo(result.summary(sizes))
    if report:
        click.echo(certain_line(report["certain"], report["inputs"], str(result.original.dtype)))
    click.echo(f"written to {target}")
    if certificate is not None:
        click.echo(f"certificate in {certificate}; re-check it with: leo check {certificate} {source} {target}")


def _certain(result: CompressionResult, points: Any) -> dict[str, Any]:
    """How many inputs were given and the share whose class is certain; nothing after Ctrl-C, as the file is written."""
    with suppress(KeyboardInterrupt):
        return {"inputs": len(points), "certain": result.certain(points)}
    return {}


@main.command()
@click.argument("source", metavar="IN")
@_domain_option
@_solving_options
@click.option(
    "--cross-check",
    "solvers",
    metavar="A,B",
    help="Decide with solver A, then with solver B, and exit with 1 where they contradict each other.",
)
@_json_option
@_quiet_option
def inspect(source: str, domain: str, solvers: str | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Count the ReLUs of IN that never change state on the domain; write nothing."""
    from leo_core import api
    from leo_core.report.json import stability_json
    from leo_core.report.table import as_text, how_decided, outlook, stability_table

    if solvers is not None:
        _cross_check(source, domain, solvers, as_json, quiet, options)
        return
    with _progress(quiet, as_json) as listener:
        stability = api.analyze(source, domain, listener=listener, **options)
    if as_json:
        _print_json(stability_json(stability))
        return
    click.echo(as_text(stability_table(stability)))
    how = f"{stability.strategy} strategy, solver {stability.solver}, {stability.seconds:.1f} s"
    click.echo(f"\n{how_decided(stability)}; {how}")
    for line in ("stopped early" if stability.interrupted else None, outlook(stability)):
        if line:
            click.echo(line)


def _cross_check(source: str, domain: str, solvers: str, as_json: bool, quiet: bool, options: dict[str, Any]) -> None:
    from leo_core import api
    from leo_core.report.json import cross_check_json
    from leo_core.report.table import as_text, stability_table

    if options.pop("solver") != _DEFAULTS.solver:
        raise UsageError("--cross-check names its solvers itself; leave out --solver")
    names = tuple(name.strip() for name in solvers.split(","))
    if len(names) != 2 or not all(names):
        raise UsageError(f"--cross-check takes two solvers, A,B, not '{solvers}'")
    with _progress(quiet, as_json) as listener:
        found = api.cross_check(source, domain, (names[0], names[1]), listener=listener, **options)
    if as_json:
        _print_json(cross_check_json(found))
    else:
        for stability in (found.first, found.second):
            click.echo(as_text(stability_table(stability)))
            click.echo(f"{stability.strategy} strategy, solver {stability.solver}, {stability.seconds:.1f} s\n")
        if found.decided_by_one:
            click.echo(f"{found.decided_by_one} units were decided with one of the solvers only")
        if not found.disagreements:
            click.echo("no verdicts contradict each other")
    if found.disagreements:
        listed = [
            f"  {item.relu}, unit {item.unit}: {item.first.name.lower()} with {found.first.solver}, "
            f"{item.second.name.lower()} with {found.second.solver}"
            for item in found.disagreements
        ]
        _fail("the solvers contradict each other; one of them is wrong:\n" + "\n".join(listed), CANNOT)


@main.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@_domain_option
@click.option(
    "--time-limit",
    type=float,
    default=VERIFY_SECONDS,
    show_default=True,
    metavar="S",
    help="Seconds for everything; more of them narrow what is open.",
)
@click.option("--solver", default=_DEFAULTS.solver, show_default=True, metavar="NAME", help="A MILP solver.")
@_json_option
@_quiet_option
def verify(first: str, second: str, domain: str, time_limit: float, solver: str, as_json: bool, quiet: bool) -> None:
    """Bound the largest difference between the outputs of A and B on the domain."""
    from leo_core import api
    from leo_core.report.json import number_json

    with _progress(quiet, as_json) as listener:
        found = api.verify(first, second, domain, time_limit=time_limit, solver=solver, listener=listener)
    if as_json:
        _print_json(
            {
                "upper": number_json(found.upper),
                "lower": found.lower,
                "witness": found.witness.tolist(),
                "verdict": found.verdict,
            }
        )
    else:
        click.echo(found.verdict)


@main.command()
@click.argument("certificate", metavar="CERT")
@click.argument("original", metavar="ORIGINAL")
@click.argument("compressed", metavar="COMPRESSED")
@click.option("--domain", metavar="D", help="A box that the certificate must cover, as in 'leo compress'.")
@_json_option
@_quiet_option
def check(certificate: str, original: str, compressed: str, domain: str | None, as_json: bool, quiet: bool) -> None:
    """Re-check a certificate without any solver; exit 0 only if all of it holds.

    Where only numpy is installed, and both networks are .leo files:
    python -m leo_core.certificate.check CERT ORIGINAL COMPRESSED
    """
    from leo_core import api
    from leo_core.certificate.check import lines

    with _progress(quiet, as_json) as listener:
        report = api.check(certificate, original, compressed, domain, listener=listener)
    if as_json:
        box = {"lower": report.lower.tolist(), "upper": report.upper.tolist()}
        _print_json({**vars(report), **box, "holds": not report.trusted})
    else:
        for line in lines(report):
            click.echo(line)
    if report.trusted:
        _fail(f"{certificate}: not proved: {report.trusted} verdicts rest on a solver's word", CANNOT)


@main.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@_quiet_option
def convert(source: str, target: str, quiet: bool) -> None:
    """Write the network in IN to OUT in another format, by suffix."""
    from leo_core import api

    with _progress(quiet) as listener:
        api.convert(source, target, listener=listener)
    click.echo(f"written to {target}")


@main.command()
@_json_option
def plugins(as_json: bool) -> None:
    """List solvers and frontends, what is missing and how to get it."""
    from leo_core.plugins import registry

    with _stdout_kept(as_json):
        found = registry.listing()
    if as_json:
        _print_json({"plugins": [vars(status) for status in found]})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("kind", "name", "state", "what"):
        table.add_column(heading, overflow="fold")
    for status in found:
        what = status.summary if status.state == "available" else f"{status.summary}\n{status.detail}".strip()
        table.add_row(status.kind, status.name, status.state, what)
    Console(highlight=False, markup=False).print(table)


@contextmanager
def _progress(quiet: bool, as_json: bool = False) -> Iterator[Listener]:
    """A listener that shows on stderr where the work stands."""
    from leo_core.execution.events import silent
    from leo_core.report.live import live

    with _stdout_kept(as_json):
        if quiet:
            yield silent
            return
        with live(sys.stderr) as listener:
            yield listener


@contextmanager
def _stdout_kept(kept: bool) -> Iterator[None]:
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


def _print_json(content: dict[str, Any]) -> None:
    click.echo(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False))


def _fail(error: object, code: int) -> NoReturn:
    click.echo(f"leo: {error}", err=True)
    sys.exit(code)
