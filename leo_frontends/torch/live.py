"""A live PyTorch module as a :class:`~leo_frontends.torch.program.Program`, through ``torch.export``."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_structure

from leo_core.errors import UnsupportedModelError, first_line
from leo_core.plugins import Imported
from leo_frontends.batches import in_batches
from leo_frontends.graph import ALONE, MIXES, Array
from leo_frontends.torch.program import Body, Call, Program, Ref, lower, same_function, source_line

_SHAPE = (
    "give it with the domain: bounds of the shape of one example, such as (np.zeros((1, 28, 28)), "
    'np.ones((1, 28, 28))), or a .json file with "input_shape"'
)
_DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.float16: "float32", torch.bfloat16: "float32"}


def read_module(model: Any, input_shape: tuple[int, ...] | None) -> Imported:
    """Lower a module, of which a copy in eval mode is exported, or an exported program.

    Raises :class:`UnsupportedModelError` with every operation that is not read.
    """
    where = type(model).__name__
    if isinstance(model, torch.export.ExportedProgram):
        return _read_program(model, where)
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError(where, ["only an nn.Module or an ExportedProgram is a whole model"])
    notes = []
    original = _copied(model, where)
    kinds = {tensor.dtype for tensor in (*original.parameters(), *original.buffers()) if tensor.is_floating_point()}
    if any(tensor.device.type != "cpu" for tensor in (*model.parameters(), *model.buffers())):
        notes.append("the model is on another device; its weights were read from there, the result is on the CPU")
    module, half = original, kinds & {torch.float16, torch.bfloat16}
    if half:
        notes.append(
            "half-precision weights were read as they are; LEO works with them, and its result runs, in float32"
        )
        module = _copied(original, where)
        module = module.float() if torch.float64 not in kinds else module.double()
    dtype = torch.float64 if torch.float64 in kinds else torch.float32
    shape = input_shape if input_shape else _first_size(module)
    if shape is None:
        raise UnsupportedModelError(where, [f"the shape of its input is not known; {_SHAPE}"])
    imported = _read_exports(module, shape, dtype, tuple(notes), where)
    narrow = min(half, key=lambda kind: -torch.finfo(kind).eps) if half else dtype
    run = partial(run_module, original, dtype=narrow)
    return replace(imported, run=run, runs_in=str(narrow).removeprefix("torch.") if half else "")


def _read_exports(
    module: nn.Module, shape: tuple[int, ...], dtype: torch.dtype, notes: tuple[str, ...], where: str
) -> Imported:
    """The module exported for batches of any size, and for one example: both must be one network.

    What torch.export leaves free it takes to be 2 or more, so one example may go another way.
    """
    alone = _export(module, torch.zeros(1, *shape, dtype=dtype), None, shape, where)
    try:
        free = ({0: torch.export.Dim.DYNAMIC},)
        several = _export(module, torch.zeros(3, *shape, dtype=dtype), free, shape, where)
        narrowed = [ends for ends in several.range_constraints.values() if ends.lower > 2 or ends.upper < 2**31]
    except UnsupportedModelError as error:
        lower(_program(alone, notes, 1), where)  # what is wrong with one example is said first
        reason = str(error.problems[0]).partition(": ")[2].partition("; if their shape")[0]
        raise UnsupportedModelError(
            where, [f"{MIXES}: torch.export cannot leave their number free: {reason}"]
        ) from None
    if narrowed:
        raise UnsupportedModelError(where, [f"{MIXES}: what it computes depends on how many there are"])
    imported = lower(_program(several, notes, 0), where)
    try:
        single = lower(_program(alone, notes, 1), where)
    except UnsupportedModelError:
        single = None
    if single is None or not same_function(imported, single):
        raise UnsupportedModelError(where, [f"{MIXES}: {ALONE}"])
    return replace(imported, inside=_inside(several))


def _export(module: nn.Module, example: Any, dynamic: Any, shape: tuple[int, ...], where: str) -> Any:
    try:
        with _quiet(), torch.no_grad(), torch.device("cpu"):
            return torch.export.export(module, (example,), dynamic_shapes=dynamic)
    except Exception as error:  # the many exceptions of torch.export: what the module does cannot be written down
        needed = _needed(module)
        if len(needed) > 1:
            problem = f"it takes {len(needed)} inputs ({', '.join(needed)}); LEO reads models with one"
            raise UnsupportedModelError(where, [problem]) from None
        problem = f"torch.export cannot follow it for inputs of shape {shape}: {first_line(error)}"
        raise UnsupportedModelError(where, [f"{problem}; if their shape is another, {_SHAPE}"]) from None


def _needed(module: nn.Module) -> list[str]:
    """The inputs that ``forward`` cannot do without."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [item.name for item in parameters if item.kind in kinds and item.default is inspect.Parameter.empty]


def _copied(model: nn.Module, where: str) -> nn.Module:
    """A copy in eval mode on the CPU, all weights stored in full.

    Weights that hooks work out anew (pruning, weight_norm) are no leaves, which deepcopy refuses; they are copied as
    values.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in (*vars(module).values(), *module._parameters.values(), *module._buffers.values()):
            if isinstance(value, torch.Tensor) and (value.layout != torch.strided or not value.is_leaf):
                dense = value.detach().to_dense() if value.layout != torch.strided else value.detach().clone()
                memo[id(value)] = nn.Parameter(dense, False) if isinstance(value, nn.Parameter) else dense
    try:
        with torch.no_grad():
            return copy.deepcopy(model, memo).cpu().eval()
    except Exception as error:  # deepcopy calls whatever the model's attributes define
        problem = (
            f"it cannot be copied ({type(error).__name__}: {first_line(error)}); take off what holds on to tensors, as "
            "with torch.nn.utils.prune.remove, torch.nn.utils.remove_weight_norm or "
            "torch.nn.utils.parametrize.remove_parametrizations, and forget stored activations"
        )
        raise UnsupportedModelError(where, [problem]) from None


def run_module(module: Any, inputs: Any, dtype: torch.dtype | None = None) -> Any:
    """What a module computes for a batch: an array, whatever its one tensor is returned in; or several, by their keys
    or in a list."""
    given = torch.from_numpy(np.array(inputs))
    with torch.no_grad(), torch.device("cpu"):
        result = module(given if dtype is None else given.to(dtype))
    leaves = tree_leaves(result)
    arrays = [(leaf.to_dense() if leaf.layout != torch.strided else leaf).double().numpy() for leaf in leaves]
    if len(arrays) == 1:
        return arrays[0]
    keys = _keys(tree_structure(result))
    return dict(zip(keys, arrays, strict=True)) if keys else arrays


def _keys(spec: Any) -> tuple[str, ...]:
    """The names of tensors that are returned in a dict; none where it is another container, or holds others."""
    if spec is None or spec.is_leaf() or not issubclass(spec.type, dict):
        return ()
    named = isinstance(spec.context, list) and all(isinstance(key, str) for key in spec.context)
    return tuple(spec.context) if named and all(child.is_leaf() for child in _inner(spec)) else ()


def _inner(spec: Any) -> list[Any]:
    return list(spec.children() if hasattr(spec, "children") else spec.children_specs)  # by the version of torch


def _inside(exported: Any) -> Any:
    """The values of an exported program's calls, by their names."""

    def inside(inputs: Any) -> dict[str, Any]:
        seen: dict[str, Any] = {}

        class Watched(torch.fx.Interpreter):  # type: ignore[misc]
            def run_node(self, node: Any) -> Any:
                result = super().run_node(node)
                if isinstance(result, torch.Tensor):
                    seen[node.name] = result.detach().double().numpy().copy()
                return result

        with torch.no_grad():
            Watched(exported.module()).run(torch.from_numpy(np.array(inputs)))
        return seen

    return inside


def _read_program(exported: Any, where: str) -> Imported:
    """A program that was exported, or loaded, by the user: it can be run."""
    imported = lower(_program(exported, (), None), where)
    try:
        module = exported.module()
    except Exception as error:  # it is only run to compare
        return replace(imported, not_run=f"the program cannot be run ({first_line(error)})")
    return replace(imported, run=in_batches(partial(run_module, module), _batch_of(exported)))


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


def _batch_of(exported: Any) -> int:
    """The batch size that a program fixes, 0 where it is free."""
    name = exported.graph_signature.user_inputs[0]
    value = next(node.meta["val"] for node in exported.graph.nodes if node.op == "placeholder" and node.name == name)
    return value.shape[0] if value.shape and isinstance(value.shape[0], int) else 0


def _program(exported: Any, notes: tuple[str, ...], batch: int | None) -> Program:
    """``batch`` is that of the export; None: as the program says."""
    signature, graph = exported.graph_signature, exported.graph
    if len(signature.user_inputs) != 1 or not signature.user_outputs:
        counts = f"{len(signature.user_inputs)} inputs and {len(signature.user_outputs)} outputs"
        raise UnsupportedModelError("the model", [f"it has {counts}; LEO reads models with one input"])
    other = [output for output in signature.user_outputs if not isinstance(output, str)]
    if other:
        raise UnsupportedModelError("the model", [f"it returns {other[0]!r}; LEO reads models that return tensors"])
    if signature.buffers_to_mutate:
        raise UnsupportedModelError("the model", ["it changes its buffers, so that each run differs from the last"])
    held = {**exported.state_dict, **exported.constants}
    stored = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    constants = {name: numbers(held[key]) for name, key in stored.items() if isinstance(held.get(key), torch.Tensor)}
    given = next(n for n in graph.nodes if n.op == "placeholder" and n.name == signature.user_inputs[0]).meta["val"]
    shape, dtype = tuple(given.shape[1:]), _DTYPES.get(given.dtype, "")
    if not dtype or not shape or not all(isinstance(size, int) for size in shape):
        raise UnsupportedModelError("the model", ["its input is no batch of float vectors or arrays of one shape"])
    returned = exported.call_spec.out_spec
    container = "" if returned is None or returned.is_leaf() else returned.type.__name__.removeprefix("immutable_")
    if container and not all(child.is_leaf() for child in _inner(returned)):
        container = f"nested {container}"
    return Program(
        signature.user_inputs[0], shape, dtype, constants, _calls(exported.graph_module),
        tuple(signature.user_outputs), notes, _batch_of(exported) if batch is None else batch, container,
        _keys(returned),
    )  # fmt: skip


def _calls(module: Any) -> tuple[Call, ...]:
    return tuple(_call(module, node) for node in module.graph.nodes if node.op == "call_function")


def _call(module: Any, node: Any) -> Call:
    target, where = node.target, source_line(node.meta.get("stack_trace"))
    if isinstance(target, torch._ops.HigherOrderOperator):
        return _wrapped(module, node, where)
    schema = getattr(target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else [str(i) for i in range(len(node.args))]
    arguments = {name: _argument(value) for name, value in zip(names, node.args, strict=False)}
    arguments |= {name: _argument(value) for name, value in node.kwargs.items()}
    operator = str(target).removeprefix("aten.") if schema else getattr(target, "__name__", str(target))
    if getattr(target, "__module__", "") == "_operator" and operator != "getitem":
        operator = f"_operator_{operator}"
    return Call(operator, arguments, (node.name,), where)


def _wrapped(module: Any, node: Any, where: str) -> Call:
    """A call of a body of calls, which it wraps in a setting of gradients; anything else is refused when lowered."""
    name = node.target.name()
    if name != "wrap_with_set_grad_enabled":
        return Call(name, {"args": [_argument(value) for value in node.args[1:]]}, (node.name,), where)
    inner = getattr(module, node.args[1].target)
    inputs = tuple(item.name for item in inner.graph.nodes if item.op == "placeholder")
    (output,) = (item for item in inner.graph.nodes if item.op == "output")
    body = Body(inputs, _calls(inner), tuple(item.name for item in output.args[0]))
    return Call(name, {"args": [_argument(value) for value in node.args[2:]]}, (node.name,), where, body)


def _argument(value: Any) -> Any:
    if isinstance(value, torch.fx.Node):
        return Ref(value.name)
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
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return np.asarray(tensor.numpy())
