"""What :func:`leo_core.compress` gives: a smaller network, what is proved of it, and the ways out of LEO."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, final

import numpy as np

from leo_core.bounds.running import certain_class
from leo_core.certificate.write import Account
from leo_core.certificate.write import write as write_certificate
from leo_core.checker.environment import ieee, undisturbed
from leo_core.door import Array, inputs_at
from leo_core.errors import MissingExtraError, OutputError, PluginError, UsageError
from leo_core.files import Source, Written, live, read, write
from leo_core.inputs import inputs_of
from leo_core.latency import Latency
from leo_core.network import Network
from leo_core.options import Options
from leo_core.paths import replacing, require_apart
from leo_core.plugins import registry
from leo_core.properties import Property, apart_at
from leo_core.report.html import framed, page
from leo_core.report.json import (
    details_json,
    network_json,
    number_json,
    stability_json,
    verdicts_json,
)
from leo_core.report.table import before_after_table, refusals_table, running_error_line, steps_table
from leo_core.report.words import latency_line
from leo_core.rewrite import Refusal, Step
from leo_core.rewrite.after import stability_after
from leo_core.rewrite.facts import Facts
from leo_core.rewrite.footprint import Footprint, footprint
from leo_core.stability import StabilityMap
from leo_core.stability.bounds import Bounds
from leo_core.stability.told import decided_line, how_decided, outlook, verdicts_table
from leo_core.text import as_text, scientific


@final
@dataclass(frozen=True, eq=False)
class CompressionResult:
    """A smaller network, and what is proved about it.

    Attributes
    ----------
    original, network:
        Before and after.
    stability:
        The verdicts on the original's ReLUs.
    deviation:
        δ, proved: max |original − network| over the domain, at any output. It includes
        ``import_deviation``, what reading the model could not represent exactly.
    float_noise, float_noise_after:
        The largest error that running the original, and the result, in its own dtype was seen to make.
    running_error, running_error_after:
        What it can be at most, proved, over the domain and whatever the order of summation: a loose bound, and
        infinite where none was found.
    latency:
        What one input takes in ONNX Runtime, before and after; there with the option ``latency`` only.
    tolerance:
        The deviation that was allowed, as a number.
    steps, refusals:
        What was rewritten, in order; what was left as it was, and why.
    facts:
        What rewriting knows of the result's units.
    account:
        What :meth:`certify` writes down; there with the option ``evidence`` only.
    door:
        Whether the original's framework computes what LEO read: "agrees", or "not run: why".
    source:
        The original as its framework runs it, where it does.
    options, model_name, domain:
        What was asked; the model and the domain by their paths, or as text, where they were given so.
    """

    original: Network
    network: Network
    stability: StabilityMap
    deviation: float
    import_deviation: float
    float_noise: float
    float_noise_after: float
    running_error: float
    running_error_after: float
    tolerance: float
    steps: tuple[Step, ...]
    refusals: tuple[Refusal, ...]
    facts: Facts
    notes: tuple[str, ...]
    seconds: float
    interrupted: bool
    frontend: str
    latency: Latency | None = None
    account: Account | None = None
    door: str = ""
    source: Source | None = None
    options: Options = field(default_factory=Options)
    model_name: str = ""
    domain: str = ""

    def __repr__(self) -> str:
        (units, connections), (left, kept) = ((net.units, net.connections) for net in (self.original, self.network))
        sizes = f"ReLUs {units:,} → {left:,}, connections {connections:,} → {kept:,}"
        return f"<CompressionResult: {sizes}, deviation {scientific(self.deviation)}>"

    @property
    def model(self) -> Any:
        """The smaller network as a live model of the framework the original came from."""
        return self.to(self.frontend)

    @property
    def bounds(self) -> Bounds:
        """What is proved of every unit and every output of the original."""
        return self.stability.bounds

    @cached_property
    def bounds_after(self) -> Bounds:
        """The same of the result; worked out when first asked for."""
        with ieee(), np.errstate(all="ignore"):
            return stability_after(self.network, self.facts, self.stability).bounds

    @ieee()
    def to(self, framework: str) -> Any:
        """The smaller network as a live model of a framework, by its frontend's name (``"onnx"``).

        Raises :class:`PluginError` when the frontend cannot write live models.
        """
        spec = registry.frontend(framework)
        if spec.write_model is None:
            what = f"'{framework}' has files only, no live models"
            if spec.read_model is not None:
                what = f"LEO reads models of '{framework}' but cannot write them"
            raise PluginError(f'{what}; use .to("torch"), .export(path) or .network')
        with registry.blaming(spec, "writing a model"):
            return undisturbed(lambda: live(self.network, spec, self._points, self.source))

    def export(self, path: str | Path) -> Path:
        """Write the smaller network to a file, its format by the suffix; a crash leaves no half file.

        The written file is run and compared with the network and with the original model, where a framework runs it.
        Raises :class:`OutputError` when it cannot be written, :class:`DoorError` when it computes something else.
        """
        return self.written(path).path

    def written(self, path: str | Path) -> Written:
        """:meth:`export`, and what the door found."""
        return write(self.network, path, self._points, self.source)

    @property
    def _points(self) -> Array:
        """What the door tries: the inputs that show units unstable among them."""
        layers = self.stability.layers.values()
        witnesses = [point for layer in layers for pair in layer.witnesses.values() for point in pair]
        more = np.array(witnesses[:: max(1, len(witnesses) // 3)][:3]).reshape(-1, self.network.input_size)
        return inputs_at(self.original, self.stability.box, more=more)

    @ieee()
    def certify(self, path: str | Path, compressed: str | Path | None = None) -> float:
        """Write what is needed to re-check this result: a certificate, for :func:`check`; the deviation it claims.

        Parameters
        ----------
        path:
            Where to; a crash leaves no half file.
        compressed:
            The file that the result was exported to, as the certificate is to be about what is read from there;
            without it, about :attr:`network`, as a ``.leo`` file holds it.

        Raises :class:`UsageError` without the option ``evidence``, :class:`OutputError` when it cannot be written.
        """
        if self.account is None:
            raise UsageError("there is no evidence to write down; call compress(…, evidence=True)")
        require_apart({"the compressed network": compressed}, {"the certificate": path})
        network = self.network if compressed is None else read(compressed)[0].network
        certificate = self.account.certificate(network)
        if not math.isfinite(certificate.deviation):
            other = compressed is not None and Path(compressed).suffix != ".leo"
            why = "write OUT as a .leo file" if other else "numbers overflow on the way to the outputs"
            raise OutputError(f"{path}: no certificate: the checker would find no bound on the deviation; {why}")
        told = {
            "made_by": f"leo-compress {version('leo-compress')}",
            "strategy": self.stability.strategy,
            "solver": self.stability.solver,
            "tolerance": self.tolerance,
            "import_deviation": number_json(self.import_deviation),
            "steps": [vars(step) for step in self.steps],
        }
        with replacing(path) as temporary:
            write_certificate(temporary, certificate, told)
        return certificate.deviation

    def moved(self, prop: Property) -> str:
        """A property of the original as one of the result, as text: a proof of it is a proof of the original's.

        Every constraint on outputs is moved by what δ can change of it; a counterexample need not be one of the
        original. Raises :class:`UsageError` where the property is of another box, or δ is not proved.
        """
        box = self.stability.box
        if self.stability.trusted:
            raise UsageError("the deviation rests on a solver's word, so nothing about the original would be proved")
        if prop.box.size != box.size or not (box.contains(prop.box.lower) and box.contains(prop.box.upper)):
            raise UsageError(f"{prop.name}: its inputs are not within the domain that the network was reduced on")
        prop.require_outputs(self.original.output_size)
        return prop.moved(apart_at(self.original.signature, self.deviation))

    @ieee()
    def certain(self, inputs: Any) -> float | None:
        """The share of given inputs whose class is certain to stay when both networks are run in their own dtype.

        A class is the largest output (before a softmax). For each input, intervals proved to hold the outputs as run
        decide, of the original and of the result; neither δ nor the domain is needed. ``inputs``: examples × …, numbers
        of the dtype or rounded to it. None where there is no class: for a single number, or several outputs.

        Raises :class:`FormatError` when the inputs do not fit the network.
        """
        points = inputs_of(inputs, self.original.input_size)
        output, *others = self.original.signature.outputs
        if output.size < 2 or output.axis is not None or others:
            return None
        was, now = (certain_class(net, points, net.dtype) for net in (self.original, self.network))
        return float(np.mean((was == now) & (was >= 0)))

    @property
    def footprints(self) -> tuple[Footprint, Footprint]:
        """What original and result take where they run: operators, multiplications, memory for activations."""
        return footprint(self.original), footprint(self.network)

    def summary(self, bytes_: tuple[int, int] | None = None) -> str:
        """Stability, what was rewritten, a before/after table and the guarantee, as text.

        ``bytes_`` are the sizes of the files before and after, where there are such.
        """
        tables = [verdicts_table(self.stability)]
        if self.steps:
            tables.append(steps_table(self.original, self.steps))
        took = None if self.latency is None else (self.latency.before.median, self.latency.after.median)
        tables.append(before_after_table(self.original, self.network, bytes_, took))
        return as_text(*tables, *self.lines())

    def lines(self) -> list[str]:
        """The guarantee in words."""
        lines = [
            f"largest change of any output on the domain: {scientific(self.deviation)} ({how_decided(self.stability)})",
            f"error the original itself was seen to make in {self.original.dtype}: {scientific(self.float_noise)}"
            f" (the result: {scientific(self.float_noise_after)})",
            running_error_line(self.running_error, self.running_error_after, self.float_noise),
            decided_line(self.stability, self.seconds),
        ]
        if self.latency is not None:
            lines.append(latency_line(asdict(self.latency)))
        if self.interrupted:
            lines.append("stopped early")
        if (line := outlook(self.stability)) is not None:
            lines.append(line)
        if self.network.connections == self.original.connections:
            lines.append("nothing could be made smaller")
        return lines

    def details(self) -> str:
        """What :meth:`summary` leaves out: what was left as it was and why, and what the door found, as text."""
        parts: list[Any] = [refusals_table(self.refusals)] if self.refusals else []
        parts += [
            f"as read, beside the model itself: {self.door}",
            f"change that was allowed: {scientific(self.tolerance)}",
            f"digest before: {self.original.digest}",
            f"digest after:  {self.network.digest}",
        ]
        return as_text(*parts)

    def as_json(self, written: str = "nothing is written") -> dict[str, Any]:
        """The contract of ``leo compress --json``; ``written`` is what the door found of the written file."""
        return {
            **stability_json(self.stability),
            "before": network_json(self.original),
            "after": network_json(self.network),
            "details": {"before": details_json(self.original), "after": details_json(self.network)},
            "deviation": number_json(self.deviation),
            "import_deviation": number_json(self.import_deviation),
            "tolerance": self.tolerance,
            "float_noise": self.float_noise,
            "float_noise_after": self.float_noise_after,
            "running_error": number_json(self.running_error),
            "running_error_after": number_json(self.running_error_after),
            **({} if self.latency is None else {"latency": asdict(self.latency)}),
            "total_seconds": round(self.seconds, 6),
            "interrupted": self.interrupted,
            "door": {"read": self.door, "written": written},
            "steps": [vars(step) for step in self.steps],
            "left": [vars(refusal) for refusal in self.refusals],
            "notes": list(self.notes),
            "frontend": self.frontend,
            "digests": {"before": self.original.digest, "after": self.network.digest},
            **verdicts_json(self.stability, self.model_name, self.domain, vars(self.options)),
        }

    def report(self, path: str | Path) -> Path:
        """Write a page that shows this result, for a browser or paper; a crash leaves no half file.

        Raises :class:`MissingExtraError` without the extra ``report``, :class:`OutputError` when it cannot be written.
        """
        with replacing(path) as temporary:
            temporary.write_text(page(self.as_json()), encoding="utf-8")
        return Path(path)

    def _repr_html_(self) -> str | None:
        """The report in a frame of its own, for notebooks; None without the extra ``report``."""
        try:
            return framed(page(self.as_json()))
        except MissingExtraError:
            return None
