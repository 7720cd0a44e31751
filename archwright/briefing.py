"""What models are told of the file that they write: its contract, and what a campaign asks of it.

It holds neither the salt nor a seed, and asks nobody.
"""

from __future__ import annotations

from agents.prompts import render
from agents.proposers import Writing
from archwright import scripts, written
from archwright.recipe import Recipe
from evaluator.profiles import profile
from sandbox.contract import FILE, RULES
from sandbox.gate.source import ALLOWED
from sandbox.settings import RULES as SETTINGS
from search_space.presets import preset
from search_space.primitives import CATALOGUE
from search_space.space import Space

GROWTH = {"linear": "L", "nlogn": "L log L", "quadratic": "L squared"}  # with the length L


def writing_of(recipe: Recipe) -> Writing | None:
    """The file that agents write; None where they propose patterns."""
    if recipe.kind == "script":
        return scripts.writing(recipe)
    return Writing(FILE, _mixer(recipe)) if recipe.kind == "module" else None


def _mixer(recipe: Recipe) -> str:
    """The contract of a token mixer, with what the gate asks of it in this campaign."""
    terms, size = written.terms_of(recipe, ()), preset(recipe.space.preset)
    tasks = profile(recipe.evaluation.profile).narrow(recipe.evaluation.tasks).tasks
    return render(
        "mixer",
        rules=f"{RULES}\n\n{SETTINGS}" if recipe.module.mode == "configurable" else RULES,
        pattern=recipe.module.pattern,
        length=max(task.length for task in tasks),
        allowed=sorted(ALLOWED),
        growth=GROWTH[terms.max_cost],
        layers=recipe.module.budget,
        budget=terms.budget,
        seconds=terms.seconds,
        catalogue=Space(tuple(CATALOGUE), 1, 1, size.name).catalogue(),
    )
