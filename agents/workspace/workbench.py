"""The port behind which written code is examined and trained: an agent asks, others do it.

`archwright.workbench` is behind it, in the sandbox. Nothing that comes through it is ever a score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

PASS, FAIL = "pass", "fail"


@dataclass(frozen=True)
class Report:
    """What came of examining or training a file: ``verdict`` is `pass` or `fail`. Its text, which the agent
    is given, reads back as the same."""

    verdict: str
    detail: str

    def __str__(self) -> str:
        return f"{self.verdict}\n{self.detail}"

    @classmethod
    def read(cls, text: str) -> Report:
        verdict, _, detail = text.partition("\n")
        return cls(verdict, detail)


class Workbench(Protocol):
    """What an agent's session may ask for beside its model. A fault that is not the file's is raised."""

    @property
    def material(self) -> Mapping[str, str]:
        """Files to read, by name."""
        ...

    def check(self, files: Mapping[str, str]) -> None:
        """Raise ValueError, in words for the agent, for files that no workspace may hold."""
        ...

    def gate(self, source: str) -> Report:
        """The certificate of a file."""
        ...

    def probe(self, source: str, seed: int, seconds: float) -> Report:
        """A short training and its score, on data that are drawn for this ``seed``, in about ``seconds`` at
        most."""
        ...
