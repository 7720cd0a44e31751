"""How busy models keep the evaluators: eight agents, a campaign on real Ray, the real SDKs over real HTTP.

The provider is `agents.llm.loopback`, which takes its time and answers with random patterns; an
evaluation is a sleep whose length follows from its pattern, so that the cores are free for what is
measured: the agents and the driver. It says nothing of how fast evaluations are, or of how good models are.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from agents.agent import AgentSpec
from agents.llm.loopback import Behaviour, Loopback, Received, ok
from archwright.campaign import Campaign
from archwright.console import err
from archwright.executor import RayExecutor
from archwright.recipe import Recipe, parse
from archwright.setup import lag_of
from evaluator.evaluate import Job, evaluate
from evaluator.outcome import Metric, Result, Spent

WORKERS, AGENTS = 2, 8
CODES, LAYERS = ("A", "M", "Mb"), (6, 8)


@dataclass(frozen=True)
class Size:
    """How much is measured: evaluations, the range of their seconds, and a call's seconds."""

    evaluations: int = 60
    shortest: float = 0.5
    longest: float = 1.5
    latency: float = 0.2


FULL, QUICK = Size(), Size(10, 0.02, 0.06, 0.02)


def bench(size: Size) -> dict[str, Any]:
    """The JSON keys of `archwright bench agents`, without its figures: what was run, and ``campaigns``,
    each what `campaign` returns: at the lag that a recipe has by default, and at one slot a worker.

    A short campaign before them starts the processes and loads the SDKs; ``start_up_seconds`` is how
    long that took until every agent had answered.
    """
    with Loopback(thinking(size.latency)) as server, closing(Sleepers(WORKERS, size)) as executor:
        lag = lag_of(recipe(server.url, size), WORKERS)
        began = time.monotonic()
        campaign(server, executor, replace(size, evaluations=AGENTS), lag)
        return {
            "agents": AGENTS,
            "workers": WORKERS,
            "latency_seconds": size.latency,
            "evaluation_seconds": [size.shortest, size.longest],
            "evaluations_are": "sleeps",
            "start_up_seconds": time.monotonic() - began,
            "campaigns": [campaign(server, executor, size, each) for each in (lag, WORKERS)],
        }


def campaign(server: Loopback, executor: Sleepers, size: Size, lag: int) -> dict[str, Any]:
    """Drive one campaign in a folder of its own and say how busy its evaluators were."""
    err.print(f"{AGENTS} model agents, {size.evaluations} evaluations, lag {lag}")
    executor.naps, server.most_in_flight, calls = [], 0, len(server.received)
    with TemporaryDirectory() as folder:
        Campaign.create(recipe(server.url, size, lag), Path(folder) / "run", WORKERS).run(executor)
    return {
        "lag": lag,
        "calls": len(server.received) - calls,
        "calls_in_flight_at_most": server.most_in_flight,
        **idleness(executor.naps, WORKERS),
    }


def recipe(url: str, size: Size, lag: int | None = None) -> Recipe:
    """Agents on both SDKs and with both published scaffolds, in turn."""
    models = f"anthropic:m@{url}", f"openai:m@{url}/v1"
    agents = [
        {
            "name": f"agent-{i + 1}",
            "proposer": "llm",
            "model": models[i % 2],
            "scaffold": ("one-shot", "greedy")[i // 2 % 2],
        }
        for i in range(AGENTS)
    ]
    return parse(
        {
            "name": "bench",
            "space": {"primitives": CODES, "layers": LAYERS, "preset": "mini"},
            "evaluation": {"profile": "smoke"},
            "agents": agents,
            "budget": {"evaluations": size.evaluations},
            "confirm": {"finalists": 0},
            "lag": lag,
        }
    )


def thinking(latency: float) -> Callable[[Received], Behaviour]:
    """A model that answers every request with a random pattern after ``latency`` seconds."""
    rng = random.Random(0)

    def answer(_: Received) -> Behaviour:
        time.sleep(latency)
        layers = [rng.choice(CODES) for _ in range(rng.randint(*LAYERS))]
        words = dict.fromkeys(("hypothesis", "reasoning", "expected_effect"), "none")
        return ok({**words, "pattern": "+".join(layers)})

    return answer


@dataclass(frozen=True)
class Nap:
    """An evaluation that was slept through, from when to when on the machine's monotonic clock."""

    result: Result
    began: float
    ended: float


def nap(job: Job, size: Size) -> Nap:
    """Sleep in a worker, and score at random; both follow from the pattern."""
    began, rng = time.monotonic(), random.Random(job.pattern)
    time.sleep(rng.uniform(size.shortest, size.longest))
    result = Result((Metric("score", "validation", rng.random()),), Spent())
    return Nap(result, began, time.monotonic())


class Sleepers(RayExecutor):
    """Ray whose workers sleep; the driver sees the results alone."""

    def __init__(self, workers: int, size: Size) -> None:
        super().__init__(workers)
        self.size, self.naps = size, list[Nap]()

    def add_agent(self, spec: AgentSpec) -> None:
        """One that an earlier campaign has brought up stays up."""
        if spec.name not in self._agents:
            super().add_agent(spec)

    def submit(self, task: Callable[..., Any], *args: Any) -> Any:
        assert task is evaluate, "there is no other task"
        return super().submit(nap, *args, self.size)

    def result(self, handle: Any) -> Any:
        found = super().result(handle)
        if not isinstance(found, Nap):
            return found
        self.naps.append(found)
        return found.result


def idleness(naps: Sequence[Nap], workers: int) -> dict[str, Any]:
    """``idle``: the share of the workers' time in which they do not evaluate, from the first evaluation
    to the tail, in which a worker has nothing left to do; ``gap_seconds``: the median between two
    evaluations of a worker; ``wall_seconds``: from the first evaluation to the end of the last."""
    began, ended = (sorted(getattr(one, when) for one in naps) for when in ("began", "ended"))
    tail = next(end for end in ended if end > began[-1])
    busy = sum(min(one.ended, tail) - one.began for one in naps)
    gaps = [start - end for end, start in zip(ended, began[workers:], strict=False)]
    return {
        "evaluations": len(naps),
        "idle": 1 - busy / (workers * (tail - began[0])),
        "gap_seconds": median(gaps),
        "wall_seconds": ended[-1] - began[0],
    }
