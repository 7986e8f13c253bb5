"""Whether two networks are within ε: no answer contradicts the exact truth, and each is the one that was asked for."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import boxes, networks, networks_and_boxes
from truth import extremes, largest_difference

import leo_core
from leo_core import Box, Network, deciding, storage
from leo_core.cli import main
from leo_core.compare import Pair, side_by_side
from leo_core.compare.joint import Arrangement, joint_region
from leo_core.errors import UsageError
from leo_core.execution.budget import Budget
from leo_core.linear import Conv, Dense, Diagonal, Spacing
from leo_core.network import INPUT, Affine, Relu
from leo_core.testing.networks import chain
from leo_core.within import Within


def differences(first, second, box):
    """max |first − second| of each output, exactly."""
    joint = side_by_side(first, second)
    return [max(abs(low), abs(high)) for low, high in extremes(joint, box)[joint.output]]


def asked(first, second, box, limits, **options):
    """The answer, compared with the truth."""
    found = leo_core.verify(first, second, box, within=limits, solver="scipy", **options)
    truth = differences(first, second, box)
    bounds = [Fraction(limit) if limit < math.inf else None for limit in np.broadcast_to(limits, len(truth)).tolist()]
    holds = all(limit is None or apart <= limit for apart, limit in zip(truth, bounds, strict=True))
    assert found.within in (holds, None)
    assert Fraction(found.lower) <= max(truth)
    assert not np.isfinite(found.upper) or max(truth) <= Fraction(found.upper)
    if found.within is False:
        values = [net.evaluate_exact(found.witness)[net.output].fractions() for net in (first, second)]
        apart = [abs(a - b) for a, b in zip(*values, strict=True)]
        assert box.contains(found.witness)
        assert bounds[found.largest] is not None
        assert apart[found.largest] > bounds[found.largest]
    return found


@settings(max_examples=40)
@given(st.data())
def test_any_two_networks(data):
    first = data.draw(networks(layers=st.integers(1, 2), width=st.integers(1, 3)))
    second = data.draw(
        networks(inputs=st.just(first.input_size), layers=st.integers(1, 2), width=st.integers(1, 3)).filter(
            lambda network: network.output_size == first.output_size
        )
    )
    box = data.draw(boxes(first.input_size))
    truth = [float(value) for value in differences(first, second, box)]
    limits = [value * data.draw(st.sampled_from([0.0, 0.9, 1.0, 1.1, math.inf])) for value in truth]
    if all(math.isinf(limit) or math.isnan(limit) for limit in limits):
        limits[0] = 1.0
    asked(first, second, box, [limit if limit == limit else 0.0 for limit in limits], time_limit=1.0)


@settings(max_examples=15)
@given(networks_and_boxes(), st.sampled_from([0.5, 0.99, 1.01, 2.0]))
def test_what_is_not_close_is_decided(network_and_box, factor):
    first, box = network_and_box
    second = chain(first.input_size, 3, first.output_size, seed=3)
    truth = float(largest_difference(first, second, box))
    found = asked(first, second, box, factor * truth, time_limit=30.0)
    assert found.within is (factor > 1) or truth == 0


def test_the_output_named_is_the_one_beyond_its_limit():
    """By less than floats show: 1 + 2⁻⁶⁰ against 1."""
    weights = np.array([[0.0, 0.0], [1.0, 2.0**-60]])
    first, second = (
        Network(2, (Affine("y", (INPUT,), (Dense(w),), np.zeros(2)),), "y") for w in (weights, 0 * weights)
    )
    found = asked(first, second, Box(np.ones(2), np.ones(2)), [0.0, 1.0])
    assert found.within is False
    assert found.largest == 1


def line(slope):
    return Network(1, (Affine("o", (INPUT,), (Dense([[slope]]),), np.zeros(1)),), "o")


def test_exactly_at_the_limit():
    """1.5 apart at x = 1 and nowhere more: within 1.5, but not within less, nor where 1.5 itself is too far."""
    pair, box = (line(2.0), line(0.5)), Box.uniform(-1, 1, 1)
    assert leo_core.verify(*pair, box, within=1.5).within is not False
    assert leo_core.verify(*pair, box, within=np.nextafter(1.5, 0)).within is False
    assert leo_core.verify(*pair, box, within=Within((Fraction(3, 2),), (True,))).within is False
    assert leo_core.verify(*pair, box, within=Fraction(3, 2)).within is not False
    assert leo_core.verify(*pair, box, within="1.6").within is True


def test_what_reading_rounds_counts_against_both_answers():
    pair, box = (line(2.0), line(0.5)), Box.uniform(-1, 1, 1)
    solver = deciding.solver_of(deciding.options_of({}), lambda event: None)
    for limit, slack in ((1.55, 0.1), (1.45, 0.1), (10.0, math.inf)):
        within = Within((Fraction(limit),), (False,), slack)
        assert leo_core.compare.compare(Pair(*pair, box, solver), within).within is None
    for limit, answer in ((1.65, True), (1.35, False)):
        within = Within((Fraction(limit),), (False,), 0.1)
        assert leo_core.compare.compare(Pair(*pair, box, solver), within).within is answer


def test_two_that_are_one():
    network = chain(3, 4, 2)
    assert leo_core.verify(network, network, (-1, 1), within=0).within is True
    never = Within((Fraction(0),) * 2, (True,) * 2)
    assert leo_core.verify(network, network, (-1, 1), within=never).within is False


def test_limits_by_output():
    first = chain(2, 5, 3, seed=1)
    second = first.with_nodes(*(
        Affine(node.name, node.sources, node.maps, node.bias + np.array([0.0, 0.25, 0.0], node.bias.dtype))
        for node in first.nodes if node.name == first.output))  # fmt: skip
    assert leo_core.verify(first, second, (-1, 1), within=[0, 0.25, 0.01]).within is not False
    assert leo_core.verify(first, second, (-1, 1), within=[0.1, 0.3, 0.1]).within is True
    found = leo_core.verify(first, second, (-1, 1), within=[1.0, 0.2, math.inf])
    assert found.within is False
    assert found.largest == 1
    assert leo_core.verify(first, second, (-1, 1), within=[0.1, math.inf, 0.1]).within is True


@pytest.mark.parametrize("given", [-1, math.nan, "x", [1, 2, 3], [], True, [math.inf, math.inf], "-0.1"])
def test_what_is_no_question(given):
    with pytest.raises(UsageError, match="within"):
        leo_core.verify(chain(2, 3, 2), chain(2, 3, 2, seed=1), (-1, 1), within=given)


@pytest.mark.parametrize("text", ["1e-99999999", "1e99999999"])
def test_numbers_of_any_size_are_read_at_once(text):
    assert Within.of([text, 1], 2).limits[1] == 1


def test_a_decimal_is_taken_exactly():
    """The nearest float is above a tenth: within that, networks may be further apart than was asked."""
    assert Within.of(Decimal("0.1"), 1) == Within.of("0.1", 1) == Within((Fraction(1, 10),), (False,))


def test_both_orders_of_an_arrangement():
    first, second = chain(2, 3, 1, seed=1), chain(2, 4, 1, seed=2)
    x = np.array([0.3, -0.7])
    plain, swapped = (Arrangement(turned).joint(first, second).evaluate(x)[0] for turned in (False, True))
    assert plain == -swapped
    assert Arrangement(True).side((0, 1.0)) == (0, -1.0)
    assert Arrangement(False).side((0, 1.0)) == (0, 1.0)


class TestTheCommand:
    @pytest.fixture
    def pair(self, tmp_path):
        first = chain(2, 4, 2, seed=1)
        paths = [tmp_path / "a.leo", tmp_path / "b.leo"]
        moved = first.with_nodes(*(Affine(n.name, n.sources, n.maps, n.bias + np.float32(0.5))
                                   for n in first.nodes if n.name == first.output))  # fmt: skip
        for network, path in zip((first, moved), paths, strict=True):
            storage.save(network, path)
        return [str(path) for path in paths]

    def leo(self, *arguments):
        return CliRunner().invoke(main, ["verify", *arguments, "--domain", "-1,1", "-q"])

    def test_proved(self, pair):
        done = self.leo(*pair, "--within", "0.6")
        assert done.exit_code == 0
        assert "proved: within 0.6" in done.output
        assert json.loads(self.leo(*pair, "--within", "0.6", "--json").output)["within"] is True

    def test_refuted(self, pair):
        done = self.leo(*pair, "--within", "0.7,0.4")
        assert done.exit_code == 1
        assert "refuted: not within 0.7, 0.4 by output; they differ by at least 0.5" in done.output
        assert "output 1 is" in done.output
        assert "input: " in done.output
        content = json.loads(self.leo(*pair, "--within", "0.7,0.4", "--json").output)
        assert content["within"] is False
        assert content["largest"]["output"] == 1
        assert len(content["witness"]) == 2

    def test_open(self, pair):
        done = self.leo(*pair, "--within", "0.500001", "--time-limit", "0")
        assert done.exit_code in (0, 3)
        assert done.exit_code == 0 or "open, neither proved nor refuted" in done.output

    def test_a_certificate(self, pair, tmp_path):
        path = str(tmp_path / "it.cert")
        done = self.leo(*pair, "--within", "0.6", "--certificate", path)
        assert f"re-check it with: leo check {path} {pair[0]} {pair[1]}" in done.output
        checked = CliRunner().invoke(main, ["check", path, *pair, "--json", "-q"])
        assert checked.exit_code == 0
        assert json.loads(checked.output)["limits"] == pytest.approx([0.6, 0.6])
        asked = ("--within", "0.4", "--certificate", str(tmp_path / "none.cert"))
        assert json.loads(self.leo(*pair, *asked, "--json").output)["certificate"] is None
        assert "there is one of a proof only" in self.leo(*pair, *asked).output
        assert self.leo(*pair, "--certificate", path).exit_code == 2
        assert self.leo(*pair, "--within", "0.6", "--certificate", pair[0]).exit_code == 2

    def test_not_asked(self, pair):
        assert self.leo(*pair).exit_code == 0
        assert json.loads(self.leo(*pair, "--json").output)["within"] is None

    def test_wrong_usage(self, pair):
        assert self.leo(*pair, "--within", "-1").exit_code == 2
        assert self.leo(*pair, "--within", "1,2,3").exit_code == 2


def test_a_relu_that_hides_the_difference_is_no_refutation():
    """Far apart before the last ReLU, equal behind it."""

    def network(shift):
        nodes = (Affine("z", (INPUT,), (Dense([[1.0]]),), np.array([shift])), Relu("h", "z", np.zeros(1)),
                 Affine("o", ("h",), (Dense([[1.0]]),), np.zeros(1)))  # fmt: skip
        return Network(1, nodes, "o")

    assert leo_core.verify(network(-5.0), network(-9.0), (-1, 1), within=0).within is True


def test_a_box_that_is_nearly_zero_by_chance_ends_no_proof(monkeypatch):
    """One box whose bound was just above zero gave up the claim: on near pairs, 9 of 10 sides were proved."""
    from leo_core.search import boxes as searched

    first, second, box = chain(2, 6, 6, 1, seed=1), chain(2, 6, 6, 1, seed=2), Box.uniform(-1, 1, 2)
    limit = 1.3 * float(largest_difference(first, second, box))
    low, high = joint_region(joint := side_by_side(first, second), box, Budget()).intervals[joint.output]
    reach = float(np.maximum(np.abs(low), np.abs(high)).max()) + limit
    monkeypatch.setattr(searched, "NEARLY_ZERO", 0.2 * limit / reach)  # the difference is never so near to the limit
    monkeypatch.setattr(leo_core.compare.narrow, "Settler", None)  # boxes alone
    found = leo_core.verify(first, second, box, within=limit)
    assert found.within is True
    assert any(len(proof.tree.where) >= 3 for proof in found.evidence.proofs)


def test_one_architecture_is_paired_in_order_at_once():
    """Of large networks that share all but the last layer nothing else has to be known."""
    first = chain(40, 30, 30, 2, seed=1)
    second = first.with_nodes(*(
        Affine(node.name, node.sources, node.maps, node.bias + np.float32(0.01))
        for node in first.nodes if node.name == first.output))  # fmt: skip
    box = Box.uniform(-1, 1, 40)
    found = leo_core.compare.pairing.alike(first, second, box)
    assert found.bound == pytest.approx(0.01, rel=1e-5)
    assert all((origin >= 0).all() for _, origin in found.shared.values())
    assert leo_core.compare.pairing.alike(first, chain(40, 30, 29, 2), box) is None
    assert leo_core.compare.pairing.alike(first, chain(40, 30, 2), box) is None
    assert leo_core.verify(first, second, box, within=0.011, time_limit=0).within is True


def branched(names, gains, kernels=(1.0, 2.0)):
    """A layer, two branches without a ReLU that are added, one with a norm's numbers, a ReLU, an output."""
    layer, left, right, added = names
    kernel = np.arange(-4.0, 5.0, dtype=np.float32).reshape(1, 1, 3, 3)
    spacing = Spacing(low=1, high=1)
    nodes = [Affine(layer, (INPUT,), (Conv.of(kernel, (4, 4), spacing),), np.full(16, 0.5), shape=(1, 4, 4)),
             Relu("h", layer, np.zeros(16))]  # fmt: skip
    for name, factor in zip((left, right), kernels, strict=True):
        conv = Conv.of(kernel * np.float32(factor), (4, 4), spacing)
        nodes.append(Affine(name, ("h",), (conv,), np.zeros(16), shape=(1, 4, 4)))
    nodes += [Affine(added, (left, right), (Diagonal(np.full(16, gains[0])), Diagonal(np.full(16, gains[1]))),
                     np.full(16, -1.0), shape=(1, 4, 4)),
              Relu("g", added, np.zeros(16)),
              Affine("out", ("g",), (Dense(np.full((1, 16), 1e6)),), np.zeros(1))]  # fmt: skip
    return Network(16, tuple(nodes), "out")


def test_layers_are_found_by_their_place_whatever_they_are_called():
    """Another format names other layers the same; a bound by names alone was as wide as the outputs are."""
    first = branched(("a", "b", "c", "d"), (1.0, 1 / 3))
    box = Box.uniform(0, 1, 16)
    for names in (("d", "c", "b", "a"), ("b", "a", "d", "c"), ("p", "q", "r", "s")):
        second = branched(names, (1.0, 1 / 3))
        assert first != second
        assert leo_core.compare.pairing.alike(first, second, box).bound == 0
    swapped = branched(("a", "b", "c", "d"), (1 / 3, 1.0), kernels=(2.0, 1.0))
    other = branched(("a", "b", "c", "d"), (1.0, 1 / 3), kernels=(2.0, 1.0))
    for second in (swapped, other):
        apart = float(largest_seen(first, second, box))
        found = leo_core.compare.pairing.alike(first, second, box)
        assert found is None or found.bound >= apart
    assert largest_seen(first, other, box) > 0


def largest_seen(first, second, box):
    points = np.vstack([box.sample(np.random.default_rng(0), 20), box.corners(20)])
    return max(
        abs(a - b)
        for x in points
        for a, b in zip(*(net.evaluate_exact(x)[net.output].fractions() for net in (first, second)), strict=True)
    )
