"""Check 6: the same input gives the same output: again, after other inputs, after many calls, in another
process, and at another time of day."""

from __future__ import annotations

from sandbox.contract import Broken
from sandbox.gate.certificate import Finding
from sandbox.gate.errands import Call
from sandbox.gate.passes import BATCH, MODES, Mode, call, inputs, shape, whole
from sandbox.gate.subject import Subject, apart

LENGTH, CALLS = 11, 70  # tokens of the input that is repeated, and how often
LATER = 4118.5 * 86_400  # seconds: years, a season and half a day
SAME = 1e-5  # of the output's size; on one machine equal calls were bit-equal (docs/log.md)


def check(subject: Subject) -> Finding:
    """Pass where every repetition agrees with the first call in a process of its own. Raises Broken."""
    xs = inputs(subject)
    answer = subject.ask([one for mode in MODES[:2] for one in _calls(mode)], xs)
    for mode in MODES[:2]:
        for again in ("first", "between", "after many"):
            _agree(subject, answer.y(f"{again} {mode.name}", shape(subject, LENGTH)), mode, again)
    answer = subject.ask([call(mode, str(LENGTH)) for mode in MODES[:2]], xs, clock=LATER)
    for mode in MODES[:2]:
        y = answer.y(f"{mode.name} {LENGTH}", shape(subject, LENGTH))
        _agree(subject, y, mode, "years later, at another time of day,")
    return Finding("pass", f"equal over {CALLS} calls, between others, in 3 processes, at 2 times")


def _calls(mode: Mode) -> list[Call]:
    x, other = str(LENGTH), "64"
    return [
        call(mode, other, f"warm {mode.name}"),
        call(mode, x, f"first {mode.name}"),
        call(mode, other, f"other {mode.name}"),
        call(mode, x, f"between {mode.name}"),
        Call(f"many {mode.name}", "repeat", x, mode.training, False, (CALLS,)),
        call(mode, x, f"after many {mode.name}"),
    ]


def _agree(subject: Subject, y: object, mode: Mode, what: str) -> None:
    expected = whole(subject).y(f"{mode.name} {LENGTH}", shape(subject, LENGTH))
    gap = apart(y, expected)  # type: ignore[arg-type]
    if gap > SAME:
        raise Broken(
            f"called {what} ({mode.name}, {BATCH} x {LENGTH} tokens), the output differs by {gap:.2g} of "
            "its size from a fresh process: keep nothing between calls and read no clock"
        )
