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

from evaluator.checkpoint import State, capture, pack, restore, unpack
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

    ``tasks`` narrows the profile to some of its tasks (all when empty). ``sealed`` scores the test
    split in place of validation, for confirmation only. ``timeout`` bounds the training, in seconds.
    ``share`` of the profile's training is done before scoring. ``checkpoint``, from an evaluation with
    a smaller share, saves training what that one did and changes no bit of the scores.
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
    """Train and score the job's candidate on each task; the score is the mean accuracy over tasks.

    The candidate's own fault is returned as a typed failure; any other exception is infrastructure's.
    One thread, so that the same job gives the same bits in every worker of a machine.
    """
    torch.set_num_threads(1)
    start = time.perf_counter()
    deadline = None if job.timeout is None else start + job.timeout
    spent, metrics = Spent(), []
    states = unpack(job.checkpoint) if job.checkpoint else {}
    try:
        for task in profile(job.profile).narrow(job.tasks).tasks:
            found, cost, states[task.name] = evaluate_task(
                job, task, deadline, states.get(task.name)
            )
            metrics += found
            spent += cost
    except CandidateFailure as failure:
        return Result((), spent, failure.kind, failure.detail)
    accuracies = [m.value for m in metrics if m.name.endswith("/accuracy")]
    score = Metric("score", job.split, sum(accuracies) / len(accuracies))
    kept = pack(states) if job.share < 1 else None
    spent = replace(spent, seconds=time.perf_counter() - start)
    return Result((score, *metrics), spent, checkpoint=kept)


def evaluate_task(
    job: Job, task: Task, deadline: float | None = None, state: State | None = None
) -> tuple[list[Metric], Spent, State]:
    """Train and score on one task, until ``deadline`` on the performance counter at the latest.

    Goes on from a state that it returned before, or starts anew. Raises CandidateFailure.
    """
    training = profile(job.profile).training
    pattern, size = Pattern.parse(job.pattern), preset(job.preset)
    with classified(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(job.seed, "initialisation"))
        model = Model(pattern, size, task.vocab, task.head(size.width)).to(device())
        optimiser = adamw(model, training)
        start, stop = restore(model, optimiser, state) if state else 0, training.until(job.share)
        data, order = drawn(task, "train", job.seed), seed_of(job.seed, "order")
        spent = train(model, data, training, order, task.vocab, deadline, optimiser, start, stop)
        metrics = score(model, drawn(task, job.split, job.seed), training)
        forward = pattern_cost(pattern, size, task.input_length).flops_per_token
    spent = replace(spent, flops=3 * forward * spent.tokens)
    found = [Metric(f"{task.name}/{k}", job.split, v) for k, v in metrics.items()]
    return found, spent, capture(model, optimiser, start + spent.steps)


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
            logits = model(inputs)
        try:
            scorer.update(logits.float(), labels)
        except NonFiniteLogits as error:
            raise CandidateFailure(FailureKind.NAN, str(error)) from error
    return scorer.result()


@contextmanager
def classified() -> Iterator[None]:
    """Turn what only the candidate can have caused into CandidateFailure; let the rest through."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise CandidateFailure(FailureKind.OOM, str(error) or "out of memory") from error
    except ValueError as error:  # a primitive refused its options at this width
        raise CandidateFailure(FailureKind.INVALID, str(error)) from error
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # how torch's CPU allocator says it
            raise
        raise CandidateFailure(FailureKind.OOM, str(error).splitlines()[0]) from error


@lru_cache(maxsize=32)  # a persistent worker meets the same few splits again and again
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
