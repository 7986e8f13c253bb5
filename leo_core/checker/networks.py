"""Networks as a ``.leo`` file holds them, and the archives that files of ours are: JSON and plain arrays, no code."""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .errors import Refused
from .maps import Map, Taps, read_map
from .maxima import Larger, larger

Array = Any

VERSIONS = (1, 2)  # of the files that networks are read from
MOST = 2**32  # bytes that an archive may unpack to, and that the numbers of a network may take in float64
PRODUCTS = 2e9  # of one node of a network with convolutions, beyond what intervals take
TAILS = ("", "softmax", "log_softmax", "sigmoid", "tanh")  # what may follow a network, by name
MOST_JSON = 2**27  # bytes of a header: as Python values it takes many times that


@dataclass(frozen=True, eq=False)
class Node:
    """An affine node (a map for each source, and a bias), or a ReLU (``slope`` below zero) of one."""

    name: str
    sources: tuple[str, ...]
    maps: tuple[Map, ...]
    bias: Array
    slope: Array
    relu: bool

    @property
    def size(self) -> int:
        return len(self.slope if self.relu else self.bias)

    @property
    def reads(self) -> tuple[tuple[str, Map], ...]:
        """Each source, and the map of what it reads there."""
        return tuple(zip(self.sources, self.maps, strict=True))

    @property
    def terms(self) -> int:
        """The most products in one unit's sum."""
        return sum(linear.terms for linear in self.maps)

    @property
    def columns(self) -> list[int]:
        """How many values it reads of each source."""
        return [linear.columns for linear in self.maps]


@dataclass(frozen=True, eq=False)
class Net:
    """Nodes in an order in which each comes after what it reads.

    ``outputs`` are what it gives, (name, shape, tail, axis) of each: the parts of the value of the node ``output``,
    each with the function that the model applies to it. ``before_tail`` is the digest without them.
    """

    inputs: int
    nodes: tuple[Node, ...]
    output: str
    digest: str
    outputs: tuple[Any, ...] = ()
    before_tail: str = ""

    @property
    def tail(self) -> str:
        """What the outputs end in, in words."""
        return ending(self.outputs)

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def rectified(self) -> dict[str, list[Node]]:
        """The ReLUs of each affine node that has any."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            if node.relu:
                found.setdefault(node.sources[0], []).append(node)
        return found

    @cached_property
    def maxima(self) -> dict[str, Larger]:
        """By affine node, which of its units are the larger, or the smaller, of two values."""
        affine = (node for node in self.nodes if not node.relu)
        return {node.name: found for node in affine if (found := larger(self.by_name, node)) is not None}

    @cached_property
    def products(self) -> int:
        """Multiplications that one vector takes; 0 without a convolution: matrices are small enough for anything."""
        maps = [linear for node in self.nodes for linear in node.maps]
        return sum(linear.products for linear in maps) if any(isinstance(linear, Taps) for linear in maps) else 0

    def affords(self, vectors: float) -> bool:
        """Whether so many vectors may be taken through all of it where intervals would do, too."""
        return vectors * self.products <= PRODUCTS

    def before(self, targets: Iterable[str]) -> list[Node]:
        """The nodes that the targets depend on, and they."""
        needed = set(targets)
        for node in reversed(self.nodes):
            if node.name in needed:
                needed.update(node.sources)
        return [node for node in self.nodes if node.name in needed]


def open_archive(path: Any) -> tuple[dict[str, Any], dict[str, Array]]:
    """(header, arrays) of a zip archive of JSON and .npy files, its checksum compared; nothing in it is code."""
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST:
            raise Refused("the archive unpacks to more than 4 GiB")
        if len(set(archive.namelist())) < len(archive.namelist()):
            raise Refused("two entries of the archive have one name")
        if archive.getinfo("header.json").file_size > MOST_JSON:
            raise Refused("the archive's header is larger than 128 MiB")
        header = json.loads(archive.read("header.json"))
        arrays = {
            name.removesuffix(".npy"): np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
            for name in archive.namelist()
            if name.endswith(".npy")
        }
    for name, array in arrays.items():
        if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
            raise Refused(f"array '{name}' is of type {array.dtype.str}, which is none that LEO writes")
    if checksum(header["content"], arrays) != header["sha256"]:
        raise Refused("the checksum does not fit: the file is damaged")
    return header, arrays


def checksum(content: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    """SHA-256 over a description and the arrays it names."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode())
    for name, array in sorted(arrays.items()):
        digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def keep(array: Array, arrays: dict[str, Array]) -> str:
    """Add an array to those of a file; its name there."""
    name = f"array{len(arrays)}"
    arrays[name] = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    return name


def read_network(path: Any) -> Net:
    """The network in a ``.leo`` file, and the digest over all that determines its function and storage."""
    header, arrays = open_archive(path)
    if header.get("format") != "leo" or header.get("version") not in VERSIONS:
        raise Refused(f"a network in no LEO file of version {' or '.join(map(str, VERSIONS))}")
    return network_of(header["content"], arrays)


def network_of(content: Mapping[str, Any], arrays: Mapping[str, Array]) -> Net:
    """The network that a description and its arrays say."""
    sizes, held = {"input": content["input_size"]}, content["input_size"]
    digest = hashlib.sha256(json.dumps([content["input_size"], content["output"]]).encode())
    nodes: list[Node] = []
    affine: set[str] = set()
    for item in content["nodes"]:
        if item["kind"] not in ("relu", "affine"):
            raise Refused(f"a node of the unknown kind '{item['kind']}'")
        relu = item["kind"] == "relu"
        sources = [item["source"]] if relu else item["sources"]
        last = arrays[item["slope" if relu else "bias"]]
        if item["name"] in sizes or not sources or any(source not in sizes for source in sources) or last.ndim != 1:
            raise Refused(f"node '{item['name']}' is out of order, or no list of units")
        digest.update(json.dumps(["Relu" if relu else "Affine", item["name"], *sources, len(last)]).encode())
        maps = []
        described = [] if relu else item["maps"]
        held += len(last) + sum(arrays[name].size for linear in described for name in linear["arrays"].values())
        if type(held) is not int or 8 * held > MOST:  # before anything is converted
            raise Refused("the network's numbers take more than 4 GiB")
        for source, linear in zip(sources, described, strict=not relu):
            parts = {name: arrays[array] for name, array in linear["arrays"].items()}
            maps.append(read_map(linear["kind"], parts, len(last), sizes[source]))
            digest.update(json.dumps([linear["kind"], len(last), sizes[source]]).encode())
            for name, array in sorted(parts.items()):
                digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(last.dtype.str.encode() + np.ascontiguousarray(last).tobytes())
        values = last.astype(np.float64)
        if not np.isfinite(values).all():
            raise Refused(f"node '{item['name']}' holds numbers that are not finite")
        if relu and (sizes[sources[0]] != len(last) or (values < 0).any() or (values >= 1).any()):
            raise Refused(f"ReLU '{item['name']}' does not fit what it reads")
        if relu and sources[0] not in affine:
            raise Refused(f"ReLU '{item['name']}' does not read an affine node")
        nodes.append(Node(item["name"], tuple(sources), tuple(maps), values, values, relu))
        sizes[item["name"]] = len(last)
        affine |= set() if relu else {item["name"]}
    if content["output"] not in sizes or content["output"] == "input":
        raise Refused("the output is not a node")
    outputs, before_tail = outputs_of(content["signature"], sizes[content["output"]]), digest.hexdigest()
    digest.update(ending_digest(outputs))
    return Net(content["input_size"], tuple(nodes), content["output"], digest.hexdigest(), outputs, before_tail)


def outputs_of(signature: Mapping[str, Any], size: int) -> tuple[Any, ...]:
    """The outputs of a model, (name, shape, tail, axis) of each, whose network gives so many values."""
    if "outputs" not in signature:  # version 1: there is one
        outputs: list[Any] = [(signature["output"][0], [size], signature.get("tail", ""), None)]
    else:
        outputs = [(str(name), [int(d) for d in shape], tail, axis) for name, shape, tail, axis in signature["outputs"]]
    for _, shape, tail, axis in outputs:
        if tail not in TAILS:
            raise Refused(f"a network that ends in the unknown function '{tail}'")
        if min(shape, default=0) < 0 or not (axis is None or (type(axis) is int and 0 <= axis < len(shape))):
            raise Refused(f"an output of the shape {shape}, with a function along axis {axis}")
    if sum(math.prod(shape) for _, shape, _, _ in outputs) != size:
        raise Refused(f"outputs of other sizes than the {size} values that the network gives")
    return tuple(outputs)


def function_of(output: Any) -> tuple[Any, ...]:
    """What is done to an output's values: (how many, the tail), and, for one along an axis, that one's length and
    stride."""
    _, shape, tail, axis = output
    along = () if axis is None else (shape[axis], math.prod(shape[axis + 1 :]))
    return (math.prod(shape), tail, *along)


def ending_digest(outputs: Any) -> bytes:
    """What the outputs add to the digest: nothing for a single one without any tail."""
    _, tail, *along = function_of(outputs[0])
    if len(outputs) == 1 and not along:
        return json.dumps(["tail", tail]).encode() if tail else b""
    return json.dumps(["outputs", *([output[0], *function_of(output)] for output in outputs)]).encode()


def ending(outputs: Any) -> str:
    """What outputs end in, in words: 'softmax'; empty where that is nothing."""
    said = []
    for name, _, tail, axis in outputs:
        whose = f" of '{name}'" if len(outputs) > 1 else ""
        said.append(f"{tail}{whose}" + ("" if axis is None else f" along axis {axis}") if tail else "")
    return " and ".join(filter(None, said))
