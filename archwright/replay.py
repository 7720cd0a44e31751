"""Replays a recorded evaluation: the same job in this process, compared bit for bit."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from archwright.candidates import job_of
from archwright.environment import facts
from archwright.provenance import check_unchanged
from archwright.report import leaderboard, recipe_of
from evaluator import memory
from evaluator.evaluate import evaluate
from storage.models import Candidate, Environment, Evaluation, Measurement


def replay(db: Session, identity: int | None) -> dict[str, Any]:
    """Re-train a candidate (by default the best) as one recorded evaluation and compare.

    That is the sealed one if there is one, else that at the highest rung, trained here in one piece.
    Raises ValueError where there is nothing to replay.
    """
    chosen = identity if identity is not None else _best(db)
    evaluation, recorded = _recorded(db, chosen)
    recipe = recipe_of(db)
    check_unchanged(recipe, evaluation.profile, evaluation.facts)
    memory.bound(workers=1)
    pattern, rung = evaluation.candidate.pattern, evaluation.rung
    job = job_of(recipe, pattern, evaluation.seed, evaluation.sealed, rung)
    result = evaluate(job)
    again = result.score(job.split)
    return {
        "candidate": chosen,
        "pattern": job.pattern,
        "rung": rung,
        "seed": job.seed,
        "split": job.split,
        "recorded": recorded,
        "replayed": again,
        "match": again == recorded,
        "difference": None if again is None else again - recorded,
        "same_environment": _same_environment(db),
    }


def _best(db: Session) -> int:
    rows = leaderboard(db, limit=1)
    if not rows:
        raise ValueError("no candidate of this run has a score: let it run further")
    return int(rows[0]["candidate"])


def _recorded(db: Session, candidate: int) -> tuple[Evaluation, float]:
    if db.get(Candidate, candidate) is None:
        raise ValueError(f"there is no candidate {candidate}: `inspect RUN candidates` lists them")
    query = (
        select(Evaluation, Measurement.value)
        .join(Measurement, Measurement.evaluation_id == Evaluation.id)
        .where(Evaluation.candidate_id == candidate, Measurement.metric == "score")
        .order_by(Evaluation.sealed.desc(), Evaluation.rung.desc(), Evaluation.id)
    )
    found = db.execute(query.limit(1)).first()
    if found is None:
        raise ValueError(f"candidate {candidate} has no score to compare with: it failed or waits")
    return found[0], found[1]


def _same_environment(db: Session) -> bool:
    """Whether torch and the processor are those of the run: else a difference is no wonder."""
    row = db.scalar(select(Environment).order_by(Environment.id).limit(1))
    now = facts()
    if row is None:
        return False
    return bool(
        row.device == now["device"] and row.packages.get("torch") == now["packages"]["torch"]
    )
