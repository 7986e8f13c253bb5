"""Train the example's network: scikit-learn's handwritten digits, depthwise and pointwise convolutions.

L1 on the scales of the batch norms leaves channels that are constant. Writes digits.tflite (by TensorFlow's converter,
which folds the batch norms), digits.keras and digits.npz beside this file. Needs TensorFlow and scikit-learn:

    pip install tensorflow scikit-learn
    python docs/examples/edge/train.py
"""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent
L1 = 1e-2
EPOCHS = 80


def main() -> None:
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images, labels = (digits.images[..., None] / 16).astype(np.float32), digits.target
    train_x, test_x, train_y, test_y = train_test_split(images, labels, test_size=0.25, random_state=0, stratify=labels)
    model = network()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train_x, train_y, batch_size=64, epochs=EPOCHS, verbose=0)
    print(f"right on the test images: {model.evaluate(test_x, test_y, verbose=0)[1]:.1%}")
    shipped = network()  # without the optimiser's state
    shipped.set_weights(model.get_weights())
    shipped.save(HERE / "digits.keras")
    (HERE / "digits.tflite").write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    np.savez_compressed(HERE / "digits.npz", images=(test_x * 16).astype(np.uint8), labels=test_y.astype(np.uint8))


def network() -> keras.Model:
    """(8, 8, 1) → 10 classes."""
    steps = [keras.Input((8, 8, 1)), layers.Conv2D(16, 3, padding="same", use_bias=False), *normed()]
    for strides, channels in ((1, 32), (2, 48), (1, 48)):
        steps += [layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False), *normed()]
        steps += [layers.Conv2D(channels, 1, use_bias=False), *normed()]
    return keras.Sequential([*steps, layers.GlobalAveragePooling2D(), layers.Dense(10, activation="softmax")])


def normed() -> list[keras.Layer]:
    return [layers.BatchNormalization(gamma_regularizer=keras.regularizers.L1(L1)), layers.ReLU()]


if __name__ == "__main__":
    main()
