"""Certificates that two networks are within limits: accepted where that is true, and never where it is not."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import boxes, networks
from tampering import mutated
from truth import extremes

import leo_core
from leo_core import Affine, Box, Network, Relu, checker, deciding, storage
from leo_core.checker import networks as archives
from leo_core.checker.equivalence import proved_differences
from leo_core.checker.networks import open_archive
from leo_core.checker.trees import Tilt, describe
from leo_core.compare import Pair, side_by_side
from leo_core.errors import CertificateError, UsageError
from leo_core.linear import Dense, Sparse
from leo_core.network import INPUT
from leo_core.search.evidence import uncut
from leo_core.storage import as_checked, write_archive
from leo_core.testing.networks import chain

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # overflow is meant


def differences(first, second, box):
    """max |first − second| of each output, exactly."""
    joint = side_by_side(first, second)
    return [max(abs(low), abs(high)) for low, high in extremes(joint, box)[joint.output]]


def certified(folder, first, second, box, within, **options):
    """What verify found, and paths of the certificate and both networks."""
    paths = [folder / name for name in ("it.cert", "a.leo", "b.leo")]
    for network, path in zip((first, second), paths[1:], strict=True):
        storage.save(network, path)
    return leo_core.verify(*paths[1:], box, within=within, certificate=paths[0], **options), paths


@settings(max_examples=8)
@given(st.data())
def test_what_is_proved_is_certified(tmp_path_factory, data):
    first = data.draw(networks(layers=st.integers(1, 2), width=st.integers(1, 3)))
    second = data.draw(
        networks(inputs=st.just(first.input_size), layers=st.integers(1, 2), width=st.integers(1, 3)).filter(
            lambda network: network.output_size == first.output_size
        )
    )
    box = data.draw(boxes(first.input_size))
    truth = differences(first, second, box)
    limit = float(max(truth)) * data.draw(st.sampled_from([1.001, 1.5]))
    found, paths = certified(tmp_path_factory.mktemp("pair"), first, second, box, limit, time_limit=3.0, solver="scipy")
    assert found.certified == paths[0].exists()
    assert found.within is not False
    if found.certified:
        report = checker.check(*paths)
        assert max(truth) <= Fraction(report.deviation) <= Fraction(limit)


def noisy(network, seed, size, layers=("z1", "z2", "out")):
    rng = np.random.default_rng(seed)
    return network.with_nodes(*(
        replace(node, maps=(Dense(node.maps[0].dense() + rng.normal(0, size, (node.size, node.maps[0].columns))),))
        for node in network.nodes if isinstance(node, Affine) and node.name in layers))  # fmt: skip


def plain(seed, *widths):
    rng, nodes, at = np.random.default_rng(seed), [], INPUT
    for number, (columns, rows) in enumerate(pairwise(widths[:-1]), 1):
        nodes += [Affine(f"z{number}", (at,), (Dense(rng.normal(size=(rows, columns))),), rng.normal(size=rows) / 2),
                  Relu(f"h{number}", f"z{number}", np.zeros(rows))]  # fmt: skip
        at = f"h{number}"
    nodes.append(Affine("out", (at,), (Dense(rng.normal(size=(widths[-1], widths[-2]))),), np.zeros(widths[-1])))
    return Network(widths[0], tuple(nodes), "out")


FIRST, BOX = plain(1, 1, 6, 5, 2), Box.uniform(-1, 1, 1)


@pytest.fixture(params=["all layers", "what the first layers share", "another order", "units of both"])
def kind(request):
    return request.param


def pair_of(kind):
    if kind == "all layers":
        second, factor = noisy(FIRST, 3, 0.05), 1.05
    elif kind == "what the first layers share":
        second, factor = noisy(FIRST, 3, 0.05, ("out",)), 1.05
    elif kind == "units of both":
        second, factor = noisy(FIRST, 3, 1e-3), 40.0
    else:
        order = np.array([3, 0, 5, 1, 4, 2])
        z1, h1, z2, *rest = noisy(FIRST, 3, 0.05, ("z2",)).nodes
        second = Network(1, (replace(z1, maps=(Dense(z1.maps[0].dense()[order]),), bias=z1.bias[order]), h1,
                             replace(z2, maps=(Dense(z2.maps[0].dense()[:, order]),)), *rest), "out")  # fmt: skip
        factor = 1.05
    truth = [float(value) for value in differences(FIRST, second, BOX)]
    return second, [value * factor for value in truth]


def test_the_kinds_of_evidence(tmp_path, kind):
    second, limits = pair_of(kind)
    found, paths = certified(tmp_path, FIRST, second, BOX, limits)
    assert found.certified
    report = checker.check(*paths)
    assert report.limits == pytest.approx(limits)
    assert leo_core.check(*paths, domain=BOX).leaves == report.leaves
    with pytest.raises(CertificateError, match="smaller domain"):
        leo_core.check(*paths, domain=(-2, 2))
    with pytest.raises(checker.OfAnother):
        checker.check(paths[0], paths[1], paths[1])
    done = subprocess.run([sys.executable, "-m", "leo_core.checker", *map(str, paths)], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0
    assert "no output differs by more than" in done.stdout


def test_shared_units_are_taken_once(tmp_path):
    """Where time runs out on boxes of the plain pair, what is shared is in the evidence; forced here."""
    from leo_core.certificate.equivalence import content_of
    from leo_core.compare.joint import Arrangement
    from leo_core.compare.narrow import SideBySide, one_by_one
    from leo_core.compare.pairing import paired
    from leo_core.compare.seen import Seen
    from leo_core.compare.work import Evidence, joint_region
    from leo_core.execution.budget import Budget
    from leo_core.execution.executor import Here
    from leo_core.within import Within

    second, limits = pair_of("another order")
    within, budget = Within.of(limits, 2), Budget.of(60.0)
    solver = deciding.solver_of(deciding.options_of({}), lambda event: None)
    pairing = paired(Pair(FIRST, second, BOX, solver), budget, 0.0)
    assert pairing.shared
    arrangement = Arrangement(pairing.old is not FIRST, pairing.shared)
    joint = arrangement.joint(FIRST, second)
    work = SideBySide(joint, arrangement, joint_region(joint, BOX, budget), solver, 0, Here())
    asked = {(unit, sign): float(within.provable[unit]) for unit in (0, 1) for sign in (1.0, -1.0)}
    seen = Seen(FIRST, second, BOX, lambda event: None, within)
    found = one_by_one(work, asked, budget, seen)
    assert len(found.proved) == 4
    evidence = Evidence(0.0, True, found.proofs, pairing)
    content, arrays = content_of(Pair(FIRST, second, BOX, solver), within, evidence, budget)
    nets, sides = (as_checked(FIRST), as_checked(second)), (BOX.lower[None], BOX.upper[None])
    for proof in content["proofs"]:
        assert proof["shared"]
    # units taken for each other that are not the same
    for name, (_, origin) in content["proofs"][0]["shared"].items():
        wrong = {**arrays, origin: np.roll(arrays[origin], 1)}
        if (wrong[origin] != arrays[origin]).any():
            with pytest.raises(checker.Refused, match=name):
                proved_differences(*nets, sides, content, wrong, print)
    with pytest.raises(checker.Refused, match="nothing shows"):
        proved_differences(*nets, sides, {**content, "pairings": []}, arrays, print)
    # all units of a layer that differs
    kept = {"h2": ["h2", "everything"]}
    lie = {**content, "pairings": [{"swapped": False, "kept": {**content["pairings"][0]["kept"], **kept}, "copies": {},
                                    "lines": {}}]}  # fmt: skip
    lie["proofs"] = [{**proof, "swapped": False, "shared": kept} for proof in content["proofs"]]
    with pytest.raises(checker.Refused):
        proved_differences(*nets, sides, lie, {**arrays, "everything": np.arange(5)}, print)


def change_one(rng, content, arrays):
    """One thing of a certificate, changed."""
    what = rng.random()
    name = str(rng.choice(sorted(arrays)))
    array = arrays[name].copy()
    if what < 0.45 and array.size:
        at = tuple(int(rng.integers(0, n)) for n in array.shape)
        if array.dtype.kind == "f":
            array[at] = rng.choice([0, -array[at], np.nan, np.inf, array[at] * 0.5, array[at] * 1.01, 1])
        else:
            array[at] = rng.choice([-2, -1, 0, 1, 2, 3, 100])
    elif what < 0.6:
        array = [array[:0], array[:1], array[None], array.ravel(), np.roll(array, 1), array[::-1]][rng.integers(6)]
    elif what < 0.7:
        array = arrays[str(rng.choice(sorted(arrays)))]
    elif what < 0.8:
        output = int(rng.integers(len(content["limits"])))
        content["limits"][output] = rng.choice(
            [None, 0.0, -1.0, content["limits"][output] * float(rng.choice([0.5, 2]))]
        )
    elif what < 0.9 and content["proofs"]:
        proof = content["proofs"][rng.integers(len(content["proofs"]))]
        proof["swapped"] = not proof["swapped"]
    elif content["proofs"]:
        content["proofs"].pop(int(rng.integers(len(content["proofs"]))))
    arrays[name] = array


def test_a_changed_certificate_is_refused_or_true(tmp_path, kind):
    second, limits = pair_of(kind)
    _, paths = certified(tmp_path, FIRST, second, BOX, limits)
    written, accepted, rng = paths[0].read_bytes(), 0, np.random.default_rng(5)
    truths = {}
    for _ in range(40):
        paths[0].write_bytes(written)
        mutated(paths[0], lambda content, arrays: change_one(rng, content, arrays))
        try:
            report = checker.check(*paths)
        except checker.Refused:
            continue
        accepted += 1
        box = Box(report.lower, report.upper)
        key = box.lower.tobytes() + box.upper.tobytes()
        if key not in truths:
            truths[key] = differences(FIRST, second, box)
        for truth, limit in zip(truths[key], report.limits, strict=True):
            assert limit is None or truth <= Fraction(limit)
    assert accepted < 40


def test_limits_that_lie_are_refused(tmp_path, kind):
    second, limits = pair_of(kind)
    _, paths = certified(tmp_path, FIRST, second, BOX, limits)

    def lie(content, arrays):
        content["limits"] = [limit * 0.9 / (40.0 if kind == "units of both" else 1.05) for limit in limits]

    mutated(paths[0], lie)
    with pytest.raises(checker.Refused, match="is claimed"):
        checker.check(*paths)


def made_by_hand(folder, f, g, kept, proof=None):
    """A certificate that both are nearly equal on [−1, 1], by what became of the units of 'h'; and paths of both."""
    paths, arrays = [folder / name for name in ("it.cert", "a.leo", "b.leo")], {}
    content = {"kind": checker.EQUIVALENCE, "original": f.digest, "compressed": g.digest, "tail": "", "limits": [1e-9],
               "pairings": [{"swapped": False, "kept": {"h": ["h", archives.keep(kept, arrays)]}, "copies": {},
                             "lines": {}}], "proofs": [] if proof is None else [proof(arrays)]}  # fmt: skip
    arrays |= {"lower": -np.ones(f.input_size), "upper": np.ones(f.input_size)}
    header = {"format": "leo certificate", "version": 1, "sha256": archives.checksum(content, arrays)}
    write_archive(paths[0], {**header, "content": content}, arrays)
    for network, path in zip((f, g), paths[1:], strict=True):
        storage.save(network, path)
    return paths


def one_layer(first, last):
    return Network(first.columns, (Affine("z", (INPUT,), (first,), np.zeros(first.rows)),
                                   Relu("h", "z", np.zeros(first.rows)),
                                   Affine("out", ("h",), (Dense(last),), np.zeros(1))), "out")  # fmt: skip


@pytest.mark.parametrize("kept", [-1, 0])
def test_a_shared_unit_is_one_or_none(tmp_path, kept):
    """A number of a unit that is NaN is neither: the unit would be left out, and 0 in its place."""
    f, g = (one_layer(Dense(np.eye(1)), np.array([[weight]])) for weight in (0.0, 1.0))

    def proof(arrays):
        parts = {"shared": np.array([np.nan]), "rows": np.array([[0, 1], [0, -1]]), "thresholds": np.zeros(2)}
        names = {name: archives.keep(array, arrays) for name, array in parts.items()}
        tree = describe(uncut([(0, 1), (1, 1)], {}), arrays)
        return {**names, "swapped": False, "shared": {"h": ["h", names["shared"]]}, "tree": tree}

    with pytest.raises(checker.Refused, match="whole numbers"):
        checker.check(*made_by_hand(tmp_path, f, g, np.array([kept]), proof))


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int64])
def test_numbers_of_units_do_not_overflow(tmp_path, kind):
    """Row 3 of 100 columns begins at entry 300, which is 44 in eight bits: another row's."""
    rows = np.zeros((4, 100))
    rows[0, 50] = 1.0
    f = one_layer(Sparse.of(rows), np.eye(4)[3:])
    g = one_layer(Sparse.of(np.eye(1, 100)), np.eye(1))
    with pytest.raises(checker.Refused, match="1 is proved"):
        checker.check(*made_by_hand(tmp_path, f, g, np.array([3], kind)))


@pytest.mark.parametrize("unit", [0, -1])
def test_tilts_are_of_units_that_there_are(tmp_path, unit):
    """A sparse map has no row −1, where arrays have their last: no weight would enter the unit."""
    f, g = (one_layer(Sparse.of(np.eye(1)), np.array([[weight]])) for weight in (1.0, 0.0))

    def proof(arrays):
        parts = {"rows": np.array([[0, 1], [0, -1]]), "thresholds": np.full(2, 1e-9)}
        tilt = Tilt(np.array([unit]), np.ones(1), np.zeros((1, 1)))
        tree = replace(uncut([(0, 1), (1, 1)], {}), tilts={0: {"first/z": tilt}})
        names = {name: archives.keep(array, arrays) for name, array in parts.items()}
        return {**names, "swapped": False, "shared": {}, "tree": describe(tree, arrays)}

    with pytest.raises(checker.Refused, match="1 is proved" if unit == 0 else "units that 'first/z' has not"):
        checker.check(*made_by_hand(tmp_path, f, g, np.array([-1]), proof))


def test_no_question_and_no_proof(tmp_path):
    second = noisy(FIRST, 3, 0.05)
    with pytest.raises(UsageError, match="a certificate is of an answer"):
        leo_core.verify(FIRST, second, BOX, certificate=tmp_path / "it.cert")
    found, paths = certified(tmp_path, FIRST, second, BOX, 1e-6)
    assert found.within is False
    assert not found.certified
    assert not paths[0].exists()


def test_a_network_and_itself(tmp_path):
    found, paths = certified(tmp_path, FIRST, FIRST, BOX, 0)
    assert found.certified
    assert checker.check(*paths).deviation == 0
    other = chain(2, 4, 2)
    storage.save(other, paths[2])
    with pytest.raises(checker.OfAnother):
        checker.check(*paths)


def test_the_description_names_its_kind(tmp_path):
    _, paths = certified(tmp_path, FIRST, FIRST, BOX, 0)
    assert open_archive(paths[0])[0]["content"]["kind"] == checker.EQUIVALENCE


def test_where_the_checker_does_not_come_as_far_proofs_are_looked_for_anew():
    """By its own bounds it does not accept what bounds alone are said to show here, though it is true."""
    from leo_core.certificate.equivalence import content_of
    from leo_core.compare.joint import Arrangement
    from leo_core.compare.narrow import Proof
    from leo_core.compare.work import Evidence
    from leo_core.errors import OutputError
    from leo_core.execution.budget import Budget
    from leo_core.within import Within

    first, box = chain(9, 4, 4, 2, seed=1), Box.uniform(-1, 1, 9)
    second = first.with_nodes(replace(first.affine("dense1"), bias=first.affine("dense1").bias + np.float32(0.05)))
    pair = Pair(first, second, box, deciding.solver_of(deciding.options_of({}), lambda event: None))
    limit = 1.2 * leo_core.verify(first, second, box, time_limit=2.0).upper
    within, rows = Within.of(limit, 2), tuple((unit, sign) for unit in (0, 1) for sign in (1.0, -1.0))
    weak = Proof(Arrangement(), rows, np.full(4, limit), uncut([(row, 1) for row in range(4)], {}))
    evidence = Evidence(limit, True, (weak,))
    with pytest.raises(OutputError, match="no certificate"):
        content_of(pair, within, evidence, Budget.of(0.0))
    content, arrays = content_of(pair, within, evidence, Budget())
    nets, sides = (as_checked(first), as_checked(second)), (box.lower[None], box.upper[None])
    most, leaves = proved_differences(*nets, sides, content, arrays, print)
    assert (most <= limit).all()
    assert leaves > 4
