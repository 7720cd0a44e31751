"""What a campaign would take, before it runs: evaluations, seconds, tokens, money at the worst."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch

from agents.agent import Agent
from archwright.recipe import Recipe
from archwright.setup import agent_specs, arms_of, profile_of
from evaluator.evaluate import seed_of
from evaluator.train import train
from search_space.model import Model
from search_space.pattern import Pattern
from search_space.presets import preset
from storage.records import Money, View

PROBE_STEPS = 3


def estimate(recipe: Recipe) -> dict[str, Any]:
    """Counts are upper bounds; seconds are extrapolated from a few steps of one model, measured now."""
    arms = arms_of(recipe)
    search = sum(arm.quota for arm in arms) + (
        len(recipe.references.patterns) * recipe.references.seeds
    )
    finalists = recipe.confirm.finalists * len(arms) + len(recipe.references.patterns)
    evaluations = search + finalists * recipe.confirm.seeds
    per_evaluation, tokens = probe(recipe)
    calls, usd = _worst(recipe)
    return {
        "evaluations": evaluations,
        "seconds_per_evaluation": per_evaluation,
        "seconds_on_one_core": per_evaluation * evaluations,
        "trained_tokens": tokens * evaluations,
        "calls_at_most": calls,
        "usd_at_most": usd,
    }


def probe(recipe: Recipe) -> tuple[float, int]:
    """Seconds and tokens of one evaluation of a model of all the space's primitives, on one thread."""
    torch.set_num_threads(1)
    size, depth, codes = (
        preset(recipe.space.preset),
        recipe.space.layers[1],
        recipe.space.primitives,
    )
    pattern = Pattern.of([codes[i % len(codes)] for i in range(depth)])
    chosen, seconds, tokens = profile_of(recipe), 0.0, 0
    short = replace(chosen.training, steps=PROBE_STEPS)
    for task in chosen.tasks:
        torch.manual_seed(seed_of(0, "probe"))
        model = Model(pattern, size, task.vocab, task.head(size.width))
        data = task.split("train", 0)
        train(model, data, replace(short, steps=1), 0, task.vocab)  # the first step warms up
        start = time.perf_counter()
        spent = train(model, data, short, 0, task.vocab)
        seconds += (time.perf_counter() - start) / PROBE_STEPS * chosen.training.steps
        tokens += spent.tokens // PROBE_STEPS * chosen.training.steps
    return seconds, tokens


def _worst(recipe: Recipe) -> tuple[int, float | None]:
    """Calls and USD if every proposal needed every repair; prompts as long as the first ones."""
    total = Money()
    arms = {name: arm.quota / len(arm.agents) for arm in arms_of(recipe) for name in arm.agents}
    for spec in agent_specs(recipe):
        quote = Agent(spec).quote(View(), 0)
        if quote is not None:
            times = round(arms[spec.name])
            usd = None if quote.usd is None else quote.usd * times
            total += Money(quote.calls * times, usd)
    return total.calls, total.usd
