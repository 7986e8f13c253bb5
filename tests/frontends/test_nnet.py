from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import leo_core
from leo_core.bounds.imported import import_deviation
from leo_core.bounds.interval import bound_network
from leo_core.domain import Box
from leo_core.errors import FormatError, UnsupportedModelError
from leo_core.testing.networks import chain, leaky, residual
from leo_frontends.nnet import read_file, write_file

GOOD = """// a comment
2,2,1,2,
2,2,1,
0,
-1.0,-1.0,
1.0,1.0,
0.5,-0.25,10.0,
2.0,4.0,3.0,
1.0,0.5,
-1.0,2.0,
0.25,
0.0,
1.0,-1.0,
0.5,
"""


def read(tmp_path, text):
    path = tmp_path / "n.nnet"
    path.write_text(text)
    return read_file(path)


def test_normalisation_is_part_of_the_network(tmp_path):
    network = read(tmp_path, GOOD).network
    x = np.array([0.75, -1.5])
    n = (x - [0.5, -0.25]) / [2, 4]
    h = np.maximum(np.array([[1, 0.5], [-1, 2]]) @ n + [0.25, 0], 0)
    assert network.evaluate(x) == pytest.approx([(h[0] - h[1] + 0.5) * 3 + 10])
    assert network.widths == (2, 2, 1)


def scaled(means, ranges):
    header = ",".join(map(repr, means)), ",".join(map(repr, ranges))
    return GOOD.replace("0.5,-0.25,10.0", header[0] + ",10.0").replace("2.0,4.0,3.0", header[1] + ",3.0")


NORMALISED = [([0.1, -7.3], [3.0, 7.0]), ([0.0, 0.0], [3.0, 60261.0]), ([19791.091, 0.0], [1.0, 1.0]),
              ([1e-3, 2.0], [0.5, -6.28318530717959]), ([0.3, 0.1], [2.0, 1e-9])]  # fmt: skip


@pytest.mark.parametrize(("means", "ranges"), NORMALISED)
def test_reading_is_exact_to_twice_the_digits_of_a_float_and_what_is_written_reads_back(tmp_path, means, ranges):
    imported = read(tmp_path, scaled(means, ranges))
    network, box = imported.network, Box([-5.0, -3.0], [4.0, 9.0])
    off = import_deviation(network, bound_network(network, box), imported.rounding)
    assert off < 1e-17
    x = [Fraction(1, 3), Fraction(-2, 7)]
    n = [(v - Fraction(m)) / Fraction(r) for v, m, r in zip(x, means, ranges, strict=True)]
    h = [max(n[0] + Fraction(0.5) * n[1] + Fraction(0.25), 0), max(2 * n[1] - n[0], 0)]
    meant = (h[0] - h[1] + Fraction(0.5)) * 3 + 10
    got = network.evaluate_exact(np.array(x, dtype=object))[network.output].fractions()[0]
    assert abs(got - meant) <= Fraction(off)
    write_file(network, tmp_path / "again.nnet")
    assert read_file(tmp_path / "again.nnet").network.digest == network.digest


@pytest.mark.parametrize("suffix", ["onnx", "leo", "nnet"])
def test_the_float_tolerance_holds_through_the_front_door(tmp_path, suffix):
    (tmp_path / "n.nnet").write_text(scaled([0.1, -7.3], [3.0, 7.0]))
    result = leo_core.compress(tmp_path / "n.nnet", "-1,1")
    assert result.import_deviation < 1e-25
    assert not any("reading the model" in note for note in result.notes)
    result.export(tmp_path / f"m.{suffix}")
    found = leo_core.verify(tmp_path / "n.nnet", tmp_path / f"m.{suffix}", "-1,1", time_limit=2)
    assert found.lower <= 1e-13


def test_a_range_whose_reciprocal_has_no_normal_float_is_refused(tmp_path):
    for value in ("1e-310", "1e300"):
        with pytest.raises(FormatError, match="dividing by the ranges"):
            read(tmp_path, GOOD.replace("2.0,4.0,3.0", f"2.0,{value},3.0"))


def test_ranges_that_are_powers_of_two_need_no_import_deviation(tmp_path):
    assert not read(tmp_path, GOOD).rounding
    assert read(tmp_path, GOOD.replace("2.0,4.0,3.0", "3.0,4.0,3.0")).rounding


@given(
    means=st.lists(st.sampled_from([0.0, 0.1, -7.25, 1e4, 0.3]), min_size=2, max_size=2),
    ranges=st.lists(st.sampled_from([1.0, 2.0, 3.0, 0.1, 60261.0, -7.0]), min_size=2, max_size=2),
    x=st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=2),
)
def test_a_normalisation_is_read_to_a_hundred_bits_and_written_as_it_was(tmp_path_factory, means, ranges, x):
    folder = tmp_path_factory.mktemp("n")
    text = GOOD.replace("0.5,-0.25,10.0", f"{means[0]},{means[1]},10.0")
    imported = read(folder, text.replace("2.0,4.0,3.0", f"{ranges[0]},{ranges[1]},3.0"))
    network = imported.network
    n = [(Fraction(v) - Fraction(m)) / Fraction(r) for v, m, r in zip(x, means, ranges, strict=True)]
    h = [max(n[0] + n[1] / 2 + Fraction(1, 4), 0), max(-n[0] + 2 * n[1], 0)]
    exact = (h[0] - h[1] + Fraction(1, 2)) * 3 + 10
    (value,) = network.evaluate_exact(np.array(x))[network.output].fractions()
    assert abs(value - exact) <= Fraction(2) ** -100 * (1 + max(map(abs, n)))
    write_file(network, folder / "again.nnet")
    assert read_file(folder / "again.nnet").network == network
    kept = (folder / "again.nnet").read_text().splitlines()[6:8]
    assert [[float(v) for v in line.split(",") if v] for line in kept] == [[*means, 10.0], [*ranges, 3.0]]


def test_a_file_comes_back_through_its_own_format(tmp_path):
    network = read(tmp_path, GOOD).network
    write_file(network, tmp_path / "again.nnet")
    again = read_file(tmp_path / "again.nnet").network
    for x in ([0.3, 0.7], [-1, 1]):
        want = network.evaluate_exact(np.array(x))[network.output].fractions()
        assert again.evaluate_exact(np.array(x))[again.output].fractions() == want


@pytest.mark.parametrize("make", [residual, leaky, lambda: chain(2, 3, relu_last=True)])
def test_what_the_format_cannot_hold_is_refused(tmp_path, make):
    with pytest.raises(UnsupportedModelError, match=r"\.onnx"):
        write_file(make(), tmp_path / "n.nnet")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t[: len(t) // 2], "truncated|ends before"),
        (lambda t: t.replace("2,2,1,\n", "2,3,1,\n", 1), "widths|numbers"),
        (lambda t: t.replace("0.25,\n", "nan,\n"), "line 11.*NaN"),
        (lambda t: t.replace("0.25,\n", "abc,\n"), "line 11.*'abc,'"),
        (lambda t: t.replace("1.0,0.5,\n", "1.0,\n"), "row 0.*need 2 numbers"),
        (lambda t: t.replace("2.0,4.0,3.0", "2.0,0.0,3.0"), "range is zero"),
        (lambda t: t.replace("2.0,4.0,3.0", "1e-320,4.0,3.0"), "leaves what float64 can hold"),
        (lambda t: t.replace("2,2,1,2,", "2.5,2,1,2,"), "whole"),
        (lambda t: t.replace("2,2,1,2,", "99999999999,2,1,2,"), "whole|widths"),
        (lambda t: "", "ends before"),
    ],
)
def test_damaged_files_are_refused_with_the_line(tmp_path, change, said):
    with pytest.raises(FormatError, match=f"n.nnet.*({said})"):
        read(tmp_path, change(GOOD))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("0.5,-0.25,10.0", "0.5,-0.25,10.0,3.0"),
            "line 7: the means are 4 numbers for 2 inputs and the output, expected",
        ),
        (("0.5,-0.25,10.0", "0.5,-0.25"), "line 7: the means are 2 numbers for 2 inputs and the output, expected 3"),
        (("2.0,4.0,3.0", "2.0,4.0,3.0,1.0"), "line 8: the ranges are 4 numbers"),
        (("-1.0,-1.0,", "-1.0,-1.0,-1.0,0,"), "line 5: the input minima are 4 numbers for 2 inputs, expected 2"),
        (("2.0,4.0,3.0", "2.0,4.0"), "line 8: the ranges are 2 numbers for 2 inputs and the output, expected 3"),
        (("1.0,1.0,\n0.5", "1.0,\n0.5"), "line 6: the input maxima are 1 numbers for 2 inputs, expected 2"),
        (("\n0,\n", "\n1,\n"), "line 4: the flag is 1; some readers mirror"),
        (("1.0,0.5,", "1.0,,0.5,"), "line 9: '1.0,,0.5,' is not numbers"),
        (("1.0,0.5,", "1_0.0,0.5,"), "line 9: '1_0.0,0.5,' is not numbers"),
        (("1.0,0.5,", "1.0,0.5,0.5,"), "line 9: layer 1, row 0 has 3 numbers, expected 2"),
    ],
)
def test_a_header_that_readers_take_differently_is_refused(tmp_path, change, said):
    changed = GOOD.replace(*change, 1)
    assert changed != GOOD
    with pytest.raises(FormatError, match=f"n.nnet, {re.escape(said)}"):
        read(tmp_path, changed)


def test_a_line_behind_the_last_layer_is_told_and_not_read(tmp_path):
    imported = read(tmp_path, GOOD + ",\n// the end\n7.0,\n8.0\n")
    assert imported.network == read(tmp_path, GOOD).network
    (note,) = imported.notes
    assert note.endswith("line 17: '7.0,' stands after the last layer and is not read")
    assert read(tmp_path, GOOD + ",\n// the end\n").notes == ()


@pytest.mark.parametrize(
    "change",
    [
        ("-1.0,-1.0,", "-1.0,-1.0,-5.0"),
        ("1.0,1.0,\n0.5", "1.0,1.0,9.0,\n0.5"),
        ("// a comment\n", ""),
        ("2,2,1,2,", "2,2,1,"),
    ],
)
def test_headers_that_mean_the_same_are_read(tmp_path, change):
    changed = GOOD.replace(*change, 1)
    assert changed != GOOD
    assert read(tmp_path, changed).network == read(tmp_path, GOOD).network


def test_a_neutral_normalisation_of_the_output_may_be_missing(tmp_path):
    neutral = GOOD.replace("0.5,-0.25,10.0", "0.0,0.0,0.0").replace("2.0,4.0,3.0", "1.0,1.0,1.0")
    shorter = neutral.replace("0.0,0.0,0.0", "0.0,0.0").replace("1.0,1.0,1.0", "1.0,1.0")
    assert read(tmp_path, shorter).network == read(tmp_path, neutral).network


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + GOOD.encode(),
        b"\xef\xbb\xbf" + GOOD.replace("// a comment\n", "").encode(),
        GOOD.replace("a comment", "gr\xf6\xdfer \x85 als").encode("latin-1"),
        GOOD.replace("a comment", "größer \u2028 als").encode(),
        GOOD.replace("\n", "\r\n").encode(),
        GOOD.encode("utf-16"),
        GOOD.rstrip().encode(),
        re.sub(",\n", "\n", GOOD).encode(),
    ],
)
def test_any_encoding_of_the_comments_is_the_same_network(tmp_path, data):
    (tmp_path / "m.nnet").write_bytes(data)
    assert read_file(tmp_path / "m.nnet").network == read(tmp_path, GOOD).network


def test_what_is_no_text_is_refused(tmp_path):
    path = tmp_path / "n.nnet"
    for data, said in [(b"\0\1\2", "text"), (b"version https://git-lfs.github.com/spec/v1\noid x\n", "git lfs pull")]:
        path.write_bytes(data)
        with pytest.raises(FormatError, match=said):
            read_file(path)
