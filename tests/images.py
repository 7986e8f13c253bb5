"""Rewriting networks on images, each result compared with what it came from over the rationals."""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from leo_core.bounds.noise import float_noise
from leo_core.domain import Box
from leo_core.network import Affine
from leo_core.rewrite import View, rewrite
from tests.deciding import decide


def compressed(network, tolerance=None):
    box = Box.uniform(0, 1, network.input_size)
    stability = decide(network, box)
    noise = float_noise(network, box)
    found = rewrite(View.of(network, stability), tolerance=64 * noise if tolerance is None else tolerance)
    assert found.deviation <= (64 * noise if tolerance is None else tolerance)
    rng = np.random.default_rng(5)
    for x in np.vstack([box.sample(rng, 3), box.corners(2)]):
        was, now = (net.evaluate_exact(x)[net.output].fractions() for net in (network, found.network))
        assert max(abs(a - b) for a, b in zip(was, now, strict=True)) <= Fraction(found.deviation)
    return found


def channels(network):
    return [node.shape[0] for node in network.nodes if isinstance(node, Affine) and node.shape]


WHERE = st.fixed_dictionaries(
    {
        "strides": st.sampled_from([1, 2, (2, 1)]),
        "low": st.sampled_from([0, 1, (1, 0)]),
        "high": st.sampled_from([0, 1, (0, 2)]),
        "dilations": st.sampled_from([1, (1, 2)]),
    }
)
