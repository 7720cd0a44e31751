"""A workbench that reports what it reported in recorded calls, in their order. It runs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agents.llm.transcript import conversation
from agents.workspace.tools import GATE, PROBE, REFUSED
from agents.workspace.workbench import FAIL, Report, Workbench
from storage.records import CallRecord

GONE = Report(FAIL, "no such run is recorded")


@dataclass(frozen=True)
class RecordedBench:
    """``bench`` still says what files may be; ``reports`` are those of each tool."""

    bench: Workbench
    reports: Mapping[str, Iterator[Report]]

    @classmethod
    def of(cls, bench: Workbench, calls: Sequence[CallRecord]) -> RecordedBench:
        """What the results in a session's calls say."""
        said = conversation((call.request, call.reply) for call in calls)
        results = [
            turn for turn in said if turn.who == "tool" and not turn.text.startswith(REFUSED)
        ]
        return cls(
            bench,
            {
                tool: iter([Report.read(turn.text) for turn in results if turn.tool == tool])
                for tool in (GATE, PROBE)
            },
        )

    @property
    def material(self) -> Mapping[str, str]:
        return self.bench.material

    def check(self, files: Mapping[str, str]) -> None:
        self.bench.check(files)

    def gate(self, source: str) -> Report:
        return next(self.reports[GATE], GONE)

    def probe(self, source: str, seed: int, seconds: float) -> Report:
        return next(self.reports[PROBE], GONE)
