"""What a ``.tflite`` file says that no network needs, and that a file written from it says again.

It travels with the network's signature (:attr:`leo_core.signature.Signature.told`) as text.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from leo_core.network import Signature

_FORMAT = "tflite"


@final
@dataclass(frozen=True)
class Kept:
    """Names that tensors have beside those of the network, and what else is stored.

    Attributes
    ----------
    tensors:
        By the name of an input, an output or a node, that of its tensor.
    key:
        Under which the graph is called.
    metadata:
        By name; LEO does not look into it.
    """

    tensors: Mapping[str, str] = field(default_factory=dict)
    key: str = "serving_default"
    description: str = "Written by LEO."
    metadata: Mapping[str, bytes] = field(default_factory=dict)

    def told(self) -> tuple[tuple[str, str], ...]:
        """As a signature holds it."""
        text = {name: base64.b64encode(data).decode() for name, data in self.metadata.items()}
        content = {
            "tensors": dict(self.tensors), "key": self.key, "description": self.description, "metadata": text
        }  # fmt: skip
        return ((_FORMAT, json.dumps(content)),)


def of(signature: Signature) -> Kept:
    """What the file that a network came from said; defaults where it came from elsewhere."""
    text = dict(signature.told).get(_FORMAT)
    if text is None:
        return Kept()
    content = json.loads(text)
    metadata = {name: base64.b64decode(data) for name, data in content["metadata"].items()}
    return Kept(content["tensors"], content["key"], content["description"], metadata)
