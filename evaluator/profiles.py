"""Profiles: which tasks at which sizes, trained how. Each is a fixed, named protocol.

The `-mini` ones are reduced for CPUs, and their scores are not those of the benchmarks they are named
after; nor are those of `lra-standins`. `text` and `text-mini` take a corpus after a colon: `text:kjv`,
`text:/path/to/corpus`. Presets (the model's size) are apart from profiles. Nothing here reads data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace

from evaluator.tasks import (
    MAD_TASKS,
    ListOps,
    LraImage,
    LraPathfinder,
    LraRetrieval,
    LraText,
    Mqar,
    Task,
    Text,
    mad_task,
)
from evaluator.tasks.mad import mad_grid
from evaluator.train import Training
from search_space.pattern import nearest


@dataclass(frozen=True)
class Profile:
    """A named protocol: tasks, training and one line on what its scores mean.

    With a ``sweep``, each task is trained in every one of its ways in place of ``training``, and the
    best on validation counts. Raises ValueError for settings that cannot be meant.
    """

    name: str
    tasks: tuple[Task, ...]
    training: Training
    note: str
    sweep: tuple[Training, ...] = ()

    def __post_init__(self) -> None:
        for what, them in (("task", self.tasks), ("training of the sweep", self.sweep)):
            twice = next((one for i, one in enumerate(them) if one in them[:i]), None)
            if twice is not None:
                raise ValueError(
                    f"profile {self.name}: a {what} must occur once, not twice: {twice}"
                )
        if not self.tasks:
            raise ValueError(f"profile {self.name}: it must have a task, not none; name one.")

    @property
    def fingerprint(self) -> str:
        """Eight hex digits that change with anything that a score depends on, a corpus included.

        Raises ValueError like `check`.
        """
        trainings = [asdict(training) for training in self.trainings]
        content = json.dumps([[t.identity() for t in self.tasks], trainings])
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    @property
    def trainings(self) -> tuple[Training, ...]:
        """The ways to train: the sweep, or the one training."""
        return self.sweep or (self.training,)

    def named(self, names: Sequence[str] = ()) -> list[tuple[str, Task]]:
        """The tasks with their labels, in the profile's order; only those named, unless none is.

        A label is the task's name. Where several settings of a task have that name, it is followed by
        what sets this one apart from the first: `mqar:baseline`, `mqar:length=128,pairs=8`. A name
        means all of its settings. Raises ValueError for a name that is neither.
        """
        labelled = list(self._labelled())
        known = list(dict.fromkeys(key for label, task in labelled for key in (task.name, label)))
        for name in names:
            if name not in known:
                raise ValueError(
                    f"profile {self.name} has no task {name!r}: the nearest are {nearest(name, known)}"
                )
        return [(x, t) for x, t in labelled if not names or x in names or t.name in names]

    def narrow(self, names: Sequence[str]) -> Profile:
        """The profile with only the named tasks, as `named` has them.

        Labels may change with it. Raises ValueError.
        """
        return replace(self, tasks=tuple(task for _, task in self.named(names)))

    def on(self, corpus: str) -> Profile:
        """The profile with another corpus. Raises ValueError where its tasks read none."""
        tasks = tuple(replace(t, corpus=corpus) for t in self.tasks if isinstance(t, Text))
        if len(tasks) < len(self.tasks):
            raise ValueError(
                f"profile {self.name}: only text profiles take a corpus, not {corpus!r}; "
                f"leave it out, or use text:{corpus}."
            )
        return replace(self, name=f"{self.name}:{corpus}", tasks=tasks)

    def shortened(self, steps: int, rows: int) -> Profile:
        """The same with at most so many steps and examples a split, for tests and dry runs.

        Settings that differed in their examples alone become one.
        """
        shorter = [
            replace(x, steps=min(x.steps or steps, steps), epochs=0, warmup=0)
            for x in (self.training, *self.sweep)
        ]
        tasks = tuple(
            replace(t, train_size=min(t.train_size, rows), eval_size=min(t.eval_size, rows))
            for t in self.tasks
        )
        tasks = tuple(dict.fromkeys(tasks))
        return replace(self, tasks=tasks, training=shorter[0], sweep=tuple(shorter[1:]))

    def check(self) -> None:
        """Read the data of each task that does not generate its own. Raises ValueError."""
        for task in self.tasks:
            task.provenance()

    def _labelled(self) -> Iterator[tuple[str, Task]]:
        names = [task.name for task in self.tasks]
        for task in self.tasks:
            first = self.tasks[names.index(task.name)]
            if names.count(task.name) == 1:
                yield task.name, task
            else:
                yield f"{task.name}:{difference(task, first) or 'baseline'}", task


def difference(task: Task, other: Task) -> str:
    """The settings of ``task`` that are not those of ``other``, of the same class: `a=1,b=2`."""
    values = ((f.name, getattr(task, f.name)) for f in fields(task))
    return ",".join(f"{key}={value}" for key, value in values if value != getattr(other, key))


def _mini(name: str, **settings: int) -> Task:
    return mad_task(name, **{"train_size": 3200, "eval_size": 512, **settings})


def _midi(name: str, **settings: int) -> Task:
    return mad_task(name, **{"train_size": 16_000, "eval_size": 512, **settings})


_MAD_MINI = Profile(
    name="mad-mini",
    tasks=(
        _mini("in-context-recall", vocab=12, length=32),
        _mini("noisy-recall", vocab=16, noise_vocab=8, length=32),
        _mini("fuzzy-recall", vocab=9, length=32),
        _mini("selective-copying", vocab=16, length=32, tokens=6),
        _mini("compression", vocab=8, length=16),
        _mini("memorization", vocab=256, length=32, train_size=256),
    ),
    training=Training(steps=100, batch=32, lr=5e-3, schedule="cosine", warmup=10, dtype="bf16"),
    note="reduced tasks and training for a CPU; these are not MAD scores",
)

_MAD_MIDI = Profile(
    name="mad-midi",
    tasks=(
        _midi("in-context-recall", vocab=16, length=64),
        _midi("noisy-recall", vocab=24, noise_vocab=8, length=64),
        _midi("fuzzy-recall", vocab=12, length=64),
        _midi("selective-copying", vocab=16, length=64, tokens=12),
        _midi("compression", vocab=12, length=32),
        _midi("memorization", vocab=256, length=32, train_size=256),
    ),
    training=Training(steps=500, batch=32, lr=3e-3, schedule="cosine", warmup=50, dtype="bf16"),
    note="twice the length and five times the steps of mad-mini, which it checks; not MAD scores",
)

_MAD = Profile(
    name="mad",
    tasks=tuple(mad_task(name) for name in MAD_TASKS),
    # 200 epochs of 800 examples in batches of 128; the published code keeps the rate constant.
    training=Training(steps=1250, batch=128, lr=5e-4, dtype="bf16"),
    note="the six MAD tasks at baseline settings, 200 epochs, AdamW 5e-4, chosen on validation",
)

_GRID_TRAINING = Training(steps=0, epochs=200, batch=128, lr=5e-4, dtype="bf16")

_MAD_GRID = Profile(
    name="mad-grid",
    tasks=mad_grid(),
    training=_GRID_TRAINING,
    sweep=tuple(
        replace(_GRID_TRAINING, lr=lr, weight_decay=decay)
        for lr in (1e-4, 5e-4, 1e-3)
        for decay in (0.0, 0.1)
    ),
    note="all 66 MAD settings, each the best of six trainings on validation: 396 trainings",
)

# Zoology's figure 2: four rates from 1e-4 to 1e-2 and 64 epochs; its batches are of 512 at length 64
# and 128, and of 256 at 256, its rate falls by a cosine. The paper also has (512, 64).
_MQAR_TRAINING = Training(
    steps=0, epochs=64, batch=256, lr=1e-3, weight_decay=0.1, schedule="cosine"
)

_MQAR = Profile(
    name="mqar",
    tasks=tuple(
        Mqar(length=length, pairs=pairs)
        for length, pairs in ((64, 4), (128, 8), (256, 16), (512, 64))
    ),
    training=_MQAR_TRAINING,
    sweep=tuple(replace(_MQAR_TRAINING, lr=10 ** (-4 + 2 * i / 3)) for i in range(4)),
    note="MQAR at the paper's four lengths, each the best of four learning rates on validation",
)

_MQAR_MINI = Profile(
    name="mqar-mini",
    tasks=(Mqar(vocab=32, length=32, pairs=8, train_size=12_800, eval_size=512),),
    training=Training(steps=400, batch=32, lr=4e-3, schedule="cosine", warmup=20),
    note="MQAR with 32 ids and 8 pairs for a CPU; these are not MQAR scores",
)

_TEXT = Profile(
    name="text",
    tasks=(Text(),),
    training=Training(
        steps=1000, batch=32, lr=1e-3, weight_decay=0.1, schedule="cosine", warmup=100
    ),
    note="bytes of a corpus in windows of 256; the score is the share of 8 bits a byte that is saved",
)

_TEXT_MINI = Profile(
    name="text-mini",
    tasks=(Text(length=64, train_size=4096, eval_size=256),),
    training=Training(steps=200, batch=32, lr=4e-3, weight_decay=0.1, schedule="cosine", warmup=20),
    note="bytes of a corpus in windows of 64, for a CPU; not comparable with longer windows",
)


def _lra(name: str, task: Task, training: Training, note: str = "") -> Profile:
    """Length of training, batch and weight decay are the authors', and the images' learning rates."""
    return Profile(name, (task,), training, f"Long Range Arena, a causal model, mean pooling{note}")


_SLOW = Training(steps=5000, batch=32, lr=1e-3, weight_decay=0.1, schedule="cosine", warmup=500)

_LRA = (
    _lra("lra-listops", ListOps(), _SLOW),
    _lra("lra-text", LraText(), replace(_SLOW, steps=20_000)),
    _lra("lra-retrieval", LraRetrieval(), _SLOW, "; one sequence a pair, so no published scores"),
    _lra(
        "lra-image",
        LraImage(),
        Training(steps=0, epochs=200, batch=256, lr=5e-4, schedule="cosine"),
    ),
    _lra(
        "lra-pathfinder",
        LraPathfinder(),
        Training(steps=0, epochs=200, batch=512, lr=1e-3, schedule="cosine"),
    ),
)

_LISTOPS_MINI = Profile(
    name="lra-listops-mini",
    tasks=(
        ListOps(length=64, shortest=16, max_depth=4, max_args=5, train_size=9600, eval_size=1000),
    ),
    training=Training(steps=300, batch=32, lr=2e-3, schedule="cosine", warmup=20),
    note="ListOps of 17 to 63 tokens for a CPU; these are not Long Range Arena scores",
)

_LISTOPS_SMOKE = Profile(
    name="lra-listops-smoke",
    tasks=(ListOps(length=32, shortest=8, max_depth=3, max_args=4, train_size=256, eval_size=128),),
    training=Training(steps=3, batch=16, lr=4e-3),
    note="as lra-listops-mini, within a second, to see that it runs; the scores mean nothing",
)

_STANDINS = Profile(
    name="lra-standins",
    tasks=(
        LraText(standin=True, length=160, train_size=640, eval_size=128),
        LraRetrieval(standin=True, length=64, train_size=640, eval_size=128),
        LraImage(standin=True, length=256, train_size=640, eval_size=128),
        LraPathfinder(standin=True, length=256, train_size=640, eval_size=128),
    ),
    training=Training(steps=40, batch=16, lr=2e-3, schedule="cosine", warmup=5),
    note="generated stand-ins, to try the machinery; not the data of the Long Range Arena",
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

PROFILES = {
    profile.name: profile
    for profile in (
        _MAD_MINI,
        _MAD_MIDI,
        _MAD,
        _MAD_GRID,
        _MQAR,
        _MQAR_MINI,
        _TEXT,
        _TEXT_MINI,
        *_LRA,
        _LISTOPS_MINI,
        _LISTOPS_SMOKE,
        _STANDINS,
        _SMOKE,
    )
}


def profile(name: str) -> Profile:
    """The profile of that name; a text profile's may end in a colon and a corpus.

    Raises ValueError naming the nearest.
    """
    base, _, corpus = name.partition(":")
    if base not in PROFILES:
        raise ValueError(f"unknown profile {name!r}: the nearest are {nearest(name, PROFILES)}")
    return PROFILES[base].on(corpus) if corpus else PROFILES[base]
