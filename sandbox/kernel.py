"""The few system calls that Python does not offer, through ctypes; each raises OSError as its own would."""

from __future__ import annotations

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38


def checked(result: int, what: str) -> int:
    """The result of a call, unless it is the -1 that stands for errno."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, *arguments: int) -> int:
    """`prctl(2)`; arguments that are not given are zero."""
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)][:4]
    return checked(LIBC.prctl(option, *padded), f"prctl {option}")


def syscall(number: int, *arguments: object) -> int:
    """`syscall(2)` with integers or ctypes objects."""
    values = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return checked(LIBC.syscall(ctypes.c_long(number), *values), f"syscall {number}")
