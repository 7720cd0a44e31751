"""Agents of earlier runs, read back from their ledgers: what they were and what their models answered.

It fills in what a recipe's `proposer: recorded` leaves to the ledger. It asks nobody and writes nothing.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from agents.agent import make
from agents.proposers import PROPOSERS
from agents.proposers.model import ModelProposer
from archwright.recipe import RECORDED, AgentSection, RecipeError
from search_space.pattern import nearest
from storage import blobs, database, models, queries
from storage.ledger import BLOBS
from storage.records import CallRecord

OPTIONS = {"run", "agent"}


def filled(section: AgentSection) -> AgentSection:
    """A section with `proposer: recorded` with the options of `agents.proposers.recorded`, and with the
    recorded agent's scaffold where it names none. Raises RecipeError, and LedgerError for the run."""
    if section.options.keys() != OPTIONS:
        raise RecipeError(
            f"agent {section.name}: proposer {RECORDED} has the options run, a folder, and agent, the name "
            f"of an agent in it, not {sorted(section.options)}: give both"
        )
    folder = Path(section.options["run"])
    with Session(database.open_(folder, readonly=True)) as db:
        row = _row(db, folder, section)
        slots = [[_record(folder, call) for call in slot] for slot in queries.calls_of(db, row.id)]
    options = {
        "original": _original(row, section),
        "calls": slots,
        "place": f"agent {row.name} of {folder}",
    }
    as_then = {"scaffold": row.scaffold, "scaffold_options": row.settings["scaffold"]}
    scaffold = as_then if section.scaffold is None else {}
    return section.model_copy(update={"options": options, **scaffold})


def _row(db: Session, folder: Path, section: AgentSection) -> models.Agent:
    rows = {row.name: row for row in queries.agents(db)}
    name = str(section.options["agent"])
    if name not in rows:
        raise RecipeError(
            f"agent {section.name}: {folder} has no agent {name!r}: the nearest are {nearest(name, rows)}"
        )
    return rows[name]


def _original(row: models.Agent, section: AgentSection) -> ModelProposer:
    """The proposer that asked the model; that of the first run, where what was recorded is a replay."""
    if row.proposer == RECORDED:
        then = AgentSection(name=row.name, proposer=RECORDED, options=row.settings["options"])
        found: Any = filled(then).options["original"]
    else:
        found = make(row.proposer, PROPOSERS, row.settings["options"], "proposer")
    if not isinstance(found, ModelProposer):
        raise RecipeError(
            f"agent {section.name}: {row.name} was {row.proposer}, no agents.proposers.model.ModelProposer, "
            "so its calls cannot be replayed: name that proposer itself"
        )
    return found


def _record(folder: Path, call: models.LLMCall) -> CallRecord:
    """A call as it was when it went into the ledger."""
    found: dict[str, Any] = {
        name: blobs.get(folder / BLOBS, digest).decode() if digest else ""
        for name, digest in (("request", call.request_sha), ("reply", call.reply_sha))
    }
    names = (field.name for field in fields(CallRecord) if field.name not in found)
    return CallRecord(**found, **{name: getattr(call, name) for name in names})
