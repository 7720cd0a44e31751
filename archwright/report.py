"""What a run amounts to, as rows: leaderboard, summary, and the other tables of `inspect`.

Reads the ledger and the standings; prints nothing. Every table a person sees comes from these rows.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from archwright.recipe import Recipe, parse
from archwright.setup import arms_of
from archwright.standings import Estimate, Standing, estimate, interval, noise, standings
from storage import queries
from storage.models import Agent, Candidate, Evaluation, LLMCall, Proposal


def recipe_of(db: Session) -> Recipe:
    """The recipe of the ledger's campaign. Raises ValueError for an empty ledger."""
    campaign = queries.campaign(db)
    if campaign is None:
        raise ValueError("the ledger holds no campaign: start one with `archwright run`")
    return parse(campaign.recipe, "the stored recipe")


def leaderboard(db: Session, limit: int | None = None) -> list[dict[str, Any]]:
    """Ranked candidates: those confirmed on the sealed split first, then what the search saw.

    ``flops_ratio`` is FLOPs per token over those of the ledger's first candidate, the first reference
    where the recipe has one: candidates of other depths do not cost the same.
    """
    recipe, scores = recipe_of(db), queries.scores(db)
    finders, known = _finders(db), queries.candidates(db)
    ranked = standings(scores, recipe.confirm.level)[:limit]
    norm = next((c.flops_per_token for c in known.values()), 1.0)  # of the first reference
    return [_row(s, known[s.candidate], finders.get(s.candidate, ""), norm) for s in ranked]


def _row(standing: Standing, candidate: Candidate, agent: str, norm: float) -> dict[str, Any]:
    return {
        "rank": standing.rank,
        "candidate": candidate.id,
        "name": candidate.name,
        "pattern": candidate.pattern,
        "score": standing.estimate.mean,
        "stderr": standing.estimate.stderr,
        "sealed": standing.sealed,
        "tied": standing.tied,
        "params": candidate.params,
        "flops_per_token": candidate.flops_per_token,
        "flops_ratio": candidate.flops_per_token / norm,
        "state_bytes": candidate.state_bytes,
        "agent": agent,
        "evaluations": standing.estimate.n,
    }


def _finders(db: Session) -> dict[int, str]:
    """The agent that proposed each candidate first."""
    finders: dict[int, str] = {}
    for proposal in queries.proposals(db):
        if proposal.candidate_id is not None:
            finders.setdefault(proposal.candidate_id, proposal.agent.name)
    return finders


def summary(db: Session, run: str) -> dict[str, Any]:
    """The outcome of a run: its best candidate, the controls' beside it, and what it took."""
    campaign, best = queries.campaign(db), leaderboard(db, limit=1)
    assert campaign is not None, "recipe_of has seen it"
    counts = queries.states(db)
    deviation, _ = noise(queries.scores(db), sealed=True)
    return {
        "run": run,
        "status": campaign.status,
        "evaluations": counts.get("done", 0) + counts.get("failed", 0),
        "failures": counts.get("failed", 0) + queries.failed_proposals(db),
        "best": best[0] if best else None,
        "noise": deviation,
        "controls": controls(db),
        "spend": spend(db),
        "seconds": campaign.seconds,
    }


def controls(db: Session) -> list[dict[str, Any]]:
    """Each control's best confirmed candidate, and the search's advantage over it with an interval."""
    recipe, scores = recipe_of(db), queries.scores(db)
    chosen = (queries.decision(db, "confirm") or {"finalists": {}})["finalists"]
    sealed_noise = noise(scores, sealed=True)
    estimates = {
        arm: [
            (c, estimate(list(scores[c, True].values()), sealed_noise[0]))
            for c in candidates
            if scores.get((c, True))
        ]
        for arm, candidates in chosen.items()
    }
    known, rows = queries.candidates(db), []
    search = _best(estimates.get("search", []))
    for arm in arms_of(recipe)[1:]:
        best = _best(estimates.get(arm.name, []))
        if best is not None:
            row = {"agent": arm.name, "candidate": best[0], "pattern": known[best[0]].pattern}
            row |= {"score": best[1].mean, "stderr": best[1].stderr}
            rows.append(row | _advantage(search, best, sealed_noise, recipe.confirm.level))
    return rows


def _best(rows: list[tuple[int, Estimate]]) -> tuple[int, Estimate] | None:
    return max(rows, key=lambda row: row[1].mean, default=None)


def _advantage(
    search: tuple[int, Estimate] | None,
    control: tuple[int, Estimate],
    noise: tuple[float | None, int],
    level: float,
) -> dict[str, float | None]:
    if search is None:
        return {"advantage": None, "low": None, "high": None}
    reach = interval(search[1], control[1], *noise, level) if search[0] != control[0] else (0, 0)
    low, high = reach or (None, None)
    return {"advantage": search[1].mean - control[1].mean, "low": low, "high": high}


def spend(db: Session) -> dict[str, Any]:
    """What the run took: model calls, tokens and money; evaluation seconds, tokens and FLOPs."""
    money = queries.spent(db)
    return {"calls": money.calls, "usd": money.usd, **queries.totals(db)}


def candidate(db: Session, identity: int) -> dict[str, Any]:
    """Everything about one candidate. Raises ValueError when there is none of that id."""
    row = db.get(Candidate, identity)
    if row is None:
        last = max(queries.candidates(db), default=0)
        raise ValueError(f"there is no candidate {identity}: ids run from 1 to {last}")
    columns = {c.name: getattr(row, c.name) for c in Candidate.__table__.columns}
    proposals = [p for p in queries.proposals(db) if p.candidate_id == identity]
    evaluations = [e for e in queries.evaluations(db) if e.candidate_id == identity]
    return {
        **columns,
        "proposals": [_proposal(p) for p in proposals],
        "evaluations": [_evaluation(db, e) for e in evaluations],
    }


def _proposal(row: Proposal) -> dict[str, Any]:
    return {
        "slot": row.slot,
        "agent": row.agent.name,
        "operator": row.operator,
        "reason": row.reason,
        "parents": [parent.candidate_id for parent in row.parents],
        "hypothesis": row.hypothesis,
        "reasoning": row.reasoning,
        "expected_effect": row.expected_effect,
        "status": row.status,
    }


def _evaluation(db: Session, row: Evaluation) -> dict[str, Any]:
    names = ("id", "profile", "rung", "seed", "sealed", "state", "attempt", "failure", "detail")
    spent = ("steps", "tokens", "flops", "seconds")
    return {
        **{name: getattr(row, name) for name in (*names, *spent)},
        "measurements": queries.metrics(db, row.id),
    }


def candidates(db: Session, limit: int | None = None) -> list[dict[str, Any]]:
    """Every proposal in slot order with the score that the search saw."""
    scores, rows = queries.scores(db), []
    for p in queries.proposals(db)[:limit]:
        values = list(scores.get((p.candidate_id or 0, False), {}).values())
        rows.append(
            {
                "slot": p.slot,
                "agent": p.agent.name,
                "operator": p.operator,
                "candidate": p.candidate_id,
                "pattern": p.candidate.pattern if p.candidate else None,
                "status": p.status,
                "score": sum(values) / len(values) if values else None,
            }
        )
    return rows


def agents(db: Session) -> list[dict[str, Any]]:
    """Each agent with what it proposed and the best score the search saw of it."""
    scores, everything = queries.scores(db), queries.proposals(db)
    return [
        _agent(agent, [p for p in everything if p.agent_id == agent.id], scores)
        for agent in queries.agents(db)
    ]


def _agent(agent: Agent, proposals: list[Proposal], scores: Any) -> dict[str, Any]:
    seen = [v for p in proposals for v in scores.get((p.candidate_id or 0, False), {}).values()]
    states = [p.status for p in proposals]
    return {
        "agent": agent.name,
        "role": agent.role,
        "scaffold": agent.scaffold,
        "proposer": agent.proposer,
        "model": agent.model,
        **{status: states.count(status) for status in ("accepted", "duplicate", "failed")},
        "best_seen": max(seen, default=None),
    }


def failures(db: Session, limit: int | None = None) -> list[dict[str, Any]]:
    """Failed proposals and evaluations, with their kind and what was said."""
    query = "SELECT * FROM failures" + (f" LIMIT {limit:d}" if limit is not None else "")
    return [dict(row._mapping) for row in db.execute(text(query))]


def spend_by_agent(db: Session, limit: int | None = None) -> list[dict[str, Any]]:
    """Model calls by agent and model."""
    query = "SELECT * FROM spend" + (f" LIMIT {limit:d}" if limit is not None else "")
    return [dict(row._mapping) for row in db.execute(text(query))]


def call(db: Session, identity: int) -> LLMCall:
    """One model call. Raises ValueError when there is none of that id."""
    row = db.get(LLMCall, identity)
    if row is None:
        raise ValueError(f"there is no call {identity}: `inspect RUN calls` lists them")
    return row
