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


@keras.saving.register_keras_serializable(package="leo")
class ChannelThreshold(keras.constraints.Constraint):  # type: ignore[misc]
    """Each channel of a kernel as one: w ← w · max(1 − amount · √n / |w|, 0) after each update, over its n weights.

    The proximal step of the group lasso; ``amount`` is the learning rate times λ. Channels are the last axis, as
    Keras has them in ``Conv1D``, ``Conv2D`` and ``Dense``. For a batch norm, whose γ and β make a channel together,
    there is :class:`ShrinkNorms`. A saved model remembers it, as with :class:`SoftThreshold`.
    """

    def __init__(self, amount: float) -> None:
        if not amount >= 0:
            raise ValueError(f"a threshold is not negative: {amount}")
        self.amount = amount

    def __call__(self, w: Any) -> Any:
        """The weights, shrunk."""
        axes = tuple(range(len(w.shape) - 1))
        count = 1
        for axis in axes:
            count *= int(w.shape[axis])
        size = keras.ops.sqrt(keras.ops.sum(keras.ops.square(w), axis=axes, keepdims=True))
        return w * keras.ops.relu(1.0 - self.amount * count**0.5 / keras.ops.maximum(size, 1e-30))

    def get_config(self) -> dict[str, float]:
        """What a saved model holds of it."""
        return {"amount": self.amount}


class ShrinkNorms(keras.callbacks.Callback):  # type: ignore[misc]
    """The γ and β of each channel of every batch norm as one, after each batch: with both at zero it is dead.

    (γ, β) ← (γ, β) · max(1 − lr · λ · √2 / |(γ, β)|, 0), with the optimizer's learning rate; for SGD without momentum.
    Set ``strength`` to 0 for the last epochs: channels that are zero by then stay so, and the rest recovers.
    """

    def __init__(self, strength: float) -> None:
        if not strength >= 0:
            raise ValueError(f"the strength of an L1 penalty is not negative: {strength}")
        super().__init__()
        self.strength = strength
        self._dead: dict[int, Any] = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002, Keras calls it so
        """Shrink."""
        amount = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)) * self.strength * 2**0.5
        for number, layer in enumerate(self.model.layers):
            if not isinstance(layer, keras.layers.BatchNormalization) or layer.gamma is None or layer.beta is None:
                continue
            gamma, beta = (keras.ops.convert_to_numpy(part) for part in (layer.gamma, layer.beta))
            size = (gamma**2 + beta**2) ** 0.5
            left = (size > amount) * (1 - amount / size.clip(1e-30)) * ~self._dead.get(number, size < 0)
            self._dead[number] = left == 0
            layer.gamma.assign(gamma * left)
            layer.beta.assign(beta * left)
