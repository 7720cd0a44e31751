"""A slot's conversation with its model, read back from the calls in the ledger. Asks nobody."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from agents.llm.transcript import conversation
from storage import blobs, queries
from storage.ledger import BLOBS


def transcript(db: Session, folder: Path, slot: int) -> list[dict[str, Any]]:
    """All that was said, in order: who (system, user, agent, tool), which tool, the text. Raises ValueError
    for a slot in which no model was called."""
    calls = queries.calls_in(db, slot)
    if not calls:
        raise ValueError(f"slot {slot}: no model was called in it; `inspect RUN calls` lists calls")
    texts = [(_text(folder, c.request_sha), _text(folder, c.reply_sha)) for c in calls]
    said = enumerate(conversation(texts), 1)
    names = ("who", "tool", "text")
    return [{"turn": n, **{name: asdict(one)[name] for name in names}} for n, one in said]


def _text(folder: Path, digest: str | None) -> str:
    return blobs.get(folder / BLOBS, digest).decode() if digest else ""
