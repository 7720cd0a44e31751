"""`best-of-n`: the control that asks a model the same question every time and keeps the best answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from agents.llm import Prompt
from agents.proposers.base import Request
from agents.proposers.model import ModelProposer
from agents.scaffolds.base import Decision
from storage.records import View


@dataclass(frozen=True)
class BestOfN(ModelProposer):
    """Sends one and the same draft prompt for every slot, without memory or feedback; N is the budget.

    What a search with the same model gains over it is what the feedback was worth. It needs a model; its
    counterpart without one is `random` under `one-shot`, the best of N draws from the space.
    """

    scaffold: ClassVar[str] = "one-shot"

    def prompt(self, request: Request) -> Prompt:
        blind = Decision("draft", (), request.decision.reason)
        return super().prompt(replace(request, decision=blind, view=View()))
