"""The command ``leo``. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import click

from leo_core.errors import DomainError, UsageError
from leo_core.options import OBJECTIVES, PASSES, STRATEGIES, TRUST, VERIFY_SECONDS, Options
from leo_core.paths import require_apart
from leo_core.terminal import (
    CANNOT,
    VERBOSE,
    Group,
    command_line,
    complete_file,
    complete_one_of,
    current_stop,
    fail,
    print_json,
    progress,
    say,
    stdout_kept,
    verbose,
)

Command = TypeVar("Command", bound=Callable[..., Any])

_DEFAULTS = Options()


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="leo-compress", prog_name="leo")
def main() -> None:
    """Make a trained ReLU network smaller without changing what it computes, and prove it.

    \b
    leo compress controller.onnx smaller.onnx --domain -1,1
    """


def _domain_value(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    """A domain as given; LO,HI that is none is wrong usage, what a file holds is not."""
    from leo_core.domain import FILES, Box

    if value is not None and not value.lower().endswith(FILES):
        try:
            Box.of(value, 1)
        except DomainError as error:
            raise UsageError(str(error)) from None
    return value


def _domain_option(command: Command) -> Command:
    return click.option(
        "--domain",
        required=True,
        metavar="D",
        shell_complete=complete_file,
        callback=_domain_value,
        help="The box inputs come from, on the model's own input before any normalisation: LO,HI for "
        'every input, a JSON file {"lower": …, "upper": …} (numbers or lists), or a .vnnlib file.',
    )(command)


def _json_option(command: Command) -> Command:
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object on stdout; all else goes to stderr."
    )(command)


def _report_option(command: Command) -> Command:
    return click.option(
        "--report",
        "shown",
        metavar="FILE.html",
        shell_complete=complete_file,
        help="Write a page that shows the result, for a browser or paper; it needs nothing else.",
    )(command)


def _quiet_option(command: Command) -> Command:
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


def _complete_solver(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """For the shell: a solver's name goes here."""
    from leo_core.plugins import registry

    names = [status.name for status in registry.listing() if status.kind == "solver"]
    return [name for name in ("auto", *names) if name.startswith(begun)]


def _solving_options(command: Command) -> Command:
    for option in reversed(
        (
            click.option(
                "--solver",
                default=_DEFAULTS.solver,
                show_default=True,
                metavar="NAME",
                shell_complete=_complete_solver,
                help="A MILP solver; 'leo plugins' lists them.",
            ),
            click.option(
                "--strategy",
                default=_DEFAULTS.strategy,
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
                shell_complete=complete_one_of(*TRUST),
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
                shell_complete=complete_file,
                help="Keep what is found in FILE, and go on from what is there, should a run have been cut off.",
            ),
        )
    ):
        command = option(command)
    return command


@main.command()
@click.argument("source", metavar="IN", shell_complete=complete_file)
@click.argument("target", metavar="OUT", shell_complete=complete_file)
@_domain_option
@click.option(
    "--tolerance",
    default=str(_DEFAULTS.tolerance),
    show_default=True,
    metavar="exact|float|NUMBER",
    shell_complete=complete_one_of("exact", "float"),
    help="The largest proved change of any output: none; what the original's own arithmetic was seen "
    "to err by; or a number.",
)
@click.option(
    "--passes",
    default=_DEFAULTS.passes,
    show_default=True,
    metavar="|".join(PASSES),
    shell_complete=complete_one_of(*PASSES),
    help="What may be rewritten: everything; what LEO as published does; or that and active units passed "
    "through the narrower side of a layer.",
)
@click.option(
    "--objective",
    default=_DEFAULTS.objective,
    show_default=True,
    metavar="|".join(OBJECTIVES),
    shell_complete=complete_one_of(*OBJECTIVES),
    help="What to make small: connections to store and run; ReLUs to verify or optimise over; parameters.",
)
@_solving_options
@click.option(
    "--inputs",
    metavar="FILE",
    shell_complete=complete_file,
    help="Inputs as a .npy or .npz file (examples × inputs): report the share of them whose class is certain to "
    "stay when both networks are run in floats.",
)
@click.option(
    "--certificate",
    metavar="FILE",
    shell_complete=complete_file,
    help="Write all that is needed to re-check the result without a solver; see 'leo check'.",
)
@_report_option
@_json_option
@_quiet_option
def compress(
    source: str,
    target: str,
    domain: str,
    inputs: str | None,
    certificate: str | None,
    shown: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Make the network in IN smaller and write it to OUT (format by suffix).

    Ctrl-C, SIGTERM or SIGHUP stops early and still writes a valid result: what is not decided is kept. The exit code is
    then 130, 143 or 129.
    """
    from leo_core import api, files
    from leo_core.domain import input_shape
    from leo_core.inputs import read_inputs
    from leo_core.report.json import outside
    from leo_core.report.table import inputs_lines

    Options(**options)
    require_apart(
        {"IN": source, "the domain": domain, "--inputs": inputs},
        {"OUT": target, "the certificate": certificate, "the checkpoint": options["checkpoint"], "the report": shown},
    )
    _require_report(shown)
    if certificate is not None:
        files.require_writable(certificate)
    files.output_frontend(target)
    stop, report, claimed = current_stop(), dict[str, Any](), None
    with progress(quiet, as_json) as listener:
        points = None
        if inputs is not None:  # before the work, so that a bad file costs none
            network = files.lower(source, input_shape(domain))[0].network
            points = read_inputs(inputs, network.input_size)
        result = api.compress(source, domain, listener=listener, evidence=certificate is not None, **options)
        with stop.writing():
            written = result.written(target)
        if points is not None:
            report = {"inputs": len(points), "outside": outside(points, result.stability.box)}
            with suppress(KeyboardInterrupt):  # the file is there
                report |= {} if stop.heard else {"certain": result.certain(points)}
        with stop.writing():
            claimed = None if certificate is None else result.certify(certificate, target)
    with stop.writing():
        sizes = files.sizes_written(result.original, target)
        if as_json or shown is not None:
            more: dict[str, Any] = {
                "file_bytes": None if sizes is None else dict(zip(("before", "after"), sizes, strict=True))
            }
            proof = {} if certificate is None else {"certificate": {"file": certificate, "deviation": claimed}}
            more |= {"interrupted": result.interrupted or stop.heard, "output": target, "command": command_line()}
            content = {**result.as_json(written.door), **report, **more, **proof}
            _write_report(shown, content)
        if as_json:
            print_json(content)
            return
        if quiet:
            if result.interrupted or stop.heard:
                say(f"leo: stopped early; {target} holds what was found by then", err=True)
            return
        click.echo(result.summary(sizes))
        if verbose():
            click.echo(result.details())
        say(*inputs_lines(report, str(result.original.dtype)), f"written to {target}")
        if shown is not None:
            say(f"report in {shown}")
        if certificate is not None:
            say(f"certificate in {certificate}; re-check it with: leo check {certificate} {source} {target}")


@main.command()
@click.argument("source", metavar="IN", shell_complete=complete_file)
@_domain_option
@_solving_options
@click.option(
    "--cross-check",
    "solvers",
    metavar="A,B",
    help="Decide with solver A, asking B the same, then with B alone; compare answers and verdicts, and exit with 1 "
    "where they contradict each other. By the paper strategy, as the cascade asks next to nothing.",
)
@click.option(
    "--every-unit", is_flag=True, help="Of networks on images, decide each ReLU and not each channel: it can take long."
)
@click.option(
    "--bounds",
    metavar="FILE.npz|FILE.json",
    shell_complete=complete_file,
    help="Write what is proved of every unit and every output: lower and upper bounds, state and method.",
)
@_report_option
@_json_option
@_quiet_option
def inspect(source: str, domain: str, solvers: str | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Count the ReLUs of IN that never change state on the domain."""
    from leo_core import api, files
    from leo_core.report.json import stability_json, verdicts_json
    from leo_core.stability.bounds import require_suffix

    stop = current_stop()
    bounds, shown = options.pop("bounds"), options.pop("shown")
    written = {"the checkpoint": options["checkpoint"], "the bounds": bounds, "the report": shown}
    require_apart({"IN": source, "the domain": domain}, written)
    _require_report(shown)
    if bounds is not None:
        if solvers is not None:
            raise UsageError("a cross-check compares two solvers and keeps no bounds; leave out --bounds")
        require_suffix(bounds)
        files.require_writable(bounds)
    if solvers is not None:
        if shown is not None:
            raise UsageError("--cross-check compares two decisions, and a report shows one; leave out --report")
        _cross_check(source, domain, solvers, as_json, quiet, options)
        return
    with progress(quiet, as_json) as listener:
        stability = api.analyze(source, domain, listener=listener, **options)
    with stop.writing():
        if bounds is not None:
            stability.bounds.save(bounds)
        content = {
            **stability_json(stability),
            **verdicts_json(stability, source, domain, vars(Options(**options))),
            "interrupted": stability.interrupted or stop.heard,
            "command": command_line(),
            **({} if bounds is None else {"bounds": bounds}),
        }
        _write_report(shown, content)
        if as_json:
            print_json(content)
            return
        click.echo(stability.summary())
        if shown is not None:
            say(f"report in {shown}")
        if bounds is not None:
            say(f"bounds of every unit and output in {bounds}")


def _require_report(shown: str | None) -> None:
    """Whatever keeps a report from being written is said before any work, so that none is lost."""
    if shown is not None:
        from leo_core import files
        from leo_core.report.html import require_jinja

        require_jinja()
        files.require_writable(shown)


def _write_report(shown: str | None, content: dict[str, Any]) -> None:
    if shown is not None:
        from leo_core.paths import replacing
        from leo_core.report.html import page

        with replacing(shown) as temporary:
            temporary.write_text(page(content), encoding="utf-8")


def _cross_check(source: str, domain: str, solvers: str, as_json: bool, quiet: bool, options: dict[str, Any]) -> None:
    from leo_core import api
    from leo_core.report.json import cross_check_json
    from leo_core.stability.told import contradiction_lines

    stop = current_stop()
    if options.pop("solver") != _DEFAULTS.solver:
        raise UsageError("--cross-check names its solvers itself; leave out --solver")
    names = tuple(name.strip() for name in solvers.split(","))
    if len(names) != 2 or not all(names):
        raise UsageError(f"--cross-check takes two solvers, A,B, not '{solvers}'")
    with progress(quiet, as_json) as listener:
        found = api.cross_check(source, domain, (names[0], names[1]), listener=listener, **options)
    with stop.writing():
        if as_json:
            print_json(cross_check_json(found))
        else:
            click.echo(found.summary())
        if wrong := contradiction_lines(found):
            listed = "".join(f"\n{line}" for line in wrong) if as_json else " (above)"
            fail(f"the solvers contradict each other; one of them is wrong{listed}", CANNOT)
        if any(found.asked) and not found.compared:
            fail("no answers could be compared: no question was answered by both", CANNOT)
        if not as_json and found.compared:
            click.echo("no verdicts contradict each other, and no answers")


@main.command()
@click.argument("first", metavar="A", shell_complete=complete_file)
@click.argument("second", metavar="B", shell_complete=complete_file)
@_domain_option
@click.option(
    "--time-limit",
    type=float,
    default=VERIFY_SECONDS,
    show_default=True,
    metavar="S",
    help="Seconds for everything; more of them narrow what is open.",
)
@click.option(
    "--solver",
    default=_DEFAULTS.solver,
    show_default=True,
    metavar="NAME",
    shell_complete=_complete_solver,
    help="A MILP solver.",
)
@_json_option
@_quiet_option
def verify(first: str, second: str, domain: str, time_limit: float, solver: str, as_json: bool, quiet: bool) -> None:
    """Bound the largest difference between the outputs of A and B on the domain."""
    from leo_core import api
    from leo_core.report.json import comparison_json

    stop = current_stop()
    with progress(quiet, as_json) as listener:
        found = api.verify(first, second, domain, time_limit=time_limit, solver=solver, listener=listener)
    with stop.writing():
        if as_json:
            print_json({**comparison_json(found), "interrupted": found.interrupted or stop.heard})
            return
        say(*found.lines)


@main.command()
@click.argument("certificate", metavar="CERT", shell_complete=complete_file)
@click.argument("original", metavar="ORIGINAL", shell_complete=complete_file)
@click.argument("compressed", metavar="COMPRESSED", shell_complete=complete_file)
@click.option(
    "--domain",
    metavar="D",
    shell_complete=complete_file,
    callback=_domain_value,
    help="A box that the certificate must cover, as in 'leo compress'.",
)
@_json_option
@_quiet_option
def check(certificate: str, original: str, compressed: str, domain: str | None, as_json: bool, quiet: bool) -> None:
    """Re-check a certificate without any solver; exit 0 only if all of it holds.

    Where only numpy is installed, and both networks are .leo files:
    python -m leo_core.checker CERT ORIGINAL COMPRESSED
    """
    from leo_core import api
    from leo_core.checker import lines

    with progress(quiet, as_json) as listener:
        report = api.check(certificate, original, compressed, domain, listener=listener)
    if as_json:
        box = {"lower": report.lower.tolist(), "upper": report.upper.tolist()}
        print_json({**vars(report), **box, "holds": not report.trusted, "interrupted": False})
    else:
        say(*lines(report))
    if report.trusted:
        fail(f"{certificate}: not proved: {report.trusted} verdicts rest on a solver's word", CANNOT)


@main.command()
@click.argument("source", metavar="IN", shell_complete=complete_file)
@click.argument("target", metavar="OUT", shell_complete=complete_file)
@_quiet_option
def convert(source: str, target: str, quiet: bool) -> None:
    """Write the network in IN to OUT in another format, by suffix."""
    from leo_core import api

    with progress(quiet) as listener:
        api.convert(source, target, listener=listener)
    if not quiet:
        say(f"written to {target}")


@main.command()
@click.argument("result", metavar="RESULT.json", shell_complete=complete_file)
@click.argument("target", metavar="OUT.html", shell_complete=complete_file)
@_quiet_option
def report(result: str, target: str, quiet: bool) -> None:
    """Write the page that shows a result of 'leo compress --json' or 'leo inspect --json'."""
    from leo_core.report.html import read_result

    require_apart({"RESULT.json": result}, {"OUT.html": target})
    _require_report(target)
    _write_report(target, read_result(result))
    if not quiet:
        say(f"report in {target}")


@main.command()
@_report_option
@_quiet_option
def demo(shown: str | None, quiet: bool) -> None:
    """Compress a network that comes with LEO, and run it before and after on handwritten digits."""
    from leo_core.demo import run

    _require_report(shown)
    with progress(quiet) as listener:
        result, lines = run(listener)
    _write_report(shown, {**result.as_json(), "command": command_line()})
    if not quiet:
        click.echo(f"{result.summary()}\n")
        say(*lines, *([] if shown is None else [f"report in {shown}"]))


@main.command()
@_json_option
def plugins(as_json: bool) -> None:
    """List solvers and frontends, what is missing and how to get it."""
    from leo_core.plugins import registry

    with stdout_kept(as_json):
        found = registry.listing()
    if as_json:
        print_json({"plugins": [vars(status) for status in found]})
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
