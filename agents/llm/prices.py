"""What a call costs in USD, and the most it can cost before it is made.

A table of published prices (`prices.yaml`, with sources) that the user can override. It keeps no
budget and makes no guess: a model or a token count that is not known costs None, never zero.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from agents.llm.types import Call, ModelName, Outcome, Prompt

_MILLION = 1_000_000
# The provider's own framing of a request: tool preamble, role markers, schema headers.
_FRAMING_TOKENS = 1_000
# A dated snapshot has its model's price; "gpt-5-pro" is not a snapshot of "gpt-5".
_SNAPSHOT = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2}|latest)")
# The server turned the request down before any model read it: nothing is billed.
_UNBILLED = (Outcome.auth, Outcome.bad_request, Outcome.rate_limited, Outcome.overloaded)


@dataclass(frozen=True)
class Price:
    """USD per million tokens; beyond `up_to` input tokens the price is not known."""

    input: float
    output: float
    cached_input: float
    cache_write: float
    up_to: int | None = None

    @property
    def dearest_input(self) -> float:
        return max(self.input, self.cached_input, self.cache_write)


def load_prices(overrides: Mapping[str, Any]) -> dict[str, Price]:
    """The shipped table with the user's entries, each replacing a shipped one whole.

    A key is a model as `ModelName` writes it, with `@base_url` for a server of one's own. Raises
    ValueError for an entry that is not a price.
    """
    shipped = yaml.safe_load(Path(__file__).with_name("prices.yaml").read_text("utf-8"))
    return {key: _price(key, entry) for key, entry in {**shipped, **overrides}.items()}


def cost(model: ModelName, call: Call, table: Mapping[str, Price]) -> float | None:
    """USD for `call`, or None where the price or a count is unknown.

    Zero only for a call the server turned down (auth, bad_request, rate_limited, overloaded); a
    call that timed out or lost its connection may have been billed, and is None.
    """
    price = _find(model, table)
    if price is None:
        return None
    if call.outcome in _UNBILLED and call.input_tokens is None:
        return 0.0
    if call.input_tokens is None or call.output_tokens is None or _beyond(price, call.input_tokens):
        return None
    cached, written = call.cached_tokens or 0, call.cache_write_tokens or 0
    spent = (call.input_tokens - cached - written) * price.input + call.output_tokens * price.output
    return (spent + cached * price.cached_input + written * price.cache_write) / _MILLION


def worst_case(model: ModelName, prompt: Prompt, table: Mapping[str, Price]) -> float | None:
    """An upper bound in USD for one completion of `prompt`, or None where the price is unknown.

    Input is bounded by one token per byte, which byte-level tokenizers cannot exceed. Two bytes per
    token would not be a bound: Anthropic gives 2.5 characters as the *average* of its current one
    (models overview, October 2026), and tables of numbers lie well below the average.
    """
    price = _find(model, table)
    tokens = most_tokens(prompt)
    if price is None or _beyond(price, tokens):
        return None
    return (tokens * price.dearest_input + prompt.max_output_tokens * price.output) / _MILLION


def most_of(model: ModelName, tokens: int, table: Mapping[str, Price]) -> float | None:
    """An upper bound in USD for calls that come to so many tokens in all, in and out; None where the price
    is unknown."""
    price = _find(model, table)
    return None if price is None else tokens * max(price.dearest_input, price.output) / _MILLION


def _find(model: ModelName, table: Mapping[str, Price]) -> Price | None:
    name = str(model)
    keys = [key for key in table if name == key or _is_snapshot(name, key)]
    return table[max(keys, key=len)] if keys else None


def _is_snapshot(name: str, key: str) -> bool:
    return name.startswith(key) and _SNAPSHOT.fullmatch(name[len(key) :]) is not None


def _beyond(price: Price, input_tokens: int) -> bool:
    return price.up_to is not None and input_tokens > price.up_to


def most_tokens(prompt: Prompt) -> int:
    """The most input tokens that a prompt can come to: one for each byte, and the provider's framing."""
    said = [prompt.system, json.dumps([prompt.schema, *map(asdict, prompt.tools)])]
    for turn in prompt.messages:
        said += [turn.text, turn.reply, *(result.text for result in turn.results)]
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in said) + _FRAMING_TOKENS


def _price(key: str, entry: object) -> Price:
    if not isinstance(entry, Mapping) or not {"input", "output"} <= entry.keys():
        raise ValueError(
            f"price of {key} is {entry!r}: it needs input and output in USD per million tokens, "
            "e.g. {input: 2, output: 10}"
        )
    for name, value in entry.items():
        _check(key, name, value)
    same = {"cached_input": entry["input"], "cache_write": entry["input"]}
    return Price(**{**same, **entry})


def _check(key: str, name: str, value: object) -> None:
    known = [field.name for field in fields(Price)]
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.0)[0]
        raise ValueError(f"price of {key} has the unknown field {name!r}: did you mean {near!r}?")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"price of {key}: {name} is {value!r}: write a number of at least zero")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"price of {key}: {name} is {value!r}: write a number of at least zero")
