"""`archwright` commands as a user types them, each a process of its own, without keys of models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ARCHWRIGHT = Path(sys.executable).with_name("archwright")
KEYLESS = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}
LIMIT = 300  # seconds, so that a command that hangs fails


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A command in a folder, in a process group of its own, as a shell starts it."""
    return subprocess.Popen(
        [ARCHWRIGHT, *arguments, "--json"],
        cwd=folder,
        env={**KEYLESS, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def command(folder: Path, *arguments: str) -> Any:
    """The JSON object in the last line of a command's output, once it has ended well."""
    process = start(folder, *arguments)
    try:
        out, err = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])
