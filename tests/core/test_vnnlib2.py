"""VNN-LIB 2.0: what is read of it, exactly, and that all else is refused by its line."""

from __future__ import annotations

import gzip
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import leo_core
from leo_core.domain import Box
from leo_core.errors import DomainError, UsageError
from leo_core.testing.networks import chain
from leo_core.vnnlib2 import is_version_2, names_two, read_pair

DECLARED = """; Epsilon equivalence, as in the competition's category
(vnnlib-version <2.0>)
(declare-network f
    (declare-input X_f float32 [1, 2])
    (declare-output Y_f float32 [1, 2])
)
(declare-network g
    (isomorphic-to f)
    (declare-input X_g float32 [1, 2])
    (declare-output Y_g float32 [1, 2])
)
"""
INPUTS = """(assert (and (<= X_f[0,0] 0.679857769) (>= X_f[0,0] 0.6)))
(assert (and (<= X_f [0, 1] 0.5) (>= X_g[0,1] (- 0.5))))
(assert (== X_f[0,0] X_g[0,0]))
(assert (== (- X_g[0,1] X_f[0,1]) 0.0))
"""
OUTPUTS = """(assert (or
 (or (> Y_g[0,0] (+ Y_f[0,0] 0.05)) (< Y_g[0,0] (- Y_f[0,0] 0.05)))
 (or (> Y_g[0,1] (+ Y_f[0,1] 0.1)) (< Y_g[0,1] (- Y_f[0,1] 1e-1)))
))
"""
PAIR = DECLARED + INPUTS + OUTPUTS
ONE = ([("y", 2)],) * 2


def test_two_networks():
    found = read_pair(PAIR, "p", 2, ONE)
    assert found.lower.tolist() == [0.6, -0.5]
    assert found.upper.tolist() == [0.679857769, 0.5]
    assert found.within.limits == (Fraction(1, 20), Fraction(1, 10))
    assert found.within.strict == (False, False)
    assert not found.same
    assert names_two(PAIR, "p")
    assert is_version_2(PAIR)


@pytest.mark.parametrize(
    ("outputs", "limits", "strict"),
    [
        ("(or (>= Y_f[0,0] (+ Y_g[0,0] 1.5)) (>= (- Y_g[0,0] Y_f[0,0]) 1.5))", (Fraction(3, 2), None), True),
        ("(or (> (* 2.0 Y_f[0,0]) (+ (* Y_g[0,0] 2.0) 3.0)) (and (< (- Y_f[0,0] Y_g[0,0]) (- 1.5))))",
         (Fraction(3, 2), None), False),
        ("(or (< (+ Y_f[0,0] (* -1.0 Y_g[0,0]) -1.0) -2.5) (> Y_f[0,0] (+ Y_g[0,0] 0.5 1.0)))", (Fraction(3, 2), None),
         False),
        ("(or (> Y_f[0,0] Y_g[0,0]) (> Y_g[0,0] Y_f[0,0]))", (Fraction(0), None), False),
        # the narrower of two ways to be apart says nothing
        ("(or (> Y_f[0,0] Y_g[0,0]) (> Y_g[0,0] Y_f[0,0]) (>= Y_f[0,0] (+ Y_g[0,0] 7.0)))", (Fraction(0), None), False),
    ],
)  # fmt: skip
def test_ways_to_say_that_outputs_are_apart(outputs, limits, strict):
    within = read_pair(f"{DECLARED}{INPUTS}(assert {outputs})", "p", 2, ONE).within
    assert within.limits == limits
    assert within.strict[0] is strict


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.replace("(assert (== X_f[0,0] X_g[0,0]))\n", ""), "line 7.*input 0 .* not tied"),
        (lambda t: t.replace("(== X_f[0,0] X_g[0,0])", "(>= X_f[0,0] X_g[0,0])"), "line 14: not a bound"),
        (lambda t: t.replace("(== X_f[0,0] X_g[0,0])", "(== X_f[0,0] (+ X_g[0,0] 0.1))"), "line 14: not a bound"),
        (lambda t: t.replace("(== X_f[0,0] X_g[0,0])", "(== X_f[0,0] X_g[0,1])"), "line 14: not a bound"),
        (lambda t: t.replace("(or (> Y_g[0,0]", "(and (> Y_g[0,0]"), "line 17.*at once"),
        (lambda t: t.replace("(assert (or", "(assert (and"), "line 18: 2 conditions"),
        (lambda t: t.replace("(< Y_g[0,0] (- Y_f[0,0] 0.05))", ""), "output 0 is bounded to one side"),
        (lambda t: t.replace("(- Y_f[0,0] 0.05)", "(- Y_f[0,0] 0.06)"), "by two ε"),
        (lambda t: t.replace("(> Y_g[0,0] (+ Y_f[0,0]", "(> Y_g[0,0] (+ Y_f[0,1]"), "line 17: not of the form"),
        (lambda t: t.replace("(> Y_g[0,0] (+ Y_f[0,0] 0.05))", "(> Y_g[0,0] 0.05)"), "line 17: not of the form"),
        (lambda t: t.replace("(+ Y_f[0,0] 0.05)", "(+ Y_f[0,0] -0.05)"), "line 17: not of the form"),
        (lambda t: t.replace("(+ Y_f[0,0] 0.05)", "(* Y_f[0,0] 1.05)"), "line 17: not of the form"),
        (lambda t: t.replace("(+ Y_f[0,0] 0.05)", "(* Y_f[0,0] Y_g[0,0])"), "line 17.*no linear term"),
        (lambda t: t.replace("(> Y_g[0,0] (+", "(== Y_g[0,0] (+"), "line 17.*at once"),
        (lambda t: t.replace("(> Y_g[0,0] (+ Y_f[0,0] 0.05))", "(> X_g[0,0] (+ Y_f[0,0] 0.05))"), "neither a bound"),
        (lambda t: t.replace("(<= X_f[0,0] 0.679857769)", "(< X_f[0,0] 0.679857769)"), "line 12: not a bound"),
        (lambda t: t.replace("(<= X_f[0,0] 0.679857769)", "(or (<= X_f[0,0] 0.5) (<= X_f[0,0] 0.6))"), "line 12"),
        (lambda t: t.replace("(<= X_f[0,0] 0.679857769)", "(<= X_f[0,2] 0.5)"), "line 12.*outside the shape"),
        (lambda t: t.replace("(<= X_f[0,0] 0.679857769)", "(<= X_f[0] 0.5)"), "line 12.*outside the shape"),
        (lambda t: t.replace("(<= X_f[0,0] 0.679857769)", "(<= Z[0,0] 0.5)"), "line 12.*no value of a network"),
        (lambda t: t.replace("0.679857769", "0.67.9"), "line 12.*no number"),
        (lambda t: t.replace("0.679857769", "1" + "0" * 5000), "line 12.*no number"),
        (lambda t: t.replace("0.679857769", "1e400"), "line 12: a bound that no float64 holds"),
        (lambda t: t.replace("(<= X_f[0,0] 0.679857769) ", ""), "line 12|input 0 has no"),
        (lambda t: t.replace("(isomorphic-to f)", "(isomorphic-to h)"), "line 8.*no network declared"),
        (lambda t: t.replace("(isomorphic-to f)", '(declare-hidden H float32 [3] "h")'), "line 8.*not read"),
        (lambda t: t.replace("X_g float32 [1, 2]", "X_f float32 [1, 2]"), "line 9.*name of its own"),
        (lambda t: t.replace("X_g float32 [1, 2]", "X_g float32 [1, 3]"), "line 7.*3 inputs, the network has 2"),
        (lambda t: t.replace("X_f float32", "X_f int8"), "line 4: 'X_f' is of type int8"),
        (lambda t: t.replace("<2.0>", "<3.0>"), "line 2.*it reads <2.0>"),
        (lambda t: t.replace("(assert (or", "(assume (or"), "line 16.*no command"),
        (lambda t: t + ")", "line 20: a '\\)' too many"),
        (lambda t: t[:-4], "never closed"),
        (lambda t: t + "stray", "line 20: 'stray' stands outside"),
        (lambda t: t.replace("(assert (or", "(assert ((or)"), "no comparison"),
        (lambda t: t + "(assert " + "(and " * 5000 + "(<= 1 2)" + ")" * 5001, "line 20: nested too deep"),
        (lambda t: t + "(assert (<= 1.0 2.0))", "line 20: neither"),
    ],
)
def test_all_else_is_refused_by_line(change, said):
    text = change(PAIR)
    assert text != PAIR
    with pytest.raises(DomainError, match=said):
        read_pair(text, "p.vnnlib", 2, ONE)


@pytest.mark.parametrize("names", ["ab", "ba", ""])
def test_several_outputs_are_those_of_the_models_in_order(names):
    """What a file says of the output 'b' is not said of the one that the models give first."""
    text = PAIR
    for network in "fg":
        outputs = "".join(
            f"(declare-output Y{k}_{network} float32 [1]{f' {name!r}' if names else ''})".replace("'", '"')
            for k, name in enumerate(names or "  ")
        )
        text = text.replace(f"(declare-output Y_{network} float32 [1, 2])", outputs)
        text = text.replace(f"Y_{network}[0,0]", f"Y0_{network}[0]").replace(f"Y_{network}[0,1]", f"Y1_{network}[0]")
    outputs = [("a", 1), ("b", 1)]
    if names == "ba":
        with pytest.raises(DomainError, match=r"line 3.*in another order: these are 'a' of 1, 'b' of 1"):
            read_pair(text, "p.vnnlib", 2, [outputs, outputs])
    else:
        within = read_pair(text, "p.vnnlib", 2, [outputs, outputs]).within
        assert within.limits == (Fraction(1, 20), Fraction(1, 10))
    with pytest.raises(DomainError, match=r"line 3.*of 2"):
        read_pair(text, "p.vnnlib", 2, ONE)


def test_limits_beyond_the_floats():
    within = read_pair(PAIR.replace("0.05", "1e400"), "p", 2, ONE).within
    assert within.limits[0] == 10**400
    assert within.numbers[0] == max(within.provable)
    assert str(within) == "1.79769e+308, 0.1 by output"


@given(st.text(alphabet='()[]<>=+-*;"XYfg_01.,e \nandorsertcl', max_size=80), st.integers(0, len(PAIR)))
def test_damaged_files_are_read_or_refused(noise, at):
    try:
        found = read_pair(PAIR[:at] + noise + PAIR[at:], "p", 2, ONE)
    except DomainError:
        return
    assert found.lower.shape == found.upper.shape == (2,)  # reversed ends are refused where a box is made of them
    assert len(found.within.limits) == 2


SINGLE = """(vnnlib-version <2.0>)
(declare-network N (declare-input X Real [2,1] "in") (declare-output Y Real []))
(assert (>= X[0,0] -1)) (assert (<= X[0,0] (* 2.0 0.5)))
(assert (== X[1,0] 0.25))
(assert (or (>= Y 0.0) (<= Y -1.0)))
"""


@pytest.mark.parametrize("name", ["p.vnnlib", "p.vnnlib.gz", "P.VNNLIB"])
def test_the_box_of_one_network(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(gzip.compress(SINGLE.encode()) if name.endswith("gz") else SINGLE.encode())
    box = Box.of(path, 2)
    assert box == Box([-1, 0.25], [1, 0.25])
    assert "outputs" in box.notes[0]


def test_several_boxes_give_their_hull():
    text = SINGLE.replace("(assert (== X[1,0] 0.25))", "(assert (or (and (>= X[1,0] 0) (<= X[1,0] 1)) (== X[1,0] 4)))")
    lower, upper = zip(*leo_core.vnnlib2.read_input_boxes(text, "p", 2)[0], strict=True)
    assert np.array(lower).tolist() == [[-1, 0], [-1, 4]]
    assert np.array(upper).tolist() == [[1, 1], [1, 4]]


def test_packed_files_that_are_none(tmp_path):
    path = tmp_path / "p.vnnlib.gz"
    for content in (b"(assert", gzip.compress(b"(assert")[:-9], b""):
        path.write_bytes(content)
        with pytest.raises(DomainError, match=r"p\.vnnlib\.gz"):
            Box.of(path, 2)
    with pytest.raises(DomainError, match="no such file"):
        Box.of(tmp_path / "none.vnnlib.gz", 2)


def test_two_networks_where_one_belongs(tmp_path):
    path = tmp_path / "p.vnnlib"
    path.write_text(PAIR)
    with pytest.raises(DomainError, match="line 7: it is about 2 networks; only 'verify'"):
        Box.of(path, 2)


def test_verify_asks_what_a_file_says(tmp_path):
    path = tmp_path / "p.vnnlib"
    path.write_text(PAIR)
    first, second = chain(2, 3, 2, seed=1), chain(2, 3, 2, seed=2)
    found = leo_core.verify(first, second, path)
    assert found.within is False
    assert found.asked.limits == (Fraction(1, 20), Fraction(1, 10))
    assert Box([0.6, -0.5], [0.679857769, 0.5]).contains(found.witness)
    with pytest.raises(UsageError, match="leave out within"):
        leo_core.verify(first, second, path, within=1)
    path.write_text(PAIR.replace("isomorphic-to", "equal-to"))
    assert leo_core.verify(first, first, path).within is True
    with pytest.raises(UsageError, match="both networks equal, but"):
        leo_core.verify(first, second, path)


def test_the_package_of_the_standard_reads_the_same(tmp_path):
    vnnlib = pytest.importorskip("vnnlib", reason="the package vnnlib is not installed")
    for text in (PAIR.replace("1e-1", "0.1"), SINGLE.replace('"in"', "").replace(" -1)", " -1.0)")):
        query = vnnlib.parse_query_string(text.replace("Real", "real"))
        ours = leo_core.vnnlib2._Query(text, "p")
        assert [net.name for net in query.networks] == [net.name for net in ours.networks]
        theirs = [clause for said in query.assertions for clause in _terms(said.expr)]
        names = [dict(zip("XY", (net.inputs[0][0], net.outputs[0][0]), strict=True)) for net in ours.networks]
        mine = [
            {names[number][kind]: float(factor) for (number, kind, _), factor in atom.terms.items()}
            for formula in ours.conjuncts
            for atom in leo_core.vnnlib2._atoms(formula)
        ]
        assert len(theirs) == len(mine)
        for one, other in zip(theirs, mine, strict=True):
            assert one.keys() == other.keys()
            assert {abs(value) for value in one.values()} == {abs(value) for value in other.values()}


def _terms(expression):
    """(name → coefficient) of each comparison, left minus right."""
    for part in getattr(expression, "args", [expression]):
        if hasattr(part, "args"):
            yield from _terms(part)
            continue
        total = {}
        for side, sign in ((part.lhs, 1), (part.rhs, -1)):
            for term in side.to_linear_expr().terms:
                name = term.var_name.split("[")[0]
                total[name] = total.get(name, 0) + sign * term.coeff
        yield total


def test_what_json_says(tmp_path):
    assert json.loads(json.dumps(read_pair(PAIR, "p", 2, ONE).within.numbers)) == [0.05, 0.1]
