"""Simulated searches: a real agent proposes, the laboratory's table answers in place of training.

The agent, its scaffold and its proposer are those of a campaign, and so are the rules of slots: what a
decision sees, that a candidate found again costs nothing, that attempts are bounded. There is one agent
without rungs or failures; nothing is trained, and no ledger is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from agents.agent import Agent
from archwright.candidates import composition
from archwright.laboratory import Table
from archwright.schedule import ATTEMPTS
from archwright.seeds import derive
from search_space.pattern import Pattern
from storage.records import Answer, CandidateRecord, Node, View

LAG = 3  # slots in flight: two workers and an agent that asks a model, the default of a campaign
ALIKE = 25  # ranks up and down within which patterns are taken to be equally noisy


def regrets(agent: Agent, table: Table, seeds: Sequence[int], budget: int) -> np.ndarray:
    """(searches, budget) simple regret: how much worse than the table's best the candidate is, in truth,
    that looks best after each evaluation."""
    return asyncio.run(_regrets(agent, table, seeds, budget))


async def _regrets(agent: Agent, table: Table, seeds: Sequence[int], budget: int) -> np.ndarray:
    worlds = [scores(table, seed) for seed in seeds]
    found = [
        await search(agent, table, world, seed, budget)
        for world, seed in zip(worlds, seeds, strict=True)
    ]
    picks = [best_so_far(world[one], one) for world, one in zip(worlds, found, strict=True)]
    return table.means.max() - table.means[[_padded(pick, budget) for pick in picks]]


def scores(table: Table, seed: int) -> np.ndarray:
    """(patterns,) what every pattern would score in one simulated search: the mean of the table and a
    deviation drawn among those of the ``2 ALIKE + 1`` patterns of about that mean, as noise grows with it."""
    rng, count = np.random.default_rng(derive(seed, "scores")), len(table.means)
    order = np.argsort(table.means, kind="stable")
    alike = min(2 * ALIKE + 1, count)
    first = np.clip(np.arange(count) - ALIKE, 0, count - alike)
    drawn = order[first + rng.integers(alike, size=count)]
    seeds = rng.integers(table.deviations.shape[1], size=count)
    world = table.means.copy()
    world[order] += table.deviations[drawn, seeds]
    return world


async def search(
    agent: Agent, table: Table, world: np.ndarray, seed: int, budget: int, lag: int = LAG
) -> list[int]:
    """The places in the table of the candidates found, in the order of their slots; fewer than ``budget``
    where `ATTEMPTS` slots for each do not find as many."""
    nodes, found = list[Node](), dict[int, int]()  # place in the table -> candidate
    while len(found) < budget and len(nodes) < ATTEMPTS * budget:
        slot = len(nodes)
        view = View(tuple(nodes[: _seen(nodes, budget, lag)]), slot)
        answer = await agent.propose(view, derive(seed, "slot", slot))
        place = table.places[answer.pattern or ""]
        status = "duplicate" if place in found else "accepted"
        candidate = found.setdefault(place, len(found) + 1)
        nodes.append(_node(slot, agent, answer, candidate, status, float(world[place])))
    return list(found)


def _seen(nodes: Sequence[Node], budget: int, lag: int) -> int:
    """How many slots the next decision sees: all but those in flight, or all when those in flight may use
    the budget up, since then it waits for them."""
    seen = max(0, len(nodes) - lag + 1)
    found = sum(node.status == "accepted" for node in nodes[:seen])
    return seen if found + len(nodes) - seen < budget else len(nodes)


def _node(
    slot: int, agent: Agent, answer: Answer, candidate: int, status: str, score: float
) -> Node:
    pattern = answer.pattern or ""
    record = record_of(pattern, agent.spec.space.preset)
    return Node(
        slot,
        agent.spec.name,
        candidate,
        pattern,
        answer.operator,
        answer.hypothesis,
        answer.parents,
        status,
        score,
        params=record.params,
        flops_per_token=record.flops_per_token,
        state_bytes=record.state_bytes,
    )


@lru_cache(maxsize=10_000)
def record_of(pattern: str, preset: str) -> CandidateRecord:
    """The candidate of a pattern with its costs."""
    return composition(Pattern.parse(pattern), preset)


def best_so_far(seen: np.ndarray, places: Sequence[int]) -> list[int]:
    """The place of the candidate that scores best after each evaluation, the earlier of equals."""
    best: list[int] = []
    top = -np.inf
    for score, place in zip(seen, places, strict=True):
        best.append(place if score > top else best[-1])
        top = max(top, score)
    return best


def _padded(values: list[int], length: int) -> list[int]:
    """The values, the last one repeated up to a length."""
    return values + values[-1:] * (length - len(values))
