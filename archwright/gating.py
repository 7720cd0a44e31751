"""A written module's certificate for the command line."""

from __future__ import annotations

from pathlib import Path

from sandbox.gate import Certificate, Terms, certify
from sandbox.gate.copies import catalogue
from sandbox.gate.cost import ALLOWED
from sandbox.run import Sandbox, SandboxError
from search_space.pattern import nearest

LARGEST = 1 << 18  # bytes of a file


def certificate(file: Path, max_cost: str, require: str, unsafe: bool) -> Certificate:
    """The certificate of a `mixer.py`, whatever its name, with the catalogue as what is known.

    Raises ValueError for a file that is no text, an unknown cost class or level, and where no sandbox
    holds; OSError for a file that cannot be read.
    """
    if max_cost not in ALLOWED:
        raise ValueError(f"--max-cost {max_cost!r}: the nearest are {nearest(max_cost, ALLOWED)}")
    text = source(file)
    try:
        with Sandbox(require=require, unsafe=unsafe) as sandbox:
            return certify(text, sandbox, Terms(max_cost=max_cost, known=catalogue()))
    except SandboxError as error:
        raise ValueError(f"no sandbox to run {file} in: {error}") from error


def source(file: Path) -> str:
    """The text of a file. Raises ValueError and OSError."""
    if file.is_dir():
        raise ValueError(
            f"{file} is a folder: name the file with the mixer in it, such as mixer.py"
        )
    data = file.read_bytes()
    if len(data) > LARGEST:
        raise ValueError(f"{file} has {len(data):,} bytes: a mixer's file has at most {LARGEST:,}")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{file} is no UTF-8 text at byte {error.start}: save it as such"
        ) from error
