"""Random models of each framework, and whether LEO reads them as the framework runs them, with the door left out.

One module per framework, each with ``make(seed, folder) -> Case``. Used by ``benchmarks/doors.py``, and by the tests.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leo_core import door, files
from leo_core.domain import Box
from leo_core.errors import DoorError, LeoError
from leo_core.plugins import Imported

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Case:
    """A model, and how its framework runs it without any help of LEO's.

    Attributes
    ----------
    uses:
        The layers or operators in it.
    model:
        A live model, or the path of a file.
    shape:
        That of one example of the input.
    run:
        (count, *shape) → (count, …), for 1, 2 and 7 examples.
    """

    uses: tuple[str, ...]
    model: Any
    shape: tuple[int, ...]
    run: Callable[[Array], Array]


@dataclass(frozen=True)
class Outcome:
    """``kind``: "equal", "refused", "wrong", "crash", or "not run" where the framework cannot run the model."""

    kind: str
    why: str = ""


def outcome(case: Case, seed: int = 0, box: Box | None = None) -> Outcome:
    """Read a case with the door left out, then compare the framework with the interval that LEO proves for its run.

    On inputs of a box, or of several sizes.
    """
    try:
        imported, _ = files.lower(case.model, case.shape)
    except DoorError:
        raise
    except LeoError as error:
        return Outcome("refused", str(error))
    except Exception:
        return Outcome("crash", traceback.format_exc(limit=-3))
    return compared(imported, case, seed, box)


def compared(imported: Imported, case: Case, seed: int = 0, box: Box | None = None) -> Outcome:
    """What was read against what the framework computes, on three sets of inputs."""
    reading = door.Reading(imported.network, case.run, imported.runs_in, imported.loose)
    box = box if box is None or box.size == imported.network.input_size else None
    for number in range(3):
        points = door.inputs_at(imported.network, box, seed=3 * seed + number)
        try:
            said = door.agrees(reading, points)
        except DoorError as error:
            return Outcome("wrong", str(error))
        if said != door.AGREES:
            return Outcome("not run", said)  # at all, or for so many: a node that no output needs may not fit
    return Outcome("equal")


def module(framework: str) -> Any:
    """The module of a framework's cases: "onnx", "torch", "keras" or "tflite"; "images" are PyTorch's."""
    from importlib import import_module

    names = {"onnx": "onnx_graphs", "torch": "torch_modules", "keras": "keras_models", "tflite": "tflite_graphs"}
    names["images"] = "torch_drawn_images"
    return import_module(f"door_cases.{names[framework]}")


def make(framework: str, seed: int, folder: Path) -> Case:
    """The case of a seed."""
    return module(framework).make(seed, folder)
