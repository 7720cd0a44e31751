"""Opens and migrates a ledger's database: SQLite in WAL by default, any SQLAlchemy URL.

Knows nothing of what the tables mean. Every way in which opening fails is a LedgerError of one sentence.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import QueuePool, StaticPool

FILE = "ledger.db"


class LedgerError(Exception):
    """A ledger that cannot be opened or written, in one sentence with the way out."""


def create(folder: Path) -> Engine:
    """Make the run folder and an empty, migrated ledger in it. Raises LedgerError."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise LedgerError(
            f"the run folder {folder} exists: resume it, or name another with --out"
        ) from None
    except OSError as error:
        raise LedgerError(
            f"cannot make the run folder {folder} ({error.strerror}): name a writable one with --out"
        ) from error
    engine = _engine(folder / FILE, "rwc")
    _upgrade(engine)
    return engine


def open_(folder: Path, readonly: bool = False) -> Engine:
    """Open the ledger of a run folder. An older one is migrated; for a reader, a copy of it in memory.

    Raises LedgerError.
    """
    path = folder / FILE
    if not path.is_file():
        raise LedgerError(f"{folder} holds no {FILE}: give the folder of a run, e.g. runs/<name>")
    engine = _engine(path, "ro" if readonly else "rw")
    try:
        if _is_older(engine, path):
            engine = _copy(engine) if readonly else engine
            _upgrade(engine)
    except DatabaseError as error:
        raise LedgerError(
            f"{path} is not a readable ledger ({error.orig}): restore it from a copy"
        ) from error
    return engine


def _is_older(engine: Engine, path: Path) -> bool:
    """Whether the ledger's schema is an earlier release's. Raises LedgerError for one that is unknown."""
    with engine.connect() as connection:
        version = MigrationContext.configure(connection).get_current_revision()
    scripts = ScriptDirectory.from_config(_alembic())
    known = [script.revision for script in scripts.walk_revisions()]
    if version is None:
        raise LedgerError(
            f"{path} is a database without a ledger's tables: give the folder of a run"
        )
    if version not in known:
        raise LedgerError(
            f"{path} was written by a newer Archwright (schema {version}): update Archwright to open it"
        )
    return version != known[0]


def _upgrade(engine: Engine) -> None:
    """Migrate in one transaction, which Python's sqlite3 by itself would end at each change of a table."""
    with engine.begin() as connection:
        driver: Any = connection.connection.driver_connection
        driver.isolation_level = None
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        command.upgrade(_alembic(connection), "head")
    driver.isolation_level = ""


def _copy(engine: Engine) -> Engine:
    """An engine on a copy in memory, in which nothing that is done reaches the file."""
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    with closing(engine.raw_connection()) as file:
        file.backup(memory)
    engine.dispose()
    memory.set_authorizer(_no_other_file)
    return create_engine("sqlite://", creator=lambda: memory, poolclass=StaticPool)


def _alembic(connection: Any = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def _engine(path: Path, mode: str) -> Engine:
    """An engine on a file; through a URI, in which any name of a folder can be written."""
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(uri, uri=True, check_same_thread=False),
        poolclass=QueuePool,
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA busy_timeout=10000")
        if mode == "ro":  # such a connection may still attach, and so write, another file
            connection.set_authorizer(_no_other_file)
        else:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")

    return engine


def _no_other_file(action: int, *_: Any) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK


@contextmanager
def driving(folder: Path) -> Iterator[None]:
    """Hold the folder's driver lock; the system frees it when the process ends, however it ends.

    Raises LedgerError when another driver holds it.
    """
    with (folder / "driver.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise LedgerError(
                f"{folder} is driven by process {file.read().strip() or '?'}: wait for it or stop it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
