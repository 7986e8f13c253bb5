"""Plug-ins found by entry point: ours, strangers', broken ones, two of a name."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.metadata import Distribution, DistributionFinder

import pytest

import leo_core
from leo_core.errors import FormatError, PluginError
from leo_core.plugins import FrontendSpec, SolverSpec, registry
from leo_core.testing.networks import chain
from leo_core.testing.reference import ReferenceSolver


class FakeDistribution(Distribution):
    def __init__(self, name, entries):
        self._texts = {"METADATA": f"Name: {name}\nVersion: 1\n", "entry_points.txt": entries}

    def read_text(self, filename):
        return self._texts.get(filename)

    def locate_file(self, path):
        return path


@pytest.fixture
def install(monkeypatch, tmp_path):
    """install(name, entry points, module=source): a distribution that is there for one test."""
    found = []

    class Finder(DistributionFinder):
        def find_spec(self, *args, **kwargs):
            return None

        def find_distributions(self, context=None):
            return iter(found)

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    monkeypatch.syspath_prepend(str(tmp_path))

    def add(name, entries, **modules):
        for module, source in modules.items():
            (tmp_path / f"{module}.py").write_text(source)
        found.append(FakeDistribution(name, entries))

    yield add
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


GOOD = """
from leo_core.plugins import SolverSpec, hookimpl
from leo_core.testing.reference import ReferenceSolver

@hookimpl
def leo_solver():
    return SolverSpec("{name}", "a stranger's solver", ReferenceSolver)
"""


def status(name, kind="solver"):
    return next(s for s in registry.listing() if (s.kind, s.name) == (kind, name))


def test_ours_come_in_by_the_same_door():
    assert {("solver", "highs"), ("solver", "scipy"), ("frontend", "onnx"), ("frontend", "nnet"),
            ("frontend", "leo")} <= {(s.kind, s.name) for s in registry.listing()}  # fmt: skip
    assert status("highs").distribution == "leo-compress"


def test_a_strangers_solver_is_found_and_used(install):
    install("stranger", "[leo.solvers]\nodd = odd_plugin", odd_plugin=GOOD.format(name="odd"))
    assert status("odd").state == "available"
    assert isinstance(registry.solver("odd"), ReferenceSolver)


def test_listing_imports_nothing_heavy_and_loading_one_leaves_others_alone(install):
    install("a", "[leo.solvers]\nodd = odd_plugin", odd_plugin=GOOD.format(name="odd"))
    install("b", "[leo.solvers]\nbroken = broken_plugin", broken_plugin="raise RuntimeError('boom')")
    assert isinstance(registry.solver("odd"), ReferenceSolver)
    assert "broken_plugin" not in sys.modules


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import a_module_that_is_not_there", "a_module_that_is_not_there"),
        ("raise RuntimeError('boom')", "boom"),
        ("", "does not return a SolverSpec"),
        ("from leo_core.plugins import hookimpl\n@hookimpl\ndef leo_solver():\n    raise KeyError('inside')", "inside"),
        ("from leo_core.plugins import hookimpl\n@hookimpl\ndef leo_solver():\n    return 5", "SolverSpec"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_broken_plugin_is_reported_and_raises_only_when_asked_for(install, source, said):
    install("b", "[leo.solvers]\nbroken = broken_plugin", broken_plugin=source)
    found = status("broken")
    assert found.state == "broken"
    assert said in found.detail
    assert status("highs").state == "available"
    registry.solver("highs")
    with pytest.raises(PluginError, match="broken"):
        registry.solver("broken")


def test_two_of_a_name_are_an_error_that_names_both(install):
    install("first-pkg", "[leo.solvers]\nodd = odd_one", odd_one=GOOD.format(name="odd"))
    install("second-pkg", "[leo.solvers]\nodd = odd_two", odd_two=GOOD.format(name="odd"))
    with pytest.raises(PluginError, match=r"first-pkg.*second-pkg"):
        registry.solver("odd")
    assert status("odd").state == "broken"


def test_a_missing_package_is_not_a_broken_plugin(install):
    source = GOOD.format(name="odd").replace("ReferenceSolver)", "ReferenceSolver, packages=('not_there',))")
    install("stranger", "[leo.solvers]\nodd = odd_plugin", odd_plugin=source)
    assert status("odd").state == "missing"
    with pytest.raises(PluginError, match="needs the package 'not_there'"):
        registry.solver("odd")


def test_a_solver_that_cannot_start_says_why(install):
    source = GOOD.format(name="odd").replace("ReferenceSolver)", "lambda: 1 / 0)")
    install("stranger", "[leo.solvers]\nodd = odd_plugin", odd_plugin=source)
    with pytest.raises(PluginError, match="ZeroDivisionError"):
        registry.solver("odd")


def test_unknown_names_get_a_suggestion():
    with pytest.raises(PluginError, match="did you mean 'highs'"):
        registry.solver("higs")
    with pytest.raises(PluginError, match=r"\.onnx"):
        registry.frontend_for_path("model.docx")
    with pytest.raises(PluginError, match="dict"):
        registry.frontend_for_model({})


@pytest.fixture
def clean_registry(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})


@pytest.mark.usefixtures("clean_registry")
def test_registering_while_running():
    registry.register_solver(SolverSpec("mine", "my own", ReferenceSolver))
    assert isinstance(registry.solver("mine"), ReferenceSolver)
    assert status("mine").distribution == "this process"
    registry.register_frontend(FrontendSpec("text", "a text format", suffixes=(".txtnet",)))
    assert registry.frontend_for_path("a.TXTNET").name == "text"
    with pytest.raises(PluginError, match="already a solver named 'mine'"):
        registry.register_solver(SolverSpec("mine", "again", ReferenceSolver))
    with pytest.raises(PluginError, match="already a solver named 'highs'"):
        registry.register_solver(SolverSpec("highs", "again", ReferenceSolver))
    with pytest.raises(PluginError, match="takes a SolverSpec"):
        registry.register_solver("mine")


class TestAFrontendThatRaises:
    """Named like a solver that raises: which one, of which package, and what."""

    @pytest.fixture
    def broken(self, monkeypatch):
        def raises(*_):
            raise RuntimeError("tensor of rank 7")

        monkeypatch.setattr(registry, "_registered", {})
        registry.register_frontend(
            FrontendSpec(
                "broken", "raises", (".broken",), raises, raises, (__name__.partition(".")[0],), raises, raises
            )
        )

    @pytest.mark.parametrize("doing", ["reading", "writing", "reading a model", "writing a model"])
    def test_it_is_named(self, doing, broken, tmp_path):
        class Model:
            pass

        path = tmp_path / "net.broken"
        path.touch()
        said = rf"'broken' \(this process\) failed while {doing}: RuntimeError: tensor of rank 7"
        with pytest.raises(PluginError, match=said) as caught:  # noqa: PT012 - one of four ways in
            if doing == "reading":
                leo_core.analyze(path, (-1, 1))
            elif doing == "writing":
                leo_core.convert(chain(2, 2, 1), path)
            elif doing == "reading a model":
                leo_core.analyze(Model(), (-1, 1))
            else:
                leo_core.compress(chain(2, 2, 1), (-1, 1)).to("broken")
        assert "report this to its authors" in str(caught.value)
        assert (str(path) in str(caught.value)) == (doing in ("reading", "writing"))

    def test_its_distribution_and_version(self, monkeypatch, tmp_path):
        spec = registry.frontend("leo")

        def raises(_path):
            raise ZeroDivisionError

        monkeypatch.setattr(registry, "frontend_for_path", lambda _path: replace(spec, read_file=raises))
        with pytest.raises(PluginError, match=r"'leo' \(leo-compress \d.*while reading: ZeroDivisionError;"):
            leo_core.analyze(tmp_path / "net.leo", (-1, 1))

    @pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), FileNotFoundError(2, "no")])
    def test_what_the_system_says_is_of_the_file(self, error, monkeypatch, tmp_path):
        def raises(_path):
            raise error

        spec = registry.frontend("leo")
        monkeypatch.setattr(registry, "frontend_for_path", lambda _path: replace(spec, read_file=raises))
        with pytest.raises(FormatError, match=r"net.leo: (there is no such file|cannot be read .Permission denied.)"):
            leo_core.analyze(tmp_path / "net.leo", (-1, 1))
