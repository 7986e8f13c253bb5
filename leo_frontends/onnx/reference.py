"""Running ONNX models by onnx's own reference implementation, mended where it is not what ONNX says.

It normalises batches by their own statistics before opset 14, as in training, and takes softmax
over one axis before opset 13, where it is over all axes from that one on. Its poolings fail, or take
other windows, with pads of some kinds and with sizes that are rounded up; its GlobalMaxPool of one axis mixes channels,
and its ConvTranspose fails in groups, or sums otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def reference(model: Any, outputs: Sequence[str] | None = None) -> Callable[[Mapping[str, Array]], list[Array]]:
    """What runs a ``ModelProto``, or the path of a file: inputs by name → outputs."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    evaluator = ReferenceEvaluator(model, new_ops=_mended(evaluator.opsets.get("", 1)))
    return lambda feeds: [np.asarray(value) for value in evaluator.run(outputs, dict(feeds))]


def _mended(opset: int) -> list[Any]:
    from onnx.reference.op_run import OpRun

    def given(run: Any, name: str, kind: str, default: Any) -> Any:
        """The node's own attribute: the evaluator fills in the default of the newest opset."""
        return next((getattr(item, kind) for item in run.onnx_node.attribute if item.name == name), default)

    class BatchNormalization(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, *statistics: Array, **_options: Any) -> tuple[Array]:
            shape = (-1, *[1] * (x.ndim - 2))
            scale, bias, mean, variance = (array.reshape(shape) for array in statistics)
            epsilon = given(self, "epsilon", "f", np.float32(1e-5))
            return ((scale * (x - mean) / np.sqrt(variance + epsilon) + bias).astype(x.dtype),)

    class LogSoftmax(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, **_options: Any) -> tuple[Array]:
            axis = given(self, "axis", "i", 1) % max(1, x.ndim)
            rows = x.reshape(math.prod(x.shape[:axis]), -1)
            rows = rows - rows.max(axis=1, keepdims=True, initial=-np.inf)
            return ((rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))).reshape(x.shape).astype(x.dtype),)

    class Softmax(LogSoftmax):
        def _run(self, x: Array, **options: Any) -> tuple[Array]:
            return (np.exp(super()._run(x, **options)[0]).astype(x.dtype),)

    class AveragePool(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, **_options: Any) -> tuple[Array]:
            windows, padded = _windows(x, lambda name, default: given(self, name, "ints", default), *ways(self))
            counted = padded if given(self, "count_include_pad", "i", 0) else ~np.isnan(windows)
            axes = tuple(range(2 - x.ndim, 0))
            return ((np.nansum(windows, axes) / counted.sum(axes)).astype(x.dtype),)

    class MaxPool(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, **_options: Any) -> tuple[Array]:
            windows, _ = _windows(x, lambda name, default: given(self, name, "ints", default), *ways(self))
            return (np.nanmax(windows, tuple(range(2 - x.ndim, 0))),)

    class ConvTranspose(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array, kernel: Array, bias: Array | None = None, **_options: Any) -> tuple[Array]:
            if given(self, "auto_pad", "s", b"NOTSET") != b"NOTSET" or given(self, "output_shape", "ints", None):
                raise NotImplementedError("ConvTranspose with automatic pads")
            groups = given(self, "group", "i", 1)
            result = _transposed(x, kernel, lambda name, default: given(self, name, "ints", default), groups)
            if bias is not None:
                result = result + bias.reshape(-1, *[1] * (x.ndim - 2))
            return (result.astype(x.dtype),)

    class GlobalMaxPool(OpRun):  # type: ignore[misc]
        op_domain = ""

        def _run(self, x: Array) -> tuple[Array]:
            return (x.max(tuple(range(2, x.ndim)), keepdims=True),)

    def ways(run: Any) -> tuple[bytes, bool]:
        return given(run, "auto_pad", "s", b"NOTSET"), bool(given(run, "ceil_mode", "i", 0))

    old = [*([BatchNormalization] if opset < 14 else []), *([LogSoftmax, Softmax] if opset < 13 else [])]
    return [*old, AveragePool, ConvTranspose, GlobalMaxPool, MaxPool]


#: Looks a list of numbers up, or takes what it is where it is left out.
_Given = Callable[[str, Sequence[int]], Sequence[int]]


def _transposed(x: Array, kernel: Array, given: _Given, groups: int) -> Array:
    """A transposed convolution, tap by tap: each input is spread over the outputs that its window covers."""
    rank, sizes, taps = x.ndim - 2, x.shape[2:], kernel.shape[2:]
    ones, none = (1,) * rank, (0,) * 2 * rank
    strides, dilations = given("strides", ones), given("dilations", ones)
    beyond, pads = given("output_padding", none[:rank]), given("pads", none)
    images = x.reshape(len(x), groups, -1, *sizes)
    kernels = kernel.reshape(groups, -1, *kernel.shape[1:])
    spreads = [(size - 1) * stride + 1 for size, stride in zip(sizes, strides, strict=True)]
    whole = [
        spread + (tap - 1) * dilation + more
        for spread, tap, dilation, more in zip(spreads, taps, dilations, beyond, strict=True)
    ]
    result = np.zeros((len(x), groups, kernel.shape[1], *whole), x.dtype)
    for tap in np.ndindex(*taps):
        starts = [at * dilation for at, dilation in zip(tap, dilations, strict=True)]
        places: Any = (
            ...,
            *(slice(at, at + spread, stride) for at, spread, stride in zip(starts, spreads, strides, strict=True)),
        )
        result[places] += np.einsum("ngc...,gcm->ngm...", images, kernels[(..., *tap)])
    kept: Any = (
        ...,
        *(slice(low, size - high) for low, high, size in zip(pads[:rank], pads[rank:], whole, strict=True)),
    )
    cut = result[kept]
    return np.asarray(cut.reshape(len(x), -1, *cut.shape[3:]))


def _windows(x: Array, given: _Given, auto: bytes, up: bool) -> tuple[Array, Array]:
    """What a pooling takes, (batch, channels, *positions, *taps), NaN outside; and which of it is no further than pads.

    ``given`` looks a list of numbers up; ``up``: sizes are rounded up.
    """
    rank, sizes = x.ndim - 2, x.shape[2:]
    strides, dilations = given("strides", (1,) * rank), given("dilations", (1,) * rank)
    spans = [(tap - 1) * dilation + 1 for tap, dilation in zip(given("kernel_shape", ()), dilations, strict=True)]
    pads = given("pads", (0,) * 2 * rank) if auto == b"NOTSET" else (0,) * 2 * rank
    low, high, kept, beyond = list(pads[:rank]), list(pads[rank:]), [], []
    for axis, (size, span, stride) in enumerate(zip(sizes, spans, strides, strict=True)):
        if auto.startswith(b"SAME"):
            total = max(0, (math.ceil(size / stride) - 1) * stride + span - size)
            low[axis] = math.ceil(total / 2) if auto == b"SAME_LOWER" else total // 2
            high[axis] = total - low[axis]
        whole = size + low[axis] + high[axis]
        count = (math.ceil if up else math.floor)((whole - span) / stride) + 1
        count -= up and (count - 1) * stride >= whole - high[axis]
        kept.append(slice(0, count * stride, stride))
        beyond.append((0, max(0, (count - 1) * stride + span - whole)))
    around = list(zip(low, high, strict=True))
    images = np.pad(np.pad(x, [(0, 0), (0, 0), *around], constant_values=np.nan), [(0, 0), (0, 0), *beyond],
                    constant_values=np.nan)  # fmt: skip
    inside = np.pad(np.ones([low + size + high for size, (low, high) in zip(sizes, around, strict=True)], bool), beyond)

    def windowed(array: Array) -> Array:
        view = np.lib.stride_tricks.sliding_window_view(array, spans, tuple(range(-rank, 0)))
        taken: Any = (..., *kept, *(slice(None, None, dilation) for dilation in dilations))
        return np.asarray(view[taken])

    return windowed(images), windowed(inside)
