"""Replays a recorded evaluation: the same job in this process, compared bit for bit."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from archwright.candidates import job_of, profile_label
from archwright.environment import facts
from archwright.report import leaderboard, recipe_of
from evaluator.evaluate import evaluate
from storage.models import Candidate, Environment, Evaluation, Measurement


def replay(db: Session, identity: int | None) -> dict[str, Any]:
    """Re-train a candidate (by default the best) as its first recorded evaluation and compare.

    Raises ValueError where there is nothing to replay.
    """
    chosen = identity if identity is not None else _best(db)
    evaluation, recorded = _recorded(db, chosen)
    recipe = recipe_of(db)
    if evaluation.profile != profile_label(recipe):
        raise ValueError(
            f"the profile {recipe.evaluation.profile} has changed since the run ({evaluation.profile} "
            f"is now {profile_label(recipe)}): check out the commit in the run's environment table"
        )
    job = job_of(recipe, evaluation.candidate.pattern, evaluation.seed, evaluation.sealed)
    result = evaluate(job)
    again = result.score(job.split)
    return {
        "candidate": chosen,
        "pattern": job.pattern,
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
        .order_by(Evaluation.sealed.desc(), Evaluation.id)
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
