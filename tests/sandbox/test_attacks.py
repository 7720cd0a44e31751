"""Every hostile program, at every level, as root and as an ordinary user. That they succeed outside is in
test_controls.

One process per level and user runs them all (`stage`); each program is a test of its own here.
"""

from __future__ import annotations

import pytest
from hostile import ATTACKS
from identities import OURS, stage

from sandbox import levels

LEVELS = ("landlock", "bubblewrap")


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("who", OURS)
def test_an_attack_fails(who: str, level: str, name: str) -> None:
    words = ATTACKS[name].unstopped.get(level)
    if words:
        assert words in " ".join(str(levels.__doc__).split()), f"{level} does not stop {name}"
    else:
        assert stage(who, level)[name] == [], ATTACKS[name].tries


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("who", OURS)
def test_nothing_is_left_for_the_next_run(who: str, level: str) -> None:
    assert stage(who, level)["leftovers"] == []


def test_there_are_enough_of_them() -> None:
    assert len(ATTACKS) >= 40
    assert all(attack.tries for attack in ATTACKS.values())
