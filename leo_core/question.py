"""What 'verify' needs besides the comparison: where two networks are compared, what is asked, and its certificate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import leo_core
from leo_core import vnnlib2
from leo_core.certificate import equivalence
from leo_core.compare import Comparison
from leo_core.domain import Box, is_vnnlib, read_vnnlib
from leo_core.errors import OutputError, UsageError
from leo_core.execution.events import Listener, Note
from leo_core.network import Network
from leo_core.paths import replacing
from leo_core.within import Within


def asked_of_two(
    domain: Any, first: Network, second: Network, within: Any, listener: Listener
) -> tuple[Box, Within | None]:
    """Where two networks are compared, and what is asked of them; either may stand in a file about both."""
    text = read_vnnlib(domain) if is_vnnlib(domain) else ""
    if not vnnlib2.names_two(text, str(domain)):
        box = Box.of(domain, first.input_size)
        for note in box.notes:
            listener(Note(note))
        return box, None if within is None else Within.of(within, first.output_size)
    if within is not None:
        raise UsageError(f"{domain} says itself what the networks are to be within; leave out within")
    if first.signature.ending or second.signature.ending:
        raise UsageError(
            f"{domain} is about the models' outputs, behind the {first.signature.ending or second.signature.ending} "
            "that one ends in; LEO compares what enters it: give a domain about one network, and within"
        )
    found = vnnlib2.read_pair(text, str(domain), first.input_size, [out.size for out in first.signature.outputs])
    if found.same and first != second:
        raise UsageError(f"{domain} declares both networks equal, but the two given differ")
    return Box(found.lower, found.upper), found.within


def certify(pair: tuple[Network, Network], box: Box, found: Comparison, path: str | Path, listener: Listener) -> bool:
    """Write a certificate of the answer; whether there is one."""
    assert found.asked is not None
    assert found.evidence is not None
    try:
        content, arrays = equivalence.content_of(*pair, box, found.asked, found.evidence, listener)
    except OutputError as error:  # the answer stands all the same
        listener(Note(str(error)))
        return False
    told = {"made_by": f"leo-compress {leo_core.__version__}", "import_deviation": found.asked.slack}
    with replacing(path) as temporary:
        equivalence.write(temporary, content, arrays, told)
    return True


def shapes_apart(first: Network, second: Network) -> list[str]:
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
