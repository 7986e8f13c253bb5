"""Random Keras models: every layer that LEO reads with every option, those that it must refuse, and traps.

Weights come from the seed, as NumPy numbers; Keras' own random state is never used.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from door_cases import Array, Case
from leo_frontends.keras import import_keras

keras = import_keras()
layers, ops = keras.layers, keras.ops

#: So many values an example may have within a model.
LARGEST = 96


class Skip(Exception):  # noqa: N818 - it is an answer
    """A step that does not apply here."""


@dataclass
class Draw:
    """What the seed decides, and the tensors and layers so far."""

    rng: np.random.Generator
    seen: list[Any] = field(default_factory=list)
    used: list[Any] = field(default_factory=list)
    traits: set[str] = field(default_factory=set)

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def choice(self, items: Any) -> Any:
        return list(items)[self.integer(0, len(items) - 1)]

    def flag(self, share: float = 0.5) -> bool:
        return bool(self.rng.random() < share)

    def numbers(self, *shape: int) -> Array:
        """Numbers that are no round ones, of several sizes."""
        return self.rng.normal(size=shape) * self.choice([0.1, 1.0, 1.0, 3.0])

    def axis(self, tensor: Any) -> int:
        """An axis that is not the batch's, counted from either end; rarely the batch's."""
        rank = len(tensor.shape)
        at = 0 if self.flag(0.03) else self.integer(1, rank - 1) if rank > 1 else 0
        return at - rank if self.flag() else at

    def format(self) -> Any:
        return self.choice([None, "channels_first", "channels_last"])


def size(tensor: Any) -> int:
    return int(np.prod(tensor.shape[1:]))


def need(wanted: bool) -> None:
    if not wanted:
        raise Skip


def rank_of(*ranks: int) -> Callable[[Any], bool]:
    return lambda tensor: len(tensor.shape) in ranks


# Layers of one tensor.


def activation(draw: Draw) -> Any:
    """As a name, a function, or a layer."""
    kind = draw.integer(0, 9)
    if kind < 6:
        return draw.choice([None, "relu", "relu", "linear", "leaky_relu", "relu6", "hard_sigmoid", "hard_tanh"])
    if kind == 6:
        return draw.choice([keras.activations.relu, keras.activations.sparse_sigmoid, ops.relu, ops.soft_shrink])
    if kind < 9:
        return activation_layer(draw)
    return draw.choice(
        ["tanh", "sigmoid", "softmax", "log_softmax", "elu", "hard_silu", "hard_shrink", "selu", "swish"]
    )


def activation_layer(draw: Draw) -> Any:
    most, slope = draw.choice([None, 6.0, 0.7, 0.0]), draw.choice([0.0, 0.0, 0.1, 0.5, 1.0, 1.7])
    return draw.choice(
        [
            lambda: layers.ReLU(most, slope, draw.choice([0.0, 0.0, 0.0, 0.5])),
            lambda: layers.LeakyReLU(draw.choice([0.3, 0.01, 0.0, 1.5])),
            lambda: layers.Activation(draw.choice(["relu", "hard_sigmoid", "linear", layers.LeakyReLU(0.2), "relu6"])),
            lambda: layers.PReLU(),
            lambda: layers.ReLU(),
        ]
    )()


def dense(draw: Draw, t: Any) -> Any:
    return layers.Dense(draw.integer(1, 6), activation=activation(draw), use_bias=draw.flag(0.8))(t)


def activated(draw: Draw, t: Any) -> Any:
    return activation_layer(draw)(t)


def prelu(draw: Draw, t: Any) -> Any:
    axes = [a for a in range(1, len(t.shape)) if draw.flag()]
    return layers.PReLU(shared_axes=draw.choice([None, axes]))(t)


def batch_norm(draw: Draw, t: Any) -> Any:
    layer = layers.BatchNormalization(
        axis=draw.axis(t),
        center=draw.flag(0.8),
        scale=draw.flag(0.8),
        epsilon=draw.choice([1e-3, 1e-5, 0.1]),
        momentum=draw.choice([0.99, 0.5]),
        renorm=draw.flag(0.1),
        trainable=draw.flag(),
    )
    if draw.flag(0.1):
        return layer(t, training=draw.flag())
    return layer(t)


def normalization(draw: Draw, t: Any) -> Any:
    axes = sorted(a for a in range(1, len(t.shape)) if draw.flag())
    kind = draw.integer(0, 3)
    axis = draw.choice([-1, len(t.shape) - 1]) if kind == 0 else None if kind == 1 else tuple(axes)
    kept = [a % len(t.shape) for a in ([axis] if isinstance(axis, int) else axis or ())]
    shape = [t.shape[a] for a in kept]
    mean, variance = draw.numbers(*shape), np.square(draw.numbers(*shape)) * (draw.rng.random(shape) < 0.9)
    return layers.Normalization(axis=axis, mean=mean, variance=variance, invert=draw.flag(0.3))(t)


def rescaling(draw: Draw, t: Any) -> Any:
    n = t.shape[-1]
    number = draw.choice([lambda: 1 / 255.0, lambda: 1 / 127.5, lambda: float(draw.numbers()), lambda: 2])
    listed = draw.choice([lambda: draw.numbers(n).tolist(), lambda: draw.numbers(n), lambda: draw.numbers(1)])
    scale, offset = ((listed if draw.flag(0.3) else number)() for _ in range(2))
    return layers.Rescaling(scale, offset)(t)


def same(draw: Draw, t: Any) -> Any:
    rank = len(t.shape)
    layer = draw.choice(
        [
            lambda: layers.Dropout(0.5, seed=1),
            lambda: layers.GaussianNoise(1.0),
            lambda: layers.GaussianDropout(0.3),
            lambda: layers.AlphaDropout(0.3),
            lambda: layers.ActivityRegularization(0.1, 0.1),
            lambda: layers.Identity(),
            lambda: layers.Activation("linear"),
            lambda: layers.SpatialDropout1D(0.3) if rank == 3 else layers.SpatialDropout2D(0.3, draw.format()),
        ]
    )()
    if draw.flag(0.05) and not isinstance(layer, layers.Activation):
        return layer(t, training=draw.flag())
    return layer(t)


def flatten(draw: Draw, t: Any) -> Any:
    return layers.Flatten(data_format=draw.format())(t)


def reshape(draw: Draw, t: Any) -> Any:
    return layers.Reshape(target(draw, size(t)))(t)


def target(draw: Draw, count: int) -> tuple[int, ...]:
    """A shape of so many values; one of its axes may be -1."""
    parts, rest = [], count
    for _ in range(draw.integer(0, 3)):
        divisor = draw.choice([d for d in range(1, rest + 1) if rest % d == 0])
        parts.append(divisor)
        rest //= divisor
    parts.insert(draw.integer(0, len(parts)), rest)
    if draw.flag(0.4):
        parts[draw.integer(0, len(parts) - 1)] = -1
    return tuple(parts)


def permute(draw: Draw, t: Any) -> Any:
    return layers.Permute(tuple(int(a) + 1 for a in draw.rng.permutation(len(t.shape) - 1)))(t)


def repeated(draw: Draw, t: Any) -> Any:
    need(len(t.shape) == 2)
    return layers.RepeatVector(draw.integer(1, 3))(t)


def pairs(draw: Draw, axes: int, most: int) -> Any:
    if draw.flag(0.2):
        return draw.integer(0, most)
    if axes == 1:
        return (draw.integer(0, most), draw.integer(0, most))
    return tuple((draw.integer(0, most), draw.integer(0, most)) for _ in range(axes))


def cropped(draw: Draw, t: Any) -> Any:
    axes = len(t.shape) - 2
    need(1 <= axes <= 3)
    kind = [layers.Cropping1D, layers.Cropping2D, layers.Cropping3D][axes - 1]
    given = pairs(draw, axes, 1)
    return kind(given)(t) if axes == 1 else kind(given, data_format=draw.format())(t)


def zero_padded(draw: Draw, t: Any) -> Any:
    axes = len(t.shape) - 2
    need(1 <= axes <= 3)
    kind = [layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D][axes - 1]
    return kind(pairs(draw, axes, 2), data_format=draw.format())(t)


def up_sampled(draw: Draw, t: Any) -> Any:
    axes = len(t.shape) - 2
    need(1 <= axes <= 3)
    if axes == 1:
        return layers.UpSampling1D(draw.integer(1, 2))(t)
    factors = tuple(draw.integer(1, 2) for _ in range(axes))
    if axes == 3:
        return layers.UpSampling3D(factors, data_format=draw.format())(t)
    return layers.UpSampling2D(factors, draw.format(), draw.choice(["nearest", "nearest", "bilinear"]))(t)


def convolved(draw: Draw, t: Any) -> Any:
    """By each kind of convolution, with each kind of pads."""
    axes = len(t.shape) - 2
    need(axes in (1, 2))
    given = {
        "padding": draw.choice(["valid", "same", "same", "causal"]),
        "data_format": draw.format(),
        "activation": activation(draw),
        "use_bias": draw.flag(0.8),
        draw.choice(["strides", "strides", "dilation_rate"]): tuple(draw.integer(1, 3) for _ in range(axes)),
    }
    taps, made = tuple(draw.integer(1, 3) for _ in range(axes)), draw.integer(1, 4)
    return draw.choice(
        [
            lambda: named("Conv{}D", axes)(made, taps, groups=draw.choice([1, 1, made]), **given)(t),
            lambda: named("Conv{}DTranspose", axes)(made, taps, output_padding=draw.choice([None, 1]), **given)(t),
            lambda: named("DepthwiseConv{}D", axes)(taps, depth_multiplier=draw.integer(1, 2), **given)(t),
            lambda: named("SeparableConv{}D", axes)(made, taps, depth_multiplier=draw.integer(1, 2), **given)(t),
        ]
    )()


def pooled(draw: Draw, t: Any) -> Any:
    """Over windows, or over all positions."""
    axes = len(t.shape) - 2
    need(1 <= axes <= 3)
    what = draw.choice(["Max", "Average"])
    if axes == 3 or draw.flag(0.4):
        return named(f"Global{what}Pooling{{}}D", axes)(data_format=draw.format(), keepdims=draw.flag(0.3))(t)
    taps, strides = (tuple(draw.integer(1, 3) for _ in range(axes)) for _ in range(2))
    padding = draw.choice(["valid", "same"])
    return named(f"{what}Pooling{{}}D", axes)(taps, draw.choice([None, strides]), padding, data_format=draw.format())(t)


def named(kind: str, axes: int) -> Any:
    return getattr(layers, kind.format(axes))


def softmax(draw: Draw, t: Any) -> Any:
    return layers.Softmax(axis=draw.axis(t))(t)


def refused(draw: Draw, t: Any) -> Any:
    """Layers that are not read."""
    rank = len(t.shape)
    n = t.shape[-1]
    return draw.choice(
        [
            lambda: layers.ELU()(t),
            lambda: layers.LayerNormalization(axis=draw.axis(t))(t),
            lambda: layers.UnitNormalization()(t),
            lambda: layers.RMSNormalization()(t),
            lambda: layers.GroupNormalization(1)(t),
            lambda: layers.Masking(0.5)(t) if rank == 3 else layers.ELU(0.5)(t),
            lambda: layers.LSTM(2)(t) if rank == 3 else layers.Dot(1)([t, t]),
            lambda: layers.Multiply()([t, t]),
            lambda: layers.Dot(-1, normalize=True)([t, t]),
            lambda: layers.Conv3D(2, 1, data_format=draw.format())(t) if rank == 5 else ops.sin(t),
            lambda: layers.AveragePooling3D(1)(t) if rank == 5 else ops.square(t),
            lambda: layers.TimeDistributed(layers.Dense(2))(t) if rank == 3 else ops.cumsum(t, axis=1),
            lambda: layers.EinsumDense("...a,ab->...b", output_shape=2)(t) if rank == 2 else ops.sign(t),
            lambda: layers.Embedding(5, 2)(t) if rank == 2 else ops.exp(t),
            lambda: layers.Discretization(bin_boundaries=[0.0, 1.0])(t),
            lambda: ops.max(t, axis=-1),
            lambda: ops.where(t > 0, t, 0.0),
            lambda: ops.floor(t),
            lambda: ops.einsum("...a->...", t) if n else t,
        ]
    )()


# Layers of several tensors.


def partner(draw: Draw, t: Any) -> Any:
    """A tensor that can be merged with this one, often of another shape that broadcasts."""
    kind = draw.integer(0, 3)
    if kind == 0 and len(t.shape) > 2:
        return layers.Dense(t.shape[-1])(layers.Flatten()(t))  # of another rank
    if kind == 1:
        return layers.Dense(1)(t)
    fitting = [s for s in draw.seen if s.shape == t.shape and s is not t]
    if kind == 2 and fitting:
        return draw.choice(fitting)
    return layers.Dense(t.shape[-1], activation=draw.choice([None, "relu"]))(t)


def merged(draw: Draw, t: Any) -> Any:
    kind = draw.choice(
        [layers.Add, layers.Subtract, layers.Average, layers.Maximum, layers.Minimum] * 3 + [layers.Multiply]
    )
    others = [partner(draw, t) for _ in range(1 if kind is layers.Subtract else draw.integer(1, 2))]
    given = [t, *others] if draw.flag() else [*others, t]
    if draw.flag(0.1):
        given = [t, t]
    return kind()(given)


def concatenated(draw: Draw, t: Any) -> Any:
    others = [draw.choice([s for s in draw.seen if len(s.shape) == len(t.shape)] or [t]) for _ in range(2)]
    return layers.Concatenate(axis=draw.axis(t))([t, *others[: draw.integer(1, 2)]])


# Functions on tensors.


def arithmetic(draw: Draw, t: Any) -> Any:
    n = t.shape[-1]
    constant = draw.choice(
        [
            lambda: float(draw.numbers()),
            lambda: 2,
            lambda: draw.numbers(n),
            lambda: draw.numbers(n).astype(np.float32),
            lambda: np.arange(n),
            lambda: draw.numbers(1, *t.shape[1:]),
            lambda: ops.convert_to_tensor(draw.numbers(n).astype(np.float32)),
            lambda: partner(draw, t),
            lambda: partner(draw, t),
        ]
    )()
    return draw.choice(
        [
            lambda: t + constant,
            lambda: constant + t if isinstance(constant, float) else ops.add(constant, t),
            lambda: t - constant,
            lambda: 1.5 - t,
            lambda: t * constant,
            lambda: t / constant,
            lambda: -t,
            lambda: ops.maximum(t, constant),
            lambda: ops.minimum(x1=t, x2=constant),
            lambda: ops.subtract(t, x2=constant),
            lambda: abs(t),
            lambda: ops.divide(t, 3),
        ]
    )()


def function(draw: Draw, t: Any) -> Any:
    return draw.choice(
        [
            lambda: ops.relu(t),
            lambda: ops.relu6(t),
            lambda: ops.leaky_relu(t, negative_slope=draw.choice([0.1, 0.2, 1.3, -0.2])),
            lambda: ops.clip(t, draw.choice([-1.0, -0.2, 0]), draw.choice([0.5, 1, 6.0])),
            lambda: ops.hard_sigmoid(t),
            lambda: ops.hard_tanh(t),
            lambda: ops.soft_shrink(t, threshold=draw.choice([0.5, 0.1])),
            lambda: ops.sparse_sigmoid(t),
            lambda: ops.absolute(t),
            lambda: ops.stop_gradient(t),
            lambda: ops.cast(t, draw.choice(["float32", "float32", "float16", "int32"])),
            lambda: keras.activations.relu(t),
            lambda: keras.activations.relu(t, negative_slope=0.1, max_value=2.0),
            lambda: ops.copy(t),
        ]
    )()


def sliced(draw: Draw, t: Any) -> Any:
    rank = len(t.shape)

    def part(n: int) -> Any:
        return draw.choice(
            [
                lambda: slice(None),
                lambda: slice(None, draw.integer(0, n + 1)),
                lambda: slice(draw.integer(-n, n), None),
                lambda: slice(None, None, draw.integer(1, 2)),
                lambda: slice(draw.integer(0, n - 1), -1),
                lambda: draw.integer(-n, n - 1),
            ]
        )()

    batch = draw.choice(
        [slice(None)] * 12 + [slice(None, 1), slice(1, None), slice(None, 100), 0, slice(None, None, 2)]
    )
    parts = [batch, *(part(n) for n in t.shape[1:])]
    kind = draw.integer(0, 4)
    if kind == 0:
        return t[..., part(t.shape[-1])]
    if kind == 1:
        return t[tuple(parts[: draw.integer(1, rank)])]
    if kind == 2:
        return t[(*parts[:1], None, *parts[1:])]
    return t[tuple(parts)]


def moved(draw: Draw, t: Any) -> Any:
    rank, axis = len(t.shape), draw.axis(t)
    n = t.shape[axis] or 1
    inner = [0, *(int(a) + 1 for a in draw.rng.permutation(rank - 1))]
    return draw.choice(
        [
            lambda: ops.reshape(t, (-1, *target(draw, size(t)))),
            lambda: ops.reshape(t, target(draw, size(t))),
            lambda: ops.transpose(t, inner),
            lambda: ops.transpose(ops.transpose(t)),
            lambda: ops.expand_dims(t, axis=draw.integer(0, rank)),
            lambda: ops.squeeze(ops.expand_dims(t, axis), axis),
            lambda: ops.flip(t, axis=axis),
            lambda: ops.roll(t, draw.integer(-2, 2), axis=axis),
            lambda: ops.swapaxes(t, axis, draw.axis(t)),
            lambda: ops.moveaxis(t, axis, draw.axis(t)),
            lambda: ops.take(t, [draw.integer(0, n - 1) for _ in range(3)], axis=axis),
            lambda: ops.take(t, draw.integer(-n, n - 1), axis=axis),
            lambda: ops.tile(t, [1] * (rank - 1) + [2]),
            lambda: ops.repeat(t, draw.integer(1, 2), axis=axis),
            lambda: ops.broadcast_to(t[:, None], (2, 2, *t.shape[1:])),
            lambda: ops.slice(t, [0] * rank, [2, *t.shape[1:]]),
            lambda: ops.rot90(t, axes=(1, 2)),
            lambda: ops.ravel(t),
        ]
    )()


def reduced(draw: Draw, t: Any) -> Any:
    axis = draw.choice([draw.axis(t), tuple({draw.axis(t) % len(t.shape), len(t.shape) - 1}), None])
    kind = draw.choice([ops.mean, ops.sum, ops.mean, ops.average])
    if kind is ops.average:
        return ops.average(t, axis=draw.axis(t))
    return kind(t, axis=axis, keepdims=draw.flag())


def joined(draw: Draw, t: Any) -> Any:
    other = partner(draw, t)
    if other.shape != t.shape or draw.flag(0.3):
        other = t
    axis, rank = draw.axis(t), len(t.shape)
    return draw.choice(
        [
            lambda: ops.concatenate([t, other], axis=axis),
            lambda: ops.stack([other, t], axis=draw.integer(1, rank)),
            lambda: ops.hstack([t, other]),
            lambda: ops.vstack([t, other]),
            lambda: ops.append(t, other, axis=axis),
            lambda: ops.split(t, t.shape[axis] or 2, axis=axis)[-1],
            lambda: ops.concatenate(ops.split(t, [1], axis=axis)[::-1], axis=axis),
            lambda: ops.array_split(t, 2, axis=axis)[0],
            lambda: ops.unstack(t, axis=axis)[0],
            lambda: ops.pad(t, [(0, 0), *((draw.integer(0, 1), draw.integer(0, 1)) for _ in range(rank - 1))],
                            constant_values=draw.choice([None, 0, 1.5])),
            lambda: ops.pad(t, [(0, 0)] * (rank - 1) + [(0, 1)], mode=draw.choice(["symmetric", "reflect"])),
        ]
    )()  # fmt: skip


def multiplied(draw: Draw, t: Any) -> Any:
    n, k = t.shape[-1], draw.integer(1, 3)
    return draw.choice(
        [
            lambda: ops.matmul(t, draw.numbers(n, k).astype(np.float32)),
            lambda: ops.dot(t, draw.numbers(n, k)),
            lambda: ops.matmul(draw.numbers(k, t.shape[-2] or 2), t),
            lambda: t @ draw.numbers(n, k).astype(np.float32),
            lambda: ops.dot(draw.numbers(k, t.shape[-2] or 2), t),
        ]
    )()


# Models in models, and layers called again.


def nested(draw: Draw, t: Any) -> Any:
    given = keras.Input(t.shape[1:])
    inner = Draw(draw.rng, [given], [], draw.traits)
    if draw.flag():
        model = keras.Sequential([given, *(layers.Dense(t.shape[-1], activation=activation(draw)) for _ in range(2))])
    else:
        model = keras.Model(given, grown(inner, given, draw.integer(1, 3)))
    draw.traits.add("nested model")
    result = model(t)
    if draw.flag(0.4) and result.shape == t.shape:
        result = model(result)
    if draw.flag(0.3):
        result = layers.Subtract()([result, model(layers.Dense(t.shape[-1])(t))])
    return result


def nested_pair(draw: Draw, t: Any) -> Any:
    """A model of two inputs and two outputs."""
    first, second = keras.Input(t.shape[1:]), keras.Input(t.shape[1:])
    left, right = layers.Dense(2, "relu")(first), layers.Dense(2)(second)
    model = keras.Model([first, second], [layers.Subtract()([left, right]), right])
    draw.traits.add("nested model of two inputs")
    one, two = model([t, layers.Dense(t.shape[-1])(t)])
    return layers.Add()([one, two]) if draw.flag() else two


def shared(draw: Draw, t: Any) -> Any:
    """A layer called before, on another tensor."""
    fitting = [layer for layer, shape in draw.used if shape == t.shape]
    need(bool(fitting))
    draw.traits.add("shared layer")
    return draw.choice(fitting)(t)


STEPS: list[tuple[float, Callable[[Draw, Any], Any]]] = [
    (5, dense),
    (2, activated),
    (1, prelu),
    (2, batch_norm),
    (1.5, normalization),
    (1.5, rescaling),
    (1, same),
    (2, flatten),
    (1.5, reshape),
    (1, permute),
    (1, repeated),
    (1, cropped),
    (1, zero_padded),
    (1, up_sampled),
    (2, convolved),
    (1.5, pooled),
    (2, merged),
    (1.5, concatenated),
    (2, arithmetic),
    (1.5, function),
    (2, sliced),
    (2, moved),
    (1, reduced),
    (1, joined),
    (0.7, multiplied),
    (0.7, nested),
    (0.3, nested_pair),
    (1, shared),
    (0.12, softmax),
    (0.35, refused),
]


def grown(draw: Draw, t: Any, count: int) -> Any:
    """A tensor after so many random steps; those that Keras itself refuses are left out."""
    weights = np.array([weight for weight, _ in STEPS])
    for _ in range(count):
        _, step = STEPS[int(draw.rng.choice(len(STEPS), p=weights / weights.sum()))]
        try:
            result = step(draw, t)
            need(0 < len(result.shape) <= 5 and all(d is None or d for d in result.shape))
            need(None not in result.shape[1:] and size(result) <= LARGEST)
            need(str(result.dtype).startswith(("float", "bfloat")))
        except (Skip, ValueError, TypeError, RuntimeError, IndexError, NotImplementedError, AttributeError, KeyError):
            continue
        operation = result._keras_history.operation
        if isinstance(operation, keras.Layer) and step not in (nested, shared):
            draw.used.append((operation, t.shape))
        draw.seen.append(result)
        t = result
    return t


def ended(draw: Draw, t: Any) -> Any:
    """With what may stay outside the network, and what may stand behind that."""
    if draw.flag(0.3):
        t = layers.Flatten(data_format="channels_last")(t)
    if draw.flag(0.25):
        tail = draw.choice(["softmax", "sigmoid", "tanh", "log_softmax"])
        draw.traits.add(f"{tail} at the end")
        t = draw.choice(
            [
                lambda: layers.Dense(draw.integer(1, 4), activation=tail)(t),
                lambda: layers.Activation(tail)(t),
                lambda: getattr(ops, tail)(t),
                lambda: layers.Softmax()(t),
                lambda: layers.Softmax(axis=tuple(range(1, len(t.shape))))(t),
            ]
        )()
        if draw.flag(0.4):
            t = draw.choice(
                [
                    lambda: layers.Identity()(t),
                    lambda: layers.Activation("linear")(t),
                    lambda: layers.Reshape((*t.shape[1:], 1))(t),
                    lambda: layers.Flatten()(t),
                    lambda: ops.expand_dims(t, 1),
                    lambda: ops.flip(t, axis=-1),
                ]
            )()
    return t


# The model as a whole, and its form.

SHAPES = [(3,), (4,), (6,), (1,), (2, 3), (4, 2), (3, 1), (2, 2, 3), (3, 2, 1), (1, 3, 2), (2, 1, 2, 2)]
POLICIES = ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64"]


def build(draw: Draw) -> Any:
    shape = draw.choice(SHAPES)
    policy = draw.choice(POLICIES) if draw.flag(0.12) else "float32"
    keras.config.set_dtype_policy(policy)
    batch = draw.choice([1, 2, 4]) if draw.flag(0.1) else None
    given = keras.Input(shape, batch_size=batch, dtype="float64" if policy == "float64" and draw.flag() else "float32",
                        name=draw.choice([None, "given"]))  # fmt: skip
    if policy != "float32":
        draw.traits.add(f"policy {policy}")
    if batch:
        draw.traits.add("a fixed batch")
    draw.seen.append(given)
    result = ended(draw, grown(draw, given, draw.integer(1, 9)))
    if result is given:
        result = layers.Dense(2)(given)
    if draw.flag(0.02):
        draw.traits.add("two outputs")
        return keras.Model(given, [result, layers.Dense(1)(given)])
    return keras.Model(given, draw.choice([result, result, result, [result], {"out": result}]))


def in_a_row(draw: Draw) -> Any:
    """A Sequential model."""
    shape = draw.choice(SHAPES)
    model = keras.Sequential([keras.Input(shape)])
    current = model.layers
    t = keras.Input(shape)
    simple = [dense, dense, activated, prelu, batch_norm, flatten, reshape, permute, rescaling, normalization, same,
              zero_padded, cropped, up_sampled, convolved, pooled]  # fmt: skip
    for _ in range(draw.integer(1, 6)):
        try:
            result = draw.choice(simple)(draw, t)
            need(None not in result.shape[1:] and 0 < size(result) <= LARGEST)
        except (Skip, ValueError, TypeError, RuntimeError):
            continue
        node = result._keras_history.operation._inbound_nodes[-1]
        need_plain = not node.arguments.kwargs
        if need_plain:
            model.add(result._keras_history.operation)
            t = result
    if not current and not model.layers:
        model.add(layers.Dense(2))
    if draw.flag(0.2) and not isinstance(model.layers[-1], layers.Softmax):
        model.add(layers.Dense(3, activation=draw.choice(["softmax", "sigmoid", "tanh"])))
    draw.traits.add("Sequential")
    return model


def fill(model: Any, rng: np.random.Generator) -> None:
    """Weights from the seed; variances are positive."""
    for weight in model.weights:
        if not str(weight.dtype).startswith(("float", "bfloat")):
            continue
        number = rng.normal(size=tuple(weight.shape)) * 0.8
        if "variance" in weight.path or "stddev" in weight.path:
            number = np.square(number) + 0.05
        weight.assign(number.astype("float64" if weight.dtype == "float64" else "float32"))


def make(seed: int, folder: Path) -> Case:
    """The case of a seed: a live model, or a file in the folder."""
    for attempt in range(100):
        with contextlib.suppress(ValueError, TypeError, RuntimeError, IndexError, NotImplementedError):
            return attempted(Draw(np.random.default_rng([seed, attempt])), folder)
    raise AssertionError("no model that Keras runs")


def attempted(draw: Draw, folder: Path) -> Case:
    """A model, if Keras itself can run it."""
    with settings(draw.choice(["channels_last", "channels_last", "channels_first"])):
        model = in_a_row(draw) if draw.flag(0.3) else build(draw)
    with quiet():  # builds layers that are activations, too
        model(np.zeros((model.inputs[0].shape[0] or 2, *model.inputs[0].shape[1:])), training=False)
    fill(model, draw.rng)
    if draw.flag(0.06):
        mode = draw.choice(["int8", "int4", "float8"])
        with contextlib.suppress(Exception):
            model.quantize(mode)
            draw.traits.add(f"quantised: {mode}")
    shape = tuple(model.inputs[0].shape[1:])
    uses = tuple(sorted({*names(model), *draw.traits}))
    form = draw.choice(["live", "live", ".keras", ".keras", ".h5", ".hdf5", "Keras 2"])
    if form == "live":
        return Case(uses, model, shape, runner(model))
    path = folder / f"model{'.h5' if form == 'Keras 2' else form}"
    try:
        with quiet():
            if form == "Keras 2":
                write_old(model, path, with_input=draw.flag(0.7))
            else:
                saved(model, path)
            run = runner(model if form == "Keras 2" else loaded(path))
    except Exception:  # not everything can be saved
        return Case(uses, model, shape, runner(model))
    return Case((*uses, f"a file, {form}"), path, shape, run)


def saved(model: Any, path: Path) -> None:
    if path.suffix == ".hdf5":
        model.save(path.with_suffix(".h5"))
        path.with_suffix(".h5").rename(path)
    else:
        model.save(path)


def loaded(path: Path) -> Any:
    if path.suffix == ".hdf5":
        other = path.with_suffix(".h5")
        other.write_bytes(path.read_bytes())
        path = other
    return keras.models.load_model(path, compile=False)


@contextlib.contextmanager
def settings(data_format: str) -> Iterator[None]:
    """Keras' own settings as one keras.json has them, and as they were afterwards."""
    before = keras.config.image_data_format(), keras.config.dtype_policy()
    keras.config.set_image_data_format(data_format)
    try:
        with quiet():
            yield
    finally:
        keras.config.set_image_data_format(before[0])
        keras.config.set_dtype_policy(before[1])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
    logger.setLevel(before)


def names(model: Any) -> Iterator[str]:
    """Layers and functions in a model and the models in it."""
    operations = model.layers if isinstance(model, keras.Sequential) else model.operations
    for operation in operations:
        if hasattr(operation, "layers"):
            yield from names(operation)
        elif isinstance(operation, keras.Layer):
            yield type(operation).__name__
            if isinstance(getattr(operation, "activation", None), keras.Layer):
                yield f"{type(operation).__name__}(activation={type(operation.activation).__name__})"
        else:
            yield f"ops.{type(operation).__name__}"


def runner(model: Any) -> Callable[[Array], Array]:
    """What Keras computes; a model that is made for one size of batch gets batches of that size."""
    batch = model.inputs[0].shape[0]

    def compute(x: Array) -> list[Array]:
        with quiet():
            found = model(x, training=False)
        arrays = [np.asarray(ops.convert_to_numpy(output)) for output in keras.tree.flatten(found)]
        return [array.astype(np.float32) if array.dtype.name == "bfloat16" else array for array in arrays]

    def run(x: Array) -> Any:
        filled = np.concatenate([x, np.repeat(x[-1:], -len(x) % (batch or 1), axis=0)])
        step = batch or len(filled)
        parts = [compute(filled[i : i + step]) for i in range(0, len(filled), step)]
        outputs = [np.concatenate(part)[: len(x)] for part in zip(*parts, strict=True)]
        return outputs[0] if len(outputs) == 1 else outputs

    return run


# Files as Keras 2 wrote them.


def write_old(model: Any, path: Path, *, with_input: bool) -> None:
    """A Sequential model of simple layers as Keras 2 wrote it; ``with_input`` says the shape of the input."""
    import h5py

    if not isinstance(model, keras.Sequential):
        raise ValueError("only Sequential models")
    config = {"name": "sequential", "layers": [old_layer(layer) for layer in model.layers]}
    if with_input:
        first = {"batch_input_shape": [None, *model.inputs[0].shape[1:]], "dtype": "float32", "name": "first_input"}
        config["layers"].insert(0, {"class_name": "InputLayer", "config": first})
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.15.0", "tensorflow"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config})
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        group.attrs["backend"], group.attrs["keras_version"] = b"tensorflow", b"2.15.0"
        for layer in model.layers:
            own = group.create_group(layer.name)
            weights = [*layer.trainable_weights, *layer.non_trainable_weights]
            held = [(f"{layer.name}/{weight.name}:0", np.asarray(ops.convert_to_numpy(weight))) for weight in weights]
            own.attrs["weight_names"] = [name.encode() for name, _ in held]
            for name, array in held:
                own.create_dataset(name, data=array)


#: What Keras 2 wrote of each class.
OLD = {
    "Activation": ("activation",),
    "BatchNormalization": ("axis", "momentum", "epsilon", "center", "scale"),
    "Dense": ("units", "activation", "use_bias"),
    "Dropout": ("rate",),
    "Flatten": ("data_format",),
    "LeakyReLU": ("alpha",),
    "Permute": ("dims",),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "Reshape": ("target_shape",),
    "Softmax": ("axis",),
}


def old_layer(layer: Any) -> dict[str, Any]:
    kind = type(layer).__name__
    config = layer.get_config()
    own = {}
    for key in OLD[kind]:
        value = config["negative_slope"] if key == "alpha" else config[key]
        if key == "axis" and kind == "BatchNormalization":
            value = [value]
        if not isinstance(value, int | float | str | list | tuple | None):
            raise ValueError("a layer as an activation is new in Keras 3")
        own[key] = value
    return {"class_name": kind, "config": {"name": layer.name, "trainable": True, "dtype": "float32", **own}}


def _faults() -> list[tuple[str, Callable[[], Any]]]:
    from leo_frontends.keras import layers as reader

    def misread(kind: str, lower: Callable[..., Any]) -> Callable[[], Any]:
        known = reader.LAYERS[kind]
        return lambda: mock.patch.dict(reader.LAYERS, {kind: replace(known, lower=lower)})

    def changed(kind: str, **options: Any) -> Callable[[], Any]:
        known = reader.LAYERS[kind]

        def lower(graph: Any, origin: Any, layer: Any, inputs: Any) -> Any:
            with contextlib.ExitStack() as stack:
                for name, value in options.items():
                    new = value(layer) if callable(value) else value
                    stack.enter_context(mock.patch.object(layer, name, new))
                return known.lower(graph, origin, layer, inputs)

        return misread(kind, lower)

    def inactive(kind: str) -> Callable[[], Any]:
        return lambda: mock.patch.dict(reader.LAYERS, {kind: replace(reader.LAYERS[kind], activated=False)})

    def turned(graph: Any, origin: Any, layer: Any, inputs: Any) -> Any:
        return joined(graph, origin, layer, list(inputs)[::-1])

    joined = reader.LAYERS["Concatenate"].lower
    return [
        ("batch norm ignores its epsilon", changed("BatchNormalization", epsilon=0.5)),
        ("the slope of a LeakyReLU is its default", changed("LeakyReLU", negative_slope=0.3)),
        ("ReLU ignores max_value", changed("ReLU", max_value=None)),
        ("ReLU ignores negative_slope", changed("ReLU", negative_slope=0.0)),
        ("Dense ignores its bias", changed("Dense", use_bias=False)),
        ("Dense ignores its activation", inactive("Dense")),
        ("Subtract adds", misread("Subtract", reader.LAYERS["Add"].lower)),
        ("Minimum is Maximum", misread("Minimum", reader.LAYERS["Maximum"].lower)),
        ("Average adds", misread("Average", reader.LAYERS["Add"].lower)),
        ("Concatenate the other way round", misread("Concatenate", turned)),
        ("Conv1D ignores its bias", changed("Conv1D", use_bias=False)),
        ("Conv1D ignores its strides", changed("Conv1D", strides=lambda layer: (1,) * layer.rank)),
        ("Rescaling ignores its offset", changed("Rescaling", offset=0.0)),
        ("Normalization ignores its mean", changed("Normalization", mean=lambda layer: layer.mean * 0)),
    ]


FAULTS = _faults()
