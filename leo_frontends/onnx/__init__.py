"""ONNX models. The package ``onnx`` is imported when a file is read or written, not before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from leo_core.errors import FormatError, MissingExtraError, PluginError, UnsupportedModelError
from leo_core.network import Network
from leo_core.plugins import FrontendSpec, Imported, hookimpl
from leo_frontends.pointers import refuse_pointer


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
        run_file=run_file,
        runtime=runtime,
        deploy=deploy,
        packages=("onnx",),
        extra="onnx",
    )


def run_model(model: Any, inputs: Any) -> Any:
    """The outputs that ONNX Runtime computes, or onnx's own reference where that is not installed."""
    return _runs(model)(inputs)


def run_file(path: Path) -> Callable[[Any], Any]:
    """The same of a file that LEO has written."""
    return _runs(path)


def runtime() -> str:
    """ONNX Runtime and its version; raises :class:`PluginError` where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise PluginError(
            "latency is measured in ONNX Runtime, which is not installed. Install it with:  pip install onnxruntime"
        ) from None
    return f"ONNX Runtime {onnxruntime.__version__}"


def deploy(path: Path) -> Callable[[Any], Any]:
    """A file that LEO has written, in ONNX Runtime as it is by default, but on one thread."""
    import_onnx()
    from leo_frontends.onnx.run import optimised

    return optimised(path)


def _runs(source: Any) -> Callable[[Any], Any]:
    """A model that LEO wrote: it has one input, of a free batch."""
    onnx = import_onnx()
    from leo_frontends.onnx.run import session

    graph = (onnx.load(str(source), load_external_data=False) if isinstance(source, Path) else source).graph
    given, names = graph.input[0], [output.name for output in graph.output]
    run = session(source)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type)
    return lambda inputs: dict(zip(names, run({given.name: inputs.astype(dtype)}), strict=True))


def read_file(path: Path) -> Imported:
    """Read an ``.onnx`` file; see :mod:`leo_frontends.onnx.read`."""
    onnx = import_onnx()
    from leo_frontends.onnx.read import read_model

    refuse_pointer(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except Exception as error:  # protobuf raises several types on damaged files
        raise FormatError(
            f"{path}: not a readable ONNX file ({type(error).__name__}: {error}); is it truncated? Export it again"
        ) from None
    for name in _weights_files(model):
        refuse_pointer(path.parent / name)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # onnx and numpy raise several types on missing and damaged files
        raise FormatError(f"{path}: {_EXTERNAL} ({error})") from None
    return read_model(model, str(path), path)


def _weights_files(model: Any) -> set[str]:
    """The names of the files beside a model that hold its weights."""
    entries = (entry for tensor in model.graph.initializer for entry in tensor.external_data)
    return {entry.value for entry in entries if entry.key == "location"}


_EXTERNAL = "its weights lie in a file of their own, which is missing or cannot be read; copy it beside this one"


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
