"""Check 7: where a mixer offers `step`, decoding equals the forward pass, and its state is as declared."""

from __future__ import annotations

from typing import Any

from sandbox.contract import Broken
from sandbox.gate.certificate import Finding
from sandbox.gate.errands import Call
from sandbox.gate.passes import FP32
from sandbox.gate.subject import Subject, apart

LENGTH = 24
ALLOWED = 10 * FP32  # a recurrence token by token rounds otherwise than its chunks do (docs/log.md)


def check(subject: Subject) -> Finding:
    """Pass where steps and forward agree; skip where there is no `step`. Raises Broken."""
    shape = (2, LENGTH, subject.terms.width)
    x = subject.normal(4, *shape)
    calls = [Call("two", "step"), Call("one", "step", "one"), Call("y")]
    stepped = subject.ask(calls, {"x": x, "one": x[:1]})
    two, one = stepped.fact("two"), stepped.fact("one")
    if two is None:
        return Finding("skip", "no step(): nothing to compare")
    gap = apart(stepped.y("two", shape), stepped.y("y", shape))
    if gap > ALLOWED:
        return Finding(
            "fail", f"step() differs from forward() by {gap:.2g} of its size (allowed {ALLOWED:g})"
        )
    return _state(two, one, gap)


def state_bytes(two: Any, one: Any) -> int:
    """Per sequence: what a batch of two holds more than one, so that shared tables do not count.

    Raises Broken.
    """
    return _bytes(two) - _bytes(one)


def _state(two: Any, one: Any, gap: float) -> Finding:
    per_row = state_bytes(two, one)
    declared = two.get("declared")
    said = f"steps equal forward within {gap:.1e}; state {per_row} bytes after {LENGTH} tokens"
    if declared is None:
        return Finding("pass", f"{said}, none declared")
    if declared != per_row:
        return Finding("fail", f"{said}, but state_bytes({LENGTH}) says {declared}: correct it")
    return Finding("pass", f"{said}, as declared")


def _bytes(fact: Any) -> int:
    if not isinstance(fact, dict) or not isinstance(fact.get("bytes"), int):
        raise Broken("no size of the state came back")
    return int(fact["bytes"])
