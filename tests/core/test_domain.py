from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leo_core.domain import Box, input_shape
from leo_core.errors import DomainError, OutputError


def written(tmp_path, content, name="d.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


@pytest.mark.parametrize("spec", ["-1,2", " -1 , 2 ", (-1, 2), ([-1, -1, -1], 2), (np.full(3, -1), np.full(3, 2.0)),
                                  {"lower": -1, "upper": [2, 2, 2]}, Box.uniform(-1, 2, 3)])  # fmt: skip
def test_many_ways_to_say_one_box(spec):
    assert Box.of(spec, 3) == Box.uniform(-1, 2, 3)


@pytest.mark.parametrize("content", [{"lower": -1, "upper": 2}, {"lower": [-1, -1, -1], "upper": [2, 2, 2]},
                                     {"lower": [[-1], [-1], [-1]], "upper": 2}])  # fmt: skip
def test_json(tmp_path, content):
    assert Box.of(written(tmp_path, content), 3) == Box.uniform(-1, 2, 3)


@pytest.mark.parametrize(("name", "content"), [("d.json", '{"lower": -1.5, "upper": 2}'), ("p.vnnlib", """
(declare-const X_0 Real) (assert (<= X_0 2)) (assert (>= X_0 (- 1.5))) (assert (<= Y_0 (- 1.0)))""")])  # fmt: skip
def test_files_may_begin_with_a_byte_order_mark(tmp_path, name, content):
    assert Box.of(written(tmp_path, "\ufeff" + content, name), 1) == Box.uniform(-1.5, 2, 1)


def test_the_box_around_examples_is_a_domain_and_is_kept(tmp_path):
    data = np.random.default_rng(0).normal(size=(40, 2, 3)).astype(np.float32)
    data[:, 0, 0] = 0.25
    np.save(tmp_path / "x.npy", data)
    np.savez(tmp_path / "x.npz", images=data, labels=np.arange(40))
    box = Box.of(str(tmp_path / "x.npy"), 6)
    assert np.array_equal(box.lower, data.reshape(40, 6).min(axis=0))
    assert np.array_equal(box.upper, data.reshape(40, 6).max(axis=0))
    assert box.notes[0].startswith("the domain is the box around 40 examples")
    assert box.notes[1].startswith("1 of 6 inputs are the same in all examples")
    assert Box.of(tmp_path / "x.npz", 6) == box
    assert Box.of(box.save(tmp_path / "box.json"), 6) == box, "to the last bit"
    wide = Box.from_data(data, margin=1 / 3)
    assert Box.of(wide.save(tmp_path / "box.json"), 6) == wide
    with pytest.raises(DomainError, match=r"box\.npz: a box is written to a file that ends in \.json"):
        box.save(tmp_path / "box.npz")
    with pytest.raises(OutputError, match=r"box\.json"):
        box.save(tmp_path / "missing" / "box.json")
    np.save(tmp_path / "nan.npy", np.full((2, 6), np.nan))
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:99])
    for name, said in (("x.npy", "takes 7 inputs"), ("x.npz", "examples × 7 inputs"), ("nan.npy", "not finite"),
                       ("damaged.npz", "cannot be read"), ("none.npy", "no such file")):  # fmt: skip
        with pytest.raises(DomainError, match=rf"{name}.*{said}"):
            Box.of(str(tmp_path / name), 6 if name == "nan.npy" else 7)


def test_the_shape_of_an_input():
    assert input_shape({"lower": 0, "upper": 1, "input_shape": [2, 3]}) == (2, 3)
    assert input_shape(([[0, 0]], 1)) == (1, 2)
    assert input_shape(([0, [1, 2]], 1)) is None
    assert input_shape((0, 1)) is input_shape("0,1") is input_shape(None) is None


def test_fixed_inputs_are_legal():
    box = Box([0, 1], [0, 2])
    assert box.contains([0, 1.5])
    assert len(box.corners()) == 2


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Box([0, np.nan], [1, 1]), "input 1: its lower bound is nan"),
        (lambda: Box([0, 0], [1, np.inf]), "input 1: its upper bound is inf"),
        (lambda: Box([0, 3], [1, 2]), "input 1: its lower bound 3 lies above its upper bound 2"),
        (lambda: Box([0], [1, 2]), "as many lower bounds"),
        (lambda: Box([], []), "as many"),
        (lambda: Box([-1.7e308], [1.7e308]), "too wide"),
        (lambda: Box.of(Box.uniform(0, 1, 2), 3), "has 2 inputs, the network 3"),
        (lambda: Box.of(([0, 0], [1, 1]), 3), "2 lower bounds for a network of 3"),
        (lambda: Box.of("0;1", 3), "LO,HI"),
        (lambda: Box.of("0,1,2", 3), "LO,HI"),
        (lambda: Box.of("zero,one", 3), "LO,HI"),
        (lambda: Box.of("nan,1", 3), "input 0"),
        (lambda: Box.of("2,1", 3), "input 0.*swap"),
        (lambda: Box.of(None, 3), "a domain is"),
        (lambda: Box.of("nowhere.json", 3), "nowhere.json: there is no such file"),
        (lambda: Box.of("nowhere.vnnlib", 3), "nowhere.vnnlib: there is no such file"),
        (lambda: Box.of((["0", 1, 2], 3), 3), "not a number"),
        (lambda: Box.of(([True, 1, 2], 3), 3), "not a number"),
        (lambda: Box.of({"lower": 0}, 3), '"lower": …, "upper"'),
        (lambda: Box.of({"lower": [0, 0], "upper": 1}, 3), "2 lower bounds for a network of 3"),
        (lambda: Box.of(([0, [1, 2]], 3), 3), "lists of one length"),
        (lambda: Box([0, [1, 2]], [3, 3]), "lists of one length"),
        (lambda: Box.of((0, 10**400), 3), "one of the upper bounds"),
    ],
)
def test_what_is_no_box_is_refused(build, said):
    with pytest.raises(DomainError, match=said):
        build()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not a valid JSON"),
        ("[1, 2]", '"lower"'),
        ('{"lower": 0}', '"lower"'),
        ('{"lower": 0, "lower": 1, "upper": 2}', "twice"),
        ('{"lower": [0, 0], "upper": [1, 1]}', "d.json.*2 lower bounds"),
        ('{"lower": NaN, "upper": 1}', "d.json.*input 0"),
        ('{"lower": [0, 0, 5], "upper": 1}', "d.json.*input 2"),
        ('{"lower": [[0, 0], [0]], "upper": 1}', "d.json.*lists of one length"),
        ('{"lower": null, "upper": 1}', "not a number"),
        ("[" * 100000, "JSON"),
    ],
)
def test_bad_json_files_are_named(tmp_path, content, said):
    with pytest.raises(DomainError, match=said):
        Box.of(written(tmp_path, content), 3)


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.longdouble])
def test_no_example_lies_outside_the_box_around_it(kind, tmp_path):
    """2⁵³ + 1 is no float64: rounding to the nearest would leave it out."""
    examples = np.array([[2**53 + 1, 2**53 + 3], [2**53 + 1, 2**53 + 1]], kind)
    np.save(tmp_path / "data.npy", examples)
    for box in (Box.from_data(examples), Box.of(str(tmp_path / "data.npy"), 2)):
        for low, high, column in zip(box.lower, box.upper, examples.T, strict=True):
            assert all(int(low) <= int(value) <= int(high) for value in column)


@pytest.mark.parametrize("data", [np.array([[1j, 2]]), np.array([["1", "2"]]), np.array([[None, 2]])])
def test_examples_that_are_no_numbers(data):
    with pytest.raises(DomainError, match="must hold numbers"):
        Box.from_data(data)


def test_from_data_says_what_it_guarantees():
    data = np.array([[0.0, 5.0], [1.0, 5.0]])
    box = Box.from_data(data, margin=0.5)
    assert box == Box([-0.5, 5.0], [1.5, 5.0])
    assert "that box only" in box.notes[0]
    with pytest.raises(DomainError, match="input 1"):
        Box.from_data([[0, np.nan]])
    with pytest.raises(DomainError, match="margin"):
        Box.from_data(data, margin=-1)
    with pytest.raises(DomainError, match="examples"):
        Box.from_data([])


VNNLIB = """
; a comment
(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(assert (>= X_0 -1.5))
(assert (<= X_0 2))
(assert (and (<= X_1 0.25) (<= -0.25 X_1)))
(assert (<= Y_0 3.5))
"""


def test_vnnlib(tmp_path):
    assert Box.of(written(tmp_path, VNNLIB, "p.vnnlib"), 2) == Box([-1.5, -0.25], [2, 0.25])


def test_vnnlib_disjuncts_give_their_hull_and_say_so(tmp_path):
    text = """(declare-const X_0 Real)(declare-const Y_0 Real)
    (assert (or (and (>= X_0 0) (<= X_0 1) (>= Y_0 0)) (and (>= X_0 3) (<= X_0 4) (>= Y_0 0))))"""
    box = Box.of(written(tmp_path, text, "p.vnnlib"), 1)
    assert box == Box([0], [4])
    assert any("hull" in note for note in box.notes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(declare-const X_0 Real)(assert (<= X_0 1))", "X_0|lower"),
        ("(declare-const X_0 Real)(declare-const X_1 Real)(assert (<= X_0 X_1))", "X_0|box"),
        ("(declare-const X_0 Real)(assert (>= X_0 1)", r"\(|parenthes|end"),
        ("(assert (>= X_5 1))(assert (<= X_5 2))", "X_5|X_0"),
        ("(declare-const X_0 Real)(assert (>= X_0 (- Y_0)))(assert (<= X_0 1))", "box"),
        ("(declare-const X_0 Real)(assert (>= (* 2 X_0) 1))(assert (<= X_0 1))", "X_0|box"),
        ("", "X_0|input"),
    ],
)
def test_vnnlib_without_a_box_is_refused(tmp_path, text, said):
    with pytest.raises(DomainError, match=said):
        Box.of(written(tmp_path, text, "p.vnnlib"), 1 if "X_1" not in text else 2)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1e6)), min_size=1, max_size=5), st.integers(0, 100))
def test_samples_and_corners_lie_inside(sides, seed):
    lower = np.array([low for low, _ in sides])
    box = Box(lower, lower + np.array([width for _, width in sides]))
    assert box.contains(box.sample(np.random.default_rng(seed), 20))
    assert box.contains(box.corners(64))
    assert box.contains(box.center)
