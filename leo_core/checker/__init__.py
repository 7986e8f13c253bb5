"""Re-checks a certificate: numpy alone, no solver, none of the engine (docs/reference/certificate.md).

    python -m leo_core.checker CERTIFICATE ORIGINAL.leo COMPRESSED.leo

A wrong number in a certificate can only make a bound weaker (:mod:`.bounds`, :mod:`.difference`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context
from typing import Any

import numpy as np

from .bounds import Region, bounded, limited
from .difference import Difference, Roles
from .environment import ieee
from .equivalence import proved_differences, require_within, roles_of
from .errors import MachineError, OfAnother, Refused
from .networks import Net, function_of, open_archive, read_network
from .proofs import BATCH, proved_bounds, signs_at
from .trees import Tree, tree_of

Array = Any
Note = Callable[[str], None]

__all__ = ["OfAnother", "Refused", "Report", "check", "lines"]

VERSION = 1
INACTIVE, UNSTABLE, ACTIVE, UNDECIDED = -1, 0, 1, 2
EQUIVALENCE = "equivalence"  # the kind of a certificate that two networks are within limits
TRUSTED = 4  # the method of a verdict that rests on a solver's word


@dataclass(frozen=True, eq=False)
class Report:
    """What was re-checked: verdicts by state (``trusted``: on a solver's word alone), leaves, the deviation proved, the
    box all of it holds on, and the function that both networks end in (the deviation is of what enters it).

    Of an equivalence, ``limits`` are those of the outputs, None where an output may differ by anything; the deviation
    is that of the others."""

    active: int
    inactive: int
    unstable: int
    undecided: int
    trusted: int
    leaves: int
    deviation: float
    lower: Array
    upper: Array
    tail: str = ""
    limits: tuple[float | None, ...] = ()

    def __repr__(self) -> str:
        return f"<Report: {lines(self)[2]}>"

    def summary(self) -> str:
        """What was re-checked, as text."""
        return "\n".join(lines(self))


def check(certificate: Any, original: Any, compressed: Any, *, note: Note = lambda _text: None) -> Report:
    """Re-check a certificate (path) of two ``.leo`` files; raises :class:`Refused`, saying what does not hold.

    ``note`` is told how far the work is.
    """
    try:
        with ieee():
            return _checked(certificate, original, compressed, note)
    except MachineError as error:
        raise Refused(str(error)) from None
    except (Refused, OSError):
        raise
    except MemoryError:
        raise Refused("out of memory") from None
    except Exception as error:  # a hostile file can make zipfile, json and numpy raise nearly anything
        raise Refused(f"damaged, or no certificate ({type(error).__name__}: {error})") from error


def _checked(certificate: Any, original: Any, compressed: Any, note: Note) -> Report:
    content, arrays = open_certificate(certificate)
    f, g = read_network(original), read_network(compressed)
    require_meant(f, g, content)
    lower, upper = arrays["lower"].astype(np.float64), arrays["upper"].astype(np.float64)
    if lower.shape != (f.inputs,) or upper.shape != (f.inputs,) or not (lower <= upper).all():
        raise Refused("its box does not fit the network")
    if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
        raise Refused("its box is not bounded")
    if content.get("kind") == EQUIVALENCE:
        most, leaves = proved_differences(f, g, (lower[None], upper[None]), content, arrays, note)
        deviation = require_within(most, content["limits"])
        return Report(0, 0, 0, 0, 0, leaves, deviation, lower, upper, f.tail, tuple(content["limits"]))
    region, counts, leaves = verdicts(f, (lower[None], upper[None]), content, arrays, note)
    note("comparing the networks")
    deviation = deviates(f, g, region, roles_of(content, arrays), content["deviation"])
    return Report(
        active=counts[ACTIVE], inactive=counts[INACTIVE], unstable=counts[UNSTABLE], undecided=counts[UNDECIDED],
        trusted=counts["trusted"], leaves=leaves, deviation=deviation, lower=lower, upper=upper, tail=f.tail,
    )  # fmt: skip


def require_meant(f: Net, g: Net, content: Mapping[str, Any]) -> None:
    """Raises :class:`Refused` where the certificate is of other networks, or the two end in different functions."""
    names: list[list[str]] = [[output[0] for output in net.outputs] for net in (f, g)]
    if names[0] != names[1] and sorted(names[0]) == sorted(names[1]):
        first, second = (", ".join(found) for found in names)
        raise Refused(f"the networks give their outputs in different orders: {first} and {second}")
    functions: list[list[Any]] = [[function_of(output) for output in net.outputs] for net in (f, g)]
    if functions[0] != functions[1]:
        sizes = ["+".join(str(size) for size, *_ in found) for found in functions]
        ends = " and ".join(
            f"{what}, of {size} values, in {net.tail or 'none'}"
            for net, what, size in zip((f, g), ("original", "compressed"), sizes)
        )
        raise Refused(f"the networks end in different functions (softmax, say) of their outputs: the {ends}")
    for net, what in ((f, "original"), (g, "compressed")):
        if net.tail and content[what] == net.before_tail:
            raise Refused(
                f"it says nothing of the {net.tail} at the end of the {what} network, as those of earlier releases; "
                "compress again for a new one"
            )
        if net.digest != content[what]:
            raise OfAnother(what)
    if content.get("tail", "") != f.tail:
        raise Refused(f"it is about networks that end in '{content['tail']}', these end in '{f.tail}'")


def open_certificate(path: Any) -> tuple[dict[str, Any], dict[str, Array]]:
    """(description, arrays) of a certificate of this version."""
    header, arrays = open_archive(path)
    if header.get("format") != "leo certificate":
        raise Refused("not a LEO certificate")
    if header.get("version") != VERSION:
        raise Refused(f"a certificate of version {header.get('version')}, but this release reads version {VERSION}")
    return header["content"], arrays


def verdicts(
    net: Net, box: tuple[Array, Array], content: Mapping[str, Any], arrays: Mapping[str, Array], note: Note
) -> tuple[Region, dict[Any, int], int]:
    """The region of a network in which all that is claimed of its units holds; raises :class:`Refused`."""
    region: Region = {"input": box}
    counts: dict[Any, int] = dict.fromkeys((ACTIVE, INACTIVE, UNSTABLE, UNDECIDED, "trusted"), 0)
    leaves = 0
    for node in net.nodes:
        if node.relu:
            continue
        region = bounded(net, node, region)
        if node.name not in net.rectified:
            continue
        layer = content["layers"][node.name]
        note(f"checking '{node.name}', {node.size} units")
        for described in layer["trees"]:
            tree = tree_of(described, arrays)
            region[node.name] = sharpened(region[node.name], tree, proved_bounds(net, node.name, region, tree))
            leaves += len(tree.closed)
        low, high = (arrays[layer[what]].astype(np.float64) for what in ("lower", "upper"))
        state, method = arrays[layer["state"]], arrays[layer["method"]]
        if any(array.shape != (node.size,) for array in (low, high, state, method)):
            raise Refused(f"'{node.name}' has {node.size} units, the verdicts on it are more or fewer")
        for what, wrong in (
            ("lower bound", ~(low <= region[node.name][0][0])),
            ("upper bound", ~(high >= region[node.name][1][0])),
            ("active", (state == ACTIVE) & (method != TRUSTED) & ~(low >= 0)),
            ("inactive", (state == INACTIVE) & (method != TRUSTED) & ~(high <= 0)),
            ("state", ~np.isin(state, (ACTIVE, INACTIVE, UNSTABLE, UNDECIDED))),
        ):
            if wrong.any():
                raise Refused(f"'{node.name}', unit {int(np.argmax(wrong))}: its {what} is not proved")
        witnessed(net, node.name, box, np.flatnonzero(state == UNSTABLE), arrays[layer["witnesses"]], arrays["points"])
        trusted = method == TRUSTED
        region[node.name] = believed(low, high, state, method)
        counts["trusted"] += int(trusted.sum())
        for kind in (ACTIVE, INACTIVE, UNSTABLE, UNDECIDED):
            counts[kind] += int(((state == kind) & ~trusted).sum())
    return region, counts, leaves


def believed(low: Array, high: Array, state: Array, method: Array) -> tuple[Array, Array]:
    """Claimed bounds as further work takes them: cut at 0 where a solver's word says so."""
    trusted = method == TRUSTED
    low = np.where(trusted & (state == ACTIVE), np.maximum(low, 0.0), low)
    high = np.where(trusted & (state == INACTIVE), np.minimum(high, 0.0), high)
    return low[None], high[None]


def sharpened(bounds: tuple[Array, Array], tree: Tree, found: Array) -> tuple[Array, Array]:
    """Bounds of a node with those that a tree proves."""
    low, high = (side.copy() for side in bounds)
    for unit, sign, bound in zip(tree.units.tolist(), tree.signs.tolist(), found.tolist(), strict=True):
        if sign > 0:
            high[0, unit] = min(high[0, unit], bound)
        else:
            low[0, unit] = max(low[0, unit], -bound)
    return low, high


def witnessed(net: Net, name: str, box: tuple[Array, Array], units: Array, pairs: Array, points: Array) -> None:
    """Each unit is negative at the first of its two points, and positive at the second."""
    points = points.astype(np.float64)
    if pairs.shape != (len(units), 2) or (points < box[0]).any() or (points > box[1]).any():
        raise Refused(f"'{name}': witnesses are missing, or outside the box")
    for column, sign in ((0, -1), (1, 1)):
        for start in range(0, len(units), BATCH):
            part = units[start : start + BATCH]
            at = signs_at(net, name, part, points[pairs[start : start + BATCH, column]])
            if (at != sign).any():
                raise Refused(f"'{name}', unit {int(part[np.argmax(at != sign)])}: its witness shows nothing")


def deviates(f: Net, g: Net, region: Region, roles: Roles, claimed: float) -> float:
    """A proved deviation that is at most what is claimed, or a refusal."""
    deviation = Difference(f, g, region, roles).deviation()
    if claimed < deviation < np.inf and limited(region):  # rounding may be all that is between them
        deviation = Difference(f, g, region, roles, exact=True).deviation()
    if not deviation <= claimed:
        raise Refused(f"a deviation of at most {claimed:.6g} is claimed, {deviation:.6g} is proved")
    return deviation


def lines(report: Report) -> list[str]:
    """A report in words; the deviation to six digits, rounded up."""
    most = float(Context(prec=6, rounding=ROUND_CEILING).create_decimal_from_float(report.deviation))
    before = f", before the {report.tail} that both networks end in," if report.tail else ""
    box = f"box of {len(report.lower)} inputs within [{report.lower.min():g}, {report.upper.max():g}]"
    if report.limits:
        free = [k for k, limit in enumerate(report.limits) if limit is None]
        which = f"no output but {', '.join(map(str, free))}" if free else "no output"
        told = f"{which}{before} differs by more than {most:.6g} on the box"
        return [box, f"proved on {report.leaves} parts of it, or by the units that both networks have", told]
    found = [
        box,
        f"proved: {report.active} active, {report.inactive} inactive, {report.unstable} unstable, "
        f"{report.undecided} undecided; {report.leaves} leaves",
        f"no output{before} differs by more than {most:.6g} on the box",
    ]
    if report.trusted:
        found.append(f"NOT proved: {report.trusted} verdicts rest on a solver's word, and all of this on them")
    return found
