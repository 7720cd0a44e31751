"""Where runs take place: what the broker tells the warm parent, and it its keepers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sandbox import privileges


@dataclass(frozen=True)
class Ground:
    """The level, the folder in which each run has a slot, how many there are and how many bytes each may
    hold, the broker's PID, and torch's threads in each run."""

    level: str
    folder: str
    slots: int
    slot_bytes: int
    broker: int
    threads: int

    def slot(self, number: int) -> Path:
        """The folder of a run."""
        return Path(self.folder, str(number))

    def uid(self, slot: int) -> int | None:
        """The user id of a run; None where it stays ours."""
        alone = privileges.is_root() and self.level != "process"
        return privileges.run_uid(self.broker, slot) if alone else None
