"""`knobs`: turns the numbers at the head of a training script, without a model.

The offline counterpart of a model that edits `train.py`. A knob is a line `NAME = number` that stands at the
margin, its name in capitals. Stateless: what it knows of a script is its source. Without a parent it starts
from the baseline, so that with `one-shot` it is random search around it.
"""

from __future__ import annotations

import ast
import math
import random
import re
from typing import ClassVar

from agents.edits import Edit, edited
from agents.proposers.base import Request
from storage.records import Answer

KNOB = re.compile(r"^([A-Z][A-Z0-9_]*) = (\d[\d_]*(?:\.\d+)?(?:e-?\d+)?)(?=\s|$).*$", re.MULTILINE)
FACTORS = (0.5, 0.7, 1.4, 2.0)
FROM_NOTHING = 0.1  # what a knob at 0 is turned to: a dropout, say
TRIES = 100  # scripts made before one that the agent has already proposed is proposed again


class KnobsProposer:
    """Turns one to ``most`` knobs of the parent at a time."""

    scaffold: ClassVar[str] = "incumbent"

    def __init__(self, most: int = 2) -> None:
        self.most = most

    def check(self) -> None:
        """It needs nothing."""

    def quote(self, request: Request) -> None:
        return None

    async def propose(self, request: Request) -> Answer:
        source, rng = parent(request), request.rng
        knobs = [knob for knob in KNOB.finditer(source) if source.count(knob[0]) == 1]
        if not knobs:
            return request.answer(failure="no-knobs", detail="the script has no line NAME = number")
        seen = {node.source for node in request.view.nodes} | {source}
        for _ in range(TRIES):
            chosen = rng.sample(knobs, min(len(knobs), rng.randint(1, self.most)))
            turns = [(knob, turned(knob[2], rng)) for knob in chosen]
            child = edited(source, [edit(knob, new) for knob, new in turns])
            if child not in seen:
                break
        said = ", ".join(f"{knob[1]} from {knob[2]} to {new}" for knob, new in turns)
        return request.answer(source=child, hypothesis=said)


def parent(request: Request) -> str:
    """The source to change: that of the first parent, else the baseline."""
    baseline = request.writing.baseline if request.writing else ""
    return next((node.source for node in request.decision.parents if node.source), baseline)


def edit(knob: re.Match[str], new: str) -> Edit:
    """The line of a knob with another number."""
    return Edit(knob[0], knob[0].replace(f" = {knob[2]}", f" = {new}", 1))


def turned(text: str, rng: random.Random) -> str:
    """Another number: times a factor; of one between a half and 1, what is missing to 1 is. An integer
    stays one, of at least 1."""
    value, factor = ast.literal_eval(text), rng.choice(FACTORS)
    if isinstance(value, int):
        new = math.ceil(value * factor) if factor > 1 else int(value * factor)
        return str(new if 0 < new != value else value + 1)
    if value == 0:
        return str(FROM_NOTHING)
    near_one = 0.5 < value < 1
    return str(float(f"{1 - (1 - value) * factor if near_one else value * factor:.3g}"))
