"""Who takes the title: with noise alone hardly anyone, with a real gain whoever has it, with drift nobody."""

from __future__ import annotations

import random
from collections.abc import Callable
from statistics import fmean

import pytest

from archwright.incumbents import (
    CHALLENGE,
    DEFENCE,
    DRIFT,
    Again,
    Challenge,
    Title,
    next_run,
    seeds,
)
from archwright.setup import REFERENCES
from storage.records import Node

REPEATS, LEVEL, BLOCK, NOISE = 3, 0.95, 4, 0.01
Run = Callable[[int, int], float]  # candidate and slot to a score


def node(slot: int, agent: str, candidate: int, what: str, runs: tuple[float, ...]) -> Node:
    """A complete slot; ``what`` is `draft` for a new script."""
    status = "accepted" if what == "draft" else "promoted"
    score = fmean(runs) if runs else None
    return Node(slot, agent, candidate, "train.py", what, "", (), status, score, runs=runs)


class Search:
    """A campaign of one agent, one slot at a time, whose scores come from ``run``."""

    def __init__(self, run: Run) -> None:
        self.run, self.nodes, self.slots = run, list[Node](), list[Again]()
        self._do(REFERENCES, 1, "draft", REPEATS)

    def _do(self, agent: str, candidate: int, what: str, count: int) -> None:
        slot = len(self.slots)
        runs = tuple(self.run(candidate, slot) for _ in range(count))
        self.nodes.append(node(slot, agent, candidate, what, runs))
        self.slots.append(Again(slot, agent, candidate, None if what == "draft" else what))

    @property
    def title(self) -> Title:
        return Title.of(self.nodes, {"a"}, REPEATS, LEVEL)

    def go(self, scripts: int) -> Title:
        while (found := next_run(self.nodes, self.slots, [self.title], BLOCK)) or scripts:
            if found:
                self._do(found.agent, found.candidate, found.what, 1 if found.what == DRIFT else 3)
            else:
                scripts -= 1
                self._do("a", 1 + max(n.candidate or 0 for n in self.nodes), "draft", 1)
        return self.title


def test_with_noise_alone_a_challenge_succeeds_at_the_stated_rate() -> None:
    rng = random.Random(0)
    found = [
        challenge
        for _ in range(120)
        for challenge in Search(lambda *_: rng.gauss(0.5, NOISE)).go(10).challenges
    ]
    replaced = sum(challenge.replaced for challenge in found)
    assert len(found) > 400  # half of the scripts look better at first
    assert replaced / len(found) < (1 - LEVEL) + 3 * (0.05 * 0.95 / len(found)) ** 0.5


def test_a_real_gain_takes_the_title_and_its_size_is_told() -> None:
    """The first gain of four deviations is hardly missed, and its gain has no bias from its choice."""
    gains, taken = [], 0
    for seed in range(60):
        rng = random.Random(seed)
        search = Search(lambda c, _, rng=rng: rng.gauss(0.54 if c == 4 else 0.5, NOISE))  # type: ignore[misc]
        title = search.go(4)
        mine = [c for c in title.challenges if c.candidate == 4]
        gains += [c.gain for c in mine if c.gain is not None]
        taken += title.holder is not None and title.holder.candidate == 4
    assert taken >= 57
    assert fmean(gains) == pytest.approx(0.04, abs=4 * NOISE * (2 / 3 / len(gains)) ** 0.5)


def test_a_machine_that_grows_faster_is_hardly_a_gain() -> None:
    """All scripts are the same. Against the baseline's runs at the start most challengers would be better."""
    rng, found = random.Random(1), list[Challenge]()
    late: list[bool] = []
    for _ in range(60):
        search = Search(lambda _, slot: 0.5 + 0.002 * slot + rng.gauss(0, NOISE))
        found += search.go(8).challenges
        start = search.nodes[0].score or 0
        late += [(n.score or 0) > start + 0.016 for n in search.nodes if n.operator == CHALLENGE]
    assert len(found) > 150
    assert sum(challenge.replaced for challenge in found) / len(found) < 0.15
    assert sum(late) / len(late) > 0.6


def test_the_holder_runs_again_beside_the_challenger_and_the_baseline_in_each_block() -> None:
    search = Search(lambda c, _: 0.5 + 0.01 * c + random.Random(c).gauss(0, 1e-6))
    search.go(8)
    again = [(slot.what, slot.candidate) for slot in search.slots if slot.what]
    assert [what for what, _ in again].count(DRIFT) == 2
    assert {candidate for what, candidate in again if what == DRIFT} == {1}
    challenges = [slot.slot for slot in search.slots if slot.what == CHALLENGE]
    assert len(challenges) == 8
    for slot in challenges:
        assert search.slots[slot - 1].what == DEFENCE
    holders = [search.slots[slot - 1].candidate for slot in challenges]
    assert holders == [1, *(search.slots[slot].candidate for slot in challenges[:-1])]


def test_what_earlier_slots_decided_no_later_slot_changes() -> None:
    rng = random.Random(5)
    search = Search(lambda *_: rng.gauss(0.5, NOISE))
    whole = search.go(12).challenges
    for end in range(len(search.nodes)):
        part = Title.of(search.nodes[:end], {"a"}, REPEATS, LEVEL).challenges
        assert part == whole[: len(part)]


def test_a_challenger_whose_runs_fail_does_not_take_the_title() -> None:
    nodes = [
        node(0, REFERENCES, 1, "draft", (0.5, 0.501, 0.499)),
        node(1, "a", 2, "draft", (0.9,)),
        node(2, REFERENCES, 1, DEFENCE, (0.5, 0.502, 0.499)),
        node(3, "a", 2, CHALLENGE, (0.9, 0.901)),
    ]
    title = Title.of(nodes, {"a"}, REPEATS, LEVEL)
    assert title.holder is not None
    assert title.holder.candidate == 1
    assert title.challenges == [Challenge(3, 2, 1, False, "1 of 3 repeated runs failed: no score")]


def test_each_arm_has_a_title_of_its_own() -> None:
    nodes = [
        node(0, REFERENCES, 1, "draft", (0.5, 0.501, 0.499)),
        node(1, "a", 2, "draft", (0.9,)),
        node(2, REFERENCES, 1, DEFENCE, (0.5, 0.502, 0.499)),
        node(3, "a", 2, CHALLENGE, (0.9, 0.901, 0.899)),
    ]
    holders = [Title.of(nodes, {name}, REPEATS, LEVEL).holder for name in "ab"]
    assert [holder and holder.candidate for holder in holders] == [2, 1]


def test_a_campaign_without_a_baseline_has_no_title() -> None:
    nodes = [node(0, REFERENCES, 1, "draft", ()), node(1, "a", 2, "draft", (0.9,))]
    title = Title.of(nodes, {"a"}, REPEATS, LEVEL)
    assert title.holder is None
    assert next_run(nodes, [], [title], BLOCK) is None


def test_no_two_runs_share_a_seed() -> None:
    found = [s for slot in range(50) for s in seeds(3, slot, CHALLENGE, REPEATS)]
    assert len(set(found)) == 150
    assert len(seeds(3, 0, DRIFT, REPEATS)) == 1
