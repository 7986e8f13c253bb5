"""Training Keras models that compress well: the proximal L1 step as a constraint on weights.

    rate, strength = 1e-3, 1e-4
    layer = keras.layers.Dense(800, "relu", kernel_constraint=SoftThreshold(rate * strength))

Keras' own ``kernel_regularizer=keras.regularizers.L1(strength)`` adds λ Σ|w| to the loss, as the paper does, and
leaves dust around zero. Optimizers apply a constraint after each update, on every backend, so here weights become
exactly zero.
"""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="leo")
class SoftThreshold(keras.constraints.Constraint):  # type: ignore[misc]
    """w ← sign(w) · max(|w| − amount, 0) after each update; ``amount`` is the learning rate times λ.

    A saved model remembers it; to load the file without LEO, save ``leo_core.convert(model, "plain.keras")`` instead.
    """

    def __init__(self, amount: float) -> None:
        if not amount >= 0:
            raise ValueError(f"a threshold is not negative: {amount}")
        self.amount = amount

    def __call__(self, w: Any) -> Any:
        """The weights, shrunk."""
        return keras.ops.sign(w) * keras.ops.relu(keras.ops.abs(w) - self.amount)

    def get_config(self) -> dict[str, float]:
        """What a saved model holds of it."""
        return {"amount": self.amount}
