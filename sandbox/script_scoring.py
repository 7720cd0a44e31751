"""Sealed scoring of a training script: train, audit and score in fresh sandboxes, and judge out here.

Held-out text never enters training, and where it enters as token ids, what follows each is not beside it. The
loss is computed here, in double precision, from logits. Three audits, each of which ends without a score:
* the logits of prefixes, computed before and apart from the process that sees whole rows, are the same there;
* so are those of a whole batch in other company, so that no row is told by the rows beside it;
* on random bytes, mixed among the rows, no model without knowledge of what it is to predict is likely to
  save `LUCK` bits in all: the likelihood ratio to a fair guess has mean 1, so its chance is 2^-LUCK.

What it cannot see: a script that fixes its own seed, and so its luck, though not the order of its text;
memory of other texts in the source itself. Which files a run can read is `sandbox.paths`'.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from safetensors.torch import save
from torch import Tensor

from evaluator.evaluate import SCORING_BATCH, seed_of
from evaluator.outcome import CandidateFailure, FailureKind, Metric, Result, Spent
from evaluator.profiles import profile
from evaluator.tasks.base import Split, SplitName
from evaluator.tasks.text import Text
from sandbox.results import File
from sandbox.run import Ended, Outcome, Sandbox
from sandbox.scoring import (
    CHUNK,
    CONSISTENT,
    GRACE,
    LIMITS,
    Prefixes,
    Seeds,
    check_logits,
    check_weights,
    failure_of,
    metrics_of,
)
from sandbox.script import FILE, LOGITS, SETTINGS, TEXT, TOKENS, WEIGHTS

OVER = (
    2.0,
    0.1,
)  # seconds, and the share of its time, that training may take longer before it is ended
NOISE, LUCK = 16, 40.0  # rows of random bytes, and bits that may be saved on them
PLACE = re.compile(rf'{re.escape(FILE)}", line (\d+)')


@dataclass(frozen=True)
class ScriptJob:
    """All that the evaluation of a script depends on, but for how fast the machine is.

    ``profile`` has one task, `Text`, whose corpus and windows are used and whose training is not. ``salt``
    keeps the random rows from whoever knows the seed. ``max_params`` counts buffers, too.
    """

    source: str
    profile: str
    seconds: float
    max_params: int
    seed: int
    salt: int
    sealed: bool = False

    @property
    def split(self) -> SplitName:
        return "test" if self.sealed else "validation"


def task_of(name: str) -> tuple[str, Text]:
    """The label and the task of a profile that scripts can be scored on. Raises ValueError."""
    tasks = profile(name).named()
    label, task = tasks[0]
    if len(tasks) > 1 or not isinstance(task, Text):
        raise ValueError(
            f"evaluation.profile {name}: a script models the bytes of a text: choose text, text-mini, "
            "or one of them with a corpus, as text:PATH"
        )
    return label, task


def evaluate(job: ScriptJob, sandbox: Sandbox) -> Result:
    """Train and score once; the candidate's own fault is returned as a typed failure.

    Raises ValueError for a profile of other tasks, and for a corpus that is missing.
    """
    label, task = task_of(job.profile)
    seeds, spent = Seeds.of(job.seed, job.salt), Spent()
    try:
        candidate = Scored(job, task, sandbox)
        weights, spent = candidate.train(seeds)
        found = candidate.score(weights, seeds)
    except CandidateFailure as failure:
        return Result((), spent, failure.kind, failure.detail)
    score = Metric("score", job.split, found["score"])
    return Result((score, *(Metric(f"{label}/{k}", job.split, v) for k, v in found.items())), spent)


@dataclass(frozen=True)
class Scored:
    """A script with its task and the sandbox to run it in."""

    job: ScriptJob
    task: Text
    sandbox: Sandbox

    def train(self, seeds: Seeds) -> tuple[dict[str, Tensor], Spent]:
        """The weights after one training, and what it took. Raises CandidateFailure."""
        settings = self._settings(seed=seeds.initialisation, seconds=self.job.seconds)
        text = self.task.training_text(seeds.order).numpy().tobytes()
        size = 8 * self.job.max_params + (1 << 20)
        more, share = OVER
        bound = (1 + share) * self.job.seconds + more
        ended = self._run(
            "train", settings | {TEXT: text}, File(WEIGHTS, "safetensors", size), bound
        )
        weights: dict[str, Tensor] = ended.files[WEIGHTS]
        check_weights(weights, self.job.max_params)
        return weights, Spent(seconds=ended.seconds)

    def score(self, weights: Mapping[str, Tensor], seeds: Seeds) -> dict[str, float]:
        """The metrics on held-out text, after the audits. Raises CandidateFailure."""
        held_out = self.task.split(self.job.split, seeds.held_out)
        rows, noise = len(held_out.inputs), random_rows(self.task, seeds.held_out)
        prefixes = Prefixes.of(self.task, held_out.inputs, seeds.held_out)
        order = permutation(rows + NOISE, seeds.held_out, "whole")
        some = permutation(rows, seeds.held_out, "company")[:SCORING_BATCH]
        apart = {**prefixes.tokens, "company": held_out.inputs[some]}
        alone = self.logits(weights, apart)  # before the whole is seen anywhere
        mixed = self.whole(weights, torch.cat([held_out.inputs, noise.inputs])[order])
        whole = torch.empty_like(mixed)
        whole[order] = mixed
        found = metrics_of(self.task, whole[:rows], held_out)
        saved = bits_saved(metrics_of(self.task, whole[rows:], noise), noise)
        deviation = prefixes.deviation(alone, whole)
        check_company(alone["company"], whole[some])
        check_luck(saved)
        return {
            **found,
            **self.task.figures(found, held_out, held_out),
            "params": float(sum(value.numel() for value in weights.values())),
            "prefix_deviation": deviation,
            "bits_saved_on_noise": saved,
        }

    def whole(self, weights: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
        """The logits of all rows, (N, L, 256), from as many processes as they take."""
        rows = max(1, CHUNK // (4 * tokens.shape[1] * self.task.vocab))
        return torch.cat([self.logits(weights, {"rows": p})["rows"] for p in tokens.split(rows)])

    def logits(
        self, weights: Mapping[str, Tensor], tokens: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Token ids (N, L) by name to logits (N, L, 256), from one fresh process. Raises CandidateFailure."""
        packed = {name: ids.contiguous() for name, ids in tokens.items()}
        inputs = self._settings() | {WEIGHTS: save(dict(weights)), TOKENS: save(packed)}
        bound = GRACE + self.job.seconds
        ended = self._run("logits", inputs, File(LOGITS, "safetensors", 2 * CHUNK), bound)
        found: dict[str, Tensor] = ended.files[LOGITS]
        for name, ids in tokens.items():
            check_logits(found.get(name), (*ids.shape, self.task.vocab))
        return found

    def _settings(self, **more: float) -> dict[str, bytes]:
        return {SETTINGS: json.dumps({"length": self.task.length, **more}).encode()}

    def _run(self, task: str, inputs: Mapping[str, bytes], result: File, seconds: float) -> Ended:
        """One run, of a single core's work. Raises CandidateFailure for one that did not end well."""
        limits = replace(LIMITS, wall_seconds=seconds, cpu_seconds=seconds)
        files = {FILE: self.job.source.encode(), **inputs}
        ended = self.sandbox.run(f"sandbox.script:{task}", files, [result], limits)
        if ended.outcome is not Outcome.OK:
            failure = failure_of(ended, task)
            raise CandidateFailure(failure.kind, failure.detail + _place(ended.log))
        return ended


def _place(log: str) -> str:
    """Where in the script an error was raised."""
    lines = PLACE.findall(log)
    return f" ({FILE} line {', '.join(lines[-3:])})" if lines else ""


def permutation(rows: int, seed: int, purpose: str) -> Tensor:
    """An order in which a model sees the rows."""
    generator = torch.Generator().manual_seed(seed_of(seed, purpose))
    return torch.randperm(rows, generator=generator)


def random_rows(task: Text, seed: int) -> Split:
    """Windows of uniform random bytes, cut as those of a text are."""
    generator = torch.Generator().manual_seed(seed_of(seed, "noise"))
    noise = torch.randint(task.vocab, (NOISE * task.length + 1,), generator=generator)
    windows = noise.unfold(0, task.length + 1, task.length)
    return Split(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())


def bits_saved(metrics: Mapping[str, float], noise: Split) -> float:
    """How many bits shorter than a fair guess a model's code of the random bytes is; negative if longer."""
    return noise.labels.numel() * (math.log2(256) - metrics["loss"] / math.log(2))


def check_company(alone: Tensor, among: Tensor) -> None:
    """Raise CandidateFailure (leak) for logits that depend on the rows beside them."""
    gap = (alone.double() - among).abs().max() / among.double().square().mean().sqrt()
    if not gap <= CONSISTENT:
        raise CandidateFailure(
            FailureKind.LEAK,
            f"the logits of a row differ by {gap:.2g} of their size when other rows are beside it (allowed "
            f"{CONSISTENT:g}): the batch leaks into it",
        )


def check_luck(saved: float) -> None:
    """Raise CandidateFailure (leak) for what no honest model can save on random bytes."""
    if saved > LUCK:
        raise CandidateFailure(
            FailureKind.LEAK,
            f"{saved:.0f} bits were saved on random bytes (allowed {LUCK:g}): it reads what it is to "
            "predict",
        )
