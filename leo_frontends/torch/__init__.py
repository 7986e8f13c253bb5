"""PyTorch models. ``torch`` is imported for live models and for writing; ``.pt2`` files are read without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from leo_core.errors import MissingExtraError
from leo_core.network import Network
from leo_core.plugins import FrontendSpec, Imported, hookimpl
from leo_frontends.imports import import_triton_first


@hookimpl
def leo_frontend() -> FrontendSpec:
    """Describe PyTorch."""
    return FrontendSpec(
        name="torch",
        summary="PyTorch modules, exported programs (.pt2) and state dicts of plain chains (.pt)",
        suffixes=(".pt2", ".pt", ".pth"),
        read_file=read_file,
        write_file=write_file,
        model_modules=("torch",),
        read_model=read_live_model,
        write_model=write_live_model,
        run_model=run_model,
        run_file=run_file,
        packages=("torch",),
        extra="torch",
    )


def run_model(model: Any, inputs: Any) -> Any:
    """The outputs of a module for a batch, without gradients."""
    import_torch()
    from leo_frontends.torch.live import run_module

    return run_module(model, inputs)


def run_file(path: Path) -> Callable[[Any], Any]:
    """A ``.pt2`` program that LEO has written, loaded; or the chain that its state dict is of."""
    torch = import_torch()
    from leo_frontends.torch.live import run_module

    if path.suffix.lower() == ".pt2":
        module = torch.export.load(path).module()
        return lambda inputs: run_module(module, inputs)
    from leo_frontends.torch.state_dict import chain_of

    module = chain_of(path)
    return lambda inputs: run_module(module, inputs)


def read_file(path: Path) -> Imported:
    """Read a ``.pt2`` program or a ``.pt`` state dict; nothing in the file is ever run."""
    if path.suffix.lower() == ".pt2":
        from leo_frontends.torch.archive import read_archive

        return read_archive(path)
    import_torch()
    from leo_frontends.torch.state_dict import read_state_dict

    return read_state_dict(path)


def write_file(network: Network, path: Path) -> None:
    """Write a ``.pt2`` program, which loads without any class, or a ``.pt`` state dict of a plain chain."""
    import_torch()
    from leo_frontends.torch.write import save_program, save_state_dict

    save = save_program if path.suffix.lower() == ".pt2" else save_state_dict
    save(network, path)


def read_live_model(model: Any, input_shape: tuple[int, ...] | None = None) -> Imported:
    """Read an ``nn.Module`` or an ``ExportedProgram``; the shape is that of one example."""
    import_torch()
    from leo_frontends.torch.live import read_module

    return read_module(model, input_shape)


def write_live_model(network: Network) -> Any:
    """An ``nn.Sequential`` of a chain, a ``GraphModule`` of anything else."""
    import_torch()
    from leo_frontends.torch.write import build_module

    return build_module(network)


def import_torch() -> Any:
    """The package ``torch``, or :class:`MissingExtraError`."""
    import_triton_first()
    try:
        import torch
    except ImportError as error:
        if error.name == "torch":
            raise MissingExtraError("PyTorch models", "torch", "torch") from None
        raise
    return torch
