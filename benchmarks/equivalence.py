"""Are two networks the same, within ε? Pairs made from an aircraft controller and from an MNIST classifier.

    python benchmarks/equivalence.py NETS DATA [--out docs/results/equivalence.json] [--only acas|mnist] [--count N]

NETS has ``acasxu/*.nnet`` and ``mnist_l1/mnist_100-100_0.0005.onnx``, DATA is MNIST as an ``.npz`` file of uint8 images
and labels. Pairs are seeded. Of the controller, weights get noise, or the smallest are taken away, so much that the
largest difference sampled on a box is what was drawn: for half of them 0.002 to 0.04, for half above 0.05. The networks
are written as ONNX files, box and ε = 0.05 as VNN-LIB 2.0, and ``leo verify`` gets 100 seconds; ``leo check`` re-checks
every certificate, and every witness is evaluated over the rationals. Of the classifier, 10 to 50% of the weights are
pruned and the rest retrained, and the question is ε = 1 around test images.

Each pair is a record of its own beside the JSON file, so a run goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import records

from leo_core import Box, Network
from leo_core.compare import side_by_side
from leo_core.compare.joint import DIFFERENCE, joint_region
from leo_core.execution.budget import Budget
from leo_core.files import read, write
from leo_core.linear import Dense
from leo_core.network import INPUT, Affine

SECONDS, EPSILON = 100.0, 0.05
#: The box of the competition's category (the inputs of property 1), that of property 3, and all inputs, normalised.
COMPETITION = Box([0.6, -0.5, -0.5, 0.45, -0.5], [0.679857769, 0.5, 0.5, 0.5, -0.45])
AHEAD = Box([-0.30353, -0.00955, 0.49338, 0.3, 0.3], [-0.29855, 0.00955, 0.5, 0.5, 0.5])
WHOLE = Box([-0.328422877, -0.5, -0.5, -0.5, -0.5], [0.679857769, 0.5, 0.5, 0.5, 0.5])


@dataclass(frozen=True, eq=False)
class Pair:
    """Two networks, the box, ε, and what was drawn: the kind of change, and the largest difference that was sampled."""

    name: str
    kind: str
    first: Network
    second: Network
    box: Box
    epsilon: float
    sampled: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/results/equivalence.json"))
    parser.add_argument("--only", choices=("acas", "mnist"))
    parser.add_argument("--count", type=int, default=50, help="pairs of the controller")
    arguments = parser.parse_args()
    kept = arguments.out.with_suffix(".jsonl")
    done = {row["name"]: row for row in records.read(kept)}
    pairs: list[Iterator[Pair]] = []
    if arguments.only != "mnist":
        pairs.append(controllers(sorted((arguments.nets / "acasxu").glob("*.nnet")), arguments.count))
    if arguments.only != "acas":
        pairs.append(classifiers(arguments.nets / "mnist_l1" / "mnist_100-100_0.0005.onnx", arguments.data))
    for source in pairs:
        for pair in source:
            if pair.name not in done:
                row = done[pair.name] = measured(pair)
                with kept.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(line(row), flush=True)
    rows = [done[name] for name in sorted(done)]
    arguments.out.write_text(json.dumps(rows, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(page(rows))


def measured(pair: Pair) -> dict[str, Any]:
    """What the command says of one pair, and what becomes of the proof or the witness."""
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        models = [at / "a.onnx", at / "b.onnx"]
        for network, path in zip((pair.first, pair.second), models, strict=True):
            write(network, path)
        question, proof = at / "question.vnnlib", at / "proof.cert"
        question.write_text(vnnlib(pair))
        started, busy = time.perf_counter(), os.getloadavg()[0]
        done = leo(
            "verify", *models, "--domain", question, "--time-limit", SECONDS, "--certificate", proof, "--json", "-q"
        )
        seconds = time.perf_counter() - started
        found = json.loads(done.stdout)
        row = {
            "name": pair.name, "kind": pair.kind, "epsilon": pair.epsilon, "sampled": pair.sampled,
            "within": found["within"], "lower": found["lower"], "upper": found["upper"], "seconds": seconds,
            "load": busy, "wrong": wrong(pair, found), "plain": plain(pair) if pair.kind == "retrained" else None,
        }  # fmt: skip
        if found["within"]:
            started = time.perf_counter()
            checked = leo("check", proof, *models, "-q") if proof.exists() else None
            row["accepted"] = checked is not None and checked.returncode == 0
            row["check_seconds"] = time.perf_counter() - started
            row["bytes"] = proof.stat().st_size if proof.exists() else None
        return row


def leo(*arguments: Any) -> subprocess.CompletedProcess[str]:
    """The command."""
    call = [sys.executable, "-m", "leo_core", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, check=False)


def wrong(pair: Pair, found: dict[str, Any]) -> bool:
    """Whether points of the box contradict the answer: 300,000 of them, or the witness over the rationals."""
    if found["within"] is False:
        x = np.array(found["witness"])
        values = (net.evaluate_exact(x)[net.output].fractions() for net in (pair.first, pair.second))
        apart = max(abs(a - b) for a, b in zip(*values, strict=True))
        return not (pair.box.contains(x) and apart > pair.epsilon)
    return found["within"] is True and farthest(pair.first, pair.second, pair.box, 7, 300_000) > pair.epsilon


def farthest(first: Network, second: Network, box: Box, seed: int, count: int) -> float:
    """The largest difference on a sample."""
    rng, most = np.random.default_rng(seed), 0.0
    for _ in range(0, count, 10_000):
        points = box.sample(rng, 10_000)
        most = max(most, float(np.abs(first.evaluate(points) - second.evaluate(points)).max()))
    return most


def plain(pair: Pair) -> float:
    """What backward linear bounds on the product network say of the difference, nothing paired and nothing split."""
    joint = side_by_side(pair.first, pair.second)
    low, high = joint_region(joint, pair.box, Budget()).intervals[DIFFERENCE]
    return float(np.maximum(np.abs(low), np.abs(high)).max())


def vnnlib(pair: Pair) -> str:
    """The question as the competition's category writes it."""
    inputs, outputs = pair.first.input_size, pair.first.output_size
    lines = ["(vnnlib-version <2.0>)"]
    for name, relation in (("f", ""), ("g", " (isomorphic-to f)" if pair.kind == "noise" else "")):
        lines.append(f"(declare-network {name}{relation} (declare-input X_{name} float32 [1,{inputs}])"
                     f" (declare-output Y_{name} float32 [1,{outputs}]))")  # fmt: skip
    for i, (low, high) in enumerate(zip(pair.box.lower.tolist(), pair.box.upper.tolist(), strict=True)):
        lines.append(f"(assert (and (<= X_f[0,{i}] {Decimal(high):f}) (>= X_f[0,{i}] {Decimal(low):f})))")  # exactly
        lines.append(f"(assert (== X_f[0,{i}] X_g[0,{i}]))")
    apart = (f"(> Y_g[0,{k}] (+ Y_f[0,{k}] {pair.epsilon})) (< Y_g[0,{k}] (- Y_f[0,{k}] {pair.epsilon}))"
             for k in range(outputs))  # fmt: skip
    return "\n".join([*lines, f"(assert (or {' '.join(apart)}))", ""])


def controllers(files: list[Path], count: int) -> Iterator[Pair]:
    """Pairs of an aircraft controller and what noise or pruning makes of it."""
    networks = [normalised(read(path)[0].network) for path in files]
    for seed in range(count):
        rng = np.random.default_rng(seed)
        first = networks[seed % len(networks)]
        kind, box = ("noise", "pruned")[seed % 4 == 3], (COMPETITION, COMPETITION, COMPETITION, AHEAD)[seed // 4 % 4]
        if seed % 10 == 5:
            box = inside(WHOLE, rng)
        target = float(np.exp(rng.uniform(*np.log((0.002, 0.04) if seed % 2 else (0.055, 0.2)))))
        second, sampled = changed(first, box, kind, target, seed)
        yield Pair(f"acas {seed:02d}", kind, first, second, box, EPSILON, sampled)


def inside(box: Box, rng: np.random.Generator) -> Box:
    """A box a fifth as wide, somewhere in another."""
    width = 0.2 * (box.upper - box.lower)
    lower = box.lower + rng.random(box.size) * 0.8 * (box.upper - box.lower)
    return Box(lower, lower + width)


def changed(first: Network, box: Box, kind: str, target: float, seed: int) -> tuple[Network, float]:
    """A network that is about ``target`` from the first on a sample, and how far it is: the amount is bisected."""
    change = {"noise": noisy, "pruned": pruned}[kind]
    low, high = 1e-6, 1.0
    for _ in range(24):
        middle = float(np.sqrt(low * high))
        if farthest(first, change(first, middle, seed), box, seed, 10_000) < target:
            low = middle
        else:
            high = middle
    second = change(first, low if target < EPSILON else high, seed)
    return second, farthest(first, second, box, seed + 1, 100_000)


def normalised(network: Network) -> Network:
    """The layers between the normalisation of inputs and that of outputs, in float32 as the competition has them."""
    nodes, at = [], INPUT
    for node in network.nodes:
        if isinstance(node, Affine) and not isinstance(node.maps[0], Dense):
            continue
        if isinstance(node, Affine):
            node = replace(node, sources=(at,), maps=(Dense(node.maps[0].dense().astype(np.float32)),),
                           bias=node.bias.astype(np.float32))  # fmt: skip
        nodes.append(node)
        at = node.name
    return Network(network.input_size, tuple(nodes), at)


def noisy(network: Network, amount: float, seed: int) -> Network:
    """Normal noise on every weight and bias."""
    rng, nodes = np.random.default_rng(seed), []
    for node in network.nodes:
        if isinstance(node, Affine):
            matrix = node.maps[0].dense()
            moved = matrix + rng.normal(0, amount, matrix.shape)
            bias = node.bias + rng.normal(0, amount, node.size)
            node = replace(node, maps=(Dense(moved.astype(np.float32)),), bias=bias.astype(np.float32))
        nodes.append(node)
    return replace(network, nodes=tuple(nodes))


def pruned(network: Network, share: float, seed: int) -> Network:
    """Without that share of each layer's smallest weights, more in some layers than in others."""
    rng, nodes = np.random.default_rng(seed), []
    for node in network.nodes:
        if isinstance(node, Affine):
            matrix = node.maps[0].dense().astype(np.float32)
            least = np.quantile(np.abs(matrix), min(1.0, share * rng.uniform(0.5, 1.5)))
            node = replace(node, maps=(Dense(np.where(np.abs(matrix) < least, np.float32(0), matrix)),))
        nodes.append(node)
    return replace(network, nodes=tuple(nodes))


def classifiers(path: Path, data: Path) -> Iterator[Pair]:
    """A classifier and what pruning and retraining make of it, around ten images."""
    network = read(path)[0].network
    with np.load(data) as file:
        arrays = {key.lower(): file[key] for key in file.files}
    images, labels = (next(arrays[key] for key in arrays if part in key and len(arrays[key]) > 1000)
                      for part in ("image", "label"))  # fmt: skip
    images = images.reshape(len(images), -1) / 255.0
    box = Box.uniform(0, 1, network.input_size)
    for share in (0.1, 0.3, 0.5):
        second = retrained(network, images[:20_000], labels[:20_000], share)
        for number, x in enumerate(images[-10:]):
            for radius in (0.01, 0.03, 0.05):
                around = Box(box.clip(x - radius), box.clip(x + radius))
                sampled = farthest(network, second, around, 1, 20_000)
                name = f"mnist {share:.0%} {number} {radius}"
                yield Pair(name, "retrained", network, second, around, 1.0, sampled)


def retrained(network: Network, images: Any, labels: Any, share: float) -> Network:
    """Without a share of the smallest weights of each layer, the others trained on for an epoch."""
    import torch

    torch.manual_seed(0)
    layers = [node for node in network.nodes if isinstance(node, Affine)]
    weights = [torch.tensor(node.maps[0].dense(), dtype=torch.float32) for node in layers]
    masks = [(weight.abs() >= weight.abs()[weight != 0].quantile(share)).float() for weight in weights]
    weights = [(weight * mask).requires_grad_() for weight, mask in zip(weights, masks, strict=True)]
    biases = [torch.tensor(node.bias, dtype=torch.float32).requires_grad_() for node in layers]
    optimiser = torch.optim.SGD([*weights, *biases], lr=0.02)
    inputs, targets = torch.tensor(images, dtype=torch.float32), torch.tensor(labels.astype(np.int64))
    for rows in torch.randperm(len(inputs)).split(64):
        values = inputs[rows]
        for number, (weight, bias, mask) in enumerate(zip(weights, biases, masks, strict=True)):
            values = torch.nn.functional.linear(values if not number else values.relu(), weight * mask, bias)
        loss = torch.nn.functional.cross_entropy(values, targets[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    instead = {
        node.name: replace(node, maps=(Dense((weight * mask).detach().numpy()),), bias=bias.detach().numpy())
        for node, weight, bias, mask in zip(layers, weights, biases, masks, strict=True)
    }
    return replace(network, nodes=tuple(instead.get(node.name, node) for node in network.nodes))


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    answer = {True: "within", False: "not within", None: "open"}[row["within"]]
    proof = "witness" if row["within"] is False else ""
    if row["within"]:
        proof = f"accepted in {row['check_seconds']:.0f} s" if row["accepted"] else "no certificate"
    bound = "" if row["plain"] is None else f"{row['plain']:.3g}"
    return (
        f"| {row['name']} | {row['kind']} | {row['sampled']:.4f} | {row['epsilon']:g} | {answer}"
        f"{' WRONG' if row['wrong'] else ''} | {row['seconds']:.1f} s | {row['load']:.1f} | {proof} | {bound} |"
    )


def page(rows: list[dict[str, Any]]) -> str:
    """The page of the results."""
    parts = [_PAGE]
    for family, title in (("acas", "An aircraft controller, ε = 0.05"), ("mnist", "A pruned classifier, ε = 1")):
        mine = [row for row in rows if row["name"].startswith(family)]
        if not mine:
            continue
        decided = [row for row in mine if row["within"] is not None]
        proved = [row for row in mine if row["within"]]
        times = sorted(row["seconds"] for row in decided) or [0.0]
        parts.append(
            f"## {title}\n\n{len(decided)} of {len(mine)} decided ({len(proved)} within, {len(decided) - len(proved)} "
            f"not), {sum(row['wrong'] for row in mine)} wrong; {sum(row['accepted'] for row in proved)} of "
            f"{len(proved)} proofs certified and accepted. Half took up to {times[len(times) // 2]:.1f} s, the longest "
            f"{times[-1]:.1f} s.\n\n{_HEAD}" + "".join(line(row) + "\n" for row in mine)
        )
    return "\n".join(parts)


_HEAD = """| pair | change | sampled difference | ε | answer | time | load | evidence | plain bound |
|---|---|--:|--:|---|--:|--:|---|--:|
"""
_PAGE = """# Are two networks the same?

By `leo verify A.onnx B.onnx --domain QUESTION.vnnlib --time-limit 100 --certificate FILE`, one pair after the other;
written by `benchmarks/equivalence.py`. Times are of the whole command, reading both models and checking the
certificate before it is written included. *Load* is how many processes wanted to run on the machine's two cores when
it began: times are as noisy as that says. *Sampled* is the largest difference on 100,000 random inputs, so the true
one is somewhat larger. A witness is evaluated over the rationals, an answer 'within' is held against 300,000 more
inputs. The *plain bound* is what backward linear bounds on both networks side by side say without splitting.
"""


if __name__ == "__main__":
    main()
