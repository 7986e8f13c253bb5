"""A Dask cluster on this machine: the shipped kit, the verdicts and files of one job, and what is said when it fails.

A scheduler and two workers are processes of their own, started once. They end with the tests, and by themselves should
those be killed.
"""

from __future__ import annotations

import json
import os
import pickle
import pickletools
import platform
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import chain as chain_of
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import leo_core
from leo_backends.highs import HighsSolver
from leo_core.cli import main
from leo_core.errors import ClusterError, PluginError, UsageError
from leo_core.execution.budget import Budget
from leo_core.plugins import Needs, registry
from leo_core.testing import executor_kit
from leo_core.testing.executor_kit import Place
from leo_core.testing.networks import chain

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")
cloudpickle = pytest.importorskip("cloudpickle")
client = pytest.importorskip("leo_backends.dask.client")
join = pytest.importorskip("leo_backends.dask.join")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
#: Seconds for what happens some time, however busy the machine.
SOON = 120.0
NEEDS = Needs.here("highs")
#: A worker that says it runs another LEO.
OTHER = "import leo_core\nleo_core.__version__ = {version!r}\n"


class Cluster:
    """A scheduler and its workers, each a process that sees the settings of Dask given."""

    def __init__(self, folder: Path, protocol: str = "tcp", settings: dict[str, str] | None = None) -> None:
        self.folder, self.file, self._settings = folder, folder / "scheduler.json", settings or {}
        self._started: list[subprocess.Popen[bytes]] = []
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", self.file, "--idle-timeout", "10m",
            "--protocol", protocol,
        )  # fmt: skip
        soon(self.file.exists)
        self.address = json.loads(self.file.read_text())["address"]

    def worker(self, *more: object) -> subprocess.Popen[bytes]:
        return self._start("worker", self.address, "--host", "127.0.0.1", "--nthreads", "1", "--death-timeout", "20",
                           "--local-directory", self.folder, *more)  # fmt: skip

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        for process in self._started[::-1]:
            self.end(process)

    def _start(self, *command: object) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1",
            **{
                "DASK_" + name.upper().replace(".", "__").replace("-", "_"): value
                for name, value in self._settings.items()
            },
        }
        words = [sys.executable, "-m", "dask", *map(str, command), "--no-dashboard"]
        with (self.folder / "log").open("ab") as log:
            self._started.append(subprocess.Popen(words, cwd=self.folder, env=environment, stdout=log, stderr=log))
        return self._started[-1]


def soon(happened):
    until = time.monotonic() + SOON
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


@pytest.fixture(autouse=True)
def patient(request, monkeypatch):
    """A scheduler on a busy machine may take longer to answer than a user would wait."""
    if "sentence" not in request.node.name:
        monkeypatch.setattr(client, "CONNECT", SOON)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with closing(Cluster(tmp_path_factory.mktemp("cluster"))) as started:
        started.worker("--nworkers", "2")
        yield started


def deaf(_text):
    pass


def joined(executor, count):
    def there():
        executor.look()
        return len(executor.workers) == count

    soon(there)


@pytest.fixture
def place(cluster, tmp_path):
    """The cluster; for the checks of what joins, another with one worker."""
    with_one: list[Cluster] = []

    @contextmanager
    def start(workers, note):
        at = cluster
        if workers == 1:
            at = Cluster(tmp_path)
            with_one.append(at)
            at.worker()
        with closing(registry.executor_for(at.address).start(at.address, NEEDS, note)) as executor:
            joined(executor, workers)
            yield executor

    def join(_executor, version):
        preload = tmp_path / "another.py"
        preload.write_text(OTHER.format(version=version))
        with_one[-1].worker(*(["--preload", preload] if version else []))

    yield Place(start, join)
    for at in with_one:
        at.close()


@pytest.mark.parametrize("check", executor_kit.CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, place):
    check(place)


class Faults:
    """Makes arrays and lets them go; counts the pages that had to be mapped for it."""

    def __call__(self, megabytes, _budget):
        resource = pytest.importorskip("resource")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(megabytes):
            np.ones(1 << 17)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def close(self):
        pass


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have no such setting")
def test_workers_keep_memory_between_arrays(cluster):
    """Dask starts them so that each array is mapped anew, 256 pages for each megabyte."""
    with closing(registry.executor_for(cluster.address).start(cluster.address, NEEDS, deaf)) as executor:
        joined(executor, 2)
        found = dict(executor.map(Faults, (), chain_of([400], repeat(None)).__next__, Budget()))
    assert found[400] < 400 * 128


#: One of them splits boxes, the other phases.
NETWORKS = {"boxes": (chain(3, 20, 20, 1, seed=5), (-1, 1)), "phases": (chain(10, 20, 20, 1, seed=2), (-0.25, 0.25))}


@pytest.fixture
def came(monkeypatch):
    """What came from a cluster, as it comes."""
    found, map_ = [], client.DaskCluster.map

    def mapped(*given):
        for pair in map_(*given):
            found.append(pair)
            yield pair

    monkeypatch.setattr(client.DaskCluster, "map", mapped)
    return found


@pytest.mark.parametrize("name", NETWORKS)
def test_the_verdicts_and_the_file_of_one_job(name, cluster, came, tmp_path, monkeypatch):
    monkeypatch.setattr("leo_core.search.boxes.BROAD", 4)
    network, box = NETWORKS[name]
    found = {
        where: leo_core.compress(network, box, **options)
        for where, options in (("one", {}), ("two", {"jobs": 2}), ("cluster", {"cluster": cluster.address}))
    }
    assert came, "nothing came from the cluster"
    files = {where: result.export(tmp_path / f"{where}.leo").read_bytes() for where, result in found.items()}
    assert files["one"] == files["two"] == files["cluster"]
    for relu, layer in found["one"].stability.layers.items():
        for other in ("two", "cluster"):
            assert (layer.state == found[other].stability.layers[relu].state).all()


def test_a_live_client_stays_open(cluster):
    with distributed.Client(cluster.address, set_as_default=False) as live:
        found = leo_core.analyze(*NETWORKS["phases"], cluster=live)
        assert found.count(leo_core.State.UNDECIDED) == 0
        assert live.submit(sum, (1, 2)).result() == 3


def test_a_killed_client_goes_on_with_nothing_lost(cluster, tmp_path):
    (network, box), checkpoint, out = NETWORKS["phases"], tmp_path / "checkpoint", tmp_path / "out.leo"
    whole = leo_core.compress(network, box).export(tmp_path / "whole.leo").read_bytes()
    model = leo_core.convert(network, tmp_path / "in.leo")
    command = [sys.executable, "-m", "leo_core", "compress", model, out, "--domain", "-0.25,0.25", "-q",
               "--cluster", cluster.file, "--checkpoint", checkpoint]  # fmt: skip
    run = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    soon(lambda: run.poll() is not None or (checkpoint.exists() and checkpoint.stat().st_size > 2000))
    run.kill()
    run.communicate()
    kept = checkpoint.stat().st_size
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == whole
    assert checkpoint.stat().st_size >= kept


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("tcp://127.0.0.1:9", "no Dask scheduler answers at tcp://127.0.0.1:9"),
        ("tcp://", "is no Dask scheduler"),
        ("SILENT", "no Dask scheduler answers"),
        ("not-there.json", "cannot be read"),
        ("EMPTY.json", "is no scheduler's file"),
        ("STALE.json", "no Dask scheduler answers at tcp://127.0.0.1:9"),
        ("local:none", "is not local:N"),
        ("local:0", "is not local:N"),
        ("tls://127.0.0.1:9", "needs certificates"),
        ("elsewhere", "no executor knows the cluster 'elsewhere'"),
    ],
)
def test_what_is_no_cluster_is_one_sentence(where, said, tmp_path):
    model = leo_core.convert(chain(2, 4, 1), tmp_path / "in.leo")
    (tmp_path / "EMPTY.json").write_text("{}")
    (tmp_path / "STALE.json").write_text('{"address": "tcp://127.0.0.1:9"}')
    where = str(tmp_path / where) if where.endswith(".json") else where
    with socket.socket() as silent:  # it accepts, and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        where = f"tcp://127.0.0.1:{silent.getsockname()[1]}" if where == "SILENT" else where
        done = CliRunner().invoke(main, ["inspect", str(model), "--domain", "-1,1", "--cluster", where])
    assert done.exit_code == 1
    last = done.stderr.strip().splitlines()[-1]  # a slow machine may tell before what it is at
    assert last.startswith("leo: ")
    assert said in last
    assert "Traceback" not in done.stderr


def test_one_or_the_other():
    with pytest.raises(UsageError, match="leave out cluster or jobs"):
        leo_core.analyze(chain(2, 4, 1), (-1, 1), jobs=2, cluster="local:2")
    with pytest.raises(PluginError, match="of type builtins"):
        leo_core.analyze(chain(2, 4, 1), (-1, 1), cluster={})


def test_a_solver_that_the_workers_lack_is_said(cluster, monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    registry.register_solver(replace(registry._load("solver", "highs"), name="mine"))
    monkeypatch.setattr(HighsSolver, "name", "mine")
    with pytest.raises(ClusterError, match=r"none of the 2 workers.*there is no solver 'mine'"):
        leo_core.analyze(*NETWORKS["phases"], solver="mine", cluster=cluster.address)


def test_a_worker_without_leo_lives_and_gets_no_work(tmp_path):
    (tmp_path / "hidden.py").write_text("import sys\nsys.modules['leo_core'] = None\n")
    with closing(Cluster(tmp_path)) as bare:
        worker = bare.worker("--preload", tmp_path / "hidden.py")
        with distributed.Client(bare.address, set_as_default=False) as live:
            live.wait_for_workers(1, timeout=SOON)
            with pytest.raises(ClusterError, match="LEO cannot be imported there"):
                leo_core.analyze(*NETWORKS["phases"], cluster=live)
            assert live.submit(sum, (1, 2)).result(timeout=SOON) == 3
        assert worker.poll() is None


def certified(folder: Path, name: str) -> dict[str, str]:
    """Settings of Dask that name a certificate made here, by which all who have it know each other."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificates, is not installed")
    key, certificate = (str(folder / f"{name}.{kind}.pem") for kind in ("key", "certificate"))
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    roles = {f"distributed.comm.tls.{role}.": role for role in ("scheduler", "worker", "client")}
    named = {f"{at}{what}": path for at in roles for what, path in (("key", key), ("cert", certificate))}
    return {**named, "distributed.comm.tls.ca-file": certificate}


def test_certificates(tmp_path):
    network, box = NETWORKS["phases"]
    ours, others = certified(tmp_path, "ours"), certified(tmp_path, "others")
    with closing(Cluster(tmp_path, "tls", ours)) as at:
        at.worker("--protocol", "tls")
        assert at.address.startswith("tls://")
        with pytest.raises(ClusterError, match="needs certificates; Dask's configuration names them"):
            leo_core.analyze(network, box, cluster=at.address)
        with dask.config.set(others), pytest.raises(ClusterError, match="hangs up: the one's certificates"):
            leo_core.analyze(network, box, cluster=at.address)
        missing = {**ours, "distributed.comm.tls.ca-file": str(tmp_path / "none.pem")}
        with dask.config.set(missing), pytest.raises(ClusterError, match="configuration names cannot be read"):
            leo_core.analyze(network, box, cluster=at.address)
        required = {**ours, "distributed.comm.require-encryption": True}
        with dask.config.set(required), pytest.raises(ClusterError, match=r"requires encryption.*say tls://"):
            leo_core.analyze(network, box, cluster=at.address.replace("tls", "tcp"))
        with dask.config.set(required):
            found = leo_core.analyze(network, box, cluster=at.file)
        paths = (ours[f"distributed.comm.tls.{name}"] for name in ("ca-file", "client.cert", "client.key"))
        security = distributed.Security(**dict(zip(("tls_ca_file", "tls_client_cert", "tls_client_key"), paths)))
        with distributed.Client(at.address, security=security, set_as_default=False) as live:
            again = leo_core.analyze(network, box, cluster=live)
    assert found.count(leo_core.State.UNDECIDED) == again.count(leo_core.State.UNDECIDED) == 0


def test_a_cluster_that_grows_and_shrinks_with_the_work(came):
    network, box = NETWORKS["phases"]
    here = leo_core.analyze(network, box)
    with distributed.LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address=None) as adaptive:
        adaptive.adapt(minimum=0, maximum=2, interval="500ms", target_duration="500ms")
        found = leo_core.analyze(network, box, cluster=adaptive)
        soon(lambda: not adaptive.scheduler_info["workers"])
        again = leo_core.analyze(network, box, cluster=adaptive)
    assert came, "nothing came from the cluster"
    for other in (found, again):
        assert all((layer.state == other.layers[relu].state).all() for relu, layer in here.layers.items())


def test_a_scheduler_that_goes_away_leaves_a_valid_result(tmp_path):
    notes: list[str] = []
    with closing(Cluster(tmp_path)) as at:
        at.worker()
        with closing(registry.executor_for(at.address).start(at.address, NEEDS, notes.append)) as executor:
            joined(executor, 1)
            folder = tmp_path / "marks"
            folder.mkdir()
            end = threading.Thread(target=lambda: (soon((folder / "going on").exists), at.scheduler.kill()))
            end.start()
            tasks = [("go_on", 1.0)]
            arguments = (str(folder),)
            found = list(executor.map(executor_kit.Probe, arguments, lambda: tasks.pop() if tasks else None, Budget()))
            end.join()
    assert found == []
    assert any("is gone" in note for note in notes)


def test_a_worker_killed_and_one_added_in_the_middle(tmp_path, monkeypatch):
    network, box = NETWORKS["phases"]
    right = leo_core.compress(network, box).export(tmp_path / "right.leo").read_bytes()
    with closing(Cluster(tmp_path)) as at:
        first, map_, came = at.worker("--no-nanny"), client.DaskCluster.map, []
        at.worker("--no-nanny")

        def disturbed(*given):
            for pair in map_(*given):
                if not came:
                    first.kill()
                    at.worker("--no-nanny")
                came.append(pair)
                yield pair

        monkeypatch.setattr(client.DaskCluster, "map", disturbed)
        with distributed.Client(at.address, set_as_default=False) as live:
            live.wait_for_workers(2, timeout=SOON)
            found = leo_core.compress(network, box, cluster=live)
    assert len(came) > 2, "next to nothing was handed to the cluster"
    assert found.export(tmp_path / "found.leo").read_bytes() == right


GOES_ON = """
import sys
from leo_core.execution.budget import Budget
from leo_core.plugins import Needs, registry
from leo_core.testing.executor_kit import Probe
address, folder = sys.argv[1:]
executor = registry.executor_for(address).start(address, Needs.here("highs"), print)
tasks = [("go_on", 1.0)]
list(executor.map(Probe, (folder,), lambda: tasks.pop() if tasks else None, Budget()))
"""


def test_workers_of_a_killed_client_stop(cluster, tmp_path):
    mark = tmp_path / "going on"
    run = subprocess.Popen([sys.executable, "-c", GOES_ON, cluster.address, str(tmp_path)])
    soon(mark.exists)
    run.kill()
    run.wait()
    executor_kit._assert_still(str(tmp_path))


def test_the_campaign_script(cluster, tmp_path):
    for name, network in (("a.leo", chain(3, 8, 8, 2, seed=2)), ("b.leo", chain(2, 6, 6, 1, seed=4))):
        leo_core.convert(network, tmp_path / name)
    (tmp_path / "c.leo").write_text("no network")
    script = [sys.executable, ROOT / "docs" / "examples" / "campaign.py", cluster.address, tmp_path / "out", "-1,1"]
    for _ in range(2):  # given again, it goes on
        done = subprocess.run([*map(str, script), *(str(tmp_path / f"{name}.leo") for name in "abc")],
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / "out" / "campaign.json").read_text())
        assert len(found) == len(done.stdout.splitlines()) == 3
        assert "error" in found[str(tmp_path / "c.leo")]
        for name in ("a.leo", "b.leo"):
            assert found[str(tmp_path / name)]["deviation"] >= 0
            assert leo_core.verify(tmp_path / name, tmp_path / "out" / name, (-1, 1)).upper < 1e-3


def test_verify_shares_the_parts_of_its_box(cluster, came, monkeypatch):
    monkeypatch.setattr("leo_core.search.boxes.BROAD", 4)
    first, second = chain(2, 12, 12, 1, seed=1), chain(2, 12, 12, 1, seed=2)
    alone = leo_core.verify(first, second, (-1, 1), time_limit=10)
    found = leo_core.verify(first, second, (-1, 1), time_limit=10, cluster=cluster.address)
    assert came, "nothing came from the cluster"
    assert max(alone.lower, found.lower) <= min(alone.upper, found.upper)


#: They hand claims to workers as they are, or boxes when they do so early.
REAL = (
    "coav/reluBenchmark0.00491881370544s_UNSAT.nnet", "coav/reluBenchmark0.0658059120178s_UNSAT.nnet",
    "twinstream/twin_ladder-10_inp-4_layers-5_width-1_margin.onnx", "pyscipopt_ml/sk_3_42_0_0_relu.onnx",
    "horizontalcas/HCAS_rect_v6_pra0_tau00_25HU_3000.nnet",
)  # fmt: skip


@pytest.mark.real
@pytest.mark.parametrize("file", REAL)
def test_five_real_networks_byte_for_byte(file, nets, index, cluster, came, tmp_path, monkeypatch):
    if file not in index:
        pytest.skip(f"{file} is not in INDEX.json")
    monkeypatch.setattr("leo_core.search.boxes.BROAD", 64)
    model, domain = nets / file, nets / index[file]["domain"]
    files, states = [], []
    for k, options in enumerate(({}, {"jobs": 2}, {"cluster": cluster.address})):
        result = leo_core.compress(model, domain, unit_time_limit=0, **options)  # no clock decides
        files.append(result.export(tmp_path / f"{k}{model.suffix}").read_bytes())
        states.append([layer.state.tolist() for layer in result.stability.layers.values()])
    assert came, "nothing came from the cluster"
    assert states[0] == states[1] == states[2]
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("sent", [join.Join("LEO", ("0", "1", "highs")), join.Verdict()], ids=["plugin", "question"])
def test_what_asks_a_worker_travels_as_source(sent):
    """Byte code of one Python crashes another, and a worker without LEO must be able to say so."""
    payload = cloudpickle.dumps(sent)
    named = [argument for operation, argument, _ in pickletools.genops(payload) if operation.name == "STACK_GLOBAL"]
    strings = {argument for _, argument, _ in pickletools.genops(payload) if isinstance(argument, str)}
    assert named == [None]
    assert {"builtins", "eval"} <= strings
    assert not any(text.startswith(("leo_core", "leo_backends")) for text in strings)
    made = pickle.loads(payload)
    assert type(made).__name__ == type(sent).__name__
    assert {name: vars(made)[name] for name in vars(sent)} == vars(sent)
