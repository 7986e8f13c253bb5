"""From the file that is shipped to the flash of a chip: compress a ``.tflite`` file, run both, write the C array.

    pip install "leo-compress[highs,tflite]"
    python docs/examples/edge/edge.py [MODEL.tflite LO,HI] [--out FOLDER]

Without a model it takes the small network in this folder, trained on handwritten digits. It compares both files in the
LiteRT interpreter, on the digits or on random inputs, and, where the package tflite-micro is installed (it has no
releases but development ones: ``pip install --pre tflite-micro``), in the interpreter for microcontrollers too, which
says how much memory they take.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

import leo_core

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, default=HERE / "digits.tflite")
    parser.add_argument("domain", nargs="?", default="0,1", help="LO,HI: the numbers that are fed to the model")
    parser.add_argument("--out", type=Path, default=Path())
    arguments = parser.parse_args()
    small = arguments.out / f"small_{arguments.model.name}"

    result = leo_core.compress(arguments.model, arguments.domain)
    result.export(small)
    print(result.summary((arguments.model.stat().st_size, small.stat().st_size)))

    points = inputs(arguments.model, *map(float, arguments.domain.split(",")))
    before, after = outputs(arguments.model, points), outputs(small, points)
    print(f"largest difference on {len(points)} inputs in LiteRT: {np.abs(before - after).max():.2g}")
    print(f"classes that changed: {np.count_nonzero(before.argmax(1) != after.argmax(1))}")
    for path in (arguments.model, small):
        print(f"{path.name}: {path.stat().st_size:,} bytes of flash, {arena(path)}")
    source = small.with_suffix(".cc")
    source.write_text(c_array(small.read_bytes(), "g_model"))
    print(f"written: {small}, {source}")


def inputs(model: Path, low: float, high: float) -> np.ndarray:
    """The digits of the test set, or 300 random inputs for another model."""
    if model == HERE / "digits.tflite":
        return np.load(HERE / "digits.npz")["images"].astype(np.float32) / 16
    shape = Interpreter(str(model)).get_input_details()[0]["shape"][1:]
    return np.random.default_rng(0).uniform(low, high, (300, *shape)).astype(np.float32)


def outputs(model: Path, points: np.ndarray) -> np.ndarray:
    """What the LiteRT interpreter computes, one input after the other."""
    ran = Interpreter(str(model))
    ran.allocate_tensors()
    given, made = ran.get_input_details()[0]["index"], ran.get_output_details()[0]["index"]
    rows = []
    for point in points:
        ran.set_tensor(given, point[None])
        ran.invoke()
        rows.append(ran.get_tensor(made)[0].ravel())
    return np.array(rows)


ARENA = """
import sys
import numpy as np
from tflite_micro import runtime
ran = runtime.Interpreter.from_file(sys.argv[1])
given = ran.get_input_details(0)
ran.set_input(np.zeros(given["shape"], given["dtype"]), 0)
ran.invoke()
ran.print_allocations()
"""


def arena(model: Path) -> str:
    """The memory that the model takes on a microcontroller, in words; its interpreter says so on the error stream."""
    if find_spec("tflite_micro") is None:
        return "arena not measured: tflite-micro is not installed"
    done = subprocess.run([sys.executable, "-c", ARENA, str(model)], capture_output=True, text=True, check=True)
    total, head = (re.search(rf"Arena allocation {what} (\d+)", done.stderr) for what in ("total", "head"))
    assert total is not None
    assert head is not None
    return f"{int(total[1]):,} bytes of arena ({int(head[1]):,} of them activations)"


def c_array(data: bytes, name: str) -> str:
    """The file as an array that a firmware is linked with; the interpreter wants it at a multiple of 16 bytes."""
    lines = [", ".join(f"0x{byte:02x}" for byte in data[at : at + 12]) for at in range(0, len(data), 12)]
    body = ",\n  ".join(lines)
    return (
        f"// {len(data)} bytes\nextern const unsigned char {name}[];\nextern const unsigned int {name}_len;\n"
        f"alignas(16) const unsigned char {name}[] = {{\n  {body}\n}};\nconst unsigned int {name}_len = {len(data)};\n"
    )


if __name__ == "__main__":
    main()
