"""Build the distributions, look into them, and try the wheel in empty environments: ``make dist-check``.

    python tests/extras/dist_check.py [PYTHON …]

builds into dist/ what would be uploaded, and tries the wheel on each Python named (by default the one that runs this).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMOKE = Path(__file__).parent / "scripts" / "smoke.py"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
#: Without these the wheel imports and does not work; with those it holds what is not for users.
IN_WHEEL = ("leo_core/py.typed", "leo_core/report/templates/", "leo_core/checker/__main__.py", "licenses/LICENSE")
NOT_IN_WHEEL = ("tests/", "docs/", "benchmarks/", "shared/")
IN_SOURCE = ("CHANGELOG.md", "CITATION.cff", "Makefile", "constraints.txt", "docs/conf.py", "tests/truth.py")


def run(*command: str | Path, cwd: Path = ROOT, constrained: bool = False) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "KERAS_"))}
    if constrained:
        environment["PIP_CONSTRAINT"] = str(ROOT / "constraints.txt")
    subprocess.run(command, cwd=cwd, env=environment, check=True)


def build(folder: Path) -> tuple[Path, Path]:
    """The wheel, made from the source distribution as an index would have it, and that."""
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, constrained=True)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, source


def look_into(wheel: Path, source: Path) -> None:
    assert f"-{VERSION}-" in wheel.name, wheel
    with zipfile.ZipFile(wheel) as archive:
        inside = archive.namelist()
    with tarfile.open(source) as archive:
        sources = archive.getnames()
    for name in IN_WHEEL:
        assert any(name in path for path in inside), f"the wheel lacks {name}"
    for name in NOT_IN_WHEEL:
        assert not any(path.startswith(name) for path in inside), f"the wheel holds {name}"
    for name in IN_SOURCE:
        assert any(path.endswith(f"/{name}") for path in sources), f"the source distribution lacks {name}"
    assert not any("__pycache__" in path or "/shared/" in path for path in sources)
    for path in (wheel, source):
        print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB", flush=True)


def try_out(wheel: Path, python: str) -> None:
    """In an environment that holds nothing but the wheel and what it depends on, from a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment, work = Path(folder, "environment"), Path(folder, "work")
        work.mkdir()
        run(python, "-m", "venv", environment)
        inside = environment / "bin" / "python"
        run(inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, constrained=True)
        run(inside, "-P", SMOKE, VERSION, cwd=work, constrained=True)


def main(pythons: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        wheel, source = build(Path(folder))
        look_into(wheel, source)
        for python in pythons or [sys.executable]:
            try_out(wheel, python)
        (ROOT / "dist").mkdir(exist_ok=True)
        for path in (wheel, source):
            shutil.copy(path, ROOT / "dist")


if __name__ == "__main__":
    main(sys.argv[1:])
