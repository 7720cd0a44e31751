"""The ledger under attack: real SQLite files, real migrations, real failures."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, event, func, select, text
from sqlalchemy.exc import IntegrityError, NoResultFound, OperationalError
from sqlalchemy.orm import Session

from storage import blobs, database, queries
from storage.database import LedgerError
from storage.ledger import Ledger
from storage.models import (
    VIEWS,
    Agent,
    Artifact,
    Base,
    Campaign,
    Candidate,
    Decision,
    LLMCall,
    Measurement,
    Proposal,
    ProposalParent,
)
from storage.records import AgentRecord, Answer, CallRecord, CandidateRecord, EvaluationPlan, Money

AGENTS = [
    AgentRecord("one", "search", "greedy", "llm", "anthropic:some-model"),
    AgentRecord("two", "control", "one-shot", "random"),
]
PLANS = [EvaluationPlan("smoke#1", 7), EvaluationPlan("smoke#1", 8)]


def record(content: str, pattern: str = "A+M") -> CandidateRecord:
    return CandidateRecord(content, "composition", pattern, "mini", 10, 2.5, 4)


def call(attempt: int = 0, **fields: Any) -> CallRecord:
    sent = {"request": f"asked {attempt}", "reply": f"said {attempt}", "outcome": "ok", **fields}
    return CallRecord("anthropic", "anthropic:some-model", "draft", attempt, **sent)


class Book:
    """A fresh ledger with one campaign and two agents."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.engine = database.create(folder)
        self.ledger = Ledger(self.engine, folder, "session-1")
        self.campaign = self.ledger.begin("test", {"name": "test"}, 0, 2, 2, AGENTS)

    def ask(self, slot: int, agent: int = 1, reserve: Money | None = None) -> int:
        return self.ledger.ask(self.campaign, slot, agent, 100 + slot, 0, reserve)

    def accept(self, slot: int, content: str, agent: int = 1, **answer: Any) -> int:
        proposal = self.ask(slot, agent)
        found = Answer("draft", "why", pattern="A+M", **answer)
        self.ledger.answer(proposal, found, record(content), PLANS, None)
        return proposal

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table."""
        return {name: self.rows(f"SELECT * FROM {name}") for name in Base.metadata.tables}

    def state(self, evaluation: int) -> str:
        return str(self.rows(f"SELECT state FROM evaluation WHERE id = {evaluation}")[0][0])

    def spent(self) -> Money:
        with Session(self.engine) as db:
            return queries.spent(db)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    opened = Book(tmp_path / "run")
    yield opened
    opened.engine.dispose()


def assert_sentence(error: BaseException) -> None:
    """One line that says what is wrong and, after a colon, what to do."""
    message = str(error)
    assert "\n" not in message and "Traceback" not in message
    assert ": " in message and len(message) < 400


# ------------------------------------------------------------------------- one change, one transaction


def test_an_exception_inside_a_transaction_leaves_nothing_behind(book: Book) -> None:
    before = book.dump()
    with pytest.raises(ZeroDivisionError), book.ledger.transaction() as db:
        db.add(Decision(campaign_id=book.campaign, what="stop", reason="", numbers={}))
        db.flush()
        1 / 0  # noqa: B018
    assert book.dump() == before


def test_an_answer_that_cannot_be_recorded_whole_is_not_recorded_at_all(book: Book) -> None:
    """The last thing it writes breaks a rule: calls, parents, money and candidate go with it."""
    proposal = book.ask(0, reserve=Money(1, 0.5))
    before = book.dump()
    answer = Answer("improve", "why", parents=(999,), pattern="A+M", calls=(call(),))
    with pytest.raises(IntegrityError):
        book.ledger.answer(proposal, answer, record("a"), PLANS, Money(1, 0.1))
    assert book.dump() == before
    assert book.spent() == Money(1, 0.5)


def test_a_finish_that_breaks_a_rule_leaves_the_evaluation_running(book: Book) -> None:
    book.accept(0, "a")
    book.ledger.start(1)
    before = book.dump()
    twice = [("score", "validation", 0.1), ("score", "validation", 0.2)]
    with pytest.raises(IntegrityError):
        book.ledger.finish(1, twice, {"steps": 3})
    assert book.dump() == before
    assert book.state(1) == "running"


def test_a_campaign_whose_agents_clash_is_not_begun(tmp_path: Path) -> None:
    engine = database.create(tmp_path / "run")
    with pytest.raises(IntegrityError):
        Ledger(engine, tmp_path / "run", "s").begin("x", {}, 0, 1, 1, [AGENTS[0], AGENTS[0]])
    with Session(engine) as db:
        assert queries.campaign(db) is None
        assert db.scalar(select(func.count()).select_from(Agent)) == 0
    engine.dispose()


def test_a_full_disk_is_one_sentence_and_loses_nothing(book: Book) -> None:
    book.accept(0, "a")
    before = book.dump()
    book.engine.dispose()

    def full(connection: Any, _: Any) -> None:
        connection.execute("PRAGMA max_page_count=1")  # SQLite keeps it at what is there

    event.listen(book.engine, "connect", full)
    with pytest.raises(LedgerError, match="full") as caught:
        book.ledger.decide(book.campaign, "stop", "x" * 1_000_000, {})
    assert_sentence(caught.value)
    event.remove(book.engine, "connect", full)
    book.engine.dispose()
    assert book.dump() == before
    book.ledger.decide(book.campaign, "stop", "x" * 1_000_000, {})  # and it goes on


def test_a_locked_database_is_one_sentence(book: Book) -> None:
    event.listen(book.engine, "checkout", lambda c, *_: c.execute("PRAGMA busy_timeout=0"))
    other = sqlite3.connect(book.folder / database.FILE)
    other.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(LedgerError, match="locked") as caught:
            book.ledger.decide(book.campaign, "stop", "why", {})
        assert_sentence(caught.value)
    finally:
        other.close()
    book.ledger.decide(book.campaign, "stop", "why", {})
    assert book.rows("SELECT COUNT(*) FROM decision") == [(1,)]


# ---------------------------------------------------------------------------- candidates, duplicates


def test_equal_content_is_one_candidate_whoever_proposes_it(book: Book) -> None:
    for slot, (content, agent) in enumerate([("a", 1), ("b", 1), ("a", 2), ("a", 1), ("b", 2)]):
        book.accept(slot, content, agent)
    assert book.rows("SELECT content_hash FROM candidate ORDER BY id") == [("a",), ("b",)]
    assert book.rows("SELECT COUNT(*) FROM evaluation") == [(2 * len(PLANS),)]
    statuses = [row[0] for row in book.rows("SELECT status FROM proposal ORDER BY slot")]
    assert statuses == ["accepted", "accepted", "accepted", "duplicate", "accepted"]


def test_the_database_itself_refuses_a_second_candidate_of_one_content(book: Book) -> None:
    book.accept(0, "a")
    columns = "content_hash, kind, pattern, preset, params, flops_per_token, state_bytes, created"
    insert = (
        f"INSERT INTO candidate ({columns}) VALUES ('a', 'composition', 'A', 'mini', 1, 1, 1, 0)"
    )
    with pytest.raises(IntegrityError, match="UNIQUE"), book.engine.begin() as connection:
        connection.execute(text(insert))


def test_evaluations_that_exist_are_not_queued_again(book: Book) -> None:
    book.accept(0, "a")
    book.ledger.queue(1, [*PLANS, *PLANS, EvaluationPlan("smoke#1", 9, sealed=True)])
    book.ledger.queue(1, [EvaluationPlan("smoke#1", 9, sealed=True)])
    found = book.rows("SELECT seed, sealed FROM evaluation ORDER BY id")
    assert found == [(7, 0), (8, 0), (9, 1)]


def test_a_failed_proposal_has_no_candidate_and_queues_nothing(book: Book) -> None:
    proposal = book.ask(0)
    answer = Answer("draft", "why", failure="invalid-reply", detail="no", calls=(call(),))
    book.ledger.answer(proposal, answer, None, PLANS, None)
    assert book.rows("SELECT status, failure, candidate_id FROM proposal") == [
        ("failed", "invalid-reply", None)
    ]
    assert book.rows("SELECT COUNT(*) FROM evaluation") == [(0,)]
    assert book.rows("SELECT COUNT(*) FROM llm_call") == [(1,)]


# --------------------------------------------------------------------------- evaluations, recovery

MOVES: dict[str, Callable[[Ledger], object]] = {
    "start": lambda ledger: ledger.start(1),
    "finish": lambda ledger: ledger.finish(1, [("score", "validation", 0.5)], {"steps": 3}),
    "fail": lambda ledger: ledger.finish(1, [], {}, "nan", "diverged"),
    "requeue": lambda ledger: ledger.requeue(1, "worker died"),
}
LEGAL = {
    ("queued", "start"): "running",
    ("running", "finish"): "done",
    ("running", "fail"): "failed",
    ("running", "requeue"): "queued",
}


@settings(max_examples=15)
@given(st.lists(st.sampled_from(sorted(MOVES)), max_size=8))
def test_the_state_machine_refuses_what_it_does_not_know(moves: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        book = Book(Path(folder) / "run")
        book.accept(0, "a")
        state, starts = "queued", 0
        for move in moves:
            expected = LEGAL.get((state, move))
            before = book.dump()
            if expected is None:
                with pytest.raises(LedgerError) as caught:
                    MOVES[move](book.ledger)
                assert_sentence(caught.value)
                assert book.dump() == before
                continue
            MOVES[move](book.ledger)
            state, starts = expected, starts + (move == "start")
            found = book.rows("SELECT state, attempt, lease FROM evaluation WHERE id = 1")
            assert found == [(state, starts, "session-1" if state == "running" else None)]
        scored = book.rows("SELECT COUNT(*) FROM measurement")
        assert scored == [(1 if state == "done" else 0,)]
        book.engine.dispose()


def test_an_evaluation_that_does_not_exist_cannot_be_started(book: Book) -> None:
    with pytest.raises(NoResultFound):
        book.ledger.start(1)


def test_recovery_queues_again_what_ran_and_touches_nothing_else(book: Book) -> None:
    book.accept(0, "a")
    book.accept(1, "b")
    for evaluation in (1, 2, 3):
        book.ledger.start(evaluation)
    book.ledger.finish(1, [("score", "validation", 0.5)], {"seconds": 1.0})
    done = book.rows("SELECT * FROM evaluation WHERE id = 1")
    later = Ledger(book.engine, book.folder, "session-2")
    assert later.recover() == 2
    assert book.rows("SELECT * FROM evaluation WHERE id = 1") == done
    assert book.rows("SELECT id, state, attempt, lease FROM evaluation WHERE id > 1") == [
        (2, "queued", 1, None),
        (3, "queued", 1, None),
        (4, "queued", 0, None),
    ]
    assert later.recover() == 0
    assert later.start(2) == 2  # the second attempt, under the new session's lease
    assert book.rows("SELECT lease FROM evaluation WHERE id = 2") == [("session-2",)]


# ------------------------------------------------------------------------------------------- money


def test_a_reservation_counts_until_its_settlement_does(book: Book) -> None:
    proposal = book.ask(0, reserve=Money(3, 1.5))
    assert book.spent() == Money(3, 1.5)
    answer = Answer("draft", "why", pattern="A+M", calls=(call(cost_usd=0.25),))
    book.ledger.answer(proposal, answer, record("a"), PLANS, Money(1, 0.25))
    assert book.spent() == Money(1, 0.25)
    assert book.rows("SELECT kind FROM budget_entry ORDER BY id") == [("reserve",), ("settle",)]


def test_what_was_lost_is_settled_at_the_worst_case_when_it_is_asked_again(book: Book) -> None:
    first = book.ask(0, reserve=Money(3, 1.5))
    second = book.ask(0, reserve=Money(2, 1.0))
    assert first == second, "the slot keeps its row"
    assert book.spent() == Money(5, 2.5)
    lost = book.rows("SELECT provider, outcome, cost_usd, request_sha FROM llm_call")
    assert lost == [("anthropic", "lost", 1.5, None)]
    book.ledger.answer(second, Answer("draft", ""), None, (), Money(1, 0.25))
    assert book.spent() == Money(4, 1.75)


def test_an_agent_without_a_model_that_is_asked_again_costs_and_records_no_call(book: Book) -> None:
    book.ask(0, agent=2)
    book.ask(0, agent=2)
    assert book.spent() == Money()
    assert book.rows("SELECT COUNT(*) FROM llm_call") == [(0,)]
    assert book.rows("SELECT COUNT(*) FROM proposal") == [(1,)]


def test_an_unknown_price_stays_unknown_and_never_becomes_zero(book: Book) -> None:
    book.ask(0, reserve=Money(1, None))
    assert book.spent() == Money(1, None)
    book.ask(1, reserve=Money(1, 0.5))
    assert book.spent() == Money(2, None)


prices = st.integers(0, 8).map(lambda eighths: eighths / 8)  # exact in binary: sums have no error
moneys = st.builds(Money, st.integers(0, 3), prices)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 2), moneys, st.one_of(st.none(), moneys)), max_size=8))
def test_spent_is_every_settlement_and_every_open_reservation(
    story: list[tuple[int, Money, Money | None]],
) -> None:
    """Each step asks a slot and answers it, or (None) dies before the answer."""
    with tempfile.TemporaryDirectory() as folder:
        book = Book(Path(folder) / "run")
        settled, still_open = Money(), dict[int, Money]()
        for slot, reserved, paid in story:
            settled += still_open.pop(slot, Money())  # lost: at the worst case
            proposal = book.ask(slot, reserve=reserved)
            still_open[slot] = reserved
            assert book.spent() == sum(still_open.values(), settled)
            if paid is not None:
                book.ledger.answer(proposal, Answer("draft", ""), None, (), paid)
                settled += paid
                del still_open[slot]
            assert book.spent() == sum(still_open.values(), settled)
        book.engine.dispose()


# ------------------------------------------------------------------------------------------- blobs


@settings(max_examples=25)
@given(st.binary(max_size=5000))
def test_a_blob_comes_back_as_it_was(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        name, path = blobs.put(Path(folder), data)
        assert blobs.get(Path(folder), name) == data
        assert path.is_file() and name in path.name


def test_equal_blobs_are_one_file_written_once(tmp_path: Path) -> None:
    one = blobs.put(tmp_path, b"words")
    inode = one[1].stat().st_ino
    assert blobs.put(tmp_path, b"words") == one
    assert one[1].stat().st_ino == inode
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) == 1


def test_a_blob_that_could_not_be_written_whole_has_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(_: int) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(os, "fsync", died)
    with pytest.raises(OSError, match="power cut"):
        blobs.put(tmp_path, b"words")
    assert not list(tmp_path.rglob("*.z"))
    monkeypatch.undo()
    name, _ = blobs.put(tmp_path, b"words")
    assert blobs.get(tmp_path, name) == b"words"


def test_writing_over_a_file_keeps_the_old_one_until_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    blobs.write_whole(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("power cut")))
        with pytest.raises(OSError, match="power cut"):
            blobs.write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    blobs.write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def _flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def test_damage_at_any_byte_is_a_value_error_and_never_other_content(tmp_path: Path) -> None:
    name, path = blobs.put(tmp_path, b"some words that were sent to a model")
    whole = path.read_bytes()
    damaged = [_flipped(whole, at) for at in range(len(whole))] + [whole[:-3], b""]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(ValueError) as caught:
            blobs.get(tmp_path, name)
        assert str(path) in str(caught.value)
        assert_sentence(caught.value)


def test_a_blob_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        blobs.get(tmp_path, "0" * 64)


def test_calls_are_kept_as_files_whose_rows_point_at_whole_content(book: Book) -> None:
    proposal = book.ask(0, reserve=Money(2, 1.0))
    calls = (call(0), call(1, request="asked 0", reply=""))  # the same request twice
    answer = Answer("draft", "why", failure="invalid-reply", calls=calls)
    book.ledger.answer(proposal, answer, None, (), Money(2, 0.5))
    with Session(book.engine) as db:
        rows = db.scalars(select(LLMCall).order_by(LLMCall.id)).all()
        assert rows[0].request_sha == rows[1].request_sha
        assert rows[1].reply_sha is None
        folder = book.folder / "blobs"
        assert blobs.get(folder, rows[0].request_sha or "") == b"asked 0"
        assert blobs.get(folder, rows[0].reply_sha or "") == b"said 0"
        for artifact in db.scalars(select(Artifact)):
            assert len(blobs.get(folder, artifact.sha256)) == artifact.size
            assert (book.folder / artifact.path).is_file()


# ------------------------------------------------------------------------------- opening, refusing


def test_a_reader_is_not_blocked_by_a_writer_nor_a_writer_by_a_reader(book: Book) -> None:
    book.accept(0, "a")
    book.engine.dispose()
    reader = database.open_(book.folder, readonly=True)
    writer = sqlite3.connect(book.folder / database.FILE, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE candidate SET pattern = 'changed'")
    with Session(reader) as db:
        assert db.scalar(select(Candidate.pattern)) == "A+M"  # as of before the open transaction
        writer.execute("COMMIT")  # while the reader's transaction is open
        assert db.execute(text("SELECT pattern FROM candidate")).scalar() is not None
    with Session(reader) as db:
        assert db.scalar(select(Candidate.pattern)) == "changed"
    writer.close()
    reader.dispose()


def test_a_reader_cannot_write(book: Book) -> None:
    book.accept(0, "a")
    before = book.dump()
    reader = database.open_(book.folder, readonly=True)
    for statement in (
        "DELETE FROM candidate",
        "UPDATE proposal SET status = 'failed'",
        "DROP TABLE agent",
        "CREATE TABLE mine (x)",
        "PRAGMA user_version = 7",
    ):
        with pytest.raises(OperationalError, match="readonly"), reader.begin() as connection:
            connection.execute(text(statement))
    with pytest.raises(LedgerError, match="readonly"):
        Ledger(reader, book.folder, "s").decide(book.campaign, "stop", "why", {})
    reader.dispose()
    assert book.dump() == before


def opens(folder: Path) -> list[LedgerError]:
    """The errors of opening a folder for reading and for writing."""
    errors = []
    for readonly in (True, False):
        with pytest.raises(LedgerError) as caught:
            database.open_(folder, readonly=readonly)
        assert_sentence(caught.value)
        errors.append(caught.value)
    return errors


def test_a_newer_schema_says_so_and_is_left_alone(book: Book) -> None:
    with book.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    book.engine.dispose()
    for error in opens(book.folder):
        assert "newer" in str(error) and "9999" in str(error)
    assert book.rows("SELECT version_num FROM alembic_version") == [("9999",)]


@pytest.mark.parametrize(
    "content",
    [b"", b"not a database, only words, but many of them" * 500, b"SQLite format 3\x00" + b"x" * 9],
    ids=["empty", "words", "header"],
)
def test_a_file_that_is_no_ledger_says_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / database.FILE).write_bytes(content)
    opens(tmp_path)


def test_a_database_of_someone_else_says_so(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / database.FILE) as other:
        other.execute("CREATE TABLE notes (words)")
    other.close()
    for error in opens(tmp_path):
        assert "ledger" in str(error)


def test_a_truncated_ledger_says_so(book: Book) -> None:
    book.accept(0, "a")
    book.engine.dispose()
    path = book.folder / database.FILE
    with sqlite3.connect(path) as direct:
        direct.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    direct.close()
    path.write_bytes(path.read_bytes()[:3000])
    opens(book.folder)


def test_a_ledger_damaged_in_its_tables_says_so_when_it_is_written(book: Book) -> None:
    """The file opens, and the page that the write needs is rubbish."""
    (page,) = book.rows("SELECT rootpage FROM sqlite_master WHERE name = 'decision'")[0]
    book.engine.dispose()
    path = book.folder / database.FILE
    with sqlite3.connect(path) as direct:
        direct.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (size,) = direct.execute("PRAGMA page_size").fetchone()
    direct.close()
    data = bytearray(path.read_bytes())
    data[(page - 1) * size : page * size] = b"\xaa" * size
    path.write_bytes(data)
    with pytest.raises(LedgerError) as caught:
        book.ledger.decide(book.campaign, "stop", "why", {})
    assert_sentence(caught.value)


def test_a_missing_folder_says_so_and_is_not_made(tmp_path: Path) -> None:
    opens(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch], ids=["folder", "file"])
def test_what_exists_is_not_written_into(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "run")
    with pytest.raises(LedgerError, match="exists") as caught:
        database.create(tmp_path / "run")
    assert_sentence(caught.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["run"]


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "run", Path("/proc/nowhere/run")):
        with pytest.raises(LedgerError, match="cannot make") as caught:
            database.create(folder)
        assert_sentence(caught.value)
    assert (tmp_path / "file").read_bytes() == b""


@pytest.mark.parametrize("name", ["a b", "a#b", "a%41b", "a?b", "naïve", "a'b"])
def test_a_run_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    engine = database.create(folder)
    Ledger(engine, folder, "s").begin("x", {}, 0, 1, 1, AGENTS)
    engine.dispose()
    assert (folder / database.FILE).is_file()
    assert [p.name for p in tmp_path.iterdir()] == [name], "nothing beside the run folder"
    for readonly in (True, False):
        opened = database.open_(folder, readonly=readonly)
        with Session(opened) as db:
            assert len(queries.agents(db)) == len(AGENTS)
        opened.dispose()


def test_an_empty_ledger_opens_and_holds_no_campaign(tmp_path: Path) -> None:
    database.create(tmp_path / "run").dispose()
    engine = database.open_(tmp_path / "run")
    with Session(engine) as db:
        assert queries.campaign(db) is None
        assert queries.proposals(db) == [] and queries.evaluations(db) == []
        assert queries.spent(db) == Money()
    engine.dispose()


def test_two_drivers_on_one_folder_are_refused_and_the_first_is_named(book: Book) -> None:
    with database.driving(book.folder):
        second = database.driving(book.folder)
        with pytest.raises(LedgerError, match=str(os.getpid())) as caught:
            second.__enter__()
        assert_sentence(caught.value)
        code = (
            "import sys; from pathlib import Path; from storage import database\n"
            "try:\n    with database.driving(Path(sys.argv[1])): print('driven')\n"
            "except database.LedgerError as error: print(error)"
        )
        command = [sys.executable, "-c", code, str(book.folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert f"driven by process {os.getpid()}" in done.stdout
    with database.driving(book.folder):
        pass  # free again


def test_a_driver_that_was_killed_holds_nothing(book: Book) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from storage import database\n"
        "with database.driving(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(book.folder)])
    assert done.returncode == -9
    with database.driving(book.folder):
        pass


# ---------------------------------------------------------------------------------- the schema


def pragma(engine: Engine, name: str) -> Any:
    with engine.connect() as connection:
        return connection.execute(text(f"PRAGMA {name}")).scalar()


def test_foreign_keys_are_on_wherever_the_ledger_is_opened(book: Book) -> None:
    for engine in (
        book.engine,
        database.open_(book.folder),
        database.open_(book.folder, readonly=True),
    ):
        assert pragma(engine, "foreign_keys") == 1
        engine.dispose()
    orphan = "INSERT INTO measurement (evaluation_id, metric, split, value) VALUES (9, 'a', 'b', 1)"
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), book.engine.begin() as connection:
        connection.execute(text(orphan))


def test_the_write_ahead_log_is_on(book: Book) -> None:
    assert pragma(book.engine, "journal_mode") == "wal"
    assert pragma(book.engine, "synchronous") == 1  # NORMAL
    assert pragma(database.open_(book.folder), "journal_mode") == "wal"


def test_models_and_migrations_agree(book: Book) -> None:
    with book.engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []
        assert context.get_current_revision() is not None


def test_the_views_are_those_of_the_models(book: Book) -> None:
    found = dict(book.rows("SELECT name, sql FROM sqlite_master WHERE type = 'view'"))
    assert set(found) == set(VIEWS) == {"leaderboard", "lineage", "spend", "failures"}
    for name, query in VIEWS.items():
        assert found[name].split() == f"CREATE VIEW {name} AS {query}".split()


def test_the_views_say_what_the_tables_hold(book: Book) -> None:
    book.accept(0, "a", hypothesis="first")
    proposal = book.ask(1, reserve=Money(2, 1.0))
    calls = (call(0, input_tokens=10, cost_usd=0.25), call(1, input_tokens=5, output_tokens=2))
    child = Answer("improve", "why", (1,), "A", "second", calls=calls)
    book.ledger.answer(proposal, child, record("b", "A"), PLANS[:1], Money(2, 0.5))
    book.ledger.answer(book.ask(2), Answer("draft", "", failure="timeout"), None, (), None)
    for evaluation, score in ((1, 0.25), (2, 0.75)):
        book.ledger.start(evaluation)
        book.ledger.finish(evaluation, [("score", "validation", score), ("x/loss", "t", 9)], {})
    book.ledger.start(3)
    book.ledger.finish(3, [], {}, "nan", "loss is nan")
    assert book.rows("SELECT candidate, pattern, score, evaluations, sealed FROM leaderboard") == [
        (1, "A+M", 0.5, 2, 0)
    ]
    assert book.rows("SELECT candidate, parent, position, slot, agent, operator FROM lineage") == [
        (2, 1, 0, 1, "one", "improve")
    ]
    assert book.rows("SELECT * FROM spend") == [
        ("one", "anthropic", "anthropic:some-model", 2, 15, 2, 0.25, 1)
    ]
    found = book.rows("SELECT what, slot, agent, kind, candidate FROM failures ORDER BY what")
    assert found == [("evaluation", None, None, "nan", 2), ("proposal", 2, "one", "timeout", None)]


def test_a_lost_call_stands_under_its_model_in_the_spend_view(book: Book) -> None:
    """Lost and answered calls of one model are one line, or the spend is split in two."""
    book.ask(0, reserve=Money(1, 0.5))
    proposal = book.ask(0, reserve=Money(1, 0.5))
    book.ledger.answer(proposal, Answer("draft", "", calls=(call(),)), None, (), Money(1, 0.1))
    assert len(book.rows("SELECT * FROM spend")) == 1


def test_lineage_of_ancestors_ends_even_when_they_go_in_a_circle(book: Book) -> None:
    book.accept(0, "a")
    book.accept(1, "b", parents=(1,))
    with book.ledger.transaction() as db:
        db.add(ProposalParent(proposal_id=1, position=0, candidate_id=2))
    with Session(book.engine) as db:
        found = queries.lineage(db, 2)
    assert [(row["candidate"], row["depth"]) for row in found] == [(2, 0), (1, 1)]


def test_a_campaign_was_done_when_it_first_was(book: Book) -> None:
    book.ledger.set_status(book.campaign, "interrupted", 1.5)
    with Session(book.engine) as db:
        assert db.get_one(Campaign, book.campaign).finished is None
    book.ledger.set_status(book.campaign, "done", 3.5)
    with Session(book.engine) as db:
        row = db.get_one(Campaign, book.campaign)
        assert (row.status, row.seconds) == ("done", 3.5)
        first = row.finished
    book.ledger.set_status(book.campaign, "running", 4.0)
    book.ledger.set_status(book.campaign, "done", 4.5)
    with Session(book.engine) as db:
        assert db.get_one(Campaign, book.campaign).finished == first is not None


def test_every_foreign_key_holds_and_the_file_is_sound(book: Book) -> None:
    for slot, content in enumerate("abca"):
        book.accept(slot, content, agent=1 + slot % 2)
    for evaluation in (1, 2):
        book.ledger.start(evaluation)
        book.ledger.finish(evaluation, [("score", "validation", 0.5)], {"tokens": 3})
    assert book.rows("PRAGMA foreign_key_check") == []
    assert book.rows("PRAGMA integrity_check") == [("ok",)]
    counts = {
        m: book.rows(f"SELECT COUNT(*) FROM {m.__tablename__}") for m in (Proposal, Measurement)
    }
    assert counts == {Proposal: [(4,)], Measurement: [(2,)]}
    assert book.rows("SELECT tokens FROM evaluation WHERE id = 1") == [(3,)]
