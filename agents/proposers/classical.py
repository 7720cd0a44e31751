"""`random`, `evolution`, `fixed`: proposers without a model: the embedded default, the controls, references.

`evolution` makes the child; which parents it is made from is the scaffold's, `tournament` unless the
recipe names another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import ClassVar

from agents.proposers.base import Request
from search_space.pattern import Pattern, PatternError
from search_space.space import Space
from storage.records import Answer

TRIES = 200  # draws before a pattern that the agent has already seen is proposed again
MUTATED = 0.5  # of the children of two parents: alike ones have few others that nobody has seen


class RandomProposer:
    """Draws the number of layers, then each layer, uniformly, whatever the scaffold decided.

    Its answers carry the decision's parents all the same: a tree grows where its scaffold asked.
    """

    scaffold: ClassVar[str] = "one-shot"

    def check(self) -> None:
        """It needs nothing."""

    def quote(self, request: Request) -> None:
        return None

    async def propose(self, request: Request) -> Answer:
        rng = request.rng
        return unseen(request, lambda: draw(request.space, rng), "a uniform draw")


class FixedProposer:
    """Proposes the given patterns in turn: the references. Or sources: modules that someone has written."""

    scaffold: ClassVar[str] = "one-shot"

    def __init__(self, patterns: Sequence[str] = (), sources: Sequence[str] = ()) -> None:
        self.answers = [{"pattern": text} for text in patterns]
        self.answers += [{"source": text} for text in sources]

    def check(self) -> None:
        """It needs nothing."""

    def quote(self, request: Request) -> None:
        return None

    async def propose(self, request: Request) -> Answer:
        if request.view.turn >= len(self.answers):
            return request.answer(failure="exhausted", detail="nothing is left of what was given")
        return request.answer(**self.answers[request.view.turn], hypothesis="as given")


class EvolutionProposer(RandomProposer):
    """Drafts at random; improves and debugs by one mutation of the parent (arXiv 1802.01548); of two
    parents it makes a recombination, ``MUTATED`` of the time with a mutation."""

    scaffold: ClassVar[str] = "tournament"

    async def propose(self, request: Request) -> Answer:
        rng, space = request.rng, request.space
        parents = [Pattern.parse(node.pattern) for node in request.decision.parents]
        if not parents:
            return await super().propose(request)
        if len(parents) == 1:
            return unseen(request, lambda: mutate(parents[0], space, rng), "one mutation")
        one, two = parents
        return unseen(request, lambda: _child(one, two, space, rng), "a recombination")


def _child(one: Pattern, two: Pattern, space: Space, rng: random.Random) -> Pattern:
    child = cross(one, two, space, rng)
    return mutate(child, space, rng) if rng.random() < MUTATED else child


def unseen(request: Request, make: Callable[[], Pattern], hypothesis: str) -> Answer:
    """The first valid pattern made that the agent has not had measured, else any valid one made.

    Not every sequence of codes is valid: an `Xa` needs an attention layer before it.
    """
    seen, valid = {node.pattern for node in request.view.nodes}, None
    for _ in range(TRIES):
        text = str(make())
        if text in seen and valid is not None:
            continue
        try:
            valid = str(request.space.read(text))
        except PatternError:
            continue
        if valid not in seen:
            break
    if valid is None:
        return request.answer(failure="exhausted", detail=f"no valid pattern in {TRIES} draws")
    return request.answer(pattern=valid, hypothesis=hypothesis)


def draw(space: Space, rng: random.Random) -> Pattern:
    """A pattern whose depth and layers are uniform over the space."""
    depth = rng.randint(space.smallest, space.largest)
    return Pattern.of([rng.choice(space.codes) for _ in range(depth)])


def cross(one: Pattern, two: Pattern, space: Space, rng: random.Random) -> Pattern:
    """The first layers of ``one``, then the last of ``two``, at least one of each; the two cuts are drawn
    uniformly among those that give a depth of the space. ``one`` where none does."""
    head, tail = codes_of(one), codes_of(two)
    cuts = [
        (i, j)
        for i in range(1, len(head) + 1)
        for j in range(len(tail))
        if space.smallest <= i + len(tail) - j <= space.largest
    ]
    i, j = rng.choice(cuts) if cuts else (len(head), len(tail))
    return Pattern.parse("+".join(head[:i] + tail[j:]))


def codes_of(pattern: Pattern) -> list[str]:
    """The layers with their options; shared weights become each layer's own."""
    return [str(layer) for layer in pattern.layers]


def mutate(parent: Pattern, space: Space, rng: random.Random) -> Pattern:
    """The parent after one mutation, of a kind drawn uniformly among those that the space allows."""
    codes = codes_of(parent)
    kinds = [substitute, swap] if len(codes) > 1 else [substitute]
    if len(codes) < space.largest:
        kinds += [insert, duplicate]
    if len(codes) > space.smallest:
        kinds += [delete]
    return Pattern.parse("+".join(rng.choice(kinds)(codes, space, rng)))


def substitute(codes: list[str], space: Space, rng: random.Random) -> list[str]:
    """One layer becomes another primitive."""
    at = rng.randrange(len(codes))
    others = [code for code in space.codes if code != codes[at]] or [codes[at]]
    return [*codes[:at], rng.choice(others), *codes[at + 1 :]]


def swap(codes: list[str], space: Space, rng: random.Random) -> list[str]:
    """Two layers change places."""
    child = codes.copy()
    i, j = rng.sample(range(len(codes)), 2)
    child[i], child[j] = child[j], child[i]
    return child


def insert(codes: list[str], space: Space, rng: random.Random) -> list[str]:
    """One layer more, anywhere."""
    at = rng.randint(0, len(codes))
    return [*codes[:at], rng.choice(space.codes), *codes[at:]]


def delete(codes: list[str], space: Space, rng: random.Random) -> list[str]:
    """One layer less."""
    at = rng.randrange(len(codes))
    return codes[:at] + codes[at + 1 :]


def duplicate(codes: list[str], space: Space, rng: random.Random) -> list[str]:
    """A block is repeated right after itself, as far as the space has room."""
    room = space.largest - len(codes)
    start = rng.randrange(len(codes))
    length = rng.randint(1, min(room, len(codes) - start))
    block = codes[start : start + length]
    return codes[: start + length] + block + codes[start + length :]
