"""The positive controls: outside of a sandbox every hostile program reaches its goal. What fails everywhere
proves nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hostile import ATTACKS
from identities import OURS, stage


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
