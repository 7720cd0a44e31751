"""What tests of whole campaigns share: scores without training, models' replies, keys, no network."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest

from agents.llm.loopback import Behaviour, ok
from archwright.executor import LocalExecutor
from evaluator.evaluate import Job, evaluate
from evaluator.outcome import Metric, Result, Spent

KEY = "sk-secret-4711"


class Scoring(LocalExecutor):
    """Scores each job at random, the same job the same way: for tests of agents, not of training."""

    def submit(self, task: Callable[..., Any], *args: Any) -> int:
        assert task is evaluate, "there is no other task"
        return super().submit(scored, *args)


def scored(job: Job) -> Result:
    value = random.Random(f"{job.pattern} {job.seed} {job.sealed} {job.share}").random()
    return Result((Metric("score", job.split, value),), Spent())


def reply(pattern: str, hypothesis: str = "h") -> Behaviour:
    words = {"hypothesis": hypothesis, "reasoning": "r", "expected_effect": "+"}
    return ok({**words, "pattern": pattern})


def keys_for(url: str, patch: pytest.MonkeyPatch) -> None:
    """An environment with keys, in which both providers are at ``url``."""
    keyless(patch)
    for name in ("ANTHROPIC", "OPENAI"):
        patch.setenv(f"{name}_API_KEY", KEY)
    patch.setenv("ANTHROPIC_BASE_URL", url)
    patch.setenv("OPENAI_BASE_URL", f"{url}/v1")


def keyless(patch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith(("ANTHROPIC_", "OPENAI_")):
            patch.delenv(name)


def offline(patch: pytest.MonkeyPatch) -> None:
    """Neither keys nor sockets."""

    def denied(*_: Any) -> None:
        raise AssertionError("there is no network here")

    keyless(patch)
    for name in ("connect", "connect_ex", "sendto"):
        patch.setattr(socket.socket, name, denied)
