"""Random networks on images with structure planted that a rewrite ought to find, and how much of it must go."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from leo_core.network import Affine, Network
from leo_core.testing.sown import Array, Sown, active, constant, dead, dependent, parallel, unread

KINDS = ("dead", "constant", "unread", "parallel", "dependent")


@final
@dataclass(frozen=True)
class Planted:
    """A network, what was planted in it, and what it must not be wider than once it is rewritten.

    Attributes
    ----------
    plants:
        Of each kind, which channels of the first convolution.
    around:
        In words, what is between the convolution and its reader, and how that reads.
    most:
        By convolution, the most channels that may be left; one that is gone has none.
    """

    network: Network
    plants: Mapping[str, tuple[int, ...]]
    around: str
    most: Mapping[str, int]

    def left(self, network: Network) -> dict[str, int]:
        """How many channels of each of those convolutions a network has."""
        nodes = {node.name: node for node in network.nodes if isinstance(node, Affine)}
        return {name: nodes[name].groups if name in nodes else 0 for name in self.most}


def planted(seed: int) -> Planted:
    """The network of a seed: ten channels, up to seven of them planted, on images of 8 × 8.

    One that gives 0 whatever it is given, so that nothing may be rounded, is drawn again.
    """
    attempt = 0
    while not _gives_anything((found := _drawn(seed, attempt)).network):
        attempt += 1
    return found


def _gives_anything(network: Network) -> bool:
    return bool(network.evaluate(np.random.default_rng(0).random((8, network.input_size))).any())


def _drawn(seed: int, attempt: int) -> Planted:
    rng = np.random.default_rng([seed, 17, attempt] if attempt else [seed, 17])
    between = str(rng.choice(["", "max", "average", "norm", "depthwise", "residual"]))
    kinds = [kind for kind in KINDS if rng.random() < 0.6] or [str(rng.choice(KINDS))]
    groups = int(rng.choice([1, 1, 2])) if between in ("", "max", "average") else 1
    where = _geometry(rng)
    padded = any(np.max(where[side]) > 0 for side in ("low", "high"))
    impossible = {"dependent"} if between in ("max", "norm", "depthwise") or groups > 1 else set()
    if groups > 1 and padded:
        impossible.add("constant")  # each group would need a carrier
    plants = {kind: _CHANNELS[kind] for kind in kinds if kind not in impossible} or {"dead": _CHANNELS["dead"]}
    sown = Sown(seed, (int(rng.integers(1, 4)), 8, 8))
    writers = _written(sown, rng, between, plants)
    sown.convolve(int(rng.choice([2, 4])), 2, groups=groups, **where)
    for channel in plants.get("unread", ()):
        sown.change(_unread_of_its_group(channel, groups))
    most = {name: _left(plants, between, groups, padded=padded) for name in writers}
    if between == "residual":  # the branch has pads, and reads what the last convolution does not
        others = {kind: channels for kind, channels in plants.items() if kind != "unread"}
        most = {
            writers[0]: _left(others, between, groups, padded=True),
            writers[1]: _left(plants, between, groups, padded=padded or "constant" not in plants),
        }
    around = f"{between or 'nothing'} between, {groups} group(s), {where}"
    return Planted(sown.network(), plants, around, most)


def _left(plants: Mapping[str, tuple[int, ...]], between: str, groups: int, *, padded: bool) -> int:
    """How many channels may be left, where a reader has pads or none."""
    gone = {channel for channels in plants.values() for channel in channels}
    stays = 0
    if padded and ("constant" in plants or (between == "depthwise" and "dead" in plants)):
        stays = 1  # it carries the others, and what the dependent ones are shifted by
    elif padded and "dependent" in plants:
        stays = 1 if between == "" else len(plants["dependent"])
    size = _WIDTH // groups
    each = [sum(channel not in gone for channel in range(g * size, (g + 1) * size)) for g in range(groups)]
    return max(each) * groups + stays


_WIDTH = 10
#: Where the plants are: parallel to channel 0, dependent on channels 0 and 8.
_CHANNELS = {"dead": (1,), "constant": (2, 6), "unread": (4,), "parallel": (3,), "dependent": (5, 7)}


def _geometry(rng: np.random.Generator) -> dict[str, Any]:
    choices: dict[str, list[Any]] = {
        "strides": [1, 2, (2, 1)],
        "low": [0, 1, (1, 0)],
        "high": [0, 1, (0, 2)],
        "dilations": [1, (1, 2)],
    }
    return {key: values[rng.integers(len(values))] for key, values in choices.items()}


def _written(sown: Sown, rng: np.random.Generator, between: str, plants: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The layers before the reader; the convolutions whose channels must go."""
    alike = between in ("norm", "depthwise")  # there a parallel filter is the same one, so that its norm can be, too
    factor, value = 1.0 if alike else float(rng.choice([1.0, 0.5, 0.7, 1.9])), float(rng.uniform(0.1, 2.0))
    pads = int(rng.integers(2))
    sown.convolve(_WIDTH, 3, low=pads, high=pads, relu=not alike)
    if "dependent" in plants:
        sown.change(_depends).change(active())
    _plant(sown, plants, factor, value)
    names = [sown.last]
    if between == "max":
        sown.pooled()
    if between == "average":
        sown.averaged()
    if alike:
        keys = ("gamma", "beta", "mean", "variance")
        numbers = {key: sown.rng.uniform(0.5, 1.5, _WIDTH).astype(np.float32) for key in keys}
        for array in numbers.values():
            array[3] = array[0]
        sown.with_norm(numbers).rectify()
    if between == "depthwise":
        sown.convolve(_WIDTH, 3, low=1, high=1, groups=_WIDTH).change(_like_the_first)
        sown.change(_centred(plants.get("constant", ())))  # the other taps see pads, and the value would vary
        names.append(sown.last)
    if between == "residual":
        skip = sown.at
        sown.convolve(3, 3, low=1, high=1).convolve(_WIDTH, 1, relu=False)
        if "dependent" in plants:
            sown.change(_nowhere_negative).change(_depends)
        _plant(sown, plants, factor, value)
        names.append(sown.last)
        sown.added(skip).rectify()
    return names


def _plant(sown: Sown, plants: Mapping[str, tuple[int, ...]], factor: float, value: float) -> None:
    """What is planted in the last convolution, but for what depends on others."""
    if "parallel" in plants:
        sown.change(parallel(3, 0, factor))
    for position, channel in enumerate(plants.get("constant", ())):
        sown.change(constant(channel, value * (position + 1)))
    for channel in plants.get("dead", ()):
        sown.change(dead(channel))


def _depends(kernel: Array, bias: Array) -> None:
    dependent(5, {0: 1, 8: -0.5})(kernel, bias)
    dependent(7, {0: 0.25, 8: 1})(kernel, bias)


def _nowhere_negative(kernel: Array, bias: Array) -> None:
    """A branch that adds nothing below zero, even where a channel is one less half of another."""
    kernel[:], bias[:] = np.abs(kernel), np.abs(bias)
    kernel[8] = np.minimum(kernel[0], kernel[8])


def _like_the_first(kernel: Array, bias: Array) -> None:
    kernel[3], bias[3] = 0.5 * kernel[0], 0.5 * bias[0]


def _centred(channels: tuple[int, ...]) -> Callable[[Array, Array], None]:
    def edit(kernel: Array, _bias: Array) -> None:
        for channel in channels:
            centre = kernel[channel, :, 1, 1].copy()
            kernel[channel] = 0
            kernel[channel, :, 1, 1] = centre

    return edit


def _unread_of_its_group(channel: int, groups: int) -> Callable[[Array, Array], None]:
    def edit(kernel: Array, bias: Array) -> None:
        group, rows = channel // (_WIDTH // groups), len(bias) // groups
        unread(channel % (_WIDTH // groups))(kernel[group * rows : (group + 1) * rows], bias)

    return edit
