"""`recorded`: a model agent of an earlier run once more, its model's replies taken from that run's ledger.

Prompts are made and replies are read, repaired and refused as they were then, so that the same search
comes of it, failures included, without a key and without a network. It opens no ledger:
`archwright.recordings` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from agents.llm import RecordedClient
from agents.proposers.base import Request
from agents.proposers.model import ModelProposer
from agents.workspace.recorded import RecordedBench
from storage.records import Answer, CallRecord, Money


@dataclass(frozen=True)
class RecordedProposer:
    """``original`` asked the model then; ``calls`` holds those of each of its slots, in slot order.

    A slot is answered by the calls of the slot of the same number; calls cost what they cost then,
    though nothing is paid. ``place`` names the agent and its run.
    """

    original: ModelProposer
    calls: Sequence[Sequence[CallRecord]]
    place: str

    scaffold: ClassVar[str] = ModelProposer.scaffold

    def check(self) -> None:
        """A record needs no key."""

    def quote(self, request: Request) -> Money | None:
        return self.original.quote(request)

    async def propose(self, request: Request) -> Answer:
        turn = request.view.turn
        recorded = self.calls[turn] if turn < len(self.calls) else ()
        place = f"{self.place}, slot {turn + 1} of its own"
        client = RecordedClient(self.original.model, recorded, place)
        if request.bench is not None:
            request = replace(request, bench=RecordedBench.of(request.bench, recorded))
        answer = await self.original.ask(client, request, ended=lambda: not client.left)
        pairs = zip(answer.calls, client.played, strict=True)
        return replace(answer, calls=tuple(_as_recorded(call, then) for call, then in pairs))


def _as_recorded(call: CallRecord, then: CallRecord | None) -> CallRecord:
    """The call with the cost and the latency of then; at no cost, where there was none."""
    if then is None:
        return replace(call, cost_usd=0.0)
    return replace(then, operator=call.operator, attempt=call.attempt)
