"""Certificates and networks that fooled the checker once, and random ones that must not."""

from __future__ import annotations

import json
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from truth import extremes, largest_difference

from leo_core import api, checker, storage
from leo_core.checker import bounds, proofs, trees
from leo_core.checker.difference import Difference, Roles
from leo_core.checker.equivalence import roles_of
from leo_core.checker.errors import Refused
from leo_core.checker.networks import checksum, open_archive, read_network
from leo_core.domain import Box
from leo_core.linear import Dense, Sparse
from leo_core.network import INPUT, Affine, Network, Relu
from leo_core.storage import as_checked

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow is meant


def dense(name, source, matrix, bias):
    return Affine(name, (source,), (Dense(np.array(matrix, dtype=np.float64)),), np.array(bias, dtype=np.float64))


def relu(name, source, size, slope=0.0):
    return Relu(name, source, np.full(size, slope))


def region_of(network, box):
    net = as_checked(network)
    region = {"input": (box.lower[None], box.upper[None])}
    for node in net.nodes:
        if not node.relu:
            region = bounds.bounded(net, node, region)
    return region


def deviation(first, second, box, roles=None, **options):
    region = region_of(first, box)
    return Difference(as_checked(first), as_checked(second), region, roles or Roles(), **options).deviation()


def rewrite_archive(path, change):
    """Change a file's (content, arrays) and give it a checksum that fits."""
    header, arrays = open_archive(path)
    change(header, arrays)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        header["sha256"] = checksum(header["content"], arrays)
        archive.writestr("header.json", json.dumps(header))
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array)


def certified(folder, network, box, **options):
    """Paths of a certificate and its two networks."""
    result = api.compress(network, box, evidence=True, **options)
    paths = [folder / name for name in ("it.cert", "original.leo", "compressed.leo")]
    result.certify(paths[0])
    storage.save(network, paths[1])
    storage.save(result.network, paths[2])
    return paths


HAT = Network(
    1,
    (dense("z1", INPUT, [[1]], [0]), relu("h1", "z1", 1), dense("z2", "h1", [[-1]], [1.5]), relu("h2", "z2", 1),
     dense("out", "h2", [[1]], [0])),
    "out",
)  # fmt: skip


@pytest.mark.parametrize("how", [trees.PLAIN, trees.EXACT])
def test_a_claim_of_sign_zero_bounds_nothing(how):
    """0 · unit ≤ 0 was taken for a lower bound of the unit."""
    tree = trees.Tree(np.array([0]), np.array([0]), closed=np.array([[0, 0, how]]), row=np.array([-1]))
    with pytest.raises(Refused):
        proofs.proved_bounds(as_checked(HAT), "z2", region_of(HAT, Box.uniform(1, 3, 1)), tree)


def test_multipliers_come_in_rows():
    """Those of three dimensions counted some terms twice (under a numpy that takes one-entry arrays for numbers)."""
    y = {"z1": np.array([[[-1.0], [0.0]]])}
    tree = trees.Tree(
        np.array([0]), np.array([1]), closed=np.array([[0, 0, trees.EXACT]]), row=np.array([0]), y=y
    )  # fmt: skip
    with pytest.raises(Refused):
        proofs.proved_bounds(as_checked(HAT), "z2", region_of(HAT, Box.uniform(1, 2, 1)), tree)


@pytest.mark.parametrize("copy", [(-1, 1, 0.0), (1, -1, 0.0), (1, -1, 1e-9)])
def test_a_unit_is_no_copy_of_itself_by_another_index(copy):
    """The price of the unit was overwritten by that of itself, and it was taken for zero."""
    nodes = dense("z1", INPUT, [[1], [1]], [0, 0]), relu("h1", "z1", 2)
    first, second = (Network(1, (*nodes, dense("out", "h1", [[0, w]], [0])), "out") for w in (1, 0))
    with pytest.raises(Refused):
        deviation(first, second, Box.uniform(-1, 3, 1), Roles({"h1": ("h1", np.arange(2))}, {"h1": [copy]}))


def test_a_price_that_underflows_at_a_leak_meets_a_large_value():
    nodes = dense("z1", INPUT, [[1]], [0]), relu("h1", "z1", 1, 1e-200), dense("out", "h1", [[1e-200]], [0])
    first, second = Network(1, nodes, "out"), Network(1, (dense("out", INPUT, [[0]], [0]),), "out")
    box = Box.uniform(-1e300, -1, 1)
    assert deviation(first, second, box) >= largest_difference(first, second, box) > 0


@pytest.mark.parametrize("lines", [{}, {"h1": (np.array([0]), np.array([0.0]), np.array([0.0]))}])
def test_units_that_differ_by_less_than_any_float_are_not_equal(lines):
    """Their difference of 1e-400 was 0, and the layers behind it, which make 1e200 of it, were taken for equal."""
    first, second = (
        Network(
            1,
            (dense("z1", INPUT, [[1]], [0]), relu("h1", "z1", 1), dense("z2", "h1", [[w]], [0]), relu("h2", "z2", 1),
             dense("z3", "h2", [[1e300]], [0]), relu("h3", "z3", 1), dense("out", "h3", [[1e300]], [0])),
            "out",
        )
        for w in (1e-200, 0.0)
    )  # fmt: skip
    box, kept = Box.uniform(-1e-200, 1e-200, 1), {name: (name, np.array([0])) for name in ("h1", "h2", "h3")}
    assert deviation(first, second, box, Roles(kept, lines=lines)) >= largest_difference(first, second, box)


def test_bounds_that_overflow_are_infinite_not_an_error():
    nodes = (dense("z1", INPUT, [[1e200]], [0]), relu("h1", "z1", 1), dense("z2", "h1", [[1e200]], [0]),
             relu("h2", "z2", 1), dense("out", "h2", [[1]], [0]))  # fmt: skip
    assert region_of(Network(1, nodes, "out"), Box.uniform(-1, 1, 1))["z2"][1] == np.inf


@pytest.mark.parametrize("copies", [{}, {"h2": [(1, 0, 1.0)]}])
def test_infinite_bounds_are_no_rationals_and_no_error(copies):
    """Over the rationals they raised OverflowError."""
    nodes = (dense("z1", INPUT, [[1e200]], [0]), relu("h1", "z1", 1), dense("z2", "h1", [[1e200], [1e200]], [0, 0]),
             relu("h2", "z2", 2), dense("out", "h2", [[1, 1]], [0]))  # fmt: skip
    first, second = (Network(1, (*nodes[:-1], dense("out", "h2", [[1, w]], [0])), "out") for w in (1, 2))
    box, kept = Box.uniform(-1, 1, 1), {"h1": ("h1", np.arange(1)), "h2": ("h2", np.arange(2))}
    assert deviation(first, second, box, Roles(kept, copies), exact=True) == np.inf


def test_a_trusted_verdict_is_counted_for_each_unit(tmp_path):
    """A method of no dimension was one for all units, and counted once."""
    nodes = dense("z", INPUT, [[1], [2]], [0, 0]), relu("h", "z", 2), dense("out", "h", [[1, 1]], [0])
    paths = certified(tmp_path, Network(1, nodes, "out"), Box.uniform(-1, 1, 1))

    def trust(header, arrays):
        arrays[header["content"]["layers"]["z"]["method"]] = np.array(checker.TRUSTED)

    rewrite_archive(paths[0], trust)
    with pytest.raises(Refused, match="verdicts"):
        checker.check(*paths)


@pytest.mark.parametrize("what", ["sources", "kind", "version"])
def test_a_network_file_that_leo_does_not_read_is_refused(tmp_path, what):
    """A constant without sources was one unit's value for all units."""
    path = tmp_path / "net.leo"
    storage.save(HAT, path)

    def change(header, arrays):
        node = header["content"]["nodes"][0]
        if what == "sources":
            node["sources"], node["maps"] = [], []
        elif what == "kind":
            node["kind"] = "sigmoid"
        else:
            header["version"] = 3

    rewrite_archive(path, change)
    with pytest.raises(Refused):
        read_network(path)


def test_the_deviation_told_is_not_below_the_one_proved():
    """To six digits, 1.0000004 was 1."""
    report = checker.Report(0, 0, 0, 0, 0, 0, 1.0000004, np.zeros(1), np.ones(1))
    assert "more than 1.00001 on" in checker.lines(report)[-1]
    exactly = checker.Report(0, 0, 0, 0, 0, 0, 0.0, np.zeros(1), np.ones(1))
    assert "more than 0 on" in checker.lines(exactly)[-1]


def test_a_small_file_of_a_huge_network_is_refused(tmp_path):
    path = tmp_path / "net.leo"
    storage.save(HAT, path)

    def change(header, arrays):
        header["content"]["input_size"] = 1 << 40
        header["content"]["nodes"][0]["maps"] = [
            {"kind": "select", "columns": 1 << 40, "arrays": {"indices": "zero"}}
        ]  # fmt: skip
        arrays["zero"] = np.zeros(1, np.int64)

    rewrite_archive(path, change)
    with pytest.raises(Refused, match="4 GiB"):
        read_network(path)


# Random ones.

DECADES = {"grid": None, "plain": (0, 0), "decades": (-12, 12), "tiny": (-320, -280), "wild": (-200, 200)}


def numbers(rng, shape, scale):
    if DECADES[scale] is None:
        return rng.integers(-4, 5, shape) / 4
    half = rng.uniform(*DECADES[scale], size=shape) / 2
    values = np.where(rng.random(shape) < 0.2, 0, rng.normal(size=shape)) * 10.0**half * 10.0**half
    return np.where(np.isfinite(values), values, 1.0)


def random_network(rng, inputs):
    scale, nodes, sizes = str(rng.choice(list(DECADES))), [], {INPUT: inputs}
    for number in range(1, rng.integers(2, 5)):
        size, known = int(rng.integers(1, 4)), list(sizes)
        sources = (known[-1], *([str(rng.choice(known))] if rng.random() < 0.4 else []))
        maps = [numbers(rng, (size, sizes[source]), scale) for source in sources]
        bias, factor = numbers(rng, size, scale), float(rng.choice([1, 0.5, -2, 1 / 3]))
        if size > 1 and rng.random() < 0.5:  # the last unit is a copy of the first
            for matrix in maps:
                matrix[-1] = factor * matrix[0]
            bias[-1] = factor * bias[0]
        nodes.append(Affine(f"z{number}", sources, tuple(map(Dense, maps)), bias))
        nodes.append(relu(f"h{number}", f"z{number}", size, rng.choice([0, 0, 0, 0.1, 1e-200, 1 - 2.0**-53])))
        sizes |= {f"z{number}": size, f"h{number}": size}
        if rng.random() < 0.1:
            nodes.append(relu(f"k{number}", f"z{number}", size, 0.3))
            sizes[f"k{number}"] = size
    rows = int(rng.integers(1, 3))
    matrix = numbers(rng, (rows, sizes[nodes[-1].name]), scale)
    nodes.append(Affine("out", (nodes[-1].name,), (Dense(matrix),), numbers(rng, rows, scale)))
    return Network(inputs, tuple(nodes), "out")


def random_box(rng, inputs):
    scale = 10.0 ** rng.choice([0, 0, 0, -100, 100, -300])
    centre, radius = rng.integers(-8, 9, inputs) / 4, rng.choice([0, 0.25, 1, 1.7], inputs)
    return Box((centre - radius) * scale, (centre + radius) * scale)


def perturbed(rng, network):
    nodes = []
    for node in network.nodes:
        if isinstance(node, Affine):
            maps = [linear.dense().copy() for linear in node.maps]
            for matrix in maps:
                kind = rng.random()
                if kind < 0.3:
                    matrix[:, rng.integers(matrix.shape[1])] = 0
                elif kind < 0.5:
                    matrix *= 1 + 2.0**-52
                elif kind < 0.6 and matrix.shape[1] > 1:
                    matrix[:, 0] += matrix[:, -1] / 3
                    matrix[:, -1] = 0
            node = Affine(node.name, node.sources, tuple(map(Dense, maps)), node.bias)
        nodes.append(node)
    return Network(network.input_size, tuple(nodes), network.output)


def random_roles(rng, network):
    kept, copies, lines, lifted = {}, {}, {}, {}
    for node in network.relus:
        if rng.random() < 0.9:
            of = node.name if rng.random() < 0.9 else str(rng.choice([other.name for other in network.relus]))
            order = np.arange(node.size) if rng.random() < 0.8 else rng.permutation(node.size)
            stays = rng.random(node.size) >= 0.15
            kept[node.name] = (of, np.where(stays, order, -1))
            others = [str(rng.choice([other.name for other in network.relus])) for _ in range(2)]
            lifted[node.name] = [
                (other, np.where(~stays & (rng.random(node.size) < 0.5), rng.permutation(node.size), -1))
                for other in others[: rng.integers(3)]
            ]
        if node.size > 1 and rng.random() < 0.5:
            copies[node.name] = [(node.size - 1, 0, float(rng.choice([0, 1, 0.5, -2, 1 / 3, 1e-300])))]
        if rng.random() < 0.25:
            units = rng.permutation(node.size)[: rng.integers(1, node.size + 1)]
            gain, offset = rng.choice([0, 0.5, 1, -2], len(units)), rng.choice([0, 0.1, 1e-300], len(units))
            lines[node.name] = (units, gain, offset)
    return Roles(kept, copies, lines, lifted)


def exceeds(value, limit):
    """Whether an exact value is above a float, which may be infinite."""
    return np.isnan(limit) or limit == -np.inf or (limit < np.inf and value > Fraction(float(limit)))


@pytest.mark.parametrize("part", range(4))
def test_no_account_of_the_units_hides_a_difference(part):
    proved = 0
    for seed in range(150 * part, 150 * (part + 1)):
        rng = np.random.default_rng(seed)
        inputs = int(rng.integers(1, 3))
        first = random_network(rng, inputs)
        second, box, roles = perturbed(rng, first), random_box(rng, inputs), random_roles(rng, first)
        try:
            found = deviation(first, second, box, roles, exact=bool(rng.random() < 0.3))
        except (Refused, IndexError, OverflowError, ValueError):  # each of them is a refusal of check()
            continue
        if found < np.inf:
            proved += 1
            assert not exceeds(largest_difference(first, second, box), found), f"seed {seed}"
    assert proved > 20


def random_tree(rng, net, target):
    """A tree of any cuts and closings, sensible or not."""
    size, affine = net.by_name[target].size, [node for node in net.before([target]) if not node.relu]
    claims = [(int(unit), int(rng.choice([-1, 1]))) for unit in rng.integers(0, size, rng.integers(1, size + 1))]
    where, unit, closed, waiting = [], [], [], 1
    while len(where) < waiting:
        at = int(rng.integers(0, len(affine) + 1)) if len(where) < 7 and rng.random() < 0.6 else trees.LEAF
        where.append(at)
        waiting += 0 if at == trees.LEAF else 2
        unit.append(int(rng.integers(0, net.inputs if at == 0 else affine[at - 1].size)) if at >= 0 else 0)
        if at == trees.LEAF or rng.random() < 0.1:
            closed += [(len(where) - 1, k, int(rng.choice([0, 0, 0, 1, 2]))) for k in range(len(claims))]
    rows = int(rng.integers(1, 4))
    y = {
        node.name: np.where(rng.random((rows, node.size)) < 0.5, np.nan, rng.normal(size=(rows, node.size)))
        * 10.0 ** rng.choice([0, 0, -3, -300, 200])
        for node in affine
        if rng.random() < 0.8
    }
    tilts = {}
    for closing in range(len(closed)):
        if len(affine) > 1 and rng.random() < 0.3:
            node = affine[int(rng.integers(0, len(affine) - 1))]
            count, columns = int(rng.integers(1, 3)), sum(node.columns)
            tilts[closing] = {
                node.name: (rng.integers(0, node.size, count), np.abs(rng.normal(size=count)),
                            rng.normal(size=(count, columns)))
            }  # fmt: skip
    units, signs = np.array(claims).T
    return trees.Tree(units, signs, np.array(where), np.array(unit), np.array(closed),
                      rng.integers(-1, rows, len(closed)), y, tilts)  # fmt: skip


@pytest.mark.parametrize("part", range(4))
def test_no_tree_proves_a_bound_that_is_exceeded(part):
    proved = 0
    for seed in range(100 * part, 100 * (part + 1)):
        rng = np.random.default_rng(seed)
        inputs = int(rng.integers(1, 3))
        network, box = random_network(rng, inputs), random_box(rng, inputs)
        net, region, truth = as_checked(network), region_of(network, box), extremes(network, box)
        for node in net.nodes:
            if node.relu:
                continue
            for unit, (low, high) in enumerate(truth[node.name]):
                assert not exceeds(high, region[node.name][1][0, unit]), f"seed {seed}"
                assert not exceeds(-low, -region[node.name][0][0, unit]), f"seed {seed}"
            tree = random_tree(rng, net, node.name)
            try:
                found = proofs.proved_bounds(net, node.name, region, tree)
            except (Refused, OverflowError, ValueError):  # a sum that no float holds, in exact arithmetic
                continue
            for unit, sign, bound in zip(tree.units.tolist(), tree.signs.tolist(), found, strict=True):
                proved += bound < np.inf
                most = truth[node.name][unit][1] if sign > 0 else -truth[node.name][unit][0]
                assert not exceeds(most, bound), f"seed {seed}, {node.name}"
    assert proved > 20


def mutated(rng, header, arrays):
    """One thing of a certificate, changed."""
    content = header["content"]
    name = str(rng.choice(sorted(arrays)))
    array, kind = arrays[name].copy(), rng.random()
    if kind < 0.55 and array.size:
        at = tuple(int(rng.integers(0, n)) for n in array.shape)
        if array.dtype.kind == "f":
            old = array[at]
            array[at] = rng.choice([0, -old, np.nan, np.inf, -np.inf, old * 1.01, old * 0.5, np.nextafter(old, 9), 1])
        else:
            array[at] = rng.choice([-2, -1, 0, 1, 2, 3, 4, 100])
    elif kind < 0.7:
        array = array.astype(rng.choice(["i1", "f4", "f8", "i8", "u8", "f2"]))
    elif kind < 0.8:
        array = [array[:0], array[:1], array[None], array.ravel(), np.roll(array, 1), array[::-1]][rng.integers(6)]
    elif kind < 0.9 and len(arrays) > 1:
        array = arrays[str(rng.choice(sorted(arrays)))]
    else:
        content["deviation"] = float(content["deviation"]) * float(rng.choice([0, 0.5, 0.999, 1.1]))
        content["copies"][f"h{rng.integers(1, 4)}"] = [[int(rng.integers(-2, 3)), int(rng.integers(-2, 3)), 0.5]]
    arrays[name] = array


@pytest.mark.parametrize("seed", range(4))
def test_a_changed_certificate_is_refused_or_true(tmp_path, seed):
    rng = np.random.default_rng(seed)
    shape = [(4, 2), (5, 4), (3, 5)]
    nodes, at = [], INPUT
    for number, size in enumerate(shape, 1):
        matrix, bias = rng.normal(size=size), rng.normal(size=size[0]) / 2
        matrix[-1], bias[-1] = matrix[0] / 2, bias[0] / 2
        nodes += [dense(f"z{number}", at, matrix, bias), relu(f"h{number}", f"z{number}", size[0])]
        at = f"h{number}"
    network = Network(2, (*nodes, dense("out", at, rng.normal(size=(2, 3)), [0, 1])), "out")
    paths = certified(tmp_path, network, Box.uniform(-0.5, 0.5, 2), tolerance=1e-3)
    compressed, written, accepted = storage.load(paths[2]), paths[0].read_bytes(), 0
    first = checker.check(*paths)
    truths = {}
    for _ in range(60):
        paths[0].write_bytes(written)
        rewrite_archive(paths[0], lambda header, arrays: mutated(rng, header, arrays))
        try:
            report = checker.check(*paths)
        except Refused:
            continue
        accepted += 1
        box, (_, arrays) = Box(report.lower, report.upper), open_archive(paths[0])
        key = box.lower.tobytes() + box.upper.tobytes()
        if key not in truths:
            truths[key] = extremes(network, box), largest_difference(network, compressed, box)
        truth, difference = truths[key]
        if report.trusted:
            continue
        assert difference <= report.deviation
        for name, layer in open_archive(paths[0])[0]["content"]["layers"].items():
            for (low, high), below, above, state in zip(
                truth[name], *(arrays[layer[what]] for what in ("lower", "upper", "state")), strict=True
            ):
                assert below <= low
                assert high <= above
                assert state != checker.ACTIVE or low >= 0
                assert state != checker.INACTIVE or high <= 0
                assert state != checker.UNSTABLE or low < 0 < high
    assert first.trusted == 0
    assert 5 < accepted < 60


def test_small_whole_numbers_do_not_overflow_where_places_of_entries_are_worked_out():
    """2 · 128 is 0 in a byte: the third row of the one network would be laid beside the first of the other."""
    rows = np.eye(3, 128)
    original, compressed = (
        Network(
            128,
            (Affine("z", (INPUT,), (Sparse.of(matrix),), np.zeros(3)), relu("h", "z", 3),
             dense("out", "h", [[0, 0, 1]], [0])),
            "out",
        )
        for matrix in (rows * [[1], [1], [0]], rows[[0, 1, 0]])
    )  # fmt: skip
    content = {"kept": {"h": ("h", "origin")}, "copies": {}, "lines": {}}
    roles = roles_of(content, {"origin": np.arange(3, dtype=np.uint8)})
    assert deviation(original, compressed, Box.uniform(0, 1, 128), roles) >= 1
    with pytest.raises(Refused, match="whole numbers"):
        roles_of(content, {"origin": np.arange(3.0)})
