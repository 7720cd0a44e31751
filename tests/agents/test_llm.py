"""The LLM clients against a real HTTP server on loopback, through the real SDKs.

Every behaviour on each of the three wire formats, then names, prices and the scripted double. No
test leaves this machine: keys are invented and addresses are 127.0.0.1.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agents.llm
from agents.llm import (
    Call,
    Message,
    MissingKey,
    ModelName,
    Outcome,
    Price,
    Prompt,
    ScriptedClient,
    connect,
    cost,
    load_prices,
    worst_case,
)
from agents.llm.anthropic_client import AnthropicClient
from agents.llm.loopback import (
    CACHED,
    INPUT,
    OUTPUT,
    REASONING,
    WRITTEN,
    Behaviour,
    Loopback,
    hang,
    huge,
    malformed,
    ok,
    raw,
    redirect,
    refusal,
    reset,
    status,
    text,
    truncated,
    unless,
)
from agents.llm.openai_client import OpenAIClient
from agents.llm.replies import last_fenced

KEY = "sk-secret-0123456789abcdef"
DATA = {"hypothesis": "longer convolutions help", "pattern": "A M A M"}
SCHEMA = {
    "type": "object",
    "properties": {"hypothesis": {"type": "string"}, "pattern": {"type": "string"}},
    "required": ["hypothesis"],
}
PROMPT = Prompt("You design models.", (Message("user", "Propose one."),), SCHEMA, 500)
WIRES = ("anthropic", "responses", "chat")
PATHS = {
    "anthropic": "/v1/messages",
    "responses": "/v1/responses",
    "chat": "/v1/chat/completions",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invented keys, and no proxy or address of the machine's own between us and loopback."""
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith(("ANTHROPIC_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture(params=WIRES)
def wire(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def name_on(wire: str, server: Loopback, monkeypatch: pytest.MonkeyPatch) -> ModelName:
    """A model whose calls reach `server`: by the SDK's own variable, or by base_url."""
    if wire == "chat":
        return ModelName.parse(f"openai:m@{server.url}/v1")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    return ModelName.parse("anthropic:m" if wire == "anthropic" else "openai:m")


def ask(
    wire: str,
    monkeypatch: pytest.MonkeyPatch,
    *behaviours: Behaviour,
    prompt: Prompt = PROMPT,
    timeout_seconds: float = 10.0,
) -> tuple[Call, Loopback]:
    """One call over HTTP; whatever came of it, the record must be storable and without the key."""
    with Loopback(behaviours) as server:
        client = connect(name_on(wire, server, monkeypatch), timeout_seconds=timeout_seconds)
        call = asyncio.run(client.complete(prompt))
    assert KEY not in repr(call)
    json.dumps(dataclasses.asdict(call), ensure_ascii=False).encode()
    assert call.http_attempts == len(server.received)
    assert (call.data is not None) == (call.outcome is Outcome.ok)
    assert (call.error == "") == (call.outcome is Outcome.ok)
    return call, server


def test_ok_gives_data_counts_and_the_request_as_sent(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, server = ask(wire, monkeypatch, ok(DATA))
    assert (call.outcome, call.data, call.http_attempts) == (Outcome.ok, DATA, 1)
    counts = (call.input_tokens, call.cached_tokens, call.cache_write_tokens)
    assert counts == (INPUT, CACHED, WRITTEN)
    assert (call.output_tokens, call.reasoning_tokens) == (OUTPUT, REASONING)
    assert (call.provider, call.model) == ("anthropic" if wire == "anthropic" else "openai", "m")
    assert 0 < call.latency_seconds < 10
    [received] = server.received
    assert received.path == PATHS[wire]
    assert call.request.encode() == received.content
    assert [call.reply.encode()] == [body for _, body in server.answered]
    assert KEY in received.headers.get("x-api-key", received.headers.get("authorization", ""))
    assert json.loads(call.reply)["model"] == "m"


def test_the_schema_travels_in_each_wires_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = {wire: json.loads(ask(wire, monkeypatch, ok(DATA))[0].request) for wire in WIRES}
    assert sent["anthropic"]["tools"][0]["input_schema"] == SCHEMA
    assert sent["anthropic"]["tool_choice"]["name"] == "reply"
    assert sent["anthropic"]["system"][0]["cache_control"] == {"type": "ephemeral"}
    assert sent["responses"]["text"]["format"]["schema"] == SCHEMA
    assert sent["responses"]["store"] is False
    assert sent["chat"]["response_format"]["json_schema"]["schema"] == SCHEMA
    assert not any("temperature" in body or "stream" in body for body in sent.values())


@pytest.mark.parametrize(
    ("behaviour", "outcome", "words"),
    [
        (refusal(), Outcome.refusal, "I will not do that"),
        (truncated(), Outcome.truncated, "max|length"),
        (malformed(), Outcome.malformed, "not JSON"),
        (raw(b"[1, 2]"), Outcome.malformed, "list, not an object"),
        (raw(b"{}"), Outcome.malformed, "text"),
        (raw(b'{"content": 3, "output": [4], "choices": {"a": 1}}'), Outcome.malformed, "text"),
        (raw(b"[" * 100_000), Outcome.malformed, "not JSON"),
        (text("Sorry, no JSON today."), Outcome.malformed, "not JSON"),
        (text('["a", "list"]'), Outcome.malformed, "list, not an object"),
        (text('{"loss": NaN}'), Outcome.malformed, "NaN"),
        (ok({"hypothesis": "\ud800"}), Outcome.malformed, "surrogate"),
        (huge(), Outcome.malformed, "the limit is 1,000,000"),
        (status(400), Outcome.bad_request, "HTTP 400: no"),
        (status(401), Outcome.auth, "HTTP 401: no"),
        (status(403), Outcome.auth, "HTTP 403: no"),
        (status(404), Outcome.bad_request, "HTTP 404: no"),
        (status(413), Outcome.bad_request, "HTTP 413: no"),
    ],
)
def test_one_answer_is_classified_and_not_retried(
    wire: str,
    behaviour: Behaviour,
    outcome: Outcome,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call, _ = ask(wire, monkeypatch, behaviour)
    assert (call.outcome, call.http_attempts) == (outcome, 1)
    assert re.search(words, call.error)
    assert len(call.reply) <= 1_000_000


@pytest.mark.parametrize("behaviour", [refusal(), truncated(), text("no JSON")])
def test_an_unusable_reply_still_counts_its_tokens(
    wire: str, behaviour: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, _ = ask(wire, monkeypatch, behaviour)
    assert (call.input_tokens, call.output_tokens) == (INPUT, OUTPUT)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (408, Outcome.timeout),
        (409, Outcome.bad_request),
        (429, Outcome.rate_limited),
        (500, Outcome.server_error),
        (503, Outcome.overloaded),
        (529, Outcome.overloaded),
    ],
)
def test_a_lasting_failure_is_tried_three_times(
    wire: str, code: int, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, _ = ask(wire, monkeypatch, *[status(code, retry_after=0.01)] * 3)
    assert (call.outcome, call.http_attempts) == (outcome, 3)
    assert call.error == f"HTTP {code}: no"
    assert call.input_tokens is None


@pytest.mark.parametrize(("wire", "code"), [*((wire, 429) for wire in WIRES), ("anthropic", 529)])
def test_retry_after_is_honoured(wire: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The SDKs' own first back-off is at most .5 s, so .6 s can only come from the header.
    call, server = ask(wire, monkeypatch, status(code, retry_after=0.6), ok(DATA))
    assert (call.outcome, call.data, call.http_attempts) == (Outcome.ok, DATA, 2)
    assert server.received[1].at - server.received[0].at >= 0.6


def test_a_body_that_stops_halfway_ends_at_the_wall_clock(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, _ = ask(wire, monkeypatch, hang(), timeout_seconds=0.3)
    assert (call.outcome, call.http_attempts) == (Outcome.timeout, 1)
    assert call.error == "no complete reply within 0.3 s"
    assert call.latency_seconds < 2
    assert json.loads(call.request)["model"] == "m"


def test_waiting_for_a_retry_counts_against_the_wall_clock(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, _ = ask(wire, monkeypatch, status(429, retry_after=60), timeout_seconds=0.3)
    assert (call.outcome, call.http_attempts) == (Outcome.timeout, 1)


def test_a_reset_connection_is_tried_again(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call, _ = ask(wire, monkeypatch, reset(), ok(DATA))
    assert (call.outcome, call.http_attempts) == (Outcome.ok, 2)


@pytest.mark.parametrize("kind", [AnthropicClient, OpenAIClient])
def test_without_retries_a_reset_is_a_connection_error(kind: Any) -> None:
    with Loopback([reset()]) as server:
        provider = "anthropic" if kind is AnthropicClient else "openai"
        name = ModelName(provider, "m", f"{server.url}/v1")
        call = asyncio.run(kind(name, KEY, 5.0, max_retries=0).complete(PROMPT))
    assert (call.outcome, call.http_attempts, call.reply) == (Outcome.connection, 1, "")


@pytest.mark.parametrize("kind", [AnthropicClient, OpenAIClient])
def test_nobody_listening_is_a_connection_error(kind: Any) -> None:
    with Loopback([]) as server:
        url = server.url
    name = ModelName("anthropic" if kind is AnthropicClient else "openai", "m", url)
    call = asyncio.run(kind(name, KEY, 5.0, max_retries=0).complete(PROMPT))
    assert (call.outcome, call.http_attempts) == (Outcome.connection, 1)


def test_a_key_echoed_by_the_server_is_scrubbed(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call, _ = ask(wire, monkeypatch, status(401, message=f"invalid key: {KEY}"))
    assert call.error == "HTTP 401: invalid key: [key]"
    assert "[key]" in call.reply
    call, _ = ask(wire, monkeypatch, ok({"hypothesis": f"your key is {KEY}"}))
    assert call.data == {"hypothesis": "your key is [key]"}


def test_a_redirect_is_not_followed(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Loopback([ok(DATA)]) as elsewhere:
        call, _ = ask(wire, monkeypatch, redirect(elsewhere.url + PATHS[wire]))
        assert elsewhere.received == []
    assert (call.outcome, call.error) == (Outcome.bad_request, "HTTP 307: moved")


def test_control_characters_arrive_in_data_and_not_in_errors(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = {"hypothesis": "a\x00b\x1b[31m\u2028\r\né"}
    prompt = dataclasses.replace(PROMPT, system=odd["hypothesis"])
    call, server = ask(wire, monkeypatch, ok(odd), prompt=prompt)
    assert call.data == odd
    assert call.request.encode() == server.received[0].content
    call, _ = ask(wire, monkeypatch, status(400, message="a\x00b\x1b[31m\u2028\r\né"))
    assert call.error == "HTTP 400: a b [31m é"
    call, _ = ask(wire, monkeypatch, text('```json\n{"code": "line 1\nline 2\tx"}\n```'))
    assert call.data == {"code": "line 1\nline 2\tx"}


def test_a_prompt_that_cannot_be_sent_is_a_bad_request(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = dataclasses.replace(PROMPT, system="half a pair: \ud800")
    call, _ = ask(wire, monkeypatch, prompt=prompt)
    assert (call.outcome, call.http_attempts) == (Outcome.bad_request, 0)
    assert "UnicodeEncodeError" in call.error


def test_cancellation_passes_through(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def cancel(server: Loopback) -> None:
        client = connect(name_on(wire, server, monkeypatch), timeout_seconds=10)
        await asyncio.wait_for(client.complete(PROMPT), 0.3)

    with Loopback([hang()]) as server, pytest.raises(TimeoutError):
        asyncio.run(cancel(server))


def many(wire: str, monkeypatch: pytest.MonkeyPatch, picky: Behaviour) -> tuple[list[Call], int]:
    """Two calls at once and a third after them, all on one client."""

    async def calls(server: Loopback) -> list[Call]:
        client = connect(name_on(wire, server, monkeypatch), timeout_seconds=10)
        pair = await asyncio.gather(client.complete(PROMPT), client.complete(PROMPT))
        return [*pair, await client.complete(PROMPT)]

    with Loopback([picky] * 3) as server:
        return asyncio.run(calls(server)), len(server.received)


def test_a_server_without_response_format_is_asked_again_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = text(f"First:\n```json\n{{}}\n```\nBetter:\n```json\n{json.dumps(DATA)}\n```\nDone.")
    picky = unless(lambda body: "response_format" in body, "unknown field response_format", words)
    calls, received = many("chat", monkeypatch, picky)
    assert [call.data for call in calls] == [DATA] * 3
    assert [call.http_attempts for call in calls] == [2, 2, 1]  # the third call remembers
    assert received == 5
    assert "response_format" not in json.loads(calls[0].request)
    assert json.dumps(SCHEMA) in json.loads(calls[0].request)["messages"][0]["content"]


@pytest.mark.parametrize("answer", [ok(DATA), text(f"```json\n{json.dumps(DATA)}\n```")])
def test_a_model_without_forced_tools_is_asked_again_with_a_free_choice(
    answer: Behaviour, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The 400 of Claude Opus 5.5, Sonnet 5.5 and Fable 5.1, word for word.
    message = 'tool_choice: type "tool" and "any" are not supported for this model.'
    picky = unless(lambda body: body["tool_choice"]["type"] == "tool", message, answer)
    calls, received = many("anthropic", monkeypatch, picky)
    assert [call.data for call in calls] == [DATA] * 3
    assert [call.http_attempts for call in calls] == [2, 2, 1]
    assert received == 5
    assert json.loads(calls[0].request)["tool_choice"]["type"] == "auto"


def test_a_400_about_something_else_is_not_asked_again(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, _ = ask(wire, monkeypatch, status(400, message="the model m does not exist"), ok(DATA))
    assert (call.outcome, call.http_attempts) == (Outcome.bad_request, 1)


def test_a_failed_response_keeps_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        "server_error": Outcome.server_error,
        "rate_limit_exceeded": Outcome.rate_limited,
        "bio_policy": Outcome.refusal,
        "invalid_prompt": Outcome.bad_request,
    }
    for code, outcome in expected.items():
        body = {"status": "failed", "error": {"code": code, "message": "why"}, "output": []}
        call, _ = ask("responses", monkeypatch, raw(json.dumps(body).encode()))
        assert (call.outcome, call.error) == (outcome, f"the response failed: {code}: why")


def test_keys_come_from_the_environment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv("OPENAI_API_KEY", " \n")
    with pytest.raises(MissingKey) as missing:
        connect(ModelName.parse("anthropic:x"), timeout_seconds=1)
    assert str(missing.value) == (
        "model anthropic:x needs ANTHROPIC_API_KEY in the environment: "
        "export it, or use a model with @base_url of a local server"
    )
    with pytest.raises(MissingKey):
        connect(ModelName.parse("openai:x"), timeout_seconds=1)
    call, server = ask("chat", monkeypatch, ok({"hypothesis": "none of it"}))
    assert server.received[0].headers["authorization"] == "Bearer none"
    assert call.data == {"hypothesis": "none of it"}  # the stand-in for a key is not scrubbed


def test_a_key_with_a_line_break_around_it_works(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", f"{KEY}\n")
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    assert ask(wire, monkeypatch, ok(DATA))[0].outcome is Outcome.ok


def test_clients_can_be_sent_to_another_process(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Loopback([ok(DATA)]) as server:
        client = connect(name_on(wire, server, monkeypatch), timeout_seconds=10)
        call = asyncio.run(pickle.loads(pickle.dumps(client)).complete(PROMPT))
    assert call.data == DATA


def test_no_sdk_is_loaded_before_a_call() -> None:
    code = (
        "import sys, agents.llm as llm; "
        "llm.connect(llm.ModelName.parse('openai:m@http://127.0.0.1:1/v1'), timeout_seconds=1); "
        "print({'anthropic', 'openai', 'httpx2'} & sys.modules.keys())"
    )
    root = Path(agents.llm.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert (done.stdout, done.stderr) == ("set()\n", "")


# Names


@pytest.mark.parametrize(
    "name",
    [
        "anthropic:claude-x",
        "openai:gpt-x",
        "openai:llama3:8b@http://127.0.0.1:8000/v1",
        "openai:org/model@https://host.example/v1",
        "anthropic:m@http://[::1]:9/",
    ],
)
def test_a_name_survives_the_round_trip(name: str) -> None:
    assert str(ModelName.parse(name)) == name


def test_a_name_is_taken_apart_once() -> None:
    name = ModelName.parse("openai:llama3:8b@http://127.0.0.1:8000/v1")
    assert name == ModelName("openai", "llama3:8b", "http://127.0.0.1:8000/v1")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("claude-x", "names no provider: write provider:model, e.g. anthropic:claude-x"),
        ("", "names no provider"),
        ("antropic:x", "'antropic' is unknown: did you mean 'anthropic'?"),
        ("OpenAI:x", "did you mean 'openai'?"),
        (":x", "is unknown"),
        ("openai:", "is empty or holds white space"),
        ("openai:a b", "is empty or holds white space"),
        ("openai:@http://h/v1", "is empty or holds white space"),
        ("openai:m@", "not an http"),
        ("openai:m@127.0.0.1:8000/v1", "not an http"),
        ("openai:m@ftp://host/v1", "not an http"),
        ("openai:m@http://user:hunter2@host/v1", "server host carries a user"),
        ("openai:m@http://host/v1?key=hunter2", "server host carries a user, a query"),
    ],
)
def test_a_bad_name_says_what_to_write(name: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        ModelName.parse(name)
    assert "hunter2" not in str(error.value)


# Fenced JSON


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("no fence", None),
        ("```json\n{}\n```", "{}"),
        ("a\n```json\n1\n```\nb\n```JSON\n2\n```\nc", "2"),
        ("```python\nx\n```\n```json\n1\n```", "1"),
        ("```json\n1\n```\n```python\nx\n```", "1"),
        ("```json\n1\n```\n```json\nopen", "1"),
        ('```json\n{"doc": "use ```json``` here"}\n```', '{"doc": "use ```json``` here"}'),
        ("  ```json  \n1\r\n  ```  ", "1\r"),
        ("```json\n" * 50_000, None),
    ],
)
def test_the_last_closed_json_block_is_found(words: str, found: str | None) -> None:
    assert last_fenced(words) == found


# The scripted double


def test_the_script_is_played_in_order_and_then_says_so() -> None:
    async def play() -> list[Call]:
        client = ScriptedClient([DATA, f"```json\n{json.dumps(DATA)}\n```", "no JSON"])
        return [await client.complete(PROMPT) for _ in range(4)]

    first, second, third, fourth = asyncio.run(play())
    assert (first.outcome, first.data, second.data) == (Outcome.ok, DATA, DATA)
    assert (third.outcome, third.data) == (Outcome.malformed, None)
    assert fourth.outcome is Outcome.bad_request
    assert fourth.error == "the script of 3 replies is exhausted: give it one reply per call"
    assert json.loads(first.request)["system"] == PROMPT.system


# Prices

TABLE = {
    "anthropic:claude-a": Price(2, 10, 0.2, 2.5),
    "anthropic:claude-a-5": Price(4, 20, 0.4, 5),
    "openai:gpt-x": Price(1, 8, 0.1, 1, up_to=1_000_000),
    "openai:own@http://127.0.0.1:8000/v1": Price(0, 0, 0, 0),
}


def paid(**changes: Any) -> Call:
    call = Call("p", "m", "", "", {}, Outcome.ok, "", 1_000_000, 100_000, 0, 0, 0, 1.0, 1)
    return dataclasses.replace(call, **changes)


@pytest.mark.parametrize(
    ("name", "usd"),
    [
        ("anthropic:claude-a", 3.0),
        ("anthropic:claude-a-20261001", 3.0),
        ("anthropic:claude-a-5", 6.0),
        ("anthropic:claude-a-5-2026-10-01", 6.0),
        ("anthropic:claude-a-5-latest", 6.0),
        ("openai:gpt-x", 1.8),
        ("openai:own@http://127.0.0.1:8000/v1", 0.0),
        ("anthropic:claude-a-6", None),  # the next model is not a snapshot of this one
        ("openai:gpt-x-pro", None),
        ("openai:gpt-x@http://127.0.0.1:8000/v1", None),  # not the provider's own price
        ("anthropic:claude-b", None),
    ],
)
def test_the_longest_prefix_wins_and_the_unknown_stays_unknown(
    name: str, usd: float | None
) -> None:
    assert cost(ModelName.parse(name), paid(), TABLE) == usd
    known = worst_case(ModelName.parse(name), PROMPT, TABLE) is not None
    assert known == (usd is not None)


def test_cached_and_written_tokens_have_their_own_price() -> None:
    call = paid(cached_tokens=400_000, cache_write_tokens=100_000)
    expected = 0.5 * 2 + 0.4 * 0.2 + 0.1 * 2.5 + 0.1 * 10
    usd = cost(ModelName.parse("anthropic:claude-a"), call, TABLE)
    assert usd == pytest.approx(expected)


def test_a_cost_is_unknown_where_a_count_or_a_price_is() -> None:
    name = ModelName.parse("openai:gpt-x")
    assert cost(name, paid(input_tokens=None), TABLE) is None
    assert cost(name, paid(output_tokens=None), TABLE) is None
    assert cost(name, paid(input_tokens=1_000_001), TABLE) is None
    lost = {"input_tokens": None, "output_tokens": None}
    assert cost(name, paid(outcome=Outcome.timeout, **lost), TABLE) is None
    assert cost(name, paid(outcome=Outcome.connection, **lost), TABLE) is None
    assert cost(name, paid(outcome=Outcome.rate_limited, **lost), TABLE) == 0.0
    assert cost(ModelName.parse("openai:gpt-y"), paid(outcome=Outcome.auth, **lost), TABLE) is None


def test_the_worst_case_bounds_what_a_call_can_cost() -> None:
    digits = Prompt("s" * 100, (Message("user", "0.1234567 " * 2000),), SCHEMA, 500)
    tokens = 100 + 20_000 + len(json.dumps(SCHEMA))  # one per byte
    name = ModelName.parse("anthropic:claude-a")
    bound = worst_case(name, digits, TABLE)
    actual = cost(
        name, paid(input_tokens=tokens, cache_write_tokens=tokens, output_tokens=500), TABLE
    )
    assert bound is not None and actual is not None
    assert actual <= bound <= 1.1 * actual
    long = dataclasses.replace(digits, system="s" * 1_000_000)
    assert worst_case(ModelName.parse("openai:gpt-x"), long, TABLE) is None


def test_overrides_replace_and_add_whole_entries() -> None:
    own = "openai:own@http://127.0.0.1:8000/v1"
    table = load_prices(
        {own: {"input": 0, "output": 0}, "openai:gpt-4.1": {"input": 9, "output": 9}}
    )
    assert table[own] == Price(0, 0, 0, 0)
    assert table["openai:gpt-4.1"] == Price(9, 9, 9, 9)
    assert table["anthropic:claude-opus-5-5"] == Price(4, 20, 0.2, 5)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (3, "needs input and output"),
        ({"input": 1}, "needs input and output"),
        ({"input": 1, "output": 1, "cached": 1}, "'cached': did you mean 'cached_input'?"),
        ({"input": -1, "output": 1}, "input is -1: write a number of at least zero"),
        ({"input": "1", "output": 1}, "input is '1'"),
        ({"input": True, "output": 1}, "input is True"),
        ({"input": float("nan"), "output": 1}, "input is nan"),
    ],
)
def test_an_entry_that_is_no_price_is_refused(entry: Any, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        load_prices({"openai:x": entry})


def test_every_shipped_price_has_a_model_and_a_dated_source() -> None:
    for key, price in load_prices({}).items():
        assert str(ModelName.parse(key)) == key
        assert price.cached_input <= price.input <= price.output
    shipped = Path(agents.llm.__file__).with_name("prices.yaml").read_text("utf-8")
    for group in shipped.split("\n\n")[1:]:
        assert re.search(r"# Source: .*read\s+(# )?2026-\d\d-\d\d", group, re.DOTALL), group
