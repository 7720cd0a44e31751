"""How a run ended, in types that the orchestrator may record and an agent may read."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """Why a run ended. All but OK are the program's own doing: a fault of ours is a SandboxError."""

    OK = "ok"  # it returned, and every declared result is valid
    CRASHED = "crashed"  # it raised, was killed by a signal, or left with a code of its own
    TIMEOUT = "timeout"  # wall-clock seconds
    CPU = "cpu"  # CPU seconds
    MEMORY = "memory"  # bytes, or an allocation that failed
    PROCESSES = "processes"  # too many processes and threads
    SCRATCH = "scratch"  # too many bytes or files written, or a folder closed to us
    OUTPUT = "output"  # too much printed
    BAD_RESULT = "bad-result"  # a declared result is missing or invalid


@dataclass(frozen=True)
class Ended:
    """What came of a run. Everything in it but ``level`` and ``seconds`` is the program's word.

    ``code``: its exit code, negative for a signal, None where it was ended by us. ``files``: the
    declared results by name, parsed; empty unless the outcome is OK. ``log``: head and tail of what it
    printed, without control characters. ``seconds``: wall-clock, from its start. ``detail``: one
    sentence for whoever has to mend it.
    """

    outcome: Outcome
    code: int | None
    files: dict[str, Any] = field(repr=False)
    log: str
    seconds: float
    level: str
    detail: str


class SandboxError(Exception):
    """The sandbox itself failed, through no fault of the program in it; says the way out."""
