"""The kit that LEO ships, on this frontend: three lines. Then what is the format's own."""

import numpy as np
import pytest
from leo_frontend_rlv import leo_frontend, read_file, write_file

from leo_core.errors import FormatError, UnsupportedModelError
from leo_core.testing import frontend_kit

PLANET = """
Input inX0
Input inX1
ReLU relu1 1.0 -0.5 inX0 -0.5 inX1
Linear lina 0.2 0.3 relu1 0.4 inX1
Assert <= 0.0 1.0 inX0
"""


@pytest.mark.parametrize("check", frontend_kit.CHECKS, ids=lambda check: check.__name__)
def test_conformance(check, tmp_path):
    check(leo_frontend(), tmp_path)


def test_a_file_of_planets_own(tmp_path):
    path = tmp_path / "net.rlv"
    path.write_text(PLANET)
    found = read_file(path)
    assert found.notes[0].endswith("1 Assert lines are left aside; say the domain with --domain")
    x = np.array([[0.0, 1.0], [4.0, 0.5]])
    assert found.network.evaluate(x) == pytest.approx(np.array([[0.2 + 0.3 * 0.5 + 0.4], [0.2 + 0.4 * 0.5]]))
    write_file(found.network, tmp_path / "again.rlv")
    assert read_file(tmp_path / "again.rlv").network.digest == found.network.digest


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ReLU a", "no whole ReLU line"),
        ("ReLU a 1.0 0.5", "no whole ReLU line"),
        ("ReLU a 1.0 0.5 b", "there is no unit 'b' above this line"),
        ("ReLU inX0 1.0", "a name of its own"),
        ("ReLU a nan", "'nan' is no number"),
        ("ReLU a 0.0 1_0 inX0", "'1_0' is no number"),
        ("ReLU a 0.0 1.0 inX0 2.0 inX0", "reads one unit twice"),
        ("Softmax a inX0", "'Softmax' is none of"),
        ("Input a 1.0", "no whole Input line"),
    ],
)
def test_a_wrong_line_is_named(line, said, tmp_path):
    path = tmp_path / "net.rlv"
    path.write_text(f"{PLANET}{line}\n")
    with pytest.raises(FormatError, match=rf"net\.rlv, line 7: .*{said}"):
        read_file(path)


def test_what_is_not_read_is_listed(tmp_path):
    path = tmp_path / "net.rlv"
    path.write_text(f"{PLANET}MaxPool m1 inX0 relu1\nMaxPool m2 inX1 m1\n")
    with pytest.raises(UnsupportedModelError, match=r"(?s)'m1' is a MaxPool.*'m2' is a MaxPool"):
        read_file(path)
