"""Convolutional networks: what auto_LiRPA's bounds prove of each ReLU layer, what ours prove, and in what time.

    python benchmarks/lirpa.py NETS [--out docs/results/stability-convolutions.json] [--only NAME …]

Needs auto_LiRPA 0.3 and appdirs beside what LEO needs, without their dependencies (``pip install --no-deps``); names
that this release imports and current NumPy and PyTorch no longer have are put back here. One run, one thread, the same
network and box: auto_LiRPA gets the torch module that LEO writes. Each method runs in a process of its own, which a
time limit and a memory limit end. CROWN-IBP takes its intermediate bounds from IBP, and so says nothing more of ReLUs.
auto_LiRPA's bounds are not rounded outward: they are no proofs. Its time is that of bounding alone; LEO's that of all
that follows reading. What LEO's verdicts on channels rest on is beside them; of ``EXPLAINED`` only that.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import leo_core
from leo_core import Box, Network, StabilityMap, State
from leo_core.bounds.interval import bound_network
from leo_core.bounds.region import Region
from leo_core.files import read
from leo_frontends import layers

#: Whose bounds are compared, and of which networks it is asked what verdicts rest on.
METHODS = ("IBP", "CROWN", "LEO")
COMPARED = ("convSmallRELU__DiffAI", "WK17a_linf0.1", "dronet")
EXPLAINED = (*COMPARED, "version-slim-320")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", type=Path)
    parser.add_argument("--out", type=Path, help="write the figures there")
    parser.add_argument("--only", nargs="*", help="parts of names")
    parser.add_argument("--time-limit", type=float, default=120.0, help="seconds per network and method")
    parser.add_argument("--memory", type=float, default=6.0, help="GB per network and method")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(*arguments.one, arguments.time_limit, arguments.memory)))
        return
    rows: list[dict[str, Any]] = []
    for entry in json.loads((arguments.nets / "INDEX.json").read_text())["networks"]:
        name = Path(entry["file"]).stem
        if name not in EXPLAINED or (arguments.only and not any(part in name for part in arguments.only)):
            continue
        files = [str(arguments.nets / entry[key]) for key in ("file", "domain")]
        for method in METHODS if name in COMPARED else ("LEO",):
            rows.append({"name": name, "method": method, **apart([method, *files], arguments)})
            print(json.dumps(rows[-1]), flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


def apart(what: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """One method in a process of its own, whose reading and tracing do not count."""
    limits = ["--time-limit", str(arguments.time_limit), "--memory", str(arguments.memory)]
    call = [sys.executable, __file__, str(arguments.nets), *limits, "--one", *what]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGALRM:
        return {"stopped": f"more than {arguments.time_limit:g} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed"])[-1]
        return {"stopped": last[:160]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def one(method: str, model: str, domain: str, seconds: float, memory: float) -> dict[str, Any]:
    """The figures of one method, in this process."""
    resource.setrlimit(resource.RLIMIT_AS, (int(memory * 1e9),) * 2)
    network = read(Path(model))[0].network
    box = Box.of(domain, network.input_size)
    return ours(network, box, seconds) if method == "LEO" else theirs(network, box, method, seconds)


def asked(network: Network) -> list[str]:
    """The ReLU nodes that the model itself has; those that make up a pool are none of them."""
    inside = {name for pool in layers.pools(network).values() for name in pool.inside}
    return [relu.name for relu in network.relus if relu.name not in inside]


def ours(network: Network, box: Box, seconds: float) -> dict[str, Any]:
    begun = time.perf_counter()
    stability = leo_core.analyze(network, box, time_limit=seconds)
    spent = time.perf_counter() - begun
    states = {name: stability.layers[name].state for name in asked(network)}
    stable = {name: ((state == State.ACTIVE), (state == State.INACTIVE)) for name, state in states.items()}
    return {
        "seconds": round(spent, 2),
        "limit_struck": spent >= seconds,
        "layers": list(counted(network, stable)),
        "channels": rests_on(stability, bound_network(network, box), asked(network)),
    }


def theirs(network: Network, box: Box, method: str, seconds: float) -> dict[str, Any]:
    put_back()
    import torch
    from auto_LiRPA import BoundedModule, BoundedTensor
    from auto_LiRPA.operators import BoundRelu
    from auto_LiRPA.perturbations import PerturbationLpNorm

    from leo_frontends.torch.write import build_module

    torch.set_num_threads(1)
    module = build_module(network)
    if len(network.signature.outputs) > 1:  # it knows one output, a tensor
        module = one_output(module)
    shape = (1, *(network.signature.input_shape or (network.input_size,)))
    low, high = (torch.tensor(side, dtype=torch.float32).reshape(shape) for side in (box.lower, box.upper))
    bounded = BoundedModule(module, torch.zeros_like(low), verbose=False)
    inputs = BoundedTensor(0.5 * (low + high), PerturbationLpNorm(norm=np.inf, x_L=low, x_U=high))
    signal.setitimer(signal.ITIMER_REAL, seconds)  # ends this process
    begun = time.perf_counter()
    with torch.no_grad():
        bounded.compute_bounds(x=(inputs,), method=method)
    spent = time.perf_counter() - begun
    read_by = [node.inputs[0] for node in bounded.modules() if isinstance(node, BoundRelu)]
    names = asked(network)
    ends = [[side.detach().numpy().ravel() for side in (node.lower, node.upper)] for node in read_by]
    sizes = [network.affine(network[name].source).size for name in names]
    if [len(low) for low, _ in ends] != sizes:
        raise ValueError(f"ReLUs of {[len(low) for low, _ in ends]} units, not {sizes}")
    stable = {name: (low >= 0, high <= 0) for name, (low, high) in zip(names, ends, strict=True)}
    return {"seconds": round(spent, 2), "dtype": str(low.dtype), "layers": list(counted(network, stable))}


def one_output(module: Any) -> Any:
    """The module with its outputs, a dict, joined to one."""
    import torch

    class Joined(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, given: Any) -> Any:
            return torch.cat([value.flatten(1) for value in self.inner(given).values()], dim=1)

    return Joined().eval()


def counted(network: Network, stable: dict[str, tuple[Any, Any]]) -> Iterator[dict[str, Any]]:
    """Of each layer, how many units, and channels as a whole, are active, or inactive."""
    for name, (active, inactive) in stable.items():
        groups = network.affine(network[name].source).groups
        whole = [np.reshape(mask, (groups, -1)).all(axis=1) for mask in (active & ~inactive, inactive)]
        yield {
            "layer": name,
            "units": len(active),
            "units_proved": int((active | inactive).sum()),
            "channels": groups,
            "channels_proved": int((whole[0] | whole[1]).sum()),
        }


def rests_on(stability: StabilityMap, region: Region, names: list[str]) -> dict[str, int]:
    """Channels of ``names``: proved by intervals alone, by backward bounds too, constant otherwise, unstable, open."""
    total = dict.fromkeys(("all", "intervals", "backward", "constant", "unstable", "undecided"), 0)
    for name in names:
        masks = stability.layers[name].channel_masks()
        if not masks:
            continue
        source = stability.network.affine(stability.network[name].source).name
        low, high = (side.reshape(len(masks["constant"]), -1) for side in region.intervals[source])
        plain = (high <= 0).all(axis=1) | (low >= 0).all(axis=1)
        stable = masks["inactive"] | masks["active"]
        kinds = {"intervals": stable & plain, "backward": stable & ~plain}
        kinds |= {kind: masks[kind] for kind in ("constant", "unstable", "undecided")}
        total["all"] += len(plain)
        for kind, mask in kinds.items():
            total[kind] += int(mask.sum())
    return total


def put_back() -> None:
    """Names that auto_LiRPA 0.3 imports, where current NumPy and PyTorch have them elsewhere."""
    import torch.onnx.symbolic_helper
    import torch.onnx.utils
    from torch.onnx._internal.torchscript_exporter import utils
    from torch.onnx._internal.torchscript_exporter._globals import GLOBALS

    sets = types.ModuleType("numpy.lib.arraysetops")
    sets.isin = np.isin  # type: ignore[attr-defined]
    sys.modules["numpy.lib.arraysetops"] = sets
    torch.onnx.utils._optimize_graph = utils._optimize_graph
    torch.onnx.symbolic_helper._set_opset_version = lambda version: setattr(
        GLOBALS, "export_onnx_opset_version", version
    )
    torch._C.Node.__getitem__ = lambda node, key: getattr(node, node.kindOf(key))(key)


if __name__ == "__main__":
    main()
