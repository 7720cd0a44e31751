"""Commands as a user types them, in processes of their own, without the keys of models."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ARCHWRIGHT = Path(sys.executable).with_name("archwright")
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")}


def command(folder: Path, *arguments: str) -> Any:
    """The JSON object in the last line of a command's output."""
    done = subprocess.run(
        [ARCHWRIGHT, *arguments, "--json"],
        cwd=folder,
        env={**ENVIRONMENT, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
