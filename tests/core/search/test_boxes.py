"""The order in which boxes are worked on: broad over the whole box, then deep, from where a claim nearly failed."""

import numpy as np

from leo_core.bounds.interval import bound_network
from leo_core.domain import Box
from leo_core.execution.budget import Budget
from leo_core.execution.executor import Here
from leo_core.search import boxes
from leo_core.search.evidence import WHOLE
from leo_core.testing.networks import chain

NETWORK = chain(4, 30, 30, 2, seed=3)
BOX = Box.uniform(-1, 1, 4)
CLAIMS = [(unit, sign) for unit in range(30) for sign in (1, -1)]


def search(broad):
    region = bound_network(NETWORK, BOX)
    leaves = boxes._Boxes.leaves(WHOLE, NETWORK, "dense2", region, len(CLAIMS))
    return boxes._Search(NETWORK, "dense2", CLAIMS, BOX, leaves, boxes._Halvings.of(WHOLE), broad)


def decided(pool, claims=CLAIMS):
    """The claims that are proved, and those that are refuted."""
    region = bound_network(NETWORK, BOX)
    cuts = list(boxes.split_box(NETWORK, "dense2", claims, region, BOX, Budget(), pool))
    return {claim for cut in cuts for claim in cut.proved}, {claim for cut in cuts for claim in cut.refuted}


def pieces(start, near):
    """Boxes in a stack for each of the given lists."""
    whole = start.pending[0]
    return [whole.take(np.zeros(len(one), dtype=np.int64)) for one in near], [np.array(one) for one in near]


def queued(broad, near):
    start = search(broad)
    start.pending = [
        boxes.replace(stack, node=np.arange(len(one)), near=one)
        for stack, one in zip(*pieces(start, near), strict=True)
    ]
    start._at_once = 2
    return start


def test_broad_takes_the_oldest_boxes_first():
    start = queued(100, [[-0.5, -0.5], [-0.1, -0.2], [-0.9, -0.9]])
    drawn = [start.part() for _ in range(3)]
    assert [part.boxes.near[0] for part in drawn] == [-0.5, -0.1, -0.9]
    assert all(part.broad for part in drawn)
    assert start.part() is None


def test_deep_takes_in_turn_where_a_claim_came_nearest_to_failing_and_the_newest():
    start = queued(0, [[-0.5, -0.5], [-0.9, -0.1], [-0.8, -0.8], [-0.3, -0.3], [-0.7, -0.7]])
    drawn = [start.part() for _ in range(5)]
    assert [part.boxes.near.max() for part in drawn] == [-0.1, -0.7, -0.3, -0.8, -0.5]
    assert not any(part.broad for part in drawn)


def test_boxes_remember_how_near_a_claim_came_to_failing():
    start = search(100)
    start.step()
    left = start.pending[0]
    assert np.isfinite(left.near).all()
    assert (np.abs(left.near) <= 1).all()


class Shuffled:
    """Workers of which several are at work at once, and the last begun is the first done."""

    def __init__(self, at_once):
        self._at_once = at_once
        self.broad = []

    def map(self, make, arguments, draw, budget):
        handler, out = make(*arguments), []
        while True:
            while len(out) < self._at_once and (task := draw()) is not None:
                out.append(task)
                self.broad.append(task.broad)
            if not out:
                return
            task = out.pop()
            yield task, handler(task, budget)


def test_workers_share_the_broad_part_too_and_find_the_same(monkeypatch):
    monkeypatch.setattr(boxes, "ALONE", 8)
    monkeypatch.setattr(boxes, "BROAD", 200)
    monkeypatch.setattr(boxes, "BATCH", 16)
    several = Shuffled(3)
    proved, refuted = decided(several)
    assert (proved, refuted) == decided(Here())
    assert proved
    assert refuted
    assert not proved & refuted
    assert several.broad[0]


def test_nobody_is_waited_for_once_no_claim_is_worth_more_work(monkeypatch):
    monkeypatch.setattr(boxes, "ALONE", 0)
    claims = sorted(decided(Here())[1])[:1]

    class Endless(Here):
        """After the first result, others that would never come."""

        def map(self, make, arguments, draw, budget):
            yield from super().map(make, arguments, draw, budget)
            raise AssertionError("waited for")

    assert decided(Endless(), claims) == (set(), set(claims))
