"""LEO's own file, ``.leo``: a zip archive of ``header.json`` and plain ``.npy`` arrays; nothing in it is code.

The archive is not compressed, so no file unpacks to more than its own size. The header carries the
format's version (an unknown one is refused by number) and a SHA-256 over the description and the
arrays, so damage is noticed. Equal networks give equal files, byte for byte.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.checker.maps import read_map
from leo_core.checker.networks import Net, checksum, keep
from leo_core.checker.networks import Node as CheckedNode
from leo_core.errors import FormatError, LeoError, OutputError
from leo_core.linear import KINDS, LinearMap, kind_of
from leo_core.network import Affine, Network, Node, Origin, Output, Own, Relu, Rounding, Signature

VERSION = 2
#: Version 1 had one output.
_READ = (1, VERSION)
_HEADER = "header.json"
_DTYPES = ("<f4", "<f8", "<i8")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date, so that equal networks give equal files

_Arrays = dict[str, NDArray[Any]]


def save(network: Network, path: str | Path) -> None:
    """Write a network to ``path``; the caller renames a temporary file into place.

    Raises :class:`OutputError` when the file cannot be written.
    """
    arrays: _Arrays = {}
    content = described(network, arrays)
    header = {"format": "leo", "version": VERSION, "sha256": checksum(content, arrays), "content": content}
    try:
        write_archive(path, header, arrays)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from None


def described(network: Network, arrays: _Arrays) -> dict[str, Any]:
    """What a file says of a network; its arrays are added to those of the file."""
    signature = network.signature
    return {
        "input_size": network.input_size,
        "output": network.output,
        "signature": {
            "input": [signature.input_name, list(signature.input_shape)],
            "outputs": [output.described for output in signature.outputs],
            "dtype": signature.dtype,
        },
        "nodes": [_describe(node, arrays) for node in network.nodes],
    }


def write_archive(
    path: str | Path,
    header: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    compression: int = zipfile.ZIP_STORED,
) -> None:
    """Write what every file of ours is: a header in JSON and plain arrays; equal contents give equal files."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(_HEADER, _EPOCH), json.dumps(header, indent=1), compression)
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), buffer.getvalue(), compression)


def load(path: str | Path) -> Network:
    """Read a file written by :func:`save`.

    Raises :class:`FormatError`, naming the file, when it is missing, damaged or of an unknown version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _require_bounded(archive, Path(path).stat().st_size)
            header = _header(archive)
            arrays = {
                name.removesuffix(".npy"): _array(archive.read(name))
                for name in archive.namelist()
                if name.endswith(".npy")
            }
        content = header["content"]
        if checksum(content, arrays) != header["sha256"]:
            raise FormatError("the checksum does not fit: the file is damaged; write or copy it again")
        return _network(content, arrays)
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error})") from None
    except LeoError as error:
        raise FormatError(f"{path}: {error}") from None
    except Exception as error:  # a hostile archive can make zipfile, json and numpy raise nearly anything
        raise FormatError(
            f"{path}: not a LEO file, or damaged ({type(error).__name__}: {error}); write or copy it again"
        ) from error


def as_checked(network: Network) -> Net:
    """A network as the checker reads it from the file that :func:`save` writes."""
    nodes = []
    for node in network.nodes:
        if isinstance(node, Relu):
            nodes.append(CheckedNode(node.name, (node.source,), (), node.slope, node.slope, True))
        else:
            maps = tuple(
                read_map(kind_of(linear), linear.arrays(), linear.rows, linear.columns) for linear in node.maps
            )
            bias = node.bias.astype(np.float64)
            nodes.append(CheckedNode(node.name, node.sources, maps, bias, bias, False))
    outputs = tuple(output.described for output in network.signature.outputs)
    return Net(network.input_size, tuple(nodes), network.output, network.digest, outputs)


def _require_bounded(archive: zipfile.ZipFile, file_size: int) -> None:
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise FormatError("an entry of the archive is compressed, which LEO never writes; write the file again")
    if sum(entry.file_size for entry in entries) > file_size:
        raise FormatError("the archive claims to hold more than the file's size; write or copy it again")


def _header(archive: zipfile.ZipFile) -> dict[str, Any]:
    header = json.loads(archive.read(_HEADER))
    if not isinstance(header, dict) or header.get("format") != "leo":
        raise FormatError("not a LEO file")
    version = header.get("version")
    if version not in _READ:
        raise FormatError(f"LEO file version {version!r}, but this release reads up to version {VERSION}; update LEO")
    return header


def _array(data: bytes) -> NDArray[Any]:
    """The array of an ``.npy`` file whose header promises exactly the bytes that follow it."""
    buffer = io.BytesIO(data)
    if np.lib.format.read_magic(buffer) != (1, 0):
        raise FormatError("an array has an unknown .npy version")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    if fortran or dtype.str not in _DTYPES:
        raise FormatError(f"an array of type {dtype.str} is none that LEO writes")
    return np.frombuffer(data, dtype=dtype, offset=buffer.tell()).reshape(shape)


def _describe(node: Node, arrays: _Arrays) -> dict[str, Any]:
    described: dict[str, Any] = {"name": node.name, "origin": [node.origin.layer, node.origin.kind]}
    if isinstance(node, Relu):
        described |= {"laid": [list(node.origin.shape), list(node.origin.axes)]} if node.origin.shape else {}
        return described | {"kind": "relu", "source": node.source, "slope": keep(node.slope, arrays)}
    maps = [
        {
            "kind": kind_of(linear),
            "columns": linear.columns,
            "arrays": {argument: keep(array, arrays) for argument, array in linear.arrays().items()},
        }
        for linear in node.maps
    ]
    described |= {"kind": "affine", "sources": list(node.sources), "maps": maps, "bias": keep(node.bias, arrays)}
    described |= {"shape": list(node.shape)} if node.shape else {}
    return described | ({"own": _own_numbers(node.own, arrays)} if node.own is not None else {})


def _own_numbers(own: Own, arrays: _Arrays) -> dict[str, Any]:
    size = own.rounding.bias.shape
    bounds = {"rounding": own.rounding, "loose": own.loose}
    spread = {
        which: [keep(np.broadcast_to(np.asarray(part, np.float64), size).copy(), arrays)
                for part in (found.weights, found.bias)]
        for which, found in bounds.items()
    }  # fmt: skip
    numbers = {name: keep(array, arrays) for name, array in own.numbers.items()}
    return {"numbers": numbers, "epsilon": own.epsilon, **spread}


def _own(described: Mapping[str, Any] | None, arrays: _Arrays) -> Own | None:
    if described is None:
        return None
    rounding, loose = (
        Rounding(_sizes(arrays[weights]), _sizes(arrays[bias]))
        for weights, bias in (described["rounding"], described["loose"])
    )
    numbers = {_text(name): arrays[_text(array)] for name, array in described["numbers"].items()}
    return Own(rounding, loose, numbers, float(described["epsilon"]))


def _sizes(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 1 or not (array >= 0).all():
        raise FormatError("how far numbers are off must be a list of numbers that are not negative")
    return array


def _network(content: Mapping[str, Any], arrays: _Arrays) -> Network:
    nodes: list[Node] = []
    for item in content["nodes"]:
        (layer, kind), (laid, axes) = map(_text, item["origin"]), item.get("laid", ((), ()))
        origin = Origin(layer, kind, tuple(map(_integer, laid)), tuple(map(_integer, axes)))
        name = _text(item["name"])
        if item["kind"] == "relu":
            nodes.append(Relu(name, _text(item["source"]), arrays[item["slope"]], origin))
        elif item["kind"] == "affine":
            maps = tuple(_map(described, arrays) for described in item["maps"])
            sources, shape = tuple(map(_text, item["sources"])), tuple(map(_integer, item.get("shape", ())))
            own = _own(item.get("own"), arrays)
            nodes.append(Affine(name, sources, maps, arrays[item["bias"]], origin, shape, own))
        else:
            raise FormatError(f"a node of the unknown kind {item['kind']!r}")
    described = content["signature"]
    input_name, input_shape = described["input"]
    outputs = described.get("outputs")
    if outputs is None:
        outputs = [[*described["output"], described.get("tail", ""), None]]
    signature = Signature(
        _text(input_name),
        tuple(map(_integer, input_shape)),
        tuple(_output(*output) for output in outputs),
        _dtype(described["dtype"]),
    )
    return Network(_integer(content["input_size"]), tuple(nodes), _text(content["output"]), signature)


def _map(described: Mapping[str, Any], arrays: _Arrays) -> LinearMap:
    given: dict[str, Any] = {argument: arrays[name] for argument, name in described["arrays"].items()}
    if described["kind"] in ("sparse", "select"):
        given["columns"] = _integer(described["columns"])
    if described["kind"] not in KINDS:
        raise FormatError(f"a linear map of the unknown kind {described['kind']!r}; update LEO")
    linear: LinearMap = KINDS[described["kind"]](**given)
    return linear


def _output(name: Any, shape: Any, tail: Any, axis: Any) -> Output:
    return Output(_text(name), tuple(map(_integer, shape)), _text(tail), None if axis is None else _integer(axis))


def _dtype(value: Any) -> str:
    if value not in ("", "float32", "float64"):
        raise FormatError(f"the header holds {value!r} where a number type belongs")
    return str(value)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise FormatError(f"the header holds {value!r} where a whole number belongs")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise FormatError(f"the header holds {value!r} where a name belongs")
    return value
