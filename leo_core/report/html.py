"""A result as one page that fetches nothing and runs nothing: the JSON of ``--json`` is its only source.

Jinja's templates escape whatever they are given; the page's own policy forbids all but its one style sheet, which it
names by its hash. So a layer may be called what it likes.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path, PurePath
from typing import Any

from leo_core.errors import FormatError, MissingExtraError, first_line
from leo_core.report import words
from leo_core.report.drawing import RANGES_HEIGHT, STATES, network_drawing, ranges_drawing, stacked, waterfall

#: What counts as a size, in the order of the page.
_SIZES = (
    ("connections", "Weights"),
    ("nonzeros", "Weights that are not zero"),
    ("parameters", "Weights and biases"),
    ("operations", "Multiplications for one input"),
    ("operators", "Operators that a runtime runs"),
    ("activation_bytes", "Bytes that values take at most"),
)
#: How a verdict came about, in words.
_HOW = {
    "bound": "by bounds",
    "tree": "by splitting into cases",
    "witness": "shown by inputs",
    "solver": "a solver's word",
    "none": "open",
}


def require_jinja() -> None:
    """Raise :class:`MissingExtraError` where no page can be made: asked before any work, so that none is lost."""
    try:
        import jinja2  # noqa: F401
    except ImportError:
        raise MissingExtraError("the report", "jinja2", "report") from None


def page(content: Mapping[str, Any]) -> str:
    """The page of a result of ``leo compress --json`` or ``leo inspect --json``.

    Raises :class:`MissingExtraError` without the extra ``report``, :class:`FormatError` where ``content`` is no such
    result.
    """
    require_jinja()
    from jinja2 import Environment, StrictUndefined, UndefinedError

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(short=words.short, number=_number, plain=_plain, microseconds=words.microseconds)
    style = _resource("report.css").strip()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    try:
        shown = _shown(content)
        return environment.from_string(_resource("report.html.j2")).render(**shown, style=style, style_hash=digest)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, UndefinedError) as error:
        raise FormatError(
            "this is no result that this version of 'leo compress --json' or 'leo inspect --json' prints: "
            f"{_missing(error)}"
        ) from None


def read_result(path: str | Path) -> dict[str, Any]:
    """What ``--json`` printed, from a file. Raises :class:`FormatError`, naming it, where it holds something else."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{path}: cannot be read as JSON ({first_line(error)})") from None
    if not isinstance(content, dict) or "layers" not in content:
        raise FormatError(f"{path}: is no result of 'leo compress --json' or 'leo inspect --json'")
    return content


def framed(text: str) -> str:
    """A page in a frame of its own, so that its style and a notebook's do not meet."""
    return (
        f'<iframe srcdoc="{html.escape(text)}" sandbox title="LEO report" width="100%" height="640" '
        'style="border: 0"></iframe>'
    )


def _resource(name: str) -> str:
    return resources.files("leo_core.report").joinpath("templates", name).read_text(encoding="utf-8")


def _missing(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _shown(content: Mapping[str, Any]) -> dict[str, Any]:
    """What the template fills in."""
    compressed = "after" in content
    details = content["layer_details"]
    shown: dict[str, Any] = {
        "content": content,
        "compressed": compressed,
        "path": str(content["model"]),
        "title": PurePath(str(content["model"])).name or "a network",
        "layers": [_layer(layer, more, content) for layer, more in zip(content["layers"], details, strict=True)],
        "states": STATES,
        "ranges_height": RANGES_HEIGHT,
        "advice": words.advice(content),
        "what": words.undecided(content)[2],
    }
    if compressed:
        before, after = content["before"], content["after"]
        bytes_ = content.get("file_bytes")
        sizes = [(what, int(before[key]), int(after[key])) for key, what in _SIZES]
        sizes += [("Bytes of the file", int(bytes_["before"]), int(bytes_["after"]))] if bytes_ else []
        latency = content.get("latency")
        shown |= {
            "latency": None if latency is None else words.latency_line(latency),
            "took": None if latency is None else [float(latency[side]["median"]) for side in ("before", "after")],
            "change": words.change(content),
            "left": words.left(content),
            "drawing": network_drawing(*(content["details"][side]["nodes"] for side in ("before", "after"))),
            "sizes": [(what, was, now, 100 * now / was if was else 100.0) for what, was, now in sizes],
            "falls": waterfall(int(before["connections"]), content["steps"], words.RULES),
            "share": 100 * int(after["connections"]) / max(1, int(before["connections"])),
        }
    return shown


def _layer(layer: Mapping[str, Any], more: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """One ReLU layer: its bar, how its units were decided, its ranges."""
    counts = layer.get("channels") if content["asked"] == "groups" else None
    if counts is None:
        constant = int(more["constant"])
        counts = {**layer, "constant": constant, "active": int(layer["active"]) - constant}
    skipped = ("none",) if content["asked"] == "groups" else ()  # units of a channel are not asked one by one
    how = [(_HOW.get(name, name), int(count)) for name, count in more["how"].items() if count and name not in skipped]
    return {
        "name": str(layer["name"]),
        "units": int(layer["units"]),
        "parts": stacked({state: int(counts[state]) for state in STATES}),
        "total": sum(int(counts[state]) for state in STATES),
        "how": how,
        "ranges": ranges_drawing(more["ranges"]),
        "listed": len(more["ranges"]["state"]),
        "of": str(more["ranges"]["of"]),
        "of_total": int(more["ranges"]["total"]),
    }


def _number(value: float) -> str:
    return f"{value:,}"


def _plain(value: float) -> str:
    return f"{value:g}"
