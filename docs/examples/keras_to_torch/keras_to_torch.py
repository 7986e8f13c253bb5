"""From Keras to PyTorch: a Keras model in, a smaller PyTorch module out, the same outputs.

    pip install "leo-compress[highs,keras,torch,report]" scikit-learn
    python keras_to_torch.py [FOLDER]

Writes model.keras, keras_to_torch.html, the report, and smaller.pt2 into FOLDER (the current one).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch
from sklearn.datasets import load_digits

import leo_core


def train(images: np.ndarray, labels: np.ndarray) -> keras.Model:
    """A classifier of handwritten digits; the L1 penalty is what makes units superfluous."""
    keras.utils.set_random_seed(0)
    torch.set_num_threads(1)  # for so small a network, one is faster
    l1 = keras.regularizers.L1(2e-3)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(48, activation="relu", kernel_regularizer=l1),
            keras.layers.Dense(32, activation="relu", kernel_regularizer=l1),
            keras.layers.Dense(10, activation="softmax", kernel_regularizer=l1),
        ]
    )
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images, labels, epochs=30, batch_size=100, verbose=0)
    return model


def main(folder: Path) -> None:
    digits = load_digits()
    images, labels = (digits.data / 16).astype(np.float32), digits.target
    train(images[:1400], labels[:1400]).save(folder / "model.keras")

    result = leo_core.compress(folder / "model.keras", domain="0,1")  # a pixel is between 0 and 1
    print(result.summary())
    result.report(folder / "keras_to_torch.html")
    result.export(folder / "smaller.pt2")

    before = keras.models.load_model(folder / "model.keras").predict(images[1400:], verbose=0)
    module = result.to("torch")
    with torch.no_grad():
        after = module(torch.tensor(images[1400:])).numpy()
    print(f"\n{type(module).__name__} on {len(after)} digits: {(before.argmax(1) != after.argmax(1)).sum()} changed")
    print(f"largest difference of a probability: {np.abs(before - after).max():.2g}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
