"""The folder of a run: made, measured and removed, whatever a hostile program put into it.

Nothing is opened through a link, and depth costs no stack and no descriptors. Changes the working
directory while it removes, so only single-threaded processes of ours may use it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

from sandbox import privileges

DEEPEST = 100  # folders within each other, where we have to walk through them
PARTS = ("in", "out", "tmp")


def make(folder: Path) -> None:
    """The three parts of a run's folder: `in` to read, `out` and `tmp` to write; for its group too.

    They may be there from the slot's last run, whose user was the same. Raises OSError if not empty.
    """
    folder.mkdir(mode=0o755, exist_ok=True)
    for part in PARTS:
        (folder / part).mkdir(exist_ok=True)
        (folder / part).chmod(0o750 if part == "in" else 0o770)
        if any((folder / part).iterdir()):
            raise OSError(errno.ENOTEMPTY, f"{folder / part} holds something of an earlier run")


def used(folder: Path, most: int) -> tuple[int, int]:
    """Bytes and entries below a folder; where it is a file system of its own, also what was deleted
    and is still open. Elsewhere counting stops at ``most`` entries.

    Raises OSError for a folder that its owner closed to us, or that is too deep to be named.
    """
    if folder.is_mount():
        whole = os.statvfs(folder)
        return (whole.f_blocks - whole.f_bfree) * whole.f_frsize, whole.f_files - whole.f_ffree
    size, entries, left = 0, 0, [(str(folder), 0)]
    while left and entries < most:
        path, depth = left.pop()
        if depth > DEEPEST:
            raise OSError(errno.ELOOP, f"more than {DEEPEST} folders within each other")
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(path) as found:
            for entry in found:
                entries += 1
                size += 512 * entry.stat(follow_symlinks=False).st_blocks
                if entry.is_dir(follow_symlinks=False):
                    left.append((entry.path, depth + 1))
                if entries >= most:
                    break
    return size, entries


def clear(folder: Path, uid: int | None = None) -> None:
    """Remove what is in a run's folder, as the run's user what that one may have made.

    Nobody may be writing there any more. Raises OSError where something cannot be removed.
    """
    for part in PARTS:
        with privileges.files_as(None if part == "in" else uid):
            empty(folder / part)


def empty(folder: Path) -> None:
    """Remove all that is in a folder, under the same conditions."""
    home = os.open(".", os.O_PATH | os.O_DIRECTORY)
    try:
        os.chdir(folder)
        _empty()
    finally:
        os.fchdir(home)
        os.close(home)


def _empty() -> None:
    """Empty the working directory: down into the first folder left, up when there is none."""
    path: list[tuple[str, list[str]]] = [("", _unlink())]
    while path:
        name, folders = path[-1]
        if folders:
            inner = folders.pop()
            os.chmod(inner, 0o700)
            os.chdir(inner)
            path.append((inner, _unlink()))
        elif path.pop() and name:
            os.chdir("..")
            os.rmdir(name)


def _unlink() -> list[str]:
    """Remove the files of the working directory; the names of its folders."""
    folders = []
    for name in os.listdir("."):
        if stat.S_ISDIR(os.lstat(name).st_mode):
            folders.append(name)
        else:
            os.unlink(name)
    return folders
