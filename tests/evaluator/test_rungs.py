"""Rungs: continued trainings give the bits of one straight run, and who goes on is the stated rule."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evaluator import profiles
from evaluator.checkpoint import States, pack, unpack
from evaluator.evaluate import Job, evaluate, evaluate_task
from evaluator.outcome import FailureKind, Result
from evaluator.profiles import Profile, profile
from evaluator.rungs import dominates, fronts, most, promotable, quota, shares
from evaluator.tasks.base import Split
from evaluator.train import Training, batches

# ------------------------------------------------------------------------------ continued trainings

THIRDS = [Fraction(1, 3), Fraction(2, 3), Fraction(1)]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[Profile]:
    """A task of mad-mini in 12 steps: warm-up, cosine, and epochs that end within a batch."""
    mini = profile("mad-mini").narrow(["in-context-recall"])
    tasks = tuple(replace(task, train_size=100, eval_size=64) for task in mini.tasks)
    training = replace(mini.training, steps=12, warmup=3)
    short = replace(mini, name="few", tasks=tasks, training=training)
    monkeypatch.setitem(profiles.PROFILES, "few", short)
    yield short


def job(pattern: str = "A+Mb+M", **changes: Any) -> Job:
    return Job(**{"pattern": pattern, "preset": "mini", "profile": "smoke", "seed": 0, **changes})


def in_parts(whole: Job, parts: list[Fraction]) -> list[Result]:
    """Evaluations at growing shares, each going on from the one before."""
    results: list[Result] = []
    for share in parts:
        checkpoint = results[-1].checkpoint if results else None
        results.append(evaluate(replace(whole, share=share, checkpoint=checkpoint)))
    return results


@pytest.mark.parametrize("parts", [THIRDS[::2], THIRDS], ids=["two", "three"])
@pytest.mark.parametrize("pattern", ["A+Mb+M", "2*(A+M)"])
def test_parts_give_the_bits_of_one_straight_run(pattern: str, parts: list[Fraction]) -> None:
    """All tasks of the profile smoke."""
    straight, rungs = evaluate(job(pattern)), in_parts(job(pattern), parts)
    assert len([m for m in straight.metrics if m.name.endswith("/loss")]) == 2
    assert rungs[-1].metrics == straight.metrics
    assert sum(r.spent.steps for r in rungs) == straight.spent.steps
    assert sum(r.spent.tokens for r in rungs) == straight.spent.tokens
    assert math.isclose(sum(r.spent.flops for r in rungs), straight.spent.flops)
    assert [r.checkpoint is None for r in rungs] == [False] * (len(parts) - 1) + [True]


@pytest.mark.parametrize("parts", [shares(2, 3), shares(3, 2), shares(3, 3)], ids=str)
def test_parts_keep_the_schedule_and_the_data_of_the_whole(
    few: Profile, parts: tuple[Fraction, ...]
) -> None:
    rungs = in_parts(job(profile="few"), list(parts))
    assert rungs[-1].metrics == evaluate(job(profile="few")).metrics
    assert len({r.metrics for r in rungs}) == len(rungs), "every part trains"


def test_parts_of_a_sweep_give_the_bits_of_one_straight_run(
    few: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the best rate at a rung is not the best at the end, and one of them runs away."""
    sweep = tuple(replace(few.training, lr=lr) for lr in (1e-4, 1e-2, 1e6))
    monkeypatch.setitem(profiles.PROFILES, "few", replace(few, sweep=sweep))
    straight, rungs = evaluate(job(profile="few")), in_parts(job(profile="few"), [*shares(2, 3)])
    assert straight.failure is None
    assert rungs[-1].metrics == straight.metrics


def test_parts_end_with_the_weights_and_the_optimiser_of_one_straight_run(few: Profile) -> None:
    (task,), whole = few.tasks, job(profile="few")
    straight: States = {}
    parts: States = {}
    evaluate_task(whole, task, states=straight)
    evaluate_task(replace(whole, share=Fraction(1, 2)), task, states=parts)
    assert (straight[0]["step"], parts[0]["step"]) == (12, 6)
    parts = unpack(pack({"x": parts}))["x"]
    evaluate_task(whole, task, states=parts)
    assert parts[0]["step"] == 12
    one, two = (torch.utils._pytree.tree_flatten(state) for state in (straight, parts))
    assert one[1] == two[1]
    for a, b in zip(one[0], two[0], strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_an_evaluation_without_its_checkpoint_only_takes_longer(few: Profile) -> None:
    first = evaluate(job(profile="few", share=Fraction(1, 3)))
    second = job(profile="few", share=Fraction(2, 3))
    resumed, anew = evaluate(replace(second, checkpoint=first.checkpoint)), evaluate(second)
    assert resumed.metrics == anew.metrics
    assert (resumed.spent.steps, anew.spent.steps) == (4, 8)


def test_a_candidate_that_fails_leaves_no_checkpoint() -> None:
    late = evaluate(job(share=Fraction(1, 3), timeout=1e-9))
    assert (late.failure, late.checkpoint) == (FailureKind.TIMEOUT, None)


def test_a_checkpoint_is_read_without_running_code() -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (print, ("run",))

    buffer = io.BytesIO()
    torch.save({"task": Evil()}, buffer)
    with pytest.raises(Exception, match="Weights only"):
        unpack(buffer.getvalue())


@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 20), st.integers(0, 20))
def test_batches_go_on_where_they_stopped(rows: int, size: int, start: int, more: int) -> None:
    split = Split(torch.arange(rows)[:, None], torch.arange(rows)[:, None])
    whole = [x.flatten().tolist() for x, _ in batches(split, size, start + more, seed=3)]
    rest = [
        x.flatten().tolist() for x, _ in batches(split, size, start + more, seed=3, start=start)
    ]
    assert rest == whole[start:]


# ---------------------------------------------------------------------------------------- the rungs


@given(st.integers(1, 6), st.integers(2, 5), st.integers(1, 5000))
def test_budgets_grow_by_eta_up_to_the_full_training(count: int, eta: int, steps: int) -> None:
    found = shares(count, eta)
    assert found[-1] == 1
    assert all(upper == eta * lower for lower, upper in pairwise(found))
    stops = [Training(steps=steps, batch=1, lr=0.1).until(share) for share in found]
    assert stops[-1] == steps
    assert min(stops) >= 1
    assert stops == sorted(stops)


scores = st.one_of(st.none(), st.integers(0, 9).map(float))
rungs = st.lists(scores, max_size=25)
etas = st.integers(2, 5)
margins = st.integers(0, 4).map(float)


def results_of(values: list[float | None]) -> dict[int, tuple[float] | None]:
    return {key: None if value is None else (value,) for key, value in enumerate(values)}


def passing(values: list[float | None], before: set[int], eta: int, noise: float) -> list[int]:
    found = promotable(results_of(values), before, eta, (noise,))
    return [promotion.candidate for promotion in found]


def drawn(values: list[float | None], data: st.DataObject) -> set[int]:
    """Some that went on before."""
    able = [key for key, value in enumerate(values) if value is not None]
    return set(data.draw(st.lists(st.sampled_from(able), max_size=4))) if able else set()


@given(rungs, etas, margins, st.data())
def test_no_more_go_on_than_the_rule_allows(
    values: list[float | None], eta: int, noise: float, data: st.DataObject
) -> None:
    before = drawn(values, data)
    found = passing(values, before, eta, noise)
    assert not before & set(found)
    assert all(values[key] is not None for key in found), "who failed never goes on"
    ranked = sorted(
        (k for k in range(len(values)) if values[k] is not None), key=lambda k: -values[k]
    )
    best = set(ranked[: len(values) // eta])
    assert best <= before | set(found), "the best always do"
    bound = max(len(before | best), math.floor(len(values) / math.sqrt(eta)))
    assert len(before | set(found)) <= bound


@given(rungs, etas)
def test_without_noise_and_ties_it_is_published_asha(values: list[float | None], eta: int) -> None:
    distinct = [None if v is None else v + key / 100 for key, v in enumerate(values)]
    ranked = sorted((v for v in distinct if v is not None), reverse=True)
    best = ranked[: len(values) // eta]
    assert [distinct[key] for key in passing(distinct, set(), eta, 0.0)] == best


@given(rungs, etas, margins)
def test_only_those_within_the_noise_of_the_last_to_pass_join_the_best(
    values: list[float | None], eta: int, noise: float
) -> None:
    ranked = sorted((v for v in values if v is not None), reverse=True)
    for promotion in promotable(results_of(values), set(), eta, (noise,)):
        value, last = values[promotion.candidate], ranked[promotion.quota - 1]
        assert value is not None
        assert value >= last - noise
        assert promotion.tied == (promotion.place > promotion.quota)
        assert ranked[promotion.place - 1] == value


@given(rungs, etas, margins, st.data())
def test_whoever_is_better_goes_on_first(
    values: list[float | None], eta: int, noise: float, data: st.DataObject
) -> None:
    before = drawn(values, data)
    found = passing(values, before, eta, noise)
    for key, value in enumerate(values):
        if value is not None and any(value > (values[other] or 0.0) for other in found):
            assert key in found or key in before


@given(rungs, etas, margins, st.data(), st.integers(1, 5))
def test_a_better_score_never_stops_a_candidate(
    values: list[float | None], eta: int, noise: float, data: st.DataObject, gain: int
) -> None:
    before = drawn(values, data)
    for key in passing(values, before, eta, noise):
        better = [v + gain if k == key and v is not None else v for k, v in enumerate(values)]
        assert key in passing(better, before, eta, noise)


@given(rungs, etas, margins, margins)
def test_more_noise_lets_more_pass(
    values: list[float | None], eta: int, noise: float, more: float
) -> None:
    calm, loud = passing(values, set(), eta, noise), passing(values, set(), eta, noise + more)
    assert calm == loud[: len(calm)]


@given(rungs, etas, margins)
def test_one_at_a_time_is_all_at_once(values: list[float | None], eta: int, noise: float) -> None:
    once, before = passing(values, set(), eta, noise), set[int]()
    while found := passing(values, before, eta, noise):
        before.add(found[0])
    assert before == set(once)


def test_the_rule_by_hand() -> None:
    values = [0.9, 0.5, 0.86, 0.84, None, 0.2, 0.7, 0.6, 0.83]  # nine results, the quota is three
    assert (quota(9, 3), most(9, 3)) == (3, 5)
    assert passing(values, set(), 3, 0.0) == [0, 2, 3]
    assert passing(values, {0}, 3, 0.02) == [2, 3, 8]
    assert passing(values, {0}, 3, 0.5) == [2, 3, 8, 6]  # five at most, however loud
    assert passing(values, {0, 1, 5, 7}, 3, 0.5) == [
        2,
        3,
    ]  # others took the room: the best still go
    assert passing([0.9, None], set(), 3, 0.5) == []


# ------------------------------------------------------------------------------- several objectives

dimensions = st.integers(1, 3)


@st.composite
def clouds(draw: st.DrawFn) -> tuple[list[tuple[float, ...]], tuple[bool, ...]]:
    width = draw(dimensions)
    point = st.tuples(*[st.integers(0, 5).map(float)] * width)
    return draw(st.lists(point, max_size=15)), draw(st.tuples(*[st.booleans()] * width))


def naive(points: list[tuple[float, ...]], maximise: tuple[bool, ...]) -> list[int]:
    """The definition: the front is whoever nobody left dominates; take it off and begin again."""
    ranks, left, rank = [-1] * len(points), set(range(len(points))), 0
    while left:
        front = {
            i for i in left if not any(dominates(points[j], points[i], maximise) for j in left)
        }
        for i in front:
            ranks[i] = rank
        left, rank = left - front, rank + 1
    return ranks


@given(clouds())
def test_fronts_are_those_of_the_definition(
    cloud: tuple[list[tuple[float, ...]], tuple[bool, ...]],
) -> None:
    assert fronts(*cloud) == naive(*cloud)


def test_domination_by_hand() -> None:
    up_and_down = (True, False)  # accuracy and cost
    assert dominates((0.9, 10), (0.8, 10), up_and_down)
    assert not dominates((0.9, 10), (0.9, 10), up_and_down)
    assert not dominates((0.9, 11), (0.8, 10), up_and_down)
    assert fronts([(0.9, 10), (0.8, 12), (0.7, 5), (0.7, 13)], up_and_down) == [0, 1, 0, 2]


def test_several_objectives_pass_by_rank_and_within_the_noise_of_each() -> None:
    points = {
        0: (0.9, 10.0),
        1: (0.88, 10.5),
        2: (0.7, 5.0),
        3: (0.2, 20.0),
        4: None,
        5: (0.1, 30.0),
    }

    def found(*noise: float) -> list[int]:
        return [p.candidate for p in promotable(points, set(), 3, noise, (True, False))]

    assert found(0.0, 0.0) == [0, 2]  # the first front fills the quota of two
    assert found(0.01, 0.1) == [0, 2]  # with as much luck, 1 is still worse than 0 in both
    assert found(0.05, 0.0) == found(0.0, 1.0) == [0, 2, 1]
    assert found(9.0, 99.0) == [0, 2, 1]  # three at most


def test_what_is_left_of_a_front_is_tied_with_it() -> None:
    line = {key: (float(key), float(-key)) for key in range(8)}  # nobody dominates anybody
    found = promotable(line, set(), 4, (0.0, 0.0), (True, True))
    assert [(p.candidate, p.tied) for p in found] == [(0, False), (1, False), (2, True), (3, True)]
