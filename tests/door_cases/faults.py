"""Faults planted in the readers, each a way to misread models: the door must catch every one.

Each framework's module has ``FAULTS``: (name, patch) pairs; ``patch()`` is a context manager in which the reader is
wrong.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import door_cases
from leo_core import files
from leo_core.domain import Box
from leo_core.errors import DoorError

#: LiteRT is not everywhere.
FRAMEWORKS = ("onnx", "torch", "keras", *(["tflite"] if find_spec("ai_edge_litert") else []))


@dataclass(frozen=True)
class Fault:
    """A way to misread the models of a framework."""

    framework: str
    name: str
    patch: Callable[[], AbstractContextManager[object]]


def planted(frameworks: Iterable[str] = FRAMEWORKS) -> tuple[Fault, ...]:
    """All of them."""
    return tuple(
        Fault(framework, name, patch) for framework in frameworks for name, patch in door_cases.module(framework).FAULTS
    )


def caught(fault: Fault, seeds: Iterable[int], enough: int = 5) -> tuple[int, int]:
    """(how many of the models of these seeds the fault makes LEO misread, for how many of them the door is an error).

    A model that is wrong with the fault, and right or refused without. Ends after ``enough`` of them.
    """
    misread = found = 0
    for seed in seeds:
        if misread >= enough:
            break
        with tempfile.TemporaryDirectory() as folder:
            case = door_cases.make(fault.framework, seed, Path(folder))
            box = Box.uniform(-10.0, 10.0, math.prod(case.shape))
            with fault.patch():
                if door_cases.outcome(case, seed, box).kind != "wrong":
                    continue
                try:
                    imported, _ = files.read(case.model, domain=shaped(box, case.shape))
                    misread += imported.run is not None  # what is never run, the door cannot see
                except DoorError:
                    misread, found = misread + 1, found + 1
    return misread, found


def shaped(box: Box, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A domain that tells the shape of an input, too."""
    return box.lower.reshape(shape), box.upper.reshape(shape)
