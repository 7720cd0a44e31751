"""OpenAI's Responses API, and Chat Completions of any compatible server, through the official SDK.

One class, `OpenAIClient`: a model without `base_url` is asked on Responses, one with a `base_url`
on Chat Completions, which vLLM, Ollama and llama.cpp serve. It does not stream, keep a
conversation or offer effort or sampling settings, and it opens a fresh HTTP client for each call,
so that nothing outlives an event loop.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agents.llm.border import CONNECT_SECONDS, Exchange, attempt, http_options
from agents.llm.replies import (
    Malformed,
    Reading,
    Usage,
    clip,
    count,
    parse_object,
    read,
    read_tools,
    rows,
    structured_text,
    table,
    texts,
    tool_call,
)
from agents.llm.types import REPLY, Call, Message, ModelName, Outcome, Prompt, Tool, ToolCall

if TYPE_CHECKING:
    import openai

_FENCED = "Answer with one fenced ```json block: an object that follows this JSON schema."
# Words by which servers say that they cannot hold a reply to a schema.
_UNSUPPORTED = ("response_format", "json_schema", "structured", "grammar")


class OpenAIClient:
    """Completes prompts on one model; safe for many calls at once.

    A compatible server that answers 400, 404 or 422 about `response_format` is asked again, and
    from then on, without it: the schema goes into the instructions and the reply into a fenced
    block.
    """

    def __init__(
        self, name: ModelName, api_key: str, timeout_seconds: float, max_retries: int = 2
    ) -> None:
        self._name = name
        self._api_key = api_key
        self._timeout_seconds = timeout_seconds
        self._max_retries = max_retries
        self._structured = True

    async def complete(self, prompt: Prompt) -> Call:
        """One completion, recorded; never raises for trouble with the provider."""
        import openai  # .4 s, so not before a call is made, and not on the call's own clock

        exchange = Exchange(self._name, self._api_key)
        conversation = self._converse(exchange, prompt)
        return await attempt(exchange, self._timeout_seconds, openai, conversation)

    async def _converse(self, exchange: Exchange, prompt: Prompt) -> Reading:
        async with self._connect(exchange) as client:
            if self._name.base_url is None:
                return await self._respond(client, exchange, prompt)
            return await self._chat_or_fall_back(client, exchange, prompt)

    def _connect(self, exchange: Exchange) -> openai.AsyncOpenAI:
        import openai

        return openai.AsyncOpenAI(
            api_key=self._api_key,
            base_url=self._name.base_url,
            timeout=openai.Timeout(None, connect=CONNECT_SECONDS),  # `attempt` keeps the clock
            max_retries=self._max_retries,
            http_client=openai.DefaultAsyncHttpxClient(**http_options(exchange)),
        )

    async def _respond(
        self, client: openai.AsyncOpenAI, exchange: Exchange, prompt: Prompt
    ) -> Reading:
        body = _responses_body(self._name.model, prompt)
        raw = await client.responses.with_raw_response.create(**body)
        received = exchange.received(raw.http_response.content)
        return read_response(received, bool(prompt.tools))

    async def _chat_or_fall_back(
        self, client: openai.AsyncOpenAI, exchange: Exchange, prompt: Prompt
    ) -> Reading:
        import openai

        structured = self._structured and not prompt.tools
        try:
            return await self._chat(client, exchange, prompt, structured)
        except (
            openai.BadRequestError,
            openai.NotFoundError,
            openai.UnprocessableEntityError,
        ) as error:
            complaint = error.response.text.lower()
            if not structured or not any(word in complaint for word in _UNSUPPORTED):
                raise
            self._structured = False
            return await self._chat(client, exchange, prompt, structured=False)

    async def _chat(
        self, client: openai.AsyncOpenAI, exchange: Exchange, prompt: Prompt, structured: bool
    ) -> Reading:
        body = _chat_body(self._name.model, prompt, structured)
        raw = await client.chat.completions.with_raw_response.create(**body)
        received = exchange.received(raw.http_response.content)
        return read_completion(received, bool(prompt.tools))


def bodies(name: ModelName, prompt: Prompt) -> list[dict[str, Any]]:
    """Every body that the client may send for a prompt."""
    if name.base_url is None:
        return [_responses_body(name.model, prompt)]
    ways = (False,) if prompt.tools else (True, False)
    return [_chat_body(name.model, prompt, structured) for structured in ways]


def _responses_body(model: str, prompt: Prompt) -> dict[str, Any]:
    # Strict mode refuses schemas with optional fields or open maps (files by path), hence False.
    schema = {"type": "json_schema", "name": REPLY, "schema": prompt.schema, "strict": False}
    tools = [{"type": "function", **_function(tool), "strict": False} for tool in prompt.tools]
    return {
        "model": model,
        "instructions": prompt.system,
        "input": [item for turn in prompt.messages for item in _items(turn)],
        "max_output_tokens": prompt.max_output_tokens,
        **({"tools": tools} if tools else {"text": {"format": schema}}),
        "store": False,  # the default keeps every prompt on the provider's side for a month
    }


def _chat_body(model: str, prompt: Prompt, structured: bool) -> dict[str, Any]:
    fenced = f"\n\n{_FENCED}\n{json.dumps(prompt.schema)}"
    system = prompt.system if structured or prompt.tools else prompt.system + fenced
    turns = [message for turn in prompt.messages for message in _chat_messages(turn)]
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "system", "content": system}, *turns],
        "max_tokens": prompt.max_output_tokens,  # the older name is the one every server knows
    }
    if structured:
        schema = {"name": REPLY, "schema": prompt.schema, "strict": False}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if prompt.tools:
        body["tools"] = [{"type": "function", "function": _function(t)} for t in prompt.tools]
    return body


def _function(tool: Tool) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "parameters": tool.schema}


def _items(turn: Message) -> list[dict[str, Any]]:
    """A turn as Responses wants it."""
    if turn.reply:
        output = rows(parse_object(turn.reply).get("output"))
        # What is not stored over there cannot be named, so reasoning without its content stays here.
        return [i for i in output if i.get("type") != "reasoning" or i.get("encrypted_content")]
    found = [{"call_id": result.id, "output": result.text} for result in turn.results]
    return [*({"type": "function_call_output", **one} for one in found), *_text(turn)]


def _chat_messages(turn: Message) -> list[dict[str, Any]]:
    """A turn as Chat Completions wants it."""
    if turn.reply:
        said = _said(parse_object(turn.reply))
        kept = ("content", "tool_calls")
        return [{"role": "assistant"} | {name: said[name] for name in kept if name in said}]
    found = [{"tool_call_id": result.id, "content": result.text} for result in turn.results]
    return [*({"role": "tool", **one} for one in found), *_text(turn)]


def _text(turn: Message) -> list[dict[str, Any]]:
    return [{"role": turn.role, "content": turn.text}] if turn.text or not turn.results else []


def read_response(body: dict[str, Any], tools: bool = False) -> Reading:
    """What a reply's body comes to, on Responses; with ``tools``, that to a prompt which had some."""
    usage = _usage(table(body.get("usage")), "input_tokens", "output_tokens")
    parts = [part for item in rows(body.get("output")) for part in rows(item.get("content"))]
    if refusal := texts([p.get("refusal") for p in parts if p.get("type") == "refusal"]):
        return Reading(Outcome.refusal, clip(f"the model refused: {refusal}"), usage=usage)
    if body.get("status") == "failed":
        return _failed(table(body.get("error")), usage)
    if body.get("status") == "incomplete":
        return _cut_short(table(body.get("incomplete_details")).get("reason"), usage)
    if tools:
        return read_tools(lambda: _function_calls(rows(body.get("output"))), usage)
    text = texts([part.get("text") for part in parts if part.get("type") == "output_text"])
    return read(lambda: _structured(text), usage)


def _function_calls(output: list[dict[str, Any]]) -> list[ToolCall]:
    called = [item for item in output if item.get("type") == "function_call"]
    return [tool_call(i.get("call_id"), i.get("name"), i.get("arguments")) for i in called]


def _failed(error: dict[str, Any], usage: Usage) -> Reading:
    code = str(error.get("code"))
    outcome = Outcome.server_error
    if code == "rate_limit_exceeded":
        outcome = Outcome.rate_limited
    elif "policy" in code:  # bio_policy, misalignment_policy_violation, ...
        outcome = Outcome.refusal
    elif code == "invalid_prompt":
        outcome = Outcome.bad_request
    return Reading(
        outcome, clip(f"the response failed: {code}: {error.get('message')}"), usage=usage
    )


def read_completion(body: dict[str, Any], tools: bool = False) -> Reading:
    """What a reply's body comes to, on Chat Completions; with ``tools``, that to a prompt which had some."""
    usage = _usage(table(body.get("usage")), "prompt_tokens", "completion_tokens")
    choice, message = _choice(body), _said(body)
    if refusal := message.get("refusal"):
        return Reading(Outcome.refusal, clip(f"the model refused: {refusal}"), usage=usage)
    if choice.get("finish_reason") in ("length", "content_filter"):
        return _cut_short(choice["finish_reason"], usage)
    if tools:
        return read_tools(lambda: _chat_calls(rows(message.get("tool_calls"))), usage)
    return read(lambda: _structured(texts([message.get("content")])), usage)


def _choice(body: dict[str, Any]) -> dict[str, Any]:
    return next(iter(rows(body.get("choices"))), {})


def _said(body: dict[str, Any]) -> dict[str, Any]:
    """The message in a completion."""
    return table(_choice(body).get("message"))


def _chat_calls(called: list[dict[str, Any]]) -> list[ToolCall]:
    found = [(call.get("id"), table(call.get("function"))) for call in called]
    return [tool_call(id_, one.get("name"), one.get("arguments")) for id_, one in found]


def _cut_short(reason: object, usage: Usage) -> Reading:
    if reason == "content_filter":
        return Reading(Outcome.refusal, "the provider's content filter stopped it", usage=usage)
    return Reading(Outcome.truncated, clip(f"the reply was cut short: {reason}"), usage=usage)


def _structured(text: str) -> dict[str, Any]:
    if not text.strip():
        raise Malformed("the reply has no text")
    return structured_text(text)


def _usage(usage: dict[str, Any], input_name: str, output_name: str) -> Usage:
    # Responses says input_tokens and output_tokens, Chat Completions prompt_ and completion_.
    details_in = table(usage.get(f"{input_name}_details"))
    details_out = table(usage.get(f"{output_name}_details"))
    return Usage(
        input_tokens=count(usage.get(input_name)),
        output_tokens=count(usage.get(output_name)),
        cached_tokens=count(details_in.get("cached_tokens")),
        cache_write_tokens=count(details_in.get("cache_write_tokens")),
        reasoning_tokens=count(details_out.get("reasoning_tokens")),
    )
