"""The command ``leo``. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import click

from leo_core.errors import DomainError, UsageError
from leo_core.flags import property_options, read_property, sharing_options, tight_option
from leo_core.options import (
    OBJECTIVES,
    OPEN_SECONDS,
    PASSES,
    STRATEGIES,
    TRUST,
    UNIT_SECONDS,
    VERIFY_SECONDS,
    Options,
)
from leo_core.paths import require_apart
from leo_core.terminal import (
    CANNOT,
    DONE,
    OPEN,
    Group,
    command_line,
    current_stop,
    fail,
    print_json,
    progress,
    stdout_kept,
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


def _within_value(_context: click.Context, _option: click.Parameter, value: str | None) -> list[str] | None:
    """Numbers between commas, each as it is written."""
    return None if value is None else [part.strip() for part in value.split(",")]


def _domain_option(command: Command, required: bool = True) -> Command:
    return click.option(
        "--domain",
        required=required,
        metavar="D",
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
        help="Write a page that shows the result, for a browser or paper; it needs nothing else.",
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
                help="Seconds that any one ReLU may take by itself; then it is left undecided; 0: no limit.  "
                f"[default: {UNIT_SECONDS:g}, and about {OPEN_SECONDS:g} for all that stay open]",
            ),
            sharing_options,
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
@partial(_domain_option, required=False)
@property_options
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
@_report_option
@_json_option
@_quiet_option
def compress(
    source: str,
    target: str,
    domain: str | None,
    prop: str | None,
    moved: str | None,
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
        {"IN": source, "the domain": domain, "the property": prop, "--inputs": inputs},
        {
            "OUT": target,
            "the certificate": certificate,
            "the checkpoint": options["checkpoint"],
            "the report": shown,
            "the moved property": moved,
        },
    )
    _require_report(shown)
    read = read_property(source, domain, prop, moved, options["trust"])
    within: Any = domain if read is None or domain is not None else read.box
    if certificate is not None:
        files.require_writable(certificate)
    files.output_frontend(target)
    stop, report, claimed = current_stop(), dict[str, Any](), None
    with progress(quiet, as_json) as listener:
        points = None
        if inputs is not None:  # before the work, so that a bad file costs none
            network = files.lower(source, input_shape(within))[0].network
            points = read_inputs(inputs, network.input_size)
        result = api.compress(source, within, listener=listener, evidence=certificate is not None, **options)
        with stop.writing():
            written = result.written(target)
        if points is not None:
            report = {"inputs": len(points), "outside": outside(points, result.stability.box)}
            with suppress(KeyboardInterrupt):  # the file is there
                report |= {} if stop.heard else {"certain": result.certain(points)}
        with stop.writing():
            claimed = None if certificate is None else result.certify(certificate, target)
            if read is not None and moved is not None:
                files.write_text(result.moved(read), moved)
    with stop.writing():
        sizes = files.sizes_written(result.original, target)
        if as_json or shown is not None:
            more: dict[str, Any] = {
                "file_bytes": None if sizes is None else dict(zip(("before", "after"), sizes, strict=True))
            }
            proof = {} if certificate is None else {"certificate": {"file": certificate, "deviation": claimed}}
            more |= {} if moved is None else {"property": moved}
            more |= {"interrupted": result.interrupted or stop.heard, "output": target, "command": command_line()}
            content = {**result.as_json(written.door), **report, **more, **proof}
            _write_report(shown, content)
        if as_json:
            print_json(content)
            return
        click.echo(result.summary(sizes))
        for line in inputs_lines(report, str(result.original.dtype)):
            click.echo(line)
        click.echo(f"written to {target}")
        if shown is not None:
            click.echo(f"report in {shown}")
        if moved is not None:
            click.echo(f"property for {target} in {moved}; what it proves there holds for {prop} on {source}")
        if certificate is not None:
            click.echo(f"certificate in {certificate}; re-check it with: leo check {certificate} {source} {target}")


@main.command()
@click.argument("source", metavar="IN")
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
    help="Write what is proved of every unit and every output: lower and upper bounds, state and method.",
)
@tight_option
@_report_option
@_json_option
@_quiet_option
def inspect(source: str, domain: str, solvers: str | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Count the ReLUs of IN that never change state on the domain."""
    from leo_core import api, files
    from leo_core.report.json import narrowed_json, stability_json, verdicts_json
    from leo_core.report.table import as_text, channels_table, how_decided, narrowed_lines, outlook, stability_table
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
            **({} if options["tight"] is None else {"tight": narrowed_json(stability, options["tight"])}),
        }
        _write_report(shown, content)
        if as_json:
            print_json(content)
            return
        click.echo(as_text(channels_table(stability) if stability.by_channels else stability_table(stability)))
        how = f"{stability.strategy} strategy, solver {stability.solver}, {stability.seconds:.1f} s"
        click.echo(f"\n{how_decided(stability)}; {how}")
        for line in ("stopped early" if stability.interrupted else None, outlook(stability)):
            if line:
                click.echo(line)
        for line in narrowed_lines(stability, options["tight"]):
            click.echo(line)
        if bounds is not None:
            click.echo(f"bounds of every unit and output in {bounds}")


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
    from leo_core.report.table import as_text, contradiction_lines, stability_table

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
            for stability in (found.first, found.second):
                click.echo(as_text(stability_table(stability)))
                click.echo(f"{stability.strategy} strategy, solver {stability.solver}, {stability.seconds:.1f} s\n")
            for line in found.told:
                click.echo(line)
            if found.decided_by_one:
                click.echo(f"{found.decided_by_one} units were decided with one of the solvers only")
        if wrong := contradiction_lines(found):
            fail("the solvers contradict each other; one of them is wrong:\n" + "\n".join(wrong), CANNOT)
        if any(found.asked) and not found.compared:
            fail("no answers could be compared: no question was answered by both", CANNOT)
        if not as_json and found.compared:
            click.echo("no verdicts contradict each other, and no answers")


@main.command()
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@_domain_option
@click.option(
    "--within",
    metavar="EPS",
    callback=_within_value,
    help="Ask whether no output differs by more than EPS (one number, or one for each output: 0.1,0.2), and stop once "
    "that is decided: exit 0 proved, 1 refuted, 3 open. A VNN-LIB 2.0 file about both networks says it itself.",
)
@click.option(
    "--time-limit",
    type=float,
    default=VERIFY_SECONDS,
    show_default=True,
    metavar="S",
    help="Seconds for everything; more of them narrow what is open.",
)
@click.option("--solver", default=_DEFAULTS.solver, show_default=True, metavar="NAME", help="A MILP solver.")
@click.option(
    "--certificate",
    metavar="FILE",
    help="Where EPS is proved, write what is needed to re-check that without a solver; see 'leo check'.",
)
@sharing_options
@_json_option
@_quiet_option
def verify(
    first: str,
    second: str,
    domain: str,
    within: list[str] | None,
    time_limit: float,
    solver: str,
    certificate: str | None,
    as_json: bool,
    quiet: bool,
    **sharing: Any,
) -> None:
    """Bound the largest difference between the outputs of A and B on the domain, or say whether it is within EPS."""
    from leo_core import api, files
    from leo_core.report.json import comparison_json
    from leo_core.report.table import difference_lines

    stop = current_stop()
    require_apart({"A": first, "B": second, "the domain": domain}, {"the certificate": certificate})
    if certificate is not None:
        files.require_writable(certificate)
    asked = within[0] if within is not None and len(within) == 1 else within
    with progress(quiet, as_json) as listener:
        found = api.verify(
            first,
            second,
            domain,
            within=asked,
            certificate=certificate,
            time_limit=time_limit,
            solver=solver,
            **sharing,
            listener=listener,
        )
    with stop.writing():
        if as_json:
            kept = {} if certificate is None else {"certificate": certificate if found.certified else None}
            print_json({**comparison_json(found), "interrupted": found.interrupted or stop.heard, **kept})
        else:
            for line in (found.verdict, *difference_lines(found), *(["stopped early"] if found.interrupted else [])):
                click.echo(line)
            if found.certified:
                click.echo(f"certificate in {certificate}; re-check it with: leo check {certificate} {first} {second}")
            elif certificate is not None and not found.within:
                click.echo("no certificate was written: there is one of a proof only")
        if found.asked is not None and not stop.heard:
            sys.exit({True: DONE, False: CANNOT, None: OPEN}[found.within])


@main.command()
@click.argument("certificate", metavar="CERT")
@click.argument("original", metavar="ORIGINAL")
@click.argument("compressed", metavar="COMPRESSED")
@click.option(
    "--domain",
    metavar="D",
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
        for line in lines(report):
            click.echo(line)
    if report.trusted:
        fail(f"{certificate}: not proved: {report.trusted} verdicts rest on a solver's word", CANNOT)


@main.command()
@click.argument("source", metavar="NET")
@click.argument("target", metavar="OUT.mps|OUT.lp")
@_domain_option
@click.option("--maximize", metavar="OUTPUT", help="The output that is the objective, such as output_0; else none is.")
@_solving_options
@tight_option
@_json_option
@_quiet_option
def formulate(
    source: str, target: str, domain: str, maximize: str | None, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Write the network in NET over the domain as a mixed-integer program, with big-M from proved bounds."""
    from leo_core import api

    require_apart({}, {"OUT": target, "the checkpoint": options["checkpoint"]})
    with progress(quiet, as_json) as listener:
        found = api.formulate(source, target, domain, maximize=maximize, listener=listener, **options)
    problem = found.problem
    sizes = {"columns": problem.columns, "rows": problem.rows, "binaries": int(problem.integer.sum())}
    if as_json:
        print_json({**sizes, "inputs": found.inputs, "outputs": found.outputs, "output": target, "interrupted": False})
        return
    click.echo(f"{sizes['columns']:,} columns, {sizes['binaries']:,} of them binary, {sizes['rows']:,} rows")
    click.echo(f"inputs {_span(found.inputs)}; outputs {_span(found.outputs)}")
    click.echo(f"written to {target}")


def _span(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


@main.command()
@click.argument("source", metavar="IN")
@click.argument("target", metavar="OUT")
@_quiet_option
def convert(source: str, target: str, quiet: bool) -> None:
    """Write the network in IN to OUT in another format, by suffix."""
    from leo_core import api

    with progress(quiet) as listener:
        api.convert(source, target, listener=listener)
    click.echo(f"written to {target}")


@main.command()
@click.argument("result", metavar="RESULT.json")
@click.argument("target", metavar="OUT.html")
def report(result: str, target: str) -> None:
    """Write the page that shows a result of 'leo compress --json' or 'leo inspect --json'."""
    from leo_core.report.html import read_result

    require_apart({"RESULT.json": result}, {"OUT.html": target})
    _require_report(target)
    _write_report(target, read_result(result))
    click.echo(f"report in {target}")


@main.command()
@_json_option
def plugins(as_json: bool) -> None:
    """List solvers, frontends and executors, what is missing and how to get it."""
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
