"""Reading what a model sent: bytes to JSON, text to a structured reply, usage to counts.

Everything here is pure and total on untrusted input: bad input raises `Malformed` or gives None.
It checks that a reply is a storable JSON object, not that it follows the prompt's schema: that is
the proposer's work, which can send the precise error back to the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agents.llm.types import Outcome, ToolCall

MAX_REPLY_BYTES = 1_000_000
MAX_ERROR_CHARACTERS = 400


class Malformed(ValueError):
    """The reply holds no structured reply; the message says why."""


@dataclass(frozen=True)
class Usage:
    """Token counts as the provider gave them, in the meaning of `Call`'s fields."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


@dataclass(frozen=True)
class Reading:
    """What one exchange came to."""

    outcome: Outcome
    error: str = ""
    data: dict[str, Any] | None = None
    usage: Usage = field(default_factory=Usage)
    tool_calls: tuple[ToolCall, ...] = ()


def read(extract: Callable[[], dict[str, Any]], usage: Usage) -> Reading:
    """`ok` with what `extract` finds, `malformed` if it raises `Malformed`: paid for either way."""
    try:
        return Reading(Outcome.ok, data=extract(), usage=usage)
    except Malformed as error:
        return Reading(Outcome.malformed, clip(str(error)), usage=usage)


def read_tools(extract: Callable[[], list[ToolCall]], usage: Usage) -> Reading:
    """`ok` with the tool calls that `extract` finds, `malformed` where there is none."""
    if calls := extract():
        return Reading(Outcome.ok, usage=usage, tool_calls=tuple(calls))
    return Reading(Outcome.malformed, "the reply calls none of the tools", usage=usage)


def tool_call(id_: object, name: object, arguments: object) -> ToolCall:
    """A call as a provider sends it, its arguments an object or the JSON text of one."""
    try:
        found = parse_object(arguments) if isinstance(arguments, str) else storable(arguments)
    except Malformed:
        found = None
    return ToolCall(texts([id_]), texts([name]), found)


def parse_object(text: str) -> dict[str, Any]:
    """The JSON object in `text`. Raises Malformed."""
    try:
        # strict=False: models write code into JSON strings with raw line breaks.
        value = json.loads(text, strict=False, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the reply is not JSON: {error}") from None
    return storable(value)


def storable(value: object) -> dict[str, Any]:
    """`value` if it is a JSON object that can be written as UTF-8. Raises Malformed."""
    if not isinstance(value, dict):
        raise Malformed(f"the reply is a JSON {type(value).__name__}, not an object")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        # "\ud800" is legal JSON and no legal text: SQLite would refuse it, long after the call.
        raise Malformed("the reply holds half a surrogate pair or nests too deeply") from None
    return value


def structured_text(text: str) -> dict[str, Any]:
    """The object in a text reply: its last fenced ```json block, else all of it as JSON."""
    fenced = last_fenced(text)
    return parse_object(text if fenced is None else fenced)


def last_fenced(text: str) -> str | None:
    """The content of the last closed ```json block, or None.

    Line by line, because a regular expression takes quadratic time on unclosed fences, and
    because a fence inside a JSON string does not stand alone on a line.
    """
    found: str | None = None
    block: list[str] | None = None
    for line in text.split("\n"):
        mark = line.strip().lower()
        if block is None:
            block = [] if mark == "```json" else None
        elif mark == "```":
            found, block = "\n".join(block), None
        else:
            block.append(line)
    return found


def table(value: object) -> dict[str, Any]:
    """`value` if it is an object, else an empty one: lets a reader walk a body it cannot trust."""
    return value if isinstance(value, dict) else {}


def rows(value: object) -> list[dict[str, Any]]:
    """The objects in a list, or an empty list."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def texts(value: list[object]) -> str:
    """The strings among `value`, joined."""
    return "".join(text for text in value if isinstance(text, str))


def count(value: object) -> int | None:
    """A token count, or None for anything that is not a whole number of at least zero."""
    return value if type(value) is int and value >= 0 else None


def clip(text: str) -> str:
    """`text` on one line, without control characters, at most `MAX_ERROR_CHARACTERS` long."""
    # Cut before cleaning too: an error page of a megabyte must not cost a pass over each character.
    line = "".join(c if c.isprintable() else " " for c in text[: 4 * MAX_ERROR_CHARACTERS])
    return " ".join(line.split())[:MAX_ERROR_CHARACTERS]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
