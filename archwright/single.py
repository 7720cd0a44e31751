"""One candidate without a campaign: what a pattern is, and what it scores."""

from __future__ import annotations

from typing import Any

from archwright.candidates import composition
from archwright.standings import estimate, pooled_deviation
from evaluator.evaluate import Job, evaluate
from evaluator.outcome import Result
from evaluator.profiles import profile as profile_named
from search_space.pattern import Pattern
from search_space.primitives import CATALOGUE
from search_space.references import REFERENCES


def read(text: str) -> Pattern:
    """The pattern of a text or of a reference's name. Raises PatternError."""
    return Pattern.parse(REFERENCES[text].pattern if text in REFERENCES else text, CATALOGUE)


def describe(text: str, preset: str) -> dict[str, Any]:
    """A pattern's canonical form, layers and costs at a preset. Raises ValueError."""
    pattern = read(text)
    record = composition(pattern, preset)
    return {
        "canonical": record.pattern,
        "layers": [str(layer) for layer in pattern.layers],
        "counts": pattern.counts,
        "preset": preset,
        "params": record.params,
        "flops_per_token": record.flops_per_token,
        "state_bytes": record.state_bytes,
        "content_hash": record.content_hash,
    }


def score(
    text: str, preset: str, profile: str, seeds: int, tasks: tuple[str, ...]
) -> dict[str, Any]:
    """The validation score of a pattern over seeds 0, 1, ... Raises ValueError."""
    record = composition(read(text), preset)
    profile_named(profile).narrow(tasks)
    results = [evaluate(Job(record.pattern, preset, profile, i, tasks)) for i in range(seeds)]
    scores = [s for s in (result.score() for result in results) if s is not None]
    deviation, _ = pooled_deviation([scores])
    found = estimate(scores, deviation) if scores else None
    return {
        "pattern": record.pattern,
        "score": found.mean if found else None,
        "stderr": found.stderr if found else None,
        "seeds": seeds,
        "tasks": _tasks(results),
        "params": record.params,
        "seconds": sum(r.spent.seconds for r in results),
        "steps": sum(r.spent.steps for r in results),
        "failure": next((r.failure for r in results if r.failure), None),
        "detail": next((r.detail for r in results if r.failure), ""),
    }


def _tasks(results: list[Result]) -> dict[str, float]:
    """Mean score by task over the results that have one."""
    values: dict[str, list[float]] = {}
    for metric in (m for result in results for m in result.metrics):
        if metric.name.endswith("/score"):
            values.setdefault(metric.name.removesuffix("/score"), []).append(metric.value)
    return {task: sum(found) / len(found) for task, found in values.items()}
