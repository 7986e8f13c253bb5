"""Compresses many networks, each a task of a Dask cluster whose workers see the same files.

    python campaign.py ADDRESS OUT DOMAIN NETWORK…

A row for each as it is done, and all of them in OUT/campaign.json. Given again, it goes on: what was proved is kept.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import distributed

import leo_core


def one(network: str, domain: str, out: str) -> dict:
    path = Path(out, Path(network).name)
    result = leo_core.compress(network, domain, time_limit=3600, checkpoint=f"{path}.checkpoint")
    result.export(path)
    return result.as_json()


def row(done: dict) -> str:
    if "error" in done:
        return done["error"]
    before, after = (done[side]["connections"] for side in ("before", "after"))
    return f"{before:,} connections, {after:,} ({after / before:.0%}) left; change at most {done['deviation']:.2g}"


if __name__ == "__main__":
    address, out, domain, *networks = sys.argv[1:]
    Path(out).mkdir(parents=True, exist_ok=True)
    found: dict[str, dict] = {}
    with distributed.Client(address) as client:
        tasks = {client.submit(one, network, domain, out, pure=False): network for network in networks}
        for task in distributed.as_completed(tasks):
            error = task.exception()
            found[tasks[task]] = done = {"error": str(error)} if error else task.result()
            print(f"{tasks[task]:40} {row(done)}", flush=True)
            Path(out, "new.json").write_text(json.dumps(found, indent=1))
            Path(out, "new.json").replace(Path(out, "campaign.json"))
