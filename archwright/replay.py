"""Replays a recorded evaluation: the same job in this process, compared bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from archwright import scripts, written
from archwright.candidates import job_of
from archwright.environment import facts
from archwright.provenance import check_unchanged
from archwright.recipe import Recipe
from archwright.report import leaderboard, recipe_of
from archwright.standings import margin
from archwright.standings import noise as noise_of
from evaluator import memory
from evaluator.evaluate import evaluate
from evaluator.outcome import Result
from storage import blobs, queries
from storage.ledger import BLOBS
from storage.models import Candidate, Environment, Evaluation, Measurement


def replay(db: Session, folder: Path, identity: int | None) -> dict[str, Any]:
    """Re-train a candidate (by default the best) of a run as one recorded evaluation and compare.

    That is the sealed one if there is one, else that at the highest rung, trained here in one piece. A script
    ends by the clock, so that its score matches where it is within the noise of its campaign.
    Raises ValueError where there is nothing to replay.
    """
    chosen = identity if identity is not None else _best(db)
    evaluation, recorded = _recorded(db, chosen)
    recipe = recipe_of(db)
    check_unchanged(recipe, evaluation.profile, evaluation.facts)
    memory.bound(workers=1)
    result = _again(recipe, folder, evaluation)
    split = "test" if evaluation.sealed else "validation"
    again, noise = result.score(split), _noise(db, recipe)
    difference = None if again is None else again - recorded
    return {
        "candidate": chosen,
        "pattern": evaluation.candidate.pattern,
        "rung": evaluation.rung,
        "seed": evaluation.seed,
        "split": split,
        "recorded": recorded,
        "replayed": again,
        "match": difference is not None and abs(difference) <= noise,
        "difference": difference,
        "noise": noise,
        "same_environment": _same_environment(db),
    }


def _noise(db: Session, recipe: Recipe) -> float:
    """How far apart two scores of the same may be: not at all, but for scripts."""
    if recipe.kind != "script":
        return 0.0
    return margin(*noise_of(queries.scores(db)), 0.5 + recipe.confirm.level / 2)


def _again(recipe: Recipe, folder: Path, row: Evaluation) -> Result:
    """The evaluation in this process; of written code in a sandbox, without its gate."""
    candidate, which = row.candidate, (row.seed, row.sealed, row.rung)
    if not recipe.sandboxed:
        return evaluate(job_of(recipe, candidate.pattern, *which))
    sha = candidate.source_sha
    source = blobs.get(folder / BLOBS, sha).decode() if sha else None
    if recipe.kind == "script":
        return scripts.evaluate(scripts.job_of(recipe, source, row.seed, row.sealed))
    return written.evaluate(written.job_of(recipe, candidate.pattern, source, *which))


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
