"""`bayes`: Bayesian optimisation over the sequence of codes and its length, through Optuna.

The search of Composer (arXiv 2510.00379). The study is built anew from the view for every proposal, so
nothing is kept between them. Like `random`, it does not do what its scaffold decided. It gives no layer
options and shares no weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.proposers.base import Request
from agents.proposers.classical import RandomProposer, codes_of, draw, unseen
from agents.scaffolds.values import values
from search_space.pattern import Pattern, nearest
from search_space.space import Space
from storage.records import INFRASTRUCTURE, Answer, View

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

SAMPLERS = ("tpe", "gp")
STARTUP = 10  # candidates drawn uniformly before there is a model; Optuna's own default
ASKS = 8  # of the model, when it suggests what was measured already, before a uniform draw
NONE = ""  # no layer at this position


@dataclass(frozen=True)
class BayesProposer(RandomProposer):
    """Draws ``STARTUP`` candidates like `random`, then proposes what ``sampler`` expects most of: `tpe`, the
    ratio of two densities, or `gp`, expected improvement under a Gaussian process with a Hamming kernel.

    The two were not told apart on the laboratory's table (docs/log.md), and `tpe` takes a twentieth of the
    time. A candidate that failed counts as the worst score so far. Raises ValueError for an unknown sampler.
    """

    sampler: str = "tpe"

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ValueError(
                f"options.sampler of bayes must be one of {', '.join(SAMPLERS)}, not "
                f"{self.sampler!r}: the nearest are {nearest(self.sampler, SAMPLERS)}"
            )

    async def propose(self, request: Request) -> Answer:
        worth = results(request.view)
        if len(worth) < STARTUP:
            return await super().propose(request)
        made = self._suggestions(request, worth)
        return unseen(request, lambda: next(made), f"of {len(worth)} results, by {self.sampler}")

    def _suggestions(self, request: Request, worth: Mapping[str, float]) -> Iterator[Pattern]:
        """What the sampler suggests, then uniform draws without end.

        Its first new suggestions are left to the slots in flight, of which each takes a place at random.
        """
        rng, choices = request.rng, distributions(request.space)
        others = rng.randint(0, request.view.in_flight)
        with silent():
            study = study_of(worth, choices, self._sampler(rng.getrandbits(31)))
        for _ in range(others + ASKS):
            with silent():
                codes = study.ask(choices).params.values()
            pattern = Pattern.of([code for code in codes if code != NONE])
            if others and str(pattern) not in worth:
                others -= 1
            else:
                yield pattern
        while True:
            yield draw(request.space, rng)

    def _sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import GPSampler, TPESampler

        kind = {"gp": GPSampler, "tpe": TPESampler}[self.sampler]
        return kind(seed=seed, n_startup_trials=0)


def results(view: View) -> dict[str, float]:
    """What each candidate's pattern is worth, from 0 to 1: `values`, that is by rung, then by score."""
    worth = values(view.nodes)
    return {
        node.pattern: worth[node.slot]
        for node in view.nodes
        if node.candidate is not None and node.failure != INFRASTRUCTURE
    }


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The choices at each position, no layer being one beyond the smallest depth."""
    from optuna.distributions import CategoricalDistribution

    return {
        f"layer {i}": CategoricalDistribution(
            [*space.codes, NONE] if i >= space.smallest else space.codes
        )
        for i in range(space.largest)
    }


def study_of(
    worth: Mapping[str, float], choices: Mapping[str, BaseDistribution], sampler: BaseSampler
) -> Study:
    """A study that has seen these results."""
    import optuna

    study = optuna.create_study(direction="maximize", sampler=sampler)
    for pattern, value in worth.items():
        codes = codes_of(Pattern.parse(pattern))
        codes += [NONE] * (len(choices) - len(codes))
        params = dict(zip(choices, codes, strict=True))
        trial = optuna.trial.create_trial(params=params, distributions=dict(choices), value=value)
        study.add_trial(trial)
    return study


@contextmanager
def silent() -> Iterator[None]:
    """Optuna without its notes on every study; whoever else uses it here keeps theirs."""
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)
