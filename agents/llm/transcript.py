"""Reads a conversation back from what went over the wire, in order and in whichever provider's format.

For people who read a ledger and for replays. It judges nothing: what it does not know it shows as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from agents.llm.replies import rows, table, texts

Who = Literal["system", "user", "agent", "tool"]


@dataclass(frozen=True)
class Said:
    """One thing that was said. Of a tool's call and its result ``tool`` is the name and ``id`` the model's
    own; ``text`` of a call is its arguments."""

    who: Who
    text: str
    tool: str = ""
    id: str = ""


def conversation(calls: Iterable[tuple[str, str]]) -> list[Said]:
    """All that was said in calls of which each goes on from the one before, as (request, reply).

    What the model said is taken from its replies: some of them go on in other words, or not at all.
    """
    said, before = list[Said](), 0
    for request, reply in calls:
        turns = list(asked(request))
        said += [turn for turn in turns[before:] if turn.who != "agent"]
        said += answered(reply)
        before = len(turns)
    return _named(said)


def _named(said: list[Said]) -> list[Said]:
    """Results with the names of their tools: those of the last calls with their ids."""
    names, found = dict[str, str](), list[Said]()
    for turn in said:
        if turn.who == "agent" and turn.tool:
            names[turn.id] = turn.tool
        named = turn.who == "tool" and not turn.tool
        found.append(replace(turn, tool=names.get(turn.id, "")) if named else turn)
    return found


def asked(request: str) -> Iterator[Said]:
    """What a request's body says, the instructions first."""
    body = table(_read(request))
    system = body.get("instructions") or body.get("system") or ""
    words = (
        system if isinstance(system, str) else texts([part.get("text") for part in rows(system)])
    )
    if words:
        yield Said("system", words)
    for turn in [*rows(body.get("messages")), *rows(body.get("input"))]:
        yield from _turn(turn)


def answered(reply: str) -> list[Said]:
    """What a reply's body says; the body itself where it is in no format that we know."""
    body = table(_read(reply))
    turns = [
        *rows(body.get("output")),
        *(table(c.get("message")) for c in rows(body.get("choices"))),
    ]
    if body.get("role") == "assistant":
        turns = [body]
    said = [said for turn in turns for said in _turn(turn)]
    return said or _scripted(reply)


def _scripted(reply: str) -> list[Said]:
    """A script's turn, `{tool: arguments}`, or whatever else it is."""
    calls = _read(reply)
    if isinstance(calls, dict) and calls and all(isinstance(v, dict) for v in calls.values()):
        return [
            Said("agent", json.dumps(arguments), name, f"call_{i}")
            for i, (name, arguments) in enumerate(calls.items())
        ]
    return [Said("agent", reply)] if reply else []


def _turn(turn: dict[str, Any]) -> Iterator[Said]:
    """A message or an item of any of the formats."""
    match turn:
        case {"type": "function_call", "name": str(name), "arguments": str(text)}:
            yield Said("agent", text, name, str(turn.get("call_id")))
        case {"type": "function_call_output", "output": str(text)}:
            yield Said("tool", text, "", str(turn.get("call_id")))
        case {"type": "reasoning"}:
            yield from _text("agent", [part.get("text") for part in rows(turn.get("summary"))])
        case {"role": "tool", "content": str(text)}:
            yield Said("tool", text, "", str(turn.get("tool_call_id")))
        case {"role": _, "reply": str(reply)}:
            yield from _scripted(reply)
        case {"role": str(role)}:
            who: Who = "agent" if role == "assistant" else "system" if role == "system" else "user"
            yield from _message(who, turn)


def _message(who: Who, turn: dict[str, Any]) -> Iterator[Said]:
    for result in rows(turn.get("results")):
        yield Said("tool", texts([result.get("text")]), "", str(result.get("id")))
    content = turn.get("content", turn.get("text"))
    yield from _text(who, [content])
    for block in rows(content):
        yield from _block(who, block)
    for call in rows(turn.get("tool_calls")):
        function = table(call.get("function"))
        arguments, name = texts([function.get("arguments")]), texts([function.get("name")])
        yield Said(who, arguments, name, str(call.get("id")))


def _block(who: Who, block: dict[str, Any]) -> Iterator[Said]:
    match block:
        case {"type": "tool_use", "name": str(name)}:
            yield Said(who, json.dumps(block.get("input")), name, str(block.get("id")))
        case {"type": "tool_result", "content": str(text)}:
            yield Said("tool", text, "", str(block.get("tool_use_id")))
        case _:
            yield from _text(who, [block.get("text"), block.get("thinking"), block.get("refusal")])


def _text(who: Who, found: list[object]) -> Iterator[Said]:
    if words := texts(found):
        yield Said(who, words)


def _read(text: str) -> Any:
    """The JSON in a body; nothing where there is none."""
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return None
