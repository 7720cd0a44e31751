"""Sealed scoring of written mixers: train, audit and score in fresh sandboxes, and judge out here.

Evaluation labels and the seed that they are drawn from stay in this process; the loss is computed here, in
double precision, from logits. The audit has a process compute the logits of prefixes before, and apart
from, the one that sees the whole rows: where they differ, the model read later tokens, and there is no score.
Before all that a short training of each mixer on random labels must end at chance.
Logits are computed in fp32, whatever training used, so that the audit's bound can be tight.

What it cannot see: what a mixer's gradients were made of (`sandbox.remote` says what they can do); that a
mixer reads other rows of the batch, which gains it nothing. It does not isolate (`sandbox.run` does).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from evaluator.evaluate import seed_of
from evaluator.metrics import NonFiniteLogits, Scorer
from evaluator.outcome import CandidateFailure, FailureKind, Metric, Result, Spent
from evaluator.profiles import profile
from evaluator.tasks.base import Split, SplitName, Task
from evaluator.train import Training
from sandbox.contract import CODE, FILE, short
from sandbox.limits import Limits
from sandbox.remote import refuse
from sandbox.results import File
from sandbox.run import Ended, Outcome, Sandbox
from sandbox.settings import Settings
from sandbox.toys import PATTERN, TOY, Noise
from sandbox.training import (
    DATA,
    ERRAND,
    LOGITS,
    SAID,
    WEIGHTS,
    LogitsErrand,
    Proxy,
    TrainingErrand,
)
from search_space.presets import preset

CUTS, ROWS = 6, 6  # of the audit: cuts, and rows cut there, each from another document
CONSISTENT = (
    1e-3  # of the logits' size; round-off makes a hundredth of it of a prefix (docs/log.md)
)
CHUNK = 64 << 20  # bytes of logits from one process
GRACE = 30.0  # seconds for a process beside its training

CHANCE = Training(steps=60, batch=32, lr=1e-2)  # on the task that nobody can learn
LUCK = (
    0.03  # nats below chance: four deviations of the mean over its 6,144 labels, at 0.6 nats each
)

LIMITS = Limits(memory_bytes=4 << 30)


@dataclass(frozen=True)
class Seeds:
    """``held_out`` is the supervisor's secret: who knows it can draw the labels."""

    initialisation: int
    order: int
    train: int
    held_out: int

    @classmethod
    def of(cls, seed: int, salt: int) -> Seeds:
        """Those of an evaluation's seed; ``salt`` is never told to a sandbox."""
        held_out = seed_of(seed, "held out", str(salt))
        initialisation, order = seed_of(seed, "initialisation"), seed_of(seed, "order")
        return cls(initialisation, order, seed_of(seed, "data"), held_out)


@dataclass(frozen=True)
class Sealed:
    """All that a sealed evaluation depends on; as `evaluator.evaluate.Job` of a plain one.

    ``sources`` are the written mixers of ``pattern`` by their codes in it; none for a pattern of the
    catalogue's primitives, measured for comparison. ``salt`` keeps the held-out data from whoever knows
    the seed. ``timeout`` bounds the training of each task, in seconds, ``max_params`` the weights that
    may cross, head and embedding included. ``share`` of the profile's training is done, always from its
    start. ``settings`` change its learning rate and the preset's width; the pattern has its depth already.
    """

    sources: Mapping[str, str]
    pattern: str
    preset: str
    profile: str
    seed: int
    salt: int
    tasks: tuple[str, ...] = ()
    sealed: bool = False
    timeout: float = 3600.0
    max_params: int | None = None
    share: Fraction = Fraction(1)
    settings: Settings = field(default_factory=Settings)

    @property
    def split(self) -> SplitName:
        return "test" if self.sealed else "validation"


def evaluate(job: Sealed, sandbox: Sandbox) -> Result:
    """Train and score on each task of the profile; the score is the mean of the tasks' scores.

    The candidate's own fault is returned as a typed failure. Raises ValueError for an unknown profile or
    preset, and for a profile with a sweep.
    """
    if profile(job.profile).sweep:
        raise ValueError(
            f"profile {job.profile} sweeps trainings; written code takes one: choose another"
        )
    metrics: list[Metric] = []
    spent, seeds = Spent(), Seeds.of(job.seed, job.salt)
    size = job.settings.size(preset(job.preset))
    training = job.settings.training(profile(job.profile).training)
    try:
        for source in job.sources.values():
            require_chance(source, sandbox, seeds)
        for label, task in profile(job.profile).named(job.tasks):
            proxy = Proxy(job.pattern, size, task)
            limits = job.timeout, job.max_params, job.share
            candidate = Candidate(job.sources, proxy, sandbox, *limits)
            found, cost = candidate.measure(training, seeds, job.split)
            metrics += [Metric(f"{label}/{k}", job.split, v) for k, v in found.items()]
            spent += cost
    except CandidateFailure as failure:
        return Result((), spent, failure.kind, failure.detail)
    scores = [m.value for m in metrics if m.name.endswith("/score")]
    score = Metric("score", job.split, sum(scores) / len(scores))
    return Result((score, *metrics), spent)


def require_chance(source: str, sandbox: Sandbox, seeds: Seeds) -> None:
    """Train on what nobody can learn. Raises CandidateFailure (leak) for whoever is better than chance:
    then no score of this source means anything, whatever let the leak through."""
    task = Noise()
    candidate = Candidate({CODE: source}, Proxy(PATTERN, TOY, task), sandbox, GRACE)
    found, _ = candidate.measure(CHANCE, seeds, "validation")
    if found["loss"] < task.chance - LUCK:
        raise CandidateFailure(
            FailureKind.LEAK,
            f"the loss on random labels is {found['loss']:.3f}, chance is {task.chance:.3f}: it reads "
            "what it is to predict",
        )


@dataclass(frozen=True)
class Candidate:
    """Sources by code in their proxy, with the sandbox to run them in."""

    sources: Mapping[str, str]
    proxy: Proxy
    sandbox: Sandbox
    seconds: float  # for training, at most
    max_params: int | None = None
    share: Fraction = Fraction(1)

    def measure(
        self, training: Training, seeds: Seeds, split: SplitName
    ) -> tuple[dict[str, float], Spent]:
        """Train, audit and score on the proxy's task. Raises CandidateFailure."""
        task = self.proxy.task
        data = task.split("train", seeds.train)
        weights, spent = self.train(data, training, seeds)
        held_out = task.split(split, seeds.held_out)
        prefixes = Prefixes.of(task, held_out.inputs, seeds.held_out)
        alone = self.logits(weights, prefixes.tokens)  # before the whole is seen anywhere
        whole = self.whole(weights, held_out.inputs)
        deviation = prefixes.deviation(alone, whole)
        found = metrics_of(task, whole, held_out)
        found |= task.figures(found, data, held_out)
        params = sum(value.numel() for value in weights.values())
        return found | {"params": float(params), "prefix_deviation": deviation}, spent

    def train(
        self, data: Split, training: Training, seeds: Seeds
    ) -> tuple[dict[str, Tensor], Spent]:
        """The weights after training, and what it took. Raises CandidateFailure."""
        errand = TrainingErrand(
            self.proxy, training, seeds.initialisation, seeds.order, self.seconds, self.share,
            confined=self.sandbox.level != "process",
        )  # fmt: skip
        inputs = {DATA: save({n: getattr(data, n).contiguous() for n in ("inputs", "labels")})}
        results = (File(WEIGHTS, "safetensors", 1 << 30), File(SAID, "json", 1 << 16))
        ended = self._run("train", errand, inputs, results)
        said, weights = ended.files[SAID], ended.files[WEIGHTS]
        if not isinstance(said, dict):  # at level `process` anyone may have written it
            raise CandidateFailure(FailureKind.CRASH, "train: no answer of ours")
        refuse(said)
        self._check(weights)
        steps, tokens = (_count(said, key) for key in ("steps", "tokens"))
        return weights, Spent(steps, tokens, 0.0, ended.seconds)

    def whole(self, weights: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
        """The logits of all rows, (N, L, outputs). Raises CandidateFailure."""
        rows = max(1, CHUNK // (4 * tokens.shape[1] * self.proxy.task.outputs))
        parts = [self.logits(weights, {"rows": part})["rows"] for part in tokens.split(rows)]
        return torch.cat(parts)

    def logits(
        self, weights: Mapping[str, Tensor], tokens: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Token ids (N, L) by name to logits (N, L, outputs), from one fresh process.

        Raises CandidateFailure.
        """
        errand = LogitsErrand(self.proxy, dict(tokens))
        files = {WEIGHTS: save(dict(weights))}
        results = (File(LOGITS, "safetensors", 2 * CHUNK), File(SAID, "json", 1 << 16))
        ended = self._run("logits", errand, files, results)
        found, said = ended.files[LOGITS], ended.files[SAID]
        detail = said.get("detail") if isinstance(said, dict) else "no answer of ours"
        if detail:
            raise CandidateFailure(FailureKind.INVALID, f"scoring: {short(detail)}")
        for name, ids in tokens.items():
            check_logits(found.get(name), (*ids.shape, self.proxy.task.outputs))
        return {name: found[name] for name in tokens}

    def _run(
        self, task: str, errand: object, files: Mapping[str, bytes], results: Sequence[File]
    ) -> Ended:
        mixers = {f"{code}/{FILE}": text.encode() for code, text in self.sources.items()}
        inputs = {**mixers, ERRAND: pickle.dumps(errand), **files}
        bound = self.seconds + GRACE
        limits = replace(LIMITS, wall_seconds=bound, cpu_seconds=bound)
        ended = self.sandbox.run(f"sandbox.training:{task}", inputs, results, limits)
        if ended.outcome is not Outcome.OK:
            raise failure_of(ended, task)
        return ended

    def _check(self, weights: Mapping[str, Tensor]) -> None:
        """Names and shapes are checked by loading them."""
        check_weights(weights, self.max_params)


def check_weights(weights: Mapping[str, Tensor], max_params: int | None) -> None:
    """Raise CandidateFailure for weights that are not finite or more than are allowed."""
    bad = [n for n, w in weights.items() if w.is_floating_point() and not w.isfinite().all()]
    if bad:
        raise CandidateFailure(FailureKind.NAN, f"trained weights are not finite: {bad[0]}")
    count = sum(weight.numel() for weight in weights.values())
    if max_params is not None and count > max_params:
        raise CandidateFailure(
            FailureKind.INVALID,
            f"{count:,} weights came back, {max_params:,} are allowed: make it smaller",
        )


def metrics_of(task: Task, logits: Tensor, held_out: Split) -> dict[str, float]:
    """The task's metrics and score from logits and labels, in double precision. Raises CandidateFailure."""
    scorer = Scorer()
    try:
        scorer.update(logits, held_out.labels.long())
    except NonFiniteLogits as error:
        raise CandidateFailure(FailureKind.NAN, str(error)) from error
    found = scorer.result()
    return found | {"score": task.score_of(found)}


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Rows of the held-out inputs cut short: tokens by the name of the cut, and which rows they were."""

    tokens: dict[str, Tensor]
    rows: dict[str, Tensor]

    @classmethod
    def of(cls, task: Task, inputs: Tensor, seed: int) -> Prefixes:
        """Random cuts and rows, no row twice; none for a task whose head reads across positions."""
        generator = torch.Generator().manual_seed(seed_of(seed, "prefixes"))
        length = inputs.shape[1]
        if length < 2 or reads_across(task, length):
            return cls({}, {})
        order = torch.randperm(len(inputs), generator=generator)[: CUTS * ROWS]
        cuts = torch.randint(1, length, (CUTS,), generator=generator).tolist()
        pairs = zip(cuts, order.tensor_split(CUTS), strict=True)
        rows = {f"{i}": rows for i, (_, rows) in enumerate(pairs) if len(rows)}
        return cls({name: inputs[r, : cuts[int(name)]] for name, r in rows.items()}, rows)

    def deviation(self, alone: Mapping[str, Tensor], whole: Tensor) -> float:
        """The largest difference relative to the logits' size; raises CandidateFailure (leak) beyond the
        bound."""
        most = 0.0
        for name, rows in self.rows.items():
            prefix, full = alone[name].double(), whole[rows, : alone[name].shape[1]].double()
            gap = (prefix - full).abs().max() / full.square().mean().sqrt().clamp_min(1e-12)
            if not gap <= CONSISTENT:
                raise CandidateFailure(
                    FailureKind.LEAK,
                    f"trained, the logits of the first {prefix.shape[1]} of {whole.shape[1]} tokens differ "
                    f"by {gap:.2g} of their size when the rest follows (allowed {CONSISTENT:g}): the "
                    "future leaks into the past",
                )
            most = max(most, gap.item())
        return most


@torch.no_grad()
def reads_across(task: Task, length: int, width: int = 16) -> bool:
    """Whether a task's own head lets a position see a later one; then a prefix has no logits to compare."""
    head, x = task.head(width), torch.randn(2, length, width)
    whole, prefix = head(x)[:, : length - 1], head(x[:, : length - 1])
    return whole.shape != prefix.shape or not torch.allclose(whole, prefix, atol=1e-4)


def failure_of(ended: Ended, task: str) -> CandidateFailure:
    """What a run that did not end well says of the candidate."""
    kinds = {
        Outcome.TIMEOUT: FailureKind.TIMEOUT,
        Outcome.CPU: FailureKind.TIMEOUT,
        Outcome.MEMORY: FailureKind.OOM,
    }
    kind = kinds.get(ended.outcome, FailureKind.CRASH)
    return CandidateFailure(kind, f"{task}: {ended.outcome} {ended.detail}".strip())


def _count(said: Mapping[str, Any], key: str) -> int:
    value = said.get(key)
    if type(value) is not int or value < 0:
        raise CandidateFailure(FailureKind.CRASH, f"train: no count of {key} came back")
    return value


def check_logits(value: Tensor | None, shape: tuple[int, ...]) -> None:
    """Raise CandidateFailure for logits that are missing or of another shape or type."""
    if value is None or tuple(value.shape) != shape or value.dtype != torch.float32:
        got = "none" if value is None else f"{value.dtype} {tuple(value.shape)}"
        raise CandidateFailure(
            FailureKind.CRASH, f"scoring: logits must be float32 {shape}, not {got}"
        )
