"""Training scripts: the candidate of a source, what agents are told, and the task that a worker runs.

Which script runs again and who has not been beaten is `archwright.incumbents`'. It decides nothing about
candidates and knows no ledger.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import sandbox.script
from agents.proposers import Writing
from archwright.recipe import Recipe, RecipeError
from archwright.written import LARGEST, Judged, sandboxed
from evaluator.tasks.text import NAMED
from sandbox.gate.copies import structure
from sandbox.paths import exposed
from sandbox.script import FILE
from sandbox.script_scoring import ScriptJob, task_of
from sandbox.script_scoring import evaluate as score
from storage.records import CandidateRecord, CertificateRecord

BASELINE = Path(__file__).with_name("baseline_train.py")


@dataclass(frozen=True)
class Job:
    """What to do with a script, and the lowest isolation level that will do."""

    script: ScriptJob
    require: str
    unsafe: bool


def baseline_of(recipe: Recipe) -> str:
    """The source that the campaign starts from: the recipe's file or text, else the shipped one.

    Raises RecipeError for a file that cannot be read.
    """
    given = recipe.script.baseline
    if given is not None and "\n" in given:
        return given
    path = BASELINE if given is None else Path(given)
    try:
        return path.read_text()
    except (OSError, UnicodeError) as error:
        raise RecipeError(
            f"script.baseline {path}: it cannot be read ({error}): name a {FILE}"
        ) from error


def candidate(source: str | None, recipe: Recipe, name: str | None = None) -> CandidateRecord:
    """The candidate of a source, which is its syntax tree without layout, comments and names. Raises
    ValueError. Its parameters are counted when it has been trained."""
    if source is None or not 0 < len(source) <= LARGEST or "\0" in source:
        raise ValueError(f"kind: script needs {FILE} as text of up to {LARGEST:,} characters")
    text = structure(source) or hashlib.sha256(source.encode()).hexdigest()
    digest = hashlib.sha256(json.dumps(["script", text]).encode()).hexdigest()
    name = name or f"script-{digest[:8]}"
    return CandidateRecord(digest, "script", FILE, "", 0, 0.0, 0, name=name, source=source)


def writing(recipe: Recipe) -> Writing:
    """The file that agents write, and what they are told of it."""
    section, (_, task) = recipe.script, task_of(recipe.evaluation.profile)
    rules = (
        f"{sandbox.script.__doc__}\nHere length is {task.length}, the time {section.seconds:g} seconds and "
        f"the limit {section.max_params:,} parameters and buffers."
    )
    return Writing(FILE, rules, baseline_of(recipe))


def goal(recipe: Recipe) -> str:
    """The task and the budget in a few sentences, for models."""
    section, (_, task) = recipe.script, task_of(recipe.evaluation.profile)
    size = len(task.training_text(0))
    return (
        f"Task: after {section.seconds:g} seconds of training on {size:,} bytes of text, predict the next "
        f"byte of other parts of it in windows of {task.length}. The score is the share of 8 bits a byte "
        f"that is saved: 1 - bits per byte / 8. The search measures {recipe.budget.evaluations} scripts; one "
        f"that looks better than the best runs {section.repeats} times more, and replaces it if that is "
        "beyond the noise."
    )


def job_of(recipe: Recipe, source: str | None, seed: int, sealed: bool) -> Job:
    """The evaluation of a script under a recipe of kind `script`."""
    section = recipe.script
    work = ScriptJob(
        source=source or "",
        profile=recipe.evaluation.profile,
        seconds=section.seconds,
        max_params=section.max_params,
        seed=seed,
        salt=section.salt or 0,
        sealed=sealed,
    )
    return Job(work, section.require_sandbox, section.unsafe_sandbox)


def evaluate(job: Job) -> Judged:
    """Train once, audit and score, all in the sandbox; a script's own fault is a typed failure.

    Raises SandboxError for a fault of the sandbox, which is infrastructure's.
    """
    with sandboxed(job.require, job.unsafe) as sandbox:
        result = score(job.script, sandbox)
    label, task = task_of(job.script.profile)
    facts = (
        ("sandbox", sandbox.level),
        *((f"{label}/{k}", v) for k, v in task.provenance().items()),
    )
    params = next((int(m.value) for m in result.metrics if m.name == f"{label}/params"), None)
    record = None if params is None else CertificateRecord((), {"params": params}, params)
    parts = result.metrics, result.spent, result.failure, result.detail, facts
    return Judged(*parts, certificate=record)


def check(recipe: Recipe) -> None:
    """Raise ValueError for what a recipe of kind `script` cannot have."""
    _, task = task_of(recipe.evaluation.profile)
    candidate(baseline_of(recipe), recipe)
    if task.corpus not in NAMED and exposed(Path(task.corpus)):
        raise ValueError(
            f"corpus {task.corpus}: a script could read it where it is, held-out parts and all: move it out "
            "of the folders of programs"
        )
    if recipe.rungs.count > 1:
        raise ValueError(
            "rungs.count: a script's time is its own, there are no rungs: leave it at 1"
        )
    if recipe.references.patterns:
        raise ValueError(
            "references.patterns: scripts are compared with script.baseline: leave it out"
        )
    if recipe.references.seeds < 2:
        raise ValueError(
            "references.seeds: one run of the baseline shows no noise: give at least 2"
        )
