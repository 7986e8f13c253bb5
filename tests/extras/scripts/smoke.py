"""An installed wheel, far from any checkout: what it says of itself, and a network there and back.

``python smoke.py VERSION``; then the extra ``report`` is brought by the very line that LEO's error names.
"""

from __future__ import annotations

import importlib.metadata
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

import leo_core
from leo_core.errors import MissingExtraError
from leo_core.testing.networks import chain


def leo(*arguments: str) -> str:
    command = [Path(sys.executable).with_name("leo"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stderr}"
    return done.stdout


assert leo_core.__version__ == importlib.metadata.version("leo-compress") == sys.argv[1]
assert sys.argv[1] in leo("--version")
assert Path(leo_core.__file__).is_relative_to(sys.prefix), "the installed package is what runs"
for package in ("leo_core", "leo_backends", "leo_frontends"):
    assert (Path(leo_core.__file__).parents[1] / package / "py.typed").is_file()

leo_core.convert(chain(4, 12, 12, 2, seed=3), "net.leo")
leo("compress", "net.leo", "smaller.leo", "--domain", "0,1", "--certificate", "net.cert", "-q")
leo("check", "net.cert", "net.leo", "smaller.leo")
told = json.loads(leo("verify", "net.leo", "smaller.leo", "--domain", "0,1", "--json", "-q"))
assert told["upper"] < 1e-3, told
checked = subprocess.run([sys.executable, "-m", "leo_core.checker", "net.cert", "net.leo", "smaller.leo"], check=False)
assert checked.returncode == 0

result = leo_core.compress("net.leo", (0, 1))
points = np.random.default_rng(0).random((100, 4))
apart = np.abs(result.network.evaluate(points) - result.original.evaluate(points)).max()
assert apart <= result.deviation + 1e-12
assert result.network.connections < result.original.connections

install = ""
try:
    result.report("result.html")
except MissingExtraError as error:
    install = error.install
assert install == 'pip install "leo-compress[report]"', "the environment was not empty, or the line is another"
subprocess.run([sys.executable, "-m", *shlex.split(install), "--quiet"], check=True)
result.report("result.html")
assert "<svg" in Path("result.html").read_text(encoding="utf-8")
print(f"leo-compress {leo_core.__version__} works on Python {sys.version.split()[0]}")
