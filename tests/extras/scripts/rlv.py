"""The example of a frontend: found by its entry point, conforming, and a network in its format made smaller."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def leo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("leo"), *arguments], capture_output=True, text=True, check=False
    )


(rlv,) = (p for p in json.loads(leo("plugins", "--json").stdout)["plugins"] if p["name"] == "rlv")
assert rlv["state"] == "available", rlv
assert rlv["distribution"] == "leo-frontend-rlv"

kit = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "leo-frontend-rlv/tests"],
                     capture_output=True, text=True, check=False)  # fmt: skip
assert kit.returncode == 0, kit.stdout[-3000:]
assert " passed" in kit.stdout

assert leo("convert", "net.leo", "net.rlv").returncode == 0
done = leo("compress", "net.rlv", "smaller.rlv", "--domain", "0,1", "--json", "-q")
assert done.returncode == 0, done.stderr
assert json.loads(done.stdout)["door"] == {"read": "agrees", "written": "agrees"}
assert json.loads(leo("verify", "net.leo", "smaller.rlv", "--domain", "0,1", "--json", "-q").stdout)["upper"] < 1e-3
