"""Constants computed in a program: by PyTorch's own operator, where it is installed and the operator is a pure one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from leo_frontends.graph import Array, Refused

#: More elements than this are not computed ahead of a run.
_LARGEST = 1 << 27


def folded(operator: str, arguments: Mapping[str, Any]) -> tuple[Any, bool]:
    """(what an ATen operator ("mul.Tensor") gives of constants: an array, a list of them, or a number; whether that may
    share the memory of one of them).

    Raises :class:`Refused` where it cannot be computed, or would not be the same every time.
    """
    try:
        import torch
    except ImportError:
        raise Refused("it computes a constant, for which LEO needs PyTorch (the extra torch)") from None
    name, _, overload = operator.partition(".")
    call = getattr(getattr(torch.ops.aten, name, None), overload or "default", None)
    if call is None:
        raise Refused("it is not read: PyTorch does not know it")
    if call._schema.is_mutable or torch.Tag.nondeterministic_seeded in call.tags:
        raise Refused("it is random, or changes what it is given: that has no affine + ReLU form")
    given = {key: _to_torch(torch, key, value) for key, value in arguments.items() if value is not None}
    try:
        with torch.no_grad(), torch.device("cpu"):
            result = call(**given)
            shared = bool(_storages(torch, result) & _storages(torch, [*given.values()]))
            view = any(returned.alias_info is not None for returned in call._schema.returns)
            return _from_torch(torch, result), shared or view
    except Refused:
        raise
    except Exception as error:  # whatever a kernel raises
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise Refused(f"PyTorch cannot compute this constant: {first}") from None


def _storages(torch: Any, item: Any) -> set[int]:
    """Where the numbers of tensors lie."""
    if isinstance(item, torch.Tensor):
        return {item.untyped_storage().data_ptr()} if item.numel() else set()
    return {place for part in item for place in _storages(torch, part)} if isinstance(item, list | tuple) else set()


def _to_torch(torch: Any, key: str, value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    if isinstance(value, list | tuple):
        return [_to_torch(torch, "", item) for item in value]
    if key == "dtype" and isinstance(value, str):
        return getattr(torch, value)
    return value


def _from_torch(torch: Any, result: Any) -> Any:
    if isinstance(result, list | tuple):
        return [_from_torch(torch, item) for item in result]
    if not isinstance(result, torch.Tensor):
        return result
    if result.numel() > _LARGEST:
        raise Refused(f"it makes a constant of {result.numel()} numbers")
    if result.dtype in (torch.float16, torch.bfloat16):
        result = result.float()
    array: Array = np.array(result.detach().cpu().numpy())
    return array
