"""The policy laboratory's table: every pattern of a small space, trained at two seeds, once and for all.

`python -m archwright.laboratory measure` makes it, `pack` compresses it into this folder, and `load` reads
it; `archwright.simulation` searches it. It holds one cheap task at a quarter of its training: which search
does well here says little of which architecture is good elsewhere.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import torch

from archwright.environment import facts
from archwright.validity import Row, append, read
from evaluator.evaluate import Job, evaluate
from evaluator.profiles import profile
from search_space.pattern import Pattern
from search_space.space import Space

PACKED = Path(__file__).with_name("laboratory.csv.gz")
SPACE = Space(("A", "M", "Mb"), 6, 6, "mini")
PROFILE, TASK, SHARE, SEEDS = "mad-mini", "selective-copying", Fraction(1, 4), (0, 1)


@dataclass(frozen=True)
class Table:
    """The scores of every pattern of ``space``, one a seed, all at the same number of seeds."""

    space: Space
    scores: Mapping[str, Sequence[float]]

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each pattern is in the arrays below."""
        return {pattern: place for place, pattern in enumerate(self.scores)}

    @cached_property
    def means(self) -> np.ndarray:
        """(patterns,) the mean over seeds: what a simulation takes for the truth."""
        return np.array([np.mean(values) for values in self.scores.values()])

    @cached_property
    def deviations(self) -> np.ndarray:
        """(patterns, seeds) each score's distance to its mean, made as wide as that of a score to the truth:
        n scores lie closer to their own mean by sqrt((n - 1) / n). Raises ValueError for a single seed."""
        scores = np.array(list(self.scores.values()))
        n = scores.shape[1]
        if n < 2:
            raise ValueError("the table has one seed, which shows no noise: measure at least two")
        return (scores - scores.mean(axis=1, keepdims=True)) * math.sqrt(n / (n - 1))


def patterns(space: Space) -> Iterator[str]:
    """Every pattern of plain codes in a space, shorter ones first."""
    for depth in range(space.smallest, space.largest + 1):
        for codes in product(space.codes, repeat=depth):
            yield str(Pattern.of(list(codes)))


@lru_cache(maxsize=1)
def load(packed: Path = PACKED) -> Table:
    """The committed table."""
    scores: dict[str, list[float]] = defaultdict(list)
    for row in rows(packed):
        scores[row["pattern"]].append(float(row["validation"]))
    return Table(SPACE, dict(scores))


def rows(packed: Path = PACKED) -> list[Row]:
    """The rows of a packed table, as `row_of` made them, in the order of `pack`."""
    with gzip.open(packed, "rt", newline="") as file:
        return list(csv.DictReader(file))


def measure(table: Path, seeds: Sequence[int]) -> None:
    """Evaluate every pattern at these seeds that ``table`` does not have yet, one after the other."""
    done = {(row["pattern"], int(row["seed"])) for row in read(table)}
    origin = provenance()
    for pattern, seed in product(patterns(SPACE), seeds):
        if (pattern, seed) not in done:
            append(table, row_of(pattern, seed) | origin)


def row_of(pattern: str, seed: int) -> Row:
    """One training, scored on validation and on the sealed test split, and what it took.

    Raises ValueError for a candidate that fails.
    """
    job = Job(pattern, SPACE.preset, PROFILE, seed, (TASK,), share=SHARE)
    seen = evaluate(job)
    sealed = evaluate(replace(job, sealed=True, checkpoint=seen.checkpoint))  # trains nothing more
    for result in (seen, sealed):
        if result.failure:
            raise ValueError(f"{pattern} at seed {seed} failed: {result.failure} {result.detail}")
    return {
        "pattern": pattern,
        "seed": seed,
        "validation": seen.score(),
        "test": sealed.score("test"),
        "tokens": seen.spent.tokens,
        "flops": seen.spent.flops,
        "seconds": round(seen.spent.seconds + sealed.spent.seconds, 1),
    }


def provenance() -> Row:
    """What was measured, by which code, where."""
    here = facts()
    return {
        "profile": label(),
        "task": TASK,
        "share": str(SHARE),
        "preset": SPACE.preset,
        "commit": here["git_commit"],
        "dirty": here["git_dirty"],
        "torch": torch.__version__,
        "device": here["device"],
    }


def label() -> str:
    """The profile with the fingerprint of all that its one task and its training say."""
    return f"{PROFILE}#{profile(PROFILE).narrow((TASK,)).fingerprint}"


def pack(tables: Iterable[Path], packed: Path = PACKED) -> None:
    """Merge measured tables into a compressed one: by pattern and seed, equal bytes for equal rows."""
    found = [row for table in tables for row in read(table)]
    found.sort(key=lambda row: (row["pattern"], int(row["seed"])))
    text = io.StringIO()
    writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    packed.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))


def main() -> None:
    """`measure TABLE --seeds 0 1`, which goes on where it was interrupted; then `pack TABLE ...`."""
    parser = argparse.ArgumentParser(prog="python -m archwright.laboratory", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("table", type=Path)
    measuring.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    packing = commands.add_parser("pack")
    packing.add_argument("tables", type=Path, nargs="+")
    given = parser.parse_args()
    if given.command == "measure":
        measure(given.table, given.seeds)
    else:
        pack(given.tables)


if __name__ == "__main__":
    main()
