"""Profiles: which tasks at which sizes, trained how. Each is a fixed, named protocol.

`mad-mini` is reduced for CPUs and its scores are not MAD scores. `mad` is the proxy protocol of arXiv
2403.17844 at baseline settings. Presets (the model's size) are apart from profiles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from evaluator.tasks import MAD_TASKS, Task, mad_task
from evaluator.train import Training
from search_space.pattern import nearest


@dataclass(frozen=True)
class Profile:
    """A named protocol: tasks, training and one line on what its scores mean."""

    name: str
    tasks: tuple[Task, ...]
    training: Training
    note: str

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that change with anything that a score depends on."""
        content = json.dumps([[t.identity() for t in self.tasks], asdict(self.training)])
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    def narrow(self, names: Sequence[str]) -> Profile:
        """The profile with only the named tasks, in its own order; all of them for no names.

        Raises ValueError for a task it does not have.
        """
        known = [task.name for task in self.tasks]
        for name in names:
            if name not in known:
                raise ValueError(
                    f"profile {self.name} has no task {name!r}: the nearest are {nearest(name, known)}"
                )
        return replace(self, tasks=tuple(t for t in self.tasks if not names or t.name in names))


def _mini(name: str, **settings: int) -> Task:
    return mad_task(name, **{"train_size": 3200, "eval_size": 512, **settings})


_MINI = Profile(
    name="mad-mini",
    tasks=(
        _mini("in-context-recall", vocab=12, length=32),
        _mini("noisy-recall", vocab=16, noise_vocab=8, length=32),
        _mini("fuzzy-recall", vocab=9, length=32),
        _mini("selective-copying", vocab=16, length=32, tokens=6),
        _mini("compression", vocab=8, length=16),
        _mini("memorization", vocab=256, length=32, train_size=256),
    ),
    training=Training(steps=100, batch=32, lr=5e-3, schedule="cosine", warmup=10),
    note="reduced tasks and training for a CPU; these are not MAD scores",
)

_MAD = Profile(
    name="mad",
    tasks=tuple(mad_task(name) for name in MAD_TASKS),
    # 200 epochs of 800 examples in batches of 128; the published code keeps the rate constant.
    training=Training(steps=1250, batch=128, lr=5e-4),
    note="the six MAD tasks at baseline settings, 200 epochs, AdamW 5e-4, chosen on validation",
)

_SMOKE = Profile(
    name="smoke",
    tasks=(
        mad_task("compression", vocab=4, length=8, train_size=64, eval_size=64),
        mad_task("in-context-recall", vocab=4, length=8, train_size=64, eval_size=64),
    ),
    training=Training(steps=3, batch=16, lr=4e-3),
    note="milliseconds, to see that everything runs; the scores mean nothing",
)

PROFILES = {profile.name: profile for profile in (_MINI, _MAD, _SMOKE)}


def profile(name: str) -> Profile:
    """The profile of that name. Raises ValueError naming the nearest."""
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}: the nearest are {nearest(name, PROFILES)}")
    return PROFILES[name]
