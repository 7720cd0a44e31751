"""Campaigns with rungs: promotions as the rule has them, in any order of completion, killed anywhere.

Training is real (profile `smoke`: rung 0 is one step of three). Equal jobs are trained once and
remembered, but in the campaign that the others are compared with.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import reading
from scipy import stats

import archwright.campaign
from agents.agent import Agent
from agents.analysis import line
from archwright import console, inspection, report
from archwright.campaign import Campaign, Progress, SlotState
from archwright.estimate import search
from archwright.executor import LocalExecutor
from archwright.promotion import next_advance, raised
from archwright.recipe import Recipe, RecipeError, parse
from archwright.replay import replay
from archwright.schedule import Arm
from archwright.setup import REFERENCES, agent_specs, check
from archwright.standings import ladder, margin, rank_correlation
from evaluator.evaluate import Job, evaluate
from evaluator.outcome import FailureKind, Result, Spent
from storage import blobs, queries
from storage.ledger import BLOBS
from storage.models import Artifact, Decision, Evaluation
from storage.records import Node, View

LAG = 3
TRAINED: dict[Job, Result] = {}

BASE: dict[str, Any] = {
    "name": "rungs",
    "seed": 2,
    "space": {"primitives": ["A", "M"], "layers": [1, 3], "preset": "mini"},
    "evaluation": {"profile": "smoke", "tasks": ["compression"]},
    "agents": [
        {"name": "evo", "proposer": "evolution", "scaffold_options": {"population": 2, "sample": 2}}
    ],
    "controls": [{"name": "random", "proposer": "random"}],
    "budget": {"evaluations": 5},
    "references": {"patterns": {"llama": "A+M", "mlp": "2M"}, "seeds": 2},
    "confirm": {"finalists": 1, "seeds": 2},
    "rungs": {"count": 2, "eta": 3},
    "lag": LAG,
}


def recipe(**changes: Any) -> Recipe:
    return parse({**BASE, **changes})


class Killed(BaseException):
    """The driver dies here, whatever it was doing."""


class Executor(LocalExecutor):
    """In this process; remembers what it trained and what agents saw, and dies at wait ``kill``."""

    def __init__(
        self,
        pick: Callable[[Sequence[int]], int] = lambda handles: handles[0],
        kill: int = 0,
        task: Callable[[Job], Result] | None = None,
    ) -> None:
        super().__init__(2, pick)
        self.kill, self.waits, self.task = kill, 0, task or trained
        self.jobs: list[Job] = []
        self.views: list[tuple[str, View]] = []

    def propose(self, agent: str, view: View, seed: int) -> int:
        self.views.append((agent, view))
        return super().propose(agent, view, seed)

    def submit(self, task: Callable[..., Any], *args: Any) -> int:
        assert task is evaluate
        self.jobs.append(args[0])
        return super().submit(self.task, *args)

    def wait(self, handles: Sequence[int], timeout: float) -> list[int]:
        self.waits += 1
        if self.waits == self.kill:
            raise Killed
        return super().wait(handles, timeout)


def trained(job: Job) -> Result:
    if job not in TRAINED:
        TRAINED[job] = evaluate(job)
    return TRAINED[job]


def drive(campaign: Campaign, executor: LocalExecutor) -> Campaign:
    try:
        campaign.run(executor)
    finally:
        campaign.ledger.engine.dispose()
    return campaign


def start(folder: Path, executor: LocalExecutor, chosen: Recipe | None = None) -> Campaign:
    return drive(Campaign.create(chosen or recipe(), folder, 2), executor)


def outcome(folder: Path) -> dict[str, Any]:
    """All that a campaign found and decided, without times and the ids of work."""
    with reading(folder) as db:
        return {
            "slots": [
                (p.slot, p.agent.name, p.status, p.rung, p.candidate_id, p.seen, p.reason)
                for p in queries.proposals(db)
            ],
            "scores": [queries.scores(db, rung) for rung in range(3)],
            "decisions": [(d["what"], d["numbers"]) for d in queries.decisions(db)],
            "patterns": {i: c.pattern for i, c in queries.candidates(db).items()},
        }


@pytest.fixture(autouse=True, scope="module")
def _asked_git_once() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        known = archwright.campaign.facts()
        patch.setattr(archwright.campaign, "facts", lambda: known)
        yield


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Executor]:
    """The campaign of BASE, uninterrupted, every evaluation trained: those of rung 1 from checkpoints."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    executor = Executor(task=lambda job: TRAINED.setdefault(job, evaluate(job)))
    start(folder, executor)
    return folder, executor


# -------------------------------------------------------------------------------- what is trained


def test_every_promotion_goes_on_from_a_checkpoint_and_confirmation_trains_in_full(
    plain: tuple[Path, Executor],
) -> None:
    folder, executor = plain
    with reading(folder) as db:
        found = {(e.rung, e.sealed, e.steps) for e in queries.evaluations(db)}
    assert found == {(0, False, 1), (1, False, 2), (1, True, 3)}
    for job in executor.jobs:
        assert (job.checkpoint is not None) == (job.share == 1 and not job.sealed)


def test_scores_at_a_rung_are_those_of_one_straight_run(plain: tuple[Path, Executor]) -> None:
    """However a candidate came to its rung, training it there anew gives the same bits."""
    folder, executor = plain
    for job in executor.jobs:
        if job.checkpoint is not None:
            assert evaluate(replace(job, checkpoint=None)).metrics == TRAINED[job].metrics
    with reading(folder) as db:
        assert replay(db, folder, None)["match"]
        seen = next(row for row in report.leaderboard(db) if not row["sealed"] and row["rung"])
        again = replay(db, folder, seen["candidate"])
    assert (again["rung"], again["match"]) == (1, True)


def test_checkpoints_are_whole_while_the_search_lasts_and_gone_after_it(
    plain: tuple[Path, Executor], tmp_path: Path
) -> None:
    folder, executor = tmp_path / "run", Executor(kill=24)
    with pytest.raises(Killed):
        start(folder, executor)
    with reading(folder) as db:
        rows = [e for e in queries.evaluations(db) if e.state == "done"]
        kept = {e.checkpoint for e in rows if e.rung == 0}
        assert len(kept) > 4
        assert kept == {a.sha256 for a in db.query(Artifact) if a.kind == "checkpoint"}
        assert {e.checkpoint for e in rows if e.rung == 1} == {None}
        for name in kept:
            assert name is not None
            assert blobs.get(folder / BLOBS, name)[:2] == b"PK"  # as torch.save writes
    with reading(plain[0]) as db:
        assert db.query(Artifact).filter_by(kind="checkpoint").count() == 0
        assert db.query(Evaluation).filter(Evaluation.checkpoint.is_not(None)).count() == 0
    assert not list((plain[0] / BLOBS).rglob("*.z"))


# -------------------------------------------------------------------------------- who is promoted


def test_promotions_are_what_the_rule_says_of_the_slots_that_were_seen(
    plain: tuple[Path, Executor],
) -> None:
    """The rule written down anew: the best third of an arm's results, and those within the noise."""
    with reading(plain[0]) as db:
        proposals = queries.proposals(db)
        scores, decided = queries.scores(db, 0), db.query(Decision).filter_by(what="promote").all()
        seed = next(iter(scores[proposals[0].candidate_id or 0, False]))
    promoted = [p for p in proposals if p.status == "promoted"]
    assert [d.numbers["slot"] for d in decided] == [p.slot for p in promoted]
    for p, numbers in zip(promoted, (d.numbers for d in decided), strict=True):
        assert (numbers["candidate"], numbers["seen"]) == (p.candidate_id, p.seen)
        assert p.seen in (max(0, p.slot - LAG + 1), p.slot)
        if numbers["arm"] == REFERENCES:
            continue
        arm = {"search": "evo"}.get(numbers["arm"], numbers["arm"])
        below = [q for q in proposals if q.slot < p.seen and q.agent.name == arm and not q.rung]
        ranked = sorted({scores[q.candidate_id or 0, False][seed] for q in below}, reverse=True)
        score = scores[p.candidate_id or 0, False][seed]
        assert numbers["results"] == len({q.candidate_id for q in below})
        assert numbers["last"] == [ranked[numbers["results"] // 3 - 1]]
        assert score == numbers["score"] >= numbers["last"][0] - numbers["noise"]
    assert {n.numbers["arm"] for n in decided} == {REFERENCES, "search", "random"}


def test_references_are_trained_in_full_and_give_each_rung_its_noise(
    plain: tuple[Path, Executor],
) -> None:
    with reading(plain[0]) as db:
        slots = [p for p in queries.proposals(db) if p.agent.name == REFERENCES]
        assert [p.rung for p in slots] == [0, 0, 1, 1]
        for rung in (0, 1):
            found = queries.scores(db, rung)
            assert [len(found[p.candidate_id or 0, False]) for p in slots] == [2] * 4
        late = [d for d in db.query(Decision).filter_by(what="promote") if d.numbers["slot"] > 6]
    assert late
    assert all(d.numbers["noise"] > 0 for d in late)


def test_agents_see_a_promotion_as_soon_as_its_slot_and_not_before(
    plain: tuple[Path, Executor],
) -> None:
    folder, executor = plain
    with reading(folder) as db:
        proposals = queries.proposals(db)
    asked = [p for p in proposals if p.status != "promoted"]
    raised_once = False
    for p, (agent, view) in zip(asked, executor.views, strict=True):
        own = [q for q in proposals if q.slot < p.seen and q.agent.name == agent]
        promoted = {q.candidate_id for q in own if q.status == "promoted"}
        assert [node.slot for node in view.nodes] == [q.slot for q in own if q.status != "promoted"]
        assert {n.candidate for n in view.nodes if n.rung == 1} == promoted
        assert view.turn == sum(q.agent.name == agent and q.slot < p.slot for q in asked)
        assert view.rungs == 2
        raised_once = raised_once or bool(promoted)
    assert raised_once


def test_promotions_are_not_charged(plain: tuple[Path, Executor]) -> None:
    with reading(plain[0]) as db:
        rows = {row["agent"]: row for row in report.agents(db)}
    assert [rows[name]["accepted"] for name in ("evo", "random", REFERENCES)] == [5, 5, 2]
    assert all(rows[name]["promoted"] > 0 for name in rows)


def node(candidate: int, score: float | None, rung: int = 0, **changes: Any) -> Node:
    status = "promoted" if rung else "accepted"
    fields = {"slot": 0, "agent": "a", "pattern": "A", "operator": "", "hypothesis": ""}
    found = Node(candidate=candidate, parents=(), status=status, score=score, rung=rung, **fields)
    return replace(found, **changes)


def test_the_highest_rung_goes_first_and_arms_keep_to_their_own() -> None:
    arms = [Arm("one", ("a",), 9), Arm("two", ("b",), 9)]
    low = [node(i, i / 10) for i in range(6)] + [node(9, 0.99, agent="b")]
    high = [node(5, 0.5, 1), node(4, 0.6, 1), node(3, 0.4, 1)]
    done = {("a", c, 1) for c in (5, 4, 3)}

    def found(nodes: list[Node], promoted: set[tuple[str, int, int]]) -> Any:
        advance = next_advance(arms, nodes, promoted, 3, 3, lambda rung: 0.0)
        return advance and (advance.agent, advance.candidate, advance.rung)

    assert found(low, set()) == ("a", 5, 1)
    assert found(low, {("a", 5, 1)}) == ("a", 4, 1)
    assert found(low, done) is None  # two of six pass, and b has one result only
    assert found(low + high, done) == ("a", 4, 2)
    assert found(low + high, done | {("a", 4, 2)}) is None


def test_a_candidate_is_known_by_its_latest_result() -> None:
    found = [
        node(1, 0.5),
        node(2, 0.4),
        node(1, 0.7, 1),
        node(2, None, 1, failure="nan"),
        node(1, 0.5),
    ]
    seen = raised(found)
    assert [(n.candidate, n.score, n.rung) for n in seen] == [
        (1, 0.7, 1),
        (2, None, 1),
        (1, 0.7, 1),
    ]
    assert [n.lower for n in seen] == [(0.5,), (0.4,), (0.5,)]
    assert (seen[0].score_at(0), seen[0].score_at(1), seen[0].score_at(2)) == (0.5, 0.7, None)
    assert seen[1].failure == "nan"
    assert [n.candidate for n in View(seen).scored] == [1], "whoever fails later is out"
    broken = raised([node(2, 0.4), node(2, None, 1, failure="infrastructure")])
    assert (broken[0].score, broken[0].rung) == (0.4, 0), "our fault is not the candidate's"
    refused = replace(node(1, None), candidate=None, failure="refusal")
    assert raised([refused, node(3, 0.2, 1)]) == (refused,)


def test_only_scores_of_one_rung_are_compared() -> None:
    view = View((node(1, 0.9), node(2, 0.3, 1), node(3, 0.4, 1), node(4, None)), rungs=2)
    assert view.best is not None
    assert view.best.candidate == 3
    rungs = [
        {(1, False): {0: 0.9}, (2, False): {0: 0.1}, (3, False): {0: 0.2}},
        {(2, False): {0: 0.3}, (3, False): {0: 0.4}, (3, True): {7: 0.1}},
    ]
    places = [(row.rank, row.candidate, row.rung, row.sealed) for row in ladder(rungs, 0.95)]
    assert places == [(1, 3, 1, True), (2, 2, 1, False), (3, 1, 0, False)]


def test_a_failure_at_a_higher_rung_is_the_candidates_last_word(tmp_path: Path) -> None:
    def task(job: Job) -> Result:
        if job.share == 1 and not job.sealed and job.pattern != "A+M":
            return Result((), Spent(), FailureKind.DIVERGED, "later")
        return trained(job)

    executor = Executor(task=task)
    campaign = start(tmp_path / "run", executor)
    chosen = outcome(tmp_path / "run")["decisions"][-1][1]["finalists"]
    failed = {s.candidate for s in campaign.slots if s.promotion and s.node and s.node.failure}
    assert failed
    assert not failed & {c for finalists in chosen.values() for c in finalists}
    seen = [n for _, view in executor.views for n in view.nodes if n.failure == "diverged"]
    assert seen
    assert all((n.score, n.rung, n.detail) == (None, 1, "later") for n in seen)


# ---------------------------------------------------------------------- order of work, and crashes


@settings(max_examples=6)
@given(st.randoms(use_true_random=False))
def test_the_order_in_which_work_ends_changes_nothing(
    plain: tuple[Path, Executor], rng: random.Random
) -> None:
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "run"
        start(folder, Executor(pick=lambda handles: rng.choice(list(handles))))
        assert outcome(folder) == outcome(plain[0])


def test_a_campaign_killed_again_and_again_ends_like_one_that_was_not(
    plain: tuple[Path, Executor], tmp_path: Path
) -> None:
    folder, deaths = tmp_path / "run", 0
    Campaign.create(recipe(), folder, 2).ledger.engine.dispose()
    while True:
        try:
            drive(Campaign.open(folder), Executor(kill=3))
            break
        except Killed:
            deaths += 1
    assert deaths > 10
    assert outcome(folder) == outcome(plain[0])


@pytest.mark.parametrize("method", ["promote", "finish", "drop_checkpoints", "decide"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_campaign_killed_beside_a_transaction_ends_like_one_that_was_not(
    plain: tuple[Path, Executor], tmp_path: Path, method: str, after: bool
) -> None:
    folder, calls = tmp_path / "run", 0
    campaign = Campaign.create(recipe(), folder, 2)
    real = getattr(campaign.ledger, method)

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        last = calls == {"promote": 4, "finish": 9}.get(method, 1)
        found = real(*args, **kwargs) if after or not last else None
        if last:
            raise Killed
        return found

    setattr(campaign.ledger, method, dying)
    with pytest.raises(Killed):
        drive(campaign, Executor())
    drive(Campaign.open(folder), Executor())
    assert outcome(folder) == outcome(plain[0])


def test_three_rungs_in_two_orders(tmp_path: Path) -> None:
    chosen = recipe(rungs={"count": 3, "eta": 2}, budget={"evaluations": 6})
    start(tmp_path / "one", Executor(min, task=evaluate), chosen)
    start(tmp_path / "two", Executor(max), chosen)
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two")
    with reading(tmp_path / "one") as db:
        rows = {row["agent"]: row for row in report.agents(db)}
        rungs = report.rungs(db)
        trained_to = {(e.rung, e.sealed, e.steps) for e in queries.evaluations(db)}
    assert [row["rung"] for row in rows.values()] == [2, 2, 2]
    assert trained_to == {(0, False, 1), (1, False, 1), (2, False, 1), (2, True, 3)}
    assert [(row["rung"], row["next"]) for row in rungs] == [(0, 1), (1, 2)]
    assert rungs[0]["candidates"] > rungs[1]["candidates"] > 2


def test_an_irreproducible_campaign_keeps_its_quotas(tmp_path: Path) -> None:
    rng = random.Random(3)
    chosen = recipe(reproducible=False)
    start(tmp_path / "run", Executor(pick=lambda h: rng.choice(list(h))), chosen)
    with reading(tmp_path / "run") as db:
        rows = {row["agent"]: row for row in report.agents(db)}
    assert [rows[name]["accepted"] for name in ("evo", "random", REFERENCES)] == [5, 5, 2]


# ---------------------------------------------------------------------------- recipe, report, words


def test_rungs_that_do_not_train_further_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"steps \[1, 1, 3\] of task compression: lower"):
        check(recipe(rungs={"count": 3, "eta": 3}))
    with pytest.raises(RecipeError, match=r"rungs\.eta"):
        recipe(rungs={"count": 2, "eta": 1})


def test_what_a_campaign_with_rungs_would_take() -> None:
    assert search(recipe(rungs={})) == (14, 14)
    # Each arm: 5, then at most 2; the references: 4 at both rungs.
    assert search(recipe()) == (14 + 8, Fraction(14, 3) + Fraction(2, 3) * 8)


def test_a_model_is_told_what_a_rung_is_and_where_a_score_is_from() -> None:
    goal = agent_specs(recipe())[1].goal
    assert "rung 0 after 1/3 of it, rung 1 at its end" in goal
    assert "rung" not in agent_specs(recipe(rungs={}))[1].goal
    assert "score 0.5 ± unknown at rung 1;" in line(node(1, 0.5, 1), View(rungs=2))
    assert "rung" not in line(node(1, 0.5), View())
    agent = {"name": "m", "proposer": "scripted", "options": {"replies": []}}
    model = Agent(agent_specs(recipe(agents=[agent]))[1])
    view = View(tuple(node(i, 0.5) for i in range(9)), turn=9, noise=0.1, rungs=2)
    asked = model.proposer.prompt(model._request(view, 0)).messages[0].text
    assert "a standard error of 0.1 at the last rung" in asked
    assert asked.count("score 0.5 ± unknown at rung 0") > 1


def test_the_report_has_the_rank_correlation_of_rungs(
    plain: tuple[Path, Executor], capsys: pytest.CaptureFixture[str]
) -> None:
    with reading(plain[0]) as db:
        (row,) = report.summary(db, "run")["rungs"]
        lower, upper = queries.scores(db, 0), queries.scores(db, 1)
        assert inspection.rows(db, plain[0], "rungs", None, None, None) == [row]
        console.leaderboard(report.leaderboard(db))
        console.outcome(report.summary(db, "run"))
        console.table(report.candidates(db), "candidates")
    both = [key for key in upper if not key[1]]
    assert row["candidates"] == len(both) > 3
    x, y = ([np.mean(list(side[key].values())) for key in both] for side in (lower, upper))
    assert row["correlation"] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert row["low"] < row["correlation"] < row["high"]
    printed = capsys.readouterr().out
    assert "rank correlation of rung 0 with rung 1" in printed
    assert "promote" in printed


def test_progress_counts_candidates_and_promotions_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    slots = [SlotState("a", 1, 0, "accepted", node=node(1, 0.9))]
    slots += [SlotState("a", 2, 0, "promoted", rung=1, node=node(2, 0.4, 1))]
    console.Watcher(recipe())(Progress("search", slots, 0, 0, 0, 1.0))
    assert "1/12 slots, 1 promotions, 0 running; best seen 0.4000" in capsys.readouterr().err


def test_the_rank_correlation_by_hand_and_at_its_ends() -> None:
    rising = [(float(i), float(i * i)) for i in range(6)]
    found = rank_correlation(rising, 0.95)
    assert (found.n, found.value) == (6, pytest.approx(1.0))
    assert found.low is not None and found.high is not None
    assert 0 < found.low < 0.9 < found.high < 1, "six pairs in order do not prove a perfect order"
    falling = rank_correlation([(x, -y) for x, y in rising], 0.95)
    assert (falling.low, falling.high) == (pytest.approx(-found.high), pytest.approx(-found.low))
    assert rank_correlation(rising[:3], 0.95).low is None
    assert rank_correlation([(1.0, 2.0), (1.0, 3.0)], 0.95).value is None
    assert rank_correlation([], 0.95).n == 0


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_the_interval_covers_the_true_rank_correlation(rho: float) -> None:
    truth = 6 / np.pi * np.arcsin(rho / 2)  # of two normals with Pearson's correlation rho
    rng, covered = np.random.default_rng(1), 0
    for _ in range(400):
        pairs = rng.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=15)
        found = rank_correlation([(x, y) for x, y in pairs.tolist()], 0.95)
        assert found.low is not None and found.high is not None
        covered += found.low <= truth <= found.high
    assert covered / 400 > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 400)


def test_the_margin_is_where_a_tie_ends() -> None:
    assert margin(None, 0, 0.95) == 0.0
    assert margin(0.1, 1000, 0.95) == pytest.approx(1.645 * 0.1 * 2**0.5, rel=1e-2)
    assert margin(0.1, 2, 0.95) > margin(0.1, 20, 0.95)
