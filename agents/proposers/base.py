"""What a proposer is: it turns a scaffold's decision into a pattern or a file, or says why it cannot."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Protocol

from agents.literature import Digest
from agents.scaffolds.base import Decision
from agents.workspace.workbench import Workbench
from search_space.space import Space
from storage.records import Answer, Money, View


@dataclass(frozen=True)
class Writing:
    """The file that is written where candidates are code: its name, what models are told of it, and the
    source that drafts start from, if there is one."""

    file: str
    contract: str
    baseline: str = ""


@dataclass(frozen=True)
class Request:
    """One proposal to make. ``seed`` is of every random draw made for it."""

    decision: Decision
    view: View
    space: Space
    seed: int
    goal: str = ""  # the task and the budget, for models
    notes: str = ""  # the user's own, from the run folder
    literature: tuple[Digest, ...] = ()  # what models may be reminded of
    writing: Writing | None = None  # what is written; None where patterns are proposed
    bench: Workbench | None = None  # who examines and trains files for sessions with tools

    @property
    def rng(self) -> random.Random:
        return random.Random(self.seed)

    def answer(self, **fields: object) -> Answer:
        """An answer that carries the scaffold's decision."""
        decision = self.decision
        parents = tuple(n.candidate for n in decision.parents if n.candidate is not None)
        return Answer(decision.operator, decision.reason, parents, **fields)  # type: ignore[arg-type]


class Proposer(Protocol):
    """Stateless between requests, so that a resumed campaign goes on as if it had not stopped."""

    scaffold: ClassVar[str]  # the scaffold an agent has when its recipe names none

    def check(self) -> None:
        """Raise ValueError when it cannot work here: a key is missing, say."""
        ...

    def quote(self, request: Request) -> Money | None:
        """The most that `propose` can cost; None when it calls no model."""
        ...

    async def propose(self, request: Request) -> Answer:
        """The proposal, or a typed failure of it."""
        ...
