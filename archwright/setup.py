"""From a recipe to what a campaign is made of: checks, arms, agents. Starts and writes nothing."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from agents.agent import Agent, AgentSpec
from agents.literature import load
from agents.llm import MissingKey
from archwright import primitives, scripts, written
from archwright.briefing import writing_of
from archwright.candidates import space_of
from archwright.folders import run_folder
from archwright.recipe import (
    CODERS,
    MODEL_PROPOSERS,
    RECORDED,
    WRITERS,
    AgentSection,
    Recipe,
    RecipeError,
    WrittenSection,
)
from archwright.recordings import filled
from archwright.schedule import Arm
from archwright.workbench import SandboxedBench
from evaluator.profiles import Profile, profile
from evaluator.rungs import shares
from search_space.pattern import Pattern, nearest
from search_space.presets import preset
from search_space.primitives import CATALOGUE
from storage.records import AgentRecord, View

REFERENCES = "references"
PROPOSED = {"composition": "architectures", "module": "modules"}


def check(recipe: Recipe) -> None:
    """Raise RecipeError for whatever could only fail later: names, patterns, data, keys, money."""
    space = recipe.space
    for code in space.primitives:
        if code not in CATALOGUE and code not in space.written:
            known = nearest(code, CATALOGUE)
            raise RecipeError(f"space.primitives: unknown code {code!r}, the nearest are {known}")
    try:
        preset(space.preset)
        profile_of(recipe).check()
        primitives.check(recipe)
        searched = space_of(recipe)
        for text in recipe.references.patterns.values():
            searched.cost(Pattern.parse(text, searched.primitives))
        _check_rungs(recipe)
        if recipe.kind == "script":
            scripts.check(recipe)
        elif recipe.sandboxed:
            written.check(recipe)
        _check_writers(recipe)
        agents = [Agent(spec) for spec in agent_specs(recipe)]
        _check_keys(agents)
        _check_sessions(agents)
        for agent in agents:
            _check_price(recipe, agent)
    except ValueError as error:
        raise RecipeError(str(error)) from error


def _check_keys(agents: Sequence[Agent]) -> None:
    """Raise RecipeError for every key that is missing, with the agents that need it."""
    missing: dict[str, list[str]] = {}
    for agent in agents:
        try:
            agent.proposer.check()
        except MissingKey as error:
            missing.setdefault(error.key, []).append(agent.spec.name)
    if missing:
        needs = "; ".join(f"{key} for {', '.join(names)}" for key, names in missing.items())
        raise RecipeError(
            f"agents need keys that are not in the environment: {needs}: export them, drop those agents, "
            "or give them models with @base_url of a local server"
        )


def _check_sessions(agents: Sequence[Agent]) -> None:
    """Raise RecipeError for a scaffold that asks for sessions with tools where there can be none."""
    for agent in agents:
        limits = agent.scaffold.next(View(), random.Random(0)).limits
        if limits and (agent.spec.bench is None or agent.spec.proposer not in CODERS):
            raise RecipeError(
                f"agent {agent.spec.name}: scaffold {agent.scaffold_name} is for models that write code with "
                f"tools: it needs kind: module and a proposer of {', '.join(CODERS)}"
            )


def _check_writers(recipe: Recipe) -> None:
    """Raise RecipeError for an agent that does not write what this kind of campaign is of."""
    kind = recipe.kind
    for agent in (*recipe.agents, *recipe.controls) if kind in WRITERS else ():
        if agent.proposer not in WRITERS[kind] and ":" not in agent.proposer:
            raise RecipeError(
                f"agent {agent.name}: proposer {agent.proposer} writes no {kind}s: kind: {kind} takes "
                f"{', '.join(WRITERS[kind])}, or a class of yours as package.module:Class"
            )


def _check_price(recipe: Recipe, agent: Agent) -> None:
    quote = agent.quote(View(), 0)
    if recipe.budget.usd is not None and quote is not None and quote.usd is None:
        raise RecipeError(
            f"budget.usd cannot be kept for agent {agent.spec.name}: its model has no known price; "
            "add it under prices, or limit budget.calls instead"
        )


def _check_rungs(recipe: Recipe) -> None:
    chosen = profile_of(recipe)
    for task, training in product(chosen.tasks, chosen.trainings):
        whole = training.of(task.train_size)
        steps = [whole.until(share) for share in shares(recipe.rungs.count, recipe.rungs.eta)]
        if len(set(steps)) < len(steps):
            raise RecipeError(
                f"rungs: each must train further than the one before, not to steps {steps} of task "
                f"{task.name}: lower rungs.count or rungs.eta"
            )


def profile_of(recipe: Recipe) -> Profile:
    """The profile that a recipe evaluates with."""
    return profile(recipe.evaluation.profile).narrow(recipe.evaluation.tasks)


def arms_of(recipe: Recipe) -> list[Arm]:
    """The search as one arm, and one arm per control, each with the same quota."""
    quota = recipe.budget.evaluations
    search = Arm("search", tuple(agent.name for agent in recipe.agents), quota)
    return [search, *(Arm(control.name, (control.name,), quota) for control in recipe.controls)]


def lag_of(recipe: Recipe, workers: int) -> int:
    """The recipe's lag, or else a slot in flight for every worker, busy with one, and for every agent
    that asks a model, thinking about one: workers do not wait for models."""
    if recipe.lag is not None:
        return recipe.lag
    quotes = [Agent(spec).quote(View(), 0) for spec in agent_specs(recipe)]
    return workers + sum(quote is not None for quote in quotes)


def agent_specs(recipe: Recipe, notes: str = "") -> list[AgentSpec]:
    """Every agent of the recipe, the references among them."""
    references = AgentSection(name=REFERENCES, proposer="fixed", options=references_of(recipe))
    sections = [references, *recipe.agents, *recipe.controls]
    return [_spec(recipe, section, notes) for section in sections]


def references_of(recipe: Recipe) -> dict[str, list[str]]:
    """What is measured beside the search: the recipe's patterns, or the baseline of scripts."""
    if recipe.kind == "script":
        return {"sources": [scripts.baseline_of(recipe)]}
    return {"patterns": list(recipe.references.patterns.values())}


def _spec(recipe: Recipe, section: AgentSection, notes: str) -> AgentSpec:
    section = filled(section) if section.proposer == RECORDED else section
    return AgentSpec(
        name=section.name,
        proposer=section.proposer,
        space=space_of(recipe),
        scaffold=section.scaffold,
        options=_options(recipe, section),
        scaffold_options=section.scaffold_options,
        goal=goal_of(recipe),
        notes=notes,
        literature=load(Path(recipe.literature)) if recipe.literature else (),
        writing=writing_of(recipe),
        bench=SandboxedBench(recipe) if recipe.kind == "module" else None,
    )


def _options(recipe: Recipe, section: AgentSection) -> dict[str, Any]:
    if section.proposer == "grammar" and recipe.module.mode == "configurable":
        return {"settings": written.standard(recipe), **section.options}
    if section.proposer not in MODEL_PROPOSERS:
        return section.options
    if section.model is None:
        raise RecipeError(
            f"agent {section.name}: proposer {section.proposer} needs a model: write model: "
            "provider:model, or give --llm"
        )
    return {"model": section.model, "prices": recipe.prices, **section.options}


def goal_of(recipe: Recipe) -> str:
    """The task and the budget in one sentence, for models."""
    if recipe.kind == "script":
        return scripts.goal(recipe)
    chosen = profile_of(recipe)
    tasks = ", ".join(f"{t.name} (vocabulary {t.vocab}, length {t.length})" for t in chosen.tasks)
    return (
        f"Tasks: {tasks}. Each is trained for {chosen.training.steps} steps from scratch; "
        f"the search measures {recipe.budget.evaluations} {PROPOSED[recipe.kind]}.{_rungs_in_words(recipe)}"
    )


def _rungs_in_words(recipe: Recipe) -> str:
    if recipe.rungs.count == 1:
        return ""
    *parts, _ = shares(recipe.rungs.count, recipe.rungs.eta)
    steps = ", ".join(f"rung {rung} after {share} of it" for rung, share in enumerate(parts))
    return (
        f" That training has rungs where scores are taken: {steps}, rung {recipe.rungs.last} at its end. "
        f"All {PROPOSED[recipe.kind]} reach rung 0, and the best of a rung go on to the next. Only scores of "
        "one rung can be compared; longer training raises them."
    )


def salted(recipe: Recipe) -> Recipe:
    """The recipe with a salt, drawn where it has none: who knows it can compute the held-out labels."""
    if not recipe.sandboxed or recipe.sandbox.salt is not None:
        return recipe
    section = recipe.sandbox.model_copy(update={"salt": secrets.randbits(48)})
    return recipe.model_copy(update={"script" if recipe.kind == "script" else "module": section})


def anchored(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths and the text of its baseline, so that it is resumed from any folder."""
    literature = recipe.literature and str(Path(recipe.literature).resolve())
    agents, controls = (tuple(map(_anchored, part)) for part in (recipe.agents, recipe.controls))
    places = {code: _placed(one) for code, one in recipe.space.written.items()}
    space = recipe.space.model_copy(update={"written": places})
    changed = {"literature": literature, "agents": agents, "controls": controls, "space": space}
    text = scripts.baseline_of(recipe) if recipe.kind == "script" else None
    script = recipe.script.model_copy(update={"baseline": text})
    return recipe.model_copy(update={**changed, "script": script})


def _placed(section: WrittenSection) -> WrittenSection:
    folder = run_folder(Path(section.run)).resolve()
    return section.model_copy(update={"ledger": f"ledger:{folder}/{section.candidate}"})


def _anchored(section: AgentSection) -> AgentSection:
    if section.proposer != RECORDED:
        return section
    run = str(Path(section.options["run"]).resolve())
    return section.model_copy(update={"options": section.options | {"run": run}})


def agent_records(recipe: Recipe) -> list[AgentRecord]:
    """The agents as the ledger keeps them; of one that is recorded, the record's place."""
    controls = {control.name for control in recipe.controls}
    sections = {agent.name: agent for agent in (*recipe.agents, *recipe.controls)}
    records = []
    for spec in agent_specs(recipe):
        role = "control" if spec.name in controls else "search"
        section = sections.get(spec.name)
        options = section.options if section and spec.proposer == RECORDED else spec.options
        records.append(
            AgentRecord(
                name=spec.name,
                role="reference" if spec.name == REFERENCES else role,
                scaffold=Agent(spec).scaffold_name,
                proposer=spec.proposer,
                model=section.model if section else None,
                settings={"options": dict(options), "scaffold": dict(spec.scaffold_options)},
            )
        )
    return records
