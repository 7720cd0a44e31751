"""Check 11: a few dozen steps teach it to recall what it saw, which without mixing tokens nobody can.

Scored as all written code is (`sandbox.scoring`): weights from one process, logits from another, and the
audit of prefixes, so that a module which starts to leak in training is caught here already.
"""

from __future__ import annotations

from evaluator.outcome import CandidateFailure
from evaluator.train import Training
from sandbox.contract import CODE
from sandbox.gate.certificate import Finding
from sandbox.gate.passes import mixes
from sandbox.gate.subject import Subject
from sandbox.scoring import Candidate, Seeds
from sandbox.toys import PATTERN, TOY, OneSeen
from sandbox.training import Proxy

TRAINING = Training(steps=80, batch=32, lr=1e-2, warmup=5)
SECONDS = 30.0  # for the training, at most
# Nats below the best that a model can do that mixes no tokens. On 256 rows luck makes a hundredth of it; the
# slowest of 200 honest modules was .3 below after 60 steps (docs/log.md).
BETTER = 0.05


def check(subject: Subject) -> Finding:
    """Pass where the loss beats chance; skip for a module that mixes no tokens. Raises Broken."""
    if not mixes(subject):
        return Finding(
            "skip", "no output depends on an earlier token: it has nothing to recall with"
        )
    task = OneSeen()
    proxy, sources = Proxy(PATTERN, TOY, task), {CODE: subject.source}
    candidate = Candidate(sources, proxy, subject.sandbox, SECONDS)
    seeds = Seeds.of(subject.seed, salt=subject.seed)
    try:
        found, _ = candidate.measure(TRAINING, seeds, "validation")
    except CandidateFailure as failure:
        return Finding("fail", f"trained on a toy: {failure}")
    said = (
        f"loss {found['loss']:.2f} after {TRAINING.steps} steps, {task.chance:.2f} without mixing; accuracy "
        f"{found['accuracy']:.2f}; prefixes of the trained model within {found['prefix_deviation']:.1e}"
    )
    if not found["loss"] < task.chance - BETTER:
        return Finding("fail", f"{said}: it does not learn to carry one token forward")
    return Finding("pass", said)
