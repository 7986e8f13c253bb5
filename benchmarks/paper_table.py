"""Table 1 of the LEO paper, ours beside theirs: MNIST, two hidden layers, trained, then compressed losslessly.

    python benchmarks/paper_table.py [--data mnist.npz] [--seeds 5] [--only paper|ours|wide] [--jobs 2] [--quick]

*paper* trains as Serra, Kumar, Ramalingam (CPAIOR 2020) did: 120 epochs of SGD (momentum 0.9, batches of 128,
learning rate 0.01, a tenth of it every 50 epochs), λ Σ|w| added to the loss, inputs in [0, 1]. *ours* are settings of
ours for the same widths: 40 epochs of the same SGD, the rate falling from 0.05 to zero along a cosine, images shifted
by up to a pixel, ProximalL1 in the first half, what is zero then kept zero (``settle``). *wide* trains 800 or 1600
units a layer likewise, in 20 epochs, to be deployed thin. Each network is compressed on [0, 1]^784 with LEO's
published operations (``--passes leo``) and with all of ours, at the default tolerance. Removal is counted in hidden
units, accuracy on the 10,000 test images, in percent; ± is the standard error of the mean.

Every network is a record of the JSON file, written as soon as it is there, and what is there is not done again: stop
at any time, start again, add seeds. Training that was cut off goes on from its last checkpoint in the cache folder.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results" / "paper_table"
#: The paper's table: width, λ, accuracy, its error, units removed from layers 1 and 2, percent of units removed.
PAPER = (
    (25, 1e-3, 95.76, 0.05, 5.7, 5.1, 22.0),
    (25, 2e-4, 97.24, 0.02, 1.2, 3.0, 8.3),
    (25, 0.0, 96.68, 0.03, 0.0, 0.0, 0.0),
    (50, 1e-3, 96.05, 0.04, 16.9, 12.5, 29.4),
    (50, 2e-4, 97.81, 0.02, 7.6, 7.5, 15.1),
    (50, 0.0, 97.62, 0.02, 0.0, 0.0, 0.0),
    (100, 5e-4, 97.14, 0.02, 36.7, 24.9, 30.8),
    (100, 1e-4, 98.14, 0.01, 18.6, 11.1, 14.9),
    (100, 0.0, 98.00, 0.01, 0.0, 0.0, 0.0),
)


@dataclass(frozen=True)
class Recipe:
    """How one network is trained; ``name`` and a seed say which."""

    name: str
    width: int
    strength: float
    epochs: int
    rate: float
    kind: str  # "penalty", as in the paper, or "proximal"
    batch: int = 128


def recipes(only: str | None, quick: bool) -> list[Recipe]:
    """All of them, or a few short ones."""
    paper = [Recipe(f"paper {w} {lam:g}", w, lam, 120, 0.01, "penalty") for w, lam, *_ in PAPER]
    ours = [
        Recipe(f"ours {width} {row:g}", width, strength, 40, 0.05, "proximal")
        for width, row, strength in (
            (25, 1e-3, 1.5e-3),
            (25, 2e-4, 4e-4),
            (50, 1e-3, 1.2e-3),
            (50, 2e-4, 4e-4),
            (100, 5e-4, 7e-4),
            (100, 1e-4, 2.5e-4),
        )
    ]
    wide = [
        Recipe(f"wide {width} {strength:g}", width, strength, 20, 0.05, "proximal")
        for width, strength in ((800, 5e-4), (800, 3e-4), (800, 2e-4), (1600, 2.5e-4))
    ]
    if quick:
        some = [paper[0], paper[2], ours[0]]
        return [replace(recipe, epochs=3) for recipe in some]
    return {None: [*paper, *ours, *wide], "paper": paper, "ours": ours, "wide": wide}[only]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data" / "mnist.npz", help="MNIST as .npz"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=("paper", "ours", "wide"))
    parser.add_argument("--jobs", type=int, default=1, help="networks at a time, one thread each")
    parser.add_argument("--quick", action="store_true", help="one seed, three networks, three epochs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where .json, .md and .png go, without a suffix")
    parser.add_argument("--cache", type=Path, default=ROOT / ".cache" / "paper_table", help="networks and checkpoints")
    parser.add_argument("--report", action="store_true", help="write the table of what is there; train nothing")
    arguments = parser.parse_args()
    records = arguments.results.with_suffix(".json")
    done = json.loads(records.read_text()) if records.exists() else []
    if not arguments.report:
        seeds = range(1 if arguments.quick else arguments.seeds)
        have = {(record["recipe"]["name"], record["seed"]) for record in done}
        wanted = [(recipe, seed) for seed in seeds for recipe in recipes(arguments.only, arguments.quick)]
        todo = [(recipe, seed) for recipe, seed in wanted if (recipe.name, seed) not in have]
        data = find_data(arguments.data, arguments.cache)
        for record in measured(todo, data, arguments.cache, arguments.jobs):
            done.append(record)
            write(records, json.dumps(sorted(done, key=_order), indent=1) + "\n")
    text = report(done)
    write(arguments.results.with_suffix(".md"), text)
    plot(done, arguments.results.with_suffix(".png"))
    print(text)


def find_data(path: Path, cache: Path) -> Path:
    """MNIST as a .npz file: the one given, the one in the cache, or downloaded by keras or torchvision."""
    kept = cache / "mnist.npz"
    for there in (path, kept):
        if there.exists():
            return there
    try:
        arrays = _downloaded(cache)
    except Exception as error:
        names = "train_images, train_labels, test_images, test_labels"
        sys.exit(f"MNIST is not at {path}, and could not be downloaded ({error}); give --data FILE.npz with {names}")
    cache.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        kept, **dict(zip(("train_images", "train_labels", "test_images", "test_labels"), arrays, strict=True))
    )
    return kept


def _downloaded(cache: Path) -> list[Any]:
    try:
        from torchvision.datasets import MNIST

        parts = [MNIST(str(cache), train=train, download=True) for train in (True, False)]
        return [array.numpy() for part in parts for array in (part.data, part.targets)]
    except ImportError:
        from leo_frontends.keras import import_keras

        return [array for part in import_keras().datasets.mnist.load_data() for array in part]


def measured(todo: list[tuple[Recipe, int]], data: Path, cache: Path, jobs: int) -> Iterator[dict[str, Any]]:
    """A record per network, as they come."""
    cache.mkdir(parents=True, exist_ok=True)
    with Progress() as progress, ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        task = progress.add_task("networks", total=len(todo))
        waiting = [pool.submit(measure, recipe, seed, data, cache) for recipe, seed in todo]
        for future in as_completed(waiting):
            record = future.result()
            name, accuracy = record["recipe"]["name"], record["accuracy"]
            progress.console.print(f"{name}, seed {record['seed']}: {accuracy:.2f}%, {record['all']['widths']}")
            progress.advance(task)
            yield record


def measure(recipe: Recipe, seed: int, data: Path, cache: Path) -> dict[str, Any]:
    """Train one network, or take it from the cache, and compress it both ways."""
    import torch

    import leo_core

    torch.set_num_threads(1)
    arrays = np.load(data)
    images = [
        arrays[f"{part}_images"].reshape(-1, 784).astype(np.float32) / np.float32(255) for part in ("train", "test")
    ]
    labels = [arrays[f"{part}_labels"].astype(np.int64) for part in ("train", "test")]
    begun = time.monotonic()
    model = trained(recipe, seed, images[0], labels[0], cache)
    with torch.no_grad():
        before = model(torch.from_numpy(images[1])).argmax(dim=1).numpy()
    record: dict[str, Any] = {
        "recipe": asdict(recipe),
        "seed": seed,
        "accuracy": 100 * float((before == labels[1]).mean()),
        "training_seconds": round(time.monotonic() - begun, 1),
    }
    for passes in ("leo", "all"):
        result = leo_core.compress(model, (0, 1), passes=passes, time_limit=600)
        after = result.network.evaluate(images[1], np.float32).argmax(axis=1)
        record[passes] = {
            "widths": list(result.network.widths),
            "units": result.network.units,
            "connections": result.network.connections,
            "deviation": result.deviation,
            "float_noise": result.float_noise,
            "undecided": result.stability.count(leo_core.State.UNDECIDED),
            "predictions_changed": int((before != after).sum()),
            "seconds": round(result.seconds, 2),
        }
    return record


def trained(recipe: Recipe, seed: int, training: Any, labels: Any, cache: Path) -> Any:
    """The network of a recipe and a seed, from where its last checkpoint left off."""
    import torch
    from torch import nn

    from leo_frontends.torch.training import ProximalL1, l1_penalty

    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    w = recipe.width
    model = nn.Sequential(nn.Linear(784, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU(), nn.Linear(w, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.rate, momentum=0.9)
    if recipe.kind == "penalty":
        schedule: Any = torch.optim.lr_scheduler.StepLR(optimizer, 50, gamma=0.1)
    else:
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs)
        proximal = ProximalL1(optimizer, recipe.strength)
    held = {"model": model, "optimizer": optimizer, "schedule": schedule}
    digest = "-".join(str(value) for value in (*asdict(recipe).values(), seed)).replace(" ", "_")
    path = cache / f"{digest}.pt"
    done = 0
    if path.exists():
        saved = torch.load(path, weights_only=True)
        done = saved.pop("epoch")
        generator.set_state(saved.pop("generator"))
        for name, part in held.items():
            part.load_state_dict(saved[name])
    x, y = torch.from_numpy(training), torch.from_numpy(labels)
    for epoch in range(done, recipe.epochs):
        if recipe.kind == "proximal" and epoch == max(done, (recipe.epochs + 1) // 2):
            proximal.settle()
        for rows in torch.randperm(len(x), generator=generator).split(recipe.batch):
            images = x[rows]
            if recipe.kind == "proximal":  # a pixel up or down, left or right: still inside [0, 1]
                shift = torch.randint(-1, 2, (2,), generator=generator).tolist()
                images = images.view(-1, 28, 28).roll(shift, (1, 2)).flatten(1)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), y[rows])
            if recipe.kind == "penalty" and recipe.strength:
                loss = loss + recipe.strength * l1_penalty(model)
            loss.backward()
            optimizer.step()
        schedule.step()
        if (epoch + 1) % 10 == 0 or epoch + 1 == recipe.epochs:
            state = {name: part.state_dict() for name, part in held.items()}
            temporary = path.with_suffix(f".{os.getpid()}")
            torch.save({**state, "epoch": epoch + 1, "generator": generator.get_state()}, temporary)
            temporary.replace(path)
    return model.eval()


def report(done: list[dict[str, Any]]) -> str:
    """The tables as Markdown."""
    lines = [
        "# The paper's table, ours beside it",
        "",
        "MNIST, two hidden layers. *Paper*: Table 1 of Serra, Kumar, Ramalingam (CPAIOR 2020), 31 networks a row.",
        "*Trained alike*: our networks, trained as they trained. *Ours*: settings of ours for the same width. Units",
        "removed by LEO's published operations, and by all of ours, at the default tolerance.",
        "Mean ± its standard error over the seeds. Made by `python benchmarks/paper_table.py`; every network is in",
        "[paper_table.json](paper_table.json).",
        "",
        "| width | λ | | accuracy % | layer 1 | layer 2 | removed %, LEO | removed %, all | connections left | seeds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for width, lam, accuracy, error, first, second, percent in PAPER:
        lines.append(
            f"| {width} | {lam:g} | paper | {accuracy:.2f} ± {error:.2f} | {first} | {second} | {percent} | | | 31 |"
        )
        for label, prefix in (("trained alike", "paper"), ("ours", "ours")):
            records = _of(done, f"{prefix} {width} {lam:g}")
            if records:
                lines.append(f"| {width} | {lam:g} | {_label(label, records)} | {_row(records)} |")
    wide = sorted({record["recipe"]["name"] for record in done if record["recipe"]["name"].startswith("wide")})
    if wide:
        lines += ["", "Trained wide, deployed thin (the paper's 98.14% network keeps about 72,000 connections):", "",
                  "| width | λ | accuracy %, each | after, thinnest | connections left | removed %, all | seeds |",
                  "|---|---|---|---|---|---|---|"]  # fmt: skip
        for name in wide:
            records = _of(done, name)
            thin = min(records, key=lambda record: record["all"]["connections"])
            lines.append(
                f"| {thin['recipe']['width']} | {thin['recipe']['strength']:g} | "
                f"{_each(records)} | "
                f"{'-'.join(map(str, thin['all']['widths']))} | "
                f"{_mean([record['all']['connections'] / 1000 for record in records], 1)} thousand | "
                f"{_mean([_removed(record, 'all') for record in records], 1)} | {len(records)} |"
            )
    changed = sum(record[passes]["predictions_changed"] for record in done for passes in ("leo", "all"))
    slowest = max((record["leo"]["seconds"] for record in done if not record["recipe"]["strength"]), default=0.0)
    lines += [
        "",
        f"{len(done)} networks; predictions on test images that changed by compressing: {changed}. "
        f"Networks trained without L1 are seen to have nothing to remove in at most {slowest:.1f} s.",
        "",
        "![accuracy against connections](paper_table.png)",
        "",
    ]
    return "\n".join(lines)


def plot(done: list[dict[str, Any]], path: Path) -> None:
    """Accuracy against connections: the paper's figures, our networks with LEO's operations, and with all of ours."""
    try:
        import matplotlib
    except ImportError:
        print("no plot: matplotlib is not installed", file=sys.stderr)
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    theirs = [(_connections(w, first, second), accuracy) for w, _, accuracy, _, first, second, _ in PAPER]
    axes.scatter(
        *zip(*theirs, strict=True), marker="*", s=90, color="black", label="LEO, as published (means)", zorder=3
    )
    groups = (
        ("paper", "leo", "o", "tab:blue", "trained alike, LEO's operations"),
        ("paper", "all", "o", "tab:orange", "trained alike, all of ours"),
        ("ours", "all", "s", "tab:green", "our settings, all of ours"),
        ("wide", "all", "D", "tab:red", "trained wide, all of ours"),
    )
    for prefix, passes, marker, colour, label in groups:
        points = [
            (record[passes]["connections"], record["accuracy"])
            for record in done
            if record["recipe"]["name"].startswith(prefix)
        ]
        if points:
            axes.scatter(*zip(*points, strict=True), marker=marker, s=18, color=colour, label=label, alpha=0.8)
    axes.set(xscale="log", xlabel="connections kept", ylabel="test accuracy, %", title="MNIST, two hidden layers")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=110, format="png")
    temporary.replace(path)
    pyplot.close(figure)


def write(path: Path, text: str) -> None:
    """Under a temporary name, then renamed: a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def _of(done: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [record for record in done if record["recipe"]["name"] == name]


def _each(records: list[dict[str, Any]]) -> str:
    return ", ".join(f"{record['accuracy']:.2f}" for record in records)


def _label(label: str, records: list[dict[str, Any]]) -> str:
    recipe = records[0]["recipe"]
    return label if label != "ours" else f"ours, λ = {recipe['strength']:g}"


def _row(records: list[dict[str, Any]]) -> str:
    width = records[0]["recipe"]["width"]
    chains = [record["leo"]["widths"] for record in records if len(record["leo"]["widths"]) == 4]
    layers = [_mean([width - widths[at] for widths in chains], 1) if chains else "—" for at in (1, 2)]
    removed = [_mean([_removed(record, passes) for record in records], 1) for passes in ("leo", "all")]
    kept = _mean([record["all"]["connections"] for record in records], 0)
    accuracy = _mean([record["accuracy"] for record in records], 2)
    return " | ".join([accuracy, *layers, *removed, kept, str(len(records))])


def _removed(record: dict[str, Any], passes: str) -> float:
    return 100 * (1 - record[passes]["units"] / (2 * record["recipe"]["width"]))


def _mean(values: list[float], digits: int) -> str:
    mean = sum(values) / len(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def _connections(width: int, first: float, second: float) -> float:
    return 784 * (width - first) + (width - first) * (width - second) + (width - second) * 10


def _order(record: dict[str, Any]) -> tuple[str, int]:
    return record["recipe"]["name"], record["seed"]


if __name__ == "__main__":
    main()
