"""The typed outcomes of an evaluation: scores and what they cost, or a failure of the candidate.

An infrastructure fault (a killed worker, a full disk) is no outcome: it is raised and retried.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class FailureKind(StrEnum):
    """Why a candidate has no score."""

    INVALID = "invalid"  # it could not be built
    DIVERGED = "diverged"  # the training loss ran away
    NAN = "nan"  # a loss or a logit was not finite
    OOM = "oom"  # it did not fit into memory
    TIMEOUT = "timeout"  # it did not finish within its time
    CRASH = "crash"  # its process ended without a result, or with one that is none
    LEAK = "leak"  # its outputs depend on what they must not: later tokens
    TAMPERED = "tampered"  # it changed the trainer, torch or the clock around it
    GATE = "gate"  # it failed a check of the gate: its certificate says which


class CandidateFailure(Exception):
    """The candidate's own fault, with its kind; it is recorded, never scored and never retried."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(kind, detail)  # both, so that it survives pickling between processes
        self.kind, self.detail = kind, detail

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@dataclass(frozen=True)
class Spent:
    """What training took: optimiser steps, tokens seen, training FLOPs (3 x forward), wall seconds.

    ``eager``: on a GPU, why steps were launched one by one and not as a graph, if they were.
    """

    steps: int = 0
    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    eager: str = ""

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.steps + other.steps,
            self.tokens + other.tokens,
            self.flops + other.flops,
            self.seconds + other.seconds,
            self.eager or other.eager,
        )


@dataclass(frozen=True)
class Metric:
    """One number: ``name`` is `score` or `<task>/<metric>`, ``split`` the split it was read on."""

    name: str
    split: str
    value: float


@dataclass(frozen=True)
class Result:
    """An evaluation that ended: its metrics, or the failure in their place.

    ``facts`` are what a number cannot say of the data behind the metrics: (`<task>/<fact>`, text),
    such as the sha256 of a corpus. ``spent`` is this evaluation's own, without what an earlier rung
    took. ``checkpoint`` is where its trainings stopped, when that was before their end
    (`evaluator.checkpoint`).
    """

    metrics: tuple[Metric, ...]
    spent: Spent
    failure: FailureKind | None = None
    detail: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    checkpoint: bytes | None = field(default=None, repr=False)

    def score(self, split: str = "validation") -> float | None:
        """The score on that split, or None where there is none."""
        return next((m.value for m in self.metrics if (m.name, m.split) == ("score", split)), None)
