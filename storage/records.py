"""The data types that cross between the driver, the agents and the ledger; plain frozen dataclasses.

No database here, so that agents and workers can import it for nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

# The failure of work that ended three times through no fault of the candidate's or the proposal's.
INFRASTRUCTURE = "infrastructure"


@dataclass(frozen=True)
class Node:
    """A finished slot as an agent may see it.

    ``score`` is the candidate's at the highest ``rung`` that it reached; None for a failed candidate or
    proposal, whose ``failure`` and ``detail`` say why.
    """

    slot: int
    agent: str
    candidate: int | None
    pattern: str
    operator: str
    hypothesis: str
    parents: tuple[int, ...]
    status: str  # accepted | duplicate | failed | promoted
    score: float | None
    failure: str | None = None
    detail: str = ""
    params: int = 0
    flops_per_token: float = 0.0
    state_bytes: int = 0
    rung: int = 0
    lower: tuple[float | None, ...] = ()  # the scores at the rungs below, where there are any
    source: str = ""  # of a written candidate
    runs: tuple[float, ...] = ()  # of a script: the scores of all runs of this slot
    name: str | None = None
    checks: tuple[tuple[str, str], ...] = ()  # of the gate, that failed: name, and what was found

    @property
    def label(self) -> str:
        """What a candidate is called where there is one line for it: its pattern, or written code's name."""
        return (self.name or self.pattern) if self.source else self.pattern

    @property
    def trouble(self) -> str:
        """The class of its failure: the kind, and the checks where it was the gate's; empty without."""
        names = ", ".join(name for name, _ in self.checks)
        return f"{self.failure} ({names})" if names else self.failure or ""

    def score_at(self, rung: int) -> float | None:
        """The score at a rung; None where it has none."""
        if rung == self.rung:
            return self.score
        return self.lower[rung] if rung < len(self.lower) else None

    @property
    def standing(self) -> tuple[int, float]:
        """What nodes are ranked by: scores compare at one rung only, and a higher rung stands above."""
        return self.rung, -math.inf if self.score is None else self.score


@dataclass(frozen=True)
class Allowance:
    """What a slot may spend on model calls, at most; None where the recipe sets no limit."""

    calls: int | None = None
    usd: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class View:
    """What an agent sees when it is asked: the finished slots of its pool, in slot order."""

    nodes: tuple[Node, ...] = ()
    turn: int = 0  # how many slots this agent was asked for before
    noise: float | None = None  # standard deviation of a full score over seeds, where known
    rungs: int = 1  # how many the campaign has
    freedom: float = math.inf  # degrees of freedom behind that noise; infinite where it is exact
    lower_noise: tuple[tuple[float | None, float], ...] = ()  # noise and freedom at each lower rung
    allowance: Allowance = Allowance()
    incumbent: Node | None = None  # where scripts challenge each other: who has not been beaten

    @property
    def in_flight(self) -> int:
        """How many slots of this agent have been asked for and cannot be seen yet."""
        return max(0, self.turn - len(self.nodes))

    def noise_at(self, rung: int) -> tuple[float | None, float]:
        """The noise of a score at a rung and its degrees of freedom; (None, 0) where it is not known."""
        if rung == self.rungs - 1:
            return self.noise, self.freedom
        return self.lower_noise[rung] if rung < len(self.lower_noise) else (None, 0)

    @property
    def scored(self) -> tuple[Node, ...]:
        """The nodes with a score, each candidate once, in slot order."""
        first: dict[int, Node] = {}
        for node in self.nodes:
            if node.score is not None and node.candidate is not None:
                first.setdefault(node.candidate, node)
        return tuple(first.values())

    @property
    def best(self) -> Node | None:
        """The best scored node; the earlier of equals."""
        return max(self.scored, key=lambda node: node.standing, default=None)

    def node(self, candidate: int) -> Node | None:
        """The first node of a candidate."""
        return next((n for n in self.nodes if n.candidate == candidate), None)


@dataclass(frozen=True)
class CallRecord:
    """One call of a model as it goes into the ledger; never holds a key."""

    provider: str
    model: str
    operator: str
    attempt: int
    request: str
    reply: str
    outcome: str
    error: str = ""
    http_attempts: int = 1
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    latency_seconds: float | None = None
    cost_usd: float | None = None


@dataclass(frozen=True)
class Answer:
    """An agent's answer to being asked: a pattern or a source with its hypothesis, or a failed proposal."""

    operator: str
    reason: str  # of the scaffold's choice of operator and parents
    parents: tuple[int, ...] = ()
    pattern: str | None = None
    source: str | None = None  # of a written candidate's one file
    hypothesis: str = ""
    reasoning: str = ""
    expected_effect: str = ""
    failure: str | None = None
    detail: str = ""
    calls: tuple[CallRecord, ...] = ()


@dataclass(frozen=True)
class CandidateRecord:
    """A candidate in canonical form with its costs; ``content_hash`` is its identity."""

    content_hash: str
    kind: str
    pattern: str
    preset: str
    params: int
    flops_per_token: float
    state_bytes: int
    name: str | None = None
    source: str | None = None  # of written code


@dataclass(frozen=True)
class CertificateRecord:
    """What the gate found of a written candidate: rows of (name, verdict, detail, seconds); its
    ``prints``; and what it costs in its pattern, 0 where that was not measured."""

    checks: tuple[tuple[str, str, str, float], ...]
    prints: dict[str, Any]
    params: int = 0
    flops_per_token: float = 0.0


@dataclass(frozen=True)
class EvaluationPlan:
    """How a candidate is to be evaluated; ``sealed`` ones are scored on the test split."""

    profile: str
    seed: int
    rung: int = 0
    sealed: bool = False


@dataclass(frozen=True)
class AgentRecord:
    """An agent of the recipe, as the ledger keeps it."""

    name: str
    role: str  # search | control | reference
    scaffold: str
    proposer: str
    model: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Money:
    """Model calls and what they cost; ``usd`` is None where no price is known."""

    calls: int = 0
    usd: float | None = 0.0

    def __add__(self, other: Money) -> Money:
        known = self.usd is not None and other.usd is not None
        return Money(
            self.calls + other.calls, (self.usd or 0) + (other.usd or 0) if known else None
        )
