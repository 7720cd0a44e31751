"""The workbench of agents' sessions: gate and probe in the sandbox, for files that are no candidates yet.

A probe is a sealed training like any, of a share of the recipe's, on data drawn for its session: what it
says is never a score, and the search's own held-out data stay unseen. It writes no ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from agents.workspace.workbench import FAIL, PASS, Report
from archwright.recipe import Recipe

if TYPE_CHECKING:
    from evaluator.outcome import Result
    from sandbox.gate import Certificate

# What needs torch is imported where it is used: the process of an agent that asks for nothing stays small.
SHOWN = 1_500  # characters of each finding
EXAMPLES, TOKENS = 2, 128  # of a task's training data that are shown, and of each at most
HEAD = (
    f"Training examples, the first {TOKENS} tokens of each at most. The label of a position is what its "
    "logits are to name; where it is -, nothing is asked."
)


@dataclass(frozen=True)
class SandboxedBench:
    """Examines and trains written modules under a recipe; an `agents.workspace.workbench.Workbench`."""

    recipe: Recipe

    @cached_property
    def material(self) -> Mapping[str, str]:
        return {"examples.txt": "\n\n".join([HEAD, *_examples(self.recipe)])}

    def check(self, files: Mapping[str, str]) -> None:
        from sandbox.workspace import Workspace

        Workspace(files)

    def gate(self, source: str) -> Report:
        """Raises SandboxError."""
        from archwright.written import examine

        try:
            found = examine(self.recipe, source)
        except ValueError as error:  # of what the file sets
            return Report(FAIL, str(error))
        return Report(PASS if found.verdict == PASS else FAIL, _findings(found))

    def probe(self, source: str, seed: int, seconds: float) -> Report:
        """Raises SandboxError."""
        from archwright import written
        from evaluator.rungs import shares

        recipe = self.recipe
        share = shares(max(2, recipe.rungs.count), recipe.rungs.eta)[0]
        try:
            written.module(source, recipe)
        except ValueError as error:  # of what the file sets
            return Report(FAIL, str(error))
        job = written.job_of(recipe, recipe.module.pattern, source, seed, sealed=False, rung=0)
        timeout = min(job.sealed.timeout, max(seconds, 1.0))
        result = written.evaluate(
            replace(job, sealed=replace(job.sealed, share=share, timeout=timeout))
        )
        return _outcome(result, f"{share} of the training, on data of this session")


def _findings(found: Certificate) -> str:
    """The rows of a certificate; without their seconds, which are another each time."""
    return "\n".join(f"{row.name}: {row.verdict}: {row.detail[:SHOWN]}" for row in found.rows)


def _outcome(result: Result, what: str) -> Report:
    if result.failure is not None:
        return Report(FAIL, f"{result.failure}: {result.detail[:SHOWN]}")
    scores = {m.name: m.value for m in result.metrics if m.name.endswith("score")}
    each = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
    return Report(PASS, f"after {what}: {each}. A rough score, of one seed; it does not count.")


def _examples(recipe: Recipe) -> list[str]:
    """Some of each task's training data, of a draw that no training has."""
    from evaluator.profiles import profile
    from evaluator.tasks.base import IGNORE

    found = []
    for name, task in profile(recipe.evaluation.profile).named(recipe.evaluation.tasks):
        split = replace(task, train_size=EXAMPLES).split("train", 0)
        for inputs, labels in zip(split.inputs, split.labels, strict=True):
            told = " ".join("-" if y == IGNORE else str(y) for y in labels[:TOKENS].tolist())
            read = " ".join(map(str, inputs[:TOKENS].tolist()))
            found.append(f"{name}\ninputs: {read}\nlabels: {told}")
    return found
