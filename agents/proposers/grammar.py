"""`grammar`: writes token mixers without a model, by drawing, mutating and crossing genomes of a grammar.

The offline counterpart of a model that writes modules. Stateless: a parent's genome is read from the first
line of its source; one that the grammar did not write is no parent, and a draft takes its place. Which
parents there are is the scaffold's; `one-shot` makes it random search.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

from agents.grammar import Genome, Standard, cross, draw, mutate, read, source
from agents.proposers.base import Request
from storage.records import Answer

TRIES = 200  # genomes made before one that the agent has already proposed is proposed again


class GrammarProposer:
    """Drafts at random; improves and debugs by one mutation; of two parents it makes a recombination."""

    scaffold: ClassVar[str] = "tournament"

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        """``settings`` are the recipe's learning rate, depth and width, where a file may depart from them."""
        self.standard = Standard(**settings) if settings else None

    def check(self) -> None:
        """It needs nothing."""

    def quote(self, request: Request) -> None:
        return None

    async def propose(self, request: Request) -> Answer:
        seen = {node.source for node in request.view.nodes}
        found = [read(node.source) for node in request.decision.parents]
        parents = [genome for genome in found if genome is not None]
        genome, hypothesis = child(parents, request.rng, seen, self.standard)
        return request.answer(source=source(genome, self.standard), hypothesis=hypothesis)


def child(
    parents: list[Genome],
    rng: random.Random,
    seen: Collection[str],
    standard: Standard | None = None,
) -> tuple[Genome, str]:
    """A genome made of the parents, whose source is not among those seen if one can be found, and how it
    differs from the first of them."""
    if not parents:
        genome = unseen(lambda: draw(rng, standard is not None), seen, standard)
        return genome, f"a draw: {genome}"
    one, *others = parents
    if not others:
        genome = unseen(lambda: mutate(one, rng), seen, standard)
        return genome, "a mutation: " + ", ".join(genome.differences(one))
    genome = unseen(lambda: _crossed(one, others[0], rng), seen, standard)
    return genome, "a recombination: " + ", ".join(genome.differences(one))


def _crossed(one: Genome, two: Genome, rng: random.Random) -> Genome:
    """Of parents so alike that all their children are one of them, a mutated one."""
    genome = cross(one, two, rng)
    return mutate(genome, rng) if genome in (one, two) else genome


def unseen(make: Callable[[], Genome], seen: Collection[str], standard: Standard | None) -> Genome:
    """The first genome made whose source is not among those seen, else the last of `TRIES`."""
    for _ in range(TRIES):
        genome = make()
        if source(genome, standard) not in seen:
            break
    return genome
