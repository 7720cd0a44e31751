"""A run's ledger as tests look at it, beside the code under test; and recipes with some fields changed."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from storage import database

Row = dict[str, Any]


def rows(folder: Path, query: str) -> list[Row]:
    """What the ledger's file holds."""
    with closing(sqlite3.connect(folder / database.FILE, timeout=10)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(query)]


def reading(folder: Path) -> Session:
    """A session that only reads."""
    return Session(database.open_(folder, readonly=True))


def merged(base: Row, changes: Mapping[str, Any]) -> Row:
    """A recipe's data with some fields changed; sections are merged."""
    data = deepcopy(base)
    for key, value in changes.items():
        data[key] = data[key] | value if isinstance(data.get(key), dict) else value
    return data
