"""What is said to a model and what comes back: names, prompts, outcomes and the record of a call.

Plain frozen data with validation of the model's name, shared by every client and by the ledger's
writer. It opens no connection, reads no environment and knows no price.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal
from urllib.parse import urlsplit

PROVIDERS = ("anthropic", "openai")
REPLY = "reply"  # the name under which every provider is given the schema of the structured reply


@dataclass(frozen=True)
class ModelName:
    """A model as the user writes it: `provider:model` or `provider:model@base_url`.

    `base_url` names a server of the provider's protocol (vLLM, Ollama, llama.cpp, a gateway).
    Raises ValueError for an unknown provider, an empty model or an address that is not plain HTTP.
    """

    provider: str
    model: str
    base_url: str | None = None

    def __post_init__(self) -> None:
        _check_provider(self.provider)
        if not self.model or self.model != "".join(self.model.split()):
            raise ValueError(
                f"model {self.provider}:{self.model!r} is empty or holds white space: "
                f"write provider:model, e.g. {self.provider}:some-model"
            )
        if self.base_url is not None:
            _check_base_url(self.base_url)

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Read `provider:model[@base_url]`; `str()` gives the same text back."""
        provider, colon, rest = text.partition(":")
        if not colon:
            raise ValueError(
                f"model {text!r} names no provider: write provider:model, e.g. "
                f"{PROVIDERS[0]}:{text or 'some-model'} (providers: {', '.join(PROVIDERS)})"
            )
        model, at, base_url = rest.partition("@")
        return cls(provider, model, base_url if at else None)

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}" + (f"@{self.base_url}" if self.base_url else "")


def _check_provider(provider: str) -> None:
    if provider in PROVIDERS:
        return
    near = difflib.get_close_matches(provider, PROVIDERS, n=1, cutoff=0.0)[0]
    raise ValueError(
        f"model provider {provider!r} is unknown: did you mean {near!r}? "
        f"(providers: {', '.join(PROVIDERS)})"
    )


def _check_base_url(url: str) -> None:
    # The address is stored in the ledger with every call, so nothing secret may hide in it;
    # for the same reason the message below does not repeat it.
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            "base_url after '@' in the model's name is not an http(s) address: "
            "write e.g. openai:some-model@http://127.0.0.1:8000/v1"
        )
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            f"base_url of the server {parts.hostname} carries a user, a query or a fragment: "
            "keys come from the environment only, so write the bare address"
        )


@dataclass(frozen=True)
class Tool:
    """What a model may call: a name, what it does, and the JSON schema of its arguments (an object)."""

    name: str
    description: str
    schema: dict[str, Any]


@dataclass(frozen=True)
class ToolCall:
    """A model's call of a tool; ``arguments`` is None for what is no JSON object. ``id`` is the model's."""

    id: str
    name: str
    arguments: dict[str, Any] | None


@dataclass(frozen=True)
class ToolResult:
    """What came of the call with this id."""

    id: str
    text: str


@dataclass(frozen=True)
class Message:
    """One turn of the conversation: a text; or, in a tool loop, a ``reply``, or the ``results`` of its calls
    with a text beside them or without.

    A reply is the body that came from the model, of which all that the provider wants back goes back as it
    was, hidden reasoning included.
    """

    role: Literal["user", "assistant"]
    text: str = ""
    reply: str = ""
    results: tuple[ToolResult, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """One request: instructions, the turns so far, and how to answer: by an object of this JSON schema, or,
    where there are ``tools``, by calling them."""

    system: str
    messages: tuple[Message, ...]
    schema: dict[str, Any]
    max_output_tokens: int
    tools: tuple[Tool, ...] = ()


class Outcome(StrEnum):
    """How a call ended; every value but `ok` leaves `Call.data` None and `Call.tool_calls` empty."""

    ok = "ok"
    refusal = "refusal"
    truncated = "truncated"
    malformed = "malformed"  # not JSON, nothing of what was asked for, or over the size limit
    rate_limited = "rate_limited"
    overloaded = "overloaded"
    server_error = "server_error"
    timeout = "timeout"
    connection = "connection"
    auth = "auth"  # the key or the account behind it
    bad_request = "bad_request"  # the request could not be made, or the server would not have it
    unrecorded = "unrecorded"  # a record was to answer, and does not hold this request


@dataclass(frozen=True)
class Call:
    """The record of one attempt at a completion, free of headers and of the key.

    An `ok` one holds the structured reply as ``data`` or, where the prompt had tools, ``tool_calls``.
    `request` is the body that went over the wire (the last one, where a fallback or a retry sent
    several; empty where none did), `reply` the body that came back, errors included. Token counts are
    the provider's own, None where it gave none; `input_tokens` includes those read from
    (`cached_tokens`) and written to (`cache_write_tokens`) the prompt cache, `output_tokens` includes
    `reasoning_tokens`. `http_attempts` counts requests on the wire, retries and fallbacks included.
    """

    provider: str
    model: str
    request: str
    reply: str
    data: dict[str, Any] | None
    outcome: Outcome
    error: str
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    cache_write_tokens: int | None
    reasoning_tokens: int | None
    latency_seconds: float
    http_attempts: int
    tool_calls: tuple[ToolCall, ...] = ()
