"""Multi-query associative recall, MQAR (Arora et al. 2023, arXiv 2312.04927).

All rows are drawn at once. It does not train or score. The rules are those of the authors' code
(HazyResearch/zoology, `multiquery_ar`), the bytes are ours; where paper and code leave a choice, the
settings behind the paper's figure 2 are the defaults. Published scores are the best of four learning
rates by test accuracy; our profiles choose on validation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from evaluator.tasks.base import IGNORE, Split, SplitName, Task
from evaluator.tasks.mad import first_equal


@dataclass(frozen=True, kw_only=True)
class Mqar(Task):
    """Recall the values of all `pairs` keys, each asked once, in one sequence.

    First `pairs` (key, value) pairs, keys without replacement from ids 1 to `vocab` // 2 - 1 and
    values from the ids above. Each key stands once more, alone, at an even distance from there: at
    twice a gap, where the gaps of a row are drawn without replacement, key by key, with the chance of
    gap i (from 0) proportional to (i + 1) ** (`power` - 1). The label at that place is its value.
    All other places hold id 0, or uniform ids where `random_filler` is set. Training and evaluation
    score alike.
    """

    name: str = field(default="mqar", init=False)
    vocab: int = 8192
    length: int = 64
    pairs: int = 4
    power: float = 0.01
    random_filler: bool = False
    train_size: int = 100_000
    eval_size: int = 3000

    def __post_init__(self) -> None:
        super().__post_init__()
        ok = type(self.pairs) is int and self.pairs >= 1
        self._require(ok, "pairs must be a whole number of at least 1", self.pairs, "raise it")
        rule = f"length must be even and at least 4 x pairs = {4 * self.pairs}"
        fits = self.length % 2 == 0 and self.length >= 4 * self.pairs
        self._require(fits, rule, self.length, "lengthen it or ask fewer pairs")
        rule = f"vocab must hold {self.pairs} keys above id 0: at least {2 * self.pairs + 2}"
        self._require(self.vocab // 2 > self.pairs, rule, self.vocab, "raise it")
        ok = isinstance(self.power, int | float) and 0 <= self.power < float("inf")
        self._require(ok, "power must be a number of at least 0", self.power, "0.01 is the paper's")
        # 1 and 1.0 are one setting, so they must have one identity
        object.__setattr__(self, "power", float(self.power))

    def _draw(self, which: SplitName, rows: int, generator: torch.Generator) -> Split:
        half = self.vocab // 2
        keys = 1 + distinct(rows, self.pairs, half - 1, generator)
        values = half + distinct(rows, self.pairs, self.vocab - half, generator)
        context = torch.stack([keys, values], -1).flatten(1)  # (rows, 2 pairs)
        rest = (rows, self.length - 2 * self.pairs)
        filler = torch.zeros(rest, dtype=torch.int64)
        if self.random_filler:
            filler = torch.randint(self.vocab, rest, generator=generator)
        place = 2 * self._gaps(rows, generator)
        inputs = torch.cat([context, filler.scatter(1, place, keys)], 1)
        labels = torch.full((rows, self.length), IGNORE)
        return Split(inputs, labels.scatter_(1, 2 * self.pairs + place, values))

    def _gaps(self, rows: int, generator: torch.Generator) -> Tensor:
        """(rows, pairs) int64: gaps without replacement, by successive sampling.

        The first arrivals of independent exponential clocks with those rates are such a sample.
        """
        rate = torch.arange(1, self.length // 2 - self.pairs + 1) ** (self.power - 1)
        clocks = torch.empty(rows, len(rate)).exponential_(generator=generator) / rate
        return clocks.topk(self.pairs, largest=False).indices


def distinct(rows: int, count: int, ids: int, generator: torch.Generator) -> Tensor:
    """(rows, count) int64: ordered tuples of distinct ids below `ids`, all equally likely.

    Repeats are drawn again until there are none. No id is treated differently from another, so every
    tuple stays as likely as the next; a permutation of all ids per row would cost `ids` / `count`
    times as much.
    """
    drawn = torch.randint(ids, (rows, count), generator=generator)
    open_rows = torch.arange(rows)
    while len(open_rows):
        tuples = drawn[open_rows]
        repeat = first_equal(tuples) != torch.arange(count)
        tuples[repeat] = torch.randint(ids, (int(repeat.sum()),), generator=generator)
        drawn[open_rows] = tuples
        open_rows = open_rows[repeat.any(1)]
    return drawn
