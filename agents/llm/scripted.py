"""A client that plays a list of replies: the double that users and tests share.

It uses no network and no SDK, and it does not look at the prompt, only records it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from agents.llm.replies import Reading, Usage, read, storable, structured_text
from agents.llm.types import Call, Outcome, Prompt

# Nothing was sent, so nothing was counted or paid: zero is the truth here, not a guess.
FREE = Usage(0, 0, 0, 0, 0)


class ScriptedClient:
    """Answers call n with reply n: a dict as the structured reply, a str as the model's text.

    A text is read as a provider's is (fenced JSON, else all of it), so a script can hold malformed
    replies. A call beyond the script is a `bad_request` whose error says so.
    """

    def __init__(self, replies: Sequence[dict[str, Any] | str]) -> None:
        self._replies = tuple(replies)
        self._next = 0

    async def complete(self, prompt: Prompt) -> Call:
        """The next reply of the script; never raises."""
        reply, reading = self._play()
        return Call(
            provider="scripted",
            model="scripted",
            request=json.dumps(dataclasses.asdict(prompt)),
            reply=reply,
            data=reading.data,
            outcome=reading.outcome,
            error=reading.error,
            latency_seconds=0.0,
            http_attempts=0,
            **vars(reading.usage),
        )

    def _play(self) -> tuple[str, Reading]:
        if self._next == len(self._replies):
            error = f"the script of {self._next} replies is exhausted: give it one reply per call"
            return "", Reading(Outcome.bad_request, error, usage=FREE)
        reply, self._next = self._replies[self._next], self._next + 1
        if isinstance(reply, str):
            return reply, read(lambda: structured_text(reply), FREE)
        return json.dumps(reply), read(lambda: storable(reply), FREE)
