"""Properties of the schedule, by driving it through random campaigns with random outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from archwright.schedule import ATTEMPTS, STOPPING, UNCHARGED, Arm, Slot, next_agent

OUTCOMES = [
    ("accepted", None),
    ("accepted", None),
    ("duplicate", None),
    ("failed", "invalid-reply"),
    ("failed", "infrastructure"),
    *(("failed", kind) for kind in sorted(UNCHARGED)),  # those that stop an agent among them
]
outcomes = st.lists(st.sampled_from(OUTCOMES), max_size=80)


@st.composite
def arms(draw: st.DrawFn) -> list[Arm]:
    """A search of one to three agents and up to three controls of one agent, with one quota."""
    quota = draw(st.integers(1, 6))
    search = Arm("search", tuple(f"s{i}" for i in range(draw(st.integers(1, 3)))), quota)
    controls = [Arm(f"c{i}", (f"c{i}",), quota) for i in range(draw(st.integers(0, 3)))]
    return [search, *controls]


@dataclass
class Story:
    """A campaign as it went: what is true, and what each decision saw."""

    slots: list[Slot] = field(default_factory=list)
    decisions: list[tuple[list[Slot], str | None]] = field(default_factory=list)


def play(
    arms: Sequence[Arm],
    fates: Sequence[tuple[str, str | None]],
    lag: int = 1,
    rest: tuple[str, str | None] = ("accepted", None),
) -> Story:
    """Ask until nobody is left; slot k ends as fate k. A decision sees slots up to k - lag, and all
    of them before it gives up, as the driver does."""
    story = Story()
    while True:
        for seen in (max(0, len(story.slots) - lag + 1), len(story.slots)):
            earlier = story.slots[:seen] + [Slot(s.agent) for s in story.slots[seen:]]
            agent = next_agent(arms, earlier)
            story.decisions.append((earlier, agent))
            if agent is not None:
                break
        if agent is None:
            return story
        k = len(story.slots)
        assert k < 1000, "the schedule does not end"
        story.slots.append(Slot(agent, *(fates[k] if k < len(fates) else rest)))


def of(arm: Arm, slots: Sequence[Slot]) -> list[Slot]:
    return [slot for slot in slots if slot.agent in arm.agents]


def charged(arm: Arm, slots: Sequence[Slot]) -> int:
    """Slots that count against a quota, written down anew rather than asked of the schedule."""
    free = {
        "rate_limited",
        "overloaded",
        "server_error",
        "timeout",
        "connection",
        "auth",
        "unrecorded",
    }
    return sum(s.status != "duplicate" and s.failure not in free for s in of(arm, slots))


@given(arms(), outcomes, st.integers(1, 5))
def test_no_arm_ever_gets_more_than_its_quota(
    arms: list[Arm], fates: list[tuple[str, str | None]], lag: int
) -> None:
    slots = play(arms, fates, lag).slots
    for arm in arms:
        assert charged(arm, slots) <= arm.quota


@given(arms(), outcomes, st.integers(1, 5))
def test_every_arm_gets_its_whole_quota_unless_it_stopped_or_used_its_attempts(
    arms: list[Arm], fates: list[tuple[str, str | None]], lag: int
) -> None:
    slots = play(arms, fates, lag).slots
    for arm in arms:
        stopped = {s.agent for s in slots if s.failure in ("auth", "unrecorded")}
        exhausted = len(of(arm, slots)) >= ATTEMPTS * arm.quota
        if not exhausted and not set(arm.agents) <= stopped:
            assert charged(arm, slots) == arm.quota


@given(arms(), st.integers(1, 5))
def test_without_trouble_all_arms_get_exactly_the_same(arms: list[Arm], lag: int) -> None:
    slots = play(arms, [], lag).slots
    assert {len(of(arm, slots)) for arm in arms} == {arms[0].quota}


@given(arms(), st.integers(1, 5))
def test_arms_and_the_agents_within_one_take_turns(arms: list[Arm], lag: int) -> None:
    slots = play(arms, [], lag).slots
    for k in range(len(slots) + 1):
        used = [len(of(arm, slots[:k])) for arm in arms]
        assert max(used) - min(used) <= 1
        asked = [sum(s.agent == agent for s in slots[:k]) for agent in arms[0].agents]
        assert max(asked) - min(asked) <= 1


@given(arms(), outcomes, st.integers(1, 5))
def test_an_agent_known_to_have_stopped_is_not_asked_again(
    arms: list[Arm], fates: list[tuple[str, str | None]], lag: int
) -> None:
    for earlier, agent in play(arms, fates, lag).decisions:
        assert agent not in {s.agent for s in earlier if s.failure == "auth"}


def test_what_is_left_of_an_arm_goes_on_without_the_agent_that_stopped() -> None:
    arm = Arm("search", ("a", "b"), 4)
    slots = play([arm], [("failed", "auth")]).slots
    assert [s.agent for s in slots] == ["a", "b", "b", "b", "b"], (
        "a refused key is nobody's attempt"
    )


@given(arms(), st.sampled_from(["duplicate", *sorted(UNCHARGED - STOPPING)]), st.integers(1, 5))
def test_it_ends_even_if_nothing_is_ever_charged(arms: list[Arm], trouble: str, lag: int) -> None:
    """An exhausted space, or a provider that is down for good."""
    fate = ("duplicate", None) if trouble == "duplicate" else ("failed", trouble)
    slots = play(arms, [], lag, rest=fate).slots
    assert [len(of(arm, slots)) for arm in arms] == [ATTEMPTS * arm.quota for arm in arms]


@given(arms(), outcomes, st.integers(1, 5))
def test_no_arm_is_asked_more_often_than_its_attempts(
    arms: list[Arm], fates: list[tuple[str, str | None]], lag: int
) -> None:
    slots = play(arms, fates, lag).slots
    assert all(len(of(arm, slots)) <= ATTEMPTS * arm.quota for arm in arms)


@given(arms(), outcomes)
def test_the_choice_is_pure(arms: list[Arm], fates: list[tuple[str, str | None]]) -> None:
    for earlier, agent in play(arms, fates).decisions:
        before = list(earlier)
        assert next_agent(tuple(arms), tuple(earlier)) == agent
        assert earlier == before


@given(arms(), st.lists(st.sampled_from(OUTCOMES), max_size=5))
def test_the_references_slots_count_for_nobody(
    arms: list[Arm], fates: list[tuple[str, str | None]]
) -> None:
    references = [Slot("references", *fate) for fate in fates]
    assert next_agent(arms, references) == next_agent(arms, [])


def test_what_is_not_known_yet_counts_as_used() -> None:
    arm = Arm("search", ("a",), 1)
    assert next_agent([arm], [Slot("a")]) is None
    assert next_agent([arm], [Slot("a", "duplicate")]) == "a"
    assert next_agent([arm], [Slot("a", "failed", "timeout")]) == "a"
    assert next_agent([arm], [Slot("a", "failed", "invalid-reply")]) is None
