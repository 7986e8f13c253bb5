"""A live PyTorch module as a :class:`~leo_frontends.torch.program.Program`, through ``torch.export``."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from leo_core.errors import UnsupportedModelError, first_line
from leo_core.plugins import Imported
from leo_frontends.graph import Array
from leo_frontends.torch.program import Call, Program, Ref, lower, source_line

_SHAPE = (
    "give it with the domain: bounds of the shape of one example, such as (np.zeros((1, 28, 28)), "
    'np.ones((1, 28, 28))), or a .json file with "input_shape"'
)
_DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.float16: "float32", torch.bfloat16: "float32"}


def read_module(model: Any, input_shape: tuple[int, ...] | None) -> Imported:
    """Lower a module, of which a copy in eval mode is exported, or an exported program.

    Raises :class:`UnsupportedModelError` with every operation that has no affine + ReLU form.
    """
    where = type(model).__name__
    if isinstance(model, torch.export.ExportedProgram):
        return lower(_program(model, ()), where)
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(where, ["only an nn.Module or an ExportedProgram is a whole model"])
    notes = []
    module = copy.deepcopy(model).cpu().eval()
    kinds = {tensor.dtype for tensor in (*module.parameters(), *module.buffers()) if tensor.is_floating_point()}
    if any(tensor.device.type != "cpu" for tensor in (*model.parameters(), *model.buffers())):
        notes.append("the model is on another device; its weights were read from there, the result is on the CPU")
    if kinds & {torch.float16, torch.bfloat16}:
        notes.append(
            "half-precision weights were read as they are; LEO works with them, and its result runs, in float32"
        )
        module = module.float() if torch.float64 not in kinds else module.double()
    dtype = torch.float64 if torch.float64 in kinds else torch.float32
    shape = input_shape if input_shape else _first_size(module)
    if shape is None:
        raise UnsupportedModelError(where, [f"the shape of its input is not known; {_SHAPE}"])
    try:
        with _quiet():
            exported = torch.export.export(module, (torch.zeros(1, *shape, dtype=dtype),))
    except Exception as error:  # the many exceptions of torch.export: what the module does cannot be written down
        problem = f"torch.export cannot follow it for inputs of shape {shape}: {first_line(error)}"
        raise UnsupportedModelError(where, [f"{problem}; if their shape is another, {_SHAPE}"]) from None
    return lower(_program(exported, tuple(notes)), where)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the tracebacks and graphs that torch logs and prints where it fails; the error says what is wrong."""
    was = logging.root.manager.disable
    logging.disable(max(was, logging.ERROR))
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(was)


def _first_size(module: nn.Module) -> tuple[int, ...] | None:
    """The width of the first dense layer."""
    first = next((layer for layer in module.modules() if isinstance(layer, nn.Linear)), None)
    return None if first is None else (first.in_features,)


def _program(exported: Any, notes: tuple[str, ...]) -> Program:
    signature, graph = exported.graph_signature, exported.graph
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        counts = f"{len(signature.user_inputs)} inputs and {len(signature.user_outputs)} outputs"
        raise UnsupportedModelError("the model", [f"it has {counts}; LEO reads models with one of each"])
    held = {**exported.state_dict, **exported.constants}
    stored = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    constants = {name: numbers(held[key]) for name, key in stored.items() if isinstance(held.get(key), torch.Tensor)}
    calls = []
    shape, dtype, batch = (), "float32", 1
    for node in graph.nodes:
        if node.op == "placeholder" and node.name == signature.user_inputs[0]:
            value = node.meta["val"]
            shape, dtype = tuple(int(d) for d in value.shape[1:]), _DTYPES.get(value.dtype, "")
            batch = value.shape[0] if value.shape and isinstance(value.shape[0], int) else 1
        elif node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor):
            calls.append(_call(node))
    if not dtype or not shape:
        raise UnsupportedModelError("the model", ["its input is no batch of float vectors or arrays"])
    returned = exported.call_spec.out_spec
    container = "" if returned is None or returned.is_leaf() else returned.type.__name__
    output = signature.user_outputs[0]
    return Program(signature.user_inputs[0], shape, dtype, constants, calls, output, notes, batch, container)


def _call(node: Any) -> Call:
    target = node.target
    schema = getattr(target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else [str(i) for i in range(len(node.args))]
    arguments = {name: _argument(value) for name, value in zip(names, node.args, strict=False)}
    arguments |= {name: _argument(value) for name, value in node.kwargs.items()}
    operator = str(target).removeprefix("aten.")
    return Call(operator, arguments, node.name, source_line(node.meta.get("stack_trace")))


def _argument(value: Any) -> Any:
    if isinstance(value, torch.fx.Node):  # what is no tensor is the size of the batch: LEO works on one example
        return Ref(value.name) if isinstance(value.meta.get("val"), torch.Tensor) else 1
    if isinstance(value, list | tuple):
        return [_argument(item) for item in value]
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if isinstance(value, torch.device | torch.layout | torch.memory_format):
        return None
    return value


def numbers(tensor: Any) -> Array:
    """A tensor's values; half floats become float32, which is exact."""
    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return np.asarray(tensor.numpy())
