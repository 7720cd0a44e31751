"""From a pattern to a candidate: canonical form, content hash and costs, and the job that evaluates it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from archwright.recipe import Recipe, WrittenSection
from evaluator.evaluate import Job
from evaluator.profiles import profile
from evaluator.rungs import shares
from sandbox.gate.copies import structure
from sandbox.gate.cost import cost_of
from search_space.pattern import Pattern
from search_space.presets import Preset, preset
from search_space.space import Space
from search_space.written import Written
from storage.records import CandidateRecord


def space_of(recipe: Recipe) -> Space:
    """The space that a recipe searches."""
    section, size = recipe.space, preset(recipe.space.preset)
    written = tuple(_written(code, one, size) for code, one in section.written.items())
    return Space(section.primitives, *section.layers, size.name, section.options, written)


def _written(code: str, section: WrittenSection, size: Preset) -> Written:
    """A written primitive as agents know it."""
    title = (
        f"written mixer, candidate {section.candidate} of {Path(section.run).name}, not for [ | ]"
    )
    cost = cost_of(section.params, section.flops_per_token, section.state)
    return Written(code, title, identity(section.source), cost, size.width, size.length)


@lru_cache(maxsize=64)
def identity(source: str) -> str:
    """A hash of written code: of its syntax tree without layout, comments and names, if it has one."""
    return structure(source) or hashlib.sha256(source.encode()).hexdigest()


def composition(
    pattern: Pattern,
    preset_name: str,
    name: str | None = None,
    written: Sequence[Written] = (),
) -> CandidateRecord:
    """The candidate of a pattern at a preset. Its identity is the expanded layers and the preset's
    sizes, not its name or how it was written; a written primitive stands in it by its source, not by its
    code. Raises ValueError for options a primitive refuses."""
    size = preset(preset_name)
    space = Space((), 1, len(pattern), preset_name, written=tuple(written))
    cost = space.cost(pattern)
    named = _by_source(pattern, {one.code: one.identity for one in written})
    content = json.dumps(["composition", named.hash, sizes_of(size)], sort_keys=True)
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


def _by_source(pattern: Pattern, identities: dict[str, str]) -> Pattern:
    layers = (replace(x, code=identities.get(x.code, x.code)) for x in pattern.layers)
    return Pattern(tuple(layers))


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
    protocol = "script" if recipe.kind == "script" else "module"
    return f"{label}/{protocol}" if recipe.sandboxed else label


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
