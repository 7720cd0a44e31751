"""The driver: asks agents, evaluates what they propose, promotes the best of it from rung to rung and
confirms the finalists. Writes the ledger.

An asynchronous loop without rounds: a free worker gets the next candidate at once. In a reproducible
campaign the decision for slot k sees exactly the slots up to k - lag and answers are recorded in slot
order, so that neither workers nor models change the outcome by being fast or slow. A promotion is a slot
like any other, and goes before a new candidate (`archwright.promotion`). All state is in the ledger: this
process can be killed at any point, and a new one goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from sqlalchemy.orm import Session

from agents.agent import Agent
from archwright import incumbents, scripts, written
from archwright.candidates import composition, job_of, profile_label, space_of
from archwright.environment import facts
from archwright.executor import Executor, Fault
from archwright.incumbents import Again, Title
from archwright.primitives import take
from archwright.promotion import Advance, next_advance, raised
from archwright.provenance import check_unchanged
from archwright.recipe import BudgetSection, Recipe, parse
from archwright.schedule import Arm, Slot, next_agent
from archwright.seeds import derive
from archwright.setup import (
    REFERENCES,
    agent_records,
    agent_specs,
    anchored,
    arms_of,
    check,
    lag_of,
    references_of,
    salted,
)
from archwright.standings import margin, pooled_deviation
from archwright.written import Judged
from evaluator.evaluate import Job, evaluate
from evaluator.outcome import Result
from sandbox.gate import Terms
from sandbox.settings import read as settings_of
from search_space.pattern import Pattern
from storage import blobs, database, queries
from storage.ledger import BLOBS, Ledger
from storage.models import Candidate, Evaluation, Proposal
from storage.records import (
    INFRASTRUCTURE,
    Allowance,
    Answer,
    CandidateRecord,
    EvaluationPlan,
    Money,
    Node,
    View,
)

FAULTS = 3  # attempts at work that ends in infrastructure faults
INVALID = {
    "composition": "invalid-pattern",
    "module": "invalid-source",
    "script": "invalid-source",
}
NOTES = "notes.md"  # the user's own, in the run folder; every prompt carries it


@dataclass
class SlotState:
    """A slot in this driver's memory; all that matters of it is in the ledger."""

    agent: str
    proposal: int
    seen: int
    status: str = "asked"
    failure: str | None = None
    candidate: int | None = None
    rung: int = 0
    quote: Money | None = None  # what is reserved for asking it
    seeds: list[int] = field(default_factory=list)  # at which it is measured
    again: str | None = None  # why a script runs again, where it does
    pending: set[int] = field(default_factory=set)  # evaluations it waits for
    node: Node | None = None  # once it is complete

    @property
    def promotion(self) -> bool:
        """Whether nobody was asked: a candidate found before is trained further."""
        return self.status == "promoted"


@dataclass(frozen=True)
class Progress:
    """Where a campaign stands, for whoever watches it."""

    phase: str
    slots: list[SlotState]
    running: int
    queued: int
    confirmed: int  # sealed evaluations done by this driver
    seconds: float


class Campaign:
    """One campaign in its run folder."""

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        """Use `create` or `open`."""
        self.folder, self.ledger = folder, ledger
        with self._read() as db:
            row = queries.campaign(db)
            if row is None:
                raise database.LedgerError(f"{folder} holds no campaign: start one with `run`")
            self.id, self.seed, self.lag = row.id, row.seed, row.lag
            self.recipe, self.driven = parse(row.recipe, f"the recipe in {folder}"), row.seconds
            self.agent_ids = {agent.name: agent.id for agent in queries.agents(db)}
        patterns = self.recipe.references.patterns
        self.names = {str(Pattern.parse(text)): name for name, text in patterns.items()}
        self.arms, self.space = arms_of(self.recipe), space_of(self.recipe)
        count = sum(len(given) for given in references_of(self.recipe).values())
        self.references = Arm(REFERENCES, (REFERENCES,), count)
        self.slots: list[SlotState] = []
        self.asked: dict[Any, int] = {}  # handle -> slot
        self.answers: dict[int, Answer] = {}  # that came before an earlier slot's
        self.faults: dict[int, int] = {}  # slot -> faults while it was asked
        self.running: dict[Any, int] = {}  # handle -> evaluation
        self.confirmed = 0
        self.stopped = ""  # why the search ends early
        self.started = time.monotonic()

    @classmethod
    def create(cls, recipe: Recipe, folder: Path, workers: int) -> Campaign:
        """A new campaign in a new run folder; what it takes from earlier runs must pass the gate first.

        Raises RecipeError before anything is written, and LedgerError for the folder.
        """
        check(recipe)
        lag = lag_of(recipe, workers)
        recipe = salted(anchored(recipe)).model_copy(update={"workers": workers, "lag": lag})
        recipe, taken = take(recipe)
        ledger = Ledger(database.create(folder), folder, _session())
        stored, records = recipe.model_dump(mode="json"), agent_records(recipe)
        found = [(one.candidate, one.certificate) for one in taken]
        ledger.begin(recipe.name, stored, recipe.seed, lag, workers, records, found)
        return cls(folder, ledger)

    @classmethod
    def open(cls, folder: Path) -> Campaign:
        """The campaign of a run folder, to go on with it.

        Raises LedgerError, and ValueError where its data or its profile are not what they were.
        """
        campaign = cls(folder, Ledger(database.open_(folder), folder, _session()))
        with campaign._read() as db:
            began = queries.began_with(db)
        if began is not None:
            check_unchanged(campaign.recipe, *began)
        return campaign

    def run(
        self, executor: Executor, progress: Callable[[Progress], None] = lambda _: None
    ) -> None:
        """Drive the campaign to its end. KeyboardInterrupt leaves it ready to be resumed.

        Raises LedgerError when another driver has it or the ledger cannot be written.
        """
        with database.driving(self.folder):
            self.executor, self.progress, status = executor, progress, "failed"
            try:
                self._begin()
                self._loop("search", self._ask)
                self.ledger.drop_checkpoints()
                self._queue_confirmation()
                self._loop("confirm", lambda: None)
                status = "done"
            except KeyboardInterrupt:
                status = "interrupted"
                self.ledger.recover()
                raise
            finally:
                self.ledger.set_status(self.id, status, self._seconds())

    def _begin(self) -> None:
        """Take over what an earlier driver left and bring up the agents."""
        self.started, sandbox = time.monotonic(), written.environment(self.recipe)
        self.ledger.recover()
        self.ledger.set_status(self.id, "running", self._seconds())
        self.ledger.record_environment(self.id, {**facts(), **sandbox})
        notes = self.folder / NOTES
        specs = agent_specs(self.recipe, notes.read_text() if notes.is_file() else "")
        self.agents = {spec.name: Agent(spec) for spec in specs}  # for their quotes
        for spec in specs:
            self.executor.add_agent(spec)
        with self._read() as db:
            self.judged = len(queries.numbers(db, "incumbent"))
            self.stopped = queries.reason(db, "stop") or ""
            self.slots = [self._load(db, proposal) for proposal in queries.proposals(db)]

    def _loop(self, phase: str, ask: Callable[[], None]) -> None:
        """Ask, start and collect until there is nothing left to wait for."""
        while True:
            ask()
            queued = self._start()
            counts = len(self.running), queued, self.confirmed
            self.progress(Progress(phase, self.slots, *counts, self._seconds()))
            handles = [*self.running, *self.asked]
            if not handles:
                return
            for handle in self.executor.wait(handles, timeout=1.0):
                result = self.executor.result(handle)
                self.ledger.set_status(
                    self.id, "running", self._seconds()
                )  # a kill loses none of it
                if handle in self.running:
                    self.confirmed += phase == "confirm"
                    self._evaluated(self.running.pop(handle), result)
                else:
                    self._answered(self.asked.pop(handle), result)

    def _read(self) -> Session:
        return Session(self.ledger.engine)

    def _seconds(self) -> float:
        """Seconds driven so far, over all sessions."""
        return self.driven + time.monotonic() - self.started

    # ------------------------------------------------------------------------------------- asking

    def _ask(self) -> None:
        """Ask for the slots that wait for an answer nobody works on, then for new ones."""
        self._record_challenges()
        in_flight = {*self.asked.values(), *self.answers}
        for slot, state in enumerate(self.slots):
            if state.status == "asked" and slot not in in_flight:
                self._ask_slot(slot, state.agent, state.seen)
        while not self._out_of_time() and (turn := self._next()) is not None:
            who, seen = turn
            if isinstance(who, Advance):
                self._promote(who, seen)
            elif not self._ask_slot(len(self.slots), who, seen):
                return

    def _next(self) -> tuple[str | Advance, int] | None:
        """The agent or the promotion of the next slot and how many slots it sees, if that can be decided
        now."""
        slot, complete = len(self.slots), self._frontier()
        if self.recipe.reproducible:
            seen = max(0, slot - self.lag + 1)
            ready = complete >= seen
        else:
            seen = complete
            ready = sum(state.node is None for state in self.slots) < self.lag
        if not ready:
            return None
        who = self._turn(seen)
        if who is None and complete == slot:  # what counted as used while in flight may not be
            who, seen = self._turn(slot), slot
        return None if who is None else (who, seen)

    def _turn(self, seen: int) -> str | Advance | None:
        """Whose turn it is: the references', then that of a promotion, then an agent's."""
        if len(self.slots) < self.references.quota:
            return REFERENCES
        advance = self._advance(seen)
        if advance is not None or self.stopped:
            return advance
        return next_agent(self.arms, self._history(seen))

    def _advance(self, seen: int) -> Advance | None:
        """The promotion, or the script to run again, that the slots below ``seen`` ask for."""
        nodes = [s.node for s in self.slots[:seen] if s.node is not None]
        if self.recipe.kind == "script":
            slots = [Again(i, s.agent, s.candidate, s.again) for i, s in enumerate(self.slots)]
            titles = [self._title(arm, nodes) for arm in self.arms]
            return incumbents.next_run(nodes, slots, titles, self.recipe.script.block)
        promoted = {(s.agent, s.candidate or 0, s.rung) for s in self.slots if s.promotion}
        level, rungs = self.recipe.confirm.level, self.recipe.rungs
        return next_advance(
            [self.references, *self.arms],
            nodes,
            promoted,
            rungs.count,
            rungs.eta,
            lambda rung: margin(*self._noise(seen, rung), level),
        )

    def _title(self, arm: Arm, nodes: Sequence[Node]) -> Title:
        """Who holds the title of an arm of scripts, as these nodes have it."""
        return Title.of(nodes, arm.agents, self.recipe.script.repeats, self.recipe.confirm.level)

    def _record_challenges(self) -> None:
        """Record what came of each challenge, once, in the order of slots."""
        if self.recipe.kind != "script":
            return
        nodes = [s.node for s in self.slots[: self._frontier()] if s.node is not None]
        found = [
            row
            for arm in self.arms
            for row in incumbents.rows(self._title(arm, nodes).challenges, arm.name)
        ]
        for row in sorted(found, key=lambda row: row["slot"])[self.judged :]:
            self.ledger.decide(self.id, "incumbent", row["reason"], row)
            self.judged += 1

    def _frontier(self) -> int:
        """How many slots from the first on are complete."""
        return next((i for i, s in enumerate(self.slots) if s.node is None), len(self.slots))

    def _history(self, seen: int) -> list[Slot]:
        """The slots so far for the schedule, those beyond ``seen`` as if nothing had come of them."""
        known = [Slot(s.agent, s.status, s.failure) for s in self.slots[:seen] if not s.promotion]
        return known + [Slot(s.agent) for s in self.slots[seen:] if not s.promotion]

    def _promote(self, advance: Advance, seen: int) -> None:
        """Record that the next slot trains a candidate further, or again, and queue that."""
        slot = len(self.slots)
        seeds = self._slot_seeds(advance.agent, slot, advance.what)
        plans = self._plans(seeds, advance.rung)
        proposal = self.ledger.promote(
            self.id,
            slot,
            self.agent_ids[advance.agent],
            advance.candidate,
            derive(self.seed, "slot", slot),
            seen,
            plans,
            advance.reason,
            {"slot": slot, "seen": seen, **advance.numbers},
            advance.what,
        )
        with self._read() as db:
            self.slots.append(self._load(db, db.get_one(Proposal, proposal)))

    def _ask_slot(self, slot: int, agent: str, seen: int) -> bool:
        """Reserve, record and ask; False where the money does not suffice, or may not."""
        seed = derive(self.seed, "slot", slot)
        afforded = self._afforded(agent, seed, seen, slot)
        if afforded is None:
            return False
        view, quote = afforded
        proposal = self.ledger.ask(self.id, slot, self.agent_ids[agent], seed, seen, quote)
        if slot == len(self.slots):
            self.slots.append(SlotState(agent, proposal, seen))
        self.slots[slot].quote = quote
        self.asked[self.executor.propose(agent, view, seed)] = slot
        return True

    def _view(self, agent: str, seen: int, slot: int) -> View:
        """What an agent sees: its own complete slots below ``seen``, each candidate at the highest rung it
        reached in them, and how often it was asked."""
        visible = self.slots[:seen] if self.recipe.reproducible else self.slots[:slot]
        arm = next(arm for arm in (self.references, *self.arms) if agent in arm.agents)
        nodes = tuple(n for n in self._nodes(visible, arm) if n.agent == agent)
        turn = sum(s.agent == agent and not s.promotion for s in self.slots[:slot])
        count = self.recipe.rungs.count
        *lower, (noise, freedom) = (self._noise(seen, rung) for rung in range(count))
        holder = None
        if self.recipe.kind == "script":
            holder = self._title(arm, [s.node for s in visible if s.node is not None]).holder
        return View(nodes, turn, noise, count, freedom, tuple(lower), incumbent=holder)

    def _nodes(self, slots: Sequence[SlotState], arm: Arm) -> tuple[Node, ...]:
        """What an arm has found in these slots, each candidate at the highest rung it reached in them."""
        return raised(s.node for s in slots if s.node is not None and s.agent in arm.agents)

    def _noise(self, seen: int, rung: int) -> tuple[float | None, int]:
        """Standard deviation over seeds of the references at a rung, with its degrees of freedom, once
        all of them are seen at rung 0."""
        if seen < self.references.quota:
            return None, 0
        states = [s for s in self.slots[:seen] if s.agent == REFERENCES and s.rung == rung]
        with self._read() as db:
            return pooled_deviation(
                queries.scores_of(db, state.candidate, state.seeds, rung)
                for state in states
                if state.candidate is not None
            )

    # ---------------------------------------------------------------------------------- the budget

    def _out_of_time(self) -> bool:
        seconds = self.recipe.budget.seconds
        if seconds is None or self._seconds() < seconds:
            return False
        self._stop(f"the budget of {seconds:g} seconds is used up")
        return True

    def _afforded(
        self, agent: str, seed: int, seen: int, slot: int
    ) -> tuple[View, Money | None] | None:
        """What an agent sees, with what is left to spend, and its quote for that; None where the quote does
        not fit. When it does not and nothing is in flight, the search ends. A slot asked again for which
        there is no money left fails.

        In a reproducible campaign the slots from ``seen`` on count at their worst case, so that it does
        not matter which of them has answered; only where that is too much, and all have, at what they cost.
        """
        again, idle = slot < len(self.slots), self._frontier() == len(self.slots)
        worst, exact = [seen], [None]
        bounds = exact if again or not self.recipe.reproducible else worst + exact * idle
        for bound in bounds:
            view = replace(self._view(agent, seen, slot), allowance=self._left(bound))
            quote = self.agents[agent].quote(view, seed)
            reason = "" if quote is None else over_budget(quote, view.allowance, self.recipe.budget)
            if not reason:
                return view, quote
        if idle or again:
            self._stop(reason)
        if again:
            self._answered(slot, Answer("", "", failure="budget", detail=reason))
        return None

    def _left(self, seen: int | None) -> Allowance:
        """What is left of the budget, with the slots from ``seen`` on at their worst case."""
        budget = self.recipe.budget
        with self._read() as db:
            spent = queries.spent(db, seen)
        usd = budget.usd if spent.usd is None else spent.usd  # what is not known may be all of it
        return Allowance(
            None if budget.calls is None else budget.calls - spent.calls,
            None if budget.usd is None else budget.usd - (usd or 0.0),
            None if budget.seconds is None else budget.seconds - self._seconds(),
        )

    def _stop(self, reason: str) -> None:
        if not self.stopped:
            self.stopped = reason
            self.ledger.decide(self.id, "stop", reason, {"slots": len(self.slots)})

    # ---------------------------------------------------------------------------------- answering

    def _answered(self, slot: int, answer: Answer | Fault) -> None:
        if isinstance(answer, Fault):
            self.faults[slot] = self.faults.get(slot, 0) + 1
            if self.faults[slot] < FAULTS:
                return  # `_ask` finds it unanswered and asks again
            answer = Answer("", "", failure=INFRASTRUCTURE, detail=answer.detail)
        self.answers[slot] = answer
        for k, state in enumerate(self.slots):
            if k in self.answers:
                self._record(k, self.answers.pop(k))
            elif state.status == "asked" and self.recipe.reproducible:
                return  # answers are recorded in slot order

    def _record(self, slot: int, answer: Answer) -> None:
        state, candidate = self.slots[slot], None
        if answer.failure is None:
            try:
                candidate = self._candidate(state.agent, answer)
            except ValueError as error:  # a proposer of the user's own need not have checked
                answer = replace(answer, failure=INVALID[self.recipe.kind], detail=str(error))
        plans = self._plans(self._seeds(state.agent))
        paid = settlement(answer, state.quote) if answer.calls and state.quote else None
        self.ledger.answer(state.proposal, answer, candidate, plans, paid)
        with self._read() as db:
            self.slots[slot] = self._load(db, db.get_one(Proposal, state.proposal))

    def _candidate(self, agent: str, answer: Answer) -> CandidateRecord:
        """The candidate that was proposed. Raises ValueError for a pattern outside the space, or a source
        that is none."""
        if self.recipe.kind == "script":
            name = "baseline" if agent == REFERENCES else None
            return scripts.candidate(answer.source, self.recipe, name)
        if self.recipe.kind == "module" and agent != REFERENCES:
            return written.module(answer.source, self.recipe)
        pattern, space = self._pattern(agent, answer.pattern or ""), self.space
        name = self.names.get(str(pattern))
        return composition(pattern, space.preset, name, space.written)

    def _pattern(self, agent: str, text: str) -> Pattern:
        """A proposed pattern in canonical form. Raises ValueError for one outside the space."""
        return Pattern.parse(text) if agent == REFERENCES else self.space.read(text)

    def _source(self, candidate: Candidate | None) -> str | None:
        """The source of a written candidate."""
        if candidate is None or candidate.source_sha is None:
            return None
        return blobs.get(self.folder / BLOBS, candidate.source_sha).decode()

    def _load(self, db: Session, row: Proposal) -> SlotState:
        """The state of a slot as the ledger has it."""
        name = row.agent.name
        state = SlotState(
            name, row.id, row.seen, row.status, row.failure, row.candidate_id, row.rung
        )
        if state.promotion and self.recipe.kind == "script":
            state.again = row.operator
        state.seeds = self._slot_seeds(name, row.slot, state.again)
        if row.candidate_id is not None:
            state.pending = queries.unfinished(db, row.candidate_id, state.seeds, row.rung)
        self._complete(db, state)
        return state

    def _complete(self, db: Session, state: SlotState) -> None:
        """Give an answered slot whose evaluations have ended its node."""
        if state.status != "asked" and not state.pending:
            row = db.get_one(Proposal, state.proposal)
            node = queries.node(db, row, state.seeds[0])
            if self.recipe.kind == "script" and state.candidate is not None:
                runs = queries.scores_of(db, state.candidate, state.seeds)
                node = replace(node, runs=tuple(runs), score=fmean(runs) if runs else None)
            state.node = replace(node, source=self._source(row.candidate) or "")

    # --------------------------------------------------------------------------------- evaluating

    def _seeds(self, agent: str) -> list[int]:
        """The seeds at which an agent's candidates are measured; all share the first."""
        count = self.recipe.references.seeds if agent == REFERENCES else 1
        return [derive(self.seed, "search", i) for i in range(count)]

    def _slot_seeds(self, agent: str, slot: int, what: str | None) -> list[int]:
        """The seeds of a slot: its agent's, or fresh ones where a script runs again."""
        if self.recipe.kind == "script" and what is not None:
            return incumbents.seeds(self.seed, slot, what, self.recipe.script.repeats)
        return self._seeds(agent)

    def _plans(self, seeds: list[int], rung: int = 0, sealed: bool = False) -> list[EvaluationPlan]:
        label = profile_label(self.recipe)
        return [EvaluationPlan(label, seed, rung, sealed) for seed in seeds]

    def _start(self) -> int:
        """Give queued evaluations to free workers, oldest first; returns how many stay queued."""
        free = max(0, self.executor.workers - len(self.running))
        with self._read() as db:
            queued = queries.evaluations(db, "queued")
            jobs = [(e.id, self._work(db, e)) for e in queued[:free]]
        for evaluation, (task, job) in jobs:
            self.ledger.start(evaluation)
            self.running[self.executor.submit(task, job)] = evaluation
        return len(queued[free:])

    def _work(self, db: Session, row: Evaluation) -> tuple[Callable[..., Result], Any]:
        """The task and the job of an evaluation."""
        if not self.recipe.sandboxed:
            return evaluate, self._job(db, row)
        candidate = row.candidate
        if self.recipe.kind == "script":
            source = self._source(candidate)
            return scripts.evaluate, scripts.job_of(self.recipe, source, row.seed, row.sealed)
        gated = candidate.kind == "module" and not candidate.prints
        source = self._source(candidate)
        terms = self._terms(db, candidate, source or "") if gated else None
        what = candidate.pattern, source, row.seed, row.sealed, row.rung
        return written.evaluate, written.job_of(self.recipe, *what, terms)

    def _terms(self, db: Session, candidate: Candidate, source: str) -> Terms:
        """What the gate asks of a candidate; the same mixer with other settings is another one."""
        own = settings_of(source)
        known = [
            written.known_as(f"candidate {row.id}", row.prints)
            for row in self._known(db, candidate)
            if settings_of(self._source(row) or "") == own
        ]
        return written.terms_of(self.recipe, known, own)

    def _known(self, db: Session, candidate: Candidate) -> list[Candidate]:
        """The written candidates that the gate does not want again: those that the same arm had found as
        far as this one's first slot sees, and that passed it, or nothing could be mended without changing
        what it computes. So what passes depends on no other arm, and not on timing."""
        first = next(s for s in self.slots if s.candidate == candidate.id)
        arm = next(arm for arm in self.arms if first.agent in arm.agents)
        earlier = {s.candidate for s in self.slots[: first.seen] if s.agent in arm.agents}
        earlier -= queries.refused(db)
        return [row for id_, row in queries.candidates(db).items() if id_ in earlier]

    def _job(self, db: Session, row: Evaluation) -> Job:
        """The job of a plain evaluation, going on from where the rung below stopped."""
        job = job_of(self.recipe, row.candidate.pattern, row.seed, row.sealed, row.rung)
        name = queries.checkpoint(db, row)
        return replace(job, checkpoint=blobs.get(self.folder / BLOBS, name)) if name else job

    def _evaluated(self, evaluation: int, result: Result | Fault) -> None:
        if isinstance(result, Fault):
            with self._read() as db:
                attempt = queries.attempt(db, evaluation)
            if attempt < FAULTS:
                return self.ledger.requeue(evaluation, result.detail)
            self.ledger.finish(evaluation, (), {}, INFRASTRUCTURE, result.detail)
        else:
            metrics = [(m.name, m.split, m.value) for m in result.metrics]
            spent, failure = asdict(result.spent), result.failure
            del spent["eager"]  # among the facts
            self.ledger.finish(
                evaluation,
                metrics,
                spent,
                failure,
                result.detail,
                result.checkpoint,
                result.facts,
                result.certificate if isinstance(result, Judged) else None,
            )
        with self._read() as db:
            for state in self.slots:
                if evaluation in state.pending:
                    state.pending.discard(evaluation)
                    self._complete(db, state)
        return None

    # --------------------------------------------------------------------------------- confirming

    def _queue_confirmation(self) -> None:
        """Queue the finalists' and references' sealed evaluations, with seeds the search never used.

        The finalists are chosen once, and the choice is in the ledger: a resume keeps to it.
        """
        with self._read() as db:
            recorded = queries.decision(db, "confirm")
        chosen = recorded or self._decide_finalists()
        count = self.recipe.confirm.seeds
        seeds = [derive(self.seed, "confirm", i) for i in range(count)]
        plans = self._plans(seeds, self.recipe.rungs.last, sealed=True)
        for candidate in chosen["candidates"]:
            self.ledger.queue(candidate, plans)

    def _decide_finalists(self) -> dict[str, Any]:
        numbers = self._chosen_finalists()
        reason = f"the best {self.recipe.confirm.finalists} of each arm, and the references"
        self.ledger.decide(self.id, "confirm", reason, numbers)
        return numbers

    def _chosen_finalists(self) -> dict[str, Any]:
        finalists = {arm.name: self._finalists(arm) for arm in self.arms}
        references = [s.candidate for s in self.slots if s.agent == REFERENCES and s.candidate]
        everyone = [*references, *(c for chosen in finalists.values() for c in chosen)]
        return {"finalists": finalists, "candidates": list(dict.fromkeys(everyone))}

    def _finalists(self, arm: Arm) -> list[int]:
        """The best candidates of an arm by rung and the score the search saw, the earlier of equals; of
        scripts those that held the title, the latest first."""
        if self.recipe.kind == "script":
            return self._holders(arm)[: self.recipe.confirm.finalists]
        found = View(self._nodes(self.slots, arm)).scored
        ranked = sorted(found, key=lambda node: node.standing, reverse=True)
        finalists = ranked[: self.recipe.confirm.finalists]
        return [node.candidate for node in finalists if node.candidate is not None]

    def _holders(self, arm: Arm) -> list[int]:
        """The scripts that held an arm's title, the latest first; the baseline where it alone did."""
        title = self._title(arm, [s.node for s in self.slots if s.node is not None])
        held = [c.candidate for c in reversed(title.challenges) if c.replaced]
        first = title.holder.candidate if title.holder else None
        return held or [c for c in (first,) if c is not None]


def over_budget(quote: Money, left: Allowance, budget: BudgetSection) -> str:
    """Why a quote is too much for what is left of a budget; empty when it is not."""
    if left.calls is not None and quote.calls > left.calls:
        return f"the next proposal could exceed the budget of {budget.calls} calls"
    if left.usd is not None and (quote.usd is None or quote.usd > left.usd):
        return f"the next proposal could exceed the budget of ${budget.usd:g}"
    return ""


def settlement(answer: Answer, quote: Money) -> Money:
    """What an answer cost; the whole quote where a call may have been billed but was not counted."""
    paid = sum((Money(1, call.cost_usd) for call in answer.calls), Money())
    return Money(paid.calls, quote.usd) if paid.usd is None else paid


def _session() -> str:
    """A name for this driver session: process and start time are enough under the folder's lock."""
    return f"{os.getpid()}-{time.time_ns()}"
