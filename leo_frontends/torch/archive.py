"""A ``.pt2`` file as a :class:`~leo_frontends.torch.program.Program`, read as the JSON and raw numbers it is.

``torch.export.load`` would unpickle parts of the file and evaluate expressions in it; here nothing of it is run,
and PyTorch is not even needed.
"""

from __future__ import annotations

import json
import math
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from leo_core.errors import FormatError, UnsupportedModelError
from leo_core.plugins import Imported
from leo_frontends.graph import MIXES, Array
from leo_frontends.torch.program import Body, Call, Program, Ref, lower, source_line

#: ScalarType in torch's export schema; bfloat16 is read through its upper half of a float32.
_DTYPES = {1: "u1", 2: "i1", 3: "i2", 4: "i4", 5: "i8", 6: "f2", 7: "f4", 8: "f8", 12: "?", 13: "bf16"}
_FLOATS = {6: "float32", 7: "float32", 8: "float64", 13: "float32"}
_SCALARS = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64",
    6: "float16", 7: "float32", 8: "float64", 12: "bool", 13: "bfloat16",
}  # fmt: skip
_LARGEST = 1 << 34
_NOT_RUN = "torch.export.load would execute code in the file; pass the loaded program, live, where you trust it"


def read_archive(path: Path) -> Imported:
    """Read a file that ``torch.export.save`` wrote.

    Raises :class:`FormatError` for what is none, :class:`UnsupportedModelError` as :func:`lower` does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            program = _Archive(archive, str(path)).program()
        return replace(lower(program, str(path)), not_run=_NOT_RUN)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise FormatError(f"{path}: is a folder, not a .pt2 file") from None
    except (
        StopIteration,
        zipfile.BadZipFile, OSError, KeyError, IndexError, ValueError, TypeError, AttributeError, NotImplementedError,
        OverflowError, RecursionError, MemoryError, RuntimeError, EOFError,
    ) as error:  # fmt: skip
        raise FormatError(
            f"{path}: not a readable .pt2 file ({type(error).__name__}: {error}); export the model again with "
            "torch.export.save, or pass the live module"
        ) from None


class _Archive:
    def __init__(self, archive: zipfile.ZipFile, where: str) -> None:
        self._archive, self._where = archive, where
        names = archive.namelist()
        models = [name for name in names if name.endswith("/models/model.json")]
        if not models:
            raise ValueError("it holds no models/model.json")
        self._top = models[0].removesuffix("models/model.json")
        if sum(item.file_size for item in archive.infolist()) > _LARGEST:
            raise ValueError("it unpacks to more than 16 GiB")

    def program(self) -> Program:
        contents = json.loads(self._archive.read(f"{self._top}models/model.json"))
        module = contents["graph_module"]
        graph, specs = module["graph"], module["signature"]
        inputs, constants = [], {}
        stored = {**self._payloads("weights"), **self._payloads("constants")}
        for spec in specs["input_specs"]:
            kind, content = next(iter(spec.items()))
            if kind == "user_input":
                inputs.append(content["arg"]["as_tensor"]["name"])
            else:
                key = content.get("parameter_name") or content.get("buffer_name") or content["tensor_constant_name"]
                if key in stored:
                    constants[content["arg"]["name"]] = stored[key]
        outputs = [next(iter(spec.items())) for spec in specs["output_specs"]]
        user = [content["arg"] for kind, content in outputs if kind == "user_output"]
        if len(inputs) != 1 or not user:
            problem = f"it has {len(inputs)} inputs and {len(user)} outputs; LEO reads models with one input"
            raise UnsupportedModelError(self._where, [problem])
        if not all("as_tensor" in argument for argument in user):
            raise UnsupportedModelError(self._where, ["it returns what is no tensor; LEO reads models that do"])
        tensors = tuple(argument["as_tensor"]["name"] for argument in user)
        meta = graph["tensor_values"][inputs[0]]
        if meta["dtype"] not in _FLOATS:
            raise UnsupportedModelError(self._where, ["its input is not of a float type"])
        sizes = meta["sizes"][1:]
        if not sizes or not all("as_int" in size for size in sizes):
            raise UnsupportedModelError(self._where, ["the input has a free axis besides the batch"])
        shape = tuple(int(size["as_int"]) for size in sizes)
        batch = int(meta["sizes"][0].get("as_int", 0))
        if not batch and not _any_size(meta["sizes"][0], contents.get("range_constraints") or {}):
            raise UnsupportedModelError(self._where, [f"{MIXES}: it was exported for batches of some sizes only"])
        if any(kind == "buffer_mutation" for kind, _ in outputs):
            raise UnsupportedModelError(self._where, ["it changes its buffers, so that each run differs from the last"])
        if not 0 < math.prod(shape) <= 1 << 28:
            raise ValueError(f"an input of shape {shape}")
        calls = [_call(node) for node in graph["nodes"]]
        dtype, (container, keys) = _FLOATS[meta["dtype"]], _container(module)
        keys = keys if len(keys) == len(tensors) else ()
        return Program(inputs[0], shape, dtype, constants, calls, tensors, batch=batch, container=container, keys=keys)

    def _payloads(self, kind: str) -> dict[str, Array]:
        """Parameters and buffers by their names."""
        config = json.loads(self._archive.read(f"{self._top}data/{kind}/model_{kind}_config.json"))["config"]
        found = {}
        for name, entry in config.items():
            if entry.get("use_pickle") or entry.get("tensor_meta") is None:
                raise UnsupportedModelError(self._where, [f"'{name}' is stored as a pickle, which LEO does not open"])
            data = self._archive.read(f"{self._top}data/{kind}/{entry['path_name']}")
            found[name] = _tensor(data, entry["tensor_meta"], name)
        return found


def _container(module: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """(what the outputs are returned in, their names there), empty for a tensor as such, or where the file does not
    say."""
    calls = module.get("module_call_graph")
    signature = calls[0]["signature"] if calls else None
    if not signature:
        return "", ()
    spec = json.loads(signature["out_spec"])[1]
    kind = (spec["type"] or "").rpartition(".")[2].removeprefix("immutable_")
    if any(child["type"] for child in spec["children_spec"]):
        return f"nested {kind}", ()
    keys = json.loads(spec["context"]) if kind in ("dict", "OrderedDict") else []
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    return kind, tuple(keys) if named else ()


def _tensor(data: bytes, meta: dict[str, Any], name: str) -> Array:
    sizes, strides = ([int(item["as_int"]) for item in meta[key]] for key in ("sizes", "strides"))
    if any(d < 0 for d in (*sizes, *strides)) or len(sizes) != len(strides):
        raise ValueError(f"the shape of '{name}' is damaged")
    kind = _DTYPES[meta["dtype"]]
    if kind == "bf16":
        flat = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        flat = np.frombuffer(data, f"<{kind}")
    start = int(meta["storage_offset"]["as_int"])
    last = start + sum((d - 1) * s for d, s in zip(sizes, strides, strict=True)) if all(sizes) else -1
    if start < 0 or last >= len(flat):
        raise ValueError(f"the weights '{name}' are cut off")
    if last < 0:
        return np.zeros(sizes, flat.dtype)
    array = np.lib.stride_tricks.as_strided(flat[start:], sizes, [s * flat.itemsize for s in strides]).copy()
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"the weights '{name}' hold NaN or infinity; LEO needs finite weights")
    return array


def _any_size(size: dict[str, Any], constraints: dict[str, Any]) -> bool:
    """Whether a symbolic size may be any number from 2 on."""
    symbols = re.findall(r"'(\w+)'|\b(s\d+)\b", size["as_expr"]["expr_str"])
    for symbol in {name for pair in symbols for name in pair if name}:
        bounds = constraints.get(symbol)
        if bounds and ((bounds.get("min_val") or 0) > 2 or bounds.get("max_val") is not None):
            return False
    return True


def _call(node: dict[str, Any]) -> Call:
    operator = node["target"].removeprefix("torch.ops.").removeprefix("aten.").replace("_operator.", "_operator_")
    trace = (node.get("metadata") or {}).get("stack_trace")
    outputs = tuple(name for output in node["outputs"] for name in _output_names(output))
    if "higher_order." in operator:
        return _wrapped(operator.removeprefix("higher_order."), node, outputs, source_line(trace))
    arguments = {item["name"]: _argument(item["arg"]) for item in node["inputs"]}
    return Call(operator, arguments, outputs, source_line(trace))


def _wrapped(operator: str, node: dict[str, Any], outputs: tuple[str, ...], where: str) -> Call:
    """A call of a body of calls, which it wraps in a setting of gradients; anything else is refused when lowered."""
    graphs = [item["arg"]["as_graph"]["graph"] for item in node["inputs"] if "as_graph" in item["arg"]]
    arguments = [_argument(item["arg"]) for item in node["inputs"] if "as_graph" not in item["arg"]]
    if operator != "wrap_with_set_grad_enabled" or len(graphs) != 1:
        return Call(operator, {"args": arguments}, outputs, where)
    (graph,) = graphs
    inputs = tuple(_argument(item).name for item in graph["inputs"])
    given = [_argument(item) for item in graph["outputs"]]
    body = Body(inputs, tuple(_call(inner) for inner in graph["nodes"]), tuple(ref.name for ref in given))
    return Call(operator, {"args": arguments[1:]}, outputs, where, body)


def _output_names(output: dict[str, Any]) -> list[str]:
    kind, content = next(iter(output.items()))
    if kind == "as_tensor":
        return [content["name"]]
    if kind in ("as_tensors", "as_optional_tensors"):
        return [item.get("as_tensor", item)["name"] for item in content]
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return [content["as_name"]]
    return []


def _argument(argument: dict[str, Any]) -> Any:
    kind, content = next(iter(argument.items()))
    if kind == "as_tensor":
        return Ref(content["name"])
    if kind == "as_optional_tensor":
        return _argument(content)
    if kind in ("as_tensors", "as_optional_tensors"):
        return [_argument(item) if next(iter(item)).startswith("as_") else Ref(item["name"]) for item in content]
    if kind in ("as_int", "as_float", "as_bool", "as_string", "as_ints", "as_floats", "as_bools"):
        return content
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return _number(content)
    if kind in ("as_sym_ints", "as_sym_floats", "as_sym_bools"):
        return [_number(item) for item in content]
    if kind == "as_scalar_type":
        return _SCALARS.get(content, "a type that is no float")
    return None


def _number(content: dict[str, Any]) -> Any:
    kind, value = next(iter(content.items()))
    return Ref(value) if kind == "as_name" else value
