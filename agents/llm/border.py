"""The border to the providers: one call's clock, count, classification and record.

`attempt` is the one place of the LLM side that catches every exception; it turns each into an
outcome and stores its text. Retrying on 408, 409, 429 and 5xx with the server's `retry-after` is
the SDK's work (`_base_client.py` of both), not done again here; neither is a budget kept here.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import time
from collections.abc import Awaitable
from typing import Any

from agents.llm.replies import MAX_REPLY_BYTES, Malformed, Reading, clip, parse_object, table
from agents.llm.types import Call, ModelName, Outcome

CONNECT_SECONDS = 10.0  # a server that is not there: retried by the SDK long before the wall clock
NO_KEY = "none"  # what a server of one's own is sent where the user has no key
KEPT_CHARACTERS = 10_000  # of a reply over the size limit

_BY_STATUS = {
    401: Outcome.auth,
    402: Outcome.auth,
    403: Outcome.auth,
    408: Outcome.timeout,
    429: Outcome.rate_limited,
    503: Outcome.overloaded,
    504: Outcome.timeout,
    529: Outcome.overloaded,
}


class Exchange:
    """What went over the wire for one call, kept without the key."""

    def __init__(self, name: ModelName, api_key: str) -> None:
        self._name = name
        self._api_key = api_key
        self._request = ""
        self._reply = ""
        self._attempts = 0

    async def sent(self, request: Any) -> None:
        """The HTTP client's request hook: runs once for each request put on the wire, and keeps its
        body as the SDK wrote it, the last one's."""
        self._attempts += 1
        self._request, self._reply = self._scrub(request.content.decode()), ""

    def received(self, content: bytes) -> dict[str, Any]:
        """Keep the reply's body as it came, one that is too long at its head, and return the object in
        it. Raises Malformed."""
        text = self._scrub(content.decode("utf-8", "replace"))
        if len(content) > MAX_REPLY_BYTES:
            self._reply = text[:KEPT_CHARACTERS]
            raise Malformed(
                f"the reply is {len(content):,} bytes long, the limit is {MAX_REPLY_BYTES:,}: "
                "lower max_output_tokens or use another server"
            )
        self._reply = text
        return parse_object(text)

    def record(self, reading: Reading, latency_seconds: float) -> Call:
        """The call as the ledger keeps it."""
        return Call(
            provider=self._name.provider,
            model=self._name.model,
            request=self._request,
            reply=self._reply,
            data=reading.data,
            outcome=reading.outcome,
            error=self._scrub(reading.error),
            latency_seconds=latency_seconds,
            http_attempts=self._attempts,
            tool_calls=reading.tool_calls,
            **vars(reading.usage),
        )

    def refused(self, content: bytes) -> None:
        """Keep the body of an error response."""
        self._reply = self._scrub(content.decode("utf-8", "replace")[:KEPT_CHARACTERS])

    def _scrub(self, text: str) -> str:
        return text if self._api_key == NO_KEY else text.replace(self._api_key, "[key]")


def http_options(exchange: Exchange) -> dict[str, Any]:
    """Settings of the HTTP client of one call, beyond the SDK's own."""
    return {
        "event_hooks": {"request": [exchange.sent]},
        "follow_redirects": False,  # one would carry key and prompt to a host the user did not name
        "verify": _tls(),
    }


@functools.cache
def _tls() -> ssl.SSLContext:
    # Reading the certificates takes 20 to 50 ms in which no other call proceeds: once per process.
    import httpx2

    return httpx2.create_ssl_context()


async def attempt(
    exchange: Exchange, seconds: float, sdk: Any, conversation: Awaitable[Reading]
) -> Call:
    """Await `conversation` for at most `seconds` of wall-clock time and record how it ended.

    `sdk` is the provider's module, for its exception classes. Never raises for trouble with the
    provider; cancellation from outside passes through.
    """
    start = time.perf_counter()
    try:
        async with asyncio.timeout(seconds):
            reading = await conversation
    except Exception as error:  # noqa: BLE001 - the LLM border: classified and recorded below
        reading = _classify(error, exchange, seconds, sdk)
    return exchange.record(reading, time.perf_counter() - start)


def _classify(error: Exception, exchange: Exchange, seconds: float, sdk: Any) -> Reading:
    if isinstance(error, Malformed):
        return Reading(Outcome.malformed, clip(str(error)))
    if isinstance(error, TimeoutError):
        return Reading(Outcome.timeout, f"no complete reply within {seconds:g} s")
    if isinstance(error, sdk.APITimeoutError):
        return Reading(Outcome.timeout, f"no connection within {CONNECT_SECONDS:g} s")
    if isinstance(error, sdk.APIConnectionError):
        return Reading(Outcome.connection, clip(f"{error} {error.__cause__ or ''}"))
    if isinstance(error, sdk.APIStatusError):
        return _classify_status(error, exchange)
    # What remains failed on our side of the wire, e.g. text that cannot be sent as UTF-8.
    return Reading(Outcome.bad_request, clip(f"{type(error).__name__}: {error}"))


def _classify_status(error: Any, exchange: Exchange) -> Reading:
    exchange.refused(error.response.content)
    status = int(error.status_code)
    fallback = Outcome.server_error if status >= 500 else Outcome.bad_request
    body = table(error.body)  # the OpenAI SDK unwraps {"error": {...}}, the Anthropic one does not
    message = table(body.get("error", body)).get("message") or error.response.text
    return Reading(_BY_STATUS.get(status, fallback), clip(f"HTTP {status}: {message}"))
