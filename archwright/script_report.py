"""What a campaign of scripts came to, in bits per byte: challenges with gain and error, drift, diffs.

Reads the ledger; decides and prints nothing. Gains count bits saved: above 0 is better.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from archwright import incumbents
from archwright.recipe import Recipe
from archwright.seeds import derive
from archwright.setup import REFERENCES
from archwright.standings import Estimate, estimate, interval, pooled_deviation
from storage import blobs, queries
from storage.ledger import BLOBS
from storage.models import Candidate, Proposal

BITS = 8  # of a byte: a score is the share of them that is saved
Rows = list[dict[str, Any]]


def bits_per_byte(score: float) -> float:
    """Of a score of text."""
    return BITS * (1 - score)


def challenges(db: Session) -> Rows:
    """Each challenge in slot order, kept or discarded: what the challenger's runs saved over the holder's,
    its standard error and interval, and the probability that it is more than noise."""
    return [_challenge(numbers) for numbers in queries.numbers(db, "incumbent")]


def _challenge(numbers: dict[str, Any]) -> dict[str, Any]:
    bits = {
        name: None if numbers[key] is None else BITS * numbers[key]
        for name, key in (("gain", "gain"), ("error", "stderr"), ("low", "low"), ("high", "high"))
    }
    return {
        "arm": numbers["arm"],
        "slot": numbers["slot"],
        "candidate": numbers["candidate"],
        "against": numbers["incumbent"],
        "verdict": "kept" if numbers["replaced"] else "discarded",
        **bits,
        "probability": numbers["probability"],
        "runs": numbers["runs"],
        "reason": numbers["reason"],
    }


def drift(db: Session, recipe: Recipe) -> Rows:
    """The baseline's runs at each time: bits per byte, and how far from those at the start with the
    interval of that. What lies outside of it is the machine's, since the script is the same."""
    campaign = queries.campaign(db)
    assert campaign is not None, "the recipe is from it"
    found = [
        (p, queries.scores_of(db, p.candidate_id, _seeds(recipe, campaign.seed, p)))
        for p in queries.proposals(db)
        if p.agent.name == REFERENCES and p.candidate_id is not None
    ]
    noise = pooled_deviation(scores for _, scores in found)
    groups = [(p, estimate(scores, noise[0])) for p, scores in found if scores]
    return [_drifted(p, one, groups[0][1], noise, recipe.confirm.level) for p, one in groups]


def _seeds(recipe: Recipe, seed: int, row: Proposal) -> list[int]:
    if row.status == "promoted":
        return incumbents.seeds(seed, row.slot, row.operator, recipe.script.repeats)
    return [derive(seed, "search", i) for i in range(recipe.references.seeds)]


def _drifted(
    row: Proposal,
    one: Estimate,
    start: Estimate,
    noise: tuple[float | None, int],
    level: float,
) -> dict[str, Any]:
    first = one is start
    low, high = (None, None) if first else interval(one, start, *noise, level) or (None, None)
    return {
        "slot": row.slot,
        "when": row.answered,
        "runs": one.n,
        "bits_per_byte": bits_per_byte(one.mean),
        "error": None if one.stderr is None else BITS * one.stderr,
        "gain": None if first else BITS * (one.mean - start.mean),
        "low": None if low is None else BITS * low,
        "high": None if high is None else BITS * high,
    }


def diff(db: Session, folder: Path, row: Candidate) -> dict[str, Any]:
    """A written candidate's source against that of its first parent; a script's draft against the baseline, a
    module's against nothing. Raises ValueError for a candidate that was not written."""
    if row.source_sha is None:
        raise ValueError(
            f"candidate {row.id} is no written one, it has no source: see `inspect RUN lineage {row.id}`"
        )
    first = next(p for p in queries.proposals(db) if p.candidate_id == row.id)
    parent = _parent(db, row, first)
    old = _source(folder, parent) if parent else ""
    lines = difflib.unified_diff(
        old.splitlines(),
        _source(folder, row).splitlines(),
        f"candidate {parent.id}" if parent else "nothing",
        f"candidate {row.id}",
        lineterm="",
    )
    verdicts = {c["candidate"]: c["verdict"] for c in challenges(db)}
    return {
        "candidate": row.id,
        "name": row.name,
        "against": parent.id if parent else None,
        "slot": first.slot,
        "agent": first.agent.name,
        "hypothesis": first.hypothesis,
        "verdict": verdicts.get(row.id, "discarded") if row.kind == "script" else None,
        "diff": "\n".join(lines),
    }


def _parent(db: Session, row: Candidate, first: Proposal) -> Candidate | None:
    """The candidate that a written one was made from, if that was written, too."""
    ids: list[int | None] = [parent.candidate_id for parent in first.parents]
    if not ids and row.kind == "script" and first.agent.name != REFERENCES:
        ids = [p.candidate_id for p in queries.proposals(db) if p.agent.name == REFERENCES][:1]
    found = db.get(Candidate, ids[0]) if ids else None
    return found if found is not None and found.source_sha is not None else None


def _source(folder: Path, row: Candidate) -> str:
    return blobs.get(folder / BLOBS, row.source_sha or "").decode()
