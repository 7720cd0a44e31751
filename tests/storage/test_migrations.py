"""Ledgers of earlier releases still open: each released schema, as a small run that its own code wrote."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, text
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from archwright import inspection, report
from storage import database, queries
from storage.models import VIEWS, Base

RELEASED = sorted((Path(__file__).parent / "released").glob("*.sql"))
Table = list[tuple[Any, ...]]


@pytest.fixture(params=RELEASED, ids=lambda path: path.stem)
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A run folder with the ledger of a release, in WAL as it left it."""
    with closing(sqlite3.connect(tmp_path / database.FILE)) as db:
        db.executescript(request.param.read_text())
        db.execute("PRAGMA journal_mode=WAL")
    return tmp_path


def tables(folder: Path) -> dict[str, Table]:
    """The rows of every table, by the columns that it had before any migration."""
    with closing(sqlite3.connect(folder / database.FILE)) as db:
        names = [n for (n,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in names}


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / database.FILE).read_bytes()).hexdigest()


def readable(engine: Engine, folder: Path) -> dict[str, Any]:
    """What the commands read of it, all of which must answer."""
    with Session(engine) as db:
        found: dict[str, Any] = {
            what: inspection.rows(db, folder, what, None, None, None) for what in inspection.TABLES
        }
        found["candidate"] = inspection.rows(db, folder, "candidate", 1, None, None)
        found["lineage"] = inspection.rows(db, folder, "lineage", 2, None, None)
        found["summary"] = report.summary(db, "run")
        found["views"] = {
            name: len(inspection.sql(db, f"SELECT * FROM {name}")[1]) for name in VIEWS
        }
        return found


def test_the_first_release_is_kept() -> None:
    assert RELEASED[0].stem == "0001"


def test_an_older_ledger_is_read_without_being_changed(folder: Path) -> None:
    before = digest(folder)
    engine = database.open_(folder, readonly=True)
    found = readable(engine, folder)
    assert found["summary"]["best"]["candidate"] == found["leaderboard"][0]["candidate"]
    assert all(row["standin"] for row in found["leaderboard"]), "its data were generated"
    with Session(engine) as db:
        columns, rows = inspection.sql(db, "SELECT standin FROM leaderboard")
        assert (columns, set(map(tuple, rows))) == (["standin"], {(1,)})
        for query in ("DELETE FROM candidate", "DROP VIEW leaderboard", "ATTACH 'x.db' AS x"):
            with pytest.raises(ValueError, match=r"^sql: "):
                inspection.sql(db, query)
    engine.dispose()
    assert digest(folder) == before
    assert not (folder / "x.db").exists()


def test_an_older_ledger_is_upgraded_when_it_is_written(folder: Path) -> None:
    before, seen = tables(folder), readable(database.open_(folder, readonly=True), folder)
    engine = database.open_(folder)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata) == []
        (version,) = connection.execute(text("SELECT version_num FROM alembic_version")).one()
        assert version > before["alembic_version"][0][0]
        views = "SELECT name, sql FROM sqlite_master WHERE type = 'view'"
        found = dict(connection.execute(text(views)).all())
        assert found == {
            name: f"CREATE VIEW {name} AS {sql}".rstrip() for name, sql in VIEWS.items()
        }
    with Session(engine) as db:
        assert {tuple(e.facts.items()) for e in queries.evaluations(db)} == {()}
    assert readable(engine, folder) == seen
    engine.dispose()
    after = tables(folder)
    assert after.keys() == before.keys()
    for name in before.keys() - {"alembic_version"}:
        kept = [row[: len(before[name][0])] for row in after[name]] if before[name] else after[name]
        assert kept == before[name], "nothing is lost, and new columns come last"
    with closing(sqlite3.connect(folder / database.FILE)) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_an_upgrade_that_fails_leaves_the_ledger_as_it_was(folder: Path) -> None:
    """The views of the new release cannot be made: somebody has a table of that name."""
    with closing(sqlite3.connect(folder / database.FILE)) as db:
        db.execute("DROP VIEW failures")
        db.execute("CREATE TABLE failures (mine)")
        db.commit()
    before = tables(folder)
    with pytest.raises((database.LedgerError, DatabaseError)):
        database.open_(folder)
    assert tables(folder) == before
