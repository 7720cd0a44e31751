"""Writes the ledger: each state change and all that follows from it is one transaction.

One writer, the driver, which holds the folder's lock. What is only asked of the ledger is in
`storage.queries`. It decides nothing: which slot, which candidate and which seed is the driver's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select, update
from sqlalchemy.exc import DatabaseError, IntegrityError
from sqlalchemy.orm import Session

from storage import blobs, models
from storage.database import LedgerError
from storage.models import (
    Agent,
    Artifact,
    BudgetEntry,
    Campaign,
    Candidate,
    Decision,
    Environment,
    Evaluation,
    GateCheck,
    LLMCall,
    Measurement,
    Proposal,
    ProposalParent,
)
from storage.records import (
    AgentRecord,
    Answer,
    CallRecord,
    CandidateRecord,
    CertificateRecord,
    EvaluationPlan,
    Money,
)

BLOBS = "blobs"


class Ledger:
    """The writing side of one run folder's ledger."""

    def __init__(self, engine: Engine, folder: Path, session: str) -> None:
        """``session`` names this driver session in leases and environments."""
        self.engine, self.folder, self.session = engine, folder, session

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction; a full disk, a locked or a damaged database becomes a LedgerError."""
        try:
            with Session(self.engine) as session, session.begin():
                yield session
        except DatabaseError as error:
            if isinstance(error, IntegrityError):  # a bug of ours, not of the disk
                raise
            raise LedgerError(
                f"cannot write the ledger in {self.folder} ({error.orig}): "
                "free the disk or the lock, or restore a copy, then resume the run"
            ) from error

    # ------------------------------------------------------------------------------- the campaign

    def begin(
        self,
        name: str,
        recipe: dict[str, Any],
        seed: int,
        lag: int,
        workers: int,
        agents: Sequence[AgentRecord],
        primitives: Iterable[tuple[CandidateRecord, CertificateRecord]] = (),
    ) -> int:
        """Record the campaign, its agents and the written primitives that it takes from earlier runs, as
        candidates that nobody proposes; returns the campaign's id."""
        with self.transaction() as db:
            campaign = Campaign(name=name, recipe=recipe, seed=seed, lag=lag, workers=workers)
            db.add(campaign)
            db.flush()
            db.add_all(Agent(campaign_id=campaign.id, **asdict(agent)) for agent in agents)
            for record, certificate in primitives:
                _certify(db, self._candidate(db, record), certificate)
            return campaign.id

    def record_environment(self, campaign: int, facts: Mapping[str, Any]) -> None:
        """Record where this driver session runs."""
        with self.transaction() as db:
            db.add(Environment(campaign_id=campaign, session=self.session, **facts))

    def set_status(self, campaign: int, status: str, seconds: float) -> None:
        """Set the campaign's status and the seconds it has been driven, over all sessions.

        A campaign that is done was done when it first was.
        """
        with self.transaction() as db:
            row = db.get_one(Campaign, campaign)
            row.status, row.seconds = status, seconds
            if status == "done":
                row.finished = row.finished or models.now()

    def decide(self, campaign: int, what: str, reason: str, numbers: dict[str, Any]) -> None:
        """Record a decision with the numbers behind it."""
        with self.transaction() as db:
            db.add(Decision(campaign_id=campaign, what=what, reason=reason, numbers=numbers))

    # ---------------------------------------------------------------------------------- proposals

    def ask(
        self, campaign: int, slot: int, agent: int, seed: int, seen: int, reserve: Money | None
    ) -> int:
        """Record that an agent is being asked, reserving the worst case; returns the proposal's id.

        A slot that was asked before, by a driver or an actor that died, is asked again in the same
        row; what had been reserved for it is settled at the worst case, on a call marked `lost`.
        """
        with self.transaction() as db:
            row = db.scalar(select(Proposal).filter_by(campaign_id=campaign, slot=slot))
            if row is None:
                row = Proposal(campaign_id=campaign, slot=slot)
                db.add(row)
            row.agent_id, row.seed, row.seen, row.status = agent, seed, seen, "asked"
            db.flush()
            _settle_lost(db, row)
            if reserve is not None:
                db.add(_entry(row, "reserve", reserve))
            return row.id

    def answer(
        self,
        proposal: int,
        answer: Answer,
        candidate: CandidateRecord | None,
        plans: Sequence[EvaluationPlan],
        settle: Money | None,
    ) -> None:
        """Record an agent's answer, its calls and their cost, and queue what it leads to.

        The proposal becomes `accepted`; `duplicate`, when the same agent has proposed the candidate
        before; or `failed`, without a candidate. Evaluations that exist are not queued again, and
        what was reserved and is not settled here is lost.
        """
        with self.transaction() as db:
            row = db.get_one(Proposal, proposal)
            row.operator, row.reason = answer.operator, answer.reason
            row.hypothesis, row.reasoning = answer.hypothesis, answer.reasoning
            row.expected_effect = answer.expected_effect
            row.failure, row.detail = answer.failure, answer.detail
            row.status, row.answered = "failed", models.now()
            for position, parent in enumerate(answer.parents):
                row.parents.append(ProposalParent(position=position, candidate_id=parent))
            db.add_all([self._call(db, proposal, call) for call in answer.calls])
            if settle is not None:
                db.add(_entry(row, "settle", settle))
            else:
                _settle_lost(db, row)
            if candidate is not None:
                found = self._candidate(db, candidate)
                row.status = "duplicate" if _proposed_before(db, row, found.id) else "accepted"
                row.candidate_id = found.id
                _queue(db, found.id, plans)

    def promote(
        self,
        campaign: int,
        slot: int,
        agent: int,
        candidate: int,
        seed: int,
        seen: int,
        plans: Sequence[EvaluationPlan],
        reason: str,
        numbers: dict[str, Any],
        what: str = "promote",
    ) -> int:
        """Record that a slot trains an agent's candidate further, or again, with the decision behind it,
        and queue that; returns the proposal's id. Evaluations that exist are not queued again."""
        with self.transaction() as db:
            row = Proposal(campaign_id=campaign, slot=slot, agent_id=agent, seed=seed, seen=seen)
            row.status, row.operator, row.reason = "promoted", what, reason
            row.candidate_id, row.rung, row.answered = candidate, plans[0].rung, models.now()
            db.add(row)
            db.add(Decision(campaign_id=campaign, what=what, reason=reason, numbers=numbers))
            _queue(db, candidate, plans)
            db.flush()
            return row.id

    def _candidate(self, db: Session, record: CandidateRecord) -> Candidate:
        """The candidate with this content, made where it is missing."""
        row = db.scalar(select(Candidate).where(Candidate.content_hash == record.content_hash))
        if row is None:
            fields = asdict(record)
            source = fields.pop("source")
            kept = None if source is None else self.keep(db, source.encode(), "source")
            row = Candidate(**fields, source_sha=kept)
            db.add(row)
            db.flush()
        return row

    def _call(self, db: Session, proposal: int, call: CallRecord) -> LLMCall:
        numbers = asdict(call)
        request, reply = numbers.pop("request"), numbers.pop("reply")
        return LLMCall(
            proposal_id=proposal,
            request_sha=self.keep(db, request.encode(), "request"),
            reply_sha=self.keep(db, reply.encode(), "reply") if reply else None,
            **numbers,
        )

    def keep(self, db: Session, data: bytes, kind: str, level: int = -1) -> str:
        """Keep data as a file beside the database and its row; returns the SHA-256."""
        name, path = blobs.put(self.folder / BLOBS, data, level)
        if db.get(Artifact, name) is None:
            relative = str(path.relative_to(self.folder))
            db.add(Artifact(sha256=name, kind=kind, path=relative, size=len(data)))
            db.flush()
        return name

    # -------------------------------------------------------------------------------- evaluations

    def queue(self, candidate: int, plans: Sequence[EvaluationPlan]) -> None:
        """Queue the evaluations of a candidate that do not exist yet."""
        with self.transaction() as db:
            _queue(db, candidate, plans)

    def start(self, evaluation: int) -> int:
        """Mark an evaluation as running under this session's lease; returns the attempt, from 1."""
        with self.transaction() as db:
            row = db.get_one(Evaluation, evaluation)
            _require(row, "queued")
            row.state, row.lease, row.started = "running", self.session, models.now()
            row.attempt += 1
            return row.attempt

    def finish(
        self,
        evaluation: int,
        metrics: Iterable[tuple[str, str, float]],
        spent: Mapping[str, float],
        failure: str | None = None,
        detail: str = "",
        checkpoint: bytes | None = None,
        facts: Iterable[tuple[str, str]] = (),
        certificate: CertificateRecord | None = None,
    ) -> None:
        """End an evaluation with its (metric, split, value) rows, or with a failure in their place.

        ``facts`` say which data are behind the numbers. A checkpoint is kept until `drop_checkpoints`.
        A written candidate keeps the first ``certificate`` that it gets.
        """
        with self.transaction() as db:
            row = db.get_one(Evaluation, evaluation)
            _require(row, "running")
            row.state, row.lease = ("failed" if failure else "done"), None
            row.failure, row.detail, row.finished = failure, detail, models.now()
            row.facts = dict(facts)
            if checkpoint is not None:  # weights hardly compress: 7%, at 35 MB/s
                row.checkpoint = self.keep(db, checkpoint, "checkpoint", level=0)
            for name, value in spent.items():
                setattr(row, name, value)
            db.add_all(
                Measurement(evaluation_id=evaluation, metric=m, split=s, value=v)
                for m, s, v in metrics
            )
            if certificate is not None and not row.candidate.prints:
                _certify(db, row.candidate, certificate)

    def requeue(self, evaluation: int, detail: str) -> None:
        """Put a running evaluation back after an infrastructure fault; it is not scored."""
        with self.transaction() as db:
            row = db.get_one(Evaluation, evaluation)
            _require(row, "running")
            row.state, row.lease, row.detail = "queued", None, detail

    def drop_checkpoints(self) -> None:
        """Forget all checkpoints: first their rows, then the files, so that no row points at nothing."""
        with self.transaction() as db:
            db.execute(update(Evaluation).values(checkpoint=None))
            rows = db.scalars(select(Artifact).filter_by(kind="checkpoint")).all()
            paths = [self.folder / row.path for row in rows]
            for row in rows:
                db.delete(row)
        for path in paths:
            path.unlink(missing_ok=True)

    # ----------------------------------------------------------------------------------- recovery

    def recover(self) -> int:
        """Queue again what a dead driver was evaluating; returns how many evaluations it met.

        This session holds the folder's lock, so every other session's lease has lapsed.
        """
        with self.transaction() as db:
            running = db.scalars(select(Evaluation).where(Evaluation.state == "running")).all()
            for evaluation in running:
                evaluation.state, evaluation.lease = "queued", None
            return len(running)


def _require(row: Evaluation, state: str) -> None:
    if row.state != state:
        raise LedgerError(f"evaluation {row.id} is {row.state}, not {state}: run `archwright fsck`")


def _entry(proposal: Proposal, kind: str, money: Money) -> BudgetEntry:
    return BudgetEntry(
        campaign_id=proposal.campaign_id,
        proposal_id=proposal.id,
        kind=kind,
        calls=money.calls,
        usd=money.usd,
    )


def _certify(db: Session, candidate: Candidate, found: CertificateRecord) -> None:
    candidate.prints = found.prints
    candidate.params, candidate.flops_per_token = found.params, found.flops_per_token
    for name, verdict, detail, seconds in found.checks:
        row = GateCheck(candidate_id=candidate.id, name=name, verdict=verdict)
        row.detail, row.seconds = detail, seconds
        db.add(row)


def _queue(db: Session, candidate: int, plans: Sequence[EvaluationPlan]) -> None:
    for plan in plans:
        key = {"profile": plan.profile, "rung": plan.rung, "seed": plan.seed}
        if db.scalar(select(Evaluation.id).filter_by(candidate_id=candidate, **key)) is None:
            db.add(Evaluation(candidate_id=candidate, sealed=plan.sealed, **key))


def _proposed_before(db: Session, proposal: Proposal, candidate: int) -> bool:
    earlier = select(Proposal.id).where(
        Proposal.agent_id == proposal.agent_id,
        Proposal.candidate_id == candidate,
        Proposal.slot < proposal.slot,
    )
    return db.scalar(earlier.limit(1)) is not None


def _settle_lost(db: Session, proposal: Proposal) -> None:
    """Settle a proposal's open reservation, if it has one, and record its call as lost."""
    entries = db.scalars(select(BudgetEntry).filter_by(proposal_id=proposal.id)).all()
    reserved = [entry for entry in entries if entry.kind == "reserve"]
    if len(reserved) == sum(entry.kind == "settle" for entry in entries):
        return
    worst = Money(reserved[-1].calls, reserved[-1].usd)
    model = proposal.agent.model or ""
    db.add(_entry(proposal, "settle", worst))
    db.add(
        LLMCall(
            proposal_id=proposal.id,
            provider=model.partition(":")[0],
            model=model,
            operator="",
            attempt=0,
            outcome="lost",
            error="no reply reached the ledger; settled at the worst case",
            cost_usd=worst.usd,
        )
    )
