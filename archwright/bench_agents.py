"""How busy models keep the evaluators: eight agents, a campaign on real Ray, the real SDKs over real HTTP.

The provider is `agents.llm.loopback`, which takes its time and answers with random patterns; an
evaluation is a sleep whose length follows from its pattern, so that the cores are free for what is
measured: the agents and the driver. It says nothing of how fast evaluations are, or of how good models are.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from agents.llm.loopback import Behaviour, Loopback, Received, ok
from archwright.campaign import Campaign, Progress
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
    each what `campaign` returns: at the lag that a recipe has by default, and at one slot a worker."""
    lags = lag_of(recipe("http://127.0.0.1:1", size), WORKERS), WORKERS
    return {
        "agents": AGENTS,
        "workers": WORKERS,
        "latency_seconds": size.latency,
        "evaluation_seconds": [size.shortest, size.longest],
        "evaluations_are": "sleeps",
        "campaigns": [campaign(size, lag) for lag in lags],
    }


def campaign(size: Size, lag: int) -> dict[str, Any]:
    """Drive one campaign in a folder of its own and say how busy its evaluators were."""
    err.print(f"a campaign of {AGENTS} model agents, {size.evaluations} evaluations, lag {lag}")
    with TemporaryDirectory() as folder, Loopback(thinking(size.latency)) as server:
        started = Campaign.create(recipe(server.url, size, lag), Path(folder) / "run", WORKERS)
        executor = Sleepers(WORKERS, size)
        began = time.monotonic()
        try:
            started.run(executor, executor.look)
        finally:
            executor.close()
        warm = executor.warm or executor.naps[0].began
        return {
            "lag": lag,
            "calls": len(server.answered),
            "calls_in_flight_at_most": server.most_in_flight,
            "start_up_seconds": min(nap.began for nap in executor.naps) - began,
            "wall_seconds": time.monotonic() - began,
            **idleness(executor.naps, WORKERS, warm),
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
        self.warm: float | None = None  # when every agent had answered for the first time

    def look(self, progress: Progress) -> None:
        """Called at each turn of the driver's loop."""
        answered = {slot.agent for slot in progress.slots if slot.status != "asked"}
        if self.warm is None and len(answered) == AGENTS:
            self.warm = time.monotonic()

    def submit(self, task: Callable[..., Any], *args: Any) -> Any:
        assert task is evaluate, "there is no other task"
        return super().submit(nap, *args, self.size)

    def result(self, handle: Any) -> Any:
        found = super().result(handle)
        if not isinstance(found, Nap):
            return found
        self.naps.append(found)
        return found.result


def idleness(naps: Sequence[Nap], workers: int, warm: float) -> dict[str, Any]:
    """The share of the workers' time in which they do not evaluate, up to the tail: to when the first
    worker has nothing left to do.

    ``idle`` begins at ``warm``, by when every agent has loaded its SDK; ``idle_from_start`` with the
    first evaluation; ``gap_seconds``: the median between two evaluations of a worker.
    """
    began, ended = (sorted(getattr(one, when) for one in naps) for when in ("began", "ended"))
    tail = next(end for end in ended if end > began[-1])
    gaps = [start - end for end, start in zip(ended, began[workers:], strict=False)]

    def idle(start: float) -> float:
        inside = sum(max(0.0, min(one.ended, tail) - max(one.began, start)) for one in naps)
        return 1 - inside / (workers * (tail - start))

    return {
        "evaluations": len(naps),
        "idle": idle(min(warm, began[-1])),
        "idle_from_start": idle(began[0]),
        "gap_seconds": median(gaps) if gaps else 0.0,
    }
