"""Anthropic's Messages API through the official SDK, with the reply as a tool call.

One class, `AnthropicClient`. It does not stream, keep a conversation or offer effort or sampling
settings, and it opens a fresh HTTP client for each call, so that nothing outlives an event loop.
"""

from __future__ import annotations

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
    storable,
    structured_text,
    table,
    texts,
    tool_call,
)
from agents.llm.types import REPLY, Call, Message, ModelName, Outcome, Prompt, ToolCall

if TYPE_CHECKING:
    import anthropic

_TOOL = "The only way to answer: call it exactly once, with the complete reply."
_INSTRUCTION = f"Answer by calling the tool `{REPLY}` exactly once."
_CACHED = {"type": "ephemeral"}
_CUT_SHORT = ("max_tokens", "model_context_window_exceeded")


class AnthropicClient:
    """Completes prompts on one model; safe for many calls at once.

    The tool call is forced where the model allows it. Models that always think answer 400 to a
    forced one (Claude Opus 5.5, Sonnet 5.5, Fable 5.1 and later, "Forced tool use is not supported"
    in their what's-new pages): the client then asks again, and from then on, with a free choice.
    """

    def __init__(
        self, name: ModelName, api_key: str, timeout_seconds: float, max_retries: int = 2
    ) -> None:
        self._name = name
        self._api_key = api_key
        self._timeout_seconds = timeout_seconds
        self._max_retries = max_retries
        self._forced = True

    async def complete(self, prompt: Prompt) -> Call:
        """One completion, recorded; never raises for trouble with the provider."""
        import anthropic  # 1.2 s, so not before a call is made, and not on the call's own clock

        exchange = Exchange(self._name, self._api_key)
        conversation = self._converse(exchange, prompt)
        return await attempt(exchange, self._timeout_seconds, anthropic, conversation)

    async def _converse(self, exchange: Exchange, prompt: Prompt) -> Reading:
        import anthropic

        forced = self._forced and not prompt.tools
        async with self._connect(exchange) as client:
            try:
                return await self._ask(client, exchange, prompt, forced)
            except anthropic.BadRequestError as error:
                if not forced or "tool_choice" not in str(error):
                    raise
                self._forced = False
                return await self._ask(client, exchange, prompt, forced=False)

    def _connect(self, exchange: Exchange) -> anthropic.AsyncAnthropic:
        import anthropic

        return anthropic.AsyncAnthropic(
            api_key=self._api_key,
            base_url=self._name.base_url,
            timeout=anthropic.Timeout(None, connect=CONNECT_SECONDS),  # `attempt` keeps the clock
            max_retries=self._max_retries,
            http_client=anthropic.DefaultAsyncHttpxClient(**http_options(exchange)),
        )

    async def _ask(
        self, client: anthropic.AsyncAnthropic, exchange: Exchange, prompt: Prompt, forced: bool
    ) -> Reading:
        body = _body(self._name.model, prompt, forced)
        raw = await client.messages.with_raw_response.create(**body)
        body = exchange.received(raw.http_response.content)
        return read_message(body, bool(prompt.tools))


def bodies(name: ModelName, prompt: Prompt) -> list[dict[str, Any]]:
    """Every body that the client may send for a prompt."""
    if prompt.tools:
        return [_body(name.model, prompt, forced=False)]
    return [_body(name.model, prompt, forced) for forced in (True, False)]


def _body(model: str, prompt: Prompt, forced: bool) -> dict[str, Any]:
    instruction = "" if prompt.tools else f"\n\n{_INSTRUCTION}"
    return {
        "model": model,
        "max_tokens": prompt.max_output_tokens,
        # The marker caches all before it: the tools' schemas and the instructions.
        "system": [
            {"type": "text", "text": f"{prompt.system}{instruction}", "cache_control": _CACHED}
        ],
        "messages": [{"role": turn.role, "content": _content(turn)} for turn in prompt.messages],
        **(_tools(prompt) if prompt.tools else _reply_tool(prompt, forced)),
    }


def _reply_tool(prompt: Prompt, forced: bool) -> dict[str, Any]:
    choice = {"type": "tool", "name": REPLY} if forced else {"type": "auto"}
    return {
        "tools": [{"name": REPLY, "description": _TOOL, "input_schema": prompt.schema}],
        "tool_choice": {**choice, "disable_parallel_tool_use": True},
    }


def _tools(prompt: Prompt) -> dict[str, Any]:
    return {
        "tools": [
            {"name": tool.name, "description": tool.description, "input_schema": tool.schema}
            for tool in prompt.tools
        ],
        "cache_control": _CACHED,  # at the end of each request: the next one is this one and more
    }


def _content(turn: Message) -> Any:
    if turn.reply:
        return parse_object(turn.reply)["content"]
    if turn.results:
        found = [{"tool_use_id": result.id, "content": result.text} for result in turn.results]
        results = [{"type": "tool_result", **one} for one in found]
        return [*results, *([{"type": "text", "text": turn.text}] if turn.text else [])]
    return turn.text


def read_message(body: dict[str, Any], tools: bool = False) -> Reading:
    """What a reply's body comes to; with ``tools``, that to a prompt which had some."""
    usage = _usage(table(body.get("usage")))
    stop = body.get("stop_reason")
    if stop == "refusal":
        details = table(body.get("stop_details"))
        why = texts([details.get("category"), " ", details.get("explanation")])
        return Reading(Outcome.refusal, clip(f"the model refused: {why}"), usage=usage)
    if stop in _CUT_SHORT:
        return Reading(Outcome.truncated, f"the reply was cut short: {stop}", usage=usage)
    blocks = rows(body.get("content"))
    if tools:
        return read_tools(lambda: _tool_calls(blocks), usage)
    return read(lambda: _reply(blocks), usage)


def _tool_calls(blocks: list[dict[str, Any]]) -> list[ToolCall]:
    used = [block for block in blocks if block.get("type") == "tool_use"]
    return [tool_call(block.get("id"), block.get("name"), block.get("input")) for block in used]


def _reply(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    for block in blocks:
        if block.get("type") == "tool_use" and block.get("name") == REPLY:
            return storable(block.get("input"))
    # A free choice may end in text; a fenced block in it is as good as a call.
    text = texts([block.get("text") for block in blocks if block.get("type") == "text"])
    if not text:
        raise Malformed(f"the reply has neither a call of the tool {REPLY!r} nor text")
    return structured_text(text)


def _usage(usage: dict[str, Any]) -> Usage:
    fresh, read_ = count(usage.get("input_tokens")), count(usage.get("cache_read_input_tokens"))
    written = count(usage.get("cache_creation_input_tokens"))
    return Usage(
        # Anthropic counts cached tokens apart, OpenAI within the input: `Call` holds the total.
        input_tokens=None if fresh is None else fresh + (read_ or 0) + (written or 0),
        output_tokens=count(usage.get("output_tokens")),
        cached_tokens=read_,
        cache_write_tokens=written,
        reasoning_tokens=count(table(usage.get("output_tokens_details")).get("thinking_tokens")),
    )
