"""Who gets the next slot: a pure function of the slots before it, so that a run is reproducible.

The search as a whole and each control are *arms* with an equal quota. It evaluates nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ATTEMPTS = 3  # slots an arm may use per evaluation of its quota, so that duplicates cannot go on
# The provider's trouble is nobody's attempt; an agent whose key is refused, or whose record is at its
# end, cannot go on.
STOPPING = frozenset({"auth", "unrecorded"})
UNCHARGED = STOPPING | {"rate_limited", "overloaded", "server_error", "timeout", "connection"}


@dataclass(frozen=True)
class Arm:
    """Agents that share a quota of charged slots."""

    name: str
    agents: tuple[str, ...]
    quota: int


@dataclass(frozen=True)
class Slot:
    """An earlier slot: whose it was, and what came of it as far as that is known."""

    agent: str
    status: str = "asked"  # as the ledger has it
    failure: str | None = None

    @property
    def charged(self) -> bool:
        """Whether it used up quota; one whose outcome is not known counts as if it had."""
        return self.status != "duplicate" and self.failure not in UNCHARGED


def next_agent(arms: Sequence[Arm], earlier: Sequence[Slot]) -> str | None:
    """The agent of the next slot: of the arm that has used the least of its quota, in turn.

    None when no arm has room.
    """
    stopped = {slot.agent for slot in earlier if slot.failure in STOPPING}
    open_arms = [arm for arm in arms if _room(arm, earlier, stopped)]
    if not open_arms:
        return None
    arm = min(open_arms, key=lambda a: _used(a, earlier) / a.quota)
    going = [agent for agent in arm.agents if agent not in stopped]
    return min(going, key=lambda agent: sum(slot.agent == agent for slot in earlier))


def _used(arm: Arm, earlier: Sequence[Slot]) -> int:
    return sum(slot.charged for slot in earlier if slot.agent in arm.agents)


def _room(arm: Arm, earlier: Sequence[Slot], stopped: set[str]) -> bool:
    asked = sum(slot.agent in arm.agents for slot in earlier)
    alive = any(agent not in stopped for agent in arm.agents)
    return alive and _used(arm, earlier) < arm.quota and asked < ATTEMPTS * arm.quota
