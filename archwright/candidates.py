"""From a pattern to a candidate: canonical form, content hash and costs, and the job that evaluates it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

from archwright.recipe import Recipe
from evaluator.evaluate import Job
from evaluator.profiles import profile
from evaluator.rungs import shares
from search_space.pattern import Pattern
from search_space.presets import Preset, preset
from search_space.space import Space
from storage.records import CandidateRecord


def space_of(recipe: Recipe) -> Space:
    """The space that a recipe searches."""
    section = recipe.space
    return Space(section.primitives, *section.layers, section.preset, section.options)


def composition(pattern: Pattern, preset_name: str, name: str | None = None) -> CandidateRecord:
    """The candidate of a pattern at a preset. Its identity is the expanded layers and the preset's
    sizes, not its name or how it was written. Raises ValueError for options a primitive refuses."""
    size = preset(preset_name)
    space = Space((), 1, len(pattern), preset_name)
    cost = space.cost(pattern)
    content = json.dumps(["composition", pattern.hash, sizes_of(size)], sort_keys=True)
    return CandidateRecord(
        content_hash=hashlib.sha256(content.encode()).hexdigest(),
        kind="composition",
        pattern=str(pattern),
        preset=preset_name,
        params=cost.params,
        flops_per_token=cost.flops_per_token,
        state_bytes=cost.state_bytes(),
        name=name,
    )


def sizes_of(size: Preset) -> dict[str, Any]:
    """What of a preset a candidate depends on."""
    return {k: v for k, v in asdict(size).items() if k not in ("name", "length", "layers")}


def profile_label(recipe: Recipe) -> str:
    """What is evaluated, as the ledger names it: the profile and a fingerprint of all it says.

    A profile that was changed, or narrowed to some of its tasks, is another one: its scores are
    neither reused nor compared. So is one under the sandbox's protocol: other data, logits in fp32.
    """
    section = recipe.evaluation
    label = f"{section.profile}#{profile(section.profile).narrow(section.tasks).fingerprint}"
    return label if recipe.kind == "composition" else f"{label}/{recipe.kind}"


def job_of(recipe: Recipe, pattern: str, seed: int, sealed: bool, rung: int) -> Job:
    """The evaluation of a pattern under a recipe, without a checkpoint."""
    section = recipe.evaluation
    return Job(
        pattern=pattern,
        preset=recipe.space.preset,
        profile=section.profile,
        seed=seed,
        tasks=section.tasks,
        sealed=sealed,
        timeout=section.timeout_seconds,
        share=shares(recipe.rungs.count, recipe.rungs.eta)[rung],
    )
