"""`llm` and `scripted`: proposers that ask a model, validate its reply and let it repair what is wrong.

The prompts are in `agents/prompts`, the providers in `agents/llm`. It measures nothing and sees of the
ledger only the view it is given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

from agents.analysis import line
from agents.literature import Digest, relevant
from agents.llm import (
    Call,
    Client,
    Message,
    ModelName,
    Outcome,
    Prompt,
    ScriptedClient,
    connect,
    cost,
    load_prices,
    most_of,
    worst_case,
)
from agents.memory import memory
from agents.prompts import clean, render
from agents.proposers.base import Request
from agents.proposers.replies import LONGEST, BadReply, form_of
from agents.workspace import meter
from agents.workspace.meter import Meter
from agents.workspace.session import Session
from agents.workspace.tools import Desk, offered
from search_space.pattern import Pattern
from storage.records import Answer, CallRecord, Money


@dataclass(frozen=True)
class ModelProposer:
    """Asks ``model`` (`provider:model[@base_url]`), at most 1 + ``max_repairs`` times a proposal.

    A reply has at most ``max_output_tokens``, by default 4,000, or 16,000 where it is code.

    Raises MissingKey when it is first asked and the environment has no key.
    """

    model: str
    max_repairs: int = 2
    max_output_tokens: int | None = None
    memory_tokens: int = 6_000
    literature_tokens: int = 2_000
    timeout_seconds: float = 300.0
    prices: Mapping[str, Any] = field(default_factory=dict)

    scaffold: ClassVar[str] = "greedy"

    @cached_property
    def name(self) -> ModelName:
        return ModelName.parse(self.model)

    @cached_property
    def _prices(self) -> dict[str, Any]:
        return load_prices(self.prices)

    @cached_property
    def _client(self) -> Client:
        return connect(self.name, timeout_seconds=self.timeout_seconds)

    def check(self) -> None:
        """Raise MissingKey when the environment has no key for the model."""
        self._client  # noqa: B018  (connecting is the check)

    def client(self, request: Request) -> Client:
        """Who answers this request."""
        return self._client

    def price(self, call: Call) -> float | None:
        """What a call cost in USD; None where it is not known."""
        return cost(self.name, call, self._prices)

    def quote(self, request: Request) -> Money | None:
        """The worst case: every repair is needed, and every reply is as long as it may be; a session takes
        all that it may."""
        prompt, total, most = self.prompt(request), Money(), form_of(request).repeated
        if request.decision.limits is not None:
            first = Money(1, self.worst(prompt))
            return meter.quote(request.decision.limits, request.view.allowance, first, self._most)
        for _ in range(1 + self.max_repairs):
            total += Money(1, self.worst(prompt))
            prompt = _repair(prompt, "x" * most, "x" * LONGEST)
        return total

    def worst(self, prompt: Prompt) -> float | None:
        """The most that a call can cost in USD; None where it is not known."""
        return worst_case(self.name, prompt, self._prices)

    def _most(self, tokens: int) -> float | None:
        return most_of(self.name, tokens, self._prices)

    async def propose(self, request: Request) -> Answer:
        return await self.ask(self.client(request), request)

    async def ask(
        self, client: Client, request: Request, ended: Callable[[], bool] = lambda: False
    ) -> Answer:
        """The proposal that a client's replies come to, repairs included; or that of a session, which where
        it is replayed has ``ended`` when it did."""
        if request.decision.limits is not None:
            return await self._session(client, request, ended).hold()
        prompt, calls, error, failure = self.prompt(request), [], "", Outcome.malformed.value
        for attempt in range(1 + self.max_repairs):
            call = await client.complete(prompt)
            calls.append(self._record(call, request, attempt))
            try:
                return self._read(call, request, tuple(calls))
            except BadReply as bad:
                error = str(bad)
            failure = "invalid-reply" if call.outcome is Outcome.ok else call.outcome.value
            if call.outcome not in (Outcome.ok, Outcome.malformed, Outcome.truncated):
                break
            prompt = _repair(prompt, _said(call, form_of(request).repeated), error)
        return request.answer(failure=failure, detail=error, calls=tuple(calls))

    def _session(self, client: Client, request: Request, ended: Callable[[], bool]) -> Session:
        limits, writing, bench = request.decision.limits, request.writing, request.bench
        assert limits and writing and bench, "`archwright.setup.check` sees to it"
        measured = Meter(limits, request.view.allowance, self.worst)
        start = [node.source for node in request.decision.parents] or [writing.baseline]
        return Session(
            client=client,
            prompt=self.prompt(request),
            desk=Desk(writing.file, start[0], request.seed, bench, measured),
            meter=measured,
            answer=request.answer,
            record=lambda call, turn: self._record(call, request, turn),
            patience=self.max_repairs,
            ended=ended,
        )

    def prompt(self, request: Request) -> Prompt:
        """What is sent for this request before any repair."""
        view, space, parents = request.view, request.space, request.decision.parents
        form, limits = form_of(request), request.decision.limits
        tools = offered() if limits else ()
        system = render(
            "system",
            catalogue=space.catalogue(),
            space=space,
            goal=request.goal,
            notes=request.notes,
            schema=form.schema,
            writing=request.writing,
            tools=tools,
        )
        asked = render(
            "workspace" if limits else request.decision.operator,
            memory=memory(view, self.memory_tokens, parents),
            literature=self._literature(request),
            noise=view.noise,
            rungs=view.rungs,
            parents=parents,
            analyses=[line(parent, view, LONGEST) for parent in parents],
            writing=request.writing,
            limits=limits,
        )
        most = self.max_output_tokens or form.output_tokens
        schema = {} if tools else form.schema
        return Prompt(system, (Message("user", asked),), schema, most, tools)

    def _literature(self, request: Request) -> list[Digest]:
        """What bears on the request."""
        return relevant(request.literature, _query(request), self.literature_tokens)

    def _read(self, call: Call, request: Request, calls: tuple[CallRecord, ...]) -> Answer:
        """The answer in a call. Raises BadReply with what the model has to mend."""
        if call.data is None:
            raise BadReply(call.error or f"the call ended as {call.outcome}")
        fields: dict[str, Any] = form_of(request).read(call.data, request)
        return request.answer(calls=calls, **fields)

    def _record(self, call: Call, request: Request, attempt: int) -> CallRecord:
        return CallRecord(
            provider=call.provider,
            model=str(self.model),
            operator=request.decision.operator,
            attempt=attempt,
            request=call.request,
            reply=call.reply,
            outcome=call.outcome.value,
            error=call.error,
            http_attempts=call.http_attempts,
            input_tokens=call.input_tokens,
            output_tokens=call.output_tokens,
            cached_tokens=call.cached_tokens,
            reasoning_tokens=call.reasoning_tokens,
            latency_seconds=call.latency_seconds,
            cost_usd=self.price(call),
        )


def _query(request: Request) -> str:
    """What literature is searched for: the task and, of patterns, the space's layers with once more those of
    the parents; of code what the parents claim and are."""
    parents = request.decision.parents
    if request.writing is not None:
        return " ".join([request.goal, *(f"{node.hypothesis} {node.source}" for node in parents)])
    titles = {str(row["code"]): str(row["title"]) for row in request.space.catalogue()}
    patterns = [node.pattern for node in parents]
    codes = [code for pattern in patterns for code in Pattern.parse(pattern).counts]
    return " ".join([request.goal, *titles.values(), *patterns, *(titles.get(c, c) for c in codes)])


def _said(call: Call, limit: int) -> str:
    """A refused reply as it is sent back; a structured one as it was, since in code spaces count."""
    if not call.data:
        return clean(call.reply, limit)
    text = json.dumps(call.data)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _repair(prompt: Prompt, reply: str, error: str) -> Prompt:
    """The prompt with the refused reply and what was wrong with it, for another attempt."""
    said = Message("assistant", reply or "(no reply)")
    asked = Message("user", render("repair", error=clean(error, LONGEST)))
    return replace(prompt, messages=(*prompt.messages, said, asked))


@dataclass(frozen=True)
class ScriptedProposer(ModelProposer):
    """Plays ``replies`` through the real prompt, validation and repair: a double for tests and users.

    Reply n answers the agent's n-th slot, also after a resume; a list of replies is one slot's
    attempts. It costs nothing.
    """

    model: str = "scripted"
    replies: Sequence[Any] = ()

    def check(self) -> None:
        """A script needs no key."""

    def client(self, request: Request) -> Client:
        turn = request.view.turn
        replies = self.replies[turn] if turn < len(self.replies) else []
        return ScriptedClient(replies if isinstance(replies, list) else [replies])

    def price(self, call: Call) -> float:
        return 0.0

    def worst(self, prompt: Prompt) -> float:
        return 0.0

    def quote(self, request: Request) -> None:
        return None
