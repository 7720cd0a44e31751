"""What tests of whole campaigns share: scores without training, models' replies, keys, no network."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

import pytest

from agents.llm.loopback import Behaviour, ok
from archwright.executor import LocalExecutor
from evaluator.evaluate import Job, evaluate
from evaluator.outcome import Metric, Result, Spent
from storage.records import View

KEY = "sk-secret-4711"


class Scoring(LocalExecutor):
    """Scores each job at random, the same job the same way: for tests of agents, not of training."""

    def submit(self, task: Callable[..., Any], *args: Any) -> int:
        assert task is evaluate, "there is no other task"
        return super().submit(scored, *args)


class Threads(Scoring):
    """Agents are asked in threads of their own, so that their calls are open at once, as with actors."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.pool = ThreadPoolExecutor(64)
        self.futures: dict[int, Future[Any]] = {}

    def propose(self, agent: str, view: View, seed: int) -> int:
        future = self.pool.submit(lambda: asyncio.run(self._agents[agent].propose(view, seed)))
        handle = self._add(future.result)
        self.futures[handle] = future
        return handle

    def wait(self, handles: Sequence[int], timeout: float) -> list[int]:
        """Those that are done; an evaluation is done when it is looked at."""
        if ready := [h for h in handles if h not in self.futures or self.futures[h].done()]:
            return ready
        wait([self.futures[h] for h in handles], timeout, FIRST_COMPLETED)
        return [h for h in handles if self.futures[h].done()]

    def close(self) -> None:
        self.pool.shutdown()


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
