"""BoTorch in place of Optuna, on the policy laboratory's table: where docs/log.md has its figures from.

`pip install botorch`, then `python docs/laboratory/bayes_by_botorch.py 0 10` for searches 0 to 9. Not part
of the package: it lists every pattern of its space.
"""

from __future__ import annotations

import json
import sys
import time

import torch

from agents.agent import Agent, AgentSpec
from agents.proposers import Request
from agents.proposers.bayes import STARTUP, results
from agents.proposers.classical import RandomProposer, codes_of
from archwright.laboratory import load, patterns
from archwright.simulation import regrets
from search_space.pattern import Pattern
from search_space.space import Space
from storage.records import Answer

BUDGETS = (16, 32, 48)


class BotorchProposer(RandomProposer):
    """A Gaussian process on one-hot layers (`SingleTaskGP`) and log expected improvement over all patterns
    that are not measured yet; slots in flight take the next best ones at random, as those of `bayes`."""

    async def propose(self, request: Request) -> Answer:
        worth = results(request.view)
        if len(worth) < STARTUP:
            return await super().propose(request)
        rng = request.rng
        torch.manual_seed(rng.getrandbits(31))
        ranked = self._ranked(request.space, worth)
        chosen = ranked[rng.randint(0, request.view.in_flight)]
        return request.answer(pattern=chosen, hypothesis=f"of {len(worth)} results, by botorch")

    def _ranked(self, space: Space, worth: dict[str, float]) -> list[str]:
        from botorch.acquisition import LogExpectedImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import SingleTaskGP
        from gpytorch.mlls import ExactMarginalLogLikelihood

        y = torch.tensor(list(worth.values())).double()[:, None]
        y = (y - y.mean()) / y.std()
        model = SingleTaskGP(encoded(space, list(worth)), y)
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        left = [pattern for pattern in patterns(space) if pattern not in worth]
        with torch.no_grad():
            gain = LogExpectedImprovement(model, y.max())(encoded(space, left)[:, None])
        return [left[i] for i in gain.argsort(descending=True).tolist()]


def encoded(space: Space, texts: list[str]) -> torch.Tensor:
    """(N, layers * codes) ones and zeros."""
    places = [[space.codes.index(c) for c in codes_of(Pattern.parse(text))] for text in texts]
    return torch.nn.functional.one_hot(torch.tensor(places), len(space.codes)).flatten(1).double()


def main() -> None:
    """One JSON line a search: its regrets after 16, 32 and 48 evaluations by each proposer."""
    torch.set_num_threads(1)
    table = load()
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        row: dict[str, object] = {"seed": seed}
        for proposer in ("random", "bayes", "bayes_by_botorch:BotorchProposer"):
            began = time.process_time()
            agent = Agent(AgentSpec("a", proposer, table.space, "one-shot"))
            (curve,) = regrets(agent, table, [seed], BUDGETS[-1])
            row[proposer] = [round(float(curve[at - 1]), 4) for at in BUDGETS]
            row[f"{proposer} seconds"] = round(time.process_time() - began, 2)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
