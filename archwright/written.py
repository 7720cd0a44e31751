"""Written modules: canonical form and content hash, and the task that a worker runs: the gate, then sealed
scoring in the sandbox.

Where candidates may hold written code, as modules or by primitives of earlier runs, the catalogue's own
patterns run under the same protocol. The sandbox is the worker's own and stays warm between tasks. It
decides nothing about candidates and knows no ledger.
"""

from __future__ import annotations

import atexit
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

from archwright.candidates import identity, sizes_of
from archwright.recipe import Recipe, RecipeError
from evaluator.outcome import FailureKind, Result, Spent
from evaluator.profiles import profile
from evaluator.rungs import shares
from sandbox.contract import CODE, FILE
from sandbox.gate import Budget, Certificate, Known, Terms, certify
from sandbox.gate.copies import catalogue
from sandbox.run import Sandbox, SandboxError
from sandbox.scoring import Sealed
from sandbox.scoring import evaluate as score
from sandbox.settings import Settings, unit
from sandbox.settings import read as settings_of
from search_space.model import layer_cost, pattern_cost
from search_space.pattern import Layer, Pattern
from search_space.presets import Preset, preset
from search_space.primitives import CATALOGUE, Cost
from search_space.written import Written
from search_space.written import catalogue as beside
from storage.records import CandidateRecord, CertificateRecord

DEFAULT = Settings()
LARGEST = 1 << 18  # characters of a source
NO_LIMIT = 24 * 3600.0  # seconds of training where the recipe sets none
NOTHING = Cost(0, 0.0, 0, 0.0, 0)


@dataclass(frozen=True)
class Job:
    """What to do with a candidate; with ``terms`` it must pass the gate first."""

    sealed: Sealed
    require: str
    unsafe: bool
    terms: Terms | None = None


@dataclass(frozen=True)
class Judged(Result):
    """A result with the certificate, where the gate was asked."""

    certificate: CertificateRecord | None = field(default=None)


# ------------------------------------------------------------------------------------ the candidate


def pattern_of(text: str) -> Pattern:
    """The pattern of a written mixer, which is its `X`. Raises ValueError."""
    pattern = Pattern.parse(text, (*CATALOGUE, CODE))
    if CODE not in {layer.code for layer in pattern.layers}:
        raise ValueError(f"module.pattern {text!r} has no {CODE}, the written mixer: write 3(X+M)")
    return pattern


def module(source: str | None, recipe: Recipe) -> CandidateRecord:
    """The candidate of a source in the recipe's pattern. Its identity is the source's syntax tree without
    layout, comments and names, the pattern, the preset's sizes, and what it sets. Raises ValueError."""
    if source is None or not 0 < len(source) <= LARGEST or "\0" in source:
        raise ValueError(f"kind: module needs {FILE} as text of up to {LARGEST:,} characters")
    settings = settings_of(source)
    allowance(recipe, settings)
    pattern = settings.pattern(pattern_of(recipe.module.pattern))
    size = preset(recipe.space.preset)
    parts = ["module", identity(source), pattern.hash, sizes_of(size), settings.given]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    name = f"mixer-{digest[:8]} {settings}".rstrip()
    return CandidateRecord(
        digest, "module", str(pattern), size.name, 0, 0.0, 0, name=name, source=source
    )


def cost_in(pattern: Pattern, size: Preset, cost: Cost) -> Cost:
    """What a pattern costs whose `X` costs this. Raises ValueError for an `X` within a fusion."""
    mixer = Written(CODE, "written mixer", "", cost, size.width, size.length)
    return pattern_cost(pattern, size, catalogue=beside([mixer]))


def allowance(recipe: Recipe, settings: Settings) -> Budget:
    """What each mixer may cost, so that the whole model costs no more than the recipe's: that of its pattern
    and preset with mixers of `module.budget` layers of attention.

    Raises ValueError for settings that the recipe does not allow, or that leave nothing for a mixer.
    """
    if recipe.module.mode == "fixed" and settings.given:
        raise ValueError(f"SETTINGS ({settings}) where module.mode is fixed: take them out")
    pattern, size = pattern_of(recipe.module.pattern), preset(recipe.space.preset)
    attention, layers = layer_cost(Layer("A"), size), recipe.module.budget
    most = int(layers * attention.params), layers * attention.flops_per_token
    whole = cost_in(pattern, size, replace(NOTHING, params=most[0], flops_per_token=most[1]))
    pattern, size = settings.pattern(pattern), settings.size(size)
    rest, mixers = cost_in(pattern, size, NOTHING), [x for x in pattern.layers if x.code == CODE]
    params = (whole.params - rest.params) // len({layer.weights for layer in mixers})
    flops = (whole.flops_per_token - rest.flops_per_token) / len(mixers)
    if params <= 0 or flops <= 0:
        raise ValueError(
            f"SETTINGS ({settings}): {pattern} at width {size.width} is over the recipe's budget without "
            "a mixer: take a smaller depth or width"
        )
    return Budget(size.width, size.length, params, flops)


def standard(recipe: Recipe) -> dict[str, Any]:
    """What a recipe trains with where a file sets nothing. Raises ValueError as `unit` does."""
    pattern = pattern_of(recipe.module.pattern)
    training, depth = (
        profile(recipe.evaluation.profile).training,
        len(pattern) // len(unit(pattern)),
    )
    return {"lr": training.lr, "depth": depth, "width": preset(recipe.space.preset).width}


# ----------------------------------------------------------------------------------------- the job


def job_of(
    recipe: Recipe,
    pattern: str,
    source: str | None,
    seed: int,
    sealed: bool,
    rung: int,
    terms: Terms | None = None,
) -> Job:
    """The evaluation of a candidate in the sandbox: of a written module with its source, at the depth that it
    sets, or of a pattern, which may hold the space's written primitives."""
    settings, section, chosen = settings_of(source or ""), recipe.evaluation, recipe.module
    share: Fraction = shares(recipe.rungs.count, recipe.rungs.eta)[rung]
    codes = {layer.code for layer in Pattern.parse(pattern).layers}
    known = {code: one.source for code, one in recipe.space.written.items()}
    known |= {} if source is None else {CODE: source}
    work = Sealed(
        sources={code: known[code] for code in known if code in codes},
        pattern=str(settings.pattern(Pattern.parse(pattern))),
        preset=recipe.space.preset,
        profile=section.profile,
        seed=seed,
        salt=chosen.salt or 0,
        tasks=section.tasks,
        sealed=sealed,
        timeout=section.timeout_seconds or NO_LIMIT,
        share=share,
        settings=settings,
    )
    return Job(work, chosen.require_sandbox, chosen.unsafe_sandbox, terms)


def terms_of(recipe: Recipe, known: Sequence[Known], settings: Settings = DEFAULT) -> Terms:
    """What the gate asks: cost class, budget, none of the known mixers. Raises ValueError as `allowance`."""
    chosen = recipe.module
    return Terms(
        max_cost=chosen.max_cost,
        budget=allowance(recipe, settings),
        known=tuple(known),
        seconds=chosen.gate_seconds,
    )


def known_as(name: str, prints: dict[str, Any]) -> Known:
    """A candidate that the gate has seen, by what the ledger kept of it."""
    return Known(name, prints.get("structure", ""), tuple(prints.get("behaviour", ())))


# ---------------------------------------------------------------------------------------- the task


def evaluate(job: Job) -> Judged:
    """The gate where it is asked for, then training and scoring, all in the sandbox.

    A candidate's fault is a typed failure, the gate's with the checks that failed. Raises SandboxError
    for a fault of the sandbox, which is infrastructure's.
    """
    with sandboxed(job.require, job.unsafe) as sandbox:
        return _judged(job, sandbox)


def examine(recipe: Recipe, source: str, known: Sequence[Known] = ()) -> Certificate:
    """The gate's certificate of a source that is no candidate yet. Raises SandboxError, and
    ValueError for what it sets."""
    section, terms = recipe.module, terms_of(recipe, known, settings_of(source))
    with sandboxed(section.require_sandbox, section.unsafe_sandbox) as sandbox:
        return certify(source, sandbox, _beside_the_catalogue(terms))


@contextmanager
def sandboxed(require: str, unsafe: bool) -> Iterator[Sandbox]:
    """This process's sandbox; after a fault of it the next task starts another. Raises SandboxError."""
    try:
        yield _sandbox(require, unsafe)
    except SandboxError:
        _sandbox.cache_clear()
        raise


def _judged(job: Job, sandbox: Sandbox) -> Judged:
    facts, record = (("sandbox", sandbox.level), *_facts(job.sealed)), None
    if job.terms is not None:
        found = certify(job.sealed.sources[CODE], sandbox, _beside_the_catalogue(job.terms))
        record = record_of(found, _whole(found, job.sealed))
        if found.verdict == "fail":
            spent = Spent(seconds=sum(row.seconds for row in found.rows))
            return Judged((), spent, FailureKind.GATE, complaint(found), facts, certificate=record)
    result = score(job.sealed, sandbox)
    return Judged(
        result.metrics, result.spent, result.failure, result.detail, facts, certificate=record
    )


def complaint(found: Certificate) -> str:
    """The checks that failed, each with what it found."""
    return "; ".join(f"{r.name}: {r.detail}" for r in found.rows if r.verdict == "fail")


def _facts(job: Sealed) -> tuple[tuple[str, str], ...]:
    tasks = profile(job.profile).named(job.tasks)
    return tuple((f"{n}/{k}", v) for n, task in tasks for k, v in task.provenance().items())


def _beside_the_catalogue(terms: Terms) -> Terms:
    """The terms with the catalogue among what is known."""
    return replace(terms, known=(*catalogue(), *terms.known))


def record_of(found: Certificate, cost: Cost | None) -> CertificateRecord:
    """A certificate as the ledger keeps it, with what its candidate costs, if that was measured."""
    rows = tuple((r.name, r.verdict, r.detail, r.seconds) for r in found.rows)
    prints = {"structure": found.structure, "behaviour": found.behaviour, "level": found.level}
    costs = () if cost is None else (cost.params, cost.flops_per_token)
    return CertificateRecord(rows, prints, *costs)


def _whole(found: Certificate, job: Sealed) -> Cost | None:
    """What the mixer's pattern costs."""
    pattern, size = pattern_of(job.pattern), job.settings.size(preset(job.preset))
    return found.cost and cost_in(pattern, size, found.cost)


@lru_cache(maxsize=1)
def _sandbox(require: str, unsafe: bool) -> Sandbox:
    """This process's own sandbox, for as long as it lives. Raises SandboxError."""
    sandbox = Sandbox(require=require, unsafe=unsafe)
    atexit.register(sandbox.close)
    return sandbox


# ----------------------------------------------------------------------------------------- checks


def check(recipe: Recipe) -> None:
    """Raise ValueError for what a recipe with written code cannot have."""
    chosen = profile(recipe.evaluation.profile)
    if chosen.sweep:
        raise ValueError(
            f"evaluation.profile {chosen.name} trains in several ways, written code in one: choose "
            "another, such as mad"
        )
    if recipe.kind == "module":
        _check_modules(recipe)


def _check_modules(recipe: Recipe) -> None:
    if recipe.space.written:
        raise RecipeError(
            f"space.primitives: kind: module takes no {', '.join(recipe.space.written)} of an earlier run, "
            "only kind: composition does: leave it out"
        )
    try:
        cost_in(pattern_of(recipe.module.pattern), preset(recipe.space.preset), NOTHING)
    except ValueError as error:
        raise ValueError(f"module.pattern {recipe.module.pattern}: {error}") from error
    if recipe.module.mode == "configurable":
        unit(pattern_of(recipe.module.pattern))


def environment(recipe: Recipe) -> dict[str, str]:
    """The isolation level that holds here, for the ledger; nothing where no written code will run.

    Raises ValueError where none does that is good enough.
    """
    if not recipe.sandboxed:
        return {}
    return {"sandbox": _level(recipe.sandbox.require_sandbox, recipe.sandbox.unsafe_sandbox)}


@lru_cache(maxsize=1)  # to prove a level is to start a sandbox, seconds
def _level(require: str, unsafe: bool) -> str:
    try:
        with Sandbox(require=require, unsafe=unsafe) as sandbox:
            return sandbox.level
    except SandboxError as error:
        raise ValueError(f"no sandbox to run written code in: {error}") from error
