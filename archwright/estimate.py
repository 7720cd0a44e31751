"""What a campaign would take, before it runs: evaluations, seconds, tokens, money at the worst."""

from __future__ import annotations

import time
from dataclasses import replace
from fractions import Fraction
from typing import Any

import torch

from agents.agent import Agent
from archwright import written
from archwright.recipe import Recipe, RecipeError
from archwright.setup import agent_specs, arms_of, profile_of
from evaluator import memory
from evaluator.evaluate import classified, seed_of
from evaluator.outcome import CandidateFailure
from evaluator.rungs import most, shares
from evaluator.tasks import Split, Task
from evaluator.train import Training, train
from sandbox.contract import CODE
from search_space.model import Model
from search_space.pattern import Pattern
from search_space.presets import preset
from storage.records import Money, View

PROBE_STEPS = 3
# CPU seconds around the training of written code (docs/log.md): a gate, an evaluation's training on random
# labels, and a task's passes for logits.
GATE, RANDOM_LABELS, LOGITS = 2.0, 0.4, 0.25


def estimate(recipe: Recipe) -> dict[str, Any]:
    """Counts are upper bounds, though a search that improves with every candidate promotes more; seconds
    are extrapolated from a few steps of one model, measured now, for an evaluation in full."""
    if recipe.kind == "script":
        return _scripts(recipe)
    finalists = recipe.confirm.finalists * len(arms_of(recipe)) + len(recipe.references.patterns)
    confirmation = finalists * recipe.confirm.seeds
    evaluations, trainings = search(recipe)
    per_evaluation, tokens = probe(recipe)
    around, gates = _sealed(recipe)
    calls, usd = _worst(recipe)
    return {
        "evaluations": evaluations + confirmation,
        "seconds_per_evaluation": per_evaluation + around,
        "seconds_on_one_core": per_evaluation * float(trainings + confirmation)
        + around * (evaluations + confirmation)
        + gates,
        "trained_tokens": int(tokens * (trainings + confirmation)),
        "calls_at_most": calls,
        "usd_at_most": usd,
    }


def _scripts(recipe: Recipe) -> dict[str, Any]:
    """Of scripts, each of which may challenge the holder; their time is what the recipe gives them."""
    arms, section = arms_of(recipe), recipe.script
    quota = sum(arm.quota for arm in arms)
    search = recipe.references.seeds + quota * (1 + 2 * section.repeats) + quota // section.block
    evaluations = search + (1 + recipe.confirm.finalists * len(arms)) * recipe.confirm.seeds
    calls, usd = _worst(recipe)
    return {
        "evaluations": evaluations,
        "seconds_per_evaluation": section.seconds,
        "seconds_on_one_core": section.seconds * evaluations,
        "trained_tokens": None,
        "calls_at_most": calls,
        "usd_at_most": usd,
    }


def search(recipe: Recipe) -> tuple[int, Fraction]:
    """The evaluations of the search and how many full trainings they add up to; written code is trained
    from the start at each rung."""
    evaluations, trainings, before = 0, Fraction(0), Fraction(0)
    going = [arm.quota for arm in arms_of(recipe)]
    references = len(recipe.references.patterns) * recipe.references.seeds
    for share in shares(recipe.rungs.count, recipe.rungs.eta):
        evaluations += sum(going) + references
        trainings += (sum(going) + references) * (share - before)
        going = [most(n, recipe.rungs.eta) for n in going]
        before = before if recipe.sandboxed else share
    return evaluations, trainings


def probe(recipe: Recipe) -> tuple[float, int]:
    """Seconds and tokens of one evaluation of the probe's model, on one thread.

    Raises RecipeError for a model that does not fit into a worker's memory.
    """
    torch.set_num_threads(1)
    memory.bound(recipe.workers)
    chosen, seconds, tokens = profile_of(recipe), 0.0, 0
    for task in chosen.tasks:
        data = task.split("train", 0)
        steps = sum(training.of(len(data.inputs)).steps for training in chosen.trainings)
        try:
            with classified():
                each, batch = probe_step(recipe, task, data, chosen.trainings[0])
        except CandidateFailure as failure:
            raise RecipeError(f"space.preset {recipe.space.preset}: {failure.detail}") from failure
        seconds, tokens = seconds + each * steps, tokens + batch * steps
    return seconds, tokens


def probe_step(recipe: Recipe, task: Task, data: Split, training: Training) -> tuple[float, int]:
    """Seconds and tokens of one step."""
    size, pattern = preset(recipe.space.preset), probed(recipe)
    torch.manual_seed(seed_of(0, "probe"))
    model = Model(pattern, size, task.vocab, task.head(size.width))
    short = replace(training, steps=PROBE_STEPS, epochs=0, warmup=0)
    train(model, data, replace(short, steps=1), 0, task.vocab)  # the first step warms up
    start = time.perf_counter()
    spent = train(model, data, short, 0, task.vocab)
    return (time.perf_counter() - start) / PROBE_STEPS, spent.tokens // PROBE_STEPS


def _sealed(recipe: Recipe) -> tuple[float, float]:
    """Seconds that one evaluation takes around its training where code is written, and all gates together."""
    if not recipe.sandboxed:
        return 0.0, 0.0
    gates = GATE * sum(arm.quota for arm in arms_of(recipe)) if recipe.kind == "module" else 0.0
    return RANDOM_LABELS + LOGITS * len(profile_of(recipe).tasks), gates


def probed(recipe: Recipe) -> Pattern:
    """A model of all the space's primitives, or for written mixers the recipe's own. What is written runs in
    the sandbox only: attention stands in its place, the unit of its budget."""
    if recipe.kind == "module":
        layers = written.pattern_of(recipe.module.pattern).layers
        return Pattern(tuple(replace(x, code="A") if x.code == CODE else x for x in layers))
    depth, space = recipe.space.layers[1], recipe.space
    codes = [code for code in space.primitives if code not in space.written] or ["A"]
    return Pattern.of([codes[i % len(codes)] for i in range(depth)])


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
