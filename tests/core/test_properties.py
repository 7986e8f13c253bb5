"""Properties moved: where one has a counterexample on a network, the moved one has it on any network nearby."""

from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import networks

import leo_core
from leo_core.cli import main
from leo_core.errors import DomainError, UsageError
from leo_core.network import Output, Signature
from leo_core.properties import Property, apart_at
from leo_core.testing.networks import chain

BOX = "".join(
    f"(declare-const X_{i} Real)(assert (>= X_{i} -1.0))(assert (<= X_{i} 1.0))(declare-const Y_{i} Real)"
    for i in (0, 1)
)


def tree(text):
    """S-expressions, read by other means than the package's."""
    return json.loads(
        "[" + ",".join(json.dumps(t) if t not in "()" else t for t in tokens(text)).replace("(", "[").replace(")", "]")
        .replace("[,", "[").replace(",]", "]") + "]"
    )  # fmt: skip


def tokens(text):
    lines = "\n".join(line.split(";")[0] for line in text.splitlines())
    return lines.replace("(", " ( ").replace(")", " ) ").split()


def truth(item, values):
    """Whether a constraint holds, or what a term comes to, over the rationals; of inputs nothing is asked."""
    if isinstance(item, str):
        return values[item] if item in values else Fraction(Decimal(item))
    operator, *parts = item
    if operator == "declare-const" or (operator in ("<=", ">=") and "X" in json.dumps(item)):
        return True
    found = [truth(part, values) for part in parts]
    match operator:
        case "assert":
            return found[0]
        case "and":
            return all(found)
        case "or":
            return any(found)
        case "not":
            return not found[0]
        case "+":
            return sum(found)
        case "*":
            return found[0] * found[1]
        case "-":
            return -found[0] if len(found) == 1 else found[0] - sum(found[1:])
    one, other = found
    return {"<=": one <= other, ">=": one >= other, "<": one < other, ">": one > other, "=": one == other}[operator]


def holds(text, outputs):
    values = {f"Y_{place}": Fraction(value) for place, value in enumerate(outputs)}
    return all(truth(item, values) for item in tree(text))


NUMBERS = st.sampled_from(["0", "0.1", "-0.3", "(- 1.5)", "2", "1e-3", "12.75"])
TERMS = st.recursive(
    st.sampled_from(["Y_0", "Y_1"]) | NUMBERS,
    lambda inner: (
        st.builds("({} {} {})".format, st.sampled_from("+-"), inner, inner)
        | st.builds("(* {} {})".format, NUMBERS, inner)
    ),
    max_leaves=4,
)
ATOMS = st.builds("({} {} {})".format, st.sampled_from(["<=", ">=", "<", ">"]), TERMS, TERMS)
CONSTRAINTS = st.recursive(
    ATOMS,
    lambda inner: (
        st.builds("({} {} {})".format, st.sampled_from(["and", "or"]), inner, inner)
        | st.builds("(not {})".format, inner)
    ),
    max_leaves=4,
)


def written(folder, constraint):
    path = folder / "p.vnnlib"
    path.write_text(f"; a property\n{BOX}\n(assert {constraint})\n", encoding="utf-8")
    return path


@settings(max_examples=150)
@given(st.data(), CONSTRAINTS)
def test_what_holds_nearby_holds_moved(tmp_path_factory, data, constraint):
    prop = Property.read(written(tmp_path_factory.getbasetemp(), f"(or {constraint} (<= Y_0 -1e9) (<= Y_1 -1e9))"))
    apart = data.draw(st.lists(st.sampled_from([0.0, 1e-9, 0.1, 1.5]), min_size=2, max_size=2))
    grid = st.integers(-20, 20).map(lambda k: k / 10)
    there = [data.draw(grid) for _ in apart]
    here = [
        Fraction(y) + Fraction(a) * data.draw(st.sampled_from([-1, 0, 1])) for y, a in zip(there, apart, strict=True)
    ]
    moved = prop.moved(apart)
    if holds(f"(assert {constraint})", there):
        assert holds(moved, here)
    if not any(apart):
        assert tree(moved) == tree(BOX + f"(assert (or {constraint} (<= Y_0 -1e9) (<= Y_1 -1e9)))")


@settings(max_examples=8)
@given(st.data(), st.sampled_from([0.1, 2.0]))
def test_counterexamples_survive_compression(tmp_path_factory, data, tolerance):
    network = data.draw(networks(inputs=st.just(2)).filter(lambda network: network.output_size == 2))
    prop = Property.read(written(tmp_path_factory.getbasetemp(), data.draw(CONSTRAINTS.filter(lambda c: "Y" in c))))
    result = leo_core.compress(network, prop.box, tolerance=tolerance, solver="scipy")
    if prop.outputs > 2 or not np.isfinite(result.deviation):
        return
    moved = result.moved(prop)
    original = prop.moved([0.0, 0.0])
    for x in result.stability.box.sample(np.random.default_rng(0), 20):
        before, after = (net.evaluate_exact(x)[net.output].fractions() for net in (network, result.network))
        assert not holds(original, before) or holds(moved, after)


def test_equations_become_a_strip_and_simple_forms_stay_simple(tmp_path):
    def moved(constraint):
        return Property.read(written(tmp_path, constraint)).moved([0.5, 0.25]).splitlines()[-1]

    assert moved("(= Y_0 1.0)") == "(assert (and (<= Y_0 1.5) (>= Y_0 0.5)))"
    assert moved("(<= Y_0 3.25)") == "(assert (<= Y_0 3.75))"
    assert moved("(<= 3.25 Y_1)") == "(assert (<= 3.0 Y_1))"
    assert moved("(<= Y_0 Y_1)") == "(assert (<= (- Y_0 Y_1) 0.75))"
    assert moved("(not (<= Y_0 Y_1))") == "(assert (not (<= (- Y_0 Y_1) -0.75)))"


def test_a_number_is_moved_far_enough_however_it_is_read(tmp_path):
    prop = Property.read(written(tmp_path, "(or (<= Y_0 0.1) (>= Y_1 0.1))"))
    for apart in (1e-17, 1e-9, 1 / 3):
        _, low, high = tree(prop.moved([apart, apart]))[-1][1]
        assert Fraction(Decimal(low[2])) >= Fraction("0.1") + Fraction(apart)
        assert Fraction(float(low[2])) >= Fraction("0.1") + Fraction(apart)
        assert Fraction(Decimal(high[2])) <= Fraction("0.1") - Fraction(apart)
        assert Fraction(float(high[2])) <= Fraction("0.1") - Fraction(apart)


def test_a_softmax_behind_the_outputs_counts():
    signature = Signature(outputs=(Output("a", (2,), "softmax"), Output("b", (1,), "log_softmax")))
    assert apart_at(signature, 0.5) == [0.25, 0.25, 1.0]


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        ("(<= (* Y_0 Y_1) 1.0)", r"line 3: .*not linear"),
        ("(<= Y_0 z)", r"'z' is neither an output nor a number"),
        ("(=> (<= Y_0 1.0) (<= Y_1 1.0))", "no constraint on outputs that LEO can move"),
        ("(not (= Y_0 1.0))", "no constraint on outputs that LEO can move"),
        ("(<= Y_0 X_0)", "not a box constraint|ties inputs to outputs"),
        ("(<= Y_0)", "no constraint on outputs"),
        # other ways to write Y_0, which would stay as they are
        ("(and (<= |Y_0| 1.0) (<= Y_1 1.0))", r"'\|Y_0\|' is no name that LEO reads"),
        ("(and (<= Y_0000000000 1.0) (<= Y_1 1.0))", "'Y_0000000000' is no name that LEO reads"),
    ],
)
def test_what_cannot_be_moved_is_refused_by_line(constraint, message, tmp_path):
    with pytest.raises(DomainError, match=message):
        Property.read(written(tmp_path, constraint))


def test_properties_that_do_not_fit(tmp_path):
    with pytest.raises(DomainError, match="no such file"):
        Property.read(tmp_path / "none.vnnlib")
    prop = Property.read(written(tmp_path, "(<= Y_1 0.0)"))
    result = leo_core.compress(chain(2, 3, 1), (-1, 1))
    with pytest.raises(DomainError, match="Y_1, but the network has 1"):
        result.moved(prop)
    with pytest.raises(UsageError, match="not within the domain"):
        leo_core.compress(chain(2, 3, 2), (0, 1)).moved(prop)
    with pytest.raises(UsageError, match="word"):
        leo_core.compress(chain(2, 3, 2), (-1, 1), trust="solver").moved(prop)
    with pytest.raises(DomainError, match="no bound"):
        prop.moved([np.inf, 0.0])


def test_the_command(tmp_path):
    net = leo_core.convert(chain(2, 12, 12, 2, seed=1), tmp_path / "net.leo")
    box = written(tmp_path, "(<= Y_0 1.0)")
    text = box.read_text(encoding="utf-8")
    text = text.replace("(assert (<= X_0 1.0))", "(assert (or (<= X_0 0.5) (and (>= X_0 0.5) (<= X_0 1.0))))")
    box.write_text(text, encoding="utf-8")
    out, moved = tmp_path / "small.leo", tmp_path / "q.vnnlib"
    arguments = ["compress", net, out, "--property", box, "--property-out", moved, "--tolerance", "5"]

    def leo(*given):
        return CliRunner().invoke(main, [str(a) for a in given], catch_exceptions=False)

    done = leo(*arguments)
    assert done.exit_code == 0
    assert "2 input boxes" in done.stderr
    assert "property for" in done.stdout
    assert "(or (<= X_0 0.5)" in moved.read_text(encoding="utf-8")
    content = json.loads(leo(*arguments, "-q", "--json").stdout)
    assert content["property"] == str(moved)
    bound = Fraction(Decimal(tree(moved.read_text(encoding="utf-8"))[-1][1][2]))
    assert bound >= 1 + Fraction(content["deviation"])
    assert leo("compress", net, out).exit_code == 2
    assert leo("compress", net, out, "--domain", "-1,1", "--property-out", moved).exit_code == 2
    assert leo(*arguments, "--trust", "solver").exit_code == 2
    assert leo(*arguments[:-4], "--property-out", box).exit_code == 2
    assert leo(*arguments, "--domain", "0,1").exit_code == 1
    one = leo_core.convert(chain(1, 3, 1), tmp_path / "one.leo")
    assert leo("compress", one, out, "--property", box).exit_code == 1
