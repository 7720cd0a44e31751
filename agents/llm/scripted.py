"""A client that plays a list of replies: the double that users and tests share.

It uses no network and no SDK, and it does not look at the prompt, only records it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from agents.llm.replies import (
    Malformed,
    Reading,
    Usage,
    parse_object,
    read,
    read_tools,
    storable,
    structured_text,
    tool_call,
)
from agents.llm.types import Call, Outcome, Prompt

# Nothing was sent, so nothing was counted or paid: zero is the truth here, not a guess.
FREE = Usage(0, 0, 0, 0, 0)


class ScriptedClient:
    """Answers call n with reply n: a dict as the structured reply, a str as the model's text.

    A text is read as a provider's is (fenced JSON, else all of it), so a script can hold malformed
    replies. To a prompt with tools a dict is the calls of one turn, `{tool: arguments}`. A call beyond the
    script is a `bad_request` whose error says so.
    """

    def __init__(self, replies: Sequence[dict[str, Any] | str]) -> None:
        self._replies = tuple(replies)
        self._next = 0

    async def complete(self, prompt: Prompt) -> Call:
        """The next reply of the script; never raises."""
        reply, reading = self._play(bool(prompt.tools))
        return Call(
            provider="scripted",
            model="scripted",
            request=json.dumps(body(prompt)),
            reply=reply,
            data=reading.data,
            outcome=reading.outcome,
            error=reading.error,
            latency_seconds=0.0,
            http_attempts=0,
            tool_calls=reading.tool_calls,
            **vars(reading.usage),
        )

    def _play(self, tools: bool) -> tuple[str, Reading]:
        if self._next == len(self._replies):
            error = f"the script of {self._next} replies is exhausted: give it one reply per call"
            return "", Reading(Outcome.bad_request, error, usage=FREE)
        reply, self._next = self._replies[self._next], self._next + 1
        text = reply if isinstance(reply, str) else json.dumps(reply)
        if tools:
            return text, read_turn(text)
        if isinstance(reply, str):
            return text, read(lambda: structured_text(reply), FREE)
        return text, read(lambda: storable(reply), FREE)


def body(prompt: Prompt) -> dict[str, Any]:
    """A prompt as the record of a scripted call holds it, without what is empty."""

    def stated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in pairs if value not in ("", ())}

    return dataclasses.asdict(prompt, dict_factory=stated)


def read_turn(text: str) -> Reading:
    """A turn of a tool loop, `{tool: arguments}`; a text that is no object calls no tool."""
    try:
        calls = parse_object(text)
    except Malformed:
        calls = {}
    return read_tools(
        lambda: [tool_call(f"call_{i}", *pair) for i, pair in enumerate(calls.items())], FREE
    )
