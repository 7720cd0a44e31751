"""How soon which search finds how good a candidate: simple regret on the laboratory's table.

Proposers that need no model, and every scaffold over `evolution`, whose mutations and recombinations stand
in for a model's. `best-of-n` needs a model; without one it is `random`. Each verdict is for itself and
about this table: no candidate fails in it, and nothing is said of what a model would propose.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
from scipy import stats

from agents.agent import Agent, AgentSpec
from agents.scaffolds import SCAFFOLDS, WITH_TOOLS
from archwright.laboratory import Table, label, load
from archwright.simulation import LAG, regrets
from archwright.standings import rank_correlation

LEVEL = 0.95
MOST = 240  # searches of a policy: all of them take under a minute on two cores
CHUNK = 10  # searches that a process does at a time


@dataclass(frozen=True)
class Policy:
    """A way to search; of one that is slow at most ``searches`` are simulated."""

    proposer: str
    scaffold: str
    searches: int = MOST


SLOW = {"greedy": 100}  # once all neighbours of its best are known, it keeps asking for another
POLICIES = (
    Policy("random", "one-shot"),
    Policy("bayes", "one-shot", 32),
    *(
        Policy("evolution", scaffold, SLOW.get(scaffold, MOST))
        for scaffold in SCAFFOLDS
        if scaffold not in WITH_TOOLS
    ),
)


@dataclass(frozen=True)
class Size:
    """How many searches of a policy are simulated at most, and after how many evaluations to look."""

    searches: int = MOST
    budgets: tuple[int, ...] = (16, 32, 64)


FULL, QUICK = Size(), Size(20, (4, 12))


def bench(size: Size) -> dict[str, Any]:
    """The JSON keys of `archwright bench scaffolds`, without its figures: ``table`` is what was searched,
    ``lag`` at how many slots in flight; ``policies``, what `compared` returns of each, random first."""
    found = simulated(size)
    return {
        "table": described(load()),
        "lag": LAG,
        "level": LEVEL,
        "policies": [
            compared(policy, curves, found[0], size.budgets)
            for policy, curves in zip(POLICIES, found, strict=True)
        ],
    }


def simulated(size: Size) -> list[np.ndarray]:
    """(searches, evaluations) the regrets of each policy; search s of each has the same scores and seeds.

    One process a core; the slow policies first.
    """
    cores, context = len(os.sched_getaffinity(0)), get_context("spawn")
    with ProcessPoolExecutor(cores, mp_context=context) as pool:
        going = {}
        for policy in sorted(POLICIES, key=lambda policy: policy.searches):
            count = min(size.searches, policy.searches)
            chunks = [range(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK)]
            going[policy] = [pool.submit(simulate, policy, c, size.budgets[-1]) for c in chunks]
        return [np.concatenate([f.result() for f in going[policy]]) for policy in POLICIES]


def simulate(policy: Policy, seeds: Sequence[int], budget: int) -> np.ndarray:
    """Some searches of a policy on the committed table."""
    table = load()
    agent = Agent(AgentSpec("a", policy.proposer, table.space, policy.scaffold))
    return regrets(agent, table, seeds, budget)


def compared(
    policy: Policy, curves: np.ndarray, random: np.ndarray, budgets: Sequence[int]
) -> dict[str, Any]:
    """A policy's ``curve``: for each budget its ``regret`` and its ``gain``, by how much random search's
    regret is larger in the same simulated worlds, each with its t interval, and the ``verdict``."""
    paired = random[: len(curves)] - curves
    curve = []
    for budget in budgets:
        regret, gain = mean(curves[:, budget - 1]), mean(paired[:, budget - 1])
        curve.append(
            {"evaluations": budget, "regret": regret, "gain": gain, "verdict": verdict(gain)}
        )
    return {
        "proposer": policy.proposer,
        "scaffold": policy.scaffold,
        "searches": len(curves),
        "curve": curve,
    }


def mean(values: np.ndarray) -> dict[str, float]:
    """The mean with Student's t interval at `LEVEL`."""
    centre, n = float(values.mean()), len(values)
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return {"mean": centre, "low": centre - reach, "high": centre + reach}


def verdict(gain: Mapping[str, float]) -> str:
    """What the interval of the gain over random search says."""
    if gain["low"] > 0:
        return "beats random"
    return "worse than random" if gain["high"] < 0 else "not told from random"


def described(table: Table) -> dict[str, Any]:
    """What the table is, and how well its scores tell patterns apart."""
    scores = np.array(list(table.scores.values()))
    split = rank_correlation([(one, two) for one, two in scores[:, :2].tolist()], LEVEL)
    return {
        "profile": label(),
        "patterns": len(scores),
        "seeds": scores.shape[1],
        "rank_correlation_of_two_seeds": split.value,
        "deviation_of_means": float(table.means.std()),
        "deviation_over_seeds": float(np.sqrt((table.deviations**2).mean())),
        "best": list(table.scores)[int(table.means.argmax())],
        "best_score": float(table.means.max()),
    }
