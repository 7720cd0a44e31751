"""Toys that judge a mixer within a second: one that every mixer learns, and one that none can.

Tasks as any other (`evaluator.tasks`), and the smallest model round a mixer; they train nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from evaluator.tasks.base import IGNORE, Split, SplitName, Task
from search_space.presets import Preset

TOY = Preset("toy", 32, 2, 12, {"M": {"ratio": 2.0}})
PATTERN = "X+M"


@dataclass(frozen=True, kw_only=True)
class OneSeen(Task):
    """Rows of blanks (id 0) with one other id at a random place, which is the label from there on.

    The place itself is not scored, so without earlier tokens nothing beats `chance`.
    """

    name: str = field(default="one-seen", init=False)
    vocab: int = 9
    length: int = 12
    train_size: int = 1024
    eval_size: int = 256

    @property
    def chance(self) -> float:
        """The loss, in nats, that knows only which ids there are."""
        return math.log(self.vocab - 1)

    def _draw(self, which: SplitName, rows: int, generator: torch.Generator) -> Split:
        ids = torch.randint(1, self.vocab, (rows, 1), generator=generator)
        place = torch.randint(self.length - 1, (rows, 1), generator=generator)
        position = torch.arange(self.length)
        inputs = torch.where(position == place, ids, 0)
        return Split(inputs, torch.where(position > place, ids, IGNORE))


@dataclass(frozen=True, kw_only=True)
class Noise(Task):
    """Uniform random ids, the label of each the one after it: a loss below `chance` is proof of a leak."""

    name: str = field(default="noise", init=False)
    vocab: int = 8
    length: int = 12
    train_size: int = 1024
    eval_size: int = 512

    @property
    def chance(self) -> float:
        """The loss, in nats, of whoever knows nothing: the least that an honest model can expect."""
        return math.log(self.vocab)

    def _draw(self, which: SplitName, rows: int, generator: torch.Generator) -> Split:
        tokens = torch.randint(self.vocab, (rows, self.length + 1), generator=generator)
        return Split(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
