"""The tables of `inspect` and `sql`: which rows, sorted how, and at most how many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.exc import DatabaseError, ResourceClosedError
from sqlalchemy.orm import Session

from agents.prompts import sections
from archwright import report, script_report
from archwright.transcript import transcript
from search_space.pattern import nearest
from storage import blobs, queries
from storage.ledger import BLOBS
from storage.models import Candidate

Rows = list[dict[str, Any]]

TABLES: dict[str, Callable[[Session], Rows]] = {
    "leaderboard": report.leaderboard,
    "candidates": report.candidates,
    "primitives": report.primitives,
    "agents": report.agents,
    "submissions": report.submissions,
    "tasks": report.tasks,
    "rungs": report.rungs,
    "incumbents": report.challenges,
    "baseline": report.drift,
    "failures": report.failures,
    "spend": report.spend_by_agent,
    "calls": queries.calls,
    "decisions": queries.decisions,
}
SCORED = ("candidates", "agents")  # those with scores but no column for what blind rules reach
ONE = ("candidate", "lineage", "diff", "calls", "transcript")


def rows(
    db: Session, folder: Path, what: str, identity: int | None, sort: str | None, limit: int | None
) -> Rows:
    """The rows of one table. Raises ValueError for a table, an id or a column that does not exist."""
    report.recipe_of(db)
    if identity is not None:
        return _one(db, folder, what, identity)
    if what not in TABLES:
        known = sorted({*TABLES, *ONE})
        hint = f"give an ID: inspect RUN {what} ID" if what in ONE else nearest(what, known)
        raise ValueError(f"inspect {what!r}: there is no such table without an ID; {hint}")
    return _sorted(TABLES[what](db), sort)[:limit]


def _one(db: Session, folder: Path, what: str, identity: int) -> Rows:
    match what:
        case "candidate":
            return [_candidate(db, folder, identity)]
        case "lineage":
            report.candidate(db, identity)
            return queries.lineage(db, identity)
        case "diff":
            report.candidate(db, identity)
            return [script_report.diff(db, folder, db.get_one(Candidate, identity))]
        case "calls":
            return [_call(db, folder, identity)]
        case "transcript":
            return transcript(db, folder, identity)
        case _:
            raise ValueError(f"inspect {what!r} takes no ID: only {', '.join(ONE)} do")


def _candidate(db: Session, folder: Path, identity: int) -> dict[str, Any]:
    """One candidate; of written code with its source, and without the numbers of its fingerprint."""
    row = report.candidate(db, identity)
    row["prints"] = {k: v for k, v in row["prints"].items() if k != "behaviour"}
    digest = row.pop("source_sha")
    source = blobs.get(folder / BLOBS, digest).decode() if digest else None
    return row | ({"source": source} if source else {})


def _call(db: Session, folder: Path, identity: int) -> dict[str, Any]:
    """One model call with exactly what was sent and what came back."""
    row = report.call(db, identity)
    columns = {c.name: getattr(row, c.name) for c in row.__table__.columns}
    for name in ("request", "reply"):
        digest = columns.pop(f"{name}_sha")
        columns[name] = blobs.get(folder / BLOBS, digest).decode() if digest else None
    columns["sections"] = sections.table(columns["request"]) if columns["request"] else []
    return columns


def _sorted(found: Rows, sort: str | None) -> Rows:
    if sort is None or not found:
        return found
    column = sort.removeprefix("-")
    if column not in found[0]:
        raise ValueError(f"--sort {sort}: there is no such column; {nearest(column, found[0])}")
    present = [row for row in found if row[column] is not None]
    absent = [row for row in found if row[column] is None]
    present.sort(key=lambda row: row[column], reverse=sort.startswith("-"))
    return present + absent


def sql(db: Session, query: str) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of a query on a read-only ledger. Raises ValueError for what SQLite refuses."""
    try:
        result = db.execute(text(query.replace(":", r"\:")))
    except DatabaseError as error:
        raise ValueError(f"sql: {error.orig}: correct the query {query!r}") from error
    try:
        return list(result.keys()), [list(row) for row in result]
    except ResourceClosedError:
        raise ValueError("sql: the query returns no rows: write a SELECT") from None
