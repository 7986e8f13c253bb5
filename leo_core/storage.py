"""LEO's own file, ``.leo``: one zip archive of a JSON header and plain ``.npy`` arrays. Nothing in it is code.

The header holds the format's version and a SHA-256 over the header's content and the arrays' bytes, so damage is noticed;
a version this release does not know is refused by number.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leo_core.errors import FormatError, LeoError
from leo_core.linear import KINDS, LinearMap, kind_of
from leo_core.network import Affine, Network, Node, Origin, Relu, Signature

VERSION = 1
#: No array of a file may unpack to more than this.
_LARGEST = 1 << 34


def save(network: Network, path: str | Path) -> None:
    """Write a network to ``path``. OSErrors pass through; the caller renames into place."""
    arrays: dict[str, NDArray[Any]] = {}
    content = {
        "input_size": network.input_size,
        "output": network.output,
        "signature": {
            "input_name": network.signature.input_name,
            "input_shape": network.signature.input_shape,
            "output_name": network.signature.output_name,
            "output_shape": network.signature.output_shape,
            "dtype": network.signature.dtype,
        },
        "nodes": [_describe(node, arrays) for node in network.nodes],
    }
    header = {"format": "leo", "version": VERSION, "sha256": _checksum(content, arrays), "content": content}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(header, indent=1))
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, allow_pickle=False)
            archive.writestr(f"{name}.npy", buffer.getvalue())


def load(path: str | Path) -> Network:
    """Read a network written by :func:`save`.

    Raises :class:`FormatError`, naming the file, when it is missing, damaged or of an unknown version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            header = _header(archive, path)
            arrays = _arrays(archive, path)
        content = header["content"]
        if _checksum(content, arrays) != header["sha256"]:
            raise FormatError(f"{path}: the checksum does not fit; the file is damaged. Write it again")
        return _build(content, arrays)
    except LeoError:
        raise
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error})") from None
    except Exception as error:
        # A hostile archive can make zipfile, json and numpy raise nearly anything.
        raise FormatError(f"{path}: not a LEO file, or damaged ({type(error).__name__}: {error})") from None


def _header(archive: zipfile.ZipFile, path: str | Path) -> dict[str, Any]:
    header = json.loads(archive.read("header.json"))
    if not isinstance(header, dict) or header.get("format") != "leo":
        raise FormatError(f"{path}: not a LEO file")
    if header.get("version") != VERSION:
        raise FormatError(
            f"{path}: LEO file version {header.get('version')!r}; this release reads version {VERSION}. Update LEO"
        )
    return header


def _arrays(archive: zipfile.ZipFile, path: str | Path) -> dict[str, NDArray[Any]]:
    arrays = {}
    for entry in archive.infolist():
        if not entry.filename.endswith(".npy"):
            continue
        if entry.file_size > _LARGEST:
            raise FormatError(f"{path}: the array {entry.filename} is too large")
        buffer = io.BytesIO(archive.read(entry))
        arrays[entry.filename[: -len(".npy")]] = np.lib.format.read_array(buffer, allow_pickle=False)
    return arrays


def _checksum(content: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _describe(node: Node, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    def keep(array: NDArray[Any]) -> str:
        name = f"a{len(arrays)}"
        arrays[name] = array
        return name

    described: dict[str, Any] = {"name": node.name, "origin": [node.origin.layer, node.origin.kind]}
    if isinstance(node, Relu):
        return described | {"kind": "relu", "source": node.source, "slope": keep(node.slope)}
    maps = [
        {
            "kind": kind_of(linear),
            "columns": linear.columns,
            "arrays": {argument: keep(array) for argument, array in linear.arrays().items()},
        }
        for linear in node.maps
    ]
    return described | {"kind": "affine", "sources": node.sources, "maps": maps, "bias": keep(node.bias)}


def _build(content: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Network:
    nodes: list[Node] = []
    for item in content["nodes"]:
        origin = Origin(*item["origin"])
        if item["kind"] == "relu":
            nodes.append(Relu(item["name"], item["source"], arrays[item["slope"]], origin))
        else:
            maps = tuple(_map(described, arrays) for described in item["maps"])
            nodes.append(Affine(item["name"], tuple(item["sources"]), maps, arrays[item["bias"]], origin))
    signature = content["signature"]
    return Network(
        content["input_size"],
        tuple(nodes),
        content["output"],
        Signature(
            signature["input_name"],
            tuple(signature["input_shape"]),
            signature["output_name"],
            tuple(signature["output_shape"]),
            signature["dtype"],
        ),
    )


def _map(described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> LinearMap:
    given = {argument: arrays[name] for argument, name in described["arrays"].items()}
    if described["kind"] in ("sparse", "select"):
        given["columns"] = described["columns"]
    linear: LinearMap = KINDS[described["kind"]](**given)
    return linear
