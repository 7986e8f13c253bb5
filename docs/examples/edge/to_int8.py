"""Quantise a Keras model to int8 with TensorFlow's converter, and say how far the outputs are from the float model's.

    python docs/examples/edge/to_int8.py MODEL.keras IMAGES.npy OUT.tflite

IMAGES.npy holds representative inputs, as they are fed to the model: the converter takes the ranges of all values from
them. Needs TensorFlow and LiteRT. What LEO has proved is about the float model; the difference here is only measured.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"  # whose models the converter takes

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter


def main() -> None:
    source, images, target = map(Path, sys.argv[1:])
    model, points = keras.models.load_model(source, compile=False), np.load(images).astype(np.float32)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([point[None]] for point in points)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    target.write_bytes(converter.convert())
    exact, found = np.asarray(model(points)), outputs(target, points)
    print(f"{target.name}: {target.stat().st_size:,} bytes")
    print(f"largest difference from the float model: {np.abs(exact - found).max():.2g}")
    print(f"classes that changed: {np.count_nonzero(exact.argmax(1) != found.argmax(1))} of {len(points)}")


def outputs(model: Path, points: np.ndarray) -> np.ndarray:
    """What the int8 model computes, in real numbers."""
    ran = Interpreter(str(model))
    ran.allocate_tensors()
    given, made = ran.get_input_details()[0], ran.get_output_details()[0]
    (scale, zero), (scale_out, zero_out) = given["quantization"], made["quantization"]
    rows = []
    for point in points:
        ran.set_tensor(given["index"], np.clip(np.round(point[None] / scale) + zero, -128, 127).astype(np.int8))
        ran.invoke()
        rows.append((ran.get_tensor(made["index"])[0].astype(np.float64) - zero_out) * scale_out)
    return np.array(rows)


if __name__ == "__main__":
    main()
