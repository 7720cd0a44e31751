"""Every hostile program, at every level, as root and as an ordinary user; and outside, where it succeeds.

One process per level and user runs them all (`stage`); each program is a test of its own here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hostile import ATTACKS
from identities import OURS, run_as

from sandbox import levels

STAGE = Path(__file__).with_name("stage.py")
LEVELS = ("landlock", "bubblewrap")


@cache
def stage(who: str, where: str) -> dict[str, Any]:
    """What `stage` printed. A level that the machine does not offer is skipped, but never by CI."""
    done = run_as(who, [sys.executable, str(STAGE), where], timeout=300)
    if "SandboxError" in done.stderr and not os.environ.get("CI"):
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


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


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("who", OURS)
def test_the_attack_works_outside(who: str, name: str) -> None:
    """The positive control: what fails everywhere proves nothing."""
    expected = None
    if ATTACKS[name].control == "any" or (ATTACKS[name].control == "root" and who == "root"):
        expected = True
    assert stage(who, "outside")[name] is expected, ATTACKS[name].tries


def test_there_are_enough_of_them() -> None:
    assert len(ATTACKS) >= 40
    assert all(attack.tries for attack in ATTACKS.values())


def test_a_naive_import_is_hijacked(tmp_path: Path) -> None:
    """The control of import-hijack: a script's own folder comes first for a plain interpreter."""
    for name, text in ATTACKS["import-hijack"].inputs.items():
        (tmp_path / name).write_text(text)
    script = tmp_path / "attack.py"
    script.write_text("import torch; print(torch.hijacked)")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.stdout == "True\n"
