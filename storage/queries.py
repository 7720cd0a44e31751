"""Questions to the ledger: rows for the driver, the commands and the reports. Writes nothing.

What a row means for a decision (ranks, ties, intervals) is `archwright.report`'s.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, selectinload

from storage.models import (
    Agent,
    BudgetEntry,
    Campaign,
    Candidate,
    Decision,
    Evaluation,
    GateCheck,
    LLMCall,
    Measurement,
    Proposal,
)
from storage.records import Money, Node


def campaign(db: Session) -> Campaign | None:
    """The ledger's campaign."""
    return db.scalar(select(Campaign).order_by(Campaign.id).limit(1))


def agents(db: Session) -> Sequence[Agent]:
    """The agents in the recipe's order."""
    return db.scalars(select(Agent).order_by(Agent.id)).all()


def proposals(db: Session) -> Sequence[Proposal]:
    """All proposals in slot order, with their agents, candidates and parents."""
    query = select(Proposal).order_by(Proposal.slot)
    loaded = (
        selectinload(Proposal.agent),
        selectinload(Proposal.candidate),
        selectinload(Proposal.parents),
    )
    return db.scalars(query.options(*loaded)).all()


def evaluations(db: Session, state: str | None = None) -> Sequence[Evaluation]:
    """Evaluations in the order they were queued, with their candidates."""
    query = select(Evaluation).order_by(Evaluation.id).options(selectinload(Evaluation.candidate))
    return db.scalars(query if state is None else query.filter_by(state=state)).all()


def unfinished(db: Session, candidate: int, seeds: Sequence[int], rung: int = 0) -> set[int]:
    """The candidate's evaluations at these seeds and this rung that have not ended."""
    query = select(Evaluation.id).where(
        Evaluation.candidate_id == candidate,
        Evaluation.rung == rung,
        Evaluation.seed.in_(seeds),
        Evaluation.state.in_(("queued", "running")),
    )
    return set(db.scalars(query))


def node(db: Session, proposal: Proposal, seed: int) -> Node:
    """A finished slot as agents see it, scored at the search seed and the slot's rung."""
    evaluation = measurement = None
    if proposal.candidate_id is not None:
        key = {"candidate_id": proposal.candidate_id, "seed": seed, "sealed": False}
        key["rung"] = proposal.rung
        evaluation = db.scalar(select(Evaluation).filter_by(**key))
    if evaluation is not None:
        measurement = db.scalar(
            select(Measurement.value).filter_by(evaluation_id=evaluation.id, metric="score")
        )
    candidate = proposal.candidate
    return Node(
        slot=proposal.slot,
        agent=proposal.agent.name,
        candidate=proposal.candidate_id,
        pattern=candidate.pattern if candidate else "",
        operator=proposal.operator or "",
        hypothesis=proposal.hypothesis,
        parents=tuple(parent.candidate_id for parent in proposal.parents),
        status=proposal.status,
        score=measurement,
        failure=proposal.failure or (evaluation.failure if evaluation else None),
        detail=proposal.detail or (evaluation.detail if evaluation else ""),
        params=candidate.params if candidate else 0,
        flops_per_token=candidate.flops_per_token if candidate else 0.0,
        state_bytes=candidate.state_bytes if candidate else 0,
        rung=proposal.rung,
        name=candidate.name if candidate else None,
        checks=_failed_checks(db, candidate),
    )


def _failed_checks(db: Session, candidate: Candidate | None) -> tuple[tuple[str, str], ...]:
    """The checks of the gate that a written candidate failed, each with what was found."""
    if candidate is None or not candidate.prints:
        return ()
    rows = certificate(db, candidate.id)
    return tuple((row["name"], row["detail"]) for row in rows if row["verdict"] == "fail")


def spent(db: Session, seen: int | None = None) -> Money:
    """What model calls have cost so far, open reservations included.

    With ``seen``, the slots from it on count at all that was ever reserved for them, whether or not they
    have been settled for less.
    """
    query = select(Proposal.slot, BudgetEntry).join(Proposal).order_by(BudgetEntry.id)
    by_slot: dict[int, list[BudgetEntry]] = defaultdict(list)
    for slot, entry in db.execute(query):
        by_slot[slot].append(entry)
    total = Money()
    for slot, entries in by_slot.items():
        reserved = [Money(e.calls, e.usd) for e in entries if e.kind == "reserve"]
        settled = [Money(e.calls, e.usd) for e in entries if e.kind == "settle"]
        worst = seen is not None and slot >= seen
        for money in reserved if worst else settled + reserved[len(settled) :]:
            total += money
    return total


def scores(db: Session, rung: int = 0) -> dict[tuple[int, bool], dict[int, float]]:
    """Scores by (candidate, sealed) and seed, at one rung."""
    query = (
        select(Evaluation.candidate_id, Evaluation.sealed, Evaluation.seed, Measurement.value)
        .join(Measurement, Measurement.evaluation_id == Evaluation.id)
        .where(Measurement.metric == "score", Evaluation.rung == rung)
        .order_by(Evaluation.id)
    )
    table: dict[tuple[int, bool], dict[int, float]] = defaultdict(dict)
    for candidate, sealed, seed, value in db.execute(query):
        table[candidate, sealed][seed] = value
    return table


def scores_of(db: Session, candidate: int, seeds: Sequence[int], rung: int = 0) -> list[float]:
    """A candidate's scores at these seeds and this rung, in their order; failed ones have none."""
    query = (
        select(Evaluation.seed, Measurement.value)
        .join(Measurement, Measurement.evaluation_id == Evaluation.id)
        .where(Evaluation.candidate_id == candidate, Evaluation.rung == rung)
        .where(Measurement.metric == "score")
    )
    found = dict(db.execute(query).all())
    return [found[seed] for seed in seeds if seed in found]


def checkpoint(db: Session, evaluation: Evaluation) -> str | None:
    """The SHA-256 of where the evaluation's training stopped at the rung below, if that is kept."""
    query = select(Evaluation.checkpoint).filter_by(
        candidate_id=evaluation.candidate_id,
        profile=evaluation.profile,
        seed=evaluation.seed,
        rung=evaluation.rung - 1,
    )
    return db.scalar(query)


def attempt(db: Session, evaluation: int) -> int:
    """How often an evaluation was started."""
    return db.get_one(Evaluation, evaluation).attempt


def reason(db: Session, what: str) -> str | None:
    """The reason of the first decision of this kind."""
    return db.scalar(select(Decision.reason).filter_by(what=what).order_by(Decision.id).limit(1))


def numbers(db: Session, what: str) -> Sequence[dict[str, Any]]:
    """The numbers of all decisions of this kind, oldest first."""
    return db.scalars(select(Decision.numbers).filter_by(what=what).order_by(Decision.id)).all()


def decision(db: Session, what: str) -> dict[str, Any] | None:
    """The numbers of the first decision of this kind."""
    query = select(Decision.numbers).filter_by(what=what).order_by(Decision.id).limit(1)
    return db.scalar(query)


def candidates(db: Session) -> dict[int, Candidate]:
    """All candidates by id."""
    return {row.id: row for row in db.scalars(select(Candidate).order_by(Candidate.id))}


def states(db: Session) -> dict[str, int]:
    """How many evaluations are in each state."""
    query = select(Evaluation.state, func.count()).group_by(Evaluation.state)
    return dict(db.execute(query).all())


def failed_proposals(db: Session) -> int:
    """How many proposals failed."""
    return db.scalar(select(func.count()).select_from(Proposal).filter_by(status="failed")) or 0


def totals(db: Session) -> dict[str, float]:
    """Evaluation seconds, tokens and FLOPs, and model tokens, over the whole run."""
    columns = (Evaluation.seconds, Evaluation.tokens, Evaluation.flops)
    trained = db.execute(select(*(func.coalesce(func.sum(c), 0) for c in columns))).one()
    said = db.execute(select(func.sum(LLMCall.input_tokens), func.sum(LLMCall.output_tokens))).one()
    names = ("evaluation_seconds", "trained_tokens", "training_flops")
    return {
        **dict(zip(names, trained, strict=True)),
        "input_tokens": said[0] or 0,
        "output_tokens": said[1] or 0,
    }


def metrics(db: Session, evaluation: int) -> list[dict[str, Any]]:
    """The measurements of one evaluation."""
    query = select(Measurement).filter_by(evaluation_id=evaluation).order_by(Measurement.id)
    return [{"metric": m.metric, "split": m.split, "value": m.value} for m in db.scalars(query)]


def began_with(db: Session) -> tuple[str, dict[str, str]] | None:
    """The profile of the run's evaluations and the facts of their data, of the first that has some."""
    query = select(Evaluation).order_by(Evaluation.id).limit(1)
    first = db.scalar(query)
    if first is None:
        return None
    known = db.scalar(query.where(Evaluation.state == "done"))
    return first.profile, dict(known.facts) if known else {}


def means(db: Session, wanted: Callable[[str], bool]) -> dict[tuple[int, bool], dict[str, float]]:
    """The means of the ``wanted`` measurements by (candidate, sealed) and metric.

    What an evaluation measures is the same throughout a run, so the first one tells whether there are any.
    """
    first = select(func.min(Evaluation.id)).where(Evaluation.state == "done").scalar_subquery()
    measured = db.scalars(select(Measurement.metric).where(Measurement.evaluation_id == first))
    names = [name for name in measured if wanted(name)]
    keys = Evaluation.candidate_id, Evaluation.sealed, Measurement.metric
    query = (
        select(*keys, func.avg(Measurement.value))
        .join(Measurement, Measurement.evaluation_id == Evaluation.id)
        .where(Measurement.metric.in_(names))
        .group_by(*keys)
    )
    table: dict[tuple[int, bool], dict[str, float]] = defaultdict(dict)
    for candidate, sealed, metric, value in db.execute(query) if names else ():
        table[candidate, sealed][metric] = value
    return table


def runs(db: Session, ending: str, rung: int) -> dict[tuple[int, bool], dict[str, list[float]]]:
    """By (candidate, sealed) and metric without that ``ending``: its values at a rung, an evaluation each."""
    query = (
        select(Evaluation.candidate_id, Evaluation.sealed, Measurement.metric, Measurement.value)
        .join(Measurement, Measurement.evaluation_id == Evaluation.id)
        .where(Measurement.metric.endswith(ending, autoescape=True), Evaluation.rung == rung)
        .order_by(Measurement.id)
    )
    table: dict[tuple[int, bool], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for candidate, sealed, metric, value in db.execute(query):
        table[candidate, sealed][metric.removesuffix(ending)].append(value)
    return table


def certificate(db: Session, candidate: int) -> list[dict[str, Any]]:
    """What the gate found of a written candidate, in the order of its checks."""
    names = ("name", "verdict", "detail", "seconds")
    columns = [GateCheck.__table__.columns[name] for name in names]
    return table(db, select(*columns).filter_by(candidate_id=candidate).order_by(GateCheck.id))


def refused(db: Session) -> set[int]:
    """The written candidates that the gate refused."""
    return set(db.scalars(select(GateCheck.candidate_id).filter_by(verdict="fail")))


def lineage(db: Session, candidate: int) -> list[dict[str, Any]]:
    """A candidate and its ancestors, nearest first, each with the proposal that made it first."""
    rows, todo, seen = [], [(candidate, 0)], set()
    while todo:
        current, depth = todo.pop(0)
        if current in seen:
            continue
        seen.add(current)
        query = select(Proposal).filter_by(candidate_id=current).order_by(Proposal.slot).limit(1)
        proposal = db.scalar(query)
        if proposal is None or proposal.candidate is None:
            continue
        parents = [parent.candidate_id for parent in proposal.parents]
        rows.append(_ancestor(proposal, proposal.candidate, parents, depth))
        todo += [(parent, depth + 1) for parent in parents]
    return rows


def _ancestor(
    proposal: Proposal, candidate: Candidate, parents: list[int], depth: int
) -> dict[str, Any]:
    return {
        "candidate": candidate.id,
        "depth": depth,
        "name": candidate.name,
        "pattern": candidate.pattern,
        "slot": proposal.slot,
        "agent": proposal.agent.name,
        "operator": proposal.operator,
        "parents": parents,
        "hypothesis": proposal.hypothesis,
    }


def table(db: Session, query: Select[Any]) -> list[dict[str, Any]]:
    """The rows of a query as dictionaries."""
    return [dict(row._mapping) for row in db.execute(query)]


def calls_of(db: Session, agent: int) -> list[list[LLMCall]]:
    """The calls of each slot for which an agent was asked, in slot order, without those that are lost."""
    asked = select(Proposal.id).where(Proposal.agent_id == agent, Proposal.status != "promoted")
    slots: dict[int, list[LLMCall]] = {id_: [] for id_ in db.scalars(asked.order_by(Proposal.slot))}
    query = select(LLMCall).where(LLMCall.proposal_id.in_(asked), LLMCall.outcome != "lost")
    for call in db.scalars(query.order_by(LLMCall.id)):
        slots[call.proposal_id].append(call)
    return list(slots.values())


def calls_in(db: Session, slot: int) -> Sequence[LLMCall]:
    """The calls of one slot, oldest first, without those that are lost."""
    query = select(LLMCall).join(Proposal).where(Proposal.slot == slot, LLMCall.outcome != "lost")
    return db.scalars(query.order_by(LLMCall.id)).all()


def calls(db: Session, limit: int | None = None) -> list[dict[str, Any]]:
    """Model calls, oldest first."""
    columns = [c for c in LLMCall.__table__.columns if c.name not in ("request_sha", "reply_sha")]
    return table(db, select(*columns).order_by(LLMCall.id).limit(limit))


def decisions(db: Session, limit: int | None = None) -> list[dict[str, Any]]:
    """What the driver decided, with reasons and numbers, oldest first."""
    columns = Decision.created, Decision.what, Decision.reason, Decision.numbers
    return table(db, select(*columns).order_by(Decision.id).limit(limit))
