"""What `archwright doctor` says of the sandbox; the rest of it is in test_cli, after campaigns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ARCHWRIGHT = Path(sys.executable).with_name("archwright")


def doctor(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [ARCHWRIGHT, "doctor", "--json", *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


def test_a_level_that_is_required_and_does_not_hold_fails_with_its_fix(tmp_path: Path) -> None:
    for program in (p for folder in ("/usr/bin", "/bin") for p in Path(folder).iterdir()):
        if program.name != "bwrap" and not (tmp_path / program.name).is_symlink():
            (tmp_path / program.name).symlink_to(program)
    done = doctor("--require-sandbox", "bubblewrap", PATH=str(tmp_path))
    rows = {row["name"]: row for row in json.loads(done.stdout.splitlines()[-1])["checks"]}
    assert done.returncode == 1
    assert rows["sandbox"]["ok"] is False
    assert rows["sandbox bubblewrap"]["ok"] is None
    assert "apt-get install bubblewrap" in rows["sandbox bubblewrap"]["detail"]
    assert "sandbox landlock" in rows, "what would hold is said all the same"


def test_an_unknown_level_is_one_sentence() -> None:
    done = doctor("--require-sandbox", "bublewrap")
    assert done.returncode == 2
    assert "choose one of process, landlock, bubblewrap" in done.stderr
    assert "Traceback" not in done.stderr
