"""What a campaign costs beside its evaluations: a real one on two workers, watched from inside them.

What one core does is `evaluator.bench`'s.
"""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from archwright.campaign import Campaign
from archwright.executor import RayExecutor
from archwright.recipe import Recipe, parse
from evaluator.bench import Figure, say
from evaluator.evaluate import Job, evaluate
from evaluator.outcome import Result
from evaluator.stages import STAGES, watched

WORKERS, FIVE = 2, 5.0  # seconds, the evaluation that targets are stated for


def recipe(evaluations: int, profile: str) -> Recipe:
    """A campaign of random candidates, without references or confirmation."""
    return parse(
        {
            "name": "bench",
            "space": {"primitives": ["A", "M", "Mb"], "layers": [6, 8], "preset": "mini"},
            "evaluation": {"profile": profile},
            "agents": [{"name": "random", "proposer": "random"}],
            "budget": {"evaluations": evaluations},
            "confirm": {"finalists": 0},
            "lag": 2 * WORKERS,
        }
    )


# ---------------------------------------------------------------------------------- inside a worker


@dataclass(frozen=True)
class Observation:
    """One evaluation as its worker saw it: from when to when on the machine's monotonic clock, seconds
    by stage, and the most memory that the worker has had resident so far."""

    result: Result
    began: float
    ended: float
    stages: dict[str, float]
    peak_bytes: int


def observe(job: Job) -> Observation:
    """Evaluate, and say how that went."""
    began = time.monotonic()
    with watched() as stages:
        result = evaluate(job)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Observation(result, began, time.monotonic(), stages.seconds, peak)


class Observer(RayExecutor):
    """Ray whose workers observe their evaluations; the driver sees the results alone."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.seen: list[Observation] = []

    def submit(self, task: Callable[..., Any], *args: Any) -> Any:
        return super().submit(observe if task is evaluate else task, *args)

    def result(self, handle: Any) -> Any:
        found = super().result(handle)
        if not isinstance(found, Observation):
            return found
        self.seen.append(found)
        return found.result


# --------------------------------------------------------------------------------------- a campaign


def campaign(recipe: Recipe) -> dict[str, Any]:
    """Drive a campaign in a folder of its own and say what its workers did."""
    say(f"a campaign of {recipe.budget.evaluations} evaluations on {WORKERS} workers")
    with TemporaryDirectory() as folder:
        started = Campaign.create(recipe, Path(folder) / "run", WORKERS)
        executor = Observer(WORKERS)
        try:
            started.run(executor)
        finally:
            executor.close()
    return {"profile": recipe.evaluation.profile, **utilisation(executor.seen, WORKERS)}


def utilisation(seen: Sequence[Observation], workers: int) -> dict[str, Any]:
    """What the workers did from the first evaluation's start to the last one's end.

    ``workers``, ``evaluations``, ``wall_seconds``; the `Figure`s ``evaluation_seconds`` and
    ``gap_seconds``, between two evaluations of a worker. ``busy``: the share of the workers' time in
    evaluations; ``busy_before_tail``: the same up to when the first worker has nothing left to do, for
    the tail is short in a long campaign. ``shares``: of the evaluations' seconds by stage.
    ``orchestration``: the share before the tail that is in gaps or in no stage, imports at a worker's
    start included; ``orchestration_of_five_seconds``: the same of a warm worker's evaluation of that
    length. ``candidates_per_hour``; ``peak_bytes``: the most memory that a worker had resident.
    """
    began, ended = (sorted(getattr(one, when) for one in seen) for when in ("began", "ended"))
    wall, tail = ended[-1] - began[0], next(end for end in ended if end > began[-1])
    lengths = [one.ended - one.began for one in seen]
    shares = {stage: sum(one.stages[stage] for one in seen) / sum(lengths) for stage in STAGES}
    gap = Figure.of([start - end for end, start in zip(ended, began[workers:], strict=False)])
    before_tail = busy(seen, workers, began[0], tail)
    warm = FIVE * statistics.median(one.stages["rest"] / (one.ended - one.began) for one in seen)
    return {
        "workers": workers,
        "evaluations": len(seen),
        "wall_seconds": wall,
        "evaluation_seconds": asdict(Figure.of(lengths)),
        "gap_seconds": asdict(gap),
        "busy": busy(seen, workers, began[0], ended[-1]),
        "busy_before_tail": before_tail,
        "shares": shares,
        "orchestration": 1 - before_tail * (1 - shares["rest"]),
        "orchestration_of_five_seconds": (warm + gap.median) / (FIVE + gap.median),
        "candidates_per_hour": 3600 * len(seen) / wall,
        "peak_bytes": max(one.peak_bytes for one in seen),
    }


def busy(seen: Sequence[Observation], workers: int, start: float, stop: float) -> float:
    """The share of the workers' time between two times in which they evaluate."""
    inside = sum(max(0.0, min(one.ended, stop) - max(one.began, start)) for one in seen)
    return inside / (workers * (stop - start))
