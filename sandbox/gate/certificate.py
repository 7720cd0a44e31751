"""A certificate: one row for each check, with its verdict and the numbers behind it. Runs no check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from search_space.primitives import Cost

Verdict = Literal["pass", "fail", "skip"]


@dataclass(frozen=True)
class Finding:
    """What a check found; ``detail`` holds its numbers, and for a failure what to change."""

    verdict: Verdict
    detail: str


@dataclass(frozen=True)
class Row:
    """One check of a certificate."""

    name: str
    verdict: Verdict
    detail: str
    seconds: float


@dataclass(frozen=True)
class Certificate:
    """The rows in the order of the checks; structure and behaviour recognise the candidate when it comes
    again. ``cost`` is what it costs at the budget's size, where there was one."""

    rows: tuple[Row, ...]
    level: str
    structure: str = ""
    behaviour: tuple[float, ...] = ()
    cost: Cost | None = None

    @property
    def verdict(self) -> Verdict:
        """Fail if any check failed, else pass."""
        return "fail" if any(row.verdict == "fail" for row in self.rows) else "pass"

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the failed checks."""
        return tuple(row.name for row in self.rows if row.verdict == "fail")

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "verdict": self.verdict,
            "level": self.level,
            "checks": [asdict(r) for r in self.rows],
        }


def worst(findings: Sequence[Finding]) -> Finding:
    """One finding of several: a failure before a pass, their details together."""
    for verdict in ("fail", "pass", "skip"):
        chosen = [f for f in findings if f.verdict == verdict]
        if chosen:
            return Finding(verdict, "; ".join(f.detail for f in chosen))
    raise ValueError("no findings to choose from: give at least one")
