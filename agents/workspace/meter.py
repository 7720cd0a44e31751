"""What a session may still spend: turns, tokens, seconds, and its share of the campaign's money.

Asked before each call, at the most that the call can take, so that no limit is passed but that of the
first call, without which there is no session. Seconds are asked for, too, but a call or a tool that has begun
is not broken off.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from agents.llm import Call, Prompt
from agents.llm.prices import most_tokens
from agents.scaffolds.base import Limits
from storage.records import Allowance, Money


class Meter:
    """Counts one session. ``price`` is the most that a prompt can cost, None where that is not known."""

    def __init__(
        self, limits: Limits, allowance: Allowance, price: Callable[[Prompt], float | None]
    ) -> None:
        self.limits, self.allowance, self._price = limits, allowance, price
        self.turns = self.tokens = 0
        self.spent = Money()
        self._began = time.monotonic()

    def count(self, prompt: Prompt, call: Call, usd: float | None) -> None:
        """Add a call; what was not counted over there counts at its most."""
        self.turns += 1
        told = call.input_tokens, call.output_tokens
        known = None not in told
        self.tokens += sum(n or 0 for n in told) if known else _most(prompt)
        self.spent += Money(1, self._price(prompt) if usd is None else usd)

    @property
    def seconds_left(self) -> float:
        bounds = [self.limits.seconds, self.allowance.seconds]
        return min(b for b in bounds if b is not None) - (time.monotonic() - self._began)

    def short(self, prompt: Prompt) -> str:
        """Which limit another call could pass, with the numbers; empty while there is room for it."""
        limits, allowed, turns = self.limits, self.allowance, self.turns
        if not turns:
            return ""
        if turns >= limits.turns:
            return f"turns: {limits.turns} are used"
        if allowed.calls is not None and turns >= allowed.calls:
            return f"calls: {allowed.calls} are used, and the campaign has no more"
        if self.tokens + _most(prompt) > limits.tokens:
            return (
                f"tokens: {self.tokens:,} are used of {limits.tokens:,}, too many for another call"
            )
        if self.seconds_left <= 0:
            return f"seconds: {min(limits.seconds, allowed.seconds or limits.seconds):g} are over"
        return self._short_of_money(prompt)

    def _short_of_money(self, prompt: Prompt) -> str:
        allowed, next_ = self.allowance.usd, self.spent + Money(1, self._price(prompt))
        if allowed is None or (next_.usd is not None and next_.usd <= allowed):
            return ""
        return f"usd: {self.spent.usd} is spent of {allowed:g}, too much for another call"

    def told(self) -> str:
        """How far the session is, for the model: nothing that depends on the machine's speed, since a replay
        asks the same again."""
        limits = self.limits
        return f"[turn {self.turns} of {limits.turns}; {self.tokens:,} of {limits.tokens:,} tokens used]"


def quote(
    limits: Limits, allowance: Allowance, first: Money, most: Callable[[int], float | None]
) -> Money:
    """What a session can cost: its limits or its allowance, whichever is less, but a ``first`` call in any
    case. ``most`` is the most that so many tokens can cost."""
    calls, usd = limits.turns, most(limits.tokens)
    if allowance.calls is not None:
        calls = min(calls, allowance.calls)
    if usd is not None and allowance.usd is not None:
        usd = min(usd, allowance.usd)
    known = usd is not None and first.usd is not None
    return Money(max(calls, 1), max(usd or 0, first.usd or 0) if known else None)


def _most(prompt: Prompt) -> int:
    return most_tokens(prompt) + prompt.max_output_tokens
