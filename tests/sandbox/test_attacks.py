"""Every hostile program, at every level, as root and as an ordinary user; and outside of a sandbox, where it
must reach its goal: what fails everywhere proves nothing.

One process per level and user runs them all (`stage`); each program is a test of its own here. All are in
one file, and so on one worker: the state of the host is looked at, which those outside do change.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("who", OURS)
def test_the_attack_works_outside(who: str, name: str) -> None:
    expected = None
    if ATTACKS[name].control == "any" or (ATTACKS[name].control == "root" and who == "root"):
        expected = True
    assert stage(who, "outside")[name] is expected, ATTACKS[name].tries


def test_a_naive_import_is_hijacked(tmp_path: Path) -> None:
    """The control of import-hijack: a script's own folder comes first for a plain interpreter."""
    for name, text in ATTACKS["import-hijack"].inputs.items():
        (tmp_path / name).write_text(text)
    script = tmp_path / "attack.py"
    script.write_text("import torch; print(torch.hijacked)")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.stdout == "True\n"
