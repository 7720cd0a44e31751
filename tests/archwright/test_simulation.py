"""Simulated searches: those of a campaign, on tables small enough to know what must come out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.orm import Session

from agents.agent import Agent, AgentSpec
from agents.scaffolds import SCAFFOLDS, WITH_TOOLS
from archwright import simulation
from archwright.campaign import Campaign
from archwright.executor import LocalExecutor
from archwright.laboratory import Table, patterns
from archwright.recipe import parse
from evaluator.evaluate import Job
from evaluator.outcome import Metric, Result, Spent
from search_space.pattern import Pattern
from search_space.space import Space
from storage import queries

SPACE = Space(("A", "M", "Mb"), 3, 3, "mini")  # 27 patterns
WORTH = {"A": 0.0, "M": 1.0, "Mb": 4.0}
CLASSICAL = [name for name in SCAFFOLDS if name not in WITH_TOOLS]


def table(space: Space = SPACE, spread: float = 0.0) -> Table:
    """Patterns worth the sum of their layers, later layers more; two seeds ``spread`` apart."""
    truth = {
        text: sum(0.01 * i * WORTH[x.code] for i, x in enumerate(Pattern.parse(text).layers, 1))
        for text in patterns(space)
    }
    return Table(space, {text: (x - spread / 2, x + spread / 2) for text, x in truth.items()})


def agent(proposer: str, scaffold: str | None = None, **options: Any) -> Agent:
    return Agent(AgentSpec("a", proposer, SPACE, scaffold, options))


def test_an_oracle_regrets_nothing_and_its_opposite_what_the_table_says() -> None:
    here = table()
    order = sorted(here.scores, key=lambda text: here.means[here.places[text]])
    fixed = agent("fixed", patterns=order[::-1])
    assert simulation.regrets(fixed, here, range(3), 5).tolist() == [[0.0] * 5] * 3
    fixed = agent("fixed", patterns=order)
    (curve,) = simulation.regrets(fixed, here, [0], 27)
    assert curve == pytest.approx([max(here.means) - x for x in sorted(here.means)])


def test_random_search_regrets_what_the_order_statistics_say() -> None:
    """The best of n of N values, drawn without replacement, is the i-th smallest in C(i - 1, n - 1) of
    C(N, n) ways."""
    here, count, searches = table(), 27, 400
    ranked = sorted(here.means)
    curves = simulation.regrets(agent("random"), here, range(searches), 12)
    for n in (1, 3, 12):
        ways = [math.comb(i, n - 1) / math.comb(count, n) for i in range(count)]
        assert sum(ways) == pytest.approx(1)
        expected = ranked[-1] - sum(way * x for way, x in zip(ways, ranked, strict=True))
        error = curves[:, n - 1].std(ddof=1) / math.sqrt(searches)
        assert abs(curves[:, n - 1].mean() - expected) < 4 * error


def test_the_pick_is_by_what_was_seen_and_the_regret_by_the_truth() -> None:
    assert simulation.best_so_far(np.array([0.1, 0.3, 0.3, 0.2, 0.4]), [7, 5, 6, 8, 1]) == [
        7, 5, 5, 5, 1,
    ]  # fmt: skip
    here = table(spread=10.0)
    curves = simulation.regrets(agent("fixed", patterns=list(here.scores)), here, range(60), 27)
    assert curves[:, -1].mean() > 0.01  # all were seen, and noise has hidden which is best
    assert len({curve[-1] for curve in curves}) > 5


def test_noise_is_as_wide_as_measured_among_patterns_that_score_alike() -> None:
    quiet, loud = Space(("A", "M"), 8, 8, "mini"), 0.4
    texts = list(patterns(quiet))
    scores = {
        text: (i - loud / 2 * (i > 127), i + loud / 2 * (i > 127)) for i, text in enumerate(texts)
    }
    here = Table(quiet, scores)
    noise = np.array([simulation.scores(here, seed) - here.means for seed in range(500)])
    wide = 2**-0.5 * loud  # the standard deviation that two scores so far apart show
    assert not noise[:, : 128 - simulation.ALIKE].any()
    assert noise[:, 128 + simulation.ALIKE + 1 :].std() == pytest.approx(wide, rel=0.02)
    assert abs(noise.mean()) < 0.01
    assert np.ptp(np.abs(noise)) == pytest.approx(wide)
    with pytest.raises(ValueError, match="one seed"):
        simulation.scores(Table(quiet, {"8A": (1.0,), "8M": (2.0,)}), 0)


def test_a_search_follows_from_its_seed() -> None:
    here = table(spread=0.1)
    one, two, other = (simulation.regrets(agent("evolution"), here, [s], 20) for s in (3, 3, 4))
    assert (one == two).all()
    assert (one != other).any()


def test_a_search_that_finds_no_more_keeps_what_it_has() -> None:
    here = table()
    stuck = agent("fixed", patterns=["3A"] * 100)
    (curve,) = simulation.regrets(stuck, here, [0], 8)
    assert curve.tolist() == [max(here.means)] * 8


class Tabular(LocalExecutor):
    """Evaluates by looking the pattern up."""

    def __init__(self, here: Table, world: np.ndarray) -> None:
        super().__init__(2)
        self.here, self.world = here, world

    def submit(self, task: Callable[..., Any], *args: Any) -> int:
        (job,) = (arg for arg in args if isinstance(arg, Job))
        score = float(self.world[self.here.places[job.pattern]])
        split = "test" if job.sealed else "validation"
        return super().submit(Result, (Metric("score", split, score),), Spent())


@pytest.mark.parametrize(("scaffold", "seed"), list(product(CLASSICAL, [0, 1])))
def test_a_simulated_search_is_that_of_a_campaign(tmp_path: Path, scaffold: str, seed: int) -> None:
    """Candidate for candidate, in the order of slots, also where it is found again or nearly exhausted."""
    here = table(spread=0.05)
    world = simulation.scores(here, seed)
    recipe = {
        "name": "tabular",
        "seed": seed,
        "space": {"primitives": list(SPACE.codes), "layers": 3, "preset": "mini"},
        "evaluation": {"profile": "smoke"},
        "agents": [{"name": "a", "proposer": "evolution", "scaffold": scaffold}],
        "budget": {"evaluations": 24},
        "confirm": {"finalists": 0},
        "lag": simulation.LAG,
    }
    Campaign.create(parse(recipe), tmp_path / "run", 2).run(Tabular(here, world))
    with Session(Campaign.open(tmp_path / "run").ledger.engine) as db:
        proposed = [row.candidate.pattern for row in queries.proposals(db) if row.candidate]
    found = asyncio.run(
        simulation.search(agent("evolution", scaffold), here, world, seed, budget=24)
    )
    assert [list(here.scores)[place] for place in found] == list(dict.fromkeys(proposed))
