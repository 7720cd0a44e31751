"""Check 11: a few dozen steps teach it to recall what it saw, which without mixing tokens nobody can.

Scored as all written code is (`sandbox.scoring`): weights from one process, logits from another, and the
audit of prefixes, so that a module which starts to leak in training is caught here already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from evaluator.outcome import CandidateFailure
from evaluator.tasks.base import IGNORE, Split, SplitName, Task
from evaluator.train import Training
from sandbox.gate.certificate import Finding
from sandbox.gate.passes import mixes
from sandbox.gate.subject import Subject
from sandbox.scoring import Candidate, Seeds
from sandbox.training import Proxy
from search_space.presets import Preset

TOY = Preset("toy", 32, 2, 12, {"M": {"ratio": 2.0}})
PATTERN = "X+M"
TRAINING = Training(steps=60, batch=32, lr=1e-2, warmup=5)
SECONDS = 30.0  # for the training, at most
BETTER = 0.1  # nats below the best that a model can do that mixes no tokens (docs/log.md)


@dataclass(frozen=True, kw_only=True)
class OneSeen(Task):
    """Rows of blanks (id 0) with one other id at a random place, which is the label from there on.

    The place itself is not scored, so without earlier tokens nothing beats chance among the ids.
    """

    name: str = field(default="one-seen", init=False)
    vocab: int = 9
    length: int = 12
    train_size: int = 1024
    eval_size: int = 256

    def _draw(self, which: SplitName, rows: int, generator: torch.Generator) -> Split:
        ids = torch.randint(1, self.vocab, (rows, 1), generator=generator)
        place = torch.randint(self.length - 1, (rows, 1), generator=generator)
        position = torch.arange(self.length)
        inputs = torch.where(position == place, ids, 0)
        return Split(inputs, torch.where(position > place, ids, IGNORE))


def check(subject: Subject) -> Finding:
    """Pass where the loss beats chance; skip for a module that mixes no tokens. Raises Broken."""
    if not mixes(subject):
        return Finding(
            "skip", "no output depends on an earlier token: it has nothing to recall with"
        )
    task = OneSeen()
    candidate = Candidate(subject.source, Proxy(PATTERN, TOY, task), subject.sandbox, SECONDS)
    seeds = Seeds.of(subject.seed, salt=subject.seed)
    try:
        found, _ = candidate.measure(TRAINING, seeds, "validation")
    except CandidateFailure as failure:
        return Finding("fail", f"trained on a toy: {failure}")
    chance = math.log(task.vocab - 1)
    said = (
        f"loss {found['loss']:.2f} after {TRAINING.steps} steps, {chance:.2f} without mixing; accuracy "
        f"{found['accuracy']:.2f}; prefixes of the trained model within {found['prefix_deviation']:.1e}"
    )
    if not found["loss"] < chance - BETTER:
        return Finding("fail", f"{said}: it does not learn to carry one token forward")
    return Finding("pass", said)
