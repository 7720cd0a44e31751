"""What a run amounts to, as rows: leaderboard, summary, and the other tables of `inspect`.

Reads the ledger and the standings; prints nothing. Every table a person sees comes from these rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from statistics import fmean
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from archwright import script_report
from archwright.recipe import Recipe, parse
from archwright.schedule import STOPPING
from archwright.setup import arms_of
from archwright.standings import (
    Estimate,
    Scores,
    Standing,
    estimate,
    interval,
    ladder,
    noise,
    rank_correlation,
)
from archwright.submissions import rates
from archwright.submissions import tasks as by_task
from search_space.pattern import Pattern
from storage import queries
from storage.models import Agent, Candidate, Evaluation, LLMCall, Proposal
from storage.records import Money

SHORTCUT, STANDIN = "shortcut_", "standin"  # how tasks name such figures
STATUSES = ("accepted", "duplicate", "failed", "promoted")


def recipe_of(db: Session) -> Recipe:
    """The recipe of the ledger's campaign. Raises ValueError for an empty ledger."""
    campaign = queries.campaign(db)
    if campaign is None:
        raise ValueError("the ledger holds no campaign: start one with `archwright run`")
    return parse(campaign.recipe, "the stored recipe")


def leaderboard(db: Session, limit: int | None = None) -> list[dict[str, Any]]:
    """Ranked candidates: those confirmed on the sealed split first, then what the search saw, the last
    rung before the others: only scores of one rung compare.

    ``flops_ratio`` is FLOPs per token over those of the first candidate proposed, the first reference
    where the recipe has one: candidates of other depths do not cost the same. ``standin``
    says that the data were generated in place of a benchmark's, so that no published score compares;
    ``shortcuts`` what blind rules reach on the same data.
    """
    finders, known, beside = _finders(db), queries.candidates(db), queries.means(db, _is_beside)
    ranked = ladder(_scores(db), recipe_of(db).confirm.level)[:limit]
    norm = next((known[c].flops_per_token for c in finders), 0.0)  # of the first reference
    return [
        _row(s, known[s.candidate], finders.get(s.candidate, ""), norm)
        | _beside(beside.get((s.candidate, s.sealed), {}))
        for s in ranked
    ]


def shortcuts(db: Session) -> dict[str, float]:
    """What blind rules reach on the data of the search, on average over its evaluations."""
    found = queries.means(db, lambda name: SHORTCUT in name)
    seen = [means for (_, sealed), means in found.items() if not sealed]
    return {name: fmean(means[name] for means in seen) for name in (seen[0] if seen else {})}


def _is_beside(metric: str) -> bool:
    """Whether a measurement is not of the candidate but of the data, for its scores to be read with."""
    return metric.rpartition("/")[2].startswith((SHORTCUT, STANDIN))


def _beside(found: Mapping[str, float]) -> dict[str, Any]:
    shortcuts = {name: value for name, value in found.items() if f"/{SHORTCUT}" in name}
    return {"standin": len(shortcuts) < len(found), "shortcuts": shortcuts}


def _scores(db: Session) -> list[Scores]:
    """The scores at each rung, from 0."""
    return [queries.scores(db, rung) for rung in range(recipe_of(db).rungs.count)]


def _row(standing: Standing, candidate: Candidate, agent: str, norm: float) -> dict[str, Any]:
    score, script = standing.estimate.mean, candidate.kind == "script"
    return {
        "rank": standing.rank,
        "candidate": candidate.id,
        "name": candidate.name,
        "pattern": candidate.pattern,
        "score": score,
        "stderr": standing.estimate.stderr,
        "bits_per_byte": script_report.bits_per_byte(score) if script else None,
        "sealed": standing.sealed,
        "rung": standing.rung,
        "tied": standing.tied,
        "params": candidate.params,
        "flops_per_token": candidate.flops_per_token,
        "flops_ratio": candidate.flops_per_token / norm if norm else None,
        "state_bytes": candidate.state_bytes if candidate.kind == "composition" else None,
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
    deviation, _ = noise(_scores(db)[-1])
    _, facts = queries.began_with(db) or ("", {})
    return {
        "run": run,
        "kind": recipe_of(db).kind,
        "status": campaign.status,
        "evaluations": counts.get("done", 0) + counts.get("failed", 0),
        "failures": counts.get("failed", 0) + queries.failed_proposals(db),
        "best": best[0] if best else None,
        "noise": deviation,
        "controls": controls(db),
        "rungs": rungs(db),
        "challenges": challenges(db),
        "drift": drift(db),
        "submissions": submissions(db),
        "tasks": tasks(db),
        "facts": facts,
        "spend": spend(db),
        "stopped": stopped(db),
        "seconds": campaign.seconds,
    }


def controls(db: Session) -> list[dict[str, Any]]:
    """Each control's best confirmed candidate, and the search's advantage over it with an interval."""
    recipe, scores = recipe_of(db), _scores(db)[-1]
    chosen = (queries.decision(db, "confirm") or {"finalists": {}})["finalists"]
    found_noise = noise(scores)
    estimates = {
        arm: [
            (c, estimate(list(scores[c, True].values()), found_noise[0]))
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
            rows.append(row | _advantage(search, best, found_noise, recipe.confirm.level))
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


def rungs(db: Session) -> list[dict[str, Any]]:
    """Each rung's rank correlation with the next one, over the candidates that have both scores.

    These are the references and who was promoted. Being the best of a rung, the latter differ less from
    each other than all candidates do, so over all of them the correlation would be higher.
    """
    table, level = _scores(db), recipe_of(db).confirm.level
    rows = []
    for rung, (lower, upper) in enumerate(pairwise(table)):
        found = rank_correlation(_pairs(lower, upper), level)
        numbers = {"correlation": found.value, "low": found.low, "high": found.high}
        rows.append({"rung": rung, "next": rung + 1, "candidates": found.n, **numbers})
    return rows


def _pairs(lower: Scores, upper: Scores) -> list[tuple[float, float]]:
    """The search's scores of each candidate at two rungs, over the seeds that it has at both."""
    pairs = []
    for key in sorted(key for key in lower if key in upper and not key[1]):
        if seeds := lower[key].keys() & upper[key].keys():
            pairs.append((_mean(lower[key], seeds), _mean(upper[key], seeds)))
    return pairs


def _mean(scores: Mapping[int, float], seeds: Iterable[int]) -> float:
    return fmean(scores[seed] for seed in seeds)


def challenges(db: Session) -> list[dict[str, Any]]:
    """Of scripts: each challenge with its gain and error, in bits per byte (`archwright.script_report`)."""
    return script_report.challenges(db)


def drift(db: Session) -> list[dict[str, Any]]:
    """Of scripts: the baseline's runs at each time."""
    recipe = recipe_of(db)
    return script_report.drift(db, recipe) if recipe.kind == "script" else []


def spend(db: Session) -> dict[str, Any]:
    """What the run took: model calls, tokens and money; evaluation seconds, tokens and FLOPs."""
    money = queries.spent(db)
    return {"calls": money.calls, "usd": money.usd, **queries.totals(db)}


def stopped(db: Session) -> dict[str, str]:
    """The agents that cannot go on, as their key is refused, with what the provider said."""
    rows = [p for p in queries.proposals(db) if p.failure in STOPPING]
    return {p.agent.name: p.detail for p in reversed(rows)}


def candidate(db: Session, identity: int) -> dict[str, Any]:
    """Everything about one candidate. Raises ValueError when there is none of that id."""
    row = db.get(Candidate, identity)
    if row is None:
        last = max(queries.candidates(db), default=0)
        raise ValueError(f"there is no candidate {identity}: ids run from 1 to {last}")
    columns = {c.name: getattr(row, c.name) for c in Candidate.__table__.columns}
    proposals = [p for p in queries.proposals(db) if p.candidate_id == identity]
    evaluations = [e for e in queries.evaluations(db) if e.candidate_id == identity]
    layers = () if row.kind == "script" else Pattern.parse(row.pattern).layers
    codes = {layer.code for layer in layers}
    return {
        **columns,
        "primitives": [taken for taken in primitives(db) if taken["code"] in codes],
        "proposals": [_proposal(p) for p in proposals],
        "evaluations": [_evaluation(db, e) for e in evaluations],
        "certificate": queries.certificate(db, identity),
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
        "rung": row.rung,
    }


def _evaluation(db: Session, row: Evaluation) -> dict[str, Any]:
    names = ("id", "profile", "rung", "seed", "sealed", "state", "attempt", "failure", "detail")
    spent = ("steps", "tokens", "flops", "seconds")
    return {
        **{name: getattr(row, name) for name in (*names, *spent)},
        "facts": row.facts,
        "measurements": queries.metrics(db, row.id),
    }


def candidates(db: Session, limit: int | None = None) -> list[dict[str, Any]]:
    """Every slot with the score that the search saw of it, promotions among them."""
    scores, rows = _scores(db), []
    for p in queries.proposals(db)[:limit]:
        values = list(scores[p.rung].get((p.candidate_id or 0, False), {}).values())
        rows.append(
            {
                "slot": p.slot,
                "agent": p.agent.name,
                "operator": p.operator,
                "candidate": p.candidate_id,
                "pattern": p.candidate.pattern if p.candidate else None,
                "name": p.candidate.name if p.candidate else None,
                "status": p.status,
                "rung": p.rung,
                "score": sum(values) / len(values) if values else None,
            }
        )
    return rows


def tasks(db: Session) -> list[dict[str, Any]]:
    """Raw and normalised scores of training in full, by agent or reference and task."""
    return by_task(db, recipe_of(db).rungs.last)


def submissions(db: Session) -> list[dict[str, Any]]:
    """The share of each agent's proposals that was measured, with its interval, and its mean normalised
    scores: as the search saw them, and confirmed."""
    return rates(db, recipe_of(db).confirm.level, tasks(db))


def agents(db: Session) -> list[dict[str, Any]]:
    """Each agent with what it proposed, what of it was promoted, the best score seen at the highest rung
    it reached, its calls and what they cost (None: not known), and why it was stopped, if it was."""
    scores, everything = _scores(db), queries.proposals(db)
    spending, ended = spend_by_agent(db), stopped(db)
    return [
        {
            **_agent(agent, [p for p in everything if p.agent_id == agent.id], scores),
            **_paid(row for row in spending if row["agent"] == agent.name),
            "stopped": ended.get(agent.name),
        }
        for agent in queries.agents(db)
    ]


def _paid(spending: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Calls and cost over all models of an agent."""
    money = sum((Money(row["calls"], row["usd"]) for row in spending), Money())
    return {"calls": money.calls, "usd": money.usd}


def _agent(agent: Agent, proposals: list[Proposal], scores: list[Scores]) -> dict[str, Any]:
    seen = [
        (p.rung, value)
        for p in proposals
        for value in scores[p.rung].get((p.candidate_id or 0, False), {}).values()
    ]
    rung, best = max(seen, default=(None, None))
    states = [p.status for p in proposals]
    return {
        "agent": agent.name,
        "role": agent.role,
        "scaffold": agent.scaffold,
        "proposer": agent.proposer,
        "model": agent.model,
        **{status: states.count(status) for status in STATUSES},
        "rung": rung,
        "best_seen": best,
    }


def primitives(db: Session) -> list[dict[str, Any]]:
    """The written primitives that the run took from earlier ones, with the candidate here that holds the
    source and the certificate."""
    known = {c.name: c.id for c in queries.candidates(db).values() if c.kind == "module"}
    return [
        {"code": code, "candidate": known[one.ledger], **one.model_dump(exclude={"source"})}
        for code, one in recipe_of(db).space.written.items()
    ]


def failures(db: Session, limit: int | None = None) -> list[dict[str, Any]]:
    """Failed proposals and evaluations, with their kind and what was said."""
    query = "SELECT * FROM failures" + (f" LIMIT {limit:d}" if limit is not None else "")
    return [dict(row._mapping) for row in db.execute(text(query))]


def spend_by_agent(db: Session, limit: int | None = None) -> list[dict[str, Any]]:
    """Model calls by agent and model; ``usd`` is None where the cost of any of them is not known, and
    ``known_usd`` what the others cost."""
    query = "SELECT * FROM spend" + (f" LIMIT {limit:d}" if limit is not None else "")
    rows = [dict(row._mapping) for row in db.execute(text(query))]
    return [
        {**row, "usd": None if row["calls_without_price"] else row["known_usd"]} for row in rows
    ]


def call(db: Session, identity: int) -> LLMCall:
    """One model call. Raises ValueError when there is none of that id."""
    row = db.get(LLMCall, identity)
    if row is None:
        raise ValueError(f"there is no call {identity}: `inspect RUN calls` lists them")
    return row
