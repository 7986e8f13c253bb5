"""What the design says of the code, checked on the code."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import leo_core

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for room in ("leo_core", "leo_backends", "leo_frontends") for p in (ROOT / room).rglob("*.py"))

#: From top to bottom: a room may import only rooms below its own line, or on it.
FLOORS = (
    {"__main__"},
    {"cli"},
    {"flags", "terminal"},
    {"signals"},
    {"demo"},
    {"programs"},
    {"api"},
    {"result"},
    {"deciding"},
    {"files", "latency"},
    {"report", "certificate", "door"},
    {"compare"},
    {"rewrite"},
    {"stability"},
    {"search"},
    {"execution"},
    {"milp", "bounds"},
    {"properties"},
    {"domain", "inputs", "storage", "vnnlib", "vnnlib2", "within"},
    {"network"},
    {"linear", "signature"},
    {"arithmetic", "tails", "text"},
    {"errors", "options", "paths"},
    {"checker"},
)
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@functools.cache
def syntax(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


@functools.cache
def imports(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in syntax(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            around = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            source = ".".join([*around, *filter(None, [node.module])])
            found |= {source}
            found |= {f"{source}.{alias.name}" for alias in node.names if is_module(source, alias.name)}
    return frozenset(found)


def is_module(package: str, name: str) -> bool:
    base = ROOT.joinpath(*package.split("."), name)
    return base.is_dir() or base.with_suffix(".py").exists()


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "leo_core" and len(parts) > 1 else None


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_imports_run_downwards_only(path):
    here = module_of(path)
    room = room_of(here)
    if room in (None, "testing", "plugins") or here == "leo_core":
        return
    for target in imports(path):
        other = room_of(target)
        if other in (None, room):
            continue
        assert other != "testing", f"{here} imports {target}: the core does not see its test kits"
        if other == "plugins":
            assert room in ("api", "cli", "deciding", "files", "flags", "latency", "programs", "result"), (
                f"{here} imports {target}: plugins are for api, files, latency and cli"
            )
            continue
        assert LEVEL[room] <= LEVEL[other], f"{here} imports {target}, which lies above it"


CHECKER = ROOT / "leo_core" / "checker"


@pytest.mark.parametrize("path", sorted(CHECKER.rglob("*.py")), ids=module_of)
def test_the_checker_sees_numpy_and_itself(path):
    for target in imports(path):
        own = target.startswith("leo_core.checker")
        assert own or target.split(".")[0] in {"numpy", "threadpoolctl", *sys.stdlib_module_names}, target


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_the_engine_decides_by_its_own_bounds(path):
    """It takes the checker's trees and readers; who writes, compares or shows certificates takes all of it."""
    if room_of(module_of(path)) in ("checker", "certificate", "compare", "api", "cli"):
        return
    for target in imports(path):
        if room_of(target) == "checker":
            shared = [f"leo_core.checker.{name}" for name in ("trees", "networks", "maps", "environment", "errors")]
            assert target in shared, f"{module_of(path)} imports {target}"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.parts[-2] != "leo_core"], ids=module_of)
def test_backends_and_frontends_see_only_their_doors(path):
    here = module_of(path)
    allowed = {
        "leo_backends": ("leo_core.milp", "leo_core.plugins", "leo_core.errors", "leo_core.execution",
                         "leo_core.checker.environment", "leo_backends"),
        "leo_frontends": ("leo_core.network", "leo_core.linear", "leo_core.plugins", "leo_core.errors",
                          "leo_core.storage", "leo_frontends"),
    }.get(here.split(".")[0])  # fmt: skip
    if allowed is None:
        return
    for target in imports(path):
        if target.split(".")[0].startswith("leo_") and target != "leo_core":
            assert target.startswith(allowed), f"{here} imports {target}"


FRAMEWORKS = ("torch", "tensorflow", "keras", "onnx", "onnxruntime", "highspy", "pyscipopt", "scipy.optimize", "h5py",
              "dask", "distributed")  # fmt: skip


@pytest.mark.parametrize("path", [p for p in SOURCES if "leo_core" in p.parts], ids=module_of)
def test_the_core_names_no_framework(path):
    for target in imports(path):
        if target.split(".")[0] != "scipy":
            assert target.split(".")[0] not in FRAMEWORKS, f"{module_of(path)} imports {target}"


@pytest.mark.parametrize("code", ["import leo_core", "import sys; sys.argv = ['leo', '--help']; import leo_core.cli\n"
                                  "try: leo_core.cli.main()\nexcept SystemExit: pass"])  # fmt: skip
def test_a_bare_import_loads_no_framework_and_no_solver(code):
    script = f"{code}\nimport sys\nprint('|'.join(m for m in {FRAMEWORKS!r} if m in sys.modules) or 'none')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "none"


def test_every_public_name_exists():
    for name in leo_core.__all__:
        assert getattr(leo_core, name) is not None
    assert sorted(leo_core._HOMES) == sorted(leo_core.__all__)
    assert leo_core.__version__
    with pytest.raises(AttributeError, match="nonsense"):
        leo_core.nonsense  # noqa: B018


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_no_file_holds_two_ideas(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600


@pytest.mark.parametrize("path", SOURCES, ids=module_of)
def test_nothing_runs_strings_or_pickles(path):
    for node in syntax(path):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            nothing = ast.unparse(node) == "exec('')"  # which makes CPython forget a KeyboardInterrupt
            assert node.func.id not in ("eval", "exec") or nothing, module_of(path)
    assert not imports(path) & {"pickle", "marshal", "shelve", "dill"}


def test_packages_are_marked_typed():
    for package in ("leo_core", "leo_backends", "leo_frontends"):
        assert (ROOT / package / "py.typed").exists()
