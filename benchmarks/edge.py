"""What a network for a microcontroller costs at each step, from its Keras file to int8, compressed and not.

    python benchmarks/edge.py MODEL.h5 [--domain 0,1] [--out docs/results/edge.json]

Needs TensorFlow, LiteRT and tflite-micro. The float ``.tflite`` file is made by TensorFlow's converter and goes through
``leo compress`` as a user would call it; so does the Keras file, of which the converter then makes the int8 models, by
as many random images as representatives. Outputs are compared with those of the original in float on 300 inputs of the
domain: images of noise, and smooth ones. Arenas are what tflite-micro's own allocator reports.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"  # whose models the converter takes
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

REPRESENTATIVES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--domain", default="0,1", help="LO,HI")
    parser.add_argument("--out", type=Path, default=Path("docs/results/edge.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(arguments.model, arguments.domain, Path(folder))
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(page(found))
    print(page(found))


def measured(model: Path, domain: str, folder: Path) -> dict[str, Any]:
    """The figures of each step."""
    whole, small, small_keras = (folder / name for name in ("whole.tflite", "small.tflite", "small.keras"))
    again = folder / "again.keras"
    leo("convert", model, again)  # Keras 2's .h5 as Keras 3 has it
    whole.write_bytes(float_model(again))
    report = leo("compress", whole, small, "--domain", domain, "--json")
    leo("compress", model, small_keras, "--domain", domain, "--json")
    by_keras = folder / "by_keras.tflite"
    by_keras.write_bytes(float_model(small_keras))
    low, high = map(float, domain.split(","))
    points = inputs(Interpreter(str(whole)).get_input_details()[0]["shape"][1:], low, high)
    quantised, quantised_small = folder / "whole_int8.tflite", folder / "small_int8.tflite"
    for source, target in ((again, quantised), (small_keras, quantised_small)):
        target.write_bytes(int8_model(source, points[::3]))
    steps = [
        ("float, TensorFlow's converter", whole),
        ("float, compressed by LEO", small),
        ("float, compressed as Keras, TensorFlow's converter", by_keras),
        ("int8 of the original", quantised),
        ("int8 of the compressed", quantised_small),
    ]
    base = outputs(whole, points)
    rows = [
        {
            "step": step,
            "bytes": path.stat().st_size,
            "apart": float(np.abs(outputs(path, points) - base).max()),
            **arena(path),
        }
        for step, path in steps
    ]
    apart = float(np.abs(outputs(quantised, points) - outputs(quantised_small, points)).max())
    kept = {side: {key: report[side][key] for key in ("connections", "operations", "activation_bytes")}
            for side in ("before", "after")}  # fmt: skip
    return {"model": model.name, "domain": domain, "steps": rows, "int8_apart": apart, **kept,
            "deviation": report["deviation"], "float_noise": report["float_noise"], "inputs": len(points)}  # fmt: skip


def leo(*arguments: object) -> dict[str, Any]:
    call = [sys.executable, "-m", "leo_core", *map(str, arguments), "--quiet"]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout)) if "--json" in arguments else {}


def float_model(path: Path) -> bytes:
    return bytes(tf.lite.TFLiteConverter.from_keras_model(keras.models.load_model(path, compile=False)).convert())


def int8_model(path: Path, representatives: np.ndarray) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.models.load_model(path, compile=False))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in representatives)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def inputs(shape: Any, low: float, high: float) -> np.ndarray:
    """300 images of the domain, alternately noise and smooth."""
    rng = np.random.default_rng(0)
    noise = rng.random((300, *shape))
    height, width, channels = shape
    grid = rng.random((150, 4, 4, channels))
    rows, columns = (np.linspace(0, 3, size) for size in (height, width))
    low_row, low_column = rows.astype(int).clip(0, 2), columns.astype(int).clip(0, 2)
    r, c = (rows - low_row)[None, :, None, None], (columns - low_column)[None, None, :, None]
    corner = lambda i, j: grid[:, low_row + i][:, :, low_column + j]  # noqa: E731
    smooth = (1 - r) * ((1 - c) * corner(0, 0) + c * corner(0, 1)) + r * ((1 - c) * corner(1, 0) + c * corner(1, 1))
    noise[::2] = smooth
    return (low + (high - low) * noise).astype(np.float32)


def outputs(path: Path, points: np.ndarray) -> np.ndarray:
    """What the LiteRT interpreter computes, in real numbers."""
    ran = Interpreter(str(path))
    ran.allocate_tensors()
    given, result = ran.get_input_details()[0], ran.get_output_details()[0]
    rows = []
    for point in points:
        value = point[None]
        if given["dtype"] == np.int8:
            scale, zero = given["quantization"]
            value = np.clip(np.round(value / scale) + zero, -128, 127).astype(np.int8)
        ran.set_tensor(given["index"], value)
        ran.invoke()
        out = ran.get_tensor(result["index"])[0]
        if result["dtype"] == np.int8:
            scale, zero = result["quantization"]
            out = (out.astype(np.float64) - zero) * scale
        rows.append(out)
    return np.array(rows, np.float64)


_ARENA = (
    "import sys, numpy as np; from tflite_micro import runtime; ran = runtime.Interpreter.from_file(sys.argv[1]); "
    "given = ran.get_input_details(0); ran.set_input(np.zeros(given['shape'], given['dtype']), 0); ran.invoke(); "
    "ran.print_allocations()"
)


def arena(path: Path) -> dict[str, int]:
    """Bytes of tflite-micro's arena: all of it, and what activations take of it."""
    done = subprocess.run([sys.executable, "-c", _ARENA, str(path)], capture_output=True, text=True, check=True)
    found = {what: re.search(rf"Arena allocation {what} (\d+) bytes", done.stderr) for what in ("total", "head")}
    assert all(found.values()), done.stderr
    return {"arena": int(found["total"][1]), "activations": int(found["head"][1])}  # type: ignore[index]


def page(found: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {row['step']} | {row['bytes']:,} | {row['arena']:,} | {row['activations']:,} | {row['apart']:.1e} |"
        for row in found["steps"]
    )
    weights, products = (
        f"{found['before'][key]:,} → {found['after'][key]:,} ({found['after'][key] / found['before'][key]:.1%})"
        for key in ("connections", "operations")
    )
    return _PAGE.format(
        weights=weights, products=products, rows=rows, **{key: found[key] for key in ("model", "domain", "inputs")},
        **{key: f"{found[key]:.1e}" for key in ("deviation", "float_noise", "int8_apart")},
    )  # fmt: skip


_PAGE = """# To a microcontroller, step by step

`{model}` on the domain {domain}, by `benchmarks/edge.py`. Weights {weights}, multiplications {products}. δ, proved for
the float model: {deviation}; the noise of the original's own arithmetic: {float_noise}. 'Apart' is the largest
difference of an output from the original in float on {inputs} inputs, in the LiteRT interpreter; the two int8 models
are {int8_apart} apart. Arenas are tflite-micro's own figures: all of it, and the activations in it. What LEO proves
ends with the float model; what quantising does is measured here, and no more.

| file | bytes | arena | activations | apart |
|---|--:|--:|--:|--:|
{rows}
"""


if __name__ == "__main__":
    main()
