"""Whether a cheap profile ranks architectures as a dear one does: measured over varied architectures.

Writes no ledger: a table per profile (CSV) that grows by a row an evaluation, so that it can be
interrupted, and rank correlations between two such tables. It says nothing of larger models.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from evaluator.evaluate import Job, evaluate
from evaluator.profiles import profile as profile_named
from search_space.references import REFERENCES

FOLDER = Path("docs/validity")
PRESET = "mini"
LEVEL, RESAMPLES, SEED = 0.95, 9999, 0
KEYS, COSTS = ("profile", "name", "pattern", "seed"), ("tokens", "flops", "seconds")
Row = dict[str, Any]

# The references at their published depth, and what other codes and arrangements give in six layers.
ARCHITECTURES = {
    **{name: reference.pattern for name, reference in REFERENCES.items()},
    **{
        text: text
        for text in (
            "6M", "6A", "3(A+M)", "3(Mb+M)", "2(Mb+A+M)", "3(L+M)", "3(R+M)", "3(D+M)", "3(W+M)",
            "3(H+M)", "3(Ms+M)", "3([A|Mb]+M)",
        )
    },
}  # fmt: skip


def measure(profile: str, seeds: Sequence[int], table: Path) -> None:
    """Evaluate every architecture at every seed that the table does not have, a process per core."""
    done = {(row["name"], int(row["seed"])) for row in read(table)}
    todo = [(name, seed) for seed in seeds for name in ARCHITECTURES if (name, seed) not in done]
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(row_of, profile, name, seed) for name, seed in todo]
        for future in as_completed(futures):
            append(table, row := future.result())
            print(row, flush=True)


def row_of(profile: str, name: str, seed: int) -> Row:
    """One evaluation: the score, each task's, and what training took."""
    result = evaluate(Job(ARCHITECTURES[name], PRESET, profile, seed))
    if result.failure:
        raise ValueError(f"{name} at profile {profile} failed: {result.failure} {result.detail}")
    scores = {m.name.removesuffix("/score"): m.value for m in result.metrics}
    tasks = {m.name.removesuffix("/score") for m in result.metrics if m.name.endswith("/score")}
    spent = result.spent
    return {
        "profile": f"{profile}#{profile_named(profile).fingerprint}",
        "name": name,
        "pattern": ARCHITECTURES[name],
        "seed": seed,
        "score": scores["score"],
        **{task: scores[task] for task in sorted(tasks)},
        "tokens": spent.tokens,
        "flops": spent.flops,
        "seconds": round(spent.seconds, 1),
    }


def read(table: Path) -> list[Row]:
    """The rows of a table, none where there is no file."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def append(table: Path, row: Row) -> None:
    """Add a row, below a header in a new file."""
    new = not table.exists()
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def compare(cheap: Path, dear: Path) -> Row:
    """What the cheap table is worth against the dear one: cost ratios, and Spearman's rank correlation
    of the mean scores, of all tasks and of each, with its bootstrap interval over architectures."""
    tables = [read(cheap), read(dear)]
    names = sorted(set.intersection(*({row["name"] for row in table} for table in tables)))
    return {
        "architectures": len(names),
        "seeds": [len(table) / len({row["name"] for row in table}) for table in tables],
        "cost_ratio": {
            what: mean(tables[1], what, names).sum() / mean(tables[0], what, names).sum()
            for what in COSTS
        },
        "correlation": {
            what: correlation(*(mean(table, what, names) for table in tables))
            for what in tables[0][0]
            if what not in (*KEYS, *COSTS)
        },
        "between_seeds": [dict(between_seeds(table, names)) for table in tables],
    }


def mean(table: Sequence[Row], what: str, names: Sequence[str]) -> np.ndarray:
    """The mean over seeds of a column, for each architecture."""
    values: dict[str, list[float]] = {name: [] for name in names}
    for row in table:
        if row["name"] in values:
            values[row["name"]].append(float(row[what]))
    return np.array([np.mean(values[name]) for name in names])


def correlation(one: np.ndarray, two: np.ndarray) -> Row:
    """Spearman's rank correlation and its percentile interval, resampling architectures; None where a
    resample is constant and has no ranks."""
    found = stats.bootstrap(
        (one, two),
        lambda a, b: stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(SEED),
    )
    low, high = (None if np.isnan(side) else side for side in found.confidence_interval)
    return {"value": float(stats.spearmanr(one, two).statistic), "low": low, "high": high}


def between_seeds(table: Sequence[Row], names: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Rank correlation of the scores at the first seed with those at each other: what noise allows."""
    seeds = sorted({row["seed"] for row in table})
    first, *others = ([r for r in table if r["seed"] == seed] for seed in seeds)
    for seed, other in zip(seeds[1:], others, strict=True):
        pair = (mean(part, "score", names) for part in (first, other))
        yield f"{seeds[0]}-{seed}", float(stats.spearmanr(*pair).statistic)


def main() -> None:
    """`measure PROFILE --seeds 0 1`, then `compare CHEAP DEAR`; the last line is JSON."""
    parser = argparse.ArgumentParser(prog="python -m archwright.validity", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure")
    measuring.add_argument("profile")
    measuring.add_argument("--seeds", type=int, nargs="+", default=[0])
    comparing = commands.add_parser("compare")
    comparing.add_argument("cheap")
    comparing.add_argument("dear")
    given = parser.parse_args()
    if given.command == "measure":
        measure(given.profile, given.seeds, FOLDER / f"{given.profile}.csv")
    else:
        print(json.dumps(compare(*(FOLDER / f"{x}.csv" for x in (given.cheap, given.dear)))))


if __name__ == "__main__":
    main()
