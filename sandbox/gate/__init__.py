"""The gate: eleven mechanical checks that a written mixer must pass before it trains.

Each asks the candidate in fresh sandboxed processes and judges outside, from the outputs that come back.
It does not say whether a mixer is any good; training does.
"""

from __future__ import annotations

import time
from collections.abc import Callable

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
    """The certificate of a `mixer.py`'s text. A candidate that cannot be constructed fails and is asked
    nothing more."""
    subject, rows = Subject(text, sandbox, terms or Terms()), list[Row]()
    for name in checks:
        rows.append(_row(name, subject))
        if name == "source" and rows[0].verdict == "fail" and not _constructs(subject):
            rows += [Row(n, "skip", "it cannot be constructed", 0.0) for n in checks[1:]]
            break
    behaviour = subject.behaviour or ()
    return Certificate(tuple(rows), subject.level, copies.structure(text), behaviour)


def _row(name: str, subject: Subject) -> Row:
    start = time.perf_counter()
    try:
        finding = CHECKS[name](subject)
    except Broken as error:
        finding = Finding("fail", str(error))
    return Row(name, finding.verdict, finding.detail, time.perf_counter() - start)


def _constructs(subject: Subject) -> bool:
    return not subject.ask([], {}).said.error


__all__ = ["CHECKS", "Budget", "Certificate", "Finding", "Known", "Row", "Terms", "certify"]
