"""A client that answers from the record of earlier calls: what was asked then is answered as it was then.

It uses no network, no SDK and no key. A failure that was recorded is the answer as much as a reply is;
what was never asked before is outcome `unrecorded`, and its error says in what it differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from agents.llm.replies import Reading
from agents.llm.scripted import FREE
from agents.llm.types import Call, Outcome, Prompt
from agents.llm.wires import wire
from agents.prompts.sections import split
from storage.records import CallRecord

SHOWN = 60  # characters of what differs


class RecordedClient:
    """Answers each prompt from ``calls``, by the hash of its request; of equal ones in their order, each
    once. ``place`` says in errors whose calls they are.

    ``played`` holds, for each prompt so far, the call that answered it, None where there was none.
    """

    def __init__(self, model: str, calls: Sequence[CallRecord], place: str) -> None:
        self._wire, self._left, self._place = wire(model), list(calls), place
        self.played: list[CallRecord | None] = []

    @property
    def left(self) -> int:
        """How many calls have not been played."""
        return len(self._left)

    async def complete(self, prompt: Prompt) -> Call:
        """The recorded completion; never raises."""
        bodies = self._wire.bodies(prompt)
        found = self._take({request_hash(json.dumps(body)) for body in bodies})
        self.played.append(found)
        return self._again(found, prompt) if found else self._unrecorded(bodies)

    def _take(self, hashes: set[str]) -> CallRecord | None:
        for call in self._left:
            # A call that never reached the wire has no request: it is answered in its turn.
            if not call.request or request_hash(call.request) in hashes:
                self._left.remove(call)
                return call
        return None

    def _again(self, call: CallRecord, prompt: Prompt) -> Call:
        outcome = Outcome(call.outcome)
        # The outcome is the recorded one; a reply that was no good is not read for more.
        reading = Reading(outcome)
        if outcome is Outcome.ok:
            reading = self._wire.read(call.reply, bool(prompt.tools))
        return Call(
            provider=call.provider,
            model=call.model,
            request=call.request,
            reply=call.reply,
            data=reading.data,
            outcome=outcome,
            error=call.error,
            input_tokens=call.input_tokens,
            output_tokens=call.output_tokens,
            cached_tokens=call.cached_tokens,
            cache_write_tokens=None,
            reasoning_tokens=call.reasoning_tokens,
            latency_seconds=call.latency_seconds or 0.0,
            http_attempts=call.http_attempts,
            tool_calls=reading.tool_calls,
        )

    def _unrecorded(self, bodies: list[dict[str, Any]]) -> Call:
        return Call(
            provider="recorded",
            model="recorded",
            request=json.dumps(bodies[0]),
            reply="",
            data=None,
            outcome=Outcome.unrecorded,
            error=f"{self._place}: {self._difference(bodies)}",
            latency_seconds=0.0,
            http_attempts=0,
            **vars(FREE),
        )

    def _difference(self, bodies: list[dict[str, Any]]) -> str:
        if not self._left:
            return (
                f"{len(self.played) - 1} calls are recorded there, and this is one more: ask a model, "
                "or end the search where the recorded one ended"
            )
        recorded = _read(self._left[0].request)
        nearest = max(bodies, key=lambda body: _shared(_canonical(body), _canonical(recorded)))
        return (
            f"the recorded request is another: {difference(nearest, recorded)}: replay with the recipe, "
            "the notes and the literature of that run, or ask a model"
        )


def request_hash(request: str) -> str:
    """The SHA-256 of a request, the same however its JSON is laid out."""
    return hashlib.sha256(_canonical(_read(request)).encode()).hexdigest()


def _read(request: str) -> Any:
    """The JSON of a request; the text itself of one that a client of the user's own wrote otherwise."""
    try:
        return json.loads(request)
    except ValueError:
        return request


def difference(asked: Any, recorded: Any, place: str = "") -> str:
    """Where two JSON values first differ, in words; empty where they do not."""
    if isinstance(asked, dict) and isinstance(recorded, dict):
        pairs = [(k, asked.get(k), recorded.get(k)) for k in {**asked, **recorded}]
    elif isinstance(asked, list | tuple) and isinstance(recorded, list):
        pairs = [(i, *pair) for i, pair in enumerate(zip_longest(asked, recorded))]
    elif isinstance(asked, str) and isinstance(recorded, str):
        return _text_difference(asked, recorded, place)
    else:
        return "" if asked == recorded else f"{place} is {asked!r}, not {recorded!r}"
    found = (difference(one, two, f"{place}.{key}".lstrip(".")) for key, one, two in pairs)
    return next((text for text in found if text), "")


def _text_difference(asked: str, recorded: str, place: str) -> str:
    if asked == recorded:
        return ""
    at = _shared(asked, recorded)
    start = asked.rfind("\n", 0, at) + 1
    one, two = (text[max(start, at - SHOWN // 2) :][:SHOWN] for text in (asked, recorded))
    return f"{place}{_section(asked, at)} has {one!r} where it has {two!r}"


def _section(text: str, at: int) -> str:
    end = 0
    for name, part in split(text):
        end += len(part)
        if at < end:
            return f", section {name},"
    return ""


def _shared(one: str, two: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(one, two, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(two)))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
