"""Opens declared results in a run's `out/`, trusting nothing that lies there: no link, FIFO or device is
followed, and no more is read than was declared. Does not parse: that is `sandbox.results`.

Runs in the keeper, which holds no secret: the worst that a trick could read is what the run had itself.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sandbox.results import BadResult

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PLAIN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def collect(out: Path, declared: dict[str, int]) -> dict[str, bytes]:
    """The bytes of each declared file, by its name; ``declared`` are the bytes taken at most.

    Raises BadResult.
    """
    try:
        folder = os.open(out, FOLDER)
    except OSError as error:
        raise BadResult(f"out/ cannot be opened: {error.strerror}") from error
    try:
        return {name: _read(folder, name, most) for name, most in declared.items()}
    finally:
        os.close(folder)


def _read(folder: int, name: str, most: int) -> bytes:
    try:
        file = os.open(name, PLAIN, dir_fd=folder)
    except OSError as error:  # ELOOP for a link
        raise BadResult(f"out/{name} cannot be opened: {error.strerror}") from error
    try:
        return _content(file, name, most)
    finally:
        os.close(file)


def _content(file: int, name: str, most: int) -> bytes:
    found = os.fstat(file)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise BadResult(f"out/{name} is no plain file with one name")
    if found.st_size > most:
        raise BadResult(f"out/{name} has {found.st_size} bytes, more than {most}")
    data = bytearray()
    while part := os.read(file, most + 1 - len(data)):
        data += part
    if len(data) > most:
        raise BadResult(f"out/{name} grew while it was read")
    return bytes(data)
