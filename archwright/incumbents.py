"""Who has not been beaten in a campaign of scripts, and which scripts run again: pure functions of its slots.

The baseline holds the title at first. Whose first run is above the holder's latest mean challenges it: the
holder runs `repeats` times more, and right after it, so that the machine is the same, the challenger, all on
fresh seeds. The challenger takes the title where these runs beat those, by Student's t on the deviation
pooled over all such groups, at the recipe's level. What chose it, its first run, has no part in that.
Once per `block` of new scripts the baseline runs again, for the drift of the machine to be seen.

Each search or control has a title of its own. A group of runs is a slot like any other, but in no budget.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean
from typing import Any

from archwright.promotion import Advance
from archwright.seeds import derive
from archwright.setup import REFERENCES
from archwright.standings import estimate, interval, pooled_deviation, probability_better
from storage.records import Node

CHALLENGE, DEFENCE, DRIFT = "challenge", "defence", "baseline"  # what runs again, as operators


@dataclass(frozen=True)
class Challenge:
    """A challenger's repeated runs against the holder's, in scores; None where it has no full set of runs."""

    slot: int
    candidate: int
    incumbent: int
    replaced: bool
    reason: str
    gain: float | None = None
    stderr: float | None = None
    low: float | None = None  # of the gain's interval at the level
    high: float | None = None
    probability: float | None = None  # that the challenger is better
    deviation: float | None = None
    freedom: int = 0
    runs: int = 0
    against: int = 0


@dataclass
class Title:
    """The title as a fold over the slots of an arm and of the baseline, in their order."""

    agents: Collection[str]
    repeats: int
    level: float
    holder: Node | None = None
    groups: list[tuple[float, ...]] = field(
        default_factory=list
    )  # of repeated runs, at one time each
    challenges: list[Challenge] = field(default_factory=list)

    @classmethod
    def of(
        cls, nodes: Sequence[Node], agents: Collection[str], repeats: int, level: float
    ) -> Title:
        title = cls(agents, repeats, level)
        for node in nodes:
            title._see(node)
        return title

    def _see(self, node: Node) -> None:
        again, ours = node.status == "promoted", node.agent in self.agents
        if self.holder is None:
            if node.agent == REFERENCES and node.runs:
                self._measured(node)
        elif again and node.candidate == self.holder.candidate and node.operator == DEFENCE:
            self._measured(node)
        elif again and node.candidate == self.holder.candidate and node.operator == DRIFT:
            self.holder = replace(self.holder, score=node.score or self.holder.score)
        elif again and ours and node.operator == CHALLENGE:
            self.challenges.append(challenge := self._judged(node, self.holder))
            self.groups.append(node.runs)
            self.holder = self._with(node) if challenge.replaced else self.holder

    def _measured(self, node: Node) -> None:
        """The holder's runs, the latest ones."""
        if node.runs:
            self.holder = self._with(node)
            self.groups.append(node.runs)

    def _with(self, node: Node) -> Node:
        return replace(node, score=fmean(node.runs))

    def _judged(self, node: Node, holder: Node) -> Challenge:
        assert node.candidate is not None and holder.candidate is not None, "both were run"
        who = Challenge(node.slot, node.candidate, holder.candidate, False, "")
        if len(node.runs) < self.repeats:
            lost = self.repeats - len(node.runs)
            said = f"{lost} of {self.repeats} repeated runs failed: {node.failure or 'no score'}"
            return replace(who, reason=said)
        deviation, freedom = pooled_deviation([*self.groups, node.runs])
        one, two = estimate(node.runs, deviation), estimate(holder.runs, deviation)
        chance = probability_better(one, two, deviation, freedom)
        low, high = interval(one, two, deviation, freedom, self.level) or (None, None)
        replaced = chance is not None and chance >= self.level
        verdict = "beats" if replaced else "is not told from"
        gain, noise = one.mean - two.mean, deviation or 0.0
        return replace(
            who,
            replaced=replaced,
            reason=f"candidate {node.candidate} {verdict} candidate {holder.candidate}: "
            f"gain {gain:+.4f}, better with probability {chance or 0:.3f}, level {self.level:g}",
            gain=gain,
            stderr=noise * math.sqrt(1 / one.n + 1 / two.n),
            low=low,
            high=high,
            probability=chance,
            deviation=deviation,
            freedom=freedom,
            runs=one.n,
            against=two.n,
        )

    def challenger(self, nodes: Sequence[Node], before: Collection[int]) -> Node | None:
        """The first script of the arm that looks better than the holder, but for those ``before``."""
        if self.holder is None or self.holder.score is None:
            return None
        for node in nodes:
            fresh = node.agent in self.agents and node.candidate not in before
            if fresh and node.status == "accepted" and (node.score or 0) > self.holder.score:
                return node
        return None


@dataclass(frozen=True)
class Again:
    """A slot, seen or not, that ran a script again, or that asked an agent of a search or control."""

    slot: int
    agent: str
    candidate: int | None
    what: str | None  # its operator where it ran a script again


def next_run(
    nodes: Sequence[Node], slots: Sequence[Again], titles: Sequence[Title], block: int
) -> Advance | None:
    """The next script to run again: the baseline once per block, then of the first arm that has a
    challenger its holder, unless that has run since, then the challenger. None for nobody.

    ``nodes`` are the complete slots that the decision sees, ``slots`` all so far.
    """
    return _drift(nodes, slots, block) or next(
        (found for title in titles if (found := _challenge(nodes, slots, title))), None
    )


def _drift(nodes: Sequence[Node], slots: Sequence[Again], block: int) -> Advance | None:
    baseline = next((n for n in nodes if n.agent == REFERENCES and n.candidate is not None), None)
    asked = sum(s.what is None and s.agent != REFERENCES for s in slots)
    done = sum(s.what == DRIFT for s in slots)
    if baseline is None or baseline.candidate is None or asked < block * (done + 1):
        return None
    reason = f"block {done + 1} of {block} scripts is asked for: the baseline runs again"
    return Advance(REFERENCES, baseline.candidate, 0, reason, {"block": done + 1}, DRIFT)


def _challenge(nodes: Sequence[Node], slots: Sequence[Again], title: Title) -> Advance | None:
    before = {s.candidate or 0 for s in slots if s.what == CHALLENGE and s.agent in title.agents}
    found, holder = title.challenger(nodes, before), title.holder
    if found is None or holder is None or found.candidate is None or holder.candidate is None:
        return None
    since = [s for s in slots if s.slot > found.slot and s.what == DEFENCE]
    numbers = {"score": found.score, "holder": holder.candidate, "holder_mean": holder.score}
    looks = f"candidate {found.candidate} looks better than candidate {holder.candidate}"
    if any(s.candidate == holder.candidate for s in since):
        return Advance(
            found.agent, found.candidate, 0, f"{looks}: it runs again", numbers, CHALLENGE
        )
    return Advance(
        holder.agent, holder.candidate, 0, f"{looks}, which runs again", numbers, DEFENCE
    )


def seeds(seed: int, slot: int, what: str | None, repeats: int) -> list[int]:
    """The fresh seeds of a slot that runs a script again."""
    return [derive(seed, "again", slot, i) for i in range(1 if what == DRIFT else repeats)]


def rows(challenges: Sequence[Challenge], arm: str) -> Iterator[dict[str, Any]]:
    """The challenges of an arm as they are recorded."""
    return ({"arm": arm, **asdict(challenge)} for challenge in challenges)
