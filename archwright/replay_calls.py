"""Replays a whole search from its ledger: every decision is made once more, and compared.

For each slot in turn the schedule, the scaffolds and the proposers decide again, on what the ledger
says had been measured by then; models answer from the record. Equal decisions on equal pasts are, slot
by slot, the same search. It trains nothing, asks nobody and writes nothing. Where money, time or a
fault of a machine's ended a slot or the search, that is taken from the ledger.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from agents.agent import Agent
from agents.proposers.recorded import RecordedProposer
from archwright.campaign import INVALID, NOTES, Campaign
from archwright.promotion import Advance
from archwright.recipe import RECORDED, AgentSection, Recipe
from archwright.setup import agent_specs
from storage import database, queries
from storage.ledger import Ledger
from storage.models import Proposal
from storage.records import INFRASTRUCTURE, Answer, CallRecord

OURS = ("budget", INFRASTRUCTURE)  # failures that the driver gave a slot, in an agent's place
Fields = dict[str, Any]


@dataclass(frozen=True)
class Decided:
    """A decision as it was recorded and as it was made again; ``slot`` None where it is of the whole run."""

    slot: int | None
    what: str  # turn | proposal | end | finalists
    recorded: Fields
    replayed: Fields

    def difference(self) -> Fields | None:
        """The first field that differs."""
        for name, then in self.recorded.items():
            if (now := self.replayed.get(name)) != then:
                place = {"slot": self.slot, "decision": self.what, "field": name}
                return {**place, "recorded": then, "replayed": now}
        return None


def replay_calls(folder: Path) -> Fields:
    """Replay the search in a run folder: how many decisions are equal, and the first that is not.

    Raises LedgerError, and ValueError for a run that cannot be replayed.
    """
    decided = list(Replay(folder).decisions())
    differences = [found for one in decided if (found := one.difference())]
    return {
        "run": str(folder),
        "candidate": None,
        "recorded": len(decided),
        "replayed": len(decided) - len(differences),
        "match": not differences,
        "difference": differences[0] if differences else None,
        "calls": sum(len(one.replayed.get("calls", ())) for one in decided),
    }


class Replay(Campaign):
    """A recorded campaign, whose slots are decided again one after the other; it is never driven."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Ledger(database.open_(folder, readonly=True), folder, "replay"))
        if not self.recipe.reproducible:
            raise ValueError(
                f"{folder}: what its decisions saw depended on timing, since its recipe says "
                "reproducible: false; replay a run without that"
            )
        notes = self.folder / NOTES
        with self._read() as db:
            recipe = _from_record(self.recipe, db, folder)
        specs = agent_specs(recipe, notes.read_text() if notes.is_file() else "")
        self.agents = {spec.name: Agent(spec) for spec in specs}

    def decisions(self) -> Iterator[Decided]:
        """Every decision of the search, in its order."""
        with self._read() as db:
            rows = queries.proposals(db)
            states = [self._load(db, row) for row in rows]
            stopped, ended = queries.decision(db, "stop"), queries.decision(db, "confirm")
            last = stopped["slots"] if stopped else len(rows) + 1
            for slot, row in enumerate(rows):
                self.slots, self.stopped = states[:slot], "" if slot < last else "as recorded"
                yield self._turn_again(row)
                if row.status not in ("asked", "promoted") and row.failure not in OURS:
                    yield self._proposal_again(row)
            self.slots, self.stopped = states, "as recorded" if stopped else ""
        if ended and not stopped:
            yield Decided(None, "end", {"agent": None}, _turn(self._next()))
        if ended:
            yield Decided(None, "finalists", ended, self._chosen_finalists())

    def _turn_again(self, row: Proposal) -> Decided:
        then: Fields = {"agent": row.agent.name, "seen": row.seen}
        promoted = row.status == "promoted"
        then["promotes"] = [row.candidate_id, row.rung] if promoted else None
        return Decided(row.slot, "turn", then, _turn(self._next()))

    def _proposal_again(self, row: Proposal) -> Decided:
        agent = self.agents[row.agent.name]
        view = self._view(row.agent.name, row.seen, row.slot)
        answer = asyncio.run(agent.propose(view, row.seed))
        proposer = agent.proposer
        then = proposer.calls[view.turn] if isinstance(proposer, RecordedProposer) else ()
        recorded = _then(row, then)
        return Decided(row.slot, "proposal", recorded, self._now(row.agent.name, answer))

    def _now(self, agent: str, answer: Answer) -> Fields:
        content, failure = None, [answer.failure, answer.detail]
        if answer.failure is None:
            try:
                content = self._content(agent, answer)
            except ValueError as error:
                failure = [INVALID[self.recipe.kind], str(error)]
        return _fields(answer, failure, list(answer.parents), content, answer.calls)

    def _content(self, agent: str, answer: Answer) -> str:
        """What is compared of a candidate; its costs need not be known. Raises ValueError."""
        if answer.source is not None:
            return self._candidate(agent, answer).content_hash
        return str(self._pattern(agent, answer.pattern or ""))


def _then(row: Proposal, calls: Sequence[CallRecord]) -> Fields:
    content, candidate = None, row.candidate
    if candidate is not None:
        written = candidate.kind != "composition"
        content = candidate.content_hash if written else candidate.pattern
    parents = [parent.candidate_id for parent in row.parents]
    return _fields(row, [row.failure, row.detail], parents, content, calls)


def _fields(
    said: Answer | Proposal,
    failure: list[str | None],
    parents: list[int],
    content: str | None,
    calls: Sequence[CallRecord],
) -> Fields:
    """What is compared of a proposal, what others follow from first."""
    return {
        "operator": said.operator,
        "reason": said.reason,
        "parents": parents,
        "failure": failure,
        "content": content,
        "hypothesis": said.hypothesis,
        "reasoning": said.reasoning,
        "expected_effect": said.expected_effect,
        "calls": [asdict(call) for call in calls],
    }


def _turn(found: tuple[str | Advance, int] | None) -> Fields:
    """Whose turn it is, what that slot sees, and the candidate and rung where it is a promotion's."""
    if found is None:
        return {}
    who, seen = found
    if isinstance(who, Advance):
        return {"agent": who.agent, "seen": seen, "promotes": [who.candidate, who.rung]}
    return {"agent": who, "seen": seen, "promotes": None}


def _from_record(recipe: Recipe, db: Session, folder: Path) -> Recipe:
    """The recipe with every agent that has called a model answered by this run's own record."""
    called = {row.name for row in queries.agents(db) if any(queries.calls_of(db, row.id))}

    def section(agent: AgentSection) -> AgentSection:
        options = {"run": str(folder), "agent": agent.name}
        changed = {"proposer": RECORDED, "options": options}
        return agent.model_copy(update=changed) if agent.name in called else agent

    agents, controls = (tuple(map(section, x)) for x in (recipe.agents, recipe.controls))
    return recipe.model_copy(update={"agents": agents, "controls": controls})
