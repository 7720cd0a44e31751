"""Whole campaigns in this process, in every order of completion, killed at every point, short of money.

Training is real (profile `smoke`); equal jobs are trained once and remembered, since an evaluation is a
pure function of its job (tests/evaluator holds that).
"""

from __future__ import annotations

import functools
import json
import random
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import priced_double
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import merged, rows
from sqlalchemy import event
from sqlalchemy.orm import Session

import archwright.campaign
from archwright.campaign import FAULTS, NOTES, Campaign, Progress
from archwright.executor import LocalExecutor
from archwright.recipe import Recipe, parse
from archwright.schedule import ATTEMPTS
from evaluator.evaluate import Job, evaluate
from evaluator.outcome import Result
from storage import blobs, database, queries
from storage.database import LedgerError
from storage.ledger import BLOBS
from storage.records import View

WAITS = 500  # more than any of these campaigns needs: a loop that does not end fails
TRAINED: dict[Job, Result] = {}
Row = dict[str, Any]
Pick = Callable[[Sequence[int]], int]

BASE: Row = {
    "name": "test",
    "seed": 1,
    "space": {"primitives": ["A", "M"], "layers": [2, 3], "preset": "mini"},
    "evaluation": {"profile": "smoke", "tasks": ["compression"]},
    "agents": [
        {
            "name": "evolution",
            "proposer": "evolution",
            "scaffold_options": {"population": 2, "sample": 2},
        }
    ],
    "controls": [{"name": "random", "proposer": "random"}],
    "budget": {"evaluations": 3},
    "references": {"patterns": {"llama": "A+M"}, "seeds": 2},
    "confirm": {"finalists": 1, "seeds": 2},
    "lag": 2,
}


def recipe(**changes: Any) -> Recipe:
    """BASE with some fields changed; sections are merged."""
    return parse(merged(BASE, changes))


def scripted(replies: list[Any], proposer: str = "scripted", **options: Any) -> Row:
    """An agent that plays these replies; a pattern alone stands for a whole reply of it."""
    played = [[whole(r) for r in x] if isinstance(x, list) else whole(x) for x in replies]
    return {"name": "script", "proposer": proposer, "options": {"replies": played, **options}}


def whole(reply: Any) -> Any:
    words = {"hypothesis": "h", "reasoning": "r", "expected_effect": "e"}
    return {**words, "pattern": reply} if isinstance(reply, str) else reply


def alone(agent: Row, evaluations: int = 3, **changes: Any) -> Recipe:
    """A campaign of one agent, without controls or references, in which each slot sees all before it."""
    plain = {"controls": [], "references": {"patterns": {}}, "lag": 1}
    return recipe(agents=[agent], budget={"evaluations": evaluations}, **{**plain, **changes})


class Killed(BaseException):
    """The driver dies here, whatever it was doing."""


class Executor(LocalExecutor):
    """In this process; dies at wait number ``kill`` and fails at what the two tables of faults say."""

    def __init__(
        self,
        workers: int = 2,
        pick: Pick = lambda handles: handles[0],
        kill: int = 0,
        evaluation_faults: Callable[[Job], int] = lambda job: 0,
        ask_faults: Callable[[str, int], int] = lambda agent, turn: 0,
    ) -> None:
        super().__init__(workers, pick)
        self.kill, self.waits = kill, 0
        self.evaluation_faults, self.ask_faults = evaluation_faults, ask_faults
        self.tried: Counter[Any] = Counter()
        self.views: list[tuple[str, View]] = []

    def propose(self, agent: str, view: View, seed: int) -> int:
        self.views.append((agent, view))
        self.tried[agent, view.turn] += 1
        if self.tried[agent, view.turn] <= self.ask_faults(agent, view.turn):
            return self._add(lambda: self._die("the actor died"))
        return super().propose(agent, view, seed)

    def submit(self, task: Callable[..., Any], *args: Any) -> int:
        assert task is evaluate
        (job,) = args
        self.tried[job] += 1
        if self.tried[job] <= self.evaluation_faults(job):
            return self._add(lambda: self._die("the worker died"))
        return self._add(lambda: trained(job))

    def _die(self, why: str) -> None:
        raise RuntimeError(why)

    def wait(self, handles: Sequence[int], timeout: float) -> list[int]:
        self.waits += 1
        assert self.waits < WAITS, "the campaign does not end"
        if self.waits == self.kill:
            raise Killed
        return super().wait(handles, timeout)


def trained(job: Job) -> Result:
    if job not in TRAINED:
        TRAINED[job] = evaluate(job)
    return TRAINED[job]


def start(folder: Path, chosen: Recipe, executor: LocalExecutor | None = None) -> Campaign:
    """A new campaign, driven to its end (or to its executor's)."""
    return drive(Campaign.create(chosen, folder, 2), executor)


def resume(folder: Path, executor: LocalExecutor | None = None) -> Campaign:
    return drive(Campaign.open(folder), executor)


def drive(campaign: Campaign, executor: LocalExecutor | None = None) -> Campaign:
    try:
        campaign.run(executor or Executor())
    finally:
        campaign.ledger.engine.dispose()
    return campaign


def column(folder: Path, query: str) -> list[Any]:
    return [next(iter(row.values())) for row in rows(folder, query)]


PROPOSALS = """
    SELECT p.slot, a.name, p.seed, p.seen, p.status, p.operator, p.reason, p.hypothesis, p.failure,
           p.candidate_id, c.content_hash,
           (SELECT group_concat(pp.candidate_id) FROM proposal_parent pp WHERE pp.proposal_id = p.id)
               AS parents
    FROM proposal p JOIN agent a ON a.id = p.agent_id LEFT JOIN candidate c ON c.id = p.candidate_id
    ORDER BY p.slot
"""
SCORES = """
    SELECT e.candidate_id, e.profile, e.rung, e.seed, e.sealed, e.state, e.failure, e.steps, e.tokens,
           e.flops, m.metric, m.split, m.value
    FROM evaluation e LEFT JOIN measurement m ON m.evaluation_id = e.id
    ORDER BY e.candidate_id, e.seed, m.split, m.metric
"""


CHOSEN = "SELECT numbers FROM decision WHERE what = 'confirm'"


def outcome(folder: Path) -> Row:
    """All that a campaign found and decided; no times, no ids of work."""
    return {
        "candidates": rows(folder, "SELECT id, content_hash, pattern, name, params FROM candidate"),
        "slots": rows(folder, PROPOSALS),
        "scores": rows(folder, SCORES),
        "decisions": rows(folder, "SELECT what, reason, numbers FROM decision ORDER BY id"),
        "status": rows(folder, "SELECT status FROM campaign"),
    }


def assert_whole(folder: Path) -> None:
    """A finished ledger: nothing half done, nothing orphaned, every file whole."""
    assert column(folder, "SELECT status FROM campaign") == ["done"]
    assert set(column(folder, "SELECT state FROM evaluation")) <= {"done", "failed"}
    assert column(folder, "SELECT lease FROM evaluation WHERE lease IS NOT NULL") == []
    assert column(folder, "SELECT slot FROM proposal WHERE status = 'asked'") == []
    slots = column(folder, "SELECT slot FROM proposal ORDER BY slot")
    assert slots == list(range(len(slots)))
    assert column(folder, "PRAGMA foreign_key_check") == []
    assert column(folder, "PRAGMA integrity_check") == ["ok"]
    for row in rows(folder, "SELECT sha256, size FROM artifact"):
        assert len(blobs.get(folder / BLOBS, row["sha256"])) == row["size"]
    unsettled = """SELECT p.slot, SUM(b.kind = 'reserve') AS reserved, SUM(b.kind = 'settle') AS settled
        FROM budget_entry b JOIN proposal p ON p.id = b.proposal_id
        GROUP BY p.id HAVING reserved > settled"""
    assert rows(folder, unsettled) == []


@pytest.fixture(autouse=True, scope="module")
def _asked_git_once() -> Iterator[None]:
    """What is true of this machine, asked for once and not for each of some hundred drivers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archwright.campaign, "facts", functools.cache(archwright.campaign.facts))
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The campaign of BASE, uninterrupted, one piece of work after the other."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    start(folder, recipe(), Executor(workers=1))
    return folder


def test_a_campaign_ends_whole(plain: Path) -> None:
    assert_whole(plain)
    found = outcome(plain)
    assert [row["name"] for row in found["slots"]].count("references") == 1
    assert [row["what"] for row in found["decisions"]] == ["confirm"]
    assert all(row["value"] is not None for row in found["scores"])


# ------------------------------------------------------------------------- the order of completion


@settings(max_examples=12)
@given(st.randoms(use_true_random=False), st.integers(1, 3))
def test_the_order_in_which_work_ends_changes_nothing(
    plain: Path, rng: random.Random, workers: int
) -> None:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        start(folder, recipe(), Executor(workers, pick=lambda handles: rng.choice(list(handles))))
        assert_whole(folder)
        assert outcome(folder) == outcome(plain)


@pytest.mark.parametrize("lag", [1, 2, 3])
def test_the_slowest_and_the_newest_first_change_nothing_at_any_lag(
    tmp_path: Path, lag: int
) -> None:
    """With an agent that repeats itself, so that slots are freed again while others are in flight."""
    agents = [*BASE["agents"], scripted(["A+M", "A+M", "2A", "A+M", "M+A", "2M"])]
    chosen = recipe(agents=agents, budget={"evaluations": 4}, lag=lag)
    orders: list[Pick] = [min, max, lambda h: sorted(h)[len(h) // 2]]
    found = []
    for k, pick in enumerate(orders):
        start(tmp_path / str(k), chosen, Executor(workers=1 + k, pick=pick))
        assert_whole(tmp_path / str(k))
        found.append(outcome(tmp_path / str(k)))
    assert found[0] == found[1] == found[2]
    assert "duplicate" in {row["status"] for row in found[0]["slots"]}


def test_another_seed_is_another_search(plain: Path, tmp_path: Path) -> None:
    start(tmp_path / "run", recipe(seed=2))
    patterns = "SELECT pattern FROM candidate"
    assert column(tmp_path / "run", patterns) != column(plain, patterns)


def test_a_decision_sees_exactly_the_slots_up_to_its_lag(tmp_path: Path) -> None:
    executor = Executor(workers=3, pick=max)
    start(tmp_path / "run", recipe(lag=3, budget={"evaluations": 4}), executor)
    found = rows(tmp_path / "run", PROPOSALS)
    for slot, (agent, view) in enumerate(executor.views):
        seen = [row["slot"] for row in found[: max(0, slot - 2)] if row["name"] == agent]
        assert found[slot]["name"] == agent
        assert [node.slot for node in view.nodes] == seen
        assert view.turn == sum(row["name"] == agent for row in found[:slot])


def test_a_campaign_that_need_not_be_reproducible_ends_with_the_same_quotas(tmp_path: Path) -> None:
    rng = random.Random(3)
    chosen = recipe(reproducible=False, lag=3)
    start(tmp_path / "run", chosen, Executor(3, pick=lambda handles: rng.choice(list(handles))))
    assert_whole(tmp_path / "run")
    found = rows(tmp_path / "run", PROPOSALS)
    charged = Counter(row["name"] for row in found if row["status"] == "accepted")
    assert charged == {"references": 1, "evolution": 3, "random": 3}


# ------------------------------------------------------------------------------ killed at any point


def assert_nothing_repeated(before: list[Row], folder: Path) -> None:
    """What was finished is as it was, what ran was tried once more, the rest was tried once."""
    after = {row["id"]: row for row in rows(folder, "SELECT * FROM evaluation")}
    for row in before:
        if row["state"] == "done":
            assert after[row["id"]] == row, "finished work was touched"
        else:
            assert after[row["id"]]["attempt"] == row["attempt"] + 1
    for identity in after.keys() - {row["id"] for row in before}:
        assert after[identity]["attempt"] == 1


def test_a_campaign_killed_at_any_wait_goes_on_as_if_it_had_not_been(
    plain: Path, tmp_path: Path
) -> None:
    expected, at = outcome(plain), 0
    while True:
        at += 1
        folder = tmp_path / str(at)
        try:
            start(folder, recipe(), Executor(kill=at))
            break  # it ended before it was killed
        except Killed:
            before = rows(folder, "SELECT * FROM evaluation")
        with pytest.raises(Killed):  # and once more, at the first thing the second driver waits for
            resume(folder, Executor(kill=1))
        again = rows(folder, "SELECT * FROM evaluation")
        resume(folder)
        assert_whole(folder)
        assert outcome(folder) == expected, f"killed at wait {at}"
        assert_nothing_repeated(again, folder)
        done = [row for row in before if row["state"] == "done"]
        assert [row for row in again if row["id"] in {r["id"] for r in done}] == done
    assert at > 15, "there was something to kill"


@contextmanager
def images(folder: Path, to: Path) -> Iterator[list[Path]]:
    """Copies of the run folder after each transaction: what `kill -9` there would leave."""
    taken: list[Path] = []

    def take(_: object) -> None:
        taken.append(to / f"{len(taken):03d}")
        shutil.copytree(folder, taken[-1])

    event.listen(Session, "after_commit", take)
    try:
        yield taken
    finally:
        event.remove(Session, "after_commit", take)


def test_a_campaign_killed_after_any_transaction_goes_on_as_if_it_had_not_been(
    plain: Path, tmp_path: Path
) -> None:
    """The folder as it lay on the disk at that moment: no `finally` of the driver has run."""
    folder = tmp_path / "run"
    campaign = Campaign.create(recipe(), folder, 2)
    with images(folder, tmp_path) as taken:
        drive(campaign, Executor(workers=2, pick=max))
    assert len(taken) > 40
    expected = outcome(plain)
    for image in taken[:-1]:
        before = rows(image, "SELECT * FROM evaluation")
        resume(image, Executor(workers=2, pick=min))
        assert_whole(image)
        assert outcome(image) == expected, f"killed after transaction {image.name}"
        assert_nothing_repeated(before, image)


def test_a_finished_campaign_that_is_resumed_stays_as_it_is(plain: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "run"))
    executor = Executor()
    resume(folder, executor)
    assert outcome(folder) == outcome(plain)
    assert not executor.tried, "nothing was asked, nothing was trained"


def test_a_campaign_finished_when_it_finished_however_often_it_is_resumed(
    plain: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "run"))
    resume(folder)
    finished = "SELECT finished FROM campaign"
    assert column(folder, finished) == column(plain, finished)


def test_an_interrupt_leaves_everything_queued_and_says_so(plain: Path, tmp_path: Path) -> None:
    class Interrupted(Executor):
        def wait(self, handles: Sequence[int], timeout: float) -> list[int]:
            if self.waits == 6:
                raise KeyboardInterrupt
            return super().wait(handles, timeout)

    with pytest.raises(KeyboardInterrupt):
        start(tmp_path / "run", recipe(), Interrupted())
    assert column(tmp_path / "run", "SELECT status FROM campaign") == ["interrupted"]
    assert "running" not in column(tmp_path / "run", "SELECT state FROM evaluation")
    resume(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(plain)


def test_a_campaign_that_is_driven_again_is_running(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        start(tmp_path / "run", recipe(), Executor(kill=3))
    seen: list[str] = []
    campaign = Campaign.open(tmp_path / "run")
    status = "SELECT status FROM campaign"
    campaign.run(Executor(), lambda _: seen.extend(column(tmp_path / "run", status)))
    assert set(seen) == {"running"}


def test_the_seconds_of_a_driver_that_was_killed_count(tmp_path: Path) -> None:
    """Else a campaign that is killed often enough has no budget of seconds."""
    folder, slept = tmp_path / "run", 0.4

    def sleeping(handles: Sequence[int]) -> int:
        time.sleep(slept / 4)
        return handles[0]

    with images(folder, tmp_path) as taken:
        start(folder, recipe(), Executor(pick=sleeping))
    done = "SELECT 1 FROM evaluation WHERE state = 'done'"
    image = next(path for path in taken if len(column(path, done)) == 5)
    resume(image)
    assert column(image, "SELECT seconds FROM campaign")[0] >= slept


def test_two_drivers_cannot_drive_one_campaign(tmp_path: Path) -> None:
    campaign = Campaign.create(recipe(), tmp_path / "run", 2)
    with database.driving(tmp_path / "run"), pytest.raises(LedgerError, match="driven by"):
        campaign.run(Executor())
    drive(campaign)
    assert_whole(tmp_path / "run")


def test_a_folder_without_a_campaign_cannot_be_driven(tmp_path: Path) -> None:
    database.create(tmp_path / "run").dispose()
    with pytest.raises(LedgerError, match="no campaign"):
        Campaign.open(tmp_path / "run")


# ---------------------------------------------------------------------------- infrastructure faults


@pytest.mark.parametrize("faults", [1, FAULTS - 1])
def test_faults_are_retried_and_leave_no_trace_in_the_scores(
    plain: Path, tmp_path: Path, faults: int
) -> None:
    executor = Executor(
        evaluation_faults=lambda job: faults * (job.seed % 2), ask_faults=lambda a, turn: faults
    )
    start(tmp_path / "run", recipe(), executor)
    assert_whole(tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(plain)
    attempts = rows(tmp_path / "run", "SELECT seed, attempt FROM evaluation")
    assert {row["attempt"] for row in attempts} == {1, 1 + faults}
    assert all(row["attempt"] == 1 + faults * (row["seed"] % 2) for row in attempts)


def test_an_evaluation_is_given_up_after_three_faults_and_never_scored(tmp_path: Path) -> None:
    doomed = "2A"
    executor = Executor(evaluation_faults=lambda job: 99 * (job.pattern == doomed))
    chosen = alone(scripted([doomed, "A+M", "2M"]), confirm={"finalists": 3, "seeds": 2})
    start(tmp_path / "run", chosen, executor)
    assert_whole(tmp_path / "run")
    query = "SELECT * FROM evaluation e JOIN candidate c ON c.id = candidate_id"
    found = rows(tmp_path / "run", query)
    failed = [row for row in found if row["pattern"] == doomed]
    assert [(r["state"], r["failure"], r["attempt"]) for r in failed] == [
        ("failed", "infrastructure", FAULTS)
    ], "given up once, and no finalist"
    assert "the worker died" in failed[0]["detail"]
    scored = rows(tmp_path / "run", "SELECT 1 FROM measurement WHERE evaluation_id = 1")
    assert scored == []
    assert {row["state"] for row in found if row["pattern"] != doomed} == {"done"}


def test_a_fault_is_not_the_candidates_so_nobody_is_asked_to_debug_it(tmp_path: Path) -> None:
    executor = Executor(evaluation_faults=lambda job: 99 * (job.pattern == "2A"))
    agent = scripted(["2A", "A+M", "2M"]) | {"scaffold_options": {"drafts": 2}}
    start(tmp_path / "run", alone(agent), executor)
    operators = [row["operator"] for row in rows(tmp_path / "run", PROPOSALS)]
    assert operators == ["draft", "draft", "improve"]


def test_an_agent_that_cannot_be_asked_is_given_up_after_three_faults(tmp_path: Path) -> None:
    executor = Executor(ask_faults=lambda agent, turn: 99 * (turn == 1))
    agent = scripted(["A+M", "2A", "2M"], priced_double.NAME)
    start(tmp_path / "run", alone(agent), executor)
    found = rows(tmp_path / "run", "SELECT status, failure, detail FROM proposal ORDER BY slot")
    assert [(row["status"], row["failure"]) for row in found] == [
        ("accepted", None),
        ("failed", "infrastructure"),
        ("accepted", None),
    ]
    assert "the actor died" in found[1]["detail"]
    assert_whole(tmp_path / "run")


BREAKING = ["Zz", "A{head=7}", "5(", ""]


@pytest.mark.parametrize("pattern", BREAKING)
def test_a_proposer_that_answers_nonsense_fails_its_slot_and_not_the_campaign(
    tmp_path: Path, pattern: str
) -> None:
    agent = {"name": "fixed", "proposer": "fixed", "options": {"patterns": [pattern, "A+M", "2A"]}}
    campaign = Campaign.create(alone(agent), tmp_path / "run", 2)
    drive(campaign)
    statuses = [row["status"] for row in rows(tmp_path / "run", PROPOSALS)]
    assert statuses == ["failed", "accepted", "accepted"]


# ---------------------------------------------------------------------------------------- duplicates


def said(folder: Path, slot: int) -> list[list[str]]:
    """The turns of the conversation of each call of a slot, as they were sent."""
    query = f"""SELECT request_sha FROM llm_call l JOIN proposal p ON p.id = l.proposal_id
        WHERE slot = {slot} ORDER BY l.id"""
    sent = [json.loads(blobs.get(folder / BLOBS, sha)) for sha in column(folder, query)]
    return [[turn["text"] for turn in request["messages"]] for request in sent]


def test_a_repetition_is_answered_from_the_ledger_and_not_charged(tmp_path: Path) -> None:
    replies = ["A+M", "M+A", "(A)+(M)", "A+M", "2A"]  # the third is the first, written otherwise
    executor = Executor()
    start(tmp_path / "run", alone(scripted(replies)), executor)
    found = rows(tmp_path / "run", PROPOSALS)
    statuses = [row["status"] for row in found]
    assert statuses == ["accepted", "accepted", "duplicate", "duplicate", "accepted"]
    assert found[2]["candidate_id"] == found[3]["candidate_id"] == found[0]["candidate_id"]
    search = rows(tmp_path / "run", "SELECT * FROM evaluation WHERE NOT sealed")
    assert len(search) == 3, "trained once each"
    seen = executor.views[-1][1].nodes
    assert [node.status for node in seen] == statuses[:4]
    assert seen[2].score == seen[0].score
    assert seen[0].score is not None


def test_an_agent_is_told_that_it_repeated_itself(tmp_path: Path) -> None:
    start(tmp_path / "run", alone(scripted(["A+M", "M+A", "A+M", "2A"])), Executor())
    (conversation,) = said(tmp_path / "run", 3)
    line = next(x for x in conversation[0].splitlines() if "] A+M: " in x)
    assert "proposed again" in line
    (earlier,) = said(tmp_path / "run", 2)
    assert "proposed again" not in earlier[0]


def test_a_space_that_is_used_up_ends_the_search(tmp_path: Path) -> None:
    """Two architectures, and a quota of four."""
    small = {"primitives": ["A"], "layers": [1, 2], "preset": "mini"}
    start(tmp_path / "run", recipe(space=small, budget={"evaluations": 4}))
    assert_whole(tmp_path / "run")
    found = rows(tmp_path / "run", PROPOSALS)
    for name in ("evolution", "random"):
        statuses = Counter(row["status"] for row in found if row["name"] == name)
        assert statuses == {"accepted": 2, "duplicate": ATTEMPTS * 4 - 2}
    patterns = column(tmp_path / "run", "SELECT pattern FROM candidate ORDER BY pattern")
    assert patterns == ["2A", "A", "A+M"]  # A+M is the reference


def test_what_another_agent_found_is_charged_and_not_trained_again(tmp_path: Path) -> None:
    agents = [scripted(["A+M", "2A"]), scripted(["A+M", "2M"]) | {"name": "other"}]
    chosen = alone(agents[0], 4).model_dump(mode="json") | {"agents": agents}
    start(tmp_path / "run", parse(chosen))
    assert [row["status"] for row in rows(tmp_path / "run", PROPOSALS)] == ["accepted"] * 4
    assert column(tmp_path / "run", "SELECT COUNT(*) FROM evaluation WHERE NOT sealed") == [3]


# ---------------------------------------------------------------------------------- arms, confirming


def test_every_arm_is_charged_the_same(tmp_path: Path) -> None:
    agents = [scripted(["A+M", "A+M", "!", "2A"]), *BASE["agents"]]
    controls = [{"name": "random", "proposer": "random"}, {"name": "more", "proposer": "evolution"}]
    start(tmp_path / "run", recipe(agents=agents, controls=controls, budget={"evaluations": 5}))
    found = rows(tmp_path / "run", PROPOSALS)
    arm = {"script": "search", "evolution": "search"}
    charged = Counter(arm.get(r["name"], r["name"]) for r in found if r["status"] != "duplicate")
    assert charged == {"references": 1, "search": 5, "random": 5, "more": 5}
    assert {"duplicate", "failed"} <= {row["status"] for row in found if row["name"] == "script"}


def test_the_confirmation_uses_fresh_seeds_and_the_sealed_split_once(tmp_path: Path) -> None:
    chosen = recipe(confirm={"finalists": 2, "seeds": 3})
    start(tmp_path / "run", chosen)
    query = """SELECT e.*, m.split, m.value, m.metric FROM evaluation e
        JOIN measurement m ON m.evaluation_id = e.id"""
    everything = rows(tmp_path / "run", query)
    found = [row for row in everything if row["metric"] == "score"]
    seen, sealed = ([r for r in found if r["sealed"] == kind] for kind in (0, 1))
    assert {(row["split"], row["sealed"]) for row in everything} == {("validation", 0), ("test", 1)}
    assert not {row["seed"] for row in seen} & {row["seed"] for row in sealed}
    decision = json.loads(column(tmp_path / "run", CHOSEN)[0])
    counts = Counter(row["candidate_id"] for row in sealed)
    assert counts == dict.fromkeys(decision["candidates"], 3)
    assert len({row["seed"] for row in sealed}) == 3, "every finalist at the same three seeds"
    assert {row["seed"] for row in sealed if row["candidate_id"] == 1} == {
        r["seed"] for r in sealed
    }


def test_the_finalists_are_the_best_that_the_search_saw(tmp_path: Path) -> None:
    start(tmp_path / "run", recipe(budget={"evaluations": 5}, confirm={"finalists": 2, "seeds": 2}))
    decision = json.loads(column(tmp_path / "run", CHOSEN)[0])
    query = """SELECT a.name, p.candidate_id, m.value, p.slot FROM proposal p
        JOIN agent a ON a.id = p.agent_id JOIN evaluation e ON e.candidate_id = p.candidate_id
        JOIN measurement m ON m.evaluation_id = e.id
        WHERE metric = 'score' AND NOT sealed AND p.status = 'accepted' AND e.seed =
            (SELECT MIN(x.seed) FROM evaluation x WHERE NOT x.sealed AND x.candidate_id > 1)"""
    found = rows(tmp_path / "run", query)
    for arm, name in (("search", "evolution"), ("random", "random")):
        mine = sorted(
            (r for r in found if r["name"] == name), key=lambda r: (-r["value"], r["slot"])
        )
        assert decision["finalists"][arm] == [row["candidate_id"] for row in mine[:2]]
    assert decision["candidates"][0] == 1, "the reference is confirmed too"


def test_a_resume_keeps_to_the_finalists_that_were_chosen(plain: Path, tmp_path: Path) -> None:
    """The ledger is made to say that another candidate was chosen: that one is confirmed."""
    folder = tmp_path / "run"
    with images(folder, tmp_path) as taken:
        start(folder, recipe())
    image = next(path for path in taken if column(path, CHOSEN))
    assert column(image, "SELECT COUNT(*) FROM evaluation WHERE sealed") == [0]
    (other,) = set(column(image, "SELECT MAX(id) FROM candidate"))
    assert other not in json.loads(column(image, CHOSEN)[0])["candidates"]
    with closing(sqlite3.connect(image / database.FILE)) as db, db:
        numbers = json.dumps({"finalists": {"search": [other]}, "candidates": [other]})
        db.execute("UPDATE decision SET numbers = ?", (numbers,))
    resume(image)
    assert set(column(image, "SELECT candidate_id FROM evaluation WHERE sealed")) == {other}
    assert column(image, "SELECT COUNT(*) FROM decision") == [1]


def test_without_a_finalist_or_reference_nothing_is_confirmed(tmp_path: Path) -> None:
    chosen = recipe(references={"patterns": {}}, confirm={"finalists": 0, "seeds": 2})
    start(tmp_path / "run", chosen)
    assert_whole(tmp_path / "run")
    assert column(tmp_path / "run", "SELECT COUNT(*) FROM evaluation WHERE sealed") == [0]


# ----------------------------------------------------------------------------------- model agents


def test_an_invalid_pattern_goes_back_with_the_precise_error_and_is_repaired(
    tmp_path: Path,
) -> None:
    replies = [["A+Zz", "9A", "A+M"], "2A", "2M"]
    start(tmp_path / "run", alone(scripted(replies)))
    first, second, third = said(tmp_path / "run", 0)
    assert len(first) == 1
    assert "column 3" in second[-1] and "'Zz'" in second[-1] and "'A', 'M'" in second[-1]
    assert "A+Zz" in second[-2], "it sees what it had said"
    assert "9 layers" in third[-1] and "2 to 3" in third[-1]
    assert len(third) == 5
    found = rows(tmp_path / "run", "SELECT * FROM proposal")[0]
    assert (found["status"], found["hypothesis"]) == ("accepted", "h")
    attempts = column(tmp_path / "run", "SELECT attempt FROM llm_call WHERE proposal_id = 1")
    assert attempts == [0, 1, 2]
    assert column(tmp_path / "run", "SELECT pattern FROM candidate")[0] == "A+M"


def test_after_its_repairs_a_proposal_has_failed_and_is_recorded_and_charged(
    tmp_path: Path,
) -> None:
    bad = ["A+Zz", {"pattern": 3}, "9A", "A+M"]  # the fourth would do, and is never asked for
    start(tmp_path / "run", alone(scripted([bad, "2A", "2M", "M+A"], max_repairs=2)))
    found = rows(tmp_path / "run", "SELECT * FROM proposal ORDER BY slot")
    assert [row["status"] for row in found] == ["failed", "accepted", "accepted"]
    assert found[0]["failure"] == "invalid-reply"
    assert "9 layers" in found[0]["detail"]
    calls = rows(tmp_path / "run", "SELECT * FROM llm_call WHERE proposal_id = 1")
    assert len(calls) == 3
    replies = [blobs.get(tmp_path / "run" / BLOBS, row["reply_sha"]) for row in calls]
    assert [json.loads(reply)["pattern"] for reply in replies] == ["A+Zz", 3, "9A"]
    assert_whole(tmp_path / "run")


def test_a_reply_that_is_no_json_is_repaired_too(tmp_path: Path) -> None:
    talk = {"hypothesis": "h", "reasoning": "r", "expected_effect": "e", "pattern": "A+M"}
    agent = {"name": "a", "proposer": "scripted", "options": {"replies": [["I would say", talk]]}}
    start(tmp_path / "run", alone(agent, 1))
    outcomes = column(tmp_path / "run", "SELECT outcome FROM llm_call ORDER BY id")
    assert outcomes == ["malformed", "ok"]
    assert column(tmp_path / "run", "SELECT status FROM proposal") == ["accepted"]


def test_an_edit_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    agent = scripted(["A+M", ["1A+(M)", "A+A+M"], "2M"]) | {"scaffold_options": {"drafts": 1}}
    start(tmp_path / "run", alone(agent))
    found = rows(tmp_path / "run", PROPOSALS)
    assert [(row["operator"], row["status"]) for row in found[:2]] == [
        ("draft", "accepted"),
        ("improve", "accepted"),
    ]
    assert found[1]["parents"] == str(found[0]["candidate_id"])
    _, repair = said(tmp_path / "run", 1)
    assert "parent" in repair[-1]
    assert column(tmp_path / "run", "SELECT pattern FROM candidate WHERE id = 2") == ["2A+M"]


def test_a_failed_candidate_is_debugged_by_greedy(tmp_path: Path) -> None:
    """Every candidate fails, since no training ends within a nanosecond."""
    agent = scripted(["A+M", "2A", "2M", "M+A"]) | {"scaffold_options": {"drafts": 1}}
    limit = {"timeout_seconds": 1e-9}
    start(tmp_path / "run", alone(agent, 4, evaluation=limit), LocalExecutor())
    found = rows(tmp_path / "run", PROPOSALS)
    assert [row["operator"] for row in found] == ["draft", "debug", "debug", "debug"]
    assert [row["parents"] for row in found] == [None, "1", "2", "3"]
    assert "timeout" in found[1]["reason"]
    failures = set(column(tmp_path / "run", "SELECT failure FROM evaluation"))
    assert failures == {"timeout"}
    ((asked,),) = said(tmp_path / "run", 1)
    assert "A+M" in asked and "out of time" in asked
    assert_whole(tmp_path / "run")


def test_a_debug_that_worked_is_improved_from_then_on(tmp_path: Path) -> None:
    agent = scripted(["2A", "A+M", "2M", "M+A"]) | {"scaffold_options": {"drafts": 1}}

    class Broken(Executor):
        """Gives the pattern 2A no time at all."""

        def submit(self, task: Callable[..., Any], *args: Any) -> int:
            (job,) = args
            limit = 1e-9 if job.pattern == "2A" else None
            return super().submit(task, Job(**{**vars(job), "timeout": limit}))

    start(tmp_path / "run", alone(agent, 4), Broken())
    operators = [row["operator"] for row in rows(tmp_path / "run", PROPOSALS)]
    assert operators == ["draft", "debug", "improve", "improve"]


def test_the_users_notes_are_in_every_prompt_after_they_were_written(tmp_path: Path) -> None:
    campaign = Campaign.create(alone(scripted(["A+M", "2A"]), 2), tmp_path / "run", 2)
    (tmp_path / "run" / NOTES).write_text("Prefer the unusual: 4711.")
    drive(campaign)
    for sha in column(tmp_path / "run", "SELECT request_sha FROM llm_call"):
        assert "4711" in blobs.get(tmp_path / "run" / BLOBS, sha).decode()


# ------------------------------------------------------------------------------------------ budgets


def priced(replies: list[Any], **options: Any) -> Row:
    return scripted(replies, priced_double.NAME, **{"max_repairs": 1, **options})


def spending(folder: Path, chosen: Recipe, executor: LocalExecutor | None = None) -> list[Any]:
    """What `spent` says, at every step of a campaign driven to its end."""
    campaign, seen = Campaign.create(chosen, folder, 2), []

    def look(_: Progress) -> None:
        with Session(campaign.ledger.engine) as db:
            seen.append(queries.spent(db))

    priced_double.Wire.made.clear()
    campaign.run(executor or Executor(), look)
    campaign.ledger.engine.dispose()
    return seen


REPLIES = ["A+M", ["Zz", "2A"], "2M", "M+A", "3A", "3M"]


@pytest.mark.parametrize("lag", [1, 3])
@pytest.mark.parametrize("http", [1, 3], ids=["no-retries", "two-retries"])
@pytest.mark.parametrize("cap", [0, 2, 5, 100])
def test_the_budget_of_calls_is_never_exceeded(
    tmp_path: Path, cap: int, http: int, lag: int
) -> None:
    chosen = alone(priced(REPLIES, http_attempts=http), 6, lag=lag)
    budget = {"evaluations": 6, "calls": cap}
    seen = spending(tmp_path / "run", parse(chosen.model_dump(mode="json") | {"budget": budget}))
    assert max(money.calls for money in seen) <= cap
    assert len(priced_double.Wire.made) <= cap
    assert_whole(tmp_path / "run")
    (stops,) = column(tmp_path / "run", "SELECT COUNT(*) FROM decision WHERE what = 'stop'")
    assert stops == (0 if cap == 100 else 1)
    if cap == 100:
        assert len(priced_double.Wire.made) == 7, "six slots and a repair"


@pytest.mark.parametrize("lag", [1, 3])
@pytest.mark.parametrize("cap", [0.0, 1.25, 2.75, 100.0])
def test_the_budget_of_dollars_is_never_exceeded(tmp_path: Path, cap: float, lag: int) -> None:
    chosen = alone(priced(REPLIES, usd=0.5), 6, lag=lag)
    budget = {"evaluations": 6, "usd": cap}
    seen = spending(tmp_path / "run", parse(chosen.model_dump(mode="json") | {"budget": budget}))
    assert all(money.usd is not None and money.usd <= cap for money in seen)
    assert 0.5 * len(priced_double.Wire.made) <= cap
    assert_whole(tmp_path / "run")
    if cap:
        assert priced_double.Wire.made, "what can be afforded is done"
    if cap == 100:
        assert len(priced_double.Wire.made) == 7


def test_a_call_whose_cost_nobody_knows_is_booked_at_the_worst_case(tmp_path: Path) -> None:
    """The cap holds without that call's cost being known, and the campaign goes on."""
    unpriced = [whole(p) | {"hypothesis": "unpriced"} for p in ("A+M", "2A", "2M", "M+A")]
    chosen = alone(priced([{**r, "unpriced": 1} for r in unpriced], max_repairs=0), 4)
    budget = {"evaluations": 4, "usd": 3.0}
    seen = spending(tmp_path / "run", parse(chosen.model_dump(mode="json") | {"budget": budget}))
    assert len(priced_double.Wire.made) == 3, "three worst cases fit, a fourth does not"
    assert seen[-1].usd == 3.0
    assert column(tmp_path / "run", "SELECT cost_usd FROM llm_call") == [None] * 3


def test_money_that_is_gone_ends_the_search_of_all_arms_alike(tmp_path: Path) -> None:
    chosen = recipe(agents=[priced(REPLIES)], budget={"evaluations": 6, "calls": 4})
    spending(tmp_path / "run", chosen)
    (reason,) = column(tmp_path / "run", "SELECT reason FROM decision WHERE what = 'stop'")
    assert "budget of 4 calls" in reason
    slots = Counter(row["name"] for row in rows(tmp_path / "run", PROPOSALS))
    assert slots["script"] > 0 and abs(slots["script"] - slots["random"]) <= 1
    assert_whole(tmp_path / "run")


def test_the_budget_holds_over_kills_and_lost_calls_are_paid(tmp_path: Path) -> None:
    """Killed at every wait; each time, what was in flight may have been billed."""
    chosen = alone(priced(REPLIES), 6, lag=2).model_dump(mode="json")
    chosen["budget"] |= {"calls": 7}
    for at in range(1, 30):
        folder = tmp_path / str(at)
        priced_double.Wire.made.clear()
        try:
            start(folder, parse(chosen), Executor(kill=at))
            break
        except Killed:
            resume(folder)
        with Session(database.open_(folder, readonly=True)) as db:
            assert queries.spent(db).calls <= 7
            db.get_bind().engine.dispose()
        assert len(priced_double.Wire.made) <= 7
        lost = column(folder, "SELECT COUNT(*) FROM llm_call WHERE outcome = 'lost'")[0]
        known = column(folder, "SELECT COUNT(*) FROM llm_call WHERE outcome != 'lost'")[0]
        assert len(priced_double.Wire.made) <= known + 2 * lost
        assert_whole(folder)
    assert at > 8


def test_a_search_that_was_stopped_stays_stopped(tmp_path: Path) -> None:
    """Killed after it was stopped, while slots were in flight whose answers then cost less."""
    chosen = alone(priced(REPLIES), 6, lag=3).model_dump(mode="json")
    chosen["budget"] |= {"calls": 5}
    folder = tmp_path / "run"
    campaign = Campaign.create(parse(chosen), folder, 2)
    with images(folder, tmp_path) as taken:
        drive(campaign)
    stopped = "SELECT reason FROM decision WHERE what = 'stop'"
    after = [path for path in taken[:-1] if column(path, stopped)]
    assert len(after) > 5
    for image in after:
        slots = column(image, "SELECT slot FROM proposal")
        resume(image)
        assert column(image, "SELECT slot FROM proposal") == slots, "nothing new is asked"
        assert column(image, stopped) == column(folder, stopped), "and it was decided once"


def test_where_the_money_ends_does_not_depend_on_who_answers_first(tmp_path: Path) -> None:
    chosen = alone(priced(REPLIES), 6, lag=3).model_dump(mode="json")
    chosen["budget"] |= {"calls": 7}
    asked = set()
    for k in range(6):
        pick: Pick = random.Random(k).choice
        start(tmp_path / str(k), parse(chosen), Executor(workers=1 + k % 3, pick=pick))
        asked.add(tuple(column(tmp_path / str(k), "SELECT slot FROM proposal ORDER BY slot")))
    assert len(asked) == 1


def test_an_answer_that_was_paid_is_recorded_even_if_an_earlier_slot_is_not_answered(
    tmp_path: Path,
) -> None:
    """Slot 0's actor dies and there is no money to ask again; slot 1 has answered meanwhile."""
    chosen = alone(priced(REPLIES, max_repairs=0), 3, lag=2).model_dump(mode="json")
    chosen["budget"] |= {"calls": 2}
    executor = Executor(ask_faults=lambda agent, turn: turn == 0)
    spending(tmp_path / "run", parse(chosen), executor)
    assert len(priced_double.Wire.made) == 1
    answered = column(tmp_path / "run", "SELECT COUNT(*) FROM llm_call WHERE outcome = 'ok'")
    assert answered == [1]
    assert_whole(tmp_path / "run")


def test_the_budget_of_seconds_stops_the_search_and_what_there_is_is_confirmed(
    tmp_path: Path,
) -> None:
    def slow(handles: Sequence[int]) -> int:
        time.sleep(0.2)
        return handles[0]

    chosen = recipe(budget={"evaluations": 50, "seconds": 1.0})
    start(tmp_path / "run", chosen, Executor(pick=slow))
    assert_whole(tmp_path / "run")
    assert 0 < column(tmp_path / "run", "SELECT COUNT(*) FROM proposal")[0] < 50
    assert column(tmp_path / "run", "SELECT what FROM decision") == ["stop", "confirm"]
    assert column(tmp_path / "run", "SELECT COUNT(*) FROM evaluation WHERE sealed")[0] > 0


def test_a_budget_of_no_time_asks_for_nothing(tmp_path: Path) -> None:
    start(tmp_path / "run", recipe(budget={"evaluations": 3, "seconds": 1e-9}))
    assert column(tmp_path / "run", "SELECT COUNT(*) FROM proposal") == [0]
    assert_whole(tmp_path / "run")
