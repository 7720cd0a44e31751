"""Large texts and checkpoints as files named by their content, compressed, beside the database.

A file is written under a temporary name, synced and renamed: a name that exists is a file that is whole.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path


def put(folder: Path, data: bytes, level: int = -1) -> tuple[str, Path]:
    """Keep ``data`` under ``folder`` unless it is there; returns its SHA-256 and its path.

    ``level`` is zlib's: 0 for what does not compress.
    """
    name = hashlib.sha256(data).hexdigest()
    path = folder / name[:2] / f"{name}.z"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, zlib.compress(data, level))
    return name, path


def get(folder: Path, name: str) -> bytes:
    """The data with this SHA-256. Raises FileNotFoundError, or ValueError when it was damaged."""
    path = folder / name[:2] / f"{name}.z"
    try:
        data = zlib.decompress(path.read_bytes())
    except zlib.error:
        data = b""
    if hashlib.sha256(data).hexdigest() != name:
        raise ValueError(
            f"{path}: the content does not have the SHA-256 of its name: restore the file"
        )
    return data


def write_whole(path: Path, data: bytes) -> None:
    """Write ``path`` so that it is either as before or whole, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
