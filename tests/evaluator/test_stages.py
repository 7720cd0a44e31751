"""The stages of an evaluation: they add up, each second falls to the right one, nothing else changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import _global_optimizer_post_hooks

import evaluator.evaluate
import evaluator.train
from evaluator import stages
from evaluator.evaluate import Job, evaluate
from evaluator.profiles import profile
from evaluator.stages import STAGES, Stages, watched
from evaluator.train import Training
from search_space.model import Model

JOB = Job("A+Mb+M", "mini", "smoke", 0)
TASKS = len(profile("smoke").tasks)
STEPS = profile("smoke").training.steps * TASKS
WATCHED = [
    (evaluator.evaluate, "drawn"),
    (evaluator.evaluate, "score"),
    (evaluator.train, "batches"),
    (Model, "forward"),
    (Tensor, "backward"),
]


class Clock:
    """A clock that stands still, unless something is told to take its time."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def slow(self, work: Any) -> Any:
        """The same work, taking a second."""

        def run(*args: Any, **more: Any) -> Any:
            self.now += 1.0
            return work(*args, **more)

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(stages.time, "perf_counter", found.perf_counter)
    return found


@pytest.mark.parametrize(
    ("owner", "name", "taken"),
    [
        (evaluator.evaluate, "drawn", {"data": 2 * TASKS}),
        (evaluator.evaluate, "score", {"scoring": TASKS}),
        (Training, "rate", {"rest": STEPS}),
        (Model, "forward", {"forward": STEPS, "scoring": TASKS}),
        (F, "cross_entropy", {"forward": STEPS}),
        (Tensor, "backward", {"backward": STEPS}),
        (nn.utils, "clip_grad_norm_", {"optimiser": STEPS}),
    ],
)
def test_a_second_falls_to_the_stage_that_it_is_spent_in(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, owner: Any, name: str, taken: dict[str, int]
) -> None:
    monkeypatch.setattr(owner, name, clock.slow(getattr(owner, name)))
    with watched() as found:
        evaluate(JOB)
    assert found.seconds == {**dict.fromkeys(STAGES, 0.0), **taken}


def test_gathering_a_batch_is_data(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    batches = evaluator.train.batches

    def slowly(*args: Any) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in batches(*args):
            clock.now += 1.0
            yield batch

    monkeypatch.setattr(evaluator.train, "batches", slowly)
    with watched() as found:
        evaluate(JOB)
    assert found.seconds == {**dict.fromkeys(STAGES, 0.0), "data": STEPS}


def test_the_stages_add_up_to_the_whole_and_none_is_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered: Counter[str] = Counter()
    enter = Stages.enter

    def counted(self: Stages, stage: str) -> str:
        entered[stage] += 1
        return enter(self, stage)

    monkeypatch.setattr(Stages, "enter", counted)
    with watched() as found:
        began = found.since
        evaluate(JOB)
    assert sum(found.seconds.values()) == pytest.approx(found.since - began)
    assert min(found.seconds.values()) > 0
    stepwise = {"forward": STEPS, "backward": STEPS, "optimiser": STEPS, "scoring": TASKS}
    assert {stage: entered[stage] for stage in stepwise} == stepwise


def test_watching_changes_no_bit_and_leaves_nothing_behind() -> None:
    before = [getattr(owner, name) for owner, name in WATCHED]
    plain = evaluate(JOB)
    with watched() as found:
        seen = evaluate(JOB)
    assert seen.metrics == plain.metrics
    taken = dict(found.seconds)
    with pytest.raises(KeyError), watched():
        assert [getattr(owner, name) for owner, name in WATCHED] != before
        raise KeyError
    evaluate(JOB)
    assert found.seconds == taken
    assert [getattr(owner, name) for owner, name in WATCHED] == before
    assert not _global_optimizer_post_hooks
