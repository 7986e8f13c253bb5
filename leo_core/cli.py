"""The command ``leo``. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import click

from leo_core.errors import UsageError
from leo_core.flags import (
    DEFAULTS,
    complete_solver,
    domain_option,
    domain_value,
    json_option,
    property_options,
    quiet_option,
    read_property,
    report_option,
    solving_options,
    tight_option,
    within_value,
)
from leo_core.options import (
    OBJECTIVES,
    PASSES,
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


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="leo-compress", prog_name="leo")
def main() -> None:
    """Make a trained ReLU network smaller without changing what it computes, and prove it.

    \b
    leo compress controller.onnx smaller.onnx --domain -1,1
    """


@main.command(short_help="Make a network smaller, and write it.")
@click.argument("source", metavar="IN", shell_complete=complete_file)
@click.argument("target", metavar="OUT", shell_complete=complete_file)
@partial(domain_option, required=False)
@property_options
@click.option(
    "--tolerance",
    default=str(DEFAULTS.tolerance),
    show_default=True,
    metavar="exact|float|NUMBER",
    shell_complete=complete_one_of("exact", "float"),
    help="The largest proved change of any output: none; what the original's own arithmetic was seen "
    "to err by; or a number.",
)
@click.option(
    "--passes",
    default=DEFAULTS.passes,
    show_default=True,
    metavar="|".join(PASSES),
    shell_complete=complete_one_of(*PASSES),
    help="What may be rewritten: everything; what LEO as published does; or that and active units passed "
    "through the narrower side of a layer.",
)
@click.option(
    "--objective",
    default=DEFAULTS.objective,
    show_default=True,
    metavar="|".join(OBJECTIVES),
    shell_complete=complete_one_of(*OBJECTIVES),
    help="What to make small: connections to store and run; ReLUs to verify or optimise over; parameters.",
)
@solving_options
@click.option(
    "--inputs",
    metavar="FILE",
    shell_complete=complete_file,
    help="Inputs as a .npy or .npz file (examples × inputs): report the share of them whose class is certain to "
    "stay when both networks are run in floats.",
)
@click.option(
    "--latency",
    is_flag=True,
    help="Measure how long one input takes before and after, in ONNX Runtime, which must be installed.",
)
@click.option(
    "--certificate",
    metavar="FILE",
    shell_complete=complete_file,
    help="Write all that is needed to re-check the result without a solver; see 'leo check'.",
)
@report_option
@json_option
@quiet_option
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
        if moved is not None:
            say(f"property for {target} in {moved}; what it proves there holds for {prop} on {source}")
        if certificate is not None:
            say(f"certificate in {certificate}; re-check it with: leo check {certificate} {source} {target}")


@main.command(short_help="Count the ReLUs that never change state.")
@click.argument("source", metavar="IN", shell_complete=complete_file)
@domain_option
@solving_options
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
@tight_option
@report_option
@json_option
@quiet_option
def inspect(source: str, domain: str, solvers: str | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Count the ReLUs of IN that never change state on the domain."""
    from leo_core import api, files
    from leo_core.report.json import narrowed_json, stability_json, verdicts_json
    from leo_core.stability.bounds import require_suffix
    from leo_core.stability.told import narrowed_lines

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
        click.echo(stability.summary())
        say(*narrowed_lines(stability, options["tight"]))
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
    if options.pop("solver") != DEFAULTS.solver:
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


@main.command(short_help="Bound how far two networks are apart.")
@click.argument("first", metavar="A", shell_complete=complete_file)
@click.argument("second", metavar="B", shell_complete=complete_file)
@domain_option
@click.option(
    "--within",
    metavar="EPS",
    callback=within_value,
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
@click.option(
    "--solver",
    default=DEFAULTS.solver,
    show_default=True,
    metavar="NAME",
    shell_complete=complete_solver,
    help="A MILP solver.",
)
@click.option(
    "--certificate",
    metavar="FILE",
    shell_complete=complete_file,
    help="Where EPS is proved, write what is needed to re-check that without a solver; see 'leo check'.",
)
@json_option
@quiet_option
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
            say(*found.lines)
            if found.certified:
                say(f"certificate in {certificate}; re-check it with: leo check {certificate} {first} {second}")
            elif certificate is not None and not found.within:
                say("no certificate was written: there is one of a proof only")
        if found.asked is not None and not stop.heard:
            sys.exit({True: DONE, False: CANNOT, None: OPEN}[found.within])


@main.command(short_help="Re-check a certificate without any solver.")
@click.argument("certificate", metavar="CERT", shell_complete=complete_file)
@click.argument("original", metavar="ORIGINAL", shell_complete=complete_file)
@click.argument("compressed", metavar="COMPRESSED", shell_complete=complete_file)
@click.option(
    "--domain",
    metavar="D",
    shell_complete=complete_file,
    callback=domain_value,
    help="A box that the certificate must cover, as in 'leo compress'.",
)
@json_option
@quiet_option
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


@main.command(short_help="Write a network as a mixed-integer program.")
@click.argument("source", metavar="NET", shell_complete=complete_file)
@click.argument("target", metavar="OUT.mps|OUT.lp", shell_complete=complete_file)
@domain_option
@click.option("--maximize", metavar="OUTPUT", help="The output that is the objective, such as output_0; else none is.")
@solving_options
@tight_option
@json_option
@quiet_option
def formulate(
    source: str, target: str, domain: str, maximize: str | None, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Write the network in NET over the domain as a mixed-integer program, with big-M from proved bounds."""
    from leo_core import programs

    require_apart({}, {"OUT": target, "the checkpoint": options["checkpoint"]})
    with progress(quiet, as_json) as listener:
        found = programs.formulate(source, target, domain, maximize=maximize, listener=listener, **options)
    problem = found.problem
    sizes = {"columns": problem.columns, "rows": problem.rows, "binaries": int(problem.integer.sum())}
    if as_json:
        print_json({**sizes, "inputs": found.inputs, "outputs": found.outputs, "output": target, "interrupted": False})
        return
    say(f"{sizes['columns']:,} columns, {sizes['binaries']:,} of them binary, {sizes['rows']:,} rows")
    say(f"inputs {_span(found.inputs)}; outputs {_span(found.outputs)}")
    say(f"written to {target}")


def _span(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


@main.command(short_help="Write a network in another format.")
@click.argument("source", metavar="IN", shell_complete=complete_file)
@click.argument("target", metavar="OUT", shell_complete=complete_file)
@quiet_option
def convert(source: str, target: str, quiet: bool) -> None:
    """Write the network in IN to OUT in another format, by suffix."""
    from leo_core import api

    with progress(quiet) as listener:
        api.convert(source, target, listener=listener)
    if not quiet:
        say(f"written to {target}")


@main.command(short_help="Write the box around examples, for --domain.")
@click.argument("data", metavar="DATA", shell_complete=complete_file)
@click.argument("target", metavar="OUT.json", shell_complete=complete_file)
@click.option(
    "--margin",
    type=float,
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="Widen each range by this share of it, below and above.",
)
@quiet_option
def box(data: str, target: str, margin: float, quiet: bool) -> None:
    """Write the box around the examples in DATA (.npy or .npz, examples × inputs) to OUT.json, for --domain."""
    from leo_core.domain import Box
    from leo_core.inputs import read_inputs

    require_apart({"DATA": data}, {"OUT.json": target})
    around = Box.from_data(read_inputs(data), margin)
    around.save(target)
    if not quiet:
        say(*(f"note: {text}" for text in around.notes), err=True)
        say(f"{around.size} ranges, within {around.lower.min():g} and {around.upper.max():g}, written to {target}")


@main.command(short_help="Write the page that shows a result.")
@click.argument("result", metavar="RESULT.json", shell_complete=complete_file)
@click.argument("target", metavar="OUT.html", shell_complete=complete_file)
@quiet_option
def report(result: str, target: str, quiet: bool) -> None:
    """Write the page that shows a result of 'leo compress --json' or 'leo inspect --json'."""
    from leo_core.report.html import read_result

    require_apart({"RESULT.json": result}, {"OUT.html": target})
    _require_report(target)
    _write_report(target, read_result(result))
    if not quiet:
        say(f"report in {target}")


@main.command(short_help="Compress a network that comes with LEO.")
@report_option
@quiet_option
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


@main.command(short_help="List solvers, formats and executors.")
@json_option
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
