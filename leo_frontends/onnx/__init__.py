"""ONNX models. The package ``onnx`` is imported when a file is read or written, not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leo_core.errors import FormatError, MissingExtraError, UnsupportedModelError
from leo_core.network import Network
from leo_core.plugins import FrontendSpec, Imported, hookimpl


@hookimpl
def leo_frontend() -> FrontendSpec:
    """Describe ONNX."""
    return FrontendSpec(
        name="onnx",
        summary="ONNX models of dense layers and ReLUs",
        suffixes=(".onnx",),
        read_file=read_file,
        write_file=write_file,
        model_modules=("onnx",),
        read_model=read_live_model,
        write_model=write_live_model,
        run_model=run_model,
        packages=("onnx",),
        extra="onnx",
    )


def run_model(model: Any, inputs: Any) -> Any:
    """The outputs that onnx's own reference implementation computes."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(model)
    return evaluator.run(None, {evaluator.input_names[0]: inputs})[0]


def read_file(path: Path) -> Imported:
    """Read an ``.onnx`` file; see :mod:`leo_frontends.onnx.read`."""
    onnx = import_onnx()
    from leo_frontends.onnx.read import read_model

    try:
        model = onnx.load(str(path))
    except FileNotFoundError as error:
        missing = path if not path.exists() else f"{path}: its external weights file ({error})"
        raise FormatError(f"{missing}: there is no such file") from None
    except Exception as error:
        # protobuf, numpy and onnx raise a dozen types on damaged files
        raise FormatError(
            f"{path}: not a readable ONNX file ({type(error).__name__}: {error}); is it truncated? Export it again"
        ) from None
    return read_model(model, str(path))


def write_file(network: Network, path: Path) -> None:
    """Write an ``.onnx`` file; see :mod:`leo_frontends.onnx.write`."""
    onnx = import_onnx()
    from leo_frontends.onnx.write import build_model

    onnx.save(build_model(network), str(path))


def read_live_model(model: Any, _input_shape: tuple[int, ...] | None = None) -> Imported:
    """Read an ``onnx.ModelProto``."""
    onnx = import_onnx()
    from leo_frontends.onnx.read import read_model

    if not isinstance(model, onnx.ModelProto):
        raise UnsupportedModelError(f"a {type(model).__name__}", ["only an onnx.ModelProto is a whole model"])
    return read_model(model, "the ONNX model")


def write_live_model(network: Network) -> Any:
    """The ``onnx.ModelProto`` of a network."""
    import_onnx()
    from leo_frontends.onnx.write import build_model

    return build_model(network)


def import_onnx() -> Any:
    """The package ``onnx``, or :class:`MissingExtraError`."""
    try:
        import onnx
    except ImportError as error:
        if error.name == "onnx":
            raise MissingExtraError("reading and writing ONNX files", "onnx", "onnx") from None
        raise
    return onnx
