"""One candidate without a campaign: what a pattern is, and what it scores."""

from __future__ import annotations

from typing import Any

from archwright.candidates import composition
from archwright.standings import estimate, pooled_deviation
from evaluator import memory
from evaluator.evaluate import Job, evaluate
from evaluator.outcome import FailureKind, Result
from evaluator.profiles import profile as profile_named
from search_space.pattern import Pattern, PatternError
from search_space.primitives import CATALOGUE
from search_space.references import REFERENCES


def read(text: str) -> Pattern:
    """The pattern of a text or of a reference's name. Raises PatternError."""
    text = REFERENCES[text].pattern if text in REFERENCES else text
    try:
        return Pattern.parse(text, CATALOGUE)
    except PatternError as error:
        Pattern.parse(text)  # raises where more is wrong with it than a code
        raise PatternError(
            f"{error}; what a written primitive's code means, only its run knows: "
            "archwright inspect RUN primitives"
        ) from error


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
    profile_named(profile).narrow(tasks).check()
    memory.bound(workers=1)
    results: list[Result] = []
    for seed in range(seeds):
        results.append(evaluate(Job(record.pattern, preset, profile, seed, tasks)))
        if results[-1].failure is FailureKind.OOM:
            break  # so would the other seeds, and this process has nothing left to try them with
    scores = [s for s in (result.score() for result in results) if s is not None]
    deviation, _ = pooled_deviation([scores])
    found, means = estimate(scores, deviation) if scores else None, _means(results)
    return {
        "pattern": record.pattern,
        "score": found.mean if found else None,
        "stderr": found.stderr if found else None,
        "seeds": seeds,
        "tasks": {k.removesuffix("/score"): v for k, v in means.items() if k.endswith("/score")},
        "figures": {k: v for k, v in means.items() if "/" in k and not k.endswith("/score")},
        "facts": dict(fact for result in results for fact in result.facts),
        "params": record.params,
        "seconds": sum(r.spent.seconds for r in results),
        "steps": sum(r.spent.steps for r in results),
        "failure": next((r.failure for r in results if r.failure), None),
        "detail": next((r.detail for r in results if r.failure), ""),
    }


def _means(results: list[Result]) -> dict[str, float]:
    """The mean of each metric over the results that have it."""
    values: dict[str, list[float]] = {}
    for metric in (m for result in results for m in result.metrics):
        values.setdefault(metric.name, []).append(metric.value)
    return {name: sum(found) / len(found) for name, found in values.items()}
