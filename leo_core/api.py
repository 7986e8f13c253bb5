"""What a Python user calls: :func:`compress`, :func:`analyze`, :func:`verify`, :func:`convert`.

Each is a straight line through the rooms: read, domain, stability, rewriting, write.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, Unpack

import numpy as np

import leo_core
from leo_core import checker, storage, vnnlib2
from leo_core.arithmetic import round_down, round_up
from leo_core.bounds.imported import import_deviation
from leo_core.bounds.interval import bound_network
from leo_core.bounds.noise import float_noise
from leo_core.bounds.running import running_error
from leo_core.certificate import equivalence
from leo_core.certificate.evidence import gather
from leo_core.certificate.write import Account
from leo_core.checker import Report
from leo_core.checker.environment import ieee
from leo_core.compare import Comparison, Pair, compare
from leo_core.deciding import Heard, box_of, executor_of, options_of, solver_of, work_of
from leo_core.domain import Box, is_vnnlib, read_vnnlib
from leo_core.errors import CertificateError, OutputError, UsageError
from leo_core.execution.budget import Budget, Limits
from leo_core.execution.events import Listener, Note, silent
from leo_core.files import Source, as_read, output_frontend, read, write
from leo_core.latency import Latency, measure, stopwatch
from leo_core.milp.panel import Ledger, Panel
from leo_core.network import Network, Rounding
from leo_core.options import VERIFY_SECONDS, Chosen, spelled_out
from leo_core.paths import replacing, require_apart
from leo_core.plugins import Imported, registry
from leo_core.report.live import shown
from leo_core.result import CompressionResult
from leo_core.rewrite import rewrite
from leo_core.rewrite.beforehand import decide_folded
from leo_core.rewrite.view import View
from leo_core.stability import StabilityMap, decide
from leo_core.stability.cross_check import CrossCheck, cross_checked
from leo_core.stability.narrow import narrow
from leo_core.stability.outputs import with_outputs
from leo_core.within import Within

Made = TypeVar("Made")

#: The share of a time limit that deciding may take; rewriting gets the rest.
_DECIDING = 0.85
#: The same where bounds are narrowed afterwards.
_DECIDING_FIRST = 0.3


@spelled_out()
@shown
@ieee()
def analyze(
    model: Any, domain: Any, *, listener: Listener = silent, progress: bool = False, **options: Unpack[Chosen]
) -> StabilityMap:
    """Decide which ReLUs never change state on a domain.

    Parameters
    ----------
    model:
        A path, a live model of an installed framework, or a :class:`Network`.
    domain:
        Whatever :meth:`Box.of` takes, on the model's own input: a Box, ``(lower, upper)``, ``"LO,HI"``,
        or the path of a ``.json`` or ``.vnnlib`` file, or of a ``.npy`` or ``.npz`` file of examples.
    listener:
        Called with :mod:`leo_core.execution.events` while work goes on.
    progress:
        Whether to show on stderr where the work stands.
    options:
        Fields of :class:`Options`, which says what each of them means.
    """
    settings = options_of(options)
    heard = Heard(listener)
    imported, _ = read(model, heard, domain)
    box = box_of(domain, imported.network, heard)
    budget, limit = Budget.of(settings.time_limit), settings.time_limit
    deciding = budget if limit is None or settings.tight is None else budget.at_most(_DECIDING_FIRST * limit)
    with work_of(imported.network, box, settings, deciding, heard) as work:
        stability = with_outputs(work, decide_folded(work, heard), heard)
        if settings.tight is None or stability.interrupted:
            return stability
        each = math.inf if settings.unit_time_limit is None else settings.unit_limits[0]
        return narrow(replace(work, limits=Limits(budget, each)), stability, settings.tight, heard)


@spelled_out("solver", "tight", "checkpoint")
@shown
@ieee()
def cross_check(
    model: Any,
    domain: Any,
    solvers: tuple[str, str],
    *,
    listener: Listener = silent,
    progress: bool = False,
    **options: Unpack[Chosen],
) -> CrossCheck:
    """Decide twice, with two solvers, and compare answers and verdicts; see :func:`analyze` for the other arguments.

    In the first decision the second solver is asked all that the first is, and their answers are compared. The cascade
    asks a solver next to nothing, so units are decided as in the paper, by MILPs, unless the strategy is ``"isa"``.
    Under ``trust="proved"`` no solver can make a verdict false, so verdicts that disagree are an error of LEO's own;
    under ``trust="solver"`` they are a wrong answer of one of the solvers.
    """
    if len(set(solvers)) != 2:
        raise UsageError(f"a cross-check takes two different solvers, not {', '.join(solvers) or 'none'}")
    if "solver" in options:
        raise UsageError("a cross-check names its solvers itself; leave out the option solver")
    if options.get("tight") is not None:
        raise UsageError("a cross-check narrows no bounds; leave out tight")
    if options.get("checkpoint") is not None:
        raise UsageError("a cross-check decides twice, and a checkpoint is of one decision; leave out the checkpoint")
    settings = options_of({**options, "solver": solvers[0]})
    heard = Heard(listener)
    if settings.strategy == "cascade":
        settings = replace(settings, strategy="paper")
        heard(Note("the cascade asks a solver next to nothing: the paper strategy is used, which asks of every unit"))
    imported, _ = read(model, heard, domain)
    box = box_of(domain, imported.network, heard)
    there = {name: registry.solver(name) for name in solvers}  # both are there before any work is done
    budget, ledger = Budget.of(settings.time_limit), Ledger()
    maps: list[StabilityMap] = []
    for name in solvers:
        heard(Note(f"deciding with the solver '{name}'", passing=True))
        asked = there if not maps else {name: there[name]}
        limit = settings.time_limit
        left = budget if limit is None or maps else budget.at_most(2 / 3 * limit)
        left = Budget.of(0.0) if maps and maps[0].interrupted else left
        with work_of(imported.network, box, settings, left, heard, Panel(asked, ledger)) as work:
            maps.append(decide(work, heard))
    found = cross_checked(*maps)
    return replace(
        found,
        asked=(ledger.asked[solvers[0]], ledger.asked[solvers[1]]),
        failed=(ledger.failed[solvers[0]], ledger.failed[solvers[1]]),
        compared=ledger.compared,
        contradictions=tuple(ledger.contradictions),
    )


@spelled_out("tight")
@shown
@ieee()
def compress(
    model: Any, domain: Any, *, listener: Listener = silent, progress: bool = False, **options: Unpack[Chosen]
) -> CompressionResult:
    """Make a network smaller without changing what it computes on a domain; see :func:`analyze` for arguments.

    Whatever ends the work early (the time limit, Ctrl-C), the result is valid: what is not proved is kept.
    """
    begun = time.monotonic()
    settings = options_of(options)
    if settings.tight is not None:
        raise UsageError("compress narrows no bounds; call analyze(result.network, domain, tight=…) for those")
    if settings.latency:
        stopwatch()
    budget = Budget.of(settings.time_limit)
    heard = Heard(listener)
    imported, frontend = read(model, heard, domain)
    original = imported.network
    box = box_of(domain, original, heard)
    deciding = budget if settings.time_limit is None else budget.at_most(_DECIDING * settings.time_limit)
    with work_of(original, box, settings, deciding, heard) as work:
        stability = decide_folded(work, heard, gone_too=False)
    evidence = None
    if settings.evidence:
        evidence, again = _kept_on(
            lambda left: gather(original, stability, solver_of(settings, heard), left, heard, settings.seed), budget
        )
        stability = replace(evidence.stability, interrupted=evidence.stability.interrupted or again)
    noise = 0.0
    before = View.of(original, stability)
    interrupted = stability.interrupted
    try:
        noise = float_noise(original, stability.box, stability.points, settings.seed, lambda: budget.expired)
    except KeyboardInterrupt:
        interrupted = True
    imprecise = 0.0
    if imported.rounding:
        imprecise, again = _kept_on(lambda _: import_deviation(original, before.region, imported.rounding), budget)
        interrupted = interrupted or again
    tolerance = {"exact": 0.0, "float": noise}.get(str(settings.tolerance))
    tolerance = float(settings.tolerance) if tolerance is None else tolerance
    if imprecise > tolerance:
        heard(
            Note(
                f"reading the model is exact to {imprecise:.2g} only (a division in it has no exact float), which "
                f"is more than the tolerance {tolerance:.2g}: only exact rewrites were made; "
                "a larger tolerance allows more"
            )
        )
    rewritten, again = _kept_on(
        lambda left: rewrite(
            before,
            tolerance=max(0.0, float(round_down(tolerance - imprecise)) if imprecise else tolerance),
            passes=settings.passes,
            objective=settings.objective,
            budget=left,
            listener=heard,
        ),
        budget,
    )
    if rewritten.network.exact_dtype > original.dtype:
        heard(
            Note(
                f"some numbers of the result (a batch norm's, say) have no exact {original.dtype}: written as a model, "
                f"it computes in {rewritten.network.exact_dtype} and casts its input and output"
            )
        )
    deviation = _sum_up(imprecise, rewritten.deviation)
    noise_after = noise
    running = running_after = math.inf
    latency: Latency | None = None
    try:
        running = _running_error(before, stability, imported.loose)
        running_after = _running_error(View(rewritten.network, rewritten.facts), stability)
        if rewritten.steps:
            noise_after = float_noise(
                rewritten.network, stability.box, stability.points, settings.seed, lambda: budget.expired
            )
        latency = _latency(rewritten.network, stability, budget, heard) if settings.latency else None
    except KeyboardInterrupt:
        interrupted = True
    return CompressionResult(
        original=original,
        network=rewritten.network,
        stability=stability,
        deviation=deviation,
        import_deviation=imprecise,
        float_noise=noise,
        float_noise_after=noise_after,
        running_error=running,
        running_error_after=running_after,
        latency=latency,
        tolerance=tolerance,
        steps=rewritten.steps,
        refusals=rewritten.refusals,
        notes=tuple(heard.notes),
        seconds=time.monotonic() - begun,
        interrupted=interrupted or again or rewritten.interrupted,
        frontend=frontend,
        account=None if evidence is None else Account(original, evidence, rewritten),
        door=imported.door,
        source=_source(imported, deviation),
        facts=rewritten.facts,
        options=settings,
        model_name=str(model) if isinstance(model, str | Path) else type(model).__name__,
        domain=str(domain) if isinstance(domain, str | Path) else "",
    )


@shown
@ieee()
def verify(
    first: Any,
    second: Any,
    domain: Any,
    *,
    within: Any = None,
    certificate: str | Path | None = None,
    time_limit: float | None = VERIFY_SECONDS,
    solver: str = "auto",
    seed: int = 0,
    jobs: int = 1,
    cluster: Any = None,
    listener: Listener = silent,
    progress: bool = False,
) -> Comparison:
    """A proved bound on max |first − second| over a domain, for any two networks with the same inputs and outputs.

    Parameters
    ----------
    domain:
        As in :func:`analyze`, or a VNN-LIB 2.0 file about two networks, which also says what they are to be within.
    within:
        The question 'is |first − second| ≤ within?', a number for all outputs or one for each: the work stops once it
        is decided, and :attr:`Comparison.within` is the answer.
    certificate:
        Where to write what :func:`check` needs to re-check the answer, if it is that they are within that.
    time_limit:
        More time narrows what is between the largest difference seen and the bound; None: until both meet, the
        question is decided, or nothing helps.
    jobs, cluster: as in :class:`Options`.
    """
    settings = options_of({"time_limit": time_limit, "solver": solver, "seed": seed, "jobs": jobs, "cluster": cluster})
    heard = Heard(listener)
    budget = Budget.of(settings.time_limit)
    (left, _), (right, _) = read(first, heard, domain), read(second, heard, domain)
    box, within = _asked(domain, left.network, right.network, within, heard)
    if certificate is not None and within is None:
        raise UsageError("a certificate is of an answer; ask whether the networks are within some limit")
    for note in _shapes_apart(left.network, right.network):
        heard(Note(note))
    apart, interrupted = 0.0, False
    for imported in (left, right):
        off, again = _kept_on(partial(_misread, imported, box), budget)
        apart, interrupted = _sum_up(apart, off), interrupted or again
    checked = solver_of(settings, heard)
    with closing(executor_of(settings, checked.solver, heard)) as executor:
        pair = Pair(left.network, right.network, box, checked, settings.seed, heard, executor)
        asked = None if within is None else replace(within, slack=apart)
        found = compare(pair, asked, Budget.of(0.0) if interrupted else budget)
        interrupted = interrupted or found.interrupted
        if certificate is not None and found.within:
            certify = partial(_certify, pair, found, certificate)
            certified, again = _kept_on(certify, Budget.of(0.0) if interrupted else budget)
            found, interrupted = replace(found, certified=certified), interrupted or again
    found = replace(found, interrupted=interrupted)
    if apart == 0.0:
        return found
    lower = max(0.0, float(round_down(found.lower - apart)))
    return replace(found, lower=lower, upper=_sum_up(found.upper, apart))


@shown
@ieee()
def check(
    certificate: str | Path,
    original: Any,
    compressed: Any,
    domain: Any = None,
    *,
    listener: Listener = silent,
    progress: bool = False,
) -> Report:
    """Re-check a certificate, with numpy alone once the networks are read.

    Parameters
    ----------
    certificate:
        Its path.
    original, compressed:
        The networks it is about: paths, live models or :class:`Network`.
    domain:
        A box that the certificate must cover, if any; whatever :meth:`Box.of` takes.

    Raises :class:`CertificateError`, saying what does not hold.
    """
    networks = [read(model, Heard(listener), domain)[0].network for model in (original, compressed)]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("original.leo", "compressed.leo")]
        for network, path in zip(networks, paths, strict=True):
            storage.save(network, path)
        try:
            report = checker.check(Path(certificate), *paths, note=lambda text: listener(Note(text, passing=True)))
        except FileNotFoundError:
            raise CertificateError(f"{certificate}: there is no such file") from None
        except OSError as error:
            raise CertificateError(f"{certificate}: cannot be read ({error.strerror or error})") from None
        except checker.Refused as refusal:
            # a file may read back under other names: the same function, but another digest
            renamed = isinstance(refusal, checker.OfAnother) and refusal.which == "compressed"
            hint = "; certify(path, compressed) makes it about the exported file" if renamed else ""
            raise CertificateError(f"{certificate}: {refusal}{hint}") from None
    if domain is not None:
        box = box_of(domain, networks[0], listener)
        if (box.lower < report.lower).any() or (box.upper > report.upper).any():
            raise CertificateError(f"{certificate}: it is about a smaller domain than the one given")
    return report


@ieee()
def convert(source: Any, target: str | Path, *, listener: Listener = silent) -> Path:
    """Write a model in another format, by the target's suffix; the function stays the same."""
    require_apart({"IN": source}, {"OUT": target})
    output_frontend(target)
    imported, _ = read(source, Heard(listener))
    return write(imported.network, target, source=_source(imported, 0.0)).path


def _misread(imported: Imported, box: Box, _budget: Budget) -> float:
    """What reading a model can have changed at any output."""
    if not imported.rounding:
        return 0.0
    return import_deviation(imported.network, bound_network(imported.network, box), imported.rounding)


def _asked(domain: Any, first: Network, second: Network, within: Any, listener: Listener) -> tuple[Box, Within | None]:
    """Where two networks are compared, and what is asked of them; either may stand in a file about both."""
    text = read_vnnlib(domain) if is_vnnlib(domain) else ""
    if not vnnlib2.names_two(text, str(domain)):
        box = box_of(domain, first, listener)
        return box, None if within is None else Within.of(within, first.output_size)
    if within is not None:
        raise UsageError(f"{domain} says itself what the networks are to be within; leave out within")
    if first.signature.ending or second.signature.ending:
        raise UsageError(
            f"{domain} is about the models' outputs, behind the {first.signature.ending or second.signature.ending} "
            "that one ends in; LEO compares what enters it: give a domain about one network, and within"
        )
    outputs = [[(output.name, output.size) for output in net.signature.outputs] for net in (first, second)]
    found = vnnlib2.read_pair(text, str(domain), first.input_size, outputs)
    if found.same and first != second:
        raise UsageError(f"{domain} declares both networks equal, but the two given differ")
    return Box(found.lower, found.upper), found.within


def _certify(pair: Pair, found: Comparison, path: str | Path, budget: Budget) -> bool:
    """Write a certificate of the answer; whether there is one."""
    assert found.asked is not None
    assert found.evidence is not None
    try:
        content, arrays = equivalence.content_of(pair, found.asked, found.evidence, budget)
    except OutputError as error:  # the answer stands all the same
        pair.listener(Note(str(error)))
        return False
    told = {"made_by": f"leo-compress {leo_core.__version__}", "import_deviation": found.asked.slack}
    with replacing(path) as temporary:
        equivalence.write(temporary, content, arrays, told)
    return True


def _shapes_apart(first: Network, second: Network) -> list[str]:
    """What to tell of shapes that differ though they hold as many values."""
    was, now = (net.signature.input_shape or (net.input_size,) for net in (first, second))
    pairs = [("the input", was, now)]
    outputs = [net.signature.outputs for net in (first, second)]
    for one, other in zip(*outputs, strict=False):
        pairs.append(("the output" if len(outputs[0]) == 1 else f"output '{one.name}'", one.shape, other.shape))
    return [
        f"{what} is of shape {was} in the first model, {now} in the second: compared as flat lists, value by value in "
        "order"
        for what, was, now in pairs
        if was != now and math.prod(was) == math.prod(now)
    ]


def _latency(after: Network, stability: StabilityMap, budget: Budget, listener: Listener) -> Latency | None:
    """Beside the original, at inputs of the domain."""
    listener(Note("measuring latency", passing=True))
    points = stability.box.sample(np.random.default_rng(0), 10)
    found = measure(stability.network, after, points, budget)
    if isinstance(found, Latency):
        return found
    listener(Note(f"latency was not measured: {found}"))
    return None


def _source(imported: Imported, deviation: float) -> Source | None:
    return None if imported.run is None else Source(as_read(imported), deviation)


def _kept_on(stage: Callable[[Budget], Made], budget: Budget) -> tuple[Made, bool]:
    """What a stage makes, and whether Ctrl-C came where it heeds none: then it is done anew, with no time left."""
    try:
        return stage(budget), False
    except KeyboardInterrupt:
        return stage(Budget.of(0.0)), True


def _running_error(view: View, stability: StabilityMap, loose: Mapping[str, Rounding] | None = None) -> float:
    """At any output; what is known of the units counts only where no verdict rests on a solver's word."""
    network = view.network
    region = bound_network(network, stability.box) if stability.trusted else view.region
    return float(running_error(network, region, network.dtype, loose).max(initial=0.0))


def _sum_up(*values: float) -> float:
    total = 0.0
    for value in values:
        total = float(round_up(total + value)) if total and value else total + value
    return total


__all__ = ["CompressionResult", "analyze", "check", "compress", "convert", "cross_check", "verify"]
