"""The ledger's tables as SQLAlchemy models; `storage/migrations` holds their history.

Only shapes and constraints. What may be written when is `storage.ledger`'s, what is asked of them
`storage.queries`'.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, MetaData, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

FORMAT = 1  # of a run folder as a whole; the tables' own version is Alembic's


class Base(DeclarativeBase):
    """Named constraints, so that a migration can find them again."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON}  # noqa: RUF012  (SQLAlchemy's own idiom)


def now() -> datetime:
    """The time in UTC, naive, as the tables hold it."""
    return datetime.now(UTC).replace(tzinfo=None)


class Campaign(Base):
    """One search; a run folder's ledger holds one."""

    __tablename__ = "campaign"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    recipe: Mapped[dict[str, Any]]  # resolved: nothing in it depends on a default any more
    seed: Mapped[int]
    lag: Mapped[int]
    workers: Mapped[int]
    status: Mapped[str] = mapped_column(default="running")  # running | interrupted | done | failed
    format: Mapped[int] = mapped_column(default=FORMAT)
    started: Mapped[datetime] = mapped_column(default=now)
    finished: Mapped[datetime | None]
    seconds: Mapped[float] = mapped_column(default=0.0)  # driven so far, over all sessions


class Agent(Base):
    """A proposer of candidates: scaffold x proposer x model, in the search or a control."""

    __tablename__ = "agent"
    __table_args__ = (UniqueConstraint("campaign_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"))
    name: Mapped[str]
    role: Mapped[str]  # search | control | reference
    scaffold: Mapped[str]
    proposer: Mapped[str]
    model: Mapped[str | None]
    settings: Mapped[dict[str, Any]]


class Candidate(Base):
    """One architecture, known by the hash of its content however it was written."""

    __tablename__ = "candidate"
    id: Mapped[int] = mapped_column(primary_key=True)
    content_hash: Mapped[str] = mapped_column(unique=True)
    kind: Mapped[str]  # composition | module | script
    name: Mapped[str | None]  # of a reference
    pattern: Mapped[str]
    preset: Mapped[str]
    params: Mapped[int]  # this and the next of a module: 0 until the gate has measured them
    flops_per_token: Mapped[float]
    state_bytes: Mapped[int]  # 0 for a module, of which it is not known
    source_sha: Mapped[str | None]  # of written code
    # What the gate recognises a written candidate by when it comes again.
    prints: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    created: Mapped[datetime] = mapped_column(default=now)


class Proposal(Base):
    """One slot of the campaign: what an agent was asked and what came of it, or who was promoted."""

    __tablename__ = "proposal"
    __table_args__ = (UniqueConstraint("campaign_id", "slot"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"))
    slot: Mapped[int]
    agent_id: Mapped[int] = mapped_column(ForeignKey("agent.id"), index=True)
    seed: Mapped[int]  # of every random draw made for this slot
    seen: Mapped[int]  # the agent saw the results of slots below this one
    status: Mapped[str]  # asked | accepted | duplicate | failed | promoted (nobody was asked)
    rung: Mapped[int] = mapped_column(
        default=0
    )  # at which the candidate is evaluated for this slot
    operator: Mapped[str | None]
    reason: Mapped[str] = mapped_column(default="")  # of the scaffold's choice
    hypothesis: Mapped[str] = mapped_column(default="")
    reasoning: Mapped[str] = mapped_column(default="")
    expected_effect: Mapped[str] = mapped_column(default="")
    failure: Mapped[str | None]  # kind, when status is failed
    detail: Mapped[str] = mapped_column(default="")
    candidate_id: Mapped[int | None] = mapped_column(ForeignKey("candidate.id"), index=True)
    asked: Mapped[datetime] = mapped_column(default=now)
    answered: Mapped[datetime | None]
    agent: Mapped[Agent] = relationship()
    candidate: Mapped[Candidate | None] = relationship()
    parents: Mapped[list[ProposalParent]] = relationship(order_by="ProposalParent.position")


class ProposalParent(Base):
    """The candidates a proposal started from, in order."""

    __tablename__ = "proposal_parent"
    proposal_id: Mapped[int] = mapped_column(ForeignKey("proposal.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidate.id"), index=True)


class LLMCall(Base):
    """One call of a model, with its request and reply as files and what it cost."""

    __tablename__ = "llm_call"
    id: Mapped[int] = mapped_column(primary_key=True)
    proposal_id: Mapped[int] = mapped_column(ForeignKey("proposal.id"), index=True)
    provider: Mapped[str]
    model: Mapped[str]
    operator: Mapped[str]
    attempt: Mapped[int]  # 0, then one more per repair
    request_sha: Mapped[str | None]
    reply_sha: Mapped[str | None]
    outcome: Mapped[str]  # ok, or the error class; lost when the driver died before the reply
    error: Mapped[str] = mapped_column(default="")
    http_attempts: Mapped[int] = mapped_column(default=1)
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    cached_tokens: Mapped[int | None]
    reasoning_tokens: Mapped[int | None]
    latency_seconds: Mapped[float | None]
    cost_usd: Mapped[float | None]  # None: no price known for the model
    created: Mapped[datetime] = mapped_column(default=now)


class GateCheck(Base):
    """One row of a written candidate's certificate."""

    __tablename__ = "gate_check"
    id: Mapped[int] = mapped_column(primary_key=True)
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidate.id"), index=True)
    name: Mapped[str]
    verdict: Mapped[str]  # pass | fail | skip
    detail: Mapped[str]
    seconds: Mapped[float]


class Evaluation(Base):
    """Training and scoring one candidate at one profile, rung and seed: queued, running, done or failed."""

    __tablename__ = "evaluation"
    __table_args__ = (
        UniqueConstraint("candidate_id", "profile", "rung", "seed"),
        Index("ix_evaluation_state", "state"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidate.id"))
    profile: Mapped[str]
    rung: Mapped[int]
    seed: Mapped[int]
    sealed: Mapped[bool]  # scored on the test split, for confirmation
    state: Mapped[str] = mapped_column(default="queued")
    attempt: Mapped[int] = mapped_column(default=0)
    lease: Mapped[str | None]  # the driver session that runs it
    failure: Mapped[str | None]  # kind, when state is failed
    detail: Mapped[str] = mapped_column(default="")
    queued: Mapped[datetime] = mapped_column(default=now)
    started: Mapped[datetime | None]
    finished: Mapped[datetime | None]
    steps: Mapped[int] = mapped_column(default=0)
    tokens: Mapped[int] = mapped_column(default=0)
    flops: Mapped[float] = mapped_column(default=0.0)
    seconds: Mapped[float] = mapped_column(default=0.0)
    # What no number says of the data behind the measurements, as `<task>/<fact>`: a corpus's sha256, say.
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    # Where training stopped, until the search ends and nobody can be promoted any more.
    checkpoint: Mapped[str | None] = mapped_column(ForeignKey("artifact.sha256"))
    candidate: Mapped[Candidate] = relationship()


class Measurement(Base):
    """One number of a finished evaluation."""

    __tablename__ = "measurement"
    __table_args__ = (UniqueConstraint("evaluation_id", "split", "metric"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    evaluation_id: Mapped[int] = mapped_column(ForeignKey("evaluation.id"))
    metric: Mapped[str]
    split: Mapped[str]
    value: Mapped[float]


class Decision(Base):
    """What the driver decided, why, and the numbers behind it."""

    __tablename__ = "decision"
    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"), index=True)
    what: Mapped[str]
    reason: Mapped[str]
    numbers: Mapped[dict[str, Any]]
    created: Mapped[datetime] = mapped_column(default=now)


class Artifact(Base):
    """A file beside the database, named by its content."""

    __tablename__ = "artifact"
    sha256: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    path: Mapped[str]  # from the run folder
    size: Mapped[int]  # bytes before compression
    created: Mapped[datetime] = mapped_column(default=now)


class Environment(Base):
    """Where a driver session ran: code, packages, machine."""

    __tablename__ = "environment"
    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"), index=True)
    session: Mapped[str]
    git_commit: Mapped[str | None]
    git_dirty: Mapped[bool | None]
    packages: Mapped[dict[str, Any]]
    device: Mapped[str]
    sandbox: Mapped[str]
    created: Mapped[datetime] = mapped_column(default=now)


class BudgetEntry(Base):
    """Money and calls: reserved at the worst case before a proposal is asked, settled after it."""

    __tablename__ = "budget_entry"
    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaign.id"), index=True)
    proposal_id: Mapped[int] = mapped_column(ForeignKey("proposal.id"), index=True)
    kind: Mapped[str]  # reserve | settle | release
    calls: Mapped[int]
    usd: Mapped[float | None]  # None: no price known
    created: Mapped[datetime] = mapped_column(default=now)


VIEWS = {
    "leaderboard": """
        SELECT c.id AS candidate, c.name, c.pattern, AVG(m.value) AS score, COUNT(*) AS evaluations,
               c.params, c.flops_per_token, c.state_bytes, e.profile, e.rung, e.sealed,
               MAX(CASE WHEN EXISTS (SELECT 1 FROM measurement s WHERE s.evaluation_id = e.id
                   AND s.metric LIKE '%/standin') THEN 1 ELSE 0 END) AS standin
        FROM candidate c JOIN evaluation e ON e.candidate_id = c.id
        JOIN measurement m ON m.evaluation_id = e.id AND m.metric = 'score'
        GROUP BY c.id, c.name, c.pattern, c.params, c.flops_per_token, c.state_bytes,
                 e.profile, e.rung, e.sealed
    """,
    "lineage": """
        SELECT p.candidate_id AS candidate, pp.candidate_id AS parent, pp.position, p.slot,
               a.name AS agent, p.operator, p.hypothesis
        FROM proposal_parent pp JOIN proposal p ON p.id = pp.proposal_id
        JOIN agent a ON a.id = p.agent_id
    """,
    "spend": """
        SELECT a.name AS agent, l.provider, l.model, COUNT(*) AS calls,
               SUM(l.input_tokens) AS input_tokens, SUM(l.output_tokens) AS output_tokens,
               SUM(l.cost_usd) AS known_usd,
               SUM(CASE WHEN l.cost_usd IS NULL THEN 1 ELSE 0 END) AS calls_without_price
        FROM llm_call l JOIN proposal p ON p.id = l.proposal_id JOIN agent a ON a.id = p.agent_id
        GROUP BY a.name, l.provider, l.model
    """,
    "failures": """
        SELECT 'proposal' AS what, p.id, p.slot, a.name AS agent, p.failure AS kind, p.detail,
               p.candidate_id AS candidate
        FROM proposal p JOIN agent a ON a.id = p.agent_id WHERE p.status = 'failed'
        UNION ALL
        SELECT 'evaluation', e.id, NULL, NULL, e.failure, e.detail, e.candidate_id
        FROM evaluation e WHERE e.state = 'failed'
    """,
}
