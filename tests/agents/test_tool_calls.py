"""Tool loops over real HTTP, on each wire: what is called, what goes back, what a record gives again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from driving import keys_for

from agents.llm import (
    Call,
    Message,
    ModelName,
    Outcome,
    Prompt,
    RecordedClient,
    ScriptedClient,
    connect,
    worst_case,
)
from agents.llm.loopback import Behaviour, Loopback, refusal, text, truncated, use
from agents.llm.prices import Price, most_tokens
from agents.llm.types import Tool, ToolCall, ToolResult
from storage.records import CallRecord

TOOLS = (
    Tool("read", "Read a file.", {"type": "object", "properties": {"path": {"type": "string"}}}),
    Tool("submit", "Submit.", {"type": "object", "properties": {}}),
)
PROMPT = Prompt("You write code.", (Message("user", "Begin."),), {}, 500, TOOLS)
WIRES = ("anthropic:m", "openai:m", "openai:m@{url}/v1")


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def talk(
    wire: str, patch: pytest.MonkeyPatch, behaviours: Sequence[Behaviour], results: str = "found"
) -> tuple[ModelName, list[Call], list[dict[str, Any]]]:
    """A conversation: each call's results go back with the next one, until the script is at its end."""
    with Loopback(behaviours) as server:
        keys_for(server.url, patch)
        name = ModelName.parse(wire.format(url=server.url))
        client, prompt, calls = connect(name, timeout_seconds=10), PROMPT, list[Call]()
        for _ in behaviours:
            calls.append(asyncio.run(client.complete(prompt)))
            prompt = answered(prompt, calls[-1], results)
        return name, calls, [received.body for received in server.received]


def answered(prompt: Prompt, call: Call, text: str) -> Prompt:
    results = tuple(ToolResult(one.id, f"{text} {one.name}") for one in call.tool_calls)
    turns = Message("assistant", reply=call.reply), Message("user", results=results)
    return replace(prompt, messages=(*prompt.messages, *turns))


TWO = (use(("read", {"path": "a"}), ("read", {"path": "b"})), use(("submit", {})))


def test_calls_are_read_and_their_results_go_back_with_all_that_was_said(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (first, second), (opening, following) = talk(wire, monkeypatch, TWO)
    assert [one.arguments for one in first.tool_calls] == [{"path": "a"}, {"path": "b"}]
    assert [one.name for one in second.tool_calls] == ["submit"]
    assert (first.outcome, first.data, first.http_attempts) == (Outcome.ok, None, 1)
    names = [one.get("name") or one["function"]["name"] for one in opening["tools"]]
    assert names == ["read", "submit"]
    turns = following.get("messages") or following["input"]
    sent = json.dumps(turns)
    for one in first.tool_calls:
        assert sent.count(f'"{one.id}"') == 2, "the call and its result"
    assert "found read" in sent
    hidden = {"anthropic:m": '"signature": "s"', "openai:m": '"encrypted_content": "hidden"'}
    assert hidden.get(wire, "") in sent, "reasoning goes back as it came"
    assert "response_format" not in following and "text" not in following


def test_anthropics_cache_is_asked_for_at_the_end_of_every_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, _, sent = talk("anthropic:m", monkeypatch, TWO)
    assert [body["cache_control"] for body in sent] == [{"type": "ephemeral"}] * 2


@pytest.mark.parametrize(
    ("behaviour", "outcome"),
    [
        (text("I would rather chat."), Outcome.malformed),
        (refusal(), Outcome.refusal),
        (truncated(), Outcome.truncated),
    ],
)
def test_what_calls_no_tool_is_typed_and_still_counts(
    wire: str, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour, outcome: Outcome
) -> None:
    _, [call], _ = talk(wire, monkeypatch, [behaviour])
    assert (call.outcome, call.tool_calls) == (outcome, ())
    assert call.error
    assert call.output_tokens is not None


@pytest.mark.parametrize("arguments", ["{", "[1]", "", '{"a": NaN}', '{"a": "\\ud800"}'])
def test_arguments_that_are_no_object_are_none(
    monkeypatch: pytest.MonkeyPatch, arguments: str
) -> None:
    for wire in ("openai:m", "openai:m@{url}/v1"):
        _, [call], _ = talk(wire, monkeypatch, [use(("read", arguments))])
        assert call.outcome is Outcome.ok
        assert [one.arguments for one in call.tool_calls] == [None]


def test_a_record_gives_the_same_conversation_again(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, calls, _ = talk(wire, monkeypatch, TWO)
    client, prompt = RecordedClient(str(name), [record(call) for call in calls], "here"), PROMPT
    for call in calls:
        again = asyncio.run(client.complete(prompt))
        assert (again.outcome, again.tool_calls, again.reply) == (
            Outcome.ok,
            call.tool_calls,
            call.reply,
        )
        prompt = answered(prompt, again, "found")
    other = answered(PROMPT, calls[0], "otherwise")
    client = RecordedClient(str(name), [record(calls[1])], "here")
    call = asyncio.run(client.complete(other))
    assert call.outcome is Outcome.unrecorded
    assert "otherwise" in call.error


def record(call: Call) -> CallRecord:
    return CallRecord(
        provider=call.provider,
        model=call.model,
        operator="",
        attempt=0,
        request=call.request,
        reply=call.reply,
        outcome=call.outcome.value,
        input_tokens=call.input_tokens,
        output_tokens=call.output_tokens,
    )


def test_the_worst_case_counts_every_byte_that_is_sent(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token for each byte: also of tools, of the replies that go back and of the results."""
    name, calls, sent = talk(wire, monkeypatch, TWO, "é" * 2_000)
    prompt = answered(PROMPT, calls[0], "é" * 2_000)
    assert most_tokens(prompt) >= len(json.dumps(sent[1], ensure_ascii=False).encode())
    price = Price(1.0, 0.0, 1.0, 1.0)
    assert worst_case(name, prompt, {str(name): price}) == pytest.approx(most_tokens(prompt) / 1e6)


def test_a_script_plays_turns_and_its_record_too() -> None:
    turns = [{"read": {"path": "a"}, "submit": {}}, "chat", {"read": 3}]
    client, prompt, calls = ScriptedClient(turns), PROMPT, list[Call]()
    for _ in turns:
        calls.append(asyncio.run(client.complete(prompt)))
        prompt = answered(prompt, calls[-1], "found")
    assert calls[0].tool_calls == (
        ToolCall("call_0", "read", {"path": "a"}),
        ToolCall("call_1", "submit", {}),
    )
    assert calls[1].outcome is Outcome.malformed
    assert calls[2].tool_calls == (ToolCall("call_0", "read", None),)
    again = RecordedClient("scripted", [record(call) for call in calls], "here")
    assert asyncio.run(again.complete(PROMPT)).tool_calls == calls[0].tool_calls
