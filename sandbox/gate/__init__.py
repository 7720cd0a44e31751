"""The gate: eleven mechanical checks that a written mixer must pass before it trains.

Each asks the candidate in fresh sandboxed processes and judges outside, from the outputs that come back.
It does not say whether a mixer is any good; training does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sandbox.contract import Broken
from sandbox.gate import (
    batch,
    causality,
    copies,
    cost,
    decoding,
    determinism,
    finite,
    learns,
    shapes,
    source,
)
from sandbox.gate.certificate import Certificate, Finding, Row
from sandbox.gate.subject import Budget, Known, Subject, Terms
from sandbox.run import Sandbox

Check = Callable[[Subject], Finding]
UNBUILT = "it cannot be constructed"

CHECKS: dict[str, Check] = {
    "source": source.check,
    "shapes": shapes.check,
    "finite": finite.check,
    "causality": causality.check,
    "batch": batch.check,
    "determinism": determinism.check,
    "step": decoding.check,
    "scaling": cost.scaling,
    "budget": cost.budget,
    "copy": copies.check,
    "learns": learns.check,
}


def certify(
    text: str,
    sandbox: Sandbox,
    terms: Terms | None = None,
    checks: tuple[str, ...] = tuple(CHECKS),
) -> Certificate:
    """The certificate of a `mixer.py`'s text. A candidate that cannot be constructed, or runs out of time,
    fails and is asked nothing more."""
    subject, rows = Subject(text, sandbox, terms or Terms()), list[Row]()
    for name in checks:
        reason = _hopeless(rows, subject)
        rows.append(Row(name, "skip", reason, 0.0) if reason else _row(name, subject))
    behaviour = subject.behaviour or ()
    return Certificate(tuple(rows), subject.level, copies.structure(text), behaviour, subject.cost)


def _row(name: str, subject: Subject) -> Row:
    start = time.perf_counter()
    try:
        finding = CHECKS[name](subject)
    except Broken as error:
        finding = Finding("fail", str(error))
    return Row(name, finding.verdict, finding.detail, time.perf_counter() - start)


def _hopeless(rows: Sequence[Row], subject: Subject) -> str:
    """Why no further check is worth its processes; empty while they are."""
    if subject.hung:
        return "it ran out of time before"
    last = rows[-1] if rows else None
    if last and last.detail == UNBUILT and last.verdict == "skip":
        return UNBUILT
    refused = last and last.name == "source" and last.verdict == "fail"
    return UNBUILT if refused and subject.ask([], {}).said.error else ""


__all__ = ["CHECKS", "Budget", "Certificate", "Finding", "Known", "Row", "Terms", "certify"]
