"""A scripted proposer with a price, named in recipes by import path: for tests of the budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from agents.llm import Call, Client, Prompt
from agents.proposers.base import Request
from agents.proposers.model import ScriptedProposer
from storage.records import Money

NAME = "priced_double:PricedProposer"


@dataclass(frozen=True)
class Wire:
    """Passes calls on as if they had gone over a wire: with attempts, and counted in ``made``."""

    client: Client
    http_attempts: int

    made: ClassVar[list[str]] = []

    async def complete(self, prompt: Prompt) -> Call:
        call = await self.client.complete(prompt)
        self.made.append(call.reply)
        return replace(call, http_attempts=self.http_attempts)


@dataclass(frozen=True)
class PricedProposer(ScriptedProposer):
    usd: float = 1.0
    http_attempts: int = 1

    def client(self, request: Request) -> Client:
        return Wire(super().client(request), self.http_attempts)

    def price(self, call: Call) -> float | None:  # type: ignore[override]
        return None if call.reply and '"unpriced"' in call.reply else self.usd

    def quote(self, request: Request) -> Money:  # type: ignore[override]
        most = 1 + self.max_repairs
        return Money(most, most * self.usd)
