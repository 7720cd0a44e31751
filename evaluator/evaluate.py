"""Evaluates one candidate: builds it per task, trains it, scores its logits. A pure function of its job.

Decides nothing about candidates, and knows neither the ledger nor Ray: the driver calls it in a worker.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache

import torch
from torch import nn

from evaluator import memory
from evaluator.checkpoint import State, States, capture, pack, restore, unpack
from evaluator.metrics import NonFiniteLogits, Scorer
from evaluator.outcome import CandidateFailure, FailureKind, Metric, Result, Spent
from evaluator.profiles import profile
from evaluator.tasks.base import Split, SplitName, Task
from evaluator.train import Training, adamw, autocast, train
from search_space.model import Model, pattern_cost
from search_space.pattern import Pattern
from search_space.presets import preset

SCORING_BATCH = 128


@dataclass(frozen=True)
class Job:
    """All that an evaluation depends on.

    ``tasks`` narrows the profile to some of its tasks, by name or label (all when empty). ``sealed``
    scores the test split in place of validation, for confirmation only. ``timeout`` bounds the
    training, in seconds. ``share`` of the profile's training is done before scoring. ``checkpoint``,
    from an evaluation with a smaller share, saves training what that one did and changes no bit of the
    scores.
    """

    pattern: str
    preset: str
    profile: str
    seed: int
    tasks: tuple[str, ...] = ()
    sealed: bool = False
    timeout: float | None = None
    share: Fraction = Fraction(1)
    checkpoint: bytes | None = field(default=None, repr=False, compare=False)

    @property
    def split(self) -> SplitName:
        return "test" if self.sealed else "validation"


def evaluate(job: Job) -> Result:
    """Train and score the job's candidate on each task; the score is the mean of the tasks' scores.

    The candidate's own fault is returned as a typed failure; any other exception is infrastructure's,
    or a ValueError for a corpus or data set that is missing. One thread, so that the same job gives
    the same bits in every worker of a machine.
    """
    memory.keep_freed()
    try:
        with in_memory():
            return measured(job)
    except CandidateFailure as failure:
        return Result((), Spent(), failure.kind, failure.detail)


def measured(job: Job) -> Result:
    """What `evaluate` returns, as long as data and checkpoints fit into memory."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    deadline = None if job.timeout is None else start + job.timeout
    spent, metrics, facts = Spent(), [], []
    states = unpack(job.checkpoint) if job.checkpoint else {}
    try:
        for label, task in profile(job.profile).named(job.tasks):
            going = states.setdefault(label, {})
            found, cost = evaluate_task(job, task, deadline, label, going)
            metrics += found
            spent += cost
            known = task.provenance() | ({"eager": cost.eager} if cost.eager else {})
            facts += [(f"{label}/{fact}", text) for fact, text in known.items()]
    except CandidateFailure as failure:
        return Result((), spent, failure.kind, failure.detail)
    scores = [m.value for m in metrics if m.name.endswith("/score")]
    score = Metric("score", job.split, sum(scores) / len(scores))
    kept = pack(states) if job.share < 1 else None
    spent = replace(spent, seconds=time.perf_counter() - start)
    return Result((score, *metrics), spent, facts=tuple(facts), checkpoint=kept)


def evaluate_task(
    job: Job,
    task: Task,
    deadline: float | None = None,
    label: str = "",
    states: States | None = None,
) -> tuple[list[Metric], Spent]:
    """Train and score on one task, until ``deadline`` on the performance counter at the latest.

    ``label`` names it in the metrics, by default the task's name. Where the profile has a sweep, each
    of its trainings is tried, the one with the best validation score is the task's, and its rate and
    weight decay are among the metrics. ``states`` says where its trainings go on from, if anywhere,
    and is changed to where they stopped. Raises CandidateFailure.
    """
    data, held_out = drawn(task, "train", job.seed), drawn(task, job.split, job.seed)
    best, spent = fit(job, task, data, deadline, {} if states is None else states)
    with classified():
        metrics = score(best.model, held_out, best.training)
    metrics |= {"score": task.score_of(metrics)} | task.figures(metrics, data, held_out)
    if profile(job.profile).sweep:
        metrics |= {"lr": best.training.lr, "weight_decay": best.training.weight_decay}
    return [Metric(f"{label or task.name}/{k}", job.split, v) for k, v in metrics.items()], spent


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained model, how it was trained and where that stopped."""

    model: Model
    training: Training
    state: State


def fit(
    job: Job, task: Task, data: Split, deadline: float | None, states: States
) -> tuple[Fitted, Spent]:
    """The model that does best on validation of those that the profile's trainings give; their cost.

    ``states`` are where they go on from, then where they stopped. A training that fails is out; when
    all do, the last failure is raised. Raises CandidateFailure.
    """
    trainings, spent = profile(job.profile).trainings, Spent()
    if len(trainings) == 1:
        fitted, spent = fit_one(job, task, data, trainings[0], deadline, states.get(0))
        states[0] = fitted.state
        return fitted, spent
    validation = drawn(task, "validation", job.seed)
    tried: list[tuple[float, Fitted]] = []
    failures: list[CandidateFailure] = []
    for number, training in enumerate(trainings):
        try:
            fitted, cost = fit_one(job, task, data, training, deadline, states.get(number))
            states[number] = fitted.state
            with classified():
                tried.append((task.score_of(score(fitted.model, validation, training)), fitted))
            spent += cost
        except CandidateFailure as failure:
            if failure.kind in (FailureKind.TIMEOUT, FailureKind.OOM):
                raise  # so would the others
            failures.append(failure)  # what it took is not known, and left out of the cost
    if not tried:
        raise failures[-1]
    return max(tried, key=lambda pair: pair[0])[1], spent


def fit_one(
    job: Job,
    task: Task,
    data: Split,
    training: Training,
    deadline: float | None,
    state: State | None,
) -> tuple[Fitted, Spent]:
    """A new model, trained once, or further from a state. Raises CandidateFailure."""
    pattern, size = Pattern.parse(job.pattern), preset(job.preset)
    training = training.of(len(data.inputs))
    with classified(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(job.seed, "initialisation"))
        model = Model(pattern, size, task.vocab, task.head(size.width)).to(device())
        optimiser, order = adamw(model, training), seed_of(job.seed, "order")
        start, stop = restore(model, optimiser, state) if state else 0, training.until(job.share)
        spent = train(model, data, training, order, task.vocab, deadline, optimiser, start, stop)
        forward = pattern_cost(pattern, size, task.input_length).flops_per_token
    spent = replace(spent, flops=3 * forward * spent.tokens)
    return Fitted(model, training, capture(model, optimiser, start + spent.steps)), spent


@torch.no_grad()
def score(model: nn.Module, held_out: Split, training: Training) -> dict[str, float]:
    """Accuracy (micro and macro) and loss over the whole split, from the model's logits.

    Raises CandidateFailure (nan).
    """
    model.eval()
    scorer = Scorer()
    rows = zip(
        held_out.inputs.split(SCORING_BATCH), held_out.labels.split(SCORING_BATCH), strict=True
    )
    for inputs, labels in rows:
        with autocast(training.dtype, inputs.device):
            logits = model(inputs.long())
        try:
            scorer.update(logits.float(), labels.long())
        except NonFiniteLogits as error:
            raise CandidateFailure(FailureKind.NAN, str(error)) from error
    return scorer.result()


@contextmanager
def classified() -> Iterator[None]:
    """Turn what only the candidate can have caused into CandidateFailure; let the rest through."""
    with in_memory():
        try:
            yield
        except ValueError as error:  # a primitive refused its options at this width
            raise CandidateFailure(FailureKind.INVALID, str(error)) from error


@contextmanager
def in_memory() -> Iterator[None]:
    """Turn what comes of memory running out into CandidateFailure; let the rest through."""
    try:
        yield
    except (MemoryError, RuntimeError, SystemError, ImportError, TypeError, OSError) as error:
        if not memory.ran_out(error):
            raise
        raise CandidateFailure(FailureKind.OOM, memory.refused(error)) from error


# A persistent worker meets the same few splits again and again: six tasks have twelve. Not more, since
# some are gigabytes, and small ones are drawn again within 30 ms. That is also why none is on disk.
@lru_cache(maxsize=12)
def drawn(task: Task, which: SplitName, seed: int) -> Split:
    """The task's split for an evaluation seed, on the device."""
    split = task.split(which, seed_of(seed, "data"))
    return Split(split.inputs.to(device()), split.labels.to(device()))


def seed_of(seed: int, *purpose: str) -> int:
    """A seed for one purpose of an evaluation, a hash of both: purposes share no stream."""
    digest = hashlib.blake2b(json.dumps([seed, *purpose]).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@lru_cache(maxsize=1)
def device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
