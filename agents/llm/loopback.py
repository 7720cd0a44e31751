"""A double of the providers: a small real HTTP server on 127.0.0.1 that speaks their three wire formats.

`/v1/messages` (Anthropic), `/v1/responses` and `/v1/chat/completions` (OpenAI). Each request takes
the next behaviour of a list, or the one that a function chooses for it. Tests and `archwright bench
agents` drive the real SDKs against it. It is no model, checks no key and leaves this machine never.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any, NamedTuple

INPUT, CACHED, WRITTEN, OUTPUT, REASONING = 100, 20, 10, 40, 15
HUGE = 2_000_000
_IDS = itertools.count(1)  # of tools' calls, each another, as the providers have it


class Tokens(NamedTuple):
    """The usage that an answer reports, on every wire, in the meaning of `Call`: input in all, and so on."""

    input: int = INPUT
    cached: int = CACHED
    written: int = WRITTEN
    output: int = OUTPUT
    reasoning: int = REASONING


TOKENS = Tokens()


@dataclass(frozen=True)
class Received:
    """One request as it arrived, `content` to the byte; `at` is `time.monotonic()`."""

    path: str
    headers: dict[str, str]
    content: bytes
    at: float

    @cached_property
    def body(self) -> dict[str, Any]:
        """The object in it."""
        body: dict[str, Any] = json.loads(self.content)
        return body


@dataclass(frozen=True)
class Behaviour:
    """What to do with one request; made by the functions below."""

    kind: str
    value: Any = None
    headers: tuple[tuple[str, str], ...] = ()
    then: Behaviour | None = None
    tokens: Tokens = TOKENS


def ok(data: dict[str, Any], tokens: Tokens = TOKENS) -> Behaviour:
    """The structured reply as the wire carries it: a tool call or JSON text."""
    return Behaviour("ok", data, tokens=tokens)


def use(*calls: tuple[str, Any], tokens: Tokens = TOKENS) -> Behaviour:
    """Calls of tools, each a name and its arguments; a text is sent as it is where the wire carries text."""
    return Behaviour("use", calls, tokens=tokens)


def text(words: str) -> Behaviour:
    return Behaviour("text", words)


def refusal() -> Behaviour:
    return Behaviour("refusal", "I will not do that")


def truncated() -> Behaviour:
    return Behaviour("truncated", '{"hypothesis": "half a repl')


def status(code: int, retry_after: float | None = None, message: str = "no") -> Behaviour:
    headers = () if retry_after is None else (("retry-after", str(retry_after)),)
    return Behaviour("status", (code, message), headers)


def redirect(url: str) -> Behaviour:
    return Behaviour("status", (307, "moved"), (("location", url),))


def malformed() -> Behaviour:
    """Status 200 and a body that is not JSON."""
    return Behaviour("raw", b'{"id": "x", "content": [')


def raw(body: bytes) -> Behaviour:
    return Behaviour("raw", body)


def huge() -> Behaviour:
    return text("x" * HUGE)


def hang() -> Behaviour:
    """Half a body, then silence until the client or the server goes away."""
    return Behaviour("hang")


def reset() -> Behaviour:
    """The connection is torn down (RST) before any answer."""
    return Behaviour("reset")


def unless(found: Callable[[dict[str, Any]], object], message: str, then: Behaviour) -> Behaviour:
    """400 with `message` for a request whose body has what `found` looks for, else `then`.

    A request that gets the 400 does not use the behaviour up.
    """
    return Behaviour("unless", (found, message), then=then)


def _messages(kind: str, value: Any, tokens: Tokens) -> dict[str, Any]:
    stops = {"text": "end_turn", "refusal": "refusal", "truncated": "max_tokens"}
    content = [{"type": "text", "text": value}]
    if kind in ("ok", "use"):
        used = value if kind == "use" else [("reply", value)]
        thinking = {"type": "thinking", "thinking": "", "signature": "s"}
        calls = [{"id": f"toolu_{next(_IDS)}", "name": name, "input": x} for name, x in used]
        content = [thinking, *({"type": "tool_use", **call} for call in calls)]
    details = {"type": "refusal", "category": "cyber", "explanation": value}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [] if kind == "refusal" else content,
        "stop_reason": stops.get(kind, "tool_use"),
        "stop_details": details if kind == "refusal" else None,
        "usage": {
            "input_tokens": tokens.input - tokens.cached - tokens.written,
            "cache_read_input_tokens": tokens.cached,
            "cache_creation_input_tokens": tokens.written,
            "output_tokens": tokens.output,
            "output_tokens_details": {"thinking_tokens": tokens.reasoning},
        },
    }


def _openai_usage(tokens: Tokens, input_name: str, output_name: str) -> dict[str, Any]:
    details = {"cached_tokens": tokens.cached, "cache_write_tokens": tokens.written}
    return {
        input_name: tokens.input,
        f"{input_name}_details": details,
        output_name: tokens.output,
        f"{output_name}_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    }


def _responses(kind: str, value: Any, tokens: Tokens) -> dict[str, Any]:
    words = json.dumps(value) if kind == "ok" else value
    said: dict[str, Any] = {"type": "output_text", "text": words, "annotations": []}
    part = {"type": "refusal", "refusal": value} if kind == "refusal" else said
    cut = kind == "truncated"
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": []}
    output = [reasoning, {"type": "message", "id": "m_1", "role": "assistant", "content": [part]}]
    if kind == "use":
        calls = [
            {"call_id": i, "name": n, "arguments": arguments} for i, n, arguments in _calls(value)
        ]
        hidden = {**reasoning, "encrypted_content": "hidden"}
        output = [hidden, *({"type": "function_call", **call} for call in calls)]
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": output,
        "usage": _openai_usage(tokens, "input_tokens", "output_tokens"),
    }


def _completions(kind: str, value: Any, tokens: Tokens) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": value, "refusal": None}
    if kind == "ok":
        message["content"] = json.dumps(value)
    if kind == "refusal":
        message |= {"content": None, "refusal": value}
    if kind == "use":
        called = [(i, {"name": n, "arguments": arguments}) for i, n, arguments in _calls(value)]
        calls = [{"id": i, "type": "function", "function": one} for i, one in called]
        message |= {"content": None, "tool_calls": calls}
    finish = {"truncated": "length", "use": "tool_calls"}.get(kind, "stop")
    return {
        "id": "chatcmpl_1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": _openai_usage(tokens, "prompt_tokens", "completion_tokens"),
    }


def _calls(used: Sequence[tuple[str, Any]]) -> list[tuple[str, str, str]]:
    """Ids, names and arguments of calls as OpenAI's wires have them."""
    texts = [(name, x if isinstance(x, str) else json.dumps(x)) for name, x in used]
    return [(f"call_{next(_IDS)}", name, text) for name, text in texts]


_WIRES = {
    "/v1/messages": _messages,
    "/v1/responses": _responses,
    "/v1/chat/completions": _completions,
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10  # a forgotten connection must not outlive the test
    server: Loopback

    def do_POST(self) -> None:
        self.close_connection = True
        content = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.request_received = Received(self.path, headers, content, time.monotonic())
        with self.server.serving():
            self._act(self.server.take(self.request_received))

    def _act(self, behaviour: Behaviour) -> None:
        kind, value = behaviour.kind, behaviour.value
        if kind == "hang":
            self._hang()
        elif kind == "reset":
            self._reset()
        elif kind == "raw":
            self._send(200, value)
        elif kind == "status":
            error = {"type": "error", "error": {"type": "some_error", "message": value[1]}}
            self._send(value[0], json.dumps(error).encode(), behaviour.headers)
        else:
            body = _WIRES[self.path](kind, value, behaviour.tokens)
            self._send(200, json.dumps(body).encode())

    def _send(self, code: int, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.server.answered.append((self.request_received, body))
        self._head(code, len(body), headers)
        self.wfile.write(body)

    def _head(self, code: int, length: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(length))
        self.send_header("connection", "close")
        self.end_headers()

    def _hang(self) -> None:
        self._head(200, 1000)
        self.wfile.write(b'{"id": "half')
        self.server.closing.wait(self.timeout)

    def _reset(self) -> None:
        # Linger 0 turns close into RST; detach, because the handler's files hold the socket open.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output quiet."""


class Loopback(ThreadingMixIn, HTTPServer):
    """`with Loopback([ok({...})]) as server:`; its address is `url`.

    ``script``: a behaviour for each request in turn, and 418, which no SDK retries, for any beyond;
    or a function that is called with each request, in a thread of its own, and may wait. `received`
    holds the requests, `answered` the whole answers with the request of each, `most_in_flight` how
    many requests were open at once. Leaving the block ends every hanging answer and joins every thread.
    """

    daemon_threads = False
    block_on_close = True

    def __init__(self, script: Sequence[Behaviour] | Callable[[Received], Behaviour]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received: list[Received] = []
        self.answered: list[tuple[Received, bytes]] = []
        self.in_flight = self.most_in_flight = 0
        self.closing = threading.Event()
        self._choose = script if callable(script) else self._next
        self._script = [] if callable(script) else list(script)
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def take(self, request: Received) -> Behaviour:
        """Record `request` and give the behaviour for it."""
        self.received.append(request)
        return self._choose(request)

    def _next(self, request: Received) -> Behaviour:
        with self._lock:
            if not self._script:
                return status(418, message="the loopback's script is exhausted")
            first = self._script[0]
            if first.then is not None:
                found, message = first.value
                if found(request.body):
                    return status(400, message=message)
            self._script.pop(0)
            return first.then or first

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Count a request as in flight."""
        with self._lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield
        finally:
            with self._lock:
                self.in_flight -= 1

    def __enter__(self) -> Loopback:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away mid-answer is what some tests are about."""
