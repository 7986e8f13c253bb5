"""Random PyTorch modules: layers, functions, in-place and view operations, reuse, branches, and what must be refused.

A module is a list of steps, each a function of the tensors there are; parameters are made beside. Everything follows
from the seed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch as mocked

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - everybody calls it that
from torch.nn.utils import parametrizations, prune

from door_cases import Case
from leo_frontends import lowering
from leo_frontends.graph import Value
from leo_frontends.torch import memory, operators, views

Draw = np.random.Generator


class Drawn(nn.Module):
    """``steps`` go from the input to the output, each of a list of tensors so far; the last one is returned."""

    def __init__(self, steps: list[Callable[..., Any]], layers: nn.ModuleList, finish: Callable[..., Any]) -> None:
        super().__init__()
        self.steps, self.layers, self.finish = steps, layers, finish

    def forward(self, x: torch.Tensor) -> Any:
        held = [x]
        for step in self.steps:
            held.append(step(held))
        return self.finish(held[-1])


def make(seed: int, folder: Path) -> Case:
    """The module of a seed, one in eight as a ``.pt2`` file."""
    rng = np.random.default_rng([seed, 2])
    generator = torch.random.fork_rng()
    with generator:
        torch.manual_seed(seed)
        for _ in range(50):
            drawn = _module(rng)
            if drawn is not None:
                break
        module, shape, uses, double = drawn
    dtype = torch.float64 if double else torch.float32

    def run(inputs: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            result = module(torch.from_numpy(np.array(inputs)).to(dtype))
        while isinstance(result, list | tuple | dict):
            result = next(iter(result.values())) if isinstance(result, dict) else result[0]
        return result.double().numpy()

    model: Any = module
    if rng.random() < 0.125:
        saved = _saved(module, shape, dtype, rng, folder)
        if saved is not None:
            uses = (*uses, ".pt2")
            model, module = saved
    return Case(uses, model, shape, run)


def _saved(
    module: nn.Module, shape: tuple[int, ...], dtype: Any, rng: Draw, folder: Path
) -> tuple[Path, nn.Module] | None:
    """The module as a .pt2 file, its batch free, with operators decomposed or not, and what PyTorch loads from it:
    decomposing changes what some programs compute. None where PyTorch cannot export it, or load what it saved.
    """
    path = folder / "model.pt2"
    try:
        with torch.no_grad():
            exported = torch.export.export(
                module, (torch.zeros(3, *shape, dtype=dtype),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
            )
        if rng.random() < 0.4:
            exported = exported.run_decompositions({} if rng.random() < 0.5 else None)
        torch.export.save(exported, path)
        return path, torch.export.load(path).module()
    except Exception:
        return None


def _module(rng: Draw) -> tuple[nn.Module, tuple[int, ...], tuple[str, ...], bool] | None:
    """A module that runs for 1, 2 and 7 examples, and is not changed by running; else None."""
    shape = SHAPES[rng.integers(len(SHAPES))]
    layers, steps, uses = nn.ModuleList(), [], []
    double = rng.random() < 0.15
    dtype = torch.float64 if double else torch.float32
    with torch.no_grad():
        held = [torch.randn(3, *shape, dtype=dtype)]
        for _ in range(rng.integers(2, 9)):
            for _ in range(6):
                name = NAMES[rng.choice(len(NAMES), p=WEIGHTS)]
                state = rng.bit_generator.state
                step = STEPS[name](rng, layers, held, dtype)
                if step is None:
                    continue
                try:  # on a copy, since steps may change what is held
                    trial = [tensor.clone() for tensor in held]
                    result = step(trial)
                except Exception:
                    continue
                if not isinstance(result, torch.Tensor) or not 0 < result.numel() < 600 or result.dtype != dtype:
                    continue
                del state
                steps.append(step)
                uses.append(name)
                held.append(result)
                break
        finish, ending = ENDS[rng.integers(len(ENDS))] if rng.random() < 0.4 else (_as_it_is, "")
        module = Drawn(steps, layers, finish).to(dtype).eval()
        _shuffle_statistics(module, rng)
        try:
            probe = torch.randn(7, *shape, dtype=dtype)
            for count in (1, 2, 7):
                module(probe[:count].clone())
        except Exception:
            return None
    return module, shape, tuple(dict.fromkeys([*uses, *([ending] if ending else [])])), double


def _shuffle_statistics(module: nn.Module, rng: Draw) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d) and layer.running_mean is not None:
            layer.running_mean.copy_(torch.from_numpy(rng.normal(size=layer.running_mean.shape)))
            layer.running_var.copy_(torch.from_numpy(rng.uniform(0.3, 3, layer.running_var.shape)))


SHAPES = ((3,), (6,), (4,), (2, 3), (4, 4), (2, 3, 4), (1, 6), (6, 1))


def _as_it_is(x: Any) -> Any:
    return x


ENDS = [
    (lambda x: torch.softmax(x, -1), "softmax"),
    (lambda x: torch.log_softmax(x, 1), "log_softmax"),
    (torch.sigmoid, "sigmoid"),
    (torch.tanh, "tanh"),
    (lambda x: torch.tanh(x).reshape(x.shape[0], -1), "tanh, reshaped"),
    (lambda x: (x,), "tuple"),
    (lambda x: {"out": x}, "dict"),
    (lambda x: x.flatten(1), "flatten"),
    (lambda x: torch.relu(torch.softmax(x, -1)), "relu of softmax"),
    (lambda x: x.squeeze(), "squeeze"),
]


def _last(held: list[Any]) -> Any:
    return held[-1]


def _layer(layers: nn.ModuleList, layer: nn.Module) -> int:
    layers.append(layer)
    return len(layers) - 1


def applied(make: Callable[[Draw, Any], nn.Module | None]) -> Callable[..., Any]:
    """A layer on the last tensor."""

    def step(rng: Draw, layers: nn.ModuleList, held: list[Any], dtype: Any) -> Any:
        layer = make(rng, held[-1])
        if layer is None:
            return None
        layer = layer.to(dtype).eval()
        layers.append(layer)
        return lambda held: layer(held[-1])

    return step


def reused(rng: Draw, layers: nn.ModuleList, held: list[Any], _dtype: Any) -> Any:
    """A layer that is there already, once more."""
    fitting = [m for m in layers if isinstance(m, nn.Linear) and m.in_features == held[-1].shape[-1]]
    if not fitting:
        return None
    layer = fitting[rng.integers(len(fitting))]
    return lambda held: layer(held[-1])


def function(*choices: Callable[..., Any]) -> Callable[..., Any]:
    """One of several functions of the last tensor; each may draw from the generator first."""

    def step(rng: Draw, _layers: nn.ModuleList, held: list[Any], _dtype: Any) -> Any:
        chosen = choices[rng.integers(len(choices))]
        seed = int(rng.integers(2**31))
        return lambda held: chosen(held[-1], np.random.default_rng(seed))

    return step


def of_two(*choices: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the last tensor and an earlier one of the same shape."""

    def step(rng: Draw, _layers: nn.ModuleList, held: list[Any], _dtype: Any) -> Any:
        same = [number for number, tensor in enumerate(held[:-1]) if tensor.shape == held[-1].shape]
        if not same:
            return None
        other, chosen = same[rng.integers(len(same))], choices[rng.integers(len(choices))]
        return lambda held: chosen(held[-1], held[other])

    return step


def back(rng: Draw, _layers: nn.ModuleList, held: list[Any], _dtype: Any) -> Any:
    """An earlier tensor again, as it is now."""
    if len(held) < 2:
        return None
    number = int(rng.integers(len(held) - 1))
    return lambda held: held[number]


def changed_then(rng: Draw, _layers: nn.ModuleList, held: list[Any], _dtype: Any) -> Any:
    """A view of an earlier tensor is changed in place; the last tensor, or the changed one, goes on."""
    number = int(rng.integers(len(held)))
    view, change = VIEWS[rng.integers(len(VIEWS))], CHANGES[rng.integers(len(CHANGES))]
    seed, on = int(rng.integers(2**31)), rng.random() < 0.5

    def step(held: list[Any]) -> Any:
        target = held[number]
        if number == 0:
            target = target * 1.0  # not the caller's own tensor
            held[0] = target
        change(view(target, np.random.default_rng(seed)), np.random.default_rng(seed + 1))
        return target if on else held[-1]

    return step


def _columns(x: Any, rng: Draw) -> Any:
    return x[..., : int(rng.integers(1, x.shape[-1] + 1))]


VIEWS: list[Callable[..., Any]] = [
    lambda x, rng: x,
    _columns,
    lambda x, rng: x[:, 0],
    lambda x, rng: x[..., ::2],
    lambda x, rng: x.view(x.shape[0], -1),
    lambda x, rng: x.reshape(x.shape[0], -1),
    lambda x, rng: x.flatten(1),
    lambda x, rng: x.transpose(1, -1),
    lambda x, rng: x.transpose(0, 1),
    lambda x, rng: x.transpose(0, -1).contiguous(),
    lambda x, rng: x.transpose(1, -1).reshape(x.shape[0], -1),
    lambda x, rng: x.detach(),
    lambda x, rng: x.data,
    lambda x, rng: F.dropout(x, 0.5, False),
    lambda x, rng: x.contiguous(),
    lambda x, rng: x.clone(),
    lambda x, rng: x.to(x.dtype),
    lambda x, rng: x.unsqueeze(1),
    lambda x, rng: x.squeeze(-1),
    lambda x, rng: x.chunk(2, -1)[0],
    lambda x, rng: x.split(1, -1)[-1],
    lambda x, rng: x.unbind(1)[0],
    lambda x, rng: x.narrow(1, 0, 1),
    lambda x, rng: x.select(-1, 0),
    lambda x, rng: torch.tensor_split(x, 2, 1)[0],
    lambda x, rng: x.movedim(1, -1),
    lambda x, rng: x.T if x.ndim == 2 else x.mT,
    lambda x, rng: torch.relu(x),
    lambda x, rng: x[:, [0]],
    lambda x, rng: torch.flatten(x.transpose(1, -1), 1),
    lambda x, rng: x.expand(x.shape),
    lambda x, rng: x.unfold(1, 1, 1),
]

CHANGES: list[Callable[..., Any]] = [
    lambda x, rng: x.relu_(),
    lambda x, rng: x.add_(1.0),
    lambda x, rng: x.mul_(-0.5),
    lambda x, rng: x.sub_(x.detach().clone() * 2),
    lambda x, rng: x.clamp_(-0.5, 0.5),
    lambda x, rng: x.zero_(),
    lambda x, rng: x.fill_(0.25),
    lambda x, rng: x.copy_(torch.ones(x.shape[-1], dtype=x.dtype)),
    lambda x, rng: x.abs_(),
    lambda x, rng: x.neg_(),
    lambda x, rng: F.leaky_relu_(x, 0.1),
    lambda x, rng: F.relu(x, inplace=True),
    lambda x, rng: F.hardtanh(x, inplace=True),
    lambda x, rng: x.__setitem__((slice(None), 0), 0.0),
    lambda x, rng: x.__setitem__((Ellipsis, slice(0, 1)), 2.0),
    lambda x, rng: x.__setitem__((slice(None), [0]), x[:, [0]] * 3),
    lambda x, rng: x.masked_fill_(torch.arange(x.shape[-1]) % 2 == 0, 0.5),
    lambda x, rng: x.div_(2),
    lambda x, rng: x.__iadd__(x),
    lambda x, rng: x.clamp_min_(0),
    lambda x, rng: x.squeeze_(),
]


def _linear(rng: Draw, x: Any) -> nn.Module:
    return nn.Linear(x.shape[-1], int(rng.integers(1, 6)), bias=bool(rng.random() < 0.8))


def _special_linear(rng: Draw, x: Any) -> nn.Module:
    layer = nn.Linear(x.shape[-1], int(rng.integers(2, 5)))
    kind = rng.integers(6)
    if kind == 0:
        return torch.nn.utils.weight_norm(layer)
    if kind == 1:
        return parametrizations.weight_norm(layer)
    if kind == 2:
        return parametrizations.spectral_norm(layer)
    if kind == 3:
        return prune.l1_unstructured(layer, "weight", 0.5)
    if kind == 4:
        layer.weight = nn.Parameter(layer.weight.detach().relu().to_sparse())
        return layer
    return nn.Sequential(layer, nn.Identity(), nn.Dropout(0.3))


class _Computed(nn.Module):
    """A weight that is worked out in forward."""

    def __init__(self, rng: Draw, width: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(3, width))
        self.register_buffer("mask", torch.from_numpy(rng.integers(0, 2, (3, width)).astype(np.float32)))
        self.kind = int(rng.integers(6))

    def forward(self, x: Any) -> Any:
        weight = self.a.to(x.dtype)
        weight = [
            lambda: weight * self.mask.to(x.dtype),
            lambda: torch.relu(weight),
            lambda: F.normalize(weight, dim=1),
            lambda: torch.exp(weight),
            lambda: weight / weight.norm(),
            lambda: torch.softmax(weight, 0),
        ][self.kind]()
        return F.linear(x, weight)


class _Counting(nn.Module):
    """Changes a buffer each time."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Any) -> Any:
        self.seen += 1
        return x + self.seen.to(x.dtype)


def _batch_norm(rng: Draw, x: Any) -> nn.Module | None:
    if x.ndim not in (2, 3):
        return None
    return nn.BatchNorm1d(x.shape[1], affine=bool(rng.random() < 0.8), track_running_stats=bool(rng.random() < 0.9))


def _activation(rng: Draw, x: Any) -> nn.Module:
    choices = (
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.LeakyReLU(0.2),
        nn.LeakyReLU(0.05, inplace=True),
        nn.ReLU6(),
        nn.Hardtanh(),
        nn.Hardtanh(-0.3, 0.8),
        nn.PReLU(),
        nn.Hardsigmoid(),
        nn.Threshold(0.0, 0.0),
        nn.Threshold(0.1, 0.0),
        nn.RReLU(),
    )
    return choices[rng.integers(len(choices))]


def _nonlinear(rng: Draw, x: Any) -> nn.Module:
    choices = (nn.Sigmoid(), nn.Tanh(), nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.Softmax(-1), nn.LayerNorm(x.shape[-1]))
    return choices[rng.integers(len(choices))]


def _rest(rng: Draw, x: Any) -> nn.Module | None:
    choices = (
        nn.Flatten(),
        nn.Identity(),
        nn.Dropout(0.4),
        nn.Dropout(0.4, inplace=True),
        nn.AlphaDropout(0.2),
        nn.ConstantPad1d((1, 0), 0.5) if x.ndim == 3 else nn.Identity(),
        nn.Unflatten(1, (x.shape[1], 1)),
        nn.ZeroPad2d(1) if x.ndim == 4 else nn.Flatten(1),
        _Counting() if rng.random() < 0.2 else nn.Identity(),
        nn.Conv1d(x.shape[1], 2, 1) if x.ndim == 3 else nn.Identity(),
    )
    return choices[rng.integers(len(choices))]


#: Functions that a model may use; with the tensor and a generator.
_GOOD: tuple[Callable[..., Any], ...] = (
    lambda x, rng: x + 1,
    lambda x, rng: 2 - x,
    lambda x, rng: x * 0.3,
    lambda x, rng: x / 3,
    lambda x, rng: -x,
    lambda x, rng: x - torch.arange(x.shape[-1], dtype=x.dtype),
    lambda x, rng: torch.abs(x),
    lambda x, rng: x.clamp(max=0.7),
    lambda x, rng: torch.clamp(x, torch.full((x.shape[-1],), -0.4, dtype=x.dtype)),
    lambda x, rng: torch.maximum(x, torch.zeros(x.shape[-1], dtype=x.dtype)),
    lambda x, rng: x.mean(-1, keepdim=True),
    lambda x, rng: x.sum(1, keepdim=True),
    lambda x, rng: x - x.mean(-1, keepdim=True),
    lambda x, rng: x.flip(-1),
    lambda x, rng: x.roll(1, -1),
    lambda x, rng: x[:, [0, 0]],
    lambda x, rng: x[..., torch.tensor([0])],
    lambda x, rng: torch.cat([x, x * 2], -1),
    lambda x, rng: torch.cat([x, torch.ones_like(x)], 1),
    lambda x, rng: torch.stack([x, -x], 1),
    lambda x, rng: torch.where(torch.arange(x.shape[-1]) > 0, x, torch.zeros_like(x)),
    lambda x, rng: F.pad(x, (1, 1)),
    lambda x, rng: x.repeat(*([1] * (x.ndim - 1)), 2),
    lambda x, rng: F.hardsigmoid(x),
    lambda x, rng: x @ torch.eye(x.shape[-1], dtype=x.dtype),
    lambda x, rng: x.index_select(-1, torch.tensor([0])),
    lambda x, rng: x.view(x.size(0), -1),
    lambda x, rng: x.reshape(-1, x.shape[-1]).view(x.shape),
    lambda x, rng: x.detach(),
    lambda x, rng: x.transpose(1, -1),
    lambda x, rng: x.unsqueeze(-1),
    lambda x, rng: torch.squeeze(x, -1),
    lambda x, rng: sum(x.chunk(2, -1)[:1]),
    lambda x, rng: x.gather(1, torch.zeros(x.shape, dtype=torch.long)),
    lambda x, rng: x.masked_fill(torch.arange(x.shape[-1]) == 0, -1.0),
    lambda x, rng: torch.lerp(x, -x, 0.25),
    lambda x, rng: torch.einsum("...i,ji->...j", x, torch.ones(2, x.shape[-1], dtype=x.dtype)),
    lambda x, rng: torch.addmm(
        torch.ones(2, dtype=x.dtype), x.flatten(1), torch.ones(x.flatten(1).shape[1], 2, dtype=x.dtype)
    ),
    lambda x, rng: x * torch.ones(x.shape[0], *([1] * (x.ndim - 1)), dtype=x.dtype),
    lambda x, rng: x.narrow(-1, 0, 1),
    lambda x, rng: x.tile((2,)),
    lambda x, rng: torch.rsub(x, 1.0, alpha=2.0),
    lambda x, rng: torch.add(x, x, alpha=-0.5),
    lambda x, rng: x.to(torch.float64).to(x.dtype),
    lambda x, rng: torch.threshold(x, 0.0, 0.0),
    lambda x, rng: torch.relu(x).transpose(1, -1).contiguous().transpose(1, -1),
    lambda x, rng: x.movedim(1, -1),
)


def _under_no_grad(x: Any, _rng: Draw) -> Any:
    with torch.no_grad():
        y = torch.relu(x)
    with torch.enable_grad():
        return y + x


#: What treats the examples of a batch differently, or counts them, or has no affine + ReLU form.
_BAD: tuple[Callable[..., Any], ...] = (
    lambda x, rng: x * x.shape[0],
    lambda x, rng: x / x.shape[0],
    lambda x, rng: x[:1].expand(x.shape),
    lambda x, rng: x if x.shape[0] > 1 else x * 2,
    lambda x, rng: x if x.shape[0] < 5 else -x,
    lambda x, rng: x.flip(0),
    lambda x, rng: x - x.mean(0, keepdim=True),
    lambda x, rng: x + x[:1],
    lambda x, rng: x.roll(1, 0),
    lambda x, rng: x + torch.arange(x.shape[0], dtype=x.dtype).reshape(-1, *([1] * (x.ndim - 1))),
    lambda x, rng: torch.cat([x[1:], x[:1]], 0),
    lambda x, rng: x.roll(1),
    lambda x, rng: x.transpose(0, 1).flip(1).transpose(0, 1),
    lambda x, rng: x * x,
    lambda x, rng: torch.exp(x),
    lambda x, rng: F.dropout(x, 0.5, True),
    lambda x, rng: x.cumsum(0),
    lambda x, rng: x.reshape(x.shape[-1], -1).reshape(x.shape),
    lambda x, rng: x + min(x.shape[0], 3),
    lambda x, rng: x.half().to(x.dtype),
    lambda x, rng: x.sort(0).values,
    lambda x, rng: x + (x.shape[0] % 4),
    lambda x, rng: x.round(),
    lambda x, rng: torch.sign(x),
    lambda x, rng: x + x.shape[0] // 10,
    lambda x, rng: x - x.amax(0, keepdim=True),
    lambda x, rng: x.long().to(x.dtype),
    lambda x, rng: x + torch.zeros(x.shape[0], x.shape[0], dtype=x.dtype).diag().sum(),
    lambda x, rng: x * (x.shape[0] > 4),
)

STEPS: dict[str, Callable[..., Any]] = {
    "Linear": applied(_linear),
    "Linear, computed weight": applied(_special_linear),
    "weight made in forward": applied(lambda rng, x: _Computed(rng, x.shape[-1])),
    "BatchNorm1d": applied(_batch_norm),
    "activation": applied(_activation),
    "no form": applied(_nonlinear),
    "other layer": applied(_rest),
    "layer again": reused,
    "function": function(*_GOOD),
    "under no_grad": function(_under_no_grad),
    "batch mixed or counted": function(*_BAD),
    "of two": of_two(
        torch.add,
        torch.sub,
        torch.maximum,
        torch.minimum,
        lambda x, y: torch.cat([x, y], -1),
        lambda x, y: x + 2 * y,
        lambda x, y: torch.stack([x, y], -1),
        lambda x, y: x.add_(y),
        lambda x, y: torch.relu_(x).add(y),
        lambda x, y: x * y,
    ),
    "back": back,
    "in place": changed_then,
}
_FREQUENCIES = {
    "Linear": 6,
    "Linear, computed weight": 0.7,
    "weight made in forward": 0.5,
    "BatchNorm1d": 0.8,
    "activation": 4,
    "no form": 0.08,
    "other layer": 1,
    "layer again": 0.7,
    "function": 4,
    "under no_grad": 0.3,
    "batch mixed or counted": 0.25,
    "of two": 1.5,
    "back": 0.8,
    "in place": 2.5,
}
NAMES = list(STEPS)
WEIGHTS = np.array([_FREQUENCIES[name] for name in NAMES])
WEIGHTS /= WEIGHTS.sum()


def _operator(name: str, wrong: Callable[..., Any]) -> Callable[[], Any]:
    right = operators.OPERATORS[name]

    def changed(graph: Any, origin: Any, given: Any) -> Any:
        return wrong(right, graph, origin, given)

    return lambda: mocked.dict(operators.OPERATORS, {name: changed})


def _view(name: str, wrong: Callable[..., Any]) -> Callable[[], Any]:
    right = views.VIEWS[name]
    return lambda: mocked.dict(views.VIEWS, {name: lambda array, given: wrong(right, array, given)})


@contextlib.contextmanager
def _copies_for_views() -> Iterator[None]:
    """In-place changes reach only the tensor that is named: as LEO read them once."""

    def write(self: Any, origin: Any, place: Any, tensor: Any) -> None:
        self._contents.append(tensor)
        number = len(self._contents) - 1
        object.__setattr__(place, "storage", number)
        object.__setattr__(place, "at", np.arange(place.at.size).reshape(place.at.shape))

    with mocked.object(memory.Memory, "write", write):
        yield


@contextlib.contextmanager
def _bias_dropped() -> Iterator[None]:
    right = lowering.dense

    def dense(graph: Any, origin: Any, value: Any, weight: Any, bias: Any) -> Any:
        return right(graph, origin, value, weight, np.zeros_like(bias))

    with mocked.object(lowering, "dense", dense):
        yield


@contextlib.contextmanager
def _transposed_columns() -> Iterator[None]:
    right = lowering.dense

    def dense(graph: Any, origin: Any, value: Any, weight: Any, bias: Any) -> Any:
        return right(graph, origin, Value(value.node, value.index[..., ::-1]), weight, bias)

    with mocked.object(lowering, "dense", dense):
        yield


def _without(key: str, default: Any) -> Callable[..., Any]:
    return lambda right, graph, origin, given: right(graph, origin, {**given, key: default})


def _of_same_shape(right: Callable[..., Any], array: Any, given: Any) -> Any:
    changed = right(array, given)
    return array if array.shape == changed.shape else changed


def _turned(key: str) -> Callable[..., Any]:
    """With an argument turned round: a list, or a mask."""

    def wrong(right: Callable[..., Any], graph: Any, origin: Any, given: Any) -> Any:
        value = given[key]
        return right(graph, origin, {**given, key: value[::-1] if isinstance(value, list) else ~np.asarray(value)})

    return wrong


def _as(name: str, *keys: str) -> Callable[..., Any]:
    """Another operator, with only these arguments of it, or all."""

    def wrong(_right: Callable[..., Any], graph: Any, origin: Any, given: Any) -> Any:
        return operators.OPERATORS[name](graph, origin, {key: given[key] for key in keys or given})

    return wrong


def _centred(right: Callable[..., Any], graph: Any, origin: Any, given: Any) -> Any:
    return right(graph, origin, {**given, "running_mean": np.zeros_like(given["running_mean"])})


#: Ways to misread, for :mod:`door_cases.faults`.
FAULTS: list[tuple[str, Callable[[], Any]]] = [
    ("in-place changes do not reach other views", _copies_for_views),
    ("biases are dropped", _bias_dropped),
    ("columns of matrices are turned round", _transposed_columns),
    ("the slope of a leaky ReLU is its default", _operator("leaky_relu", _without("negative_slope", 0.01))),
    ("batch norm forgets its epsilon", _operator("batch_norm", _without("eps", 0.5))),
    ("batch norm without its mean", _operator("batch_norm", _centred)),
    ("sub adds", _operator("sub", _as("add"))),
    ("rsub subtracts the wrong way round", _operator("rsub", _as("sub"))),
    ("alpha is ignored", _operator("add", _without("alpha", 1))),
    ("concatenation the other way round", _operator("cat", _turned("tensors"))),
    ("a transpose does nothing", _view("transpose", _of_same_shape)),
    ("flip does nothing", _operator("flip", lambda _right, _graph, _origin, given: given["self"])),
    ("the ends of a clamp are those of hardtanh", _operator("clamp", _as("hardtanh", "self"))),
    ("a mean is a sum", _operator("mean", _as("sum"))),
    ("where is turned round", _operator("where", _turned("condition"))),
]

__all__ = ["FAULTS", "make"]
