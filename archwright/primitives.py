"""Primitives that earlier runs wrote: read from their ledgers, and gated again at this campaign's size.

What a campaign takes becomes its own, source and cost in its recipe and certificate in its ledger, so that
it goes on without the other run. The code runs in the sandbox only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from archwright import written
from archwright.candidates import identity, sizes_of
from archwright.folders import run_folder
from archwright.recipe import Recipe, RecipeError, WrittenSection
from sandbox.gate import Certificate
from sandbox.run import SandboxError
from search_space.presets import preset
from search_space.primitives import CATALOGUE, Cost
from storage import blobs, database, queries
from storage.database import LedgerError
from storage.ledger import BLOBS
from storage.models import Candidate
from storage.records import INFRASTRUCTURE, CandidateRecord, CertificateRecord


@dataclass(frozen=True)
class Taken:
    """A primitive as the campaign that takes it keeps it in its ledger."""

    candidate: CandidateRecord
    certificate: CertificateRecord


def check(recipe: Recipe) -> None:
    """Raise RecipeError for a code that is taken and for what cannot be a primitive. Gates nothing."""
    for code, section in recipe.space.written.items():
        if code in CATALOGUE:
            raise RecipeError(
                f"space.primitives: {code} is the catalogue's own, {CATALOGUE[code].title}: give "
                f"{section.ledger} another code, such as X"
            )
        source_of(code, section)


def source_of(code: str, section: WrittenSection) -> str:
    """The source of a written primitive, in the ledger where it was found. Raises RecipeError."""
    place, folder = f"space.primitives {code}: {section.ledger}", run_folder(Path(section.run))
    try:
        with Session(database.open_(folder, readonly=True)) as db:
            row = db.get(Candidate, section.candidate)
            problem = "there is no such candidate" if row is None else _problem(db, row)
            if row is None or row.source_sha is None or problem:
                raise RecipeError(f"{place}: {problem}; `archwright inspect {folder}` lists them")
            return blobs.get(folder / BLOBS, row.source_sha).decode()
    except (LedgerError, FileNotFoundError) as error:
        raise RecipeError(f"{place}: {error}") from error


def _problem(db: Session, row: Candidate) -> str:
    """Why a candidate is no primitive; empty where it is one."""
    if row.kind != "module":
        return f"a {row.kind} is no primitive, only a written module is"
    rows = queries.certificate(db, row.id)
    failed = [check["name"] for check in rows if check["verdict"] == "fail"]
    if failed or not rows:
        return f"it failed the gate ({', '.join(failed)})" if failed else "it was not gated yet"
    if not row.params:
        return "the gate did not measure what it costs"
    ended = [e for e in queries.evaluations(db) if e.candidate_id == row.id]
    faults = [e.failure for e in ended if e.failure not in (None, INFRASTRUCTURE)]
    if faults:
        return f"its evaluation failed ({faults[0]})"
    return "" if any(e.state == "done" for e in ended) else "it has no score yet"


def take(recipe: Recipe) -> tuple[Recipe, list[Taken]]:
    """The recipe with its written primitives filled in, and what the ledger is to keep of each.

    Raises RecipeError for one that the gate refuses at the recipe's preset, ValueError without a sandbox.
    """
    if not recipe.space.written:
        return recipe, []
    filled, taken = dict(recipe.space.written), list[Taken]()
    written.environment(recipe)
    for code, section in recipe.space.written.items():
        source = source_of(code, section)
        found, cost = _gated(recipe, code, source, taken)
        costs = {k: getattr(cost, k) for k in ("params", "flops_per_token", "state")}
        filled[code] = section.model_copy(update={"source": source, **costs})
        taken.append(_taken(recipe, code, source, found, cost))
    space = recipe.space.model_copy(update={"written": filled})
    return recipe.model_copy(update={"space": space}), taken


def _gated(
    recipe: Recipe, code: str, source: str, before: Sequence[Taken]
) -> tuple[Certificate, Cost]:
    """The certificate at the recipe's preset beside the primitives before it. Raises RecipeError."""
    prints = {one.candidate.pattern: one.certificate.prints for one in before}
    known = [written.known_as(f"primitive {name}", one) for name, one in prints.items()]
    try:
        found = written.examine(recipe, source, known)
    except SandboxError as error:
        raise RecipeError(f"space.primitives {code}: the sandbox failed: {error}") from error
    if found.cost is None or found.verdict == "fail":
        raise RecipeError(
            f"space.primitives {code}: {recipe.space.written[code].ledger} fails the gate at preset "
            f"{recipe.space.preset} ({written.complaint(found)}): take another, or change module.*"
        )
    return found, found.cost


def _taken(recipe: Recipe, code: str, source: str, found: Certificate, cost: Cost) -> Taken:
    """As a candidate of its own that nobody proposes; its identity is its source and the sizes."""
    size = preset(recipe.space.preset)
    content = json.dumps(["primitive", identity(source), sizes_of(size)], sort_keys=True)
    candidate = CandidateRecord(
        content_hash=hashlib.sha256(content.encode()).hexdigest(),
        kind="module",
        pattern=code,
        preset=size.name,
        params=cost.params,
        flops_per_token=cost.flops_per_token,
        state_bytes=cost.state_bytes(),
        name=recipe.space.written[code].ledger,
        source=source,
    )
    return Taken(candidate, written.record_of(found, cost))
